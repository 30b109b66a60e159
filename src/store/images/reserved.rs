//! What is asked of images about reservations: whether they took a step, whose reservation no longer fits the state, and which
//! images there are at all.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{Images, owned_by_ids};
use crate::{
    model::{Image, ImageId, ImageState, OPENING_GRACE, QuotaCounter, StepId, UserId},
    store::{StepUnderWay, StoreError, datetime, integer, last_step, whole_number},
};

/// As much of an image as its former hold needs.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The image's state; a state that cannot be read counts as pending, which takes nothing away.
    pub state: ImageState,
    /// Whether the image carries a reservation.
    pub is_reserved: bool,
    /// Whether the document only keeps an insertion from succeeding: see [`Images::preclude`].
    pub was_precluded: bool,
    /// Reserved bytes that did not come.
    pub surplus: u64,
}

/// Which reservations no longer fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsettled {
    /// Images that left the pending state, and have a place among open uploads or images still. A settled one of a tombstone
    /// has none, and comes to the sweeper by the tombstone's own `due`.
    Moved,
    /// Images that are gone, and have a reservation still.
    Purged,
}

impl Unsettled {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Moved, Self::Purged];

    fn states_and_places(self) -> (&'static [ImageState], &'static [QuotaCounter]) {
        use ImageState::{Deleting, Expired, Purged, Ready, Rejected};
        match self {
            Self::Moved => (&[Ready, Deleting, Rejected, Expired], &[QuotaCounter::Pending, QuotaCounter::Image]),
            Self::Purged => (&[Purged], &QuotaCounter::ALL),
        }
    }
}

impl Images {
    /// Returns which of these steps their images have taken. The others never will be: their images are no longer as they were
    /// when the steps were announced. A step that gives an image a reservation in place of a hold is taken here.
    pub(in crate::store) async fn decide_steps(&self, user: UserId, steps: &[StepUnderWay]) -> Result<Vec<StepId>, StoreError> {
        let mut taken = Vec::new();
        for step in steps {
            let is_taken = match step.hold {
                Some(bytes) => {
                    self.reserve_in_place_of_hold(user, step, bytes).await?;
                    true
                }
                None => self.has_taken(user, step).await?,
            };
            taken.extend(is_taken.then_some(step.step));
        }
        Ok(taken)
    }

    async fn has_taken(&self, user: UserId, step: &StepUnderWay) -> Result<bool, StoreError> {
        let other = doc! { "$set": { "lastStep": StepId::new().to_string() } };
        if self.moved(before_step(user, step), other).await? {
            return Ok(false);
        }
        let records = self.collection.clone_with_type::<Document>();
        let filter = doc! { "_id": step.image.to_string(), "user": user.to_string() };
        let ask = || async { records.find_one(filter.clone()).projection(doc! { "lastStep": 1 }).await };
        // No such image: only what is gone is removed, and only a step to nothing leads there.
        let image = self.calls.read(ask).await?;
        Ok(image.is_none_or(|image| image.get_str("lastStep").is_ok_and(|last| last == step.step.to_string())))
    }

    /// In whatever state the image is: what does not fit the state is settled like any other.
    async fn reserve_in_place_of_hold(&self, user: UserId, step: &StepUnderWay, bytes: u64) -> Result<(), StoreError> {
        let mut filter = before_step(user, step);
        filter.insert("reservation", doc! { "$exists": false });
        let due = doc! { "$add": ["$$NOW", i64::try_from(OPENING_GRACE.whole_milliseconds()).unwrap_or(i64::MAX)] };
        let reservation = doc! { "bytes": integer(bytes), "place": QuotaCounter::Pending.as_str(), "due": due };
        let set = doc! { "$set": { "reservation": reservation, "lastStep": step.step.to_string() } };
        self.calls.run(async { self.collection.update_one(filter, vec![set]).await }).await.map(drop)
    }

    /// Many conditional updates, each on its own. Answers how many images changed.
    pub(in crate::store) async fn update_all(
        &self,
        updates: impl Iterator<Item = (Document, Document)>,
    ) -> Result<u64, StoreError> {
        self.calls.update_each(&self.collection, updates.map(|(filter, update)| (filter, update.into()))).await
    }

    /// Returns images whose reservation does not fit their state and is due, the longest due first: what servers left that
    /// died, or that know no reservations. What cannot be read is answered as an error, with its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unsettled(
        &self,
        which: Unsettled,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<Result<Image, (String, StoreError)>>, StoreError> {
        let (states, places) = which.states_and_places();
        let states: Vec<_> = states.iter().map(|state| state.as_str()).collect();
        let places: Vec<_> = places.iter().map(|place| place.as_str()).collect();
        let due = doc! { "$lte": datetime(now) };
        let filter = doc! { "state": { "$in": states }, "reservation.place": { "$in": places }, "reservation.due": due };
        let documents = self.collection.clone_with_type::<Document>();
        let found = self.calls.read(|| async {
            let find = documents.find(filter.clone()).sort(doc! { "reservation.due": 1 }).limit(i64::from(limit));
            find.await?.try_collect::<Vec<_>>().await
        });
        let read = |document: Document| {
            let id = document.get_str("_id").unwrap_or_default().to_owned();
            super::read(document).map_err(|error| (id, error))
        };
        Ok(found.await?.into_iter().map(read).collect())
    }

    /// Looks at those of these reservations that are due at `now` again at `later`.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn postpone_settling(&self, ids: &[String], now: OffsetDateTime, later: OffsetDateTime) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let filter = doc! { "_id": { "$in": ids }, "reservation.due": { "$lte": datetime(now) } };
        let update = doc! { "$set": { "reservation.due": datetime(later) } };
        self.calls.run(async { self.collection.update_many(filter, update).await }).await.map(drop)
    }

    /// Returns those of these images that exist, whatever else their documents hold.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standings(&self, user: UserId, ids: &[ImageId]) -> Result<HashMap<ImageId, Standing>, StoreError> {
        let documents = self.collection.clone_with_type::<Document>();
        let projection = doc! { "state": 1, "size": 1, "reserved": 1, "preview.size": 1, "reservation": 1, "neverIssued": 1 };
        let found = self.calls.read(|| async {
            let find = documents.find(owned_by_ids(user, ids)).projection(projection.clone());
            find.await?.try_collect::<Vec<_>>().await
        });
        let read = |document: &Document| {
            let size = whole_number(document, "size").unwrap_or_default();
            let preview = document.get_document("preview").ok().and_then(|preview| whole_number(preview, "size"));
            let reserved = whole_number(document, "reserved").unwrap_or(size);
            let standing = Standing {
                state: document.get_str("state").ok().and_then(ImageState::parse).unwrap_or(ImageState::Pending),
                is_reserved: document.contains_key("reservation"),
                was_precluded: document.get_bool("neverIssued").unwrap_or(false),
                surplus: u64::try_from(reserved.saturating_sub(size).saturating_sub(preview.unwrap_or(0))).unwrap_or(0),
            };
            Some((ImageId::parse(document.get_str("_id").ok()?)?, standing))
        };
        Ok(found.await?.iter().filter_map(read).collect())
    }
}

/// Returns the step's image as it was before the step.
fn before_step(user: UserId, step: &StepUnderWay) -> Document {
    doc! { "_id": step.image.to_string(), "user": user.to_string(), "lastStep": last_step(step.before) }
}
