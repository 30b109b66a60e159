//! The sweeper's queue ([`ImageQueue::Sweeper`]): claims, and changes of `due`. A record's `due` is the time at which it is swept
//! next, and the end of the lease of the sweeper that processes it. An undecodable record is claimed, counted and postponed like
//! any other.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};
use time::OffsetDateTime;

use super::{
    Images, damaged_tombstone,
    document::ImageDoc,
    owned,
    queue::{ClaimOutcome, ImageQueue, Lease, QueuedImage},
    transition_update::{Transition, TransitionUpdate},
};
use crate::{
    model::{Image, ImageState, KeyOwner, ObjectKey, QuotaCounter},
    store::{StoreError, datetime, driver_events::Operation, instant},
};

/// The longest validity of a presigned URL in milliseconds: seven days ("Authenticating Requests: Using Query Parameters" in
/// the S3 API reference).
const MAX_URL_TTL_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// Returns the stored names of the states of tombstones.
fn tombstones() -> Vec<&'static str> {
    ImageState::ALL.into_iter().filter(|state| state.is_tombstone()).map(ImageState::as_str).collect()
}

/// The new schedule of an image whose sweep failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Postponement {
    /// Time at which it is swept again.
    pub due: OffsetDateTime,
    /// The new value of [`SweepHints::failures`](super::queue::SweepHints).
    pub failures: u32,
}

/// An upload that was scheduled for a sweep soon.
#[derive(Debug)]
pub struct MadeDue {
    /// The upload in the queue.
    pub upload: QueuedImage,
    /// Whether the image is due at the requested time. Otherwise it is due earlier, and no sweeper has claimed it yet.
    pub is_new: bool,
}

/// Times of the wait for a declared preview.
#[derive(Debug, Clone, Copy)]
pub struct PreviewWait {
    /// The time of this check.
    pub now: OffsetDateTime,
    /// Time at which the preview is checked for again.
    pub due: OffsetDateTime,
    /// Time at which the upload is accepted without the preview, if this check is the first one.
    pub until: OffsetDateTime,
}

impl Images {
    /// Claims a due record by raising `due` to the end of the lease, which begins now by the database's clock, or at `now` if
    /// that is later. One of several sweepers succeeds; if that one dies, the image is due again after the lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(&self, queued: &QueuedImage, now: OffsetDateTime, lease: Duration) -> Result<ClaimOutcome, StoreError> {
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let begins = doc! { "$max": ["$$NOW", datetime(now)] };
        // No URL is signed for a tombstone any more: if the expiry of its URLs cannot be read, they have expired after the
        // longest validity.
        let is_tombstone = doc! { "$in": ["$state", tombstones()] };
        let is_damaged = doc! { "$and": [is_tombstone, { "$ne": [{ "$type": "$urlsDieAt" }, "date"] }] };
        let latest_expiry = doc! { "$add": [begins.clone(), MAX_URL_TTL_MS] };
        let set = doc! {
            "due": { "$add": [begins, lease_ms] },
            "urlsDieAt": { "$cond": [is_damaged, latest_expiry, "$urlsDieAt"] },
        };
        let records = self.collection.clone_with_type::<Document>();
        let claim = async {
            let update = records.find_one_and_update(queued.filter(), vec![doc! { "$set": set }]);
            update.return_document(ReturnDocument::After).await
        };
        let Some(record) = self.mongo.run(Operation::find_and_modify(&self.collection), claim).await? else {
            return Ok(ClaimOutcome::Lost);
        };
        let corrupt = |field| StoreError::Corrupt { collection: "images", id: queued.id(), field };
        let ends = record.get_datetime("due").map(|at| instant(*at)).map_err(|_| corrupt("due"))?;
        let lease = Lease { now: ends - lease, ends };
        let image = mongodb::bson::deserialize_from_document::<ImageDoc>(record.clone()).map_err(|_| corrupt("a field"));
        Ok(match image.and_then(ImageDoc::into_image) {
            Ok(image) => ClaimOutcome::Image(Box::new(image), lease),
            Err(error) => match damaged_tombstone::recover(&record) {
                Some(image) => {
                    tracing::warn!(%error, "recovered a damaged tombstone from its readable fields");
                    ClaimOutcome::Image(Box::new(image), lease)
                }
                None => ClaimOutcome::Unreadable(error, lease),
            },
        })
    }

    /// Changes `due` of a record, readable or not, to `until`. Returns `None` if it changed since the record was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reschedule(&self, queued: &QueuedImage, until: OffsetDateTime) -> Result<Option<QueuedImage>, StoreError> {
        let moved = self.update_one(queued.filter(), doc! { "$set": { "due": datetime(until) } }).await?;
        Ok(moved.then(|| queued.with_due(until)))
    }

    /// Postpones a record whose sweep failed, readable or not, unless it changed meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone_failed(&self, queued: &QueuedImage, to: Postponement) -> Result<bool, StoreError> {
        let set = doc! { "due": datetime(to.due), "sweepFailures": i64::from(to.failures) };
        self.update_one(queued.filter(), doc! { "$set": set }).await
    }

    /// Returns the number of images that failed at least `failures` times in a row and are still in the queue, counted up to
    /// `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_stuck(&self, failures: u32, most: u32) -> Result<u32, StoreError> {
        let filter = doc! { "sweepFailures": { "$gte": i64::from(failures) }, "due": { "$exists": true } };
        let count = self.mongo.read(Operation::aggregate(&self.collection), || async {
            self.collection.count_documents(filter.clone()).limit(most.into()).await
        });
        Ok(u32::try_from(count.await?).unwrap_or(most))
    }

    /// Reschedules an image to `due`, unless it changed state or `due` was raised beyond the lease meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone(&self, image: &Image, lease_ends: OffsetDateTime, due: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, image.state());
        filter.insert("due", datetime(lease_ends));
        self.update_one(filter, doc! { "$set": { "due": datetime(due) }, "$unset": { "sweepFailures": "" } }).await
    }

    /// Schedules a pending image to be swept at `due` at the latest.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn schedule_sweep_by(&self, image: &Image, due: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = owned(image.user, image.id, ImageState::Pending);
        self.update_one(filter, doc! { "$min": { "due": datetime(due) } }).await
    }

    /// Makes a pending upload due in `wait` by the database's clock, if it is not due earlier and its bytes arrive at `key`.
    /// `None` if there is no such upload.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn make_due_owned(&self, owner: KeyOwner, key: &ObjectKey, wait: Duration) -> Result<Option<MadeDue>, StoreError> {
        let mut filter = owned(owner.user, owner.image, ImageState::Pending);
        filter.insert("key", key.as_str());
        // Rounded up: a notification that comes before the end of the wait relies on this check.
        let wait = i64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i64::MAX);
        let due = doc! { "$add": ["$$NOW", wait] };
        let update = vec![doc! { "$set": { "due": { "$min": ["$due", due.clone()] } } }];
        let mut fields = ImageQueue::Sweeper.fields();
        fields.insert("isNew", doc! { "$eq": ["$due", due] });
        let records = self.collection.clone_with_type::<Document>();
        let make_due =
            async { records.find_one_and_update(filter, update).projection(fields).return_document(ReturnDocument::After).await };
        let record = self.mongo.run(Operation::find_and_modify(&self.collection), make_due).await?;
        Ok(record.map(|record| MadeDue {
            upload: QueuedImage::read(ImageQueue::Sweeper, &record, OffsetDateTime::now_utc()),
            is_new: record.get_bool("isNew").unwrap_or(false),
        }))
    }

    /// Postpones a pending upload whose declared preview has not arrived to `due`, unless it is due earlier. Returns `false` if
    /// the wait is over: the `until` of the first call for this upload has passed at `now`.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn await_preview(&self, image: &Image, wait: PreviewWait) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Pending);
        let is_waiting = doc! { "previewAwaitedUntil": { "$gt": datetime(wait.now) } };
        filter.insert("$or", vec![doc! { "previewAwaitedUntil": { "$exists": false } }, is_waiting]);
        let until = doc! { "$ifNull": ["$previewAwaitedUntil", datetime(wait.until)] };
        let update = vec![
            doc! { "$set": { "previewAwaitedUntil": until } },
            doc! { "$set": { "due": { "$min": ["$due", "$previewAwaitedUntil", datetime(wait.due)] } } },
        ];
        self.mongo.update_one(&self.collection, filter, update).await
    }

    /// Reschedules tombstones whose objects were removed as [`Images::postpone`] does, each to its own time, in one round trip,
    /// unless their records name more objects. Returns the number of rescheduled tombstones.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone_purged(
        &self,
        tombstones: &[(&Image, OffsetDateTime)],
        lease_ends: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        let postponed = tombstones.iter().map(|(image, due)| {
            let mut filter = owned(image.user, image.id, image.state());
            filter.insert("due", datetime(lease_ends));
            let leftover: Vec<_> = image.leftover_keys.iter().map(ObjectKey::as_str).collect();
            filter.insert("strays", doc! { "$not": { "$elemMatch": { "$nin": leftover } } });
            // Null also matches an absent field.
            filter.insert("uploadId", image.upload_id.clone());
            if image.preview_key().is_none() {
                filter.insert("preview", Bson::Null);
            }
            if image.picture_keys().is_empty() {
                filter.insert("rendering.written", doc! { "$exists": false });
            }
            (filter, doc! { "$set": { "due": datetime(*due) } }.into())
        });
        self.mongo.update_each(&self.collection, postponed).await
    }

    /// Marks a tombstone as purged, after its object was deleted and no URL is valid that could write it again. Returns `false` if
    /// the image changed, its bytes are still counted, or one of its events is not fanned out yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_purged(&self, image: &Image) -> Result<bool, StoreError> {
        let update = TransitionUpdate::to(ImageState::Purged).set(doc! { "goneFrom": image.state().as_str() });
        let update = update.compute(doc! { "goneAt": "$$NOW" }).unset(["reservation", "due", "sweepFailures"]);
        let mut filter = owned(image.user, image.id, image.state());
        // An unreadable reservation cannot be settled, so it does not count.
        let is_reserved = doc! {
            "reservation.bytes": { "$type": "number" },
            "reservation.place": { "$in": QuotaCounter::ALL.map(QuotaCounter::as_str).to_vec() },
            "reservation.due": { "$type": "date" },
        };
        filter.insert("$nor", vec![is_reserved]);
        self.make_transition(Transition { filter: self.outbox.require_empty(filter), update })
            .await
            .map(|purged| purged.is_some())
    }

    /// Removes a ready image's leftover keys from its record, after their objects were deleted and no URL is valid that could write
    /// them. Does nothing if the image is no longer claimed until `lease_ends`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clear_leftovers(&self, image: &Image, lease_ends: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Ready);
        filter.insert("due", datetime(lease_ends));
        self.update_one(filter, doc! { "$unset": { "strays": "", "due": "", "sweepFailures": "" } }).await
    }

    /// Returns the number of due images, counted up to `most`, and the earliest time at which one of them was due.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backlog(&self, now: OffsetDateTime, most: u32) -> Result<(u32, Option<OffsetDateTime>), StoreError> {
        let due = self.collection.clone_with_type::<Document>();
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let found = due.find(doc! { "due": { "$lte": datetime(now) } }).sort(doc! { "due": 1 }).limit(i64::from(most));
            found.projection(doc! { "due": 1, "_id": 0 }).await?.try_collect::<Vec<_>>().await
        });
        let found = found.await?;
        let first = found.first().and_then(|first| first.get_datetime("due").ok());
        Ok((u32::try_from(found.len()).unwrap_or(most), first.map(|due| instant(*due))))
    }
}
