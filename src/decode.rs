//! The command `valet decode`, which a worker starts as a child process; [`valet::decoder`] has its code.

use valet::decoder;

#[derive(clap::Args)]
pub struct DecodeArguments {
    /// Set by the process itself, after it has set its limits.
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
        let arguments = std::env::args().skip(1).chain(["--limited".to_owned()]);
        decoder::limit_and_restart(&arguments.collect::<Vec<_>>());
    }
    // Of an error, the worker sees only the exit status.
    std::process::exit(i32::from(decoder::run(attempt).is_err()));
}

/// Returns the attempt to leave the sandbox that `--attempt` names, or a function that does nothing.
#[cfg(feature = "dev")]
fn attempt(arguments: &DecodeArguments) -> fn() {
    arguments.attempt.as_deref().and_then(decoder::attempts::named).unwrap_or(|| {})
}

/// Returns a function that does nothing.
#[cfg(not(feature = "dev"))]
fn attempt(_: &DecodeArguments) -> fn() {
    || {}
}
