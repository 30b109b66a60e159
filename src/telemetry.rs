//! Logs: structured lines with the request's id. What must never be logged is kept out where it lives: secrets, tokens,
//! passwords and presigned URLs have types whose Debug says nothing.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Starts logging to standard error. `RUST_LOG` decides what is logged (default: info).
///
/// The HTTP libraries' own debug lines hold whole requests, presigned queries and all, so they stay off whatever
/// `RUST_LOG` says.
pub fn start(format: LogFormat) {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,poem=warn"));
    for library in [
        "aws_sdk_s3",
        "aws_config",
        "aws_runtime",
        "aws_smithy_runtime",
        "aws_smithy_runtime_api",
        "aws_sigv4",
        "hyper",
        "hyper_util",
        "h2",
        "s3s",
    ] {
        if let Ok(directive) = format!("{library}=warn").parse() {
            filter = filter.add_directive(directive);
        }
    }
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second call, as tests make, changes nothing.
    let _ = match format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
    };
}
