//! Images: one document each in `images`; every move of state is one conditional update on `{_id, user, state}`.
//!
//! `uploadedAt` is written by the database's own clock. `due` is when the sweeper looks next, and the lease of the
//! sweeper that looks: raising it is the claim.

mod document;
mod inventory;

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession, Collection, Database, IndexModel,
    bson::{Bson, DateTime, Document, doc},
    options::{IndexOptions, ReturnDocument},
};
use std::time::Duration;
use time::OffsetDateTime;

use self::document::ImageDoc;
pub use self::inventory::{Entry, Inventory};
use super::{StoreError, bounded, datetime, integer, is_duplicate};
use crate::model::{Caption, Dimensions, Image, ImageId, ImageState, Position, Rejection, Sha256, UserId};

/// How long a record is kept when nothing is left of its image.
const GONE_FOR: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// This user has a live image of the same bytes.
    SameBytes,
}

impl Images {
    pub(super) fn new(database: &Database) -> Self {
        Self { collection: database.collection("images") }
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let named = |name: &str| IndexOptions::builder().name(name.to_owned()).build();
        let index = |keys, options| IndexModel::builder().keys(keys).options(options).build();
        let indexes = [
            index(doc! { "user": 1, "state": 1, "uploadedAt": -1, "_id": -1 }, named("gallery")),
            index(
                doc! { "user": 1, "sha256": 1, "size": 1 },
                IndexOptions::builder()
                    .name("liveBytes".to_owned())
                    .unique(true)
                    .partial_filter_expression(doc! { "live": true })
                    .build(),
            ),
            index(
                doc! { "due": 1 },
                IndexOptions::builder()
                    .name("due".to_owned())
                    .partial_filter_expression(doc! { "due": { "$exists": true } })
                    .build(),
            ),
            index(
                doc! { "goneAt": 1 },
                IndexOptions::builder()
                    .name("gone".to_owned())
                    .expire_after(GONE_FOR)
                    .partial_filter_expression(doc! { "state": ImageState::Gone.as_str() })
                    .build(),
            ),
        ];
        bounded(async { self.collection.create_indexes(indexes).await }).await.map(drop)
    }

    /// Adds a pending image, to be looked at by the sweeper at `due`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert(&self, image: &Image, due: OffsetDateTime) -> Result<Inserted, StoreError> {
        let document = ImageDoc::pending(image, datetime(due));
        match bounded(async { self.collection.insert_one(document).await }).await {
            Ok(_) => Ok(Inserted::Yes),
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(Inserted::SameBytes),
            Err(error) => Err(error),
        }
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

    /// The user's live (pending or ready) image of these bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_owned_bytes(&self, user: UserId, sha256: Sha256, size: u64) -> Result<Option<Image>, StoreError> {
        let filter = doc! { "user": user.to_string(), "sha256": sha256.to_string(), "size": integer(size), "live": true };
        let found = bounded(async { self.collection.find_one(filter).await }).await?;
        found.map(ImageDoc::into_image).transpose()
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

    /// Records that a URL will leave that dies at `urls_die_at`, before it leaves. `None` when no longer pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn raise_owned_urls_die_at(
        &self,
        user: UserId,
        id: ImageId,
        urls_die_at: OffsetDateTime,
        due: OffsetDateTime,
    ) -> Result<Option<Image>, StoreError> {
        let update = doc! { "$max": { "urlsDieAt": datetime(urls_die_at), "due": datetime(due) } };
        self.update_owned(owned(user, id, ImageState::Pending), update).await
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
        // A pipeline, for $$NOW; $literal because a pipeline would take a leading `$` for a field's name.
        let set = doc! {
            "state": ImageState::Ready.as_str(),
            "uploadedAt": "$$NOW",
            "etag": { "$literal": etag },
            "width": i64::from(size.width),
            "height": i64::from(size.height),
        };
        self.update_owned(owned(user, id, ImageState::Pending), vec![doc! { "$set": set }, doc! { "$unset": ["due"] }]).await
    }

    /// `pending → rejected`. `false` when it was not pending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reject_owned(&self, user: UserId, id: ImageId, why: Rejection, now: OffsetDateTime) -> Result<bool, StoreError> {
        let update = doc! {
            "$set": { "state": ImageState::Rejected.as_str(), "rejection": why.as_str(), "due": datetime(now) },
            "$unset": { "live": "" },
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

    /// `ready → deleting`, in the transaction that also frees the bytes.
    pub(super) async fn start_deleting(
        &self,
        image: &Image,
        now: OffsetDateTime,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<bool> {
        let filter = owned(image.user, image.id, ImageState::Ready);
        let update = to_tombstone(ImageState::Deleting, now);
        Ok(self.collection.update_one(filter, update).session(session).await?.matched_count == 1)
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
        let with_due = |doc: ImageDoc| {
            let due = doc.due.map_or(now, super::instant);
            Ok((doc.into_image()?, due))
        };
        found.into_iter().map(with_due).collect()
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
            "$set": { "state": ImageState::Gone.as_str() },
            "$currentDate": { "goneAt": true },
            "$unset": { "due": "", "rejection": "" },
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
    doc! { "$set": { "state": state.as_str(), "due": due }, "$unset": { "live": "" } }
}
