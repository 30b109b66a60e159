//! Queues earlier images for pictures, at a limited rate: images that were ready before workers made any, and HEIC and AVIF
//! images that no worker could decode before a command was set.

use std::{num::NonZeroU32, time::Duration};

use tokio_util::sync::CancellationToken;

use super::PreviewWorker;
use crate::{
    domain::rendering::Renderer,
    store::{QueuedRendering, StoreError},
};

/// Records that are read at once.
const PAGE: u32 = 1000;
/// Images that wait in the queue, at most, while more are queued.
const MAX_BACKLOG: usize = 1000;
/// Pause while so many wait, and after a failure of the database.
const BACKLOG_PAUSE: Duration = Duration::from_secs(5);
/// Images for the command that are queued again in a second, at most.
const CONVERSIONS_PER_SECOND: usize = 10;
/// Failures of the database in a row after which the backfill ends.
const MAX_FAILURES: u32 = 10;

impl PreviewWorker {
    /// Queues at most `rate` images a second, until all are queued; returns their number. Leaves out images with pictures or a
    /// failure, so that the backfill can be repeated.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails for a while.
    pub async fn backfill(&self, rate: NonZeroU32) -> Result<u64, StoreError> {
        let (mut queued, mut failures) = (0, 0);
        let mut after: Option<String> = None;
        loop {
            let page = match self.store.images.find_unrendered(after.as_deref(), PAGE).await {
                Ok(page) => page,
                Err(error) if failures < MAX_FAILURES => {
                    failures += 1;
                    tracing::warn!(%error, "failed to look for images without previews");
                    tokio::time::sleep(BACKLOG_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            failures = 0;
            for chunk in page.images.chunks(usize::try_from(rate.get()).unwrap_or(usize::MAX)) {
                queued += self.pace(self.store.images.request_renderings(chunk)).await?;
            }
            match page.last {
                Some(last) => after = Some(last),
                None => return Ok(queued),
            }
        }
    }

    /// Queues the HEIC and AVIF images again that failed because no command was set, if one is set now, until `stop`. If the
    /// command fails for an image, the image gets another failure, so that it is queued only once.
    pub(super) async fn convert_earlier_until(&self, renderer: &Renderer, stop: &CancellationToken) {
        if !renderer.has_heif_command() {
            return;
        }
        tokio::select! {
            queued = self.queue_conversions() => match queued {
                Ok(0) => {}
                Ok(images) => tracing::info!(images, "queued images again that had no previews for lack of a command"),
                Err(error) => tracing::warn!(%error, "failed to queue images again that had no previews for lack of a command; the next start continues"),
            },
            () = stop.cancelled() => {}
        }
    }

    /// Queues the HEIC and AVIF images again that failed because no command was set, and returns their number. Queued images are
    /// not found again, so that it can be repeated.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn queue_conversions(&self) -> Result<u64, StoreError> {
        let mut queued = 0;
        let mut after: Option<String> = None;
        loop {
            let page = self.store.images.find_unsupported(after.as_deref(), PAGE).await?;
            let Some(last) = page.last().map(QueuedRendering::id) else { return Ok(queued) };
            after = Some(last);
            for chunk in page.chunks(CONVERSIONS_PER_SECOND) {
                queued += self.pace(self.store.images.request_conversions(chunk)).await?;
            }
        }
    }

    /// Waits until fewer than [`MAX_BACKLOG`] images wait for a worker, then queues more by `request`; takes a second at least.
    async fn pace(&self, request: impl Future<Output = Result<u64, StoreError>>) -> Result<u64, StoreError> {
        self.wait_for_backlog().await?;
        let second = tokio::time::sleep(Duration::from_secs(1));
        let queued = request.await?;
        second.await;
        Ok(queued)
    }

    /// Waits until fewer than [`MAX_BACKLOG`] images wait for a worker.
    async fn wait_for_backlog(&self) -> Result<(), StoreError> {
        loop {
            let now = self.store.now().await?;
            if self.store.images.find_due_renderings(now, MAX_BACKLOG).await?.len() < MAX_BACKLOG {
                return Ok(());
            }
            tokio::time::sleep(BACKLOG_PAUSE).await;
        }
    }
}
