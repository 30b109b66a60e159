//! The signals that stop a command.

use tokio_util::sync::CancellationToken;

use super::Failure;

/// Cancelled by the first SIGINT or SIGTERM; the second ends the process at once.
pub fn on_signal() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    #[cfg(unix)]
    let mut signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    tokio::spawn(async move {
        for again in [false, true] {
            #[cfg(unix)]
            tokio::select! {
                _ = signals.0.recv() => {}
                _ = signals.1.recv() => {}
            }
            #[cfg(not(unix))]
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            if again {
                std::process::exit(130);
            }
            signalled.cancel();
        }
    });
    Ok(stop)
}
