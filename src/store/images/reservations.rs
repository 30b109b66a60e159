//! Queries and updates of reservations in the documents of images: decides steps that the user's record announces, finds and
//! postpones reservations that no longer fit the state, and reads the fields that settling legacy holds
//! (`store::users::legacy_holds`) needs.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;

use super::{Images, owned_by_ids};
use crate::{
    model::{Image, ImageId, ImageState, OPENING_GRACE, QuotaCounter, StepId, UserId},
    store::{AnnouncedStep, StoreError, datetime, driver_events::Operation, integer, last_step, whole_number},
};

/// The fields of an image that settling a legacy hold needs.
#[derive(Debug, Clone, Copy)]
pub struct ReservationStatus {
    /// The image's state; an unreadable state counts as pending, which subtracts nothing.
    pub state: ImageState,
    /// Whether the image carries a reservation.
    pub is_reserved: bool,
    /// Whether the document only makes an insertion fail: see [`Images::insert_purged`].
    pub was_never_inserted: bool,
    /// Reserved bytes beyond those of the image and its preview.
    pub surplus: u64,
}

/// An image whose record cannot be read.
#[derive(Debug)]
pub struct UnreadableImage {
    raw_id: Bson,
    /// The error.
    pub error: StoreError,
}

/// Kinds of reservations that no longer fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsettledKind {
    /// Images that left the pending state and are still counted among open uploads or images. The settled reservation of a
    /// tombstone counts among neither; the sweeper ends it when the tombstone is due.
    NotPending,
    /// Purged images that still have a reservation.
    Purged,
}

impl UnsettledKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::NotPending, Self::Purged];

    /// Returns the states and counters of images whose reservation is due to be settled.
    fn states_and_counters(self) -> (&'static [ImageState], &'static [QuotaCounter]) {
        use ImageState::{Deleting, Expired, Purged, Ready, Rejected};
        match self {
            Self::NotPending => (&[Ready, Deleting, Rejected, Expired], &[QuotaCounter::Pending, QuotaCounter::Image]),
            Self::Purged => (&[Purged], &QuotaCounter::ALL),
        }
    }
}

impl Images {
    /// Decides announced steps: returns those that their images have taken, and makes sure that the others can no longer be
    /// taken. A step that gives an image a reservation in place of a legacy hold is taken here.
    pub(in crate::store) async fn decide_steps(&self, user: UserId, steps: &[AnnouncedStep]) -> Result<Vec<StepId>, StoreError> {
        let mut taken = Vec::new();
        for step in steps {
            let is_taken = match step.hold {
                Some(bytes) => {
                    self.reserve_in_place_of_hold(user, step, bytes).await?;
                    true
                }
                None => self.has_taken(user, step).await?,
            };
            taken.extend(is_taken.then_some(step.id));
        }
        Ok(taken)
    }

    /// Returns those of the announced steps that their images have taken. The others may still be taken.
    pub(in crate::store) async fn find_taken_steps(
        &self,
        user: UserId,
        steps: &[AnnouncedStep],
    ) -> Result<Vec<StepId>, StoreError> {
        let images: Vec<_> = steps.iter().map(|step| step.image).collect();
        let records = self.collection.clone_with_type::<Document>();
        let query = || async {
            let find = records.find(owned_by_ids(user, &images)).projection(doc! { "lastStep": 1 });
            find.await?.try_collect::<Vec<_>>().await
        };
        let found = self.mongo.read(Operation::find(&self.collection), query).await?;
        let latest: HashSet<_> = found.iter().filter_map(|image| StepId::parse(image.get_str("lastStep").ok()?)).collect();
        Ok(steps.iter().map(|step| step.id).filter(|step| latest.contains(step)).collect())
    }

    /// Returns whether the image has taken this step. Otherwise marks the image so that the step fails.
    async fn has_taken(&self, user: UserId, step: &AnnouncedStep) -> Result<bool, StoreError> {
        let prevent = doc! { "$set": { "lastStep": StepId::new().to_string() } };
        if self.update_one(before_step(user, step), prevent).await? {
            return Ok(false);
        }
        let records = self.collection.clone_with_type::<Document>();
        let filter = doc! { "_id": step.image.to_string(), "user": user.to_string() };
        let query = || async { records.find_one(filter.clone()).projection(doc! { "lastStep": 1 }).await };
        // A missing image was purged and removed. Only an image without a reservation is, so it has taken the step.
        let image = self.mongo.read(Operation::find(&self.collection), query).await?;
        Ok(image.is_none_or(|image| image.get_str("lastStep").is_ok_and(|last| last == step.id.to_string())))
    }

    /// Gives an image a reservation in place of its legacy hold, in any state: a reservation that does not fit the state is settled
    /// later.
    async fn reserve_in_place_of_hold(&self, user: UserId, step: &AnnouncedStep, bytes: u64) -> Result<(), StoreError> {
        let mut filter = before_step(user, step);
        filter.insert("reservation", doc! { "$exists": false });
        let due = doc! { "$add": ["$$NOW", i64::try_from(OPENING_GRACE.whole_milliseconds()).unwrap_or(i64::MAX)] };
        let reservation = doc! { "bytes": integer(bytes), "place": QuotaCounter::Pending.as_str(), "due": due };
        let set = doc! { "$set": { "reservation": reservation, "lastStep": step.id.to_string() } };
        self.mongo.update_one(&self.collection, filter, vec![set]).await.map(drop)
    }

    /// Runs many conditional updates, each independently, and returns how many images changed.
    pub(in crate::store) async fn update_all(&self, updates: impl Iterator<Item = (Document, Bson)>) -> Result<u64, StoreError> {
        self.mongo.update_each(&self.collection, updates).await
    }

    /// Returns images whose reservation does not fit their state and is due, the longest due first: left by servers that died, or
    /// by servers of an earlier version. An unreadable image is an error.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_unsettled(
        &self,
        kind: UnsettledKind,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<Result<Image, Box<UnreadableImage>>>, StoreError> {
        let (states, counters) = kind.states_and_counters();
        let states: Vec<_> = states.iter().map(|state| state.as_str()).collect();
        let counters: Vec<_> = counters.iter().map(|counter| counter.as_str()).collect();
        let due = doc! { "$lte": datetime(now) };
        let filter = doc! { "state": { "$in": states }, "reservation.place": { "$in": counters }, "reservation.due": due };
        let documents = self.collection.clone_with_type::<Document>();
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = documents.find(filter.clone()).sort(doc! { "reservation.due": 1 }).limit(i64::from(limit));
            find.await?.try_collect::<Vec<_>>().await
        });
        let read = |document: Document| {
            let raw_id = document.get("_id").cloned().unwrap_or(Bson::Null);
            super::read(document).map_err(|error| Box::new(UnreadableImage { raw_id, error }))
        };
        Ok(found.await?.into_iter().map(read).collect())
    }

    /// Postpones to `later` the reservations of these readable and unreadable images, if they are due at `now`.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn postpone_settling(
        &self,
        ids: &[ImageId],
        unreadable: &[UnreadableImage],
        now: OffsetDateTime,
        later: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let ids = ids.iter().map(|id| Bson::from(id.to_string()));
        let ids: Vec<_> = ids.chain(unreadable.iter().map(|image| image.raw_id.clone())).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let filter = doc! { "_id": { "$in": ids }, "reservation.due": { "$lte": datetime(now) } };
        // A pipeline, which also changes a `reservation` that is an array: any other update fails at it, and leaves the other
        // records unchanged.
        let update = vec![doc! { "$set": { "reservation.due": datetime(later) } }];
        self.mongo.update_many(&self.collection, filter, update).await.map(drop)
    }

    /// Returns the status of those of these images that exist, even if the rest of a document is unreadable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reservation_statuses(
        &self,
        user: UserId,
        ids: &[ImageId],
    ) -> Result<HashMap<ImageId, ReservationStatus>, StoreError> {
        let documents = self.collection.clone_with_type::<Document>();
        let projection = doc! { "state": 1, "size": 1, "reserved": 1, "preview.size": 1, "reservation": 1, "neverIssued": 1 };
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = documents.find(owned_by_ids(user, ids)).projection(projection.clone());
            find.await?.try_collect::<Vec<_>>().await
        });
        let read = |document: &Document| {
            let size = whole_number(document, "size").unwrap_or_default();
            let preview = document.get_document("preview").ok().and_then(|preview| whole_number(preview, "size"));
            let reserved = whole_number(document, "reserved").unwrap_or(size);
            let status = ReservationStatus {
                state: document.get_str("state").ok().and_then(ImageState::parse).unwrap_or(ImageState::Pending),
                is_reserved: document.contains_key("reservation"),
                was_never_inserted: document.get_bool("neverIssued").unwrap_or(false),
                surplus: u64::try_from(reserved.saturating_sub(size).saturating_sub(preview.unwrap_or(0))).unwrap_or(0),
            };
            Some((ImageId::parse(document.get_str("_id").ok()?)?, status))
        };
        Ok(found.await?.iter().filter_map(read).collect())
    }
}

/// Returns a filter for the step's image as it was before the step.
fn before_step(user: UserId, step: &AnnouncedStep) -> Document {
    doc! { "_id": step.image.to_string(), "user": user.to_string(), "lastStep": last_step(step.last_step) }
}
