//! Pages of a user's images. Ready images are views into the database's response: fields that the page does not show are
//! neither copied nor decoded.

use futures_util::{StreamExt, TryStreamExt};
use mongodb::{
    bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc},
    raw_batch_cursor::RawBatch,
};
use time::OffsetDateTime;

use super::{
    Images,
    document::readable,
    positions::{FIRST_ID, position_of_id, taken_position},
    renderings,
};
use crate::{
    model::{ContentType, Dimensions, GalleryOrder, Image, ImageId, ImageState, KeyOwner, Location, Position, TakenAt, UserId},
    store::{StoreError, datetime, driver_events::Operation, instant, sort_time},
};

/// Projected fields of a ready image.
const PROJECTED_FIELDS: [&str; 18] = [
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
    "takenAt",
    "takenSort",
    "camera",
    "location",
    "pictures",
    "createdAt",
    "uploadedAt",
];

/// A page of ready images, in the gallery's order.
#[derive(Debug)]
pub struct RawGalleryPage {
    user: UserId,
    order: GalleryOrder,
    answer: Option<RawBatch>,
}

/// A ready image, borrowed from a page.
#[derive(Debug, Clone, Copy)]
pub struct GalleryRow<'a> {
    /// The image's id.
    pub id: &'a str,
    /// The key of its bytes.
    pub key: &'a str,
    /// The file name. This and the following fields are those of [`Image`].
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
    /// When it was taken, in RFC 3339.
    pub taken_at: Option<&'a str>,
    /// The time by which it is ordered; `None` for an image of the former version.
    taken_sort: Option<OffsetDateTime>,
    /// The camera's name.
    pub camera: Option<&'a str>,
    /// The position where it was taken.
    pub location: Option<Location>,
    /// Sizes of the pictures that a worker made, the smaller one first.
    pub pictures: [Option<Dimensions>; 2],
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

    /// Returns whether any record is readable. If none is, each is logged.
    ///
    /// # Errors
    /// [`StoreError`] when the database's response is malformed.
    pub fn has_readable(&self) -> Result<bool, StoreError> {
        let is_readable = self.documents()?.into_iter().any(|document| row(document, self.user).is_ok());
        Ok(is_readable || !self.rows()?.is_empty())
    }

    /// Returns the number of records found, readable or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database's answer is malformed.
    pub fn length(&self) -> Result<usize, StoreError> {
        Ok(self.documents()?.len())
    }

    /// Returns the position of the last record, readable or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database's answer is malformed.
    pub fn end(&self) -> Result<Option<Position>, StoreError> {
        let position = |record: &&RawDocument| {
            let id = record.get("_id").ok().flatten().map_or(FIRST_ID, position_of_id);
            match self.order {
                GalleryOrder::Uploaded => Some(Position { at: Some(instant(record.get_datetime("uploadedAt").ok()?)), id }),
                GalleryOrder::Taken => Some(taken_position(record.get("takenSort").ok().flatten(), id)),
            }
        };
        Ok(self.documents()?.iter().rev().find_map(position))
    }

    /// Returns the documents of the page.
    fn documents(&self) -> Result<Vec<&RawDocument>, StoreError> {
        let Some(answer) = &self.answer else { return Ok(Vec::new()) };
        let malformed = || StoreError::Corrupt { collection: "images", id: String::new(), field: "a page" };
        let values = answer.doc_slices().map_err(StoreError::Database)?.into_iter();
        values.map(|value| value.ok().and_then(RawBsonRef::as_document).ok_or_else(malformed)).collect()
    }
}

/// Number of pending records that are read at once, at least: a user's unreadable ones take few queries.
const MIN_BATCH: usize = 100;
/// A text after all image ids, which are hexadecimal.
const AFTER_ALL_IDS: &str = "g";

impl GalleryRow<'_> {
    /// Returns the image's position in this order of the gallery.
    #[must_use]
    pub fn position(&self, order: GalleryOrder) -> Option<Position> {
        let at = match order {
            GalleryOrder::Uploaded => Some(self.uploaded_at),
            GalleryOrder::Taken => self.taken_sort,
        };
        Some(Position { at, id: ImageId::parse(self.id)? })
    }
}

/// Decodes a document in one pass, or returns the name of the field that is missing or malformed.
fn row(document: &RawDocument, user: UserId) -> Result<GalleryRow<'_>, &'static str> {
    let (mut id, mut key, mut file_name, mut content_type, mut sha256, mut caption) = (None, None, None, None, None, None);
    let (mut preview, mut thumb_hash, mut taken_at, mut taken_sort, mut camera, mut location, mut pictures) =
        (None, None, None, None, None, None, None);
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
            ("takenAt", RawBsonRef::String(text)) => taken_at = TakenAt::parse(text).map(|_| text),
            ("takenSort", RawBsonRef::DateTime(at)) => taken_sort = sort_time(at),
            ("camera", RawBsonRef::String(text)) => camera = Some(text),
            ("location", RawBsonRef::Document(place)) => {
                let degrees = |name| place.get_f64(name).ok();
                location = degrees("latitude").zip(degrees("longitude")).and_then(|(north, east)| Location::new(north, east));
            }
            ("pictures", RawBsonRef::Array(made)) => pictures = Some(renderings::raw_pictures(made)),
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
        taken_at,
        taken_sort,
        camera,
        location,
        pictures: pictures.unwrap_or_default(),
        created_at: created_at.ok_or("createdAt")?,
        uploaded_at: uploaded_at.ok_or("uploadedAt")?,
        bytes: document.as_bytes(),
    })
}

/// Returns an integer of either width: `mongoimport` and `mongosh` write small ones as 32 bits.
pub(super) fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(n) => Some(n.into()),
        RawBsonRef::Int64(n) => Some(n),
        _ => None,
    }
}

impl Images {
    /// Returns ready images in this order, newest first, after `after`: one index scan that examines exactly the returned records,
    /// in one response.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page_owned_ready(
        &self,
        user: UserId,
        order: GalleryOrder,
        after: Option<Position>,
        limit: u32,
    ) -> Result<RawGalleryPage, StoreError> {
        let projection: Document = PROJECTED_FIELDS.iter().map(|field| ((*field).to_owned(), Bson::Int32(1))).collect();
        let answer = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                let find = self.collection.find(ready_after(user, order, after)).sort(newest_first(order));
                let find = find.projection(projection.clone()).limit(-i64::from(limit)).batch_size(limit);
                find.batch().await?.next().await.transpose()
            })
            .await?;
        Ok(RawGalleryPage { user, order, answer })
    }

    /// Returns pending images, newest first. An unreadable record is logged and replaced by the next one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_owned_pending(&self, user: UserId, after: Option<Position>, limit: u32) -> Result<Vec<Image>, StoreError> {
        let records = self.collection.clone_with_type::<RawDocumentBuf>();
        let (limit, mut page) = (limit as usize, Vec::new());
        let mut after = after.map_or_else(|| AFTER_ALL_IDS.to_owned(), |after| after.id.to_string());
        loop {
            let wanted = limit.saturating_sub(page.len()).max(MIN_BATCH);
            let find = || {
                let find = records.find(pending_after(user, &after)).sort(newest_first(GalleryOrder::Uploaded));
                find.limit(i64::try_from(wanted).unwrap_or(i64::MAX))
            };
            let found = self
                .mongo
                .read(Operation::find(&self.collection), || async { find().await?.try_collect::<Vec<_>>().await })
                .await?;
            page.extend(found.iter().filter_map(|record| readable(record)));
            let last = found.last().filter(|_| found.len() == wanted && page.len() < limit);
            let Some(last) = last.and_then(|last| last.get_str("_id").ok()) else { break };
            after = last.to_owned();
        }
        page.truncate(limit);
        Ok(page)
    }
}

/// Returns the field that orders a gallery's images.
fn sort_field(order: GalleryOrder) -> &'static str {
    match order {
        GalleryOrder::Uploaded => "uploadedAt",
        GalleryOrder::Taken => "takenSort",
    }
}

/// Returns the sort of a page.
pub(super) fn newest_first(order: GalleryOrder) -> Document {
    doc! { sort_field(order): -1, "_id": -1 }
}

/// Returns a filter for ready images after a position. Comparisons match only values of the same type: an image without a
/// readable time of its confirm has no place in the order. In the order of the time taken, images of the former version, which
/// recorded none, come last.
pub(super) fn ready_after(user: UserId, order: GalleryOrder, after: Option<Position>) -> Document {
    let mut filter = doc! { "user": user.to_string(), "state": ImageState::Ready.as_str() };
    let (field, before) = (sort_field(order), |id: ImageId| doc! { "$lt": id.to_string() });
    match (after, order) {
        (Some(Position { at: Some(at), id }), _) => {
            let at = Bson::DateTime(datetime(at));
            let mut following = vec![doc! { field: at.clone(), "_id": before(id) }, doc! { field: { "$lt": at } }];
            if order == GalleryOrder::Taken {
                following.push(doc! { field: null });
            }
            filter.insert("$or", following);
        }
        (Some(Position { at: None, id }), GalleryOrder::Taken) => filter.extend(doc! { field: null, "_id": before(id) }),
        (_, GalleryOrder::Uploaded) => drop(filter.insert(field, doc! { "$lte": DateTime::MAX })),
        (None, GalleryOrder::Taken) => {}
    }
    filter
}

/// Returns a filter for pending images after the `_id` of a record, in the same index: all lack `uploadedAt`, so their ids order
/// them.
fn pending_after(user: UserId, id: &str) -> Document {
    doc! { "user": user.to_string(), "state": ImageState::Pending.as_str(), "uploadedAt": null, "_id": { "$lt": id } }
}
