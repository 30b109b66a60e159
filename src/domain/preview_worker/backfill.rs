//! Asks for the pictures of images that were ready before workers made any, at a rate.

use std::{num::NonZeroU32, time::Duration};

use super::PreviewWorker;
use crate::store::StoreError;

/// Records that are read at once.
const PAGE: u32 = 1000;
/// Images that wait, beyond which no more are queued.
const MAX_BACKLOG: usize = 1000;
/// Pause while so many wait.
const BACKLOG_PAUSE: Duration = Duration::from_secs(5);
/// Failures of the database in a row after which the backfill ends.
const MAX_FAILURES: u32 = 10;

impl PreviewWorker {
    /// Queues at most `rate` images a second, until all have been; returns how many. Images are left out that have pictures or a
    /// failure, so that it can be repeated.
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
            for some in page.images.chunks(usize::try_from(rate.get()).unwrap_or(usize::MAX)) {
                self.wait_for_backlog().await?;
                let second = tokio::time::sleep(Duration::from_secs(1));
                queued += self.store.images.request_renderings(some).await?;
                second.await;
            }
            match page.last {
                Some(last) => after = Some(last),
                None => return Ok(queued),
            }
        }
    }

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
