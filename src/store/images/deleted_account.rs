//! Images of an account that is being deleted, in any state, with readable and unreadable records.

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;

use super::{Images, transition_update::TransitionUpdate, transitions::tombstone_update};
use crate::{
    model::{ImageId, ImageState, UserId},
    store::{StoreError, datetime, driver_events::Operation, instant, whole_number},
};

/// A record that is not purged.
#[derive(Debug, Clone)]
pub struct RemainingImage {
    /// The record's id as it is stored.
    raw_id: Bson,
    /// Id of the image; `None` if the id cannot be read, so that no sweep can end the record.
    pub id: Option<ImageId>,
    /// Whether the image's state is that of a tombstone.
    pub is_tombstone: bool,
    /// Time at which the sweeper processes it next; `None` if it cannot be read.
    pub due: Option<OffsetDateTime>,
    /// Bytes of the image; zero if they cannot be read.
    pub bytes: u64,
    /// Consecutive failures of its sweep that no repeat cures.
    pub failures: u32,
}

impl RemainingImage {
    /// Reads the fields of an image that the deletion of an account needs; a damaged field becomes `None` or zero.
    fn read(record: &Document) -> Self {
        let number = |field: &str| whole_number(record, field).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Self {
            raw_id: record.get("_id").cloned().unwrap_or(Bson::Null),
            id: record.get_str("_id").ok().and_then(ImageId::parse),
            is_tombstone: record.get_str("state").ok().and_then(ImageState::parse).is_some_and(ImageState::is_tombstone),
            due: record.get_datetime("due").ok().map(|due| instant(*due)),
            bytes: number("size"),
            failures: u32::try_from(number("sweepFailures")).unwrap_or(u32::MAX),
        }
    }
}

/// Returns the states of tombstones and of purged images.
fn tombstone_or_purged_states() -> Vec<&'static str> {
    let ending = ImageState::ALL.into_iter().filter(|state| state.is_tombstone() || *state == ImageState::Purged);
    ending.map(ImageState::as_str).collect()
}

impl Images {
    /// Returns some of the user's records that are neither tombstones nor purged: pending and ready ones, and those in a state
    /// that this version does not know.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_live_owned(&self, user: UserId, limit: u32) -> Result<Vec<RemainingImage>, StoreError> {
        self.remaining(doc! { "user": user.to_string(), "state": { "$nin": tombstone_or_purged_states() } }, limit).await
    }

    /// Returns some of the user's records that are not purged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_unpurged_owned(&self, user: UserId, limit: u32) -> Result<Vec<RemainingImage>, StoreError> {
        self.remaining(doc! { "user": user.to_string(), "state": { "$ne": ImageState::Purged.as_str() } }, limit).await
    }

    /// Returns the user's records that match, `limit` of them at most.
    async fn remaining(&self, filter: Document, limit: u32) -> Result<Vec<RemainingImage>, StoreError> {
        let records = self.collection.clone_with_type::<Document>();
        let projection = doc! { "state": 1, "due": 1, "size": 1, "sweepFailures": 1 };
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = records.find(filter.clone()).projection(projection.clone()).limit(i64::from(limit));
            find.await?.try_collect::<Vec<_>>().await
        });
        Ok(found.await?.iter().map(RemainingImage::read).collect())
    }

    /// Turns readable and unreadable records of an account that is being deleted into tombstones, and returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn tombstone_owned(
        &self,
        user: UserId,
        records: &[RemainingImage],
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        if records.is_empty() {
            return Ok(0);
        }
        let deletions = records.iter().map(|record| {
            let mut filter = owned_by(user, std::slice::from_ref(record));
            filter.insert("state", doc! { "$nin": tombstone_or_purged_states() });
            (filter, Bson::from(tombstone_update(ImageState::Deleting, now).pipeline(&self.outbox)))
        });
        let moved = self.mongo.update_each(&self.collection, deletions).await?;
        self.record_transitions(ImageState::Deleting, moved);
        Ok(moved)
    }

    /// Adds to the sweeper's queue those of these tombstones whose `due` is missing or unreadable.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn schedule_owned_tombstones(
        &self,
        user: UserId,
        records: &[RemainingImage],
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let unscheduled: Vec<_> = records.iter().filter(|record| record.is_tombstone && record.due.is_none()).cloned().collect();
        if unscheduled.is_empty() {
            return Ok(());
        }
        let mut filter = owned_by(user, &unscheduled);
        filter.insert("due", doc! { "$not": { "$type": "date" } });
        let update = doc! { "$set": { "due": datetime(now) } };
        self.mongo.update_many(&self.collection, filter, update).await.map(drop)
    }

    /// Marks those of these tombstones as purged whose ids cannot be read, because no sweep can purge them. Returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn purge_owned_unreadable(
        &self,
        user: UserId,
        records: &[RemainingImage],
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        let unreadable: Vec<_> = records.iter().filter(|record| record.id.is_none() && record.is_tombstone).cloned().collect();
        if unreadable.is_empty() {
            return Ok(0);
        }
        let update = TransitionUpdate::to(ImageState::Purged).set(doc! { "goneAt": datetime(now) });
        let update = update.unset(["reservation", "due", "sweepFailures"]).pipeline(&self.outbox);
        let filter = self.outbox.require_empty(owned_by(user, &unreadable));
        let done = self.mongo.update_many(&self.collection, filter, update).await?;
        self.record_transitions(ImageState::Purged, done.modified_count);
        Ok(done.modified_count)
    }
}

/// Returns the filter for these records of this user.
fn owned_by(user: UserId, records: &[RemainingImage]) -> Document {
    let ids: Vec<_> = records.iter().map(|record| record.raw_id.clone()).collect();
    doc! { "_id": { "$in": ids }, "user": user.to_string() }
}
