//! Images that became ready before confirm read files for the time taken, the camera and the location: they have none of the fields
//! that confirm records today. `captureRead` marks images whose files contain none of the three, or that the store refuses to
//! return.

use futures_util::TryStreamExt;
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc};

use super::{
    Images,
    document::readable,
    owned,
    page::{newest_first, ready_after},
    positions::{FIRST_ID, position_of_id},
};
use crate::{
    model::{GalleryOrder, Image, ImageState, Position, UserId},
    store::{StoreError, driver_events::Operation, instant},
};

/// Value of `captureRead` for an image whose object the store refuses to return.
const REFUSED: &str = "refused";

/// Fields of an image's record; at least one of them is set once the image's file was read, or the store has refused it.
const READ_FIELDS: [&str; 4] = ["takenAt", "camera", "location", "captureRead"];

/// Images whose files were never read for the time taken, the camera and the location, among the records that were examined.
#[derive(Debug)]
pub struct UnreadCaptures {
    /// The images.
    pub images: Vec<Image>,
    /// The position of the last record; `None` if there are no records after it.
    pub end: Option<Position>,
}

impl Images {
    /// Examines `limit` ready images of a user after this position, newest first, and returns those whose files were never read for
    /// the time taken, the camera and the location. An unreadable record is logged and omitted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_unread_captures(
        &self,
        user: UserId,
        after: Option<Position>,
        limit: u32,
    ) -> Result<UnreadCaptures, StoreError> {
        let records = self.collection.clone_with_type::<RawDocumentBuf>();
        let order = GalleryOrder::Uploaded;
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = records.find(ready_after(user, order, after)).sort(newest_first(order)).limit(limit.into());
            find.await?.try_collect::<Vec<_>>().await
        });
        let found = found.await?;
        let is_unread = |record: &&RawDocumentBuf| READ_FIELDS.iter().all(|field| matches!(record.get(*field), Ok(None)));
        let images = found.iter().filter(is_unread).filter_map(|record| readable(record)).collect();
        let is_full = found.len() >= limit as usize;
        let end = is_full.then(|| found.iter().rev().find_map(|record| position(record))).flatten();
        Ok(UnreadCaptures { images, end })
    }

    /// Records that the store refuses to return the object of an image, so that no further run reads it. Returns `false` if the
    /// image was deleted or changed since it was read.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn record_refused_capture(&self, image: &Image) -> Result<bool, StoreError> {
        self.set_capture(as_unread(image), doc! { "captureRead": REFUSED }).await
    }

    /// Records the fields of a capture without a time taken. Returns `false` if the image no longer matches the filter.
    pub(in crate::store) async fn set_capture(&self, filter: Document, fields: Document) -> Result<bool, StoreError> {
        self.update_one(filter, doc! { "$set": fields }).await
    }
}

/// Returns the position of a record in the order of uploads; `None` without a readable `uploadedAt`.
fn position(record: &RawDocument) -> Option<Position> {
    let id = record.get("_id").ok().flatten().map_or(FIRST_ID, position_of_id);
    Some(Position { at: Some(instant(record.get_datetime("uploadedAt").ok()?)), id })
}

/// Returns a filter for an image that has the same bytes as when it was read, and whose file was not read since.
pub(in crate::store) fn as_unread(image: &Image) -> Document {
    let mut filter = owned(image.user, image.id, ImageState::Ready);
    filter.extend(doc! { "key": image.key.as_str(), "etag": image.ready().map(|ready| ready.etag.clone()) });
    // Null also matches an absent field.
    filter.extend(READ_FIELDS.map(|field| (field.to_owned(), mongodb::bson::Bson::Null)));
    filter
}
