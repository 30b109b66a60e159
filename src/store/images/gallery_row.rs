//! Ready images of a page, as views into the database's response: fields that the page does not show are neither copied nor
//! decoded.

use mongodb::bson::RawDocument;
use time::OffsetDateTime;

use super::{
    elements::{Elements, Value},
    renderings,
};
use crate::{
    model::{ContentType, Dimensions, GalleryOrder, ImageId, KeyOwner, Location, Position, TakenAt, UserId},
    store::{instant, sort_time},
};

/// A ready image, borrowed from a page.
#[derive(Debug, Clone, Copy)]
pub struct GalleryRow<'a> {
    /// The image's id.
    pub id: &'a str,
    /// The key of its bytes.
    pub key: &'a str,
    /// The file name. This and the following fields are those of [`Image`](crate::model::Image).
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
    /// The time by which it is ordered; `None` for an image of an earlier version.
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
    pub(super) user: UserId,
    pub(super) document: &'a RawDocument,
}

impl<'a> GalleryRecord<'a> {
    /// Returns the record's bytes.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.document.as_bytes()
    }

    /// Appends the elements of the fields from which the row is read: equal bytes of the same user give the same row, whatever is
    /// recorded in other fields, such as those of a step or of a worker.
    pub fn push_shown_elements(self, out: &mut Vec<u8>) {
        let mut elements = Elements::of(self.document.as_bytes());
        // Elements that follow each other are copied at once.
        let mut run = elements.rest();
        loop {
            let element = elements.rest();
            match elements.next() {
                Some(Some((name, _))) if is_shown(name) => {}
                // The end of this element is unknown, so the rest is appended whole.
                Some(None) => return out.extend_from_slice(run),
                next => {
                    out.extend_from_slice(&run[..run.len() - element.len()]);
                    run = elements.rest();
                    if next.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns whether the record can be read.
    pub(super) fn is_readable(self) -> bool {
        row(self.document, self.user).is_ok()
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

/// Returns whether a page shows the field of this name, or is ordered by it. Fields of other names are not read.
fn is_shown(name: &[u8]) -> bool {
    matches!(
        name,
        b"_id"
            | b"key"
            | b"fileName"
            | b"contentType"
            | b"sha256"
            | b"caption"
            | b"preview"
            | b"thumbHash"
            | b"takenAt"
            | b"takenSort"
            | b"camera"
            | b"location"
            | b"pictures"
            | b"size"
            | b"width"
            | b"height"
            | b"createdAt"
            | b"uploadedAt"
    )
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
    /// Reads a field that is shown, or returns the name of one that is malformed.
    fn read(&mut self, name: &[u8], value: Value<'a>) -> Result<(), &'static str> {
        if !is_shown(name) {
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    use mongodb::bson::{RawDocumentBuf, rawdoc};

    use super::*;

    fn shown_elements(document: &RawDocument) -> Vec<u8> {
        let mut elements = Vec::new();
        GalleryRecord { user: UserId::new(), document }.push_shown_elements(&mut elements);
        elements
    }

    /// Returns the document without the fields that are not shown.
    fn shown_fields(document: &RawDocument) -> RawDocumentBuf {
        let mut shown = RawDocumentBuf::new();
        for (name, value) in document.iter().map(Result::unwrap).filter(|(name, _)| is_shown(name.as_str().as_bytes())) {
            shown.append(name, value);
        }
        shown
    }

    #[test]
    fn only_shown_elements_are_appended() {
        for document in [
            rawdoc! {},
            rawdoc! { "step": "a" },
            rawdoc! { "_id": "a", "key": "b" },
            rawdoc! { "step": "a", "_id": "b", "key": "c", "rendering": { "since": 1_i64 }, "captureRead": true, "size": 2_i64 },
            rawdoc! {
                "_id": "a", "step": "b", "key": "c", "state": "ready", "pictures": [{ "width": 1 }], "size": 2_i64, "live": true
            },
        ] {
            assert_eq!(shown_elements(&document), shown_elements(&shown_fields(&document)), "{document:?}");
            let length = shown_fields(&document).as_bytes().len();
            // Without the length of the document, which has four bytes, and the zero at its end.
            assert_eq!(shown_elements(&document).len(), length - 5, "{document:?}");
        }
    }

    #[test]
    fn all_elements_are_appended_after_one_of_another_type() {
        let [one, other] = [1.5, 2.5].map(|hidden| rawdoc! { "step": "a", "_id": "b", "hidden": hidden, "key": "c" });
        assert_ne!(shown_elements(&one), shown_elements(&other));
        assert_eq!(shown_elements(&one).len(), one.as_bytes().len() - 4 - b"\x02step\0\x02\0\0\0a\0".len());
    }
}
