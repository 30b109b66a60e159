//! Reservations: the storage that an upload holds in its owner's usage, from its opening until no URL can write bytes for it.
//!
//! `usedBytes` counts a pending upload with its reservation, a ready image with its bytes, and a deleted, rejected or expired one
//! with its former count until its last URL has expired and the transfers that began in time are over. While an object can be
//! written beside a ready image (the source of a copy, a preview that has not arrived), its whole reservation stays counted. So
//! the bytes that a URL can still write never exceed the bytes counted for it; docs/quota.md has the exceptions, and their
//! bounds.
//!
//! A change of state is acknowledged by itself; the reservation follows in a step of its own (`store/reservations.rs`). If the
//! server dies in between, or an earlier release made the change, the sweeper finds the reservation that does not fit the state,
//! or the step that was announced and not finished.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use time::{Duration, OffsetDateTime};

use super::{Valet, deletion};
use crate::{
    model::{Image, ImageId, ImageState, OPENING_GRACE, ReservationStep, UrlLifetime, UserId},
    store::{InsertOutcome, LegacyHolds, QuotaLimits, ReserveOutcome, StaleEntries, StepOutcome, StoreError, UnsettledKind},
};

/// Users per step of each kind: no user delays the others.
const USERS_PER_STEP: u32 = 50;
const ENTRIES_PER_USER: usize = 100;
/// Holds of an earlier release per user and step.
pub(super) const HOLDS_PER_STEP: i32 = 100;
/// Images with a reservation to settle per step.
const IMAGES_PER_STEP: u32 = 500;
/// Settlements in one update.
const SETTLEMENTS_PER_UPDATE: usize = 100;
/// Attempts at a settlement. Another server may settle the same image at the same time, and is waited for.
pub(super) const MAX_ATTEMPTS: u32 = 8;
/// Pause after the first attempt, which doubles with each; together longer than [`ABANDONED_AFTER`] before the last.
const FIRST_BACKOFF: std::time::Duration = std::time::Duration::from_millis(20);
/// Age at which a step that another server announced is finished here: that server is slow, or dead.
const ABANDONED_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// Delay after a failed settlement.
const RETRY_DELAY: Duration = Duration::minutes(1);

/// Result of one round of the sweeper over reservations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweptReservations {
    /// Uploads without an image, whose bytes were released.
    pub freed: u32,
    /// Reservations that could not be settled.
    pub failed: u32,
    /// Whether more may be due now.
    pub more: bool,
}

/// Result of settling one user's holds of an earlier release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SettledHolds {
    /// Uploads without an image, whose bytes were released.
    freed: u32,
    /// Whether any hold was settled or converted.
    pub(super) has_changed: bool,
}

/// Progress of the sweeper.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Last user whose holds of an earlier release were settled.
    former: Mutex<Option<UserId>>,
}

impl Valet {
    /// Reserves quota for new uploads: for all of them, or for none.
    pub(super) async fn reserve(
        &self,
        user: UserId,
        uploads: &[&Image],
        now: OffsetDateTime,
    ) -> Result<ReserveOutcome, StoreError> {
        let room = QuotaLimits { quota_bytes: self.uploads.quota_bytes, max_pending: self.uploads.max_pending };
        self.store.users.reserve(user, uploads, room, now).await
    }

    /// Inserts uploads with reserved quota, each with the time of its first sweep. Releases the quota of those that a unique
    /// index refuses.
    pub(super) async fn insert_reserved(
        &self,
        user: UserId,
        uploads: &[(&Image, OffsetDateTime)],
    ) -> Result<Vec<InsertOutcome>, StoreError> {
        let results = self.store.images.insert_all(uploads).await?;
        let with = |wanted: InsertOutcome| {
            let ids = uploads.iter().zip(&results).filter(move |(_, inserted)| **inserted == wanted);
            ids.map(|((image, _), _)| image.id)
        };
        self.store.users.note_inserted(user, with(InsertOutcome::Inserted));
        let refused: Vec<_> = with(InsertOutcome::Duplicate).collect();
        self.store.users.close_openings(user, &[], &refused).await?;
        Ok(results)
    }

    /// Returns whether bytes can still arrive for an image.
    pub(super) fn urls(&self, image: &Image, now: OffsetDateTime) -> UrlLifetime {
        let quiet_from = self.quiet_from(image);
        // A multipart upload is opened without a URL.
        let is_dead = image.urls_die_at <= image.created_at || now >= quiet_from;
        if is_dead { UrlLifetime::Dead } else { UrlLifetime::AliveUntil(quiet_from) }
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
        self.settle_by_urls(user, images, |image| self.urls(image, now)).await
    }

    /// Does as [`Valet::settle_reservations`] for images whose objects may still exist: their bytes stay counted.
    pub(super) async fn settle_counting_bytes(&self, user: UserId, images: &[Image]) -> Result<(), StoreError> {
        self.settle_by_urls(user, images, |image| UrlLifetime::AliveUntil(self.quiet_from(image))).await
    }

    /// Does as [`Valet::settle_counting_bytes`], if the image was read with a reservation.
    pub(super) async fn settle_if_reserved(&self, image: &Image) -> Result<(), StoreError> {
        match image.reservation {
            Some(_) => self.settle_counting_bytes(image.user, std::slice::from_ref(image)).await,
            None => Ok(()),
        }
    }

    /// Releases the bytes that are counted for an image beyond its state, after its objects were removed.
    pub(super) async fn release_reservation(&self, image: &Image) -> Result<(), StoreError> {
        self.apply_settlements(image.user, vec![image.clone()], |image| image.settling_step(UrlLifetime::Dead)).await
    }

    async fn settle_by_urls(
        &self,
        user: UserId,
        images: &[Image],
        urls: impl Fn(&Image) -> UrlLifetime,
    ) -> Result<(), StoreError> {
        self.settle_legacy_holds_of(user, images).await?;
        // Boxed to bound the depth of the callers' future types.
        Box::pin(self.apply_settlements(user, images.to_vec(), |image| image.settling_step(urls(image)))).await
    }

    /// Settles an earlier release's holds of images without a reservation.
    async fn settle_legacy_holds_of(&self, user: UserId, images: &[Image]) -> Result<(), StoreError> {
        let former: Vec<_> = images.iter().filter(|image| image.reservation.is_none()).collect();
        let ready = former.iter().filter(|image| image.state == ImageState::Ready).map(|image| (image.id, image.surplus()));
        let ended = former.iter().filter(|image| !image.state.is_live()).map(|image| image.id);
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
            let mut left = Vec::new();
            for some in settlements.chunks(SETTLEMENTS_PER_UPDATE) {
                let taken = match self.store.apply_steps(user, some).await? {
                    StepOutcome::Applied(taken) => taken,
                    StepOutcome::Conflict => Vec::new(),
                };
                left.extend(some.iter().map(|settlement| settlement.image).filter(|image| !taken.contains(image)));
            }
            if left.is_empty() {
                return Ok(());
            }
            if tried + 1 == MAX_ATTEMPTS {
                break;
            }
            self.finish_abandoned_steps(user, &left, tried).await?;
            images = self.store.images.find_all_owned(user, &left).await?.readable().to_vec();
        }
        Err(StoreError::Contention { what: "the user's reservations" })
    }

    /// Waits for other servers' steps on these images, and finishes abandoned ones.
    pub(super) async fn finish_abandoned_steps(&self, user: UserId, images: &[ImageId], tried: u32) -> Result<(), StoreError> {
        tokio::time::sleep(FIRST_BACKOFF * 2_u32.pow(tried)).await;
        let mut steps = self.store.users.find_announced_steps(user, ABANDONED_AFTER).await?;
        steps.retain(|step| images.contains(&step.image));
        self.store.finish_steps(user, &steps).await
    }

    /// `ready → deleting` for one user's images, with the settlement of their bytes. Returns the deleted ones; the caller, which
    /// has made `tried` attempts before, reads the others again.
    pub(super) async fn delete_ready(
        &self,
        user: UserId,
        images: &[&Image],
        tried: u32,
        now: OffsetDateTime,
    ) -> Result<Vec<ImageId>, StoreError> {
        let deletions: Vec<_> = images.iter().map(|image| image.deletion_step(self.urls(image, now))).collect();
        match Box::pin(self.store.delete_ready(user, &deletions, now)).await? {
            StepOutcome::Applied(images) => Ok(images),
            StepOutcome::Conflict => {
                // A server of an earlier release that died after a confirm leaves holds.
                let (images, ids): (Vec<_>, Vec<_>) = images.iter().map(|image| (Image::clone(image), image.id)).unzip();
                self.settle_legacy_holds_of(user, &images).await?;
                self.finish_abandoned_steps(user, &ids, tried + MAX_ATTEMPTS - deletion::MAX_ATTEMPTS).await?;
                Ok(Vec::new())
            }
        }
    }

    /// Closes the openings of a deleted account: none of them can be inserted any more.
    pub(super) async fn close_all_openings(
        &self,
        user: UserId,
        openings: &[ImageId],
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.close_openings(user, openings, now).await.map(drop)
    }

    /// Settles a bounded number of reservations that servers left behind: openings without an image, announced steps,
    /// reservations that do not fit their image's state, and holds of an earlier release.
    pub(super) async fn sweep_reservations(&self, now: OffsetDateTime) -> Result<SweptReservations, StoreError> {
        let mut settled = SweptReservations::default();
        self.sweep_openings(now, &mut settled).await?;
        self.sweep_steps(now, &mut settled).await?;
        self.sweep_unsettled(now, &mut settled).await?;
        self.sweep_legacy_holds(now, &mut settled).await?;
        Ok(settled)
    }

    async fn sweep_openings(&self, now: OffsetDateTime, settled: &mut SweptReservations) -> Result<(), StoreError> {
        let stale = self.store.users.find_stale_openings(now - OPENING_GRACE, USERS_PER_STEP, ENTRIES_PER_USER).await?;
        settled.more |= stale.len() == USERS_PER_STEP as usize;
        for StaleEntries { user, entries: images, unreadable } in stale {
            let closed = self.close_openings(user, &images, now).await;
            if unreadable > 0 {
                tracing::error!(%user, unreadable, "failed to read entries of a user's opening uploads");
                settled.failed += unreadable;
            }
            let failed = unreadable > 0 || closed.is_err();
            match closed {
                Ok(freed) => {
                    settled.freed += freed;
                    settled.more |= freed > 0;
                }
                Err(error) => {
                    tracing::warn!(%user, %error, "failed to close a user's openings");
                    settled.failed += 1;
                }
            }
            if failed || images.len() == ENTRIES_PER_USER {
                // A failed entry is due again after the same time; the rest of a long list waits behind other users.
                let at = if failed { now } else { now - OPENING_GRACE - Duration::MILLISECOND };
                self.store.users.postpone_openings(user, at).await?;
            }
        }
        Ok(())
    }

    async fn sweep_steps(&self, now: OffsetDateTime, settled: &mut SweptReservations) -> Result<(), StoreError> {
        let stale = self.store.users.find_stale_steps(now - OPENING_GRACE, USERS_PER_STEP, ENTRIES_PER_USER).await?;
        settled.more |= stale.len() == USERS_PER_STEP as usize;
        for StaleEntries { user, entries: steps, unreadable } in stale {
            let finished = self.store.finish_steps(user, &steps).await;
            if unreadable > 0 {
                tracing::error!(%user, unreadable, "failed to read steps of a user's reservations");
                settled.failed += unreadable;
            }
            if let Err(error) = &finished {
                tracing::warn!(%user, %error, "failed to finish steps of a user's reservations");
                settled.failed += 1;
            }
            // A failed entry is due again after the same time.
            if unreadable > 0 || finished.is_err() {
                self.store.users.postpone_steps(user, now).await?;
            }
            settled.more |= finished.is_ok() && !steps.is_empty();
        }
        Ok(())
    }

    /// Closes openings. One without an image is released after a tombstone has made its insertion impossible.
    async fn close_openings(&self, user: UserId, openings: &[ImageId], now: OffsetDateTime) -> Result<u32, StoreError> {
        let there = self.store.images.reservation_statuses(user, openings).await?;
        let (mut inserted, mut cancelled) = (Vec::new(), Vec::new());
        for image in openings.iter().copied() {
            match there.get(&image) {
                Some(found) if !found.was_never_inserted => inserted.push(image),
                // A sweeper that died before its next write inserted the tombstone.
                Some(_) => cancelled.push(image),
                None if self.store.images.insert_tombstone(user, image, 0, now).await? => cancelled.push(image),
                // Another process inserted it meanwhile; the next sweep decides.
                None => {}
            }
        }
        self.store.users.close_openings(user, &inserted, &cancelled).await
    }

    async fn sweep_unsettled(&self, now: OffsetDateTime, settled: &mut SweptReservations) -> Result<(), StoreError> {
        for which in UnsettledKind::ALL {
            let mut failed = Vec::new();
            let mut by_user: HashMap<UserId, Vec<Image>> = HashMap::new();
            let found = self.store.images.find_unsettled(which, now, IMAGES_PER_STEP).await?;
            settled.more |= found.len() == IMAGES_PER_STEP as usize;
            for image in found {
                match image {
                    Ok(image) => by_user.entry(image.user).or_default().push(image),
                    Err((id, error)) => {
                        tracing::error!(%error, "failed to read an image whose reservation is to be settled");
                        failed.push(id);
                    }
                }
            }
            settled.failed += u32::try_from(failed.len()).unwrap_or(u32::MAX);
            for (user, images) in by_user {
                // Leftovers of a ready image stay counted until the sweeper has removed them.
                if let Err(error) = self.settle_counting_bytes(user, &images).await {
                    tracing::warn!(%user, %error, "failed to settle a user's reservations");
                    settled.failed += 1;
                }
                // Settled ones are not due any more, and are not postponed.
                failed.extend(images.iter().map(|image| image.id.to_string()));
            }
            self.store.images.postpone_settling(&failed, now, now + RETRY_DELAY).await?;
        }
        Ok(())
    }

    async fn sweep_legacy_holds(&self, now: OffsetDateTime, settled: &mut SweptReservations) -> Result<(), StoreError> {
        let after = *self.reservations.former.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = self.store.users.legacy_holds(after, USERS_PER_STEP, HOLDS_PER_STEP).await?;
        if found.is_empty() && after.is_some() {
            found = self.store.users.legacy_holds(None, USERS_PER_STEP, HOLDS_PER_STEP).await?;
        }
        // The next step continues after these users, and starts again after the last, so that no user delays another.
        let last = found.last().map(|holds| holds.user);
        *self.reservations.former.lock().unwrap_or_else(PoisonError::into_inner) = last;
        for holds in found {
            let (user, unreadable) = (holds.user, holds.unreadable);
            let taken = self.settle_legacy_holds(holds, now).await;
            if unreadable > 0 {
                tracing::error!(%user, unreadable, "failed to read a user's holds of an earlier release");
                settled.failed += unreadable;
            }
            match taken {
                Ok(SettledHolds { freed, has_changed }) => {
                    settled.freed += freed;
                    settled.more |= has_changed;
                }
                Err(error) => {
                    tracing::warn!(%user, %error, "failed to convert a user's holds of an earlier release");
                    settled.failed += 1;
                }
            }
        }
        Ok(())
    }

    /// Settles an earlier release's holds of one user according to their images, and converts those of pending ones.
    pub(super) async fn settle_legacy_holds(
        &self,
        LegacyHolds { user, holds, .. }: LegacyHolds,
        now: OffsetDateTime,
    ) -> Result<SettledHolds, StoreError> {
        let ids: Vec<_> = holds.iter().map(|hold| hold.image).collect();
        let there = self.store.images.reservation_statuses(user, &ids).await?;
        let (mut pending, mut ready, mut ended, mut missing) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for hold in holds {
            match there.get(&hold.image) {
                Some(image) if image.state == ImageState::Pending && !image.is_reserved => pending.push((hold.image, hold.bytes)),
                Some(image) if image.state == ImageState::Ready && !image.is_reserved => ready.push((hold.image, image.surplus)),
                // Ended, or counted twice: by the hold and by a reservation.
                Some(_) => ended.push(hold.image),
                None if hold.at < now - OPENING_GRACE
                    && self.store.images.insert_tombstone(user, hold.image, hold.bytes, now).await? =>
                {
                    missing += 1;
                    ended.push(hold.image);
                }
                None => {}
            }
        }
        self.store.users.settle_legacy_holds(user, &ready, &ended).await?;
        let converted = !pending.is_empty() && self.store.convert_legacy_holds(user, &pending).await?;
        Ok(SettledHolds { freed: missing, has_changed: converted || !ready.is_empty() || !ended.is_empty() })
    }
}
