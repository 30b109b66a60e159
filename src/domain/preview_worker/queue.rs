//! Reads the workers' queue, in turns between owners.

use std::{collections::VecDeque, time::Duration};

use time::OffsetDateTime;

use super::PreviewWorker;
use crate::{
    domain::turns::{dominant, in_turns},
    metrics::METRICS,
    store::{QueuedRendering, StoreError},
};

/// Images that are read at once.
const QUEUE_BATCH: usize = 200;
/// Images that are read to find other owners' images if one owner fills the front of the queue.
const MAX_QUEUE_READ: usize = 5000;
/// Time by which the remaining images of such an owner are postponed, so that other owners' images reach the front.
const CROWD_DELAY: Duration = Duration::from_secs(30);

impl PreviewWorker {
    /// Returns the next images, with the time at which they were due, and sets the metric of their number.
    pub(super) async fn read_queue(&self) -> Result<(OffsetDateTime, VecDeque<QueuedRendering>), StoreError> {
        let now = self.store.now().await?;
        let due = self.next_due_renderings(now).await?;
        METRICS.preview_backlog.set(i64::try_from(due.len()).unwrap_or(i64::MAX));
        Ok((now, due.into()))
    }

    /// Sets the metric of the longest wait at `now`. The cost grows with the number of images that an outage has postponed.
    pub(super) async fn report_lag(&self, now: OffsetDateTime) {
        match Box::pin(self.store.probe().oldest_waiting_rendering(now)).await {
            Ok(oldest) => {
                METRICS.preview_lag.set(oldest.map_or(0.0, |oldest| (now - oldest).as_seconds_f64()));
            }
            // Measuring is not a part of reading the queue, which has not failed.
            Err(error) => tracing::warn!(%error, "failed to measure the wait for previews"),
        }
    }

    /// Returns images that are due at `now`, in turns between owners. If one owner fills the front of the queue, the owner's
    /// other images are postponed by [`CROWD_DELAY`].
    pub(super) async fn next_due_renderings(&self, now: OffsetDateTime) -> Result<Vec<QueuedRendering>, StoreError> {
        let due = self.store.images.find_due_renderings(now, QUEUE_BATCH).await?;
        if due.len() < QUEUE_BATCH || dominant(&due, QueuedRendering::owner).is_none() {
            return Ok(in_turns(due, QueuedRendering::owner, QUEUE_BATCH));
        }
        let due = self.store.images.find_due_renderings(now, MAX_QUEUE_READ).await?;
        let last = due.last().filter(|_| due.len() == MAX_QUEUE_READ).map(|last| last.due);
        let crowd = dominant(&due, QueuedRendering::owner).cloned();
        let turns = in_turns(due, QueuedRendering::owner, QUEUE_BATCH);
        if let Some((last, crowd)) = last.zip(crowd) {
            self.store.images.postpone_owner_renderings(&crowd, last, &turns, now + CROWD_DELAY).await?;
        }
        Ok(turns)
    }
}
