//! The signals that stop a command.

use tokio_util::sync::CancellationToken;

use super::Failure;

/// Status of a process that SIGINT ended, as shells report it: 128 and the signal's number.
const INTERRUPTED_STATUS: i32 = 130;

/// Returns a token that the first SIGINT or SIGTERM cancels; the second ends the process at once.
pub fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let token = stop.clone();
    #[cfg(unix)]
    let mut signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    tokio::spawn(async move {
        for is_second in [false, true] {
            #[cfg(unix)]
            tokio::select! {
                _ = signals.0.recv() => {}
                _ = signals.1.recv() => {}
            }
            #[cfg(not(unix))]
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            if is_second {
                std::process::exit(INTERRUPTED_STATUS);
            }
            token.cancel();
        }
    });
    Ok(stop)
}
