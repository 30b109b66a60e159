//! Logs (structured lines with request id and trace id) and the export of spans. Neither contains secrets:
//! secret settings, tokens, passwords and presigned URLs have types whose Debug output omits them.

pub mod context;
mod json_lines;
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

use self::{
    context::TraceContext,
    json_lines::{JsonLines, Members},
};
use crate::config::LogFormat;

/// Target of the span around each request, and of the lines of the audit log.
pub const AUDIT: &str = "audit";

/// Starts logging to standard error, and exporting spans if this build supports it and a collector is configured. `RUST_LOG`
/// filters the lines (default: info).
///
/// The debug lines of the HTTP libraries contain whole requests with presigned queries, so they stay off regardless of
/// `RUST_LOG`.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,poem=warn"));
    // The request's span stays on regardless of the filter: every line carries its request id.
    let filter = filter.or(filter_fn(|metadata| metadata.is_span() && metadata.target() == AUDIT));
    // A separate filter: within one filter, a directive for a module would outrank the library's. Names are prefixes.
    let libraries = ["aws_", "hyper", "h2", "rustls", "s3s", "mongodb", "opentelemetry"];
    let quiet = Targets::new().with_default(LevelFilter::TRACE).with_targets(libraries.map(|name| (name, LevelFilter::WARN)));
    let shown = filter.and(quiet.with_target(spans::TARGET, LevelFilter::OFF));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Json => lines.fmt_fields(Members).event_format(JsonLines).with_filter(shown).boxed(),
        LogFormat::Text => lines.with_target(false).with_filter(shown).boxed(),
    };
    let (exported, problem) = match export_layer() {
        Ok(exported) => (exported, None),
        Err(problem) => (None, Some(problem)),
    };
    // A second call, as in tests, has no effect.
    let _ = tracing_subscriber::registry().with(lines).with(exported).try_init();
    if let Some(problem) = problem {
        tracing::warn!(problem, "failed to start exporting traces");
    }
}

/// Sends the spans that are still queued, within seconds, before the process ends.
pub async fn stop() {
    #[cfg(feature = "otlp")]
    otlp::stop().await;
}

/// Returns the exporter of spans, if a collector is configured.
#[cfg(feature = "otlp")]
fn export_layer<S>() -> Result<Option<impl Layer<S>>, String>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let layer = |tracer| {
        // Only our own attributes: no source locations, threads or log lines.
        let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
        let layer = layer.with_tracked_inactivity(false).with_target(false).with_context_activation(false);
        layer.with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == spans::TARGET))
    };
    Ok(otlp::tracer()?.map(layer))
}

/// Returns no exporter, or an error if a collector is configured.
#[cfg(not(feature = "otlp"))]
fn export_layer() -> Result<Option<tracing_subscriber::layer::Identity>, String> {
    let names = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    match names.into_iter().find(|name| std::env::var(name).is_ok_and(|value| !value.is_empty())) {
        Some(name) => Err(format!("{name} is set, but this build lacks the feature otlp")),
        None => Ok(None),
    }
}

/// Makes a span a child of the caller's and returns its trace and span ids. `None` without a collector.
#[cfg_attr(not(feature = "otlp"), allow(unused_variables))]
fn continue_trace(span: &tracing::Span, caller: Option<&TraceContext>) -> Option<(u128, u64)> {
    #[cfg(feature = "otlp")]
    return otlp::continue_trace(span, caller);
    #[cfg(not(feature = "otlp"))]
    None
}
