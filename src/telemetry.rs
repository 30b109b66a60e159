//! Logs: structured lines with the request's id. What must never be logged is kept out where it lives: secrets, tokens,
//! passwords and presigned URLs have types whose Debug says nothing.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::LogFormat;

/// Starts logging to standard error. `RUST_LOG` decides what is logged (default: info).
///
/// The HTTP libraries' own debug lines hold whole requests, presigned queries and all, so they stay off whatever
/// `RUST_LOG` says.
pub fn start(format: LogFormat) {
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,poem=warn"));
    // A filter of its own: within one, a directive for a module would outrank the library's. Names are prefixes.
    let libraries = ["aws_", "hyper", "h2", "rustls", "s3s", "mongodb"];
    let quiet = Targets::new().with_default(LevelFilter::TRACE).with_targets(libraries.map(|name| (name, LevelFilter::WARN)));
    let registry = tracing_subscriber::registry().with(chosen).with(quiet);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second call, as tests make, changes nothing.
    let _ = match format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
    };
}
