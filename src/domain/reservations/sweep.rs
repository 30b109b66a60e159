//! Settles, in the sweeper, the reservations that servers left unsettled.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};

use super::{HOLDS_PER_STEP, Reservations, SettledHolds};
use crate::{
    model::{Image, OPENING_GRACE, UserId},
    store::{StaleEntries, StoreError, UnsettledKind},
};

/// Users per step of each kind: a bounded number, so that no user delays the others.
const USERS_PER_STEP: u32 = 50;
/// Maximum number of a user's entries that a step settles.
const ENTRIES_PER_USER: usize = 100;
/// Images per step whose reservations are settled.
const IMAGES_PER_STEP: u32 = 500;
/// Delay after a failed settlement.
const RETRY_DELAY: Duration = Duration::minutes(1);

/// Result of one round of the sweeper over reservations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::domain) struct SweptReservations {
    /// Number of uploads without an image, whose bytes were released.
    pub freed: u32,
    /// Number of reservations that could not be settled.
    pub failed: u32,
    /// Whether more may be due now.
    pub more: bool,
}

impl Reservations {
    /// Settles a bounded number of reservations that servers left unsettled: openings without an image, announced steps,
    /// reservations that do not fit their image's state, and holds of an earlier version.
    pub(in crate::domain) async fn sweep_reservations(&self, now: OffsetDateTime) -> Result<SweptReservations, StoreError> {
        let mut settled = SweptReservations::default();
        self.sweep_openings(now, &mut settled).await?;
        self.sweep_steps(now, &mut settled).await?;
        self.sweep_unsettled(now, &mut settled).await?;
        self.sweep_legacy_holds(now, &mut settled).await?;
        Ok(settled)
    }

    /// Closes openings whose image was not inserted in time.
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
                // A failed entry is due again after `OPENING_GRACE`; the rest of a long list waits behind other users.
                let at = if failed { now } else { now - OPENING_GRACE - Duration::MILLISECOND };
                self.store.users.postpone_openings(user, at).await?;
            }
        }
        Ok(())
    }

    /// Finishes steps of settlements that servers announced and did not finish.
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
            // A failed step is due again after `OPENING_GRACE`.
            if unreadable > 0 || finished.is_err() {
                self.store.users.postpone_steps(user, now).await?;
            }
            settled.more |= finished.is_ok() && !steps.is_empty();
        }
        Ok(())
    }

    /// Settles reservations that do not fit their image's state.
    async fn sweep_unsettled(&self, now: OffsetDateTime, settled: &mut SweptReservations) -> Result<(), StoreError> {
        for kind in UnsettledKind::ALL {
            let (mut unreadable, mut found) = (Vec::new(), Vec::new());
            let mut by_user: HashMap<UserId, Vec<Image>> = HashMap::new();
            for image in self.store.images.find_unsettled(kind, now, IMAGES_PER_STEP).await? {
                match image {
                    Ok(image) => {
                        found.push(image.id);
                        by_user.entry(image.user).or_default().push(image);
                    }
                    Err(image) => {
                        tracing::error!(error = %image.error, "failed to read an image whose reservation is to be settled");
                        unreadable.push(*image);
                    }
                }
            }
            settled.more |= found.len() + unreadable.len() == IMAGES_PER_STEP as usize;
            settled.failed += u32::try_from(unreadable.len()).unwrap_or(u32::MAX);
            for (user, images) in by_user {
                // Leftovers of a ready image stay counted until the sweeper has removed them.
                if let Err(error) = self.settle_counting_bytes(user, &images).await {
                    tracing::warn!(%user, %error, "failed to settle a user's reservations");
                    settled.failed += 1;
                }
            }
            // Images that were settled are not due any more, and are not postponed.
            self.store.images.postpone_settling(&found, &unreadable, now, now + RETRY_DELAY).await?;
        }
        Ok(())
    }

    /// Settles the holds of an earlier version, of some users at a time.
    async fn sweep_legacy_holds(&self, now: OffsetDateTime, settled: &mut SweptReservations) -> Result<(), StoreError> {
        let after = *self.progress.last_holder.lock();
        let mut found = self.store.users.legacy_holds(after, USERS_PER_STEP, HOLDS_PER_STEP).await?;
        if found.is_empty() && after.is_some() {
            found = self.store.users.legacy_holds(None, USERS_PER_STEP, HOLDS_PER_STEP).await?;
        }
        // The next step continues after these users, and starts again after the last, so that no user delays another.
        let last = found.last().map(|holds| holds.user);
        *self.progress.last_holder.lock() = last;
        for holds in found {
            let (user, unreadable) = (holds.user, holds.unreadable);
            let settlement = self.settle_legacy_holds(holds, now).await;
            if unreadable > 0 {
                tracing::error!(%user, unreadable, "failed to read a user's holds of an earlier release");
                settled.failed += unreadable;
            }
            match settlement {
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
}
