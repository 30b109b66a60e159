//! Reservations: what an upload takes of its owner's quota, from its opening until no URL can write bytes for it.
//!
//! The rule: `usedBytes` counts a pending upload with what it reserved, a ready image with its bytes, and a deleted, rejected or
//! expired one with what it had until its last URL is dead and transfers that began in time are over. While something can be
//! written beside a ready image (the source of a copy, a preview that did not come), all that was reserved stays counted. So
//! what a URL can still write is never more than what is counted for it; docs/quota.md has the exceptions, and their bounds.
//!
//! A move of state is acknowledged by itself; the reservation follows in a step of its own (`store/reservations.rs`). Where the
//! server dies in between, or the former version made the move, the sweeper finds the reservation that does not fit the state,
//! and the step that was announced and not finished.

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

/// Users per step of each kind, and reservations of one of them: no user's many keep another's waiting.
const USERS_PER_STEP: u32 = 50;
const ENTRIES_PER_USER: usize = 100;
/// The former version's holds of one user, per step.
pub(super) const HOLDS_PER_STEP: i32 = 100;
/// Images with a reservation to settle, per step.
const IMAGES_PER_STEP: u32 = 500;
/// Settlements in one step.
const SETTLEMENTS_PER_UPDATE: usize = 100;
/// How often a settlement is tried: another server may settle the same image at the same time, and is waited for.
pub(super) const MAX_ATTEMPTS: u32 = 8;
/// The pause after the first try, which doubles with each: in all, longer than [`ABANDONED_AFTER`] before the last.
const FIRST_BACKOFF: std::time::Duration = std::time::Duration::from_millis(20);
/// A step that was announced so long ago is finished by whoever finds it in the way: its server is slow, or dead.
const ABANDONED_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// After a reservation that could not be settled.
const RETRY_DELAY: Duration = Duration::minutes(1);

/// Outcome of a step of the sweeper.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweptReservations {
    /// Uploads that came to nothing, whose bytes are free again.
    pub freed: u32,
    /// Could not be settled now.
    pub failed: u32,
    /// Whether there may be more to do now.
    pub more: bool,
}

/// Where the sweeper is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last user whose former holds were looked at.
    former: Mutex<Option<UserId>>,
}

impl Valet {
    /// Reserves the quota of new uploads: all of them, or none.
    pub(super) async fn reserve(
        &self,
        user: UserId,
        uploads: &[&Image],
        now: OffsetDateTime,
    ) -> Result<ReserveOutcome, StoreError> {
        let room = QuotaLimits { quota_bytes: self.uploads.quota_bytes, max_pending: self.uploads.max_pending };
        self.store.users.reserve(user, uploads, room, now).await
    }

    /// Inserts uploads whose quota is reserved, each with the time at which the sweeper is to look at it. What a unique index
    /// refuses is free again.
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

    /// Whether bytes can still arrive for an image.
    pub(super) fn urls(&self, image: &Image, now: OffsetDateTime) -> UrlLifetime {
        let quiet_from = self.quiet_from(image);
        // An upload in parts is opened without a URL.
        let is_dead = image.urls_die_at <= image.created_at || now >= quiet_from;
        if is_dead { UrlLifetime::Dead } else { UrlLifetime::AliveUntil(quiet_from) }
    }

    /// Brings the reservations of one user's images in line with the states they have come to.
    ///
    /// # Errors
    /// [`StoreError`]; what was not settled is left to the sweeper.
    pub(super) async fn settle_reservations(
        &self,
        user: UserId,
        images: &[Image],
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.settle_by_urls(user, images, |image| self.urls(image, now)).await
    }

    /// As [`Valet::settle_reservations`], for images whose bytes may lie in the bucket still: the bytes stay counted.
    pub(super) async fn settle_counting_bytes(&self, user: UserId, images: &[Image]) -> Result<(), StoreError> {
        self.settle_by_urls(user, images, |image| UrlLifetime::AliveUntil(self.quiet_from(image))).await
    }

    /// As [`Valet::settle_counting_bytes`], where the image was read with a reservation.
    pub(super) async fn settle_if_reserved(&self, image: &Image) -> Result<(), StoreError> {
        match image.reservation {
            Some(_) => self.settle_counting_bytes(image.user, std::slice::from_ref(image)).await,
            None => Ok(()),
        }
    }

    /// Frees what is counted for an image beyond its state, once nothing of that lies in the bucket.
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
        // Boxed: what waits for a settlement waits for much else, and types of futures may be only so deep.
        Box::pin(self.apply_settlements(user, images.to_vec(), |image| image.settling_step(urls(image)))).await
    }

    /// Settles the former version's holds of images that carry no reservation.
    async fn settle_legacy_holds_of(&self, user: UserId, images: &[Image]) -> Result<(), StoreError> {
        let former: Vec<_> = images.iter().filter(|image| image.reservation.is_none()).collect();
        let ready = former.iter().filter(|image| image.state == ImageState::Ready).map(|image| (image.id, image.surplus()));
        let ended = former.iter().filter(|image| !image.state.is_live()).map(|image| image.id);
        let (ready, ended): (Vec<_>, Vec<_>) = (ready.collect(), ended.collect());
        self.store.users.settle_legacy_holds(user, &ready, &ended).await
    }

    /// Takes the images' steps, and again by what the images are then where another server was faster.
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

    /// Waits for other servers' steps of these images, and finishes those that are abandoned.
    pub(super) async fn finish_abandoned_steps(&self, user: UserId, images: &[ImageId], tried: u32) -> Result<(), StoreError> {
        tokio::time::sleep(FIRST_BACKOFF * 2_u32.pow(tried)).await;
        let mut steps = self.store.users.find_announced_steps(user, ABANDONED_AFTER).await?;
        steps.retain(|step| images.contains(&step.image));
        self.store.finish_steps(user, &steps).await
    }

    /// `ready → deleting` for one user's images, with what becomes of their bytes. Answers those that were moved; of the others,
    /// the caller, who has `tried` so often before, looks again what they are.
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
                // A server of the former version that died after it had confirmed them leaves their holds.
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

    /// Settles a bounded number of reservations that servers left: openings without an image, steps that were begun, reservations
    /// that no longer fit the state, and the former version's holds.
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
                // What failed is looked at again when it is as old anew; the rest of many waits behind other users'.
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
            // What failed is looked at again when it is as old anew.
            if unreadable > 0 || finished.is_err() {
                self.store.users.postpone_steps(user, now).await?;
            }
            settled.more |= finished.is_ok() && !steps.is_empty();
        }
        Ok(())
    }

    /// Removes openings. One without an image is freed once its insertion can no longer succeed.
    async fn close_openings(&self, user: UserId, openings: &[ImageId], now: OffsetDateTime) -> Result<u32, StoreError> {
        let there = self.store.images.reservation_statuses(user, openings).await?;
        let (mut inserted, mut cancelled) = (Vec::new(), Vec::new());
        for image in openings.iter().copied() {
            match there.get(&image) {
                Some(found) if !found.was_never_inserted => inserted.push(image),
                // By a sweeper that died before its next write.
                Some(_) => cancelled.push(image),
                None if self.store.images.insert_tombstone(user, image, 0, now).await? => cancelled.push(image),
                // It was inserted meanwhile, or precluded: the next look tells.
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
                // What is written beside a ready image is counted until the sweeper has cleared it.
                if let Err(error) = self.settle_counting_bytes(user, &images).await {
                    tracing::warn!(%user, %error, "failed to settle a user's reservations");
                    settled.failed += 1;
                }
                // What was settled is not due any more, and is not postponed.
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
        // The next step goes on behind these, and begins anew behind the last: no user is in another's way.
        let last = found.last().map(|holds| holds.user);
        *self.reservations.former.lock().unwrap_or_else(PoisonError::into_inner) = last;
        for holds in found {
            let (user, unreadable) = (holds.user, holds.unreadable);
            let taken = self.settle_legacy_holds(holds, now).await;
            if unreadable > 0 {
                tracing::error!(%user, unreadable, "failed to read a user's holds of the former version");
                settled.failed += unreadable;
            }
            match taken {
                Ok((freed, changed)) => {
                    settled.freed += freed;
                    settled.more |= changed;
                }
                Err(error) => {
                    tracing::warn!(%user, %error, "failed to convert a user's holds of the former version");
                    settled.failed += 1;
                }
            }
        }
        Ok(())
    }

    /// Settles the former version's holds of one user by what became of their images, and converts those of pending ones.
    /// Answers how many came to nothing, and whether anything changed.
    pub(super) async fn settle_legacy_holds(
        &self,
        LegacyHolds { user, holds, .. }: LegacyHolds,
        now: OffsetDateTime,
    ) -> Result<(u32, bool), StoreError> {
        let ids: Vec<_> = holds.iter().map(|hold| hold.image).collect();
        let there = self.store.images.reservation_statuses(user, &ids).await?;
        let (mut pending, mut ready, mut ended, mut missing) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for hold in holds {
            match there.get(&hold.image) {
                Some(image) if image.state == ImageState::Pending && !image.is_reserved => pending.push((hold.image, hold.bytes)),
                Some(image) if image.state == ImageState::Ready && !image.is_reserved => ready.push((hold.image, image.surplus)),
                // Ended, or counted twice: by the hold, and by the reservation.
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
        Ok((missing, converted || !ready.is_empty() || !ended.is_empty()))
    }
}
