//! The command `valet decode`, which a worker starts as a child: [`valet::decoder`].

use valet::decoder;

#[derive(clap::Args)]
pub struct DecodeArguments {
    /// The limits are set: given by the process to itself.
    #[arg(long)]
    limited: bool,
    /// Execute this command instead, within limits.
    #[arg(long, num_args = 1.., allow_hyphen_values = true)]
    command: Vec<std::ffi::OsString>,
    /// Attempt to leave the sandbox, for its tests.
    #[cfg(feature = "dev")]
    #[arg(long)]
    attempt: Option<String>,
}

/// Runs the command, and ends the process.
pub fn run(arguments: &DecodeArguments) {
    if !arguments.command.is_empty() {
        std::process::exit(i32::from(decoder::limit_and_execute(&arguments.command).is_err()));
    }
    let attempt = attempt(arguments);
    if !arguments.limited {
        let own = std::env::args().skip(1).chain(["--limited".to_owned()]);
        decoder::limit_and_restart(&own.collect::<Vec<_>>());
    }
    // The worker reads the status alone.
    std::process::exit(i32::from(decoder::run(attempt).is_err()));
}

#[cfg(feature = "dev")]
fn attempt(arguments: &DecodeArguments) -> fn() {
    arguments.attempt.as_deref().and_then(decoder::attempts::named).unwrap_or(|| {})
}

#[cfg(not(feature = "dev"))]
fn attempt(_: &DecodeArguments) -> fn() {
    || {}
}
