//! Checks uploads that the store's notifications name, without waiting for the next sweep. They are claimed and swept as in a
//! sweep; the next sweep repeats a check that fails.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

use super::{Sweeper, health::Health, images::Round, lane::SlowLane, permits::OwnerPermits, tally::Swept};
use crate::{
    domain::store_notifications::NotifiedUpload,
    metrics::{METRICS, Metrics},
    store::QueuedImage,
};

/// Maximum number of uploads that are checked concurrently.
const MAX_CONCURRENT: usize = 16;
/// Maximum number of one owner's uploads among them.
const OWNER_SHARE: usize = 4;
/// Maximum number of uploads that wait in this task; more wait in the sender's channel.
const MAX_WAITING: usize = 1000;
/// Longest measured time since the store sent a notification. A longer time comes from a queue that was not read for a while, or
/// from a difference between clocks.
const MAX_MEASURED: time::Duration = time::Duration::hours(1);

impl Sweeper {
    /// Checks the uploads that notifications have made due, until the server stops.
    pub(super) async fn sweep_notified(&self, lane: &SlowLane) {
        let mut notified = self.notified_uploads.lock().await;
        let mut permits = OwnerPermits::new(MAX_CONCURRENT, OWNER_SHARE);
        let health = Arc::<Health>::default();
        let (mut delayed, mut waiting, mut running) = (FuturesUnordered::new(), VecDeque::new(), FuturesUnordered::new());
        loop {
            while let Some(next) = permits.take_next(&mut waiting, |next: &NotifiedUpload| next.upload.owner()) {
                let round = Round::with_health(health.clone());
                let check = async move {
                    let began = Instant::now();
                    self.check_notified(&next, &round, lane).await;
                    (next.upload, began.elapsed())
                };
                running.push(check.boxed());
            }
            let has_room = delayed.len() + waiting.len() < MAX_WAITING;
            tokio::select! {
                Some((done, took)) = running.next() => {
                    let (done, took): (QueuedImage, Duration) = (done, took);
                    permits.release(&done.owner(), took);
                }
                Some(due) = delayed.next() => waiting.push_back(due),
                next = notified.recv(), if has_room => {
                    // The sender lives as long as the server.
                    let Some(next) = next else { return std::future::pending().await };
                    if next.at > Instant::now() {
                        delayed.push(async move {
                            tokio::time::sleep_until(next.at.into()).await;
                            next
                        });
                    } else {
                        waiting.push_back(next);
                    }
                }
            }
        }
    }

    /// Claims and sweeps one upload, in a round of its own.
    async fn check_notified(&self, next: &NotifiedUpload, round: &Round, lane: &SlowLane) {
        self.sweep_quick(&next.upload, next.upload.due, round, lane).await;
        let swept = round.tally.total();
        Metrics::count(&METRICS.notification_checks, outcome(swept), 1);
        let took = next.sent_at.map(|at| time::OffsetDateTime::now_utc() - at);
        if let Some(took) = took.filter(|took| swept.confirmed > 0 && !took.is_negative() && *took < MAX_MEASURED) {
            METRICS.notification_delay.observe(took.as_seconds_f64());
        }
    }
}

/// Returns the metric's label for a sweep of one image.
fn outcome(swept: Swept) -> &'static str {
    match swept {
        Swept { confirmed: 1.., .. } => "confirmed",
        Swept { rejected: 1.., .. } => "rejected",
        Swept { failed: 1.., .. } => "failed",
        // The upload is not complete, was resolved by another request, or was handed over to the slow lane.
        _ => "unfinished",
    }
}
