//! Pages of a user's images. Ready images are views into the database's response: fields that the page does not show are
//! neither copied nor decoded.

use futures_util::{StreamExt, TryStreamExt};
use mongodb::{
    bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc},
    raw_batch_cursor::RawBatch,
};
use time::OffsetDateTime;

use super::{Images, document::readable};
use crate::{
    model::{ContentType, Image, ImageId, ImageState, KeyOwner, Position, UserId},
    store::{StoreError, datetime, driver_events::Operation, instant},
};

/// Projected fields of a ready image.
const PROJECTED_FIELDS: [&str; 13] = [
    "_id",
    "key",
    "fileName",
    "contentType",
    "size",
    "sha256",
    "caption",
    "preview.contentType",
    "thumbHash",
    "width",
    "height",
    "createdAt",
    "uploadedAt",
];

/// A page of ready images, in the gallery's order.
#[derive(Debug)]
pub struct RawGalleryPage {
    user: UserId,
    answer: Option<RawBatch>,
}

/// A ready image, borrowed from a page.
#[derive(Debug, Clone, Copy)]
pub struct GalleryRow<'a> {
    /// The image's id.
    pub id: &'a str,
    /// The key of its bytes.
    pub key: &'a str,
    /// As in [`Image`], like everything below.
    pub file_name: &'a str,
    /// The verified type.
    pub content_type: ContentType,
    /// Size in bytes.
    pub size: u64,
    /// Base64.
    pub sha256: Option<&'a str>,
    /// The owner's caption.
    pub caption: Option<&'a str>,
    /// The media type of its preview, if it has one.
    pub preview: Option<ContentType>,
    /// Base64.
    pub thumb_hash: Option<&'a str>,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// When the upload was issued.
    pub created_at: OffsetDateTime,
    /// When it was confirmed.
    pub uploaded_at: OffsetDateTime,
    /// The document's bytes; equal bytes show the same image.
    pub bytes: &'a [u8],
}

impl RawGalleryPage {
    /// Returns the images; an unreadable record is logged and omitted.
    ///
    /// # Errors
    /// [`StoreError`] when the database's response is malformed.
    pub fn rows(&self) -> Result<Vec<GalleryRow<'_>>, StoreError> {
        let read = |document| match row(document, self.user) {
            Ok(row) => Some(row),
            Err(field) => {
                let id = document.get_str("_id").unwrap_or_default();
                tracing::error!(image = %id, field, "failed to read an image of a gallery");
                None
            }
        };
        Ok(self.documents()?.into_iter().filter_map(read).collect())
    }

    /// Returns the number of records found, readable or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database's answer is malformed.
    pub fn length(&self) -> Result<usize, StoreError> {
        Ok(self.documents()?.len())
    }

    /// Returns the position of the last record that has a readable one, even if the rest of the record is unreadable.
    ///
    /// # Errors
    /// [`StoreError`] when the database's answer is malformed.
    pub fn end(&self) -> Result<Option<Position>, StoreError> {
        let position = |record: &&RawDocument| {
            let uploaded_at = instant(record.get_datetime("uploadedAt").ok()?);
            // A malformed `_id` sorts among those of its millisecond: the next page continues after all of them.
            let id = record.get_str("_id").ok().and_then(ImageId::parse).unwrap_or(ImageId::from_bytes([0; 16]));
            Some(Position { uploaded_at: Some(uploaded_at), id })
        };
        Ok(self.documents()?.iter().rev().find_map(position))
    }

    fn documents(&self) -> Result<Vec<&RawDocument>, StoreError> {
        let Some(answer) = &self.answer else { return Ok(Vec::new()) };
        let malformed = || StoreError::Corrupt { collection: "images", id: String::new(), field: "a page" };
        let values = answer.doc_slices().map_err(StoreError::Database)?.into_iter();
        values.map(|value| value.ok().and_then(RawBsonRef::as_document).ok_or_else(malformed)).collect()
    }
}

/// The least number of pending records to read at once.
const MIN_BATCH: usize = 16;

impl GalleryRow<'_> {
    /// Returns the image's position in the gallery's order.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        Some(Position { uploaded_at: Some(self.uploaded_at), id: ImageId::parse(self.id)? })
    }
}

/// Decodes a document in one pass, or returns the name of the field that is missing or malformed.
fn row(document: &RawDocument, user: UserId) -> Result<GalleryRow<'_>, &'static str> {
    let (mut id, mut key, mut file_name, mut content_type, mut sha256, mut caption) = (None, None, None, None, None, None);
    let (mut preview, mut thumb_hash) = (None, None);
    let (mut size, mut width, mut height, mut created_at, mut uploaded_at) = (None, None, None, None, None);
    for element in document {
        let (name, value) = element.map_err(|_| "a field")?;
        match (name.as_str(), value) {
            ("_id", RawBsonRef::String(text)) => id = Some(text),
            ("key", RawBsonRef::String(text)) => key = Some(text),
            ("fileName", RawBsonRef::String(text)) => file_name = Some(text),
            ("contentType", RawBsonRef::String(text)) => content_type = ContentType::parse(text),
            ("sha256", RawBsonRef::String(text)) => sha256 = Some(text),
            ("caption", RawBsonRef::String(text)) => caption = Some(text),
            ("preview", RawBsonRef::Document(declared)) => {
                let content_type = declared.get_str("contentType").ok().and_then(ContentType::parse);
                preview = Some(content_type.ok_or("preview")?);
            }
            ("thumbHash", RawBsonRef::String(text)) => thumb_hash = Some(text),
            ("size", value) => size = integer(value).and_then(|n| u64::try_from(n).ok()),
            ("width", value) => width = integer(value).and_then(|n| u32::try_from(n).ok()),
            ("height", value) => height = integer(value).and_then(|n| u32::try_from(n).ok()),
            ("createdAt", RawBsonRef::DateTime(at)) => created_at = Some(instant(at)),
            ("uploadedAt", RawBsonRef::DateTime(at)) => uploaded_at = Some(instant(at)),
            _ => {}
        }
    }
    let id = id.ok_or("_id")?;
    let image = ImageId::parse(id).ok_or("_id")?;
    Ok(GalleryRow {
        id,
        // The object at this key is served: another one belongs to another image, or another program.
        key: key.filter(|key| KeyOwner::of_key(key) == Some(KeyOwner { user, image })).ok_or("key")?,
        file_name: file_name.ok_or("fileName")?,
        content_type: content_type.ok_or("contentType")?,
        size: size.ok_or("size")?,
        sha256,
        caption,
        preview,
        thumb_hash,
        width: width.ok_or("width")?,
        height: height.ok_or("height")?,
        created_at: created_at.ok_or("createdAt")?,
        uploaded_at: uploaded_at.ok_or("uploadedAt")?,
        bytes: document.as_bytes(),
    })
}

/// Returns an integer of either width: `mongoimport` and `mongosh` write small ones as 32 bits.
fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(n) => Some(n.into()),
        RawBsonRef::Int64(n) => Some(n),
        _ => None,
    }
}

impl Images {
    /// Returns ready images, newest first, after `after`: one index scan that examines exactly the returned records, in one
    /// response.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page_owned_ready(
        &self,
        user: UserId,
        after: Option<Position>,
        limit: u32,
    ) -> Result<RawGalleryPage, StoreError> {
        let projection: Document = PROJECTED_FIELDS.iter().map(|field| ((*field).to_owned(), Bson::Int32(1))).collect();
        let answer = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                let find = self.collection.find(after_in_order(user, ImageState::Ready, after)).sort(newest_first());
                let find = find.projection(projection.clone()).limit(-i64::from(limit)).batch_size(limit);
                find.batch().await?.next().await.transpose()
            })
            .await?;
        Ok(RawGalleryPage { user, answer })
    }

    /// Returns pending images, newest first. An unreadable record is logged and replaced by the next one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_owned_pending(
        &self,
        user: UserId,
        mut after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Image>, StoreError> {
        let records = self.collection.clone_with_type::<RawDocumentBuf>();
        let mut page = Vec::new();
        // Each round except the last found an unreadable record.
        for _ in 0..=limit {
            // Enough at once that a malformed `_id`, which no query can continue after, is not the last of them.
            let wanted = (limit as usize).saturating_sub(page.len()).max(MIN_BATCH);
            let find = || {
                records
                    .find(after_in_order(user, ImageState::Pending, after))
                    .sort(newest_first())
                    .limit(i64::try_from(wanted).unwrap_or(i64::MAX))
            };
            let found = self
                .mongo
                .read(Operation::find(&self.collection), || async { find().await?.try_collect::<Vec<_>>().await })
                .await?;
            page.extend(found.iter().filter_map(|record| readable(record)));
            let last = found.iter().rev().find_map(|record| ImageId::parse(record.get_str("_id").ok()?));
            after = last.map(|id| Position { uploaded_at: None, id });
            if after.is_none() || page.len() >= limit as usize || found.len() < wanted {
                break;
            }
        }
        page.truncate(limit as usize);
        Ok(page)
    }
}

fn newest_first() -> Document {
    doc! { "uploadedAt": -1, "_id": -1 }
}

fn after_in_order(user: UserId, state: ImageState, after: Option<Position>) -> Document {
    let mut filter = doc! { "user": user.to_string(), "state": state.as_str() };
    if let Some(Position { uploaded_at, id }) = after {
        // Pending images have no `uploadedAt`: in the same index all have null, ordered by id.
        let at = uploaded_at.map_or(Bson::Null, |at| Bson::DateTime(datetime(at)));
        let same = doc! { "uploadedAt": at.clone(), "_id": { "$lt": id.to_string() } };
        let alternatives = if uploaded_at.is_some() { vec![same, doc! { "uploadedAt": { "$lt": at } }] } else { vec![same] };
        filter.insert("$or", alternatives);
    }
    filter
}
