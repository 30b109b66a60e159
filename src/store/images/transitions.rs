//! Transitions of images, each one conditional update that [`TransitionUpdate`] builds, and the claim that precedes creating the
//! object of an upload.
//!
//! `uploadedAt` and leases are set by the database's clock.

use std::time::Duration;

use mongodb::{
    bson::{Bson, DateTime, Document, doc},
    options::ReturnDocument,
};
use time::OffsetDateTime;

use super::{
    Images,
    document::capture_fields,
    owned, renderings,
    transition_update::{Transition, TransitionUpdate},
};
use crate::{
    model::{Image, ImageEnd, ImageId, ImageState, ObjectKey, UserId, Verified},
    store::{StoreError, datetime, driver_events::Operation, integer},
};

/// Milliseconds for which the sweeper leaves the reservation of a confirmed image to the server that confirmed it: far longer than
/// any call.
const SETTLING_GRACE_MS: i64 = 60_000;

impl Images {
    /// Claims for `lease`, by the database's clock, the right to create the object of an upload by completing its parts or by
    /// copying it, and records that it may write until `ends_at`, also at the keys `copies`. Returns `None` if another server
    /// holds the claim, or the image is no longer pending.
    ///
    /// Does not change `due` and `urlsDieAt`: a sweeper recognizes its claim by `due`, and measures by `urlsDieAt` how long an
    /// upload waits, however often it is attempted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_object_creation(
        &self,
        image: &Image,
        lease: Duration,
        ends_at: OffsetDateTime,
        copies: &[ObjectKey],
    ) -> Result<Option<ObjectCreationClaim>, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Pending);
        filter.insert("$expr", is_unclaimed());
        let mut set = doc! {
            "completingUntil": { "$add": ["$$NOW", i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)] },
            "attemptsEndAt": { "$max": ["$attemptsEndAt", datetime(ends_at)] },
        };
        if !copies.is_empty() {
            set.insert("strays", doc! { "$concatArrays": [stored_leftover_keys(), literal(copies)] });
        }
        let records = self.collection.clone_with_type::<Document>();
        let claim = async {
            let update = records.find_one_and_update(filter, vec![doc! { "$set": set }]);
            update.projection(doc! { "completingUntil": 1 }).return_document(ReturnDocument::After).await
        };
        let claimed = self.mongo.run(Operation::find_and_modify(&self.collection), claim).await?;
        let until = claimed.map(|record| record.get_datetime("completingUntil").copied()).transpose();
        let corrupt = |_| StoreError::Corrupt { collection: "images", id: image.id.to_string(), field: "completingUntil" };
        Ok(until.map_err(corrupt)?.map(|until| ObjectCreationClaim { user: image.user, image: image.id, until }))
    }

    /// Releases the claim, because the object was not created.
    ///
    /// # Errors
    /// [`StoreError`]; the claim then ends with its lease.
    pub async fn release_object_creation(&self, claim: ObjectCreationClaim) -> Result<(), StoreError> {
        let mut filter = owned(claim.user, claim.image, ImageState::Pending);
        filter.insert("completingUntil", claim.until);
        self.update_one(filter, doc! { "$unset": { "completingUntil": "" } }).await.map(drop)
    }

    /// Makes the transition `pending → ready`, with the verified properties; the reservation ends in a later step. Returns `None`
    /// if the image was not pending, or was declared again since `image` was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_ready(&self, image: &Image, verified: &Verified) -> Result<Option<Image>, StoreError> {
        self.make_transition(settled_later(image, self.ready_transition(image, verified))).await
    }

    /// Makes the transition `pending → ready` for each image that still is pending, with its verified properties, in one round
    /// trip.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be ready.
    pub async fn mark_all_ready(&self, verified_images: &[(&Image, &Verified)]) -> Result<(), StoreError> {
        let moves = verified_images
            .iter()
            .map(|(image, verified)| settled_later(image, self.ready_transition(image, verified)).into_update(&self.outbox));
        let moved = self.mongo.update_each(&self.collection, moves).await?;
        self.record_transitions(ImageState::Ready, moved);
        Ok(())
    }

    /// Ends a pending upload; its reservation follows in a later step. Returns the tombstone, with keys that were recorded since
    /// `image` was read. `None` if the image was not pending, or `end` no longer applies:
    ///
    /// - a rejection, if the image was declared with another type since `image` was read;
    /// - an expiry, if a URL was issued or S3 opened the upload since then, or a server is creating its object.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_pending(&self, image: &Image, end: ImageEnd, now: OffsetDateTime) -> Result<Option<Image>, StoreError> {
        self.make_transition(ending_transition(image, end, now)).await
    }

    /// Makes the transition `pending → deleting` for those images that are pending, in one round trip.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be deleted.
    pub async fn delete_all_owned_pending(&self, user: UserId, ids: &[ImageId], now: OffsetDateTime) -> Result<(), StoreError> {
        let deletions = ids.iter().map(|id| {
            let update = tombstone_update(ImageState::Deleting, now).pipeline(&self.outbox);
            (owned(user, *id, ImageState::Pending), Bson::from(update))
        });
        let moved = self.mongo.update_each(&self.collection, deletions).await?;
        self.record_transitions(ImageState::Deleting, moved);
        Ok(())
    }
}

/// Returns the update of a transition to a tombstone, which the sweeper processes from `now` on.
pub(in crate::store) fn tombstone_update(state: ImageState, now: OffsetDateTime) -> TransitionUpdate {
    let update = TransitionUpdate::to(state).set(doc! { "due": datetime(now) }).compute(doc! { "urlsDieAt": written_until() });
    update.unset(["live", "idemKey", "idemHash", "rendering.due", "attemptsEndAt"])
}

/// Returns the condition that no server is creating the object of an upload. An absent field is less than any date.
fn is_unclaimed() -> Document {
    doc! { "$lt": ["$completingUntil", "$$NOW"] }
}

/// Returns the expression of the time until which an upload that was pending may be written: by a URL, or by an attempt to create
/// its object.
fn written_until() -> Document {
    doc! { "$max": ["$urlsDieAt", "$attemptsEndAt"] }
}

/// The right to create the object of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectCreationClaim {
    user: UserId,
    image: ImageId,
    /// End of its lease, which distinguishes it from other claims of the same upload.
    until: DateTime,
}

impl Images {
    /// Returns the transition `pending → ready`. The same update asks workers for pictures, so that no image lacks them because a
    /// server died.
    pub(in crate::store) fn ready_transition(&self, image: &Image, verified: &Verified) -> Transition {
        let Transition { filter, mut update } = ready_transition(image, verified);
        if self.has_workers {
            update = update.compute(doc! { "rendering": renderings::requested() });
        }
        Transition { filter, update }
    }
}

/// Returns the transition of an image whose reservation the same server settles later. If it dies, the sweeper does so.
fn settled_later(image: &Image, Transition { filter, update }: Transition) -> Transition {
    let due = image.reservation.map(|_| doc! { "reservation.due": { "$add": ["$$NOW", SETTLING_GRACE_MS] } });
    Transition { filter, update: update.compute(due.unwrap_or_default()) }
}

/// Returns the transition of a pending upload to the tombstone of `end`.
pub(in crate::store) fn ending_transition(image: &Image, end: ImageEnd, now: OffsetDateTime) -> Transition {
    let mut filter = owned(image.user, image.id, ImageState::Pending);
    let mut update = tombstone_update(end.state(), now);
    match end {
        ImageEnd::Rejected(why) => {
            filter.insert("contentType", image.upload.content_type.as_str());
            let cause = why.cause().map(|cause| doc! { "rejectionCause": cause });
            update = update.set(doc! { "rejection": why.as_str() }).set(cause.unwrap_or_default());
        }
        ImageEnd::Expired => {
            filter.insert("urlsDieAt", datetime(image.urls_expire_at));
            filter.insert("expiresAt", datetime(image.expires_at));
            filter.insert("$expr", is_unclaimed());
        }
        ImageEnd::Deleted { .. } => {}
    }
    Transition { filter, update }
}

/// Returns the transition `pending → ready`. The update is a pipeline, so that it may contain `$$NOW`. Texts are in `$literal`,
/// because a pipeline would read one with a leading `$` as a field path.
fn ready_transition(image: &Image, verified: &Verified) -> Transition {
    let mut filter = as_declared(image);
    let mut set = doc! {
        "uploadedAt": "$$NOW",
        "urlsDieAt": written_until(),
        "key": { "$literal": verified.key.as_str() },
        "etag": { "$literal": &verified.etag },
        "width": i64::from(verified.size.width),
        "height": i64::from(verified.size.height),
    };
    if image.upload.is_size_bound() {
        set.insert("size", integer(verified.bytes));
    }
    let capture = capture_fields(&verified.capture).into_iter();
    set.extend(capture.map(|(field, value)| (field, Bson::from(doc! { "$literal": value }))));
    // The step that ends the reservation counts the image in the timeline. Uploads of an earlier version have no reservation:
    // `recount` counts their images.
    if image.reservation.is_some() {
        set.insert("takenSort", datetime(image.sort_time(&verified.capture)));
    }
    let mut unset = vec!["completingUntil", "formerTypes", "attemptsEndAt"];
    let mut final_keys = vec![verified.key.clone()];
    if verified.preview {
        final_keys.push(verified.key.preview());
    } else if image.upload.preview().is_some() {
        unset.push("preview");
    }
    let others: Vec<_> = image.keys().into_iter().filter(|key| !final_keys.contains(key)).collect();
    if others.is_empty() && !image.key.is_incoming() {
        unset.push("due");
    } else {
        if image.key.is_incoming() {
            // If the copy's key is no longer recorded, the sweeper may have deleted the copy.
            filter.insert("strays", verified.key.as_str());
        }
        // The document may record copies that were started since `image` was read.
        let all = doc! { "$setUnion": [stored_leftover_keys(), literal(&others)] };
        set.insert("strays", doc! { "$setDifference": [all, literal(&final_keys)] });
        set.insert("due", "$$NOW");
    }
    Transition { filter, update: TransitionUpdate::to(ImageState::Ready).compute(set).unset(unset) }
}

/// Returns a filter for a pending upload with the declaration against which its bytes were verified: it may have been declared
/// again since.
fn as_declared(image: &Image) -> Document {
    let mut filter = owned(image.user, image.id, ImageState::Pending);
    filter.insert("contentType", image.upload.content_type.as_str());
    let preview = image.upload.preview();
    // Null also matches an absent field.
    filter.insert("preview.sha256", preview.map(|preview| preview.sha256.to_string()));
    filter.insert("preview.size", preview.map(|preview| integer(preview.size)));
    filter.insert("preview.contentType", preview.map(|preview| preview.content_type.as_str()));
    // Decides the month of the timeline that counts the image.
    filter.insert("takenAt", image.upload.taken_at.map(|taken_at| taken_at.to_string()));
    filter
}

/// Returns the expression of the image's leftover keys.
pub(super) fn stored_leftover_keys() -> Document {
    doc! { "$ifNull": ["$strays", []] }
}

/// Returns the expression of these keys, which MongoDB does not interpret.
fn literal(keys: &[ObjectKey]) -> Document {
    doc! { "$literal": keys.iter().map(ObjectKey::as_str).collect::<Vec<_>>() }
}
