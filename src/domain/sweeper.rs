//! Nothing unconfirmed stays, and nothing confirmed is lost: what clients and servers that died left behind is settled.
//!
//! One step at a chosen time is [`Valet::sweep_once`]; the loop around it is cancellable. Any number of servers may
//! sweep: each image is claimed by raising its `due` to the end of a lease, and every step can be repeated.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{Valet, confirm::Finding};
use crate::{
    model::{Image, ImageState},
    store::StoreError,
};

/// Images per step.
const BATCH: u32 = 100;
/// Longer than any one image takes: HEAD, a few ranged GETs, the parts' listing and completion, a few updates, each
/// with its deadline.
const LEASE: Duration = Duration::from_secs(120);
/// After an image that could not be settled: S3 or the database may be down.
const RETRY: Duration = Duration::from_secs(60);

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Made ready for clients that died before they confirmed.
    pub confirmed: u32,
    /// Were not what was declared.
    pub rejected: u32,
    /// Never came.
    pub expired: u32,
    /// Objects deleted, the first or the second time.
    pub purged: u32,
    /// Tombstones that ended.
    pub gone: u32,
    /// Holds of uploads that do not exist, freed.
    pub holds: u32,
    /// Deleted accounts of which nothing is left.
    pub accounts: u32,
    /// Could not be settled now.
    pub failed: u32,
}

impl Valet {
    /// Sweeps until `stop`, pausing between sweeps but not while there is more to do. Errors are logged and tried again.
    pub async fn sweep_until(&self, stop: CancellationToken) {
        loop {
            // Stopping in the middle is what a crash would do, and every step survives that.
            let swept = tokio::select! {
                () = stop.cancelled() => return,
                swept = self.sweep() => swept,
            };
            match swept {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => tracing::info!(?swept, "swept"),
                Err(error) => tracing::warn!(%error, "the sweep failed"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.sweep.interval) => {}
            }
        }
    }

    /// Sweeps by the database's clock until nothing is due.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        let mut total = Swept::default();
        loop {
            let (swept, more) = self.sweep_once(self.store.now().await?).await?;
            total.confirmed += swept.confirmed;
            total.rejected += swept.rejected;
            total.expired += swept.expired;
            total.purged += swept.purged;
            total.gone += swept.gone;
            total.holds += swept.holds;
            total.accounts += swept.accounts;
            total.failed += swept.failed;
            if !more {
                return Ok(total);
            }
        }
    }

    /// One step at `now`: at most a batch. The second value says whether anything was settled, so that more may be due.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; one image's failure is counted and tried again later.
    pub async fn sweep_once(&self, now: OffsetDateTime) -> Result<(Swept, bool), StoreError> {
        let mut swept = Swept::default();
        let mut claimed = 0;
        let lease_ends = now + LEASE;
        for (image, due) in self.store.images.due(now, BATCH).await? {
            if !self.store.images.claim(&image, due, lease_ends).await? {
                continue;
            }
            claimed += 1;
            let settled = if image.state == ImageState::Pending {
                self.sweep_pending(&image, lease_ends, now, &mut swept).await
            } else {
                self.sweep_tombstone(&image, lease_ends, now, &mut swept).await
            };
            if let Err(error) = settled {
                tracing::warn!(image = %image.id, %error, "an image could not be swept");
                swept.failed += 1;
                self.store.images.postpone(&image, lease_ends, now + RETRY).await?;
            }
        }
        swept.holds = self.settle_holds(now).await?;
        let (accounts, more) = self.sweep_deletions(now).await?;
        swept.accounts = accounts;
        Ok((swept, claimed > 0 || more))
    }

    /// Every URL has died: what is there now is all that will ever be.
    async fn sweep_pending(
        &self,
        image: &Image,
        lease_ends: OffsetDateTime,
        now: OffsetDateTime,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        match self.gather(image, now).await? {
            Finding::Proved { etag, size } => {
                if self.accept(image, &etag, size).await?.is_some() {
                    swept.confirmed += 1;
                }
            }
            Finding::Wrong(why) => {
                self.reject(image, why, now).await?;
                swept.rejected += 1;
            }
            Finding::Missing | Finding::PartsMissing(_) => {
                let ends = image.expires_at.max(self.quiet_from(image));
                if now < ends {
                    self.store.images.postpone(image, lease_ends, ends).await?;
                } else if self.expire(image, now).await? {
                    swept.expired += 1;
                }
            }
        }
        Ok(())
    }

    /// A tombstone's object is deleted at once, and again when no URL can bring it back; then the tombstone ends.
    async fn sweep_tombstone(
        &self,
        image: &Image,
        lease_ends: OffsetDateTime,
        now: OffsetDateTime,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        // Whoever made the tombstone may have died before it freed the bytes.
        self.store.users.release_held(image.user, image.id, image.upload.size).await?;
        self.remove(image).await?;
        swept.purged += 1;
        let ends = self.quiet_from(image);
        if now < ends {
            self.store.images.postpone(image, lease_ends, ends).await?;
        } else if self.store.images.mark_gone(image).await? {
            swept.gone += 1;
        }
        Ok(())
    }

    /// Holds older than any single upload lives: their server died between two writes, or they are of multipart uploads.
    async fn settle_holds(&self, now: OffsetDateTime) -> Result<u32, StoreError> {
        let before = now - self.uploads.ttl - self.uploads.url_ttl - self.grace(self.uploads.max_bytes);
        let mut freed = 0;
        for (user, id, bytes) in self.store.users.old_holds(before, i64::from(BATCH)).await? {
            match self.store.images.find_owned(user, id).await?.map(|image| image.state) {
                Some(ImageState::Pending) => self.store.users.touch_hold(user, id, now).await?,
                Some(ImageState::Ready) => drop(self.store.users.keep_held(user, id).await?),
                _ => freed += u32::from(self.store.users.release_held(user, id, bytes).await?),
            }
        }
        Ok(freed)
    }
}
