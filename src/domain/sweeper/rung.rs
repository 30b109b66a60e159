//! Looks at uploads that the store has announced, without waiting for the next sweep. They are claimed and settled as in a sweep;
//! the next sweep repeats a look that fails.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

use super::{Sweeper, images::Round, lane::SlowLane, permits::OwnerPermits, tally::Swept};
use crate::{
    domain::doorbell::RungUpload,
    metrics::{METRICS, Metrics},
    store::QueuedImage,
};

/// Uploads that are looked at concurrently, and each owner's share of them.
const MAX_CONCURRENT: usize = 16;
const OWNER_SHARE: usize = 4;
/// Uploads that are kept here; more wait with the sender.
const MAX_WAITING: usize = 1000;
/// The longest time from the store's notification that is measured: a longer one is that of a queue that was not read, or of
/// another clock.
const MAX_MEASURED: time::Duration = time::Duration::hours(1);

impl Sweeper {
    /// Looks at the uploads that hints have made due, for ever.
    pub(super) async fn sweep_rung(&self, lane: &SlowLane) {
        let mut rung = self.rung_uploads.lock().await;
        let mut permits = OwnerPermits::new(MAX_CONCURRENT, OWNER_SHARE);
        let (mut early, mut waiting, mut running) = (FuturesUnordered::new(), VecDeque::new(), FuturesUnordered::new());
        loop {
            while let Some(next) = permits.take_next(&mut waiting, |next: &RungUpload| next.upload.owner()) {
                let look = async move {
                    let began = Instant::now();
                    self.look_at(&next, lane).await;
                    (next.upload, began.elapsed())
                };
                running.push(look.boxed());
            }
            let has_room = early.len() + waiting.len() < MAX_WAITING;
            tokio::select! {
                Some((done, took)) = running.next() => {
                    let (done, took): (QueuedImage, Duration) = (done, took);
                    permits.release(&done.owner(), took);
                }
                Some(due) = early.next() => waiting.push_back(due),
                next = rung.recv(), if has_room => {
                    // The sender lives as long as the server.
                    let Some(next) = next else { return std::future::pending().await };
                    if next.at > Instant::now() {
                        early.push(async move {
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

    /// Claims and settles one upload, in a round of its own.
    async fn look_at(&self, next: &RungUpload, lane: &SlowLane) {
        let round = Round::default();
        self.sweep_quick(&next.upload, next.upload.due, &round, lane).await;
        let swept = round.tally.total();
        Metrics::count(&METRICS.doorbell_looks, outcome(swept), 1);
        let took = next.sent_at.map(|at| time::OffsetDateTime::now_utc() - at);
        if let Some(took) = took.filter(|took| swept.confirmed > 0 && !took.is_negative() && *took < MAX_MEASURED) {
            METRICS.doorbell_delay.observe(took.as_seconds_f64());
        }
    }
}

fn outcome(swept: Swept) -> &'static str {
    match swept {
        Swept { confirmed: 1.., .. } => "confirmed",
        Swept { rejected: 1.., .. } => "rejected",
        Swept { failed: 1.., .. } => "failed",
        // The upload is not complete, is settled by another request, or goes to the lane for slow ones.
        _ => "left",
    }
}
