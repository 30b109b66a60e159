//! Sweeps one image, according to its state.

use std::{sync::Arc, time::Duration};

use super::tally::{Swept, Tally};
use crate::{
    config,
    domain::{
        arrival_polling::{needs_polling, poll_delay},
        inspection::{Inspection, UploadInspector},
        late_transfers::LateTransfers,
        lifecycle::Lifecycle,
        permanent_failures::is_permanent,
        removal::{ObjectRemoval, ObjectsToRemove, Removal},
        reservations::Reservations,
        uppy::{PartLimits, part_limits::PART_CHECK_INTERVAL},
    },
    model::{Image, ImageState, ObjectKey, Rejection, UploadKind},
    store::{Lease, Objects, PreviewWait, Store, StoreError},
};

/// Delay before the next round of a removal that takes several.
const CONTINUE_AFTER: Duration = Duration::from_secs(5);
/// Number of checks for a declared preview that is missing although its image has arrived.
const PREVIEW_CHECKS: u32 = 2;
/// Interval between these checks.
const PREVIEW_INTERVAL: Duration = Duration::from_secs(30);
/// Time after the end of an upload for which its object is kept if it cannot be read for a reason that an operator could correct.
const UNREADABLE_KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Sweeps claimed images.
#[derive(Debug)]
pub(in crate::domain) struct ImageSweeper {
    pub(in crate::domain) store: Arc<Store>,
    pub(in crate::domain) objects: Arc<Objects>,
    pub(in crate::domain) sweep: config::Sweep,
    pub(in crate::domain) late_transfers: LateTransfers,
    pub(in crate::domain) inspector: Arc<UploadInspector>,
    pub(in crate::domain) lifecycle: Arc<Lifecycle>,
    pub(in crate::domain) part_limits: Arc<PartLimits>,
    pub(in crate::domain) reservations: Arc<Reservations>,
    pub(in crate::domain) removal: Arc<ObjectRemoval>,
}

impl ImageSweeper {
    /// Resolves an upload, or removes the objects of leftover keys or of a tombstone.
    pub(super) async fn sweep_image(&self, image: &Image, lease: Lease, tally: &Tally) -> Result<(), StoreError> {
        let swept = match image.state() {
            ImageState::Pending => self.sweep_pending(image, lease).await,
            ImageState::Ready => self.sweep_leftovers(image, lease).await,
            _ => self.sweep_tombstone(image, lease).await,
        };
        tally.add(swept?);
        Ok(())
    }

    /// Resolves a pending upload that is due: every URL has expired, so that no more bytes can arrive; or the sweeper polls for
    /// its bytes, because no client will confirm it; or the store sent a notification.
    async fn sweep_pending(&self, image: &Image, lease: Lease) -> Result<Swept, StoreError> {
        // No URL was signed for an upload that S3 has not opened.
        let may_arrive_until = if image.is_unopened() {
            image.expires_at
        } else {
            image.expires_at.max(self.late_transfers.url_writes_end_at(image))
        };
        let mut swept = Swept::default();
        if self.awaits_preview(image, lease).await? {
            return Ok(swept);
        }
        match self.inspector.inspect_upload(image, lease.now).await {
            Ok(Inspection::Verified(verified)) => {
                swept.confirmed += u32::from(self.lifecycle.accept(image, &verified).await?.is_some());
            }
            Ok(Inspection::Mismatch(why)) => {
                swept.rejected += u32::from(self.lifecycle.reject(image, why, lease.now).await?.is_some());
            }
            Ok(Inspection::Missing | Inspection::PartsMissing(_) | Inspection::PartsRejected | Inspection::Unsupported(_)) => {
                if self.part_limits.reject_overfull(image, lease.now).await? {
                    swept.rejected += 1;
                } else if lease.now < may_arrive_until {
                    let due = may_arrive_until.min(self.next_check(image, lease, may_arrive_until));
                    self.store.images.postpone(image, lease.ends, due).await?;
                } else {
                    swept.expired += u32::from(self.lifecycle.expire(image, lease.now).await?.is_some());
                }
            }
            Err(error) if lease.now >= may_arrive_until + UNREADABLE_KEPT_FOR && is_permanent(&self.objects, &error).await => {
                tracing::warn!(image = %image.id, %error, "rejecting an upload that could not be read for a week");
                swept.rejected += u32::from(self.lifecycle.reject(image, Rejection::ObjectMismatch, lease.now).await?.is_some());
            }
            Err(error) => return Err(error),
        }
        Ok(swept)
    }

    /// Postpones an upload whose image has arrived before its declared preview: the store may have sent a notification between
    /// the two. Returns `false` if the upload need not wait for a preview, or has waited long enough.
    async fn awaits_preview(&self, image: &Image, lease: Lease) -> Result<bool, StoreError> {
        let Some(preview) = image.preview_key() else { return Ok(false) };
        if lease.now >= self.late_transfers.url_writes_end_at(image) {
            // No URL can write the preview any more.
            return Ok(false);
        }
        if self.exists(&preview).await? || !self.exists(&image.key).await? {
            return Ok(false);
        }
        let wait = PreviewWait {
            now: lease.now,
            due: lease.now + PREVIEW_INTERVAL,
            until: lease.now + PREVIEW_CHECKS * PREVIEW_INTERVAL,
        };
        self.store.images.await_preview(image, wait).await
    }

    /// Returns whether the object exists, even if it cannot be read.
    async fn exists(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        match self.objects.head(key).await {
            // The inspection finds out why it cannot be read.
            Err(StoreError::ObjectRejected { .. }) => Ok(true),
            head => Ok(head?.is_some()),
        }
    }

    /// Returns when to sweep an upload again that has not arrived, but still may.
    fn next_check(&self, image: &Image, lease: Lease, may_arrive_until: time::OffsetDateTime) -> time::OffsetDateTime {
        let mut again =
            if needs_polling(image) { lease.now + poll_delay(lease.now - image.created_at) } else { may_arrive_until };
        // A transfer that began before the URL expired may still arrive.
        if image.upload.kind == UploadKind::UndeclaredParts && lease.now < image.urls_expire_at + self.sweep.grace {
            again = again.min(lease.now + PART_CHECK_INTERVAL);
        }
        again
    }

    /// Deletes leftovers beside a ready image at once, and again after every URL has expired.
    async fn sweep_leftovers(&self, image: &Image, lease: Lease) -> Result<Swept, StoreError> {
        let writes_end = self.late_transfers.writes_end_at(image);
        // The server that made it ready may have died before it settled the reservation.
        let settled = if lease.now < writes_end { self.reservations.settle_if_reserved(image).await } else { Ok(()) };
        // A client with a URL that opens multipart uploads may open more of them, before and after this call.
        let removal = self.removal.remove_objects(&ObjectsToRemove::beside(image)).await?;
        // After the removal, so that counters that cannot be read do not prevent it.
        settled?;
        match removal {
            Removal::Partial => drop(self.store.images.postpone(image, lease.ends, lease.now + CONTINUE_AFTER).await?),
            Removal::Complete if lease.now < writes_end => drop(self.store.images.postpone(image, lease.ends, writes_end).await?),
            Removal::Complete => {
                self.reservations.release_reservation(image).await?;
                self.store.images.clear_leftovers(image, lease.ends).await?;
            }
        }
        Ok(Swept { removals: 1, ..Swept::default() })
    }

    /// Deletes a tombstone's object at once, and again after every URL has expired; then ends the tombstone.
    async fn sweep_tombstone(&self, image: &Image, lease: Lease) -> Result<Swept, StoreError> {
        let writes_end = self.late_transfers.writes_end_at(image);
        // The server that made the tombstone may have died before it settled the reservation.
        let settled = if lease.now < writes_end { self.reservations.settle_if_reserved(image).await } else { Ok(()) };
        let removal = self.removal.remove_image_objects(image).await?;
        // After the removal, so that counters that cannot be read do not prevent it.
        settled?;
        let mut swept = Swept { removals: 1, ..Swept::default() };
        match removal {
            Removal::Partial => drop(self.store.images.postpone(image, lease.ends, lease.now + CONTINUE_AFTER).await?),
            Removal::Complete if lease.now < writes_end => drop(self.store.images.postpone(image, lease.ends, writes_end).await?),
            Removal::Complete => {
                self.reservations.release_reservation(image).await?;
                swept.purged += u32::from(self.store.images.mark_purged(image).await?);
            }
        }
        Ok(swept)
    }
}
