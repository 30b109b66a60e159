//! The child process: started with an empty environment, given one image, and ended in time.

use std::{
    fmt,
    process::{ExitStatus, Stdio},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::{RenderFailure, Renderer, verification::WrongOutput};
use crate::model::decoding::{DecodeRequest, MAX_OUTPUT_BYTES};

/// Way in which a child without valid output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashCause {
    /// The child was killed after its deadline.
    Deadline,
    /// The child used up its processor time.
    ProcessorTime,
    /// The child made a system call that decoding does not need: a file has taken over the decoder, or the decoder has changed.
    ForbiddenCall,
    /// The child aborted, usually because no memory was left.
    Aborted,
    /// Another signal ended the child.
    Signal(i32),
    /// The child ended with this status, usually after a panic.
    Exit(i32),
    /// The output of the child failed verification.
    Output(WrongOutput),
}

impl fmt::Display for CrashCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str("killed after the deadline"),
            Self::ProcessorTime => f.write_str("too much processor time"),
            Self::ForbiddenCall => f.write_str("a forbidden system call"),
            Self::Aborted => f.write_str("aborted, probably out of memory"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Output(wrong) => wrong.fmt(f),
        }
    }
}

/// Runs a child for one image, waits until it has ended, and returns all that it wrote.
pub(super) async fn run(renderer: &Renderer, request: DecodeRequest, file: Bytes) -> Result<Vec<u8>, RenderFailure> {
    let mut child = spawn(renderer).map_err(RenderFailure::Io)?;
    let exchanged = tokio::time::timeout(renderer.deadline, exchange(&mut child, request, file)).await;
    if exchanged.is_err() {
        // Kills and reaps the child.
        let _ = child.kill().await;
    }
    let (output, status) = exchanged.map_err(|_| RenderFailure::Crashed(CrashCause::Deadline))?.map_err(RenderFailure::Io)?;
    match cause(status) {
        Some(cause) => Err(RenderFailure::Crashed(cause)),
        None => Ok(output),
    }
}

/// Starts the child with an empty environment.
fn spawn(renderer: &Renderer) -> std::io::Result<Child> {
    let mut command = Command::new(&renderer.program);
    #[cfg(unix)]
    command.arg0("valet").current_dir("/");
    command
        .args(&renderer.arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A hostile file could make the decoder write to the log.
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// Sends the image while the output is read, then waits for the end.
async fn exchange(child: &mut Child, request: DecodeRequest, file: Bytes) -> std::io::Result<(Vec<u8>, ExitStatus)> {
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let send = async {
        if let Some(mut input) = input {
            // A child that ends early closes the pipe; its exit status is the reason.
            let sent = match input.write_all(&request.to_bytes()).await {
                Ok(()) => input.write_all(&file).await,
                failed => failed,
            };
            drop(sent);
        }
    };
    let receive = async {
        let mut received = Vec::new();
        if let Some(output) = output {
            output.take(MAX_OUTPUT_BYTES as u64 + 1).read_to_end(&mut received).await?;
        }
        std::io::Result::Ok(received)
    };
    let ((), received) = tokio::join!(send, receive);
    let received = received?;
    // A child that writes more than the limit ends when it writes to its pipe, which is closed now.
    Ok((received, child.wait().await?))
}

/// Returns why a child failed; `None` if it succeeded.
pub(super) fn cause(status: ExitStatus) -> Option<CrashCause> {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;

        use rustix::process::Signal;
        if let Some(signal) = status.signal() {
            return Some(match signal {
                signal if signal == Signal::SYS.as_raw() => CrashCause::ForbiddenCall,
                signal if signal == Signal::XCPU.as_raw() => CrashCause::ProcessorTime,
                signal if signal == Signal::ABORT.as_raw() => CrashCause::Aborted,
                signal => CrashCause::Signal(signal),
            });
        }
    }
    status.code().filter(|code| *code != 0).map(CrashCause::Exit)
}
