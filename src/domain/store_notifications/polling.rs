//! Reads the queue of notifications. A message is deleted after the uploads that it names are due, so that no message is lost if
//! the server dies.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::StoreNotifications;
use crate::{
    metrics::METRICS,
    store::{StoreError, objects::events_queue::EventsQueue, without_failpoints},
};

/// Longest pause after failures in a row.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Pause after the first failure; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl StoreNotifications {
    /// Reads the queue, if one is configured, until `stop`. Errors are logged and counted, and reading goes on after a pause; no
    /// other task waits for the queue.
    pub async fn poll_until(&self, stop: CancellationToken) {
        let Some(queue) = &self.queue else { return };
        let mut failures = 0;
        loop {
            // Tests count the calls of requests, to end the process at one of them: the calls of this loop are left out.
            let polled = tokio::select! {
                () = stop.cancelled() => return,
                polled = without_failpoints(self.poll(queue)) => polled,
            };
            let Err(error) = polled else {
                failures = 0;
                continue;
            };
            failures += 1;
            METRICS.events_queue_failures.inc();
            tracing::warn!(%error, failures, "failed to read the queue of notifications");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause(failures)) => {}
            }
        }
    }

    /// Handles the messages that are in the queue, or arrive within the time of a long poll.
    async fn poll(&self, queue: &EventsQueue) -> Result<(), StoreError> {
        let messages = queue.receive().await?;
        METRICS.events_queue_last_success.set(time::OffsetDateTime::now_utc().unix_timestamp() as f64);
        let handled = messages.into_iter().map(|message| async move {
            let received = self.receive(message.body.as_bytes()).await;
            received.map(|()| message)
        });
        let (mut done, mut failed) = (Vec::new(), None);
        for handled in join_all(handled).await {
            match handled {
                Ok(message) => done.push(message),
                Err(error) => failed = Some(error),
            }
        }
        // A message that is not deleted is received again after a minute.
        queue.delete(&done).await?;
        failed.map_or(Ok(()), Err)
    }
}

/// Returns the pause after this many failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        assert_eq!([1, 2, 3, 6, 7, 40, u32::MAX].map(|failures| pause(failures).as_secs()), [1, 2, 4, 32, 60, 60, 60]);
    }
}
