//! Pages of a user's images. Ready images are views into the database's response: fields that the page does not show are
//! neither copied nor decoded.

use futures_util::{StreamExt, TryStreamExt};
use mongodb::{
    bson::{Bson, Document, RawDocument, RawDocumentBuf, doc},
    raw_batch_cursor::RawBatch,
};
use time::OffsetDateTime;

use super::{
    Images,
    document::readable,
    elements::{Elements, Value},
    positions::{FIRST_ID, position_of_id, taken_position},
    renderings,
};
use crate::{
    model::{ContentType, Dimensions, GalleryOrder, Image, ImageId, ImageState, KeyOwner, Location, Position, TakenAt, UserId},
    store::{FIRST_SORT_TIME, StoreError, datetime, driver_events::Operation, instant, is_sort_time, sort_time},
};

/// A page of ready images, in the gallery's order.
#[derive(Debug)]
pub struct RawGalleryPage {
    user: UserId,
    order: GalleryOrder,
    answer: Option<RawBatch>,
    /// Number of records.
    length: usize,
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
    /// SHA-256 of the bytes, in base64.
    pub sha256: Option<&'a str>,
    /// The owner's caption.
    pub caption: Option<&'a str>,
    /// The media type of its preview, if it has one.
    pub preview: Option<ContentType>,
    /// The `ThumbHash`, in base64.
    pub thumb_hash: Option<&'a str>,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Time at which it was taken, in RFC 3339.
    pub taken_at: Option<&'a str>,
    /// The time by which it is ordered; `None` for an image of the earlier version.
    taken_sort: Option<OffsetDateTime>,
    /// The camera's name.
    pub camera: Option<&'a str>,
    /// The position where it was taken.
    pub location: Option<Location>,
    /// Sizes of the pictures that a worker made, the smaller one first.
    pub pictures: [Option<Dimensions>; 2],
    /// Time at which the upload was opened.
    pub created_at: OffsetDateTime,
    /// Time at which it became ready.
    pub uploaded_at: OffsetDateTime,
}

/// A record of a page, which is decoded when it is needed.
#[derive(Debug, Clone, Copy)]
pub struct GalleryRecord<'a> {
    user: UserId,
    document: &'a RawDocument,
}

impl<'a> GalleryRecord<'a> {
    /// Returns the record's bytes; equal bytes of the same user show the same image.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.document.as_bytes()
    }

    /// Returns the image. An unreadable record is logged.
    #[must_use]
    pub fn row(self) -> Option<GalleryRow<'a>> {
        match row(self.document, self.user) {
            Ok(row) => Some(row),
            Err(field) => {
                let id = self.document.get_str("_id").unwrap_or_default();
                tracing::error!(image = %id, field, "failed to read an image of a gallery");
                None
            }
        }
    }
}

impl RawGalleryPage {
    /// Wraps the database's response.
    ///
    /// # Errors
    /// [`StoreError`] when it is malformed.
    fn new(user: UserId, order: GalleryOrder, answer: Option<RawBatch>) -> Result<Self, StoreError> {
        let documents = answer.as_ref().map(RawBatch::doc_slices).transpose().map_err(StoreError::Database)?;
        let elements = documents.into_iter().flat_map(|documents| Elements::of(documents.as_bytes()));
        let is_record = |element| matches!(element, Some((_, Value::Document(_))));
        let records: Option<Vec<()>> = elements.map(|element| is_record(element).then_some(())).collect();
        let malformed = || StoreError::Corrupt { collection: "images", id: String::new(), field: "a page" };
        let length = records.ok_or_else(malformed)?.len();
        Ok(Self { user, order, answer, length })
    }

    /// Returns the records, readable or not.
    pub fn records(&self) -> impl Iterator<Item = GalleryRecord<'_>> {
        let documents = self.answer.as_ref().and_then(|answer| answer.doc_slices().ok());
        let elements = documents.into_iter().flat_map(|documents| Elements::of(documents.as_bytes()));
        elements.map_while(|element| match element {
            Some((_, Value::Document(document))) => Some(GalleryRecord { user: self.user, document }),
            _ => None,
        })
    }

    /// Returns whether any record is readable. If none is, each is logged.
    #[must_use]
    pub fn has_readable(&self) -> bool {
        let is_readable = self.records().any(|record| row(record.document, self.user).is_ok());
        is_readable || self.records().filter_map(GalleryRecord::row).count() > 0
    }

    /// Returns the number of records, readable or not.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the position of the last record that has one, readable or not.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        let position = |GalleryRecord { document, .. }: GalleryRecord<'_>| {
            let id = document.get("_id").ok().flatten().map_or(FIRST_ID, position_of_id);
            match self.order {
                GalleryOrder::Uploaded => Some(Position { at: Some(instant(document.get_datetime("uploadedAt").ok()?)), id }),
                GalleryOrder::Taken => Some(taken_position(document.get("takenSort").ok().flatten(), id)),
            }
        };
        self.records().collect::<Vec<_>>().into_iter().rev().find_map(position)
    }
}

/// Minimum number of pending records that are read at once, so that a user's unreadable records take few queries.
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

/// Fields of a document as they are read.
#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a str>,
    key: Option<&'a str>,
    file_name: Option<&'a str>,
    content_type: Option<ContentType>,
    sha256: Option<&'a str>,
    caption: Option<&'a str>,
    preview: Option<ContentType>,
    thumb_hash: Option<&'a str>,
    taken_at: Option<&'a str>,
    taken_sort: Option<OffsetDateTime>,
    camera: Option<&'a str>,
    location: Option<Location>,
    pictures: Option<[Option<Dimensions>; 2]>,
    size: Option<u64>,
    width: Option<u32>,
    height: Option<u32>,
    created_at: Option<OffsetDateTime>,
    uploaded_at: Option<OffsetDateTime>,
}

impl<'a> Fields<'a> {
    /// Reads a field, or returns the name of one that is malformed.
    fn read(&mut self, name: &[u8], value: Value<'a>) -> Result<(), &'static str> {
        match (name, value) {
            (b"_id", Value::Text(text)) => self.id = Some(text),
            (b"key", Value::Text(text)) => self.key = Some(text),
            (b"fileName", Value::Text(text)) => self.file_name = Some(text),
            (b"contentType", Value::Text(text)) => self.content_type = ContentType::parse(text),
            (b"sha256", Value::Text(text)) => self.sha256 = Some(text),
            (b"caption", Value::Text(text)) => self.caption = Some(text),
            (b"preview", Value::Document(declared)) => {
                let content_type = declared.get_str("contentType").ok().and_then(ContentType::parse);
                self.preview = Some(content_type.ok_or("preview")?);
            }
            (b"thumbHash", Value::Text(text)) => self.thumb_hash = Some(text),
            (b"takenAt", Value::Text(text)) => self.taken_at = TakenAt::parse(text).map(|_| text),
            (b"takenSort", Value::Time(at)) => self.taken_sort = sort_time(at),
            (b"camera", Value::Text(text)) => self.camera = Some(text),
            (b"location", Value::Document(location)) => {
                let degrees = |name| location.get_f64(name).ok();
                let degrees = degrees("latitude").zip(degrees("longitude"));
                self.location = degrees.and_then(|(north, east)| Location::new(north, east));
            }
            (b"pictures", Value::Array(pictures)) => self.pictures = Some(renderings::raw_pictures(pictures)),
            (b"size", Value::Integer(n)) => self.size = u64::try_from(n).ok(),
            (b"width", Value::Integer(n)) => self.width = u32::try_from(n).ok(),
            (b"height", Value::Integer(n)) => self.height = u32::try_from(n).ok(),
            (b"createdAt", Value::Time(at)) => self.created_at = Some(instant(at)),
            (b"uploadedAt", Value::Time(at)) => self.uploaded_at = Some(instant(at)),
            _ => {}
        }
        Ok(())
    }

    /// Returns the image of these fields, or the name of a field that is missing or malformed.
    fn row(self, user: UserId) -> Result<GalleryRow<'a>, &'static str> {
        let id = self.id.ok_or("_id")?;
        let image = ImageId::parse(id).ok_or("_id")?;
        Ok(GalleryRow {
            id,
            // The object at this key is served: a key of another form belongs to another image, or another program.
            key: self.key.filter(|key| KeyOwner { user, image }.has_key(key)).ok_or("key")?,
            file_name: self.file_name.ok_or("fileName")?,
            content_type: self.content_type.ok_or("contentType")?,
            size: self.size.ok_or("size")?,
            sha256: self.sha256,
            caption: self.caption,
            preview: self.preview,
            thumb_hash: self.thumb_hash,
            width: self.width.ok_or("width")?,
            height: self.height.ok_or("height")?,
            taken_at: self.taken_at,
            taken_sort: self.taken_sort,
            camera: self.camera,
            location: self.location,
            pictures: self.pictures.unwrap_or_default(),
            created_at: self.created_at.ok_or("createdAt")?,
            uploaded_at: self.uploaded_at.ok_or("uploadedAt")?,
        })
    }
}

/// Decodes a document in one pass, or returns the name of the field that is missing or malformed.
fn row(document: &RawDocument, user: UserId) -> Result<GalleryRow<'_>, &'static str> {
    let mut fields = Fields::default();
    for element in Elements::of(document.as_bytes()) {
        let Some((name, value)) = element else { return row_of_any_types(document, user) };
        fields.read(name, value)?;
    }
    fields.row(user)
}

/// Decodes a document as [`row`] does, with the driver's iterator: its fields may have any types.
fn row_of_any_types(document: &RawDocument, user: UserId) -> Result<GalleryRow<'_>, &'static str> {
    let mut fields = Fields::default();
    for element in document {
        let (name, value) = element.map_err(|_| "a field")?;
        fields.read(name.as_str().as_bytes(), value.into())?;
    }
    fields.row(user)
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
        let answer = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                let find = self.collection.find(ready_after(user, order, after)).sort(newest_first(order));
                let find = find.limit(-i64::from(limit)).batch_size(limit);
                find.batch().await?.next().await.transpose()
            })
            .await?;
        RawGalleryPage::new(user, order, answer)
    }

    /// Returns pending images, newest first. An unreadable record is logged and left out; the next record takes its position.
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
/// readable `uploadedAt`, such as one outside of the years that a position can have, has no position in the order of uploads. In
/// the order of the time taken, images of the earlier version, which have no `takenSort`, come last.
pub(super) fn ready_after(user: UserId, order: GalleryOrder, after: Option<Position>) -> Document {
    let mut filter = doc! { "user": user.to_string(), "state": ImageState::Ready.as_str() };
    let (field, id_before) = (sort_field(order), |id: ImageId| doc! { "$lt": id.to_string() });
    match (after, order) {
        (Some(Position { at: Some(at), id }), _) => {
            let at = Bson::DateTime(datetime(at));
            let mut earlier = doc! { "$lt": at.clone() };
            if order == GalleryOrder::Uploaded {
                earlier.insert("$gte", FIRST_SORT_TIME);
            }
            let same_time_filter = doc! { field: not_a_list(doc! { "$eq": at }), "_id": id_before(id) };
            let mut following = vec![same_time_filter, doc! { field: not_a_list(earlier) }];
            if order == GalleryOrder::Taken {
                following.push(doc! { field: not_a_list(doc! { "$eq": null }) });
            }
            filter.insert("$or", following);
        }
        (Some(Position { at: None, id }), GalleryOrder::Taken) => {
            filter.extend(doc! { field: not_a_list(doc! { "$eq": null }), "_id": id_before(id) });
        }
        (_, GalleryOrder::Uploaded) => drop(filter.insert(field, not_a_list(is_sort_time()))),
        (None, GalleryOrder::Taken) => drop(filter.insert(field, not_a_list(Document::new()))),
    }
    filter
}

/// Returns the condition for single values alone. A comparison matches a list if one value in it matches, and a list is sorted by
/// its greatest value: it would be found at the front of every page.
fn not_a_list(mut condition: Document) -> Document {
    condition.insert("$not", doc! { "$type": "array" });
    condition
}

/// Returns a filter for pending images after the `_id` of a record, in the same index: all lack `uploadedAt`, so their ids order
/// them.
fn pending_after(user: UserId, id: &str) -> Document {
    doc! { "user": user.to_string(), "state": ImageState::Pending.as_str(), "uploadedAt": null, "_id": { "$lt": id } }
}
