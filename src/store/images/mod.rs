//! Images: one document each in `images`. Every transition of state is one conditional update on `{_id, user, state}`; only
//! tombstones with unreadable ids are purged without a condition on the state (`deleted_account`).
//!
//! This file inserts, finds and updates images; `document` converts the documents, `lookup` the results of finding several, and
//! `indexes` has the indexes.
//!
//! - Changes of state: `transitions`, with the updates of `transition_update`; `tombstone` inserts the tombstones of uploads that
//!   were never inserted, `damaged_tombstone` recovers damaged ones, `deleted_account` ends the images of an account.
//! - Pending uploads: `redeclaration` changes their declarations, `reservations` takes and finds steps of reservations.
//! - Queues: `queue` reads them; `sweep_queue` has the claims and results of the sweeper, `renderings` those of the workers.
//! - Lists: `page` has the pages of the gallery, with `gallery_row`, `elements` and `positions`; `captures` lists images whose
//!   files were never read for the time taken, `inventory` all images for a comparison with the bucket; `state_counts` estimates
//!   their numbers.

mod captures;
mod damaged_tombstone;
mod deleted_account;
mod document;
mod elements;
mod gallery_row;
mod indexes;
mod inventory;
mod lookup;
mod page;
mod positions;
mod queue;
mod redeclaration;
mod renderings;
mod reservations;
mod state_counts;
mod sweep_queue;
mod tombstone;
mod transition_update;
mod transitions;

use futures_util::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, doc},
    options::ReturnDocument,
};
use time::OffsetDateTime;

pub use self::captures::UnreadCaptures;
pub(super) use self::captures::as_unread;
pub use self::deleted_account::RemainingImage;
pub(super) use self::document::capture_fields;
use self::document::{ImageDoc, decode};
pub use self::gallery_row::{GalleryRecord, GalleryRow};
pub(super) use self::indexes::Undated;
pub(super) use self::inventory::not_purged;
pub use self::inventory::{Inventory, InventoryEntry};
pub use self::lookup::LookupResult;
pub use self::page::RawGalleryPage;
pub use self::queue::{ClaimOutcome, ImageQueue, Lease, QueuedImage, SweepHints};
pub use self::renderings::{MadePictures, UnrenderedPage};
pub use self::reservations::{ReservationStatus, UnreadableImage, UnsettledKind};
pub use self::state_counts::StateCount;
pub use self::sweep_queue::{MadeDue, Postponement, PreviewWait};
pub use self::transitions::ObjectCreationClaim;
pub(super) use self::{
    transition_update::{Transition, TransitionUpdate},
    transitions::{ending_transition, tombstone_update},
};
use super::{
    MongoClient, StoreError, count_transitions, datetime,
    driver_events::Operation,
    duplicates,
    outbox::{self, Outbox},
};
use crate::model::{Caption, EventType, IdempotencyKey, Image, ImageId, ImageState, Sha256, UserId};

/// Queries and updates of `images`.
#[derive(Debug, Clone)]
pub struct Images {
    collection: Collection<ImageDoc>,
    mongo: MongoClient,
    outbox: Outbox,
    /// Whether workers make pictures of images that become ready.
    has_workers: bool,
}

/// New times of a multipart upload that S3 has opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenedLifetimes {
    /// Time at which the upload expires.
    pub expires_at: OffsetDateTime,
    /// Time at which the sweeper processes it.
    pub due: OffsetDateTime,
}

/// The outcome of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    /// The document was inserted.
    Inserted,
    /// The user has a live image of the same bytes, or used the same idempotency key.
    Duplicate,
}

impl Images {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self {
            collection: mongo.database().collection("images"),
            mongo: mongo.clone(),
            outbox: Outbox::default(),
            has_workers: false,
        }
    }

    /// Returns the same queries, whose changes write events.
    pub(super) fn with_events(self, outbox: Outbox) -> Self {
        Self { outbox, ..self }
    }

    /// Returns the same queries, which ask workers for pictures of images that become ready.
    pub(super) fn with_workers(self) -> Self {
        Self { has_workers: true, ..self }
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        self.mongo.create_indexes(&self.collection, indexes::models()).await
    }

    /// Inserts pending images in one round trip, each with the time at which the sweeper processes it.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be inserted.
    pub async fn insert_all(&self, images: &[(&Image, OffsetDateTime)]) -> Result<Vec<InsertOutcome>, StoreError> {
        let documents: Vec<_> = images.iter().map(|(image, due)| ImageDoc::pending(image, datetime(*due))).collect();
        let mut inserted = vec![InsertOutcome::Inserted; images.len()];
        match self
            .mongo
            .run(Operation::insert(&self.collection), async { self.collection.insert_many(&documents).ordered(false).await })
            .await
        {
            Ok(_) => {}
            Err(StoreError::Database(error)) => {
                for position in duplicates(&error).ok_or(StoreError::Database(error))? {
                    inserted[position] = InsertOutcome::Duplicate;
                }
            }
            Err(error) => return Err(error),
        }
        count_transitions(
            ImageState::Pending,
            inserted.iter().filter(|inserted| matches!(inserted, InsertOutcome::Inserted)).count() as u64,
        );
        Ok(inserted)
    }

    /// Returns the user's image, in any state.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Corrupt`] if the record cannot be read.
    pub async fn find_owned(&self, user: UserId, id: ImageId) -> Result<Option<Image>, StoreError> {
        let filter = doc! { "_id": id.to_string(), "user": user.to_string() };
        let records = self.collection.clone_with_type::<RawDocumentBuf>();
        let found =
            self.mongo.read(Operation::find(&self.collection), || async { records.find_one(filter.clone()).await }).await?;
        found.map(|record| decode(&record)).transpose()
    }

    /// Returns the user's images of these ids, in any state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_all_owned(&self, user: UserId, ids: &[ImageId]) -> Result<LookupResult, StoreError> {
        self.find_all(owned_by_ids(user, ids)).await
    }

    /// Returns the user's live (pending or ready) images of these bytes, and those opened with these idempotency keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_owned_known(
        &self,
        user: UserId,
        digests: &[Sha256],
        keys: &[&IdempotencyKey],
    ) -> Result<LookupResult, StoreError> {
        let digests: Vec<_> = digests.iter().map(ToString::to_string).collect();
        let mut alternatives = vec![doc! { "user": user.to_string(), "sha256": { "$in": digests }, "live": true }];
        if !keys.is_empty() {
            let keys: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
            alternatives.push(doc! { "user": user.to_string(), "idemKey": { "$in": keys } });
        }
        self.find_all(doc! { "$or": alternatives }).await
    }

    /// Returns all images that match, and the errors of those that cannot be read.
    async fn find_all(&self, filter: Document) -> Result<LookupResult, StoreError> {
        let records = self.collection.clone_with_type::<RawDocumentBuf>();
        let found: Vec<_> = self
            .mongo
            .read(Operation::find(&self.collection), || async { records.find(filter.clone()).await?.try_collect().await })
            .await?;
        Ok(LookupResult::read(found.iter().map(|record| &**record)))
    }

    /// Removes an expired idempotency key from an image.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn release_owned_key(&self, user: UserId, id: ImageId, key: &IdempotencyKey) -> Result<(), StoreError> {
        let filter = doc! { "_id": id.to_string(), "user": user.to_string(), "idemKey": key.as_str() };
        self.update_one(filter, doc! { "$unset": { "idemKey": "", "idemHash": "" } }).await.map(drop)
    }

    /// Raises the expiry of the URLs of those images that are pending, before the URLs are returned to a client, and returns
    /// the number of these images.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn raise_owned_url_expiry(
        &self,
        user: UserId,
        ids: &[ImageId],
        urls_expire_at: OffsetDateTime,
        due: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        let mut filter = owned_by_ids(user, ids);
        filter.insert("state", ImageState::Pending.as_str());
        let update = doc! { "$max": { "urlsDieAt": datetime(urls_expire_at), "due": datetime(due) } };
        Ok(self.mongo.update_many(&self.collection, filter, update).await?.matched_count)
    }

    /// Sets a later expiry of a pending upload. Returns `false` if the upload or its expiry has changed since `image` was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn extend_expiry(&self, image: &Image, expires_at: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Pending);
        filter.insert("expiresAt", datetime(image.expires_at));
        let expires_at = datetime(expires_at);
        self.update_one(filter, doc! { "$set": { "expiresAt": expires_at }, "$max": { "due": expires_at } }).await
    }

    /// Raises the expiry of the part URLs of an unverified upload, before the URLs are returned to a client. The sweeper processes
    /// the upload at `due` at the latest: signing more URLs does not postpone that. Returns `false` if the upload is not pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn raise_owned_part_urls(
        &self,
        user: UserId,
        id: ImageId,
        urls_expire_at: OffsetDateTime,
        due: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let update = doc! { "$max": { "urlsDieAt": datetime(urls_expire_at) }, "$min": { "due": datetime(due) } };
        self.update_one(owned(user, id, ImageState::Pending), update).await
    }

    /// Records S3's id of a multipart upload in place of the one in `image`, if any, with the upload's new times. Returns `None` if
    /// another id was recorded meanwhile, or the image is no longer pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_upload_id(
        &self,
        image: &Image,
        upload_id: &str,
        opened: Option<OpenedLifetimes>,
    ) -> Result<Option<Image>, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Pending);
        // Null also matches an absent field.
        filter.insert("uploadId", image.upload_id.clone());
        let update = match opened {
            Some(OpenedLifetimes { expires_at, due }) => doc! {
                "$set": { "uploadId": upload_id, "expiresAt": datetime(expires_at) },
                "$max": { "due": datetime(due) },
            },
            None => doc! { "$set": { "uploadId": upload_id } },
        };
        self.update_owned(filter, update).await
    }

    /// Sets or clears the caption of a ready image, and writes an event if the caption changes. Returns `None` if the user has no
    /// ready image of this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_owned_caption(
        &self,
        user: UserId,
        id: ImageId,
        caption: Option<&Caption>,
    ) -> Result<Option<Image>, StoreError> {
        let text = doc! { "$literal": caption.map(Caption::as_str) };
        let stored = if caption.is_some() { Bson::from(text.clone()) } else { "$$REMOVE".into() };
        let mut set = doc! { "caption": stored.clone() };
        if self.outbox.is_on() {
            let mut data = outbox::image_data();
            data.insert("caption", stored);
            let is_same = doc! { "$eq": [{ "$ifNull": ["$caption", Bson::Null] }, text] };
            set.insert("outbox", doc! { "$cond": [is_same, "$outbox", outbox::appended(EventType::ImageUpdated, data)] });
        }
        let updated = self.update_owned(owned(user, id, ImageState::Ready), vec![doc! { "$set": set }]).await?;
        self.outbox.wake();
        Ok(updated)
    }

    /// Updates one image; returns whether one matched.
    async fn update_one(&self, filter: Document, update: Document) -> Result<bool, StoreError> {
        self.mongo.update_one(&self.collection, filter, update).await
    }

    /// Updates one image of a user and returns the updated image; `None` if none matched.
    async fn update_owned(
        &self,
        filter: Document,
        update: impl Into<mongodb::options::UpdateModifications>,
    ) -> Result<Option<Image>, StoreError> {
        let records = self.collection.clone_with_type::<RawDocumentBuf>();
        let update = async { records.find_one_and_update(filter, update).return_document(ReturnDocument::After).await };
        self.mongo.run(Operation::find_and_modify(&self.collection), update).await?.map(|record| decode(&record)).transpose()
    }
}

/// Returns the image of a document.
pub(super) fn read(document: Document) -> Result<Image, StoreError> {
    let id = document.get_str("_id").unwrap_or_default().to_owned();
    let parsed = mongodb::bson::deserialize_from_document::<ImageDoc>(document);
    parsed.map_err(|_| StoreError::Corrupt { collection: "images", id, field: "a field" })?.into_image()
}

/// Returns the filter for an image of this user in this state.
fn owned(user: UserId, id: ImageId, state: ImageState) -> Document {
    doc! { "_id": id.to_string(), "user": user.to_string(), "state": state.as_str() }
}

/// Returns the filter for these images of this user.
fn owned_by_ids(user: UserId, ids: &[ImageId]) -> Document {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    doc! { "_id": { "$in": ids }, "user": user.to_string() }
}
