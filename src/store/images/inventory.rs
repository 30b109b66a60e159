//! Every record that owns an object, in the order in which S3 lists keys: what the orphan scan compares the bucket with.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    Cursor,
    bson::{Document, doc},
};

use super::{Images, StoreError};
use crate::model::{ImageId, ImageState, ObjectKey, UserId};

/// The longest the database may sort, on its disk where its memory does not suffice.
const SORT: Duration = Duration::from_secs(10 * 60);

/// As much of a record as the scan needs.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The image.
    pub id: ImageId,
    /// Its owner.
    pub user: UserId,
    /// Where its object is, or is to be.
    pub key: ObjectKey,
    /// Never [`ImageState::Gone`].
    pub state: ImageState,
    /// Other keys are its own as well, or are about to be.
    unsettled: bool,
    preview: bool,
}

impl Entry {
    /// Whether the sweeper knows of this key, or may learn of it: it is not an orphan.
    #[must_use]
    pub fn owns(&self, key: &ObjectKey) -> bool {
        self.unsettled || *key == self.key || (self.preview && *key == self.key.preview())
    }
}

/// Entries in the order of their keys' bytes.
#[derive(Debug)]
pub struct Inventory(Cursor<Document>);

impl Inventory {
    /// The next entry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&mut self) -> Result<Option<Entry>, StoreError> {
        let next = tokio::time::timeout(SORT, self.0.try_next()).await.map_err(|_| StoreError::DatabaseTimeout)?;
        next.map_err(StoreError::Database)?.map(|found| entry(&found)).transpose()
    }
}

impl Images {
    /// All records that are not gone. The database sorts once, so this sees the records of one moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn inventory(&self) -> Result<Inventory, StoreError> {
        let documents = self.collection.clone_with_type::<Document>();
        let find = documents.find(not_gone()).projection(projection()).sort(doc! { "key": 1 }).allow_disk_use(true);
        let found = tokio::time::timeout(SORT, find.batch_size(1000)).await.map_err(|_| StoreError::DatabaseTimeout)?;
        found.map(Inventory).map_err(StoreError::Database)
    }

    /// Those of these images whose records are not gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn entries(&self, ids: &[ImageId]) -> Result<Vec<Entry>, StoreError> {
        let documents = self.collection.clone_with_type::<Document>();
        let mut filter = not_gone();
        filter.insert("_id", doc! { "$in": ids.iter().map(ToString::to_string).collect::<Vec<_>>() });
        let found = self
            .calls
            .read(|| async { documents.find(filter.clone()).projection(projection()).await?.try_collect::<Vec<_>>().await });
        found.await?.iter().map(entry).collect()
    }
}

fn not_gone() -> Document {
    doc! { "state": { "$ne": ImageState::Gone.as_str() } }
}

fn projection() -> Document {
    doc! { "user": 1, "key": 1, "state": 1, "preview.size": 1, "due": 1 }
}

fn entry(found: &Document) -> Result<Entry, StoreError> {
    let text = |field: &'static str| {
        found.get_str(field).map_err(|_| StoreError::Corrupt {
            collection: "images",
            id: found.get_str("_id").unwrap_or_default().to_owned(),
            field,
        })
    };
    let corrupt =
        |field| StoreError::Corrupt { collection: "images", id: found.get_str("_id").unwrap_or_default().to_owned(), field };
    Ok(Entry {
        id: ImageId::parse(text("_id")?).ok_or_else(|| corrupt("_id"))?,
        user: UserId::parse(text("user")?).ok_or_else(|| corrupt("user"))?,
        key: ObjectKey::stored(text("key")?.to_owned()),
        state: ImageState::parse(text("state")?).ok_or_else(|| corrupt("state"))?,
        // The sweeper still has something to do.
        unsettled: found.contains_key("due"),
        preview: found.contains_key("preview"),
    })
}
