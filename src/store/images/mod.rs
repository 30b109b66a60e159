//! Images: one document each in `images`; every move of state is one conditional update on `{_id, user, state}`.
//!
//! `uploadedAt` is written by the database's own clock. `due` is when the sweeper looks next, and the lease of the
//! sweeper that looks: raising it is the claim.

mod document;
mod indexes;
mod inventory;
mod unissued;

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession, Collection, Database,
    bson::{Bson, DateTime, Document, doc},
    options::ReturnDocument,
};
use std::time::Duration;
use time::OffsetDateTime;

use self::document::ImageDoc;
pub use self::inventory::{Entry, Inventory};
use super::{StoreError, bounded, datetime, duplicates, update_each};
use crate::model::{Caption, Dimensions, IdempotencyKey, Image, ImageId, ImageState, Position, Rejection, Sha256, UserId};

/// Queries and updates of `images`.
#[derive(Debug, Clone)]
pub struct Images {
    collection: Collection<ImageDoc>,
}

/// How an insertion went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The document is there.
    Yes,
    /// This user has a live image of the same bytes, or used the same key.
    Known,
}

impl Images {
    pub(super) fn new(database: &Database) -> Self {
        Self { collection: database.collection("images") }
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        bounded(async { self.collection.create_indexes(indexes::models()).await }).await.map(drop)
    }

    /// Adds pending images, each to be looked at by the sweeper at its time: one round trip for any number.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be there.
    pub async fn insert_all(&self, images: &[(&Image, OffsetDateTime)]) -> Result<Vec<Inserted>, StoreError> {
        let documents: Vec<_> = images.iter().map(|(image, due)| ImageDoc::pending(image, datetime(*due))).collect();
        let mut inserted = vec![Inserted::Yes; images.len()];
        match bounded(async { self.collection.insert_many(&documents).ordered(false).await }).await {
            Ok(_) => {}
            Err(StoreError::Database(error)) => {
                for at in duplicates(&error).ok_or(StoreError::Database(error))? {
                    inserted[at] = Inserted::Known;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(inserted)
    }

    /// The user's image, in any state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_owned(&self, user: UserId, id: ImageId) -> Result<Option<Image>, StoreError> {
        let filter = doc! { "_id": id.to_string(), "user": user.to_string() };
        let found = bounded(async { self.collection.find_one(filter).await }).await?;
        found.map(ImageDoc::into_image).transpose()
    }

    /// The user's images of these ids, in any state and order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_all_owned(&self, user: UserId, ids: &[ImageId]) -> Result<Vec<Image>, StoreError> {
        self.find_all(owned_by_ids(user, ids)).await
    }

    /// The user's live (pending or ready) images of these bytes, and those opened under these keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_owned_known(
        &self,
        user: UserId,
        digests: &[Sha256],
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<Image>, StoreError> {
        let digests: Vec<_> = digests.iter().map(ToString::to_string).collect();
        let mut known = vec![doc! { "user": user.to_string(), "sha256": { "$in": digests }, "live": true }];
        if !keys.is_empty() {
            let keys: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
            known.push(doc! { "user": user.to_string(), "idemKey": { "$in": keys } });
        }
        self.find_all(doc! { "$or": known }).await
    }

    async fn find_all(&self, filter: Document) -> Result<Vec<Image>, StoreError> {
        let found: Vec<ImageDoc> = bounded(async { self.collection.find(filter).await?.try_collect().await }).await?;
        found.into_iter().map(ImageDoc::into_image).collect()
    }

    /// Takes a key off an image: its time is over.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn release_owned_key(&self, user: UserId, id: ImageId, key: &IdempotencyKey) -> Result<(), StoreError> {
        let filter = doc! { "_id": id.to_string(), "user": user.to_string(), "idemKey": key.as_str() };
        self.moved(filter, doc! { "$unset": { "idemKey": "", "idemHash": "" } }).await.map(drop)
    }

    /// Ready images, newest first, after `after`: one index scan that examines exactly what it returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_owned_ready(&self, user: UserId, after: Option<Position>, limit: u32) -> Result<Vec<Image>, StoreError> {
        self.list(user, ImageState::Ready, after, limit).await
    }

    /// Pending images, the newest upload first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_owned_pending(&self, user: UserId, after: Option<Position>, limit: u32) -> Result<Vec<Image>, StoreError> {
        self.list(user, ImageState::Pending, after, limit).await
    }

    async fn list(&self, user: UserId, state: ImageState, after: Option<Position>, limit: u32) -> Result<Vec<Image>, StoreError> {
        let mut filter = doc! { "user": user.to_string(), "state": state.as_str() };
        if let Some(Position { uploaded_at, id }) = after {
            // Pending images have no `uploadedAt`: all stand at null in the same index, ordered by id.
            let at = uploaded_at.map_or(Bson::Null, |at| Bson::DateTime(datetime(at)));
            let same = doc! { "uploadedAt": at.clone(), "_id": { "$lt": id.to_string() } };
            let alternatives = if uploaded_at.is_some() { vec![same, doc! { "uploadedAt": { "$lt": at } }] } else { vec![same] };
            filter.insert("$or", alternatives);
        }
        let page = bounded(async {
            let find = self.collection.find(filter).sort(doc! { "uploadedAt": -1, "_id": -1 });
            find.limit(i64::from(limit)).batch_size(limit).await?.try_collect::<Vec<_>>().await
        })
        .await?;
        page.into_iter().map(ImageDoc::into_image).collect()
    }

    /// Records that URLs will leave that die at `urls_die_at`, before they leave, for those that are pending;
    /// says how many were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn raise_owned_urls_die_at(
        &self,
        user: UserId,
        ids: &[ImageId],
        urls_die_at: OffsetDateTime,
        due: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        let mut filter = owned_by_ids(user, ids);
        filter.insert("state", ImageState::Pending.as_str());
        let update = doc! { "$max": { "urlsDieAt": datetime(urls_die_at), "due": datetime(due) } };
        Ok(bounded(async { self.collection.update_many(filter, update).await }).await?.matched_count)
    }

    /// Records S3's name for a multipart upload, in the place of the one that `image` has, which may be none. `None` when
    /// another was recorded meanwhile, or the image is no longer pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_upload_id(&self, image: &Image, upload_id: &str) -> Result<Option<Image>, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Pending);
        // Null also matches the absent field.
        filter.insert("uploadId", image.upload_id.clone());
        self.update_owned(filter, doc! { "$set": { "uploadId": upload_id } }).await
    }

    /// Claims the completion of a multipart upload for `lease`, by the database's clock, and records until when it may
    /// write the key. `false` when another holds the claim, or the image is no longer pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_completion(
        &self,
        image: &Image,
        lease: Duration,
        urls_die_at: OffsetDateTime,
        due: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Pending);
        // An absent field is less than any date.
        filter.insert("$expr", doc! { "$lt": ["$completingUntil", "$$NOW"] });
        let set = doc! {
            "completingUntil": { "$add": ["$$NOW", i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)] },
            "urlsDieAt": { "$max": ["$urlsDieAt", datetime(urls_die_at)] },
            "due": { "$max": ["$due", datetime(due)] },
        };
        Ok(self.update_owned(filter, vec![doc! { "$set": set }]).await?.is_some())
    }

    /// Gives the claim up: what it was for did not happen.
    ///
    /// # Errors
    /// [`StoreError`]; the claim then ends with its lease.
    pub async fn drop_completion(&self, image: &Image) -> Result<(), StoreError> {
        let update = doc! { "$unset": { "completingUntil": "" } };
        self.moved(owned(image.user, image.id, ImageState::Pending), update).await.map(drop)
    }

    /// `pending → ready`, with what was verified. `None` when it was not pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_owned_ready(
        &self,
        user: UserId,
        id: ImageId,
        etag: &str,
        size: Dimensions,
    ) -> Result<Option<Image>, StoreError> {
        self.update_owned(owned(user, id, ImageState::Pending), to_ready(etag, size)).await
    }

    /// `pending → ready` for each that still is, with what was verified of it: one round trip for any number.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be ready.
    pub async fn mark_all_ready(&self, proved: &[(&Image, &str, Dimensions)]) -> Result<(), StoreError> {
        let moves = proved
            .iter()
            .map(|(image, etag, size)| (owned(image.user, image.id, ImageState::Pending), Bson::from(to_ready(etag, *size))));
        update_each(&self.collection, moves).await
    }

    /// `pending → rejected`. `false` when it was not pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reject_owned(&self, user: UserId, id: ImageId, why: Rejection, now: OffsetDateTime) -> Result<bool, StoreError> {
        let update = doc! {
            "$set": { "state": ImageState::Rejected.as_str(), "rejection": why.as_str(), "due": datetime(now) },
            "$unset": { "live": "", "idemKey": "", "idemHash": "" },
        };
        self.moved(owned(user, id, ImageState::Pending), update).await
    }

    /// `pending → expired`, unless a URL left since `image` was read. `false` when it was not pending or one did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire(&self, image: &Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Pending);
        filter.insert("urlsDieAt", datetime(image.urls_die_at));
        self.moved(filter, to_tombstone(ImageState::Expired, now)).await
    }

    /// `pending → deleting`. `false` when it was not pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_owned_pending(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<bool, StoreError> {
        self.moved(owned(user, id, ImageState::Pending), to_tombstone(ImageState::Deleting, now)).await
    }

    /// `ready → deleting` for those that are ready, in the transaction that also frees their bytes; says which they were.
    pub(super) async fn start_deleting(
        &self,
        user: UserId,
        ids: &[ImageId],
        now: OffsetDateTime,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<Vec<(String, i64)>> {
        let mut filter = owned_by_ids(user, ids);
        filter.insert("state", ImageState::Ready.as_str());
        let sizes = self.collection.clone_with_type::<Document>();
        let mut found = sizes.find(filter.clone()).projection(doc! { "size": 1 }).session(&mut *session).await?;
        let mut taken = Vec::new();
        while let Some(image) = found.next(&mut *session).await.transpose()? {
            taken.push((image.get_str("_id").unwrap_or_default().to_owned(), image.get_i64("size").unwrap_or_default()));
        }
        // A write by somebody else since the read aborts the transaction, which then begins anew.
        self.collection.update_many(filter, to_tombstone(ImageState::Deleting, now)).session(session).await?;
        Ok(taken)
    }

    /// Sets or clears the caption of a ready image. `None` when there is no such image.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_owned_caption(
        &self,
        user: UserId,
        id: ImageId,
        caption: Option<&Caption>,
    ) -> Result<Option<Image>, StoreError> {
        let update = match caption {
            Some(caption) => doc! { "$set": { "caption": caption.as_str() } },
            None => doc! { "$unset": { "caption": "" } },
        };
        self.update_owned(owned(user, id, ImageState::Ready), update).await
    }

    /// Images that are due at `now`, the longest due first, and until when each is claimed or was to be looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due(&self, now: OffsetDateTime, limit: u32) -> Result<Vec<(Image, OffsetDateTime)>, StoreError> {
        let filter = doc! { "due": { "$lte": datetime(now) } };
        let found: Vec<ImageDoc> = bounded(async {
            self.collection.find(filter).sort(doc! { "due": 1 }).limit(i64::from(limit)).await?.try_collect().await
        })
        .await?;
        // A document that cannot be read must not keep the others from being swept.
        let with_due = |doc: ImageDoc| {
            let due = doc.due.map_or(now, super::instant);
            let read = doc.into_image().inspect_err(|error| tracing::error!(%error, "an image that is due cannot be read"));
            Some((read.ok()?, due))
        };
        Ok(found.into_iter().filter_map(with_due).collect())
    }

    /// Claims an image that is due, by raising `due` to the end of the lease. Of any number of sweepers one succeeds;
    /// when it dies, the image is due again after the lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(&self, image: &Image, due: OffsetDateTime, lease_ends: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, image.state);
        filter.insert("due", datetime(due));
        self.moved(filter, doc! { "$set": { "due": datetime(lease_ends) } }).await
    }

    /// Looks again at `due`, unless the image moved on or `due` was raised past the lease meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone(&self, image: &Image, lease_ends: OffsetDateTime, due: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, image.state);
        filter.insert("due", datetime(lease_ends));
        self.moved(filter, doc! { "$set": { "due": datetime(due) } }).await
    }

    /// A tombstone's end: its object is deleted and no URL lives that could bring it back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_gone(&self, image: &Image) -> Result<bool, StoreError> {
        let update = doc! {
            "$set": { "state": ImageState::Gone.as_str(), "goneFrom": image.state.as_str() },
            "$currentDate": { "goneAt": true },
            "$unset": { "due": "" },
        };
        self.moved(owned(image.user, image.id, image.state), update).await
    }

    async fn moved(&self, filter: Document, update: Document) -> Result<bool, StoreError> {
        Ok(bounded(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    async fn update_owned(
        &self,
        filter: Document,
        update: impl Into<mongodb::options::UpdateModifications>,
    ) -> Result<Option<Image>, StoreError> {
        let updated =
            bounded(async { self.collection.find_one_and_update(filter, update).return_document(ReturnDocument::After).await })
                .await?;
        updated.map(ImageDoc::into_image).transpose()
    }
}

fn owned(user: UserId, id: ImageId, state: ImageState) -> Document {
    doc! { "_id": id.to_string(), "user": user.to_string(), "state": state.as_str() }
}

fn to_tombstone(state: ImageState, now: OffsetDateTime) -> Document {
    let due: DateTime = datetime(now);
    doc! { "$set": { "state": state.as_str(), "due": due }, "$unset": { "live": "", "idemKey": "", "idemHash": "" } }
}

/// A pipeline, for $$NOW; $literal because a pipeline would take a leading `$` for a field's name.
fn to_ready(etag: &str, size: Dimensions) -> Vec<Document> {
    let set = doc! {
        "state": ImageState::Ready.as_str(),
        "uploadedAt": "$$NOW",
        "etag": { "$literal": etag },
        "width": i64::from(size.width),
        "height": i64::from(size.height),
    };
    vec![doc! { "$set": set }, doc! { "$unset": ["due", "completingUntil"] }]
}

fn owned_by_ids(user: UserId, ids: &[ImageId]) -> Document {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    doc! { "_id": { "$in": ids }, "user": user.to_string() }
}
