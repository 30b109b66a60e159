//! Pauses between polls, which a change on this server ends early.

use std::time::Duration;

use tokio::sync::Notify;

/// Interval between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Why a poll begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poll {
    /// A change on this server ended the pause.
    Woken,
    /// The interval has passed.
    Due,
}

/// Waits until the next poll begins.
pub(super) async fn next_poll(woken: &Notify) -> Poll {
    tokio::time::timeout(POLL_INTERVAL, woken.notified()).await.map_or(Poll::Due, |()| Poll::Woken)
}
