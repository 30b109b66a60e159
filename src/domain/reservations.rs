//! Reservations: the bytes that an upload takes from its owner's quota, from its opening until no URL can write bytes for it.
//!
//! `usedBytes` counts a pending upload with its reservation, a ready image with its bytes, and a deleted, rejected or expired one
//! with as many bytes as before until its last URL has expired and the transfers that began in time are over. While an object can
//! be written beside a ready image (the source of a copy, a preview that has not arrived), its whole reservation stays counted.
//! So the bytes that a URL can still write never exceed the bytes counted for it; docs/quota.md has the exceptions, and their
//! bounds.
//!
//! A change of state settles the reservation by the same step (`store/reservations.rs`), or if it cannot, in a later step. If the
//! server dies in between, or an earlier version made the change, the sweeper finds the reservation that does not fit the state,
//! or the step that was announced and not finished.

mod sweep;

use std::sync::Arc;

use parking_lot::Mutex;
use time::OffsetDateTime;

pub(super) use self::sweep::SweptReservations;
use super::late_transfers::LateTransfers;
use crate::{
    model::{Image, ImageEnd, ImageId, ImageState, OPENING_GRACE, ReservationStep, UrlLifetime, UserId},
    store::{InsertOutcome, LegacyHolds, QuotaLimits, ReserveOutcome, StepOutcome, Store, StoreError},
};

/// Holds of an earlier version that are settled per user and step.
pub(super) const HOLDS_PER_STEP: i32 = 100;
/// Maximum number of settlements in one update.
const SETTLEMENTS_PER_UPDATE: usize = 100;
/// Attempts at a settlement. If another server settles the same image at the same time, this server waits for it.
pub(super) const MAX_ATTEMPTS: u32 = 8;
/// Attempts at deleting images that a confirm or the sweeper changes meanwhile.
pub(super) const MAX_DELETION_ATTEMPTS: u32 = 5;
/// Pause after the first attempt, which doubles with each attempt. Before the last attempt, the pauses add up to 2.5 seconds,
/// longer than [`ABANDONED_AFTER`].
const FIRST_BACKOFF: std::time::Duration = std::time::Duration::from_millis(20);
/// Age at which this server finishes a step that another server announced: that server is slow, or has stopped.
const ABANDONED_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// Result of settling one user's holds of an earlier version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SettledHolds {
    /// Number of uploads without an image, whose bytes were released.
    freed: u32,
    /// Whether any hold was settled or converted.
    pub(super) has_changed: bool,
}

/// Progress of the sweeper in settling holds.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Last user whose holds of an earlier version were settled.
    last_holder: Mutex<Option<UserId>>,
}

/// Reservations in users' usage.
#[derive(Debug)]
pub(super) struct Reservations {
    pub(super) store: Arc<Store>,
    pub(super) limits: QuotaLimits,
    pub(super) late_transfers: LateTransfers,
    pub(super) progress: Progress,
}

impl Reservations {
    /// Reserves quota for new uploads: for all of them, or for none.
    pub(super) async fn reserve(
        &self,
        user: UserId,
        uploads: &[&Image],
        now: OffsetDateTime,
    ) -> Result<ReserveOutcome, StoreError> {
        self.store.users.reserve(user, uploads, self.limits, now).await
    }

    /// Inserts uploads with reserved quota, each with the time of its first sweep. Releases the quota of those that a unique
    /// index rejects.
    pub(super) async fn insert_reserved(
        &self,
        user: UserId,
        uploads: &[(&Image, OffsetDateTime)],
    ) -> Result<Vec<InsertOutcome>, StoreError> {
        let results = self.store.images.insert_all(uploads).await?;
        let ids_with = |wanted: InsertOutcome| {
            let ids = uploads.iter().zip(&results).filter(move |(_, inserted)| **inserted == wanted);
            ids.map(|((image, _), _)| image.id)
        };
        self.store.users.remember_inserted(user, ids_with(InsertOutcome::Inserted));
        let duplicates: Vec<_> = ids_with(InsertOutcome::Duplicate).collect();
        self.store.users.close_openings(user, &[], &duplicates).await?;
        Ok(results)
    }

    /// Returns the lifetime of the URLs that can write bytes for an image.
    fn url_lifetime(&self, image: &Image, now: OffsetDateTime) -> UrlLifetime {
        let writes_end_at = self.late_transfers.writes_end_at(image);
        // A multipart upload is opened without a URL: then `urls_expire_at` is the time of its opening.
        let has_expired = image.urls_expire_at <= image.created_at || now >= writes_end_at;
        if has_expired { UrlLifetime::Expired } else { UrlLifetime::ValidUntil(writes_end_at) }
    }

    /// Returns the step that ends a pending upload; `None` if it has no reservation, because an earlier version opened it.
    pub(super) fn ending_step(&self, image: &Image, end: ImageEnd, now: OffsetDateTime) -> Option<ReservationStep> {
        image.reservation.map(|_| image.ending_step(end, self.lifetime_after(image, end, now)))
    }

    /// Returns the lifetime of URLs that decides which bytes stay counted after `end`. The bytes of a rejected upload always stay
    /// counted, because its object still exists.
    fn lifetime_after(&self, image: &Image, end: ImageEnd, now: OffsetDateTime) -> UrlLifetime {
        match end {
            ImageEnd::Rejected(_) => UrlLifetime::ValidUntil(self.late_transfers.writes_end_at(image)),
            ImageEnd::Expired | ImageEnd::Deleted { .. } => self.url_lifetime(image, now),
        }
    }

    /// Settles the reservation of an upload that has ended.
    pub(super) async fn settle_ended(&self, tombstone: &Image, end: ImageEnd, now: OffsetDateTime) -> Result<(), StoreError> {
        self.settle_by_urls(tombstone.user, std::slice::from_ref(tombstone), |image| self.lifetime_after(image, end, now)).await
    }

    /// Settles the reservations of one user's images according to their states.
    ///
    /// # Errors
    /// [`StoreError`]; the sweeper settles the rest.
    pub(super) async fn settle_reservations(
        &self,
        user: UserId,
        images: &[Image],
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.settle_by_urls(user, images, |image| self.url_lifetime(image, now)).await
    }

    /// Settles like [`Self::settle_reservations`] for images whose objects may still exist: their bytes stay counted.
    pub(super) async fn settle_counting_bytes(&self, user: UserId, images: &[Image]) -> Result<(), StoreError> {
        self.settle_by_urls(user, images, |image| UrlLifetime::ValidUntil(self.late_transfers.writes_end_at(image))).await
    }

    /// Settles like [`Self::settle_counting_bytes`] if the image was read with a reservation.
    pub(super) async fn settle_if_reserved(&self, image: &Image) -> Result<(), StoreError> {
        match image.reservation {
            Some(_) => self.settle_counting_bytes(image.user, std::slice::from_ref(image)).await,
            None => Ok(()),
        }
    }

    /// Ends the reservation of an image whose objects were removed: only the bytes that its state requires stay counted.
    pub(super) async fn release_reservation(&self, image: &Image) -> Result<(), StoreError> {
        self.apply_settlements(image.user, vec![image.clone()], |image| image.settling_step(UrlLifetime::Expired)).await
    }

    /// Settles the reservations of images whose remaining bytes follow from the lifetime of their URLs.
    async fn settle_by_urls(
        &self,
        user: UserId,
        images: &[Image],
        url_lifetime: impl Fn(&Image) -> UrlLifetime,
    ) -> Result<(), StoreError> {
        self.settle_legacy_holds_of(user, images).await?;
        // Boxed to bound the depth of the callers' future types.
        Box::pin(self.apply_settlements(user, images.to_vec(), |image| image.settling_step(url_lifetime(image)))).await
    }

    /// Settles the holds of an earlier version for those of these images that have no reservation.
    async fn settle_legacy_holds_of(&self, user: UserId, images: &[Image]) -> Result<(), StoreError> {
        let without_reservation: Vec<_> = images.iter().filter(|image| image.reservation.is_none()).collect();
        let ready = without_reservation.iter().filter(|image| image.state() == ImageState::Ready);
        let ready = ready.map(|image| (image.id, image.surplus()));
        let ended = without_reservation.iter().filter(|image| !image.state().is_live()).map(|image| image.id);
        let (ready, ended): (Vec<_>, Vec<_>) = (ready.collect(), ended.collect());
        self.store.users.settle_legacy_holds(user, &ready, &ended).await
    }

    /// Applies the images' settlements; reads the images again and repeats if another server was faster.
    async fn apply_settlements(
        &self,
        user: UserId,
        mut images: Vec<Image>,
        step: impl Fn(&Image) -> Option<ReservationStep>,
    ) -> Result<(), StoreError> {
        for tried in 0..MAX_ATTEMPTS {
            let settlements: Vec<_> = images.iter().filter_map(&step).collect();
            let mut unfinished = Vec::new();
            for chunk in settlements.chunks(SETTLEMENTS_PER_UPDATE) {
                let applied = match self.store.apply_steps(user, chunk).await? {
                    StepOutcome::Applied(images) => images,
                    StepOutcome::Conflict => Vec::new(),
                };
                unfinished.extend(chunk.iter().map(|settlement| settlement.image).filter(|image| !applied.contains(image)));
            }
            if unfinished.is_empty() {
                return Ok(());
            }
            if tried + 1 == MAX_ATTEMPTS {
                break;
            }
            self.finish_abandoned_steps(user, &unfinished, tried).await?;
            images = self.store.images.find_all_owned(user, &unfinished).await?.readable().to_vec();
        }
        Err(StoreError::Contention { subject: "the user's reservations" })
    }

    /// Waits for other servers' steps on these images, and finishes abandoned ones. Does not wait if an image has taken its step.
    pub(super) async fn finish_abandoned_steps(&self, user: UserId, images: &[ImageId], tried: u32) -> Result<(), StoreError> {
        let mut announced = self.store.users.find_all_steps(user).await?;
        announced.retain(|step| images.contains(&step.image));
        if self.store.count_taken_steps(user, &announced).await? {
            return Ok(());
        }
        tokio::time::sleep(FIRST_BACKOFF * 2_u32.pow(tried)).await;
        let mut steps = self.store.users.find_announced_steps(user, ABANDONED_AFTER).await?;
        steps.retain(|step| images.contains(&step.image));
        self.store.finish_steps(user, &steps).await
    }

    /// Moves one user's images from `ready` to `deleting`, and settles their bytes. Returns the deleted ones; the caller, which
    /// has made `tried` attempts before, reads the others again.
    pub(super) async fn delete_ready(
        &self,
        user: UserId,
        images: &[&Image],
        tried: u32,
        now: OffsetDateTime,
    ) -> Result<Vec<ImageId>, StoreError> {
        let deletions: Vec<_> = images
            .iter()
            .map(|image| image.ending_step(ImageEnd::Deleted { was_ready: true }, self.url_lifetime(image, now)))
            .collect();
        match Box::pin(self.store.delete_ready(user, &deletions, now)).await? {
            StepOutcome::Applied(images) => Ok(images),
            StepOutcome::Conflict => {
                // A server of an earlier version that died after a confirm leaves holds.
                let (images, ids): (Vec<_>, Vec<_>) = images.iter().map(|image| (Image::clone(image), image.id)).unzip();
                self.settle_legacy_holds_of(user, &images).await?;
                // There are fewer attempts than at a settlement, so they begin with a longer pause: the last one is also made after
                // `ABANDONED_AFTER`.
                self.finish_abandoned_steps(user, &ids, tried + MAX_ATTEMPTS - MAX_DELETION_ATTEMPTS).await?;
                Ok(Vec::new())
            }
        }
    }

    /// Closes the openings of a deleted account: no image of them can be inserted any more.
    pub(super) async fn close_all_openings(
        &self,
        user: UserId,
        openings: &[ImageId],
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.close_openings(user, openings, now).await.map(drop)
    }

    /// Closes openings, and returns how many were released. An opening without an image is released after a tombstone has made
    /// the insertion of its image impossible.
    async fn close_openings(&self, user: UserId, openings: &[ImageId], now: OffsetDateTime) -> Result<u32, StoreError> {
        let statuses = self.store.images.reservation_statuses(user, openings).await?;
        let (mut inserted, mut cancelled) = (Vec::new(), Vec::new());
        for image in openings.iter().copied() {
            match statuses.get(&image) {
                Some(found) if !found.was_never_inserted => inserted.push(image),
                // A sweeper inserted the tombstone, and died before its next write.
                Some(_) => cancelled.push(image),
                None if self.store.images.insert_purged(user, image, 0, now).await? => cancelled.push(image),
                // Another process inserted the image meanwhile; the next sweep decides.
                None => {}
            }
        }
        self.store.users.close_openings(user, &inserted, &cancelled).await
    }

    /// Settles one user's holds of an earlier version according to their images, and converts the holds of pending images to
    /// reservations.
    pub(super) async fn settle_legacy_holds(
        &self,
        LegacyHolds { user, holds, .. }: LegacyHolds,
        now: OffsetDateTime,
    ) -> Result<SettledHolds, StoreError> {
        let ids: Vec<_> = holds.iter().map(|hold| hold.image).collect();
        let statuses = self.store.images.reservation_statuses(user, &ids).await?;
        let (mut pending, mut ready, mut ended, mut freed) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for hold in holds {
            match statuses.get(&hold.image) {
                Some(image) if image.state == ImageState::Pending && !image.is_reserved => pending.push((hold.image, hold.bytes)),
                Some(image) if image.state == ImageState::Ready && !image.is_reserved => ready.push((hold.image, image.surplus)),
                // The upload has ended, or is counted twice: by the hold and by a reservation.
                Some(_) => ended.push(hold.image),
                None if hold.at < now - OPENING_GRACE
                    && self.store.images.insert_purged(user, hold.image, hold.bytes, now).await? =>
                {
                    freed += 1;
                    ended.push(hold.image);
                }
                None => {}
            }
        }
        self.store.users.settle_legacy_holds(user, &ready, &ended).await?;
        let converted = !pending.is_empty() && self.store.convert_legacy_holds(user, &pending).await?;
        Ok(SettledHolds { freed, has_changed: converted || !ready.is_empty() || !ended.is_empty() })
    }
}
