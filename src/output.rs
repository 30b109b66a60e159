//! Prints the output of commands. A closed pipe (`valet openapi | head -1`) is not a failure: the rest of the output is
//! dropped.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Prints a line to standard output.
///
/// # Errors
/// When the write fails for another reason than a closed pipe, such as a full disk.
pub fn print_line(text: impl Display) -> io::Result<()> {
    ignore_broken_pipe(writeln!(io::stdout().lock(), "{text}").and_then(|()| io::stdout().flush()))
}

/// Prints a text as it is to standard output.
///
/// # Errors
/// When the write fails, as for [`print_line`].
pub fn print_text(text: &str) -> io::Result<()> {
    ignore_broken_pipe(io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()))
}

/// Prints the error of a command to standard error. A failure of that write is ignored.
pub fn print_error(error: impl Display) {
    let _ = writeln!(io::stderr().lock(), "valet: {error}");
}

/// Prints the lines of a callback, which cannot return an error. Prints nothing after its first error.
#[derive(Debug, Default)]
pub struct LinePrinter {
    first_error: Option<io::Error>,
}

impl LinePrinter {
    /// Prints a line, as [`print_line`] does.
    pub fn print(&mut self, text: impl Display) {
        if self.first_error.is_none() {
            self.first_error = print_line(text).err();
        }
    }

    /// Returns the first error of [`LinePrinter::print`], if one failed.
    ///
    /// # Errors
    /// That error.
    pub fn end(self) -> io::Result<()> {
        self.first_error.map_or(Ok(()), Err)
    }
}

/// Turns the error of a closed pipe into success.
fn ignore_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
