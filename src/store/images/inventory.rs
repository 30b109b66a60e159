//! Records that own an object, in the order in which S3 lists keys, for comparing the bucket with the database.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use mongodb::{
    Collection, Cursor,
    bson::{Bson, Document, doc},
};

use super::{Images, StoreError, renderings};
use crate::{
    model::{ImageId, ImageState, KeyOwner, ObjectKey, UserId},
    store::driver_events::Operation,
};

/// Deadline of a sort by the database, on disk if its memory does not suffice.
const SORT_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// Idle time after which a cursor is opened again: MongoDB closes idle ones after ten minutes (`cursorTimeoutMillis`).
const MAX_IDLE: Duration = Duration::from_secs(5 * 60);

/// Records that the database returns at once.
const BATCH_RECORDS: u32 = 1000;

/// The fields of a record that the comparison with the bucket needs.
#[derive(Debug, Clone)]
pub struct InventoryEntry {
    /// The image.
    pub id: ImageId,
    /// Owner of the image.
    pub user: UserId,
    /// The key of its object.
    pub key: ObjectKey,
    /// State of the image; never [`ImageState::Purged`].
    pub state: ImageState,
    /// Whether the sweeper has not finished the image, so that other keys may belong to it as well.
    unsettled: bool,
    /// Whether the image has a preview.
    preview: bool,
    /// Whether a worker may have written pictures.
    pictures: bool,
}

impl InventoryEntry {
    /// Returns whether the sweeper has not finished the image; then multipart uploads that are open at its keys are left to the
    /// sweeper.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Returns whether a key of this image is not an orphan: any key while the image is unsettled, else the keys that the record
    /// names. The caller checks that the key has this image's id.
    #[must_use]
    pub fn owns(&self, key: &ObjectKey) -> bool {
        self.unsettled
            || *key == self.key
            || (self.preview && *key == self.key.preview())
            || (self.pictures && self.key.pictures().contains(key))
    }
}

/// Entries in the order of their keys' bytes.
#[derive(Debug)]
pub struct Inventory {
    records: Collection<Document>,
    cursor: Cursor<Document>,
    /// Time of the latest read from the cursor.
    read_at: Instant,
    /// Key of the latest record that was read.
    last_key: Option<String>,
}

impl Inventory {
    /// Returns the next entry. An unreadable record is an error, and the following call returns the record after it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&mut self) -> Result<Option<InventoryEntry>, StoreError> {
        if self.read_at.elapsed() > MAX_IDLE {
            self.reopen().await?;
        }
        let next = match self.advance().await {
            Ok(next) => next,
            // An election or a restart of the database ends cursors.
            Err(error) => {
                tracing::info!(%error, "lost the cursor; reading on from the last record");
                self.reopen().await?;
                self.advance().await?
            }
        };
        self.read_at = Instant::now();
        let Some(found) = next else { return Ok(None) };
        if let Ok(key) = found.get_str("key") {
            self.last_key = Some(key.to_owned());
        }
        entry(&found).map(Some)
    }

    /// Returns the next document.
    async fn advance(&mut self) -> Result<Option<Document>, StoreError> {
        let next = tokio::time::timeout(SORT_DEADLINE, self.cursor.try_next()).await.map_err(|_| StoreError::DatabaseTimeout)?;
        next.map_err(StoreError::Database)
    }

    /// Opens the cursor again, after the last key that was read.
    async fn reopen(&mut self) -> Result<(), StoreError> {
        self.cursor = open(&self.records, self.last_key.as_deref()).await?;
        Ok(())
    }
}

/// Opens a cursor over the images in the order of their keys.
async fn open(records: &Collection<Document>, after: Option<&str>) -> Result<Cursor<Document>, StoreError> {
    let mut filter = not_purged();
    if let Some(after) = after {
        filter.insert("key", doc! { "$gt": after });
    }
    let find = records.find(filter).projection(projection()).sort(doc! { "key": 1 }).allow_disk_use(true);
    let found = tokio::time::timeout(SORT_DEADLINE, find.batch_size(BATCH_RECORDS)).await;
    found.map_err(|_| StoreError::DatabaseTimeout)?.map_err(StoreError::Database)
}

impl Images {
    /// Returns all records that are not purged. The database sorts them each time the cursor is opened: at the start, after
    /// `MAX_IDLE` without a read, because MongoDB closes cursors that are idle for ten minutes, and after an error of the cursor.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn inventory(&self) -> Result<Inventory, StoreError> {
        let records = self.collection.clone_with_type::<Document>();
        let cursor = open(&records, None).await?;
        Ok(Inventory { records, cursor, read_at: Instant::now(), last_key: None })
    }

    /// Returns the records of these images that are not purged; `None` for an unreadable one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn entries(&self, ids: &[ImageId]) -> Result<HashMap<ImageId, Option<InventoryEntry>>, StoreError> {
        let documents = self.collection.clone_with_type::<Document>();
        let mut filter = not_purged();
        filter.insert("_id", doc! { "$in": ids.iter().map(ToString::to_string).collect::<Vec<_>>() });
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            documents.find(filter.clone()).projection(projection()).await?.try_collect::<Vec<_>>().await
        });
        let found = found.await?;
        let id_of = |record: &Document| record.get_str("_id").ok().and_then(ImageId::parse);
        Ok(found.iter().filter_map(|record| Some((id_of(record)?, entry(record).ok()))).collect())
    }
}

/// Returns a filter for records that are not purged.
pub(in crate::store) fn not_purged() -> Document {
    doc! { "state": { "$ne": ImageState::Purged.as_str() } }
}

/// Returns the fields that an inventory reads.
fn projection() -> Document {
    // Projects the whole preview: a projection of its members would omit a scalar in its place.
    doc! { "user": 1, "key": 1, "state": 1, "preview": 1, "rendering": 1, "due": 1 }
}

/// Converts a document to an entry of the inventory.
fn entry(found: &Document) -> Result<InventoryEntry, StoreError> {
    let text = |field: &'static str| {
        found.get_str(field).map_err(|_| StoreError::Corrupt {
            collection: "images",
            id: found.get_str("_id").unwrap_or_default().to_owned(),
            field,
        })
    };
    let corrupt =
        |field| StoreError::Corrupt { collection: "images", id: found.get_str("_id").unwrap_or_default().to_owned(), field };
    let image = ImageId::parse(text("_id")?).ok_or_else(|| corrupt("_id"))?;
    let user = UserId::parse(text("user")?).ok_or_else(|| corrupt("user"))?;
    let key = ObjectKey::from_stored(text("key")?.to_owned());
    // If the record's own key is unknown, no object of the image can be proven an orphan.
    if key.owner() != Some(KeyOwner { user, image }) {
        return Err(corrupt("key"));
    }
    let preview = match found.get("preview") {
        None => false,
        Some(Bson::Document(_)) => true,
        Some(_) => return Err(corrupt("preview")),
    };
    Ok(InventoryEntry {
        id: image,
        user,
        key,
        state: ImageState::parse(text("state")?).ok_or_else(|| corrupt("state"))?,
        // `due` is set as long as the sweeper has something to do.
        unsettled: found.contains_key("due"),
        preview,
        pictures: renderings::read(found.get("rendering"), None).is_some_and(|rendering| rendering.is_written),
    })
}
