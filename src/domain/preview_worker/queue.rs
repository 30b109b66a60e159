//! Reads the workers' queue, in turns between owners.

use std::collections::VecDeque;

use time::OffsetDateTime;

use super::PreviewWorker;
use crate::{
    metrics::METRICS,
    store::{ImageQueue, QueuedImage, StoreError},
};

/// Images that are read from the front of the queue at once.
const QUEUE_BATCH: usize = 200;

impl PreviewWorker {
    /// Returns the images that are due and the time of this read, by the database's clock. Sets the metric of their number.
    pub(super) async fn read_queue(&self) -> Result<(OffsetDateTime, VecDeque<QueuedImage>), StoreError> {
        let now = self.store.now().await?;
        let due = self.next_images_to_render(now).await?;
        METRICS.preview_backlog.set(i64::try_from(due.len()).unwrap_or(i64::MAX));
        Ok((now, due.into()))
    }

    /// Sets the metric of the longest wait at `now`. The cost grows with the number of images that an outage has postponed.
    pub(super) async fn report_lag(&self, now: OffsetDateTime) {
        match Box::pin(self.store.probe().oldest_waiting_rendering(now)).await {
            Ok(oldest) => {
                METRICS.preview_lag.set(oldest.map_or(0.0, |oldest| (now - oldest).as_seconds_f64()));
            }
            // The pictures are made without this measurement.
            Err(error) => tracing::warn!(%error, "failed to measure the wait for previews"),
        }
    }

    /// Returns images that are due at `now`, in turns between owners.
    pub(super) async fn next_images_to_render(&self, now: OffsetDateTime) -> Result<Vec<QueuedImage>, StoreError> {
        self.turns.next_due(QUEUE_BATCH, |from, limit| self.store.images.find_due(ImageQueue::Workers, from, now, limit)).await
    }
}
