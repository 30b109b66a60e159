//! Ends mongod after the server was killed: a small shell reads a pipe whose other end only the server has open. The kernel closes
//! the pipe however the server ends, which is portable and needs no unsafe code; a parent-death signal is not portable, needs
//! unsafe code, and fires when the spawning thread ends.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::MongodError;

/// The shell's script. The first line of its input is the process to guard, a second line dismisses the watchdog; the end of the
/// input without a second line means that the server was killed. The shell ignores signals of a terminal, which the server
/// handles.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
read -r pid || exit 0
read -r dismissed && exit 0
kill -TERM "$pid" || exit 0
for second in 1 2 3 4 5; do
    sleep 1
    kill -0 "$pid" || exit 0
done
kill -KILL "$pid"
"#;

/// The running shell.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
    /// `None` once dismissed. Rust opens pipes close-on-exec, so that no child holds this end open.
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts the shell.
    pub(super) fn spawn() -> Result<Self, MongodError> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "valet-mongod-watchdog"])
            .stdin(Stdio::piped())
            // Not inherited: a reader that waits for the end of the server's output must not wait for this process.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| MongodError::Spawn { program: Path::new("sh").to_owned(), source })?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Makes the watchdog end this process when the server ends without dismissing it.
    pub(super) fn guard(&mut self, pid: u32) {
        self.write_line(&pid.to_string());
    }

    /// Ends the shell and leaves the process alone. Call it after the process was waited for, or if it was never started.
    pub(super) fn dismiss(&mut self) {
        self.write_line("dismissed");
        if self.pipe.take().is_some() {
            // The shell ends at once, or has ended; an error would mean that it was waited for already.
            let _ = self.shell.wait();
        }
    }

    /// Writes a line to the shell.
    fn write_line(&mut self, line: &str) {
        // A watchdog that was killed cannot receive the line.
        let _ = self.pipe.as_mut().map(|pipe| pipe.write_all(format!("{line}\n").as_bytes()));
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.dismiss();
    }
}
