//! The steps of one pass over a deleted account. A step is taken even if an earlier one failed.

use time::{Duration, OffsetDateTime};

use super::{AccountDeletion, RETRY_DELAY, leftovers::Leftovers};
use crate::{
    domain::{credentials::oidc_tokens::DELETION_MEMORY, removal::Removal, reservations},
    model::{OPENING_GRACE, UserId},
    store::{Deletion, RemainingImage, StoreError},
};

/// Images per pass over an account.
const IMAGES_PER_PASS: u32 = 100;
/// Maximum delay between two passes over an account whose tombstones wait.
const MAX_WAIT: Duration = Duration::days(1);

/// When a deletion continues after a step or a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// At once: a step made progress, and there may be more.
    More,
    /// Not before this time.
    Wait(OffsetDateTime),
    /// Nothing is left.
    Done,
}

/// Combined outcome of the steps of one pass.
#[derive(Debug, Default)]
struct PassResult {
    /// Whether a step made progress, and there may be more to do at once.
    has_more: bool,
    /// Earliest time at which a step that waits continues.
    until: Option<OffsetDateTime>,
    /// First temporary failure, else the first permanent one.
    failed: Option<StoreError>,
}

impl PassResult {
    /// Adds the result of one step.
    fn record(&mut self, user: UserId, step: Result<Progress, StoreError>) {
        match step {
            Ok(Progress::More) => self.has_more = true,
            Ok(Progress::Wait(until)) => self.until = Some(self.until.map_or(until, |earlier| earlier.min(until))),
            Ok(Progress::Done) => {}
            Err(error) => {
                tracing::debug!(%user, %error, "failed to take a step of the deletion of an account");
                // Temporary failures take precedence over permanent ones: the next pass may get further.
                if self.failed.as_ref().is_none_or(|first| error.is_temporary() && !first.is_temporary()) {
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Returns the outcome of the pass. A step that made progress outweighs failures of others, so the next pass is not delayed.
    fn finish(self) -> Result<Progress, StoreError> {
        match (self.has_more, self.failed, self.until) {
            (true, _, _) => Ok(Progress::More),
            (false, Some(error), _) => Err(error),
            (false, None, Some(until)) => Ok(Progress::Wait(until)),
            (false, None, None) => Ok(Progress::Done),
        }
    }
}

impl AccountDeletion {
    /// Makes one pass: takes every step that is possible now, even after another one has failed.
    pub(super) async fn run_pass(&self, deletion: Deletion, now: OffsetDateTime) -> Result<Progress, StoreError> {
        let user = deletion.user;
        let mut pass = PassResult::default();
        pass.record(user, self.store.users.release_keys(user).await.map(|()| Progress::Done));
        pass.record(user, self.store.known_networks.delete_all(user).await.map(|()| Progress::Done));
        pass.record(user, self.end_sessions(user).await);
        pass.record(user, self.end_openings(deletion, now).await);
        // After the openings are closed, no image can be inserted.
        pass.record(user, self.tombstone_images(user, now).await);
        if pass.has_more {
            return pass.finish();
        }
        let remaining = self.end_records(deletion, now).await;
        let (is_empty, has_failures) = match &remaining {
            Ok(remaining) => (remaining.is_empty(), remaining.iter().any(|record| record.failures > 0)),
            Err(_) => (false, true),
        };
        pass.record(user, remaining.map(|remaining| wait_for(&remaining, now)));
        // Leftovers wait until the sweeper has removed the objects of all tombstones, unless a removal fails.
        if is_empty || has_failures {
            pass.record(user, self.remove_leftovers(deletion, now).await);
        }
        if pass.failed.is_none() && pass.until.is_none() && !pass.has_more {
            self.store.users.discard_entries(user).await?;
            // Until `memory_ends`, the record prevents tokens of the provider from creating the account again.
            let memory_ends = deletion.at + DELETION_MEMORY;
            if deletion.has_provider_identity && now < memory_ends {
                return Ok(Progress::Wait(memory_ends));
            }
        }
        pass.finish()
    }

    /// Deletes sessions again, because a sign-in that ran during the claim may have left one.
    async fn end_sessions(&self, user: UserId) -> Result<Progress, StoreError> {
        if self.store.sessions.has_any(user).await? {
            self.store.sessions.delete_all(user).await?;
        }
        Ok(Progress::Done)
    }

    /// Closes the entries of the account's record that count uploads: openings, announced steps, and holds of an earlier version.
    /// Unreadable entries or counters are discarded and counted again, because they would keep tombstones from being settled.
    async fn end_openings(&self, deletion: Deletion, now: OffsetDateTime) -> Result<Progress, StoreError> {
        let user = deletion.user;
        let done = match self.close_entries(deletion, now).await {
            Ok(Progress::Done) => match self.store.users.has_abandoned_entries(user, now - OPENING_GRACE).await? {
                true => Err(StoreError::Corrupt { collection: "users", id: user.to_string(), field: "an entry" }),
                false => Ok(Progress::Done),
            },
            done => done,
        };
        match done {
            Err(error) if !error.is_temporary() => {
                tracing::warn!(%user, %error, "failed to settle the reservations of a deleted account; counting them again");
                self.store.users.discard_entries(user).await?;
                self.store.recount(user, now).await?;
                Ok(Progress::Done)
            }
            done => done,
        }
    }

    /// Closes openings, so that a server that reserved before the claim cannot insert its image, and finishes announced steps.
    async fn close_entries(&self, deletion: Deletion, now: OffsetDateTime) -> Result<Progress, StoreError> {
        let user = deletion.user;
        let openings = self.store.users.find_openings(user).await?;
        if !openings.is_empty() {
            self.reservations.close_all_openings(user, &openings, now).await?;
        }
        let steps = self.store.users.find_all_steps(user).await?;
        if !steps.is_empty() {
            self.store.finish_steps(user, &steps).await?;
        }
        let legacy_holds = self.store.users.legacy_holds_of(user, reservations::HOLDS_PER_STEP).await?;
        let Some(legacy_holds) = legacy_holds.filter(|legacy_holds| !legacy_holds.holds.is_empty()) else {
            return Ok(Progress::Done);
        };
        match self.reservations.settle_legacy_holds(legacy_holds, now).await?.has_changed {
            true => Ok(Progress::More),
            // A server of an earlier version may still insert an image of a hold.
            false if now < deletion.at + OPENING_GRACE => Ok(Progress::Wait(deletion.at + OPENING_GRACE)),
            false => Ok(Progress::Done),
        }
    }

    /// Makes tombstones of all images, in any state and even if their records cannot be read.
    async fn tombstone_images(&self, user: UserId, now: OffsetDateTime) -> Result<Progress, StoreError> {
        let found = self.store.images.find_live_owned(user, IMAGES_PER_PASS).await?;
        if found.is_empty() {
            return Ok(Progress::Done);
        }
        let ids: Vec<_> = found.iter().filter_map(|record| record.id).collect();
        let (deleted, failed) = match self.deletion.delete_all(user, &ids, now).await {
            Ok(answers) => {
                let deleted = ids.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
                (deleted.map(|(id, _)| *id).collect(), None)
            }
            Err(error) if !error.is_temporary() => (Vec::new(), Some(error)),
            Err(error) => return Err(error),
        };
        let is_left = |record: &&RemainingImage| record.id.is_none_or(|id| !deleted.contains(&id));
        // Records that `delete_all()` did not delete, such as unreadable ones. The sweeper removes their objects.
        let left: Vec<_> = found.iter().filter(is_left).cloned().collect();
        let tombstoned = self.store.images.tombstone_owned(user, &left, now).await?;
        match failed {
            _ if tombstoned > 0 || !deleted.is_empty() => Ok(Progress::More),
            Some(error) => Err(error),
            // Another server has made the tombstones.
            None => Ok(Progress::Wait(now + RETRY_DELAY)),
        }
    }

    /// Schedules the account's tombstones for the sweeper, and returns those that are left. Unreadable ones are marked as purged
    /// when no URL can write their objects any more.
    async fn end_records(&self, deletion: Deletion, now: OffsetDateTime) -> Result<Vec<RemainingImage>, StoreError> {
        let mut unpurged = self.store.images.find_unpurged_owned(deletion.user, IMAGES_PER_PASS).await?;
        self.store.images.schedule_owned_tombstones(deletion.user, &unpurged, now).await?;
        let largest = unpurged.iter().filter(|record| record.id.is_none()).map(|record| record.bytes).max();
        if largest.is_some_and(|bytes| now >= self.end_of_writes(deletion, bytes)) {
            self.store.images.purge_owned_unreadable(deletion.user, &unpurged, now).await?;
            unpurged.retain(|record| record.id.is_some());
        }
        Ok(unpurged)
    }

    /// Returns the time after which no URL that was signed before the claim can write an object of `bytes`.
    fn end_of_writes(&self, deletion: Deletion, bytes: u64) -> OffsetDateTime {
        deletion.at + self.settings.url_ttl + self.late_transfers.grace(bytes)
    }

    /// Removes objects without a record, and again when no URL can write them any more.
    async fn remove_leftovers(&self, deletion: Deletion, now: OffsetDateTime) -> Result<Progress, StoreError> {
        let found = self.leftovers.remove_leftovers_within_deadline(deletion.user).await?;
        let Leftovers { removed, largest, .. } = found;
        match found.finish()? {
            Removal::Complete if removed == 0 => return Ok(Progress::Done),
            Removal::Complete => {}
            Removal::Partial => return Ok(Progress::More),
        }
        tracing::warn!(user = %deletion.user, removed, "removed objects of a deleted account that had no record");
        let writes_end = self.end_of_writes(deletion, largest);
        if now < writes_end {
            return Ok(Progress::Wait(writes_end));
        }
        let again = self.leftovers.remove_leftovers_within_deadline(deletion.user).await?;
        match again.removed + again.retained {
            0 => again.finish().map(|_| Progress::Done),
            objects => Err(StoreError::ObjectsRemain { objects }),
        }
    }
}

/// Returns the wait until the sweeper handles the first of the records again, for [`MAX_WAIT`] at most.
fn wait_for(left: &[RemainingImage], now: OffsetDateTime) -> Progress {
    let due = left.iter().map(|record| record.due.filter(|due| *due > now).unwrap_or(now + RETRY_DELAY)).min();
    due.map_or(Progress::Done, |due| Progress::Wait(due.min(now + MAX_WAIT)))
}
