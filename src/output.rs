//! What commands print. A reader that goes away (`valet openapi | head -1`) ends nothing and is no failure: what is left to
//! say is not said.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Prints a line to standard output.
///
/// # Errors
/// When it cannot be written for another reason than that nobody reads it: a full disk, say.
pub fn line(text: impl Display) -> io::Result<()> {
    written(writeln!(io::stdout().lock(), "{text}").and_then(|()| io::stdout().flush()))
}

/// Prints a text as it is to standard output.
///
/// # Errors
/// As [`line`].
pub fn text(text: &str) -> io::Result<()> {
    written(io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()))
}

/// Prints why a command failed to standard error, where anything fails in vain.
pub fn failure(error: impl Display) {
    let _ = writeln!(io::stderr().lock(), "valet: {error}");
}

fn written(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
