//! Queues earlier images for pictures, at a limited rate: images that were ready before workers made any, and HEIC and AVIF
//! images that no worker could decode before a command for them was set.

use std::{num::NonZeroU32, time::Duration};

use tokio_util::sync::CancellationToken;

use super::PreviewWorker;
use crate::{
    domain::rendering::Renderer,
    store::{ImageQueue, QueuedImage, StoreError},
};

/// Records that are read at once.
const PAGE: u32 = 1000;
/// Images that wait in the queue, at most, while more are queued.
const MAX_BACKLOG: usize = 1000;
/// Pause while [`MAX_BACKLOG`] images wait, and after a failure of the database.
const BACKLOG_PAUSE: Duration = Duration::from_secs(5);
/// Maximum number of HEIC and AVIF images that are queued again in a second.
const CONVERSIONS_PER_SECOND: usize = 10;
/// Failures of the database in a row after which the backfill ends.
const MAX_FAILURES: u32 = 10;

/// Kind of images that a backfill queues.
#[derive(Debug, Clone, Copy)]
enum Earlier {
    /// Images whose pictures were never requested; contains the maximum number in a second.
    WithoutRequest(NonZeroU32),
    /// HEIC and AVIF images that no worker could decode.
    Unsupported,
}

impl PreviewWorker {
    /// Queues at most `rate` images a second, until all are queued; returns their number. Leaves out images with pictures or a
    /// failure, so that the backfill can be repeated.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails for a while.
    pub async fn backfill(&self, rate: NonZeroU32) -> Result<u64, StoreError> {
        self.queue_all(Earlier::WithoutRequest(rate)).await
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
    /// [`StoreError`] if the database fails for a while.
    pub async fn queue_conversions(&self) -> Result<u64, StoreError> {
        self.queue_all(Earlier::Unsupported).await
    }

    /// Queues these images page by page, and returns their number. If the database fails, the page is read again: it leaves out the
    /// images that are queued already.
    async fn queue_all(&self, images: Earlier) -> Result<u64, StoreError> {
        let (mut queued, mut failures) = (0, 0);
        let mut after: Option<String> = None;
        loop {
            let before = queued;
            match Box::pin(self.queue_page(images, after.as_deref(), &mut queued)).await {
                Ok(None) => return Ok(queued),
                Ok(last) => (after, failures) = (last, 0),
                Err(error) => {
                    failures = if queued > before { 1 } else { failures + 1 };
                    if failures > MAX_FAILURES {
                        return Err(error);
                    }
                    tracing::warn!(%error, "failed to queue images without previews");
                    tokio::time::sleep(BACKLOG_PAUSE).await;
                }
            }
        }
    }

    /// Queues the images of the page after this id, and adds their number to `queued`. Returns the id of the page's last record;
    /// `None` after the last page.
    async fn queue_page(&self, images: Earlier, after: Option<&str>, queued: &mut u64) -> Result<Option<String>, StoreError> {
        match images {
            Earlier::WithoutRequest(rate) => {
                let page = self.store.images.find_unrendered(after, PAGE).await?;
                for chunk in page.images.chunks(usize::try_from(rate.get()).unwrap_or(usize::MAX)) {
                    *queued += self.pace(self.store.images.request_renderings(chunk)).await?;
                }
                Ok(page.last)
            }
            Earlier::Unsupported => {
                let page = self.store.images.find_unsupported(after, PAGE).await?;
                for chunk in page.chunks(CONVERSIONS_PER_SECOND) {
                    *queued += self.pace(self.store.images.request_conversions(chunk)).await?;
                }
                Ok(page.last().map(QueuedImage::id))
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
            if self.store.images.find_due(ImageQueue::Workers, None, now, MAX_BACKLOG).await?.len() < MAX_BACKLOG {
                return Ok(());
            }
            tokio::time::sleep(BACKLOG_PAUSE).await;
        }
    }
}
