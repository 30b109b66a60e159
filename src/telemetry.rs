//! Logs: structured lines with the request's id and its place in a trace; and the spans of that trace. What must never be
//! logged is kept out where it lives: secrets, tokens, passwords and presigned URLs have types whose Debug says nothing.

pub mod context;
#[cfg(feature = "otlp")]
mod otlp;
pub mod spans;

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, Targets, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use self::context::TraceContext;
use crate::config::LogFormat;

/// The target of the span around each request, and of the audit log's lines.
pub const AUDIT: &str = "audit";

/// Starts logging to standard error, and exporting spans where this build can and the environment says so. `RUST_LOG`
/// decides what is logged (default: info).
///
/// The HTTP libraries' own debug lines hold whole requests, presigned queries and all, so they stay off whatever
/// `RUST_LOG` says.
pub fn start(format: LogFormat) {
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,poem=warn"));
    // Whatever else is logged, a line says which request it belongs to.
    let chosen = chosen.or(filter_fn(|about| about.is_span() && about.target() == AUDIT));
    // A filter of its own: within one, a directive for a module would outrank the library's. Names are prefixes.
    let libraries = ["aws_", "hyper", "h2", "rustls", "s3s", "mongodb", "opentelemetry"];
    let quiet = Targets::new().with_default(LevelFilter::TRACE).with_targets(libraries.map(|name| (name, LevelFilter::WARN)));
    let shown = chosen.and(quiet.with_target(spans::TARGET, LevelFilter::OFF));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(shown).boxed(),
        LogFormat::Text => lines.with_target(false).with_filter(shown).boxed(),
    };
    let (exported, problem) = match exported() {
        Ok(exported) => (exported, None),
        Err(problem) => (None, Some(problem)),
    };
    // A second call, as tests make, changes nothing.
    let _ = tracing_subscriber::registry().with(lines).with(exported).try_init();
    if let Some(problem) = problem {
        tracing::warn!(problem, "traces are not exported");
    }
}

/// Sends what spans still wait to be sent, within seconds: before the process ends.
pub async fn stop() {
    #[cfg(feature = "otlp")]
    otlp::stop().await;
}

/// Returns the exporter of spans, if a collector is configured.
#[cfg(feature = "otlp")]
fn exported<S>() -> Result<Option<impl Layer<S>>, String>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let layer = |tracer| {
        // Attributes are ours alone: no source locations, threads or lines of the log.
        let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
        let layer = layer.with_tracked_inactivity(false).with_target(false).with_context_activation(false);
        layer.with_filter(filter_fn(|about| about.is_span() && about.target() == spans::TARGET))
    };
    Ok(otlp::tracer()?.map(layer))
}

#[cfg(not(feature = "otlp"))]
fn exported() -> Result<Option<tracing_subscriber::layer::Identity>, String> {
    let names = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    match names.into_iter().find(|name| std::env::var(name).is_ok_and(|value| !value.is_empty())) {
        Some(name) => Err(format!("{name} is set, and this build is without the feature otlp")),
        None => Ok(None),
    }
}

/// Makes a span a child of the caller's and returns its trace and span ids. `None` without a collector.
#[cfg_attr(not(feature = "otlp"), allow(unused_variables))]
fn join(span: &tracing::Span, caller: Option<&TraceContext>) -> Option<(u128, u64)> {
    #[cfg(feature = "otlp")]
    return otlp::join(span, caller);
    #[cfg(not(feature = "otlp"))]
    None
}
