//! The document of an image and its conversion in both directions. Stored field names must not change (docs/database.md).

use mongodb::bson::{Bson, DateTime, Document, RawDocument, doc};
use serde::{Deserialize, Serialize};

use super::{
    super::{StoreError, datetime, instant, integer, sort_time},
    renderings,
};
use crate::model::{
    Camera, Caption, Capture, ContentType, Dimensions, FileName, Idempotency, IdempotencyKey, Image, ImageEnd, ImageId,
    ImageState, ImageStatus, KeyOwner, Location, PartChecksums, PartLayout, Preview, QuotaCounter, ReadyImage, Rejection,
    Reservation, Sha256, StepId, TakenAt, ThumbHash, Upload, UploadKind, UserId,
};

/// Stored names of the kinds of uploads.
mod kind {
    pub(super) const PUT: &str = "single";
    pub(super) const PARTS: &str = "multipart";
    pub(super) const FORM: &str = "form";
    pub(super) const UNDECLARED_PARTS: &str = "parts";
}

/// A record of `images`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageDoc {
    #[serde(rename = "_id")]
    id: String,
    user: String,
    key: String,
    state: String,
    /// Present while pending or ready; the unique index on bytes covers such images only.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<bool>,
    file_name: String,
    content_type: String,
    /// Content types that earlier declarations of the upload had.
    #[serde(rename = "formerTypes", default, skip_serializing_if = "Vec::is_empty")]
    earlier_types: Vec<String>,
    size: i64,
    /// A name in [`kind`]; [`kind::PUT`] when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// Digest of the bytes of a single PUT, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Size of a part in bytes; of uploads in parts of declared lengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    part_size: Option<i64>,
    /// Kind of the checksums of parts; of uploads in parts of declared lengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    part_checksums: Option<String>,
    /// S3's id of a multipart upload, recorded once S3 has opened the upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caption: Option<String>,
    /// The declared preview while pending; once ready, the verified one.
    #[serde(skip_serializing_if = "Option::is_none")]
    preview: Option<PreviewDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thumb_hash: Option<String>,
    /// Bytes that were reserved; `size` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation: Option<ReservationDoc>,
    /// The latest step of the reservation.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_step: Option<String>,
    /// Keys besides `key` that are cleared once no URL for them is valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    strays: Vec<String>,
    /// Unique per user; removed when the upload fails or is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    idem_key: Option<String>,
    /// The digest of the request that came with the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    idem_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<String>,
    /// A separate field, so that a server of an earlier version can still read `rejection`.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_cause: Option<String>,
    /// State of the tombstone before it was purged.
    #[serde(skip_serializing_if = "Option::is_none")]
    gone_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<i64>,
    /// RFC 3339; without an offset if it is unknown. The declared time while pending; once ready, that of the file if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken_at: Option<String>,
    /// The local time of `taken_at` as if it were UTC, else `created_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken_sort: Option<DateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    camera: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<LocationDoc>,
    /// The request for its pictures ([`renderings`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    rendering: Option<Bson>,
    /// Sizes of the pictures that a worker made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pictures: Option<Bson>,
    created_at: DateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    uploaded_at: Option<DateTime>,
    expires_at: DateTime,
    #[serde(rename = "urlsDieAt")]
    urls_expire_at: DateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts_end_at: Option<DateTime>,
    /// Time at which the sweeper processes it next; absent if the sweeper has nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) due: Option<DateTime>,
}

/// The reservation of the image, while its state alone does not determine its share of the user's counters.
#[derive(Debug, Serialize, Deserialize)]
struct ReservationDoc {
    bytes: i64,
    place: String,
    due: DateTime,
}

impl ReservationDoc {
    fn new(reservation: Reservation) -> Self {
        Self { bytes: integer(reservation.bytes), place: reservation.counter.as_str().to_owned(), due: datetime(reservation.due) }
    }

    /// Converts the stored reservation; `None` if it is damaged.
    fn into_reservation(self) -> Option<Reservation> {
        Some(Reservation {
            bytes: u64::try_from(self.bytes).ok()?,
            counter: QuotaCounter::parse(&self.place)?,
            due: instant(self.due),
        })
    }
}

/// The preview; its key is that of the image with the suffix `-preview`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PreviewDoc {
    content_type: String,
    size: i64,
    sha256: String,
}

impl PreviewDoc {
    pub(super) fn new(preview: Preview) -> Self {
        Self {
            content_type: preview.content_type.as_str().to_owned(),
            size: integer(preview.size),
            sha256: preview.sha256.to_string(),
        }
    }

    /// Converts the stored preview; `None` if it is damaged.
    fn preview(&self) -> Option<Preview> {
        Some(Preview {
            content_type: ContentType::parse(&self.content_type)?,
            size: u64::try_from(self.size).ok()?,
            sha256: Sha256::parse(&self.sha256).ok()?,
        })
    }
}

/// Degrees north and east.
#[derive(Debug, Serialize, Deserialize)]
struct LocationDoc {
    latitude: f64,
    longitude: f64,
}

/// Returns the fields of a capture: `captureRead` alone for an empty one, so that the file is not read again.
pub(in crate::store) fn capture_fields(capture: &Capture) -> Document {
    let mut fields = Document::new();
    if let Some(taken_at) = capture.taken_at {
        fields.insert("takenAt", taken_at.to_string());
    }
    if let Some(camera) = &capture.camera {
        fields.insert("camera", camera.as_str());
    }
    if let Some(location) = capture.location {
        fields.insert("location", doc! { "latitude": location.latitude(), "longitude": location.longitude() });
    }
    if fields.is_empty() {
        fields.insert("captureRead", true);
    }
    fields
}

impl ImageDoc {
    /// Returns the document of a new upload.
    pub(super) fn pending(image: &Image, due: DateTime) -> Self {
        let upload = &image.upload;
        Self {
            id: image.id.to_string(),
            user: image.user.to_string(),
            key: image.key.to_string(),
            state: ImageState::Pending.as_str().to_owned(),
            live: Some(true),
            file_name: upload.file_name.as_str().to_owned(),
            content_type: upload.content_type.as_str().to_owned(),
            earlier_types: Vec::new(),
            size: integer(upload.size),
            kind: Some(kind_name(upload.kind).to_owned()),
            sha256: upload.sha256().map(|digest| digest.to_string()),
            part_size: upload.part_layout().map(|layout| integer(layout.part_size())),
            part_checksums: upload.part_layout().map(|layout| layout.checksums().as_str().to_owned()),
            upload_id: image.upload_id.clone(),
            caption: upload.caption.as_ref().map(|caption| caption.as_str().to_owned()),
            preview: upload.preview().map(PreviewDoc::new),
            thumb_hash: upload.thumb_hash.as_ref().map(ToString::to_string),
            taken_at: upload.taken_at.map(|taken_at| taken_at.to_string()),
            reserved: (image.reserved != upload.size || upload.is_size_bound()).then(|| integer(image.reserved)),
            reservation: image.reservation.map(ReservationDoc::new),
            last_step: None,
            strays: Vec::new(),
            idem_key: image.idempotency.as_ref().map(|known| known.key.as_str().to_owned()),
            idem_hash: image.idempotency.as_ref().map(|known| known.request.to_string()),
            rejection: None,
            rejection_cause: None,
            gone_from: None,
            etag: None,
            width: None,
            height: None,
            taken_sort: None,
            camera: None,
            location: None,
            rendering: None,
            pictures: None,
            created_at: datetime(image.created_at),
            uploaded_at: None,
            expires_at: datetime(image.expires_at),
            urls_expire_at: datetime(image.urls_expire_at),
            attempts_end_at: None,
            due: Some(due),
        }
    }

    /// Converts the document; the error names the damaged field.
    pub(super) fn into_image(self) -> Result<Image, StoreError> {
        let corrupt = |field| StoreError::Corrupt { collection: "images", id: self.id.clone(), field };
        let size = u64::try_from(self.size).map_err(|_| corrupt("size"))?;
        let id = ImageId::parse(&self.id).ok_or_else(|| corrupt("_id"))?;
        let user = UserId::parse(&self.user).ok_or_else(|| corrupt("user"))?;
        // Objects at these keys are served and deleted: a key of any other form belongs to another image, or another program.
        let owner = KeyOwner { user, image: id };
        let leftover_keys: Option<_> = self.strays.iter().map(|key| owner.own_key(key)).collect();
        Ok(Image {
            id,
            user,
            status: self.status().map_err(corrupt)?,
            upload: Upload {
                file_name: FileName::parse(&self.file_name).map_err(|_| corrupt("fileName"))?,
                content_type: ContentType::parse(&self.content_type).ok_or_else(|| corrupt("contentType"))?,
                size,
                kind: self.kind(size).map_err(corrupt)?,
                caption: Caption::parse(self.caption.as_deref().unwrap_or_default()).map_err(|_| corrupt("caption"))?,
                thumb_hash: self.thumb_hash.as_deref().and_then(|text| ThumbHash::parse(text).ok()),
                taken_at: self.declared_taken_at().map_err(corrupt)?,
            },
            // Types that this version does not know are left out: confirm then accepts no object of such a type.
            earlier_types: self.earlier_types.iter().filter_map(|text| ContentType::parse(text)).collect(),
            reserved: self.reserved.and_then(|n| u64::try_from(n).ok()).unwrap_or(size),
            reservation: match self.reservation {
                Some(reservation) => Some(reservation.into_reservation().ok_or_else(|| corrupt("reservation"))?),
                None => None,
            },
            taken_sort: self.taken_sort.and_then(sort_time),
            rendering: renderings::read(self.rendering.as_ref(), self.pictures.as_ref()),
            last_step: self
                .last_step
                .as_deref()
                .map(|text| StepId::parse(text).ok_or_else(|| corrupt("lastStep")))
                .transpose()?,
            leftover_keys: leftover_keys.ok_or_else(|| corrupt("strays"))?,
            idempotency: self.idem_key.as_deref().zip(self.idem_hash.as_deref()).and_then(|(key, hash)| {
                Some(Idempotency { key: IdempotencyKey::parse(key).ok()?, request: Sha256::parse(hash).ok()? })
            }),
            upload_id: self.upload_id,
            created_at: instant(self.created_at),
            expires_at: instant(self.expires_at),
            urls_expire_at: instant(self.urls_expire_at),
            attempts_end_at: self.attempts_end_at.map(instant),
            key: owner.own_key(&self.key).ok_or_else(|| corrupt("key"))?,
        })
    }

    /// Returns the kind of the upload, or the name of the field that cannot be read.
    fn kind(&self, size: u64) -> Result<UploadKind, &'static str> {
        let is_purged = self.state == ImageState::Purged.as_str();
        match self.kind.as_deref().unwrap_or(kind::PUT) {
            // A record that `tombstone` inserted, so that a late insertion fails, has no declaration.
            kind::PUT if is_purged && self.sha256.is_none() => Ok(UploadKind::UndeclaredParts),
            kind::PUT => {
                let sha256 = self.sha256.as_deref().and_then(|text| Sha256::parse(text).ok()).ok_or("sha256")?;
                let preview = self.preview.as_ref().map(|preview| preview.preview().ok_or("preview")).transpose()?;
                Ok(UploadKind::Put { sha256, preview })
            }
            kind::PARTS => {
                let part_size = self.part_size.and_then(|n| u64::try_from(n).ok()).ok_or("partSize")?;
                let checksums = self.part_checksums.as_deref().and_then(PartChecksums::parse).ok_or("partChecksums")?;
                PartLayout::new(size, part_size, checksums).ok_or("partSize").map(UploadKind::Parts)
            }
            kind::FORM => Ok(UploadKind::Form),
            kind::UNDECLARED_PARTS => Ok(UploadKind::UndeclaredParts),
            _ => Err("kind"),
        }
    }

    /// Returns the declared time taken. Confirm uses that of a pending upload, so an unreadable one is an error: the field's name.
    fn declared_taken_at(&self) -> Result<Option<TakenAt>, &'static str> {
        let Some(text) = self.taken_at.as_deref() else { return Ok(None) };
        match TakenAt::parse(text) {
            None if self.state == ImageState::Pending.as_str() => Err("takenAt"),
            parsed => Ok(parsed),
        }
    }

    /// Returns the state with the properties that belong to it; the error is the damaged field.
    fn status(&self) -> Result<ImageStatus, &'static str> {
        match ImageState::parse(&self.state).ok_or("state")? {
            ImageState::Pending => Ok(ImageStatus::Pending),
            ImageState::Ready => Ok(ImageStatus::Ready(self.ready())),
            ImageState::Purged => {
                let ended_as = self.gone_from.as_deref().and_then(ImageState::parse).unwrap_or(ImageState::Deleting);
                Ok(ImageStatus::Purged(self.end(ended_as)?))
            }
            tombstone => Ok(ImageStatus::Tombstone(self.end(tombstone)?)),
        }
    }

    /// Returns the properties of a ready image.
    fn ready(&self) -> ReadyImage {
        let pixels = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        ReadyImage {
            etag: self.etag.clone().unwrap_or_default(),
            dimensions: Dimensions { width: pixels(self.width), height: pixels(self.height) },
            uploaded_at: instant(self.uploaded_at.unwrap_or(self.created_at)),
            capture: Capture {
                taken_at: self.taken_at.as_deref().and_then(TakenAt::parse),
                camera: self.camera.as_deref().and_then(Camera::parse),
                location: self.location.as_ref().and_then(|degrees| Location::new(degrees.latitude, degrees.longitude)),
            },
        }
    }

    /// Returns the reason why the image became a tombstone; the error is the damaged field.
    fn end(&self, state: ImageState) -> Result<ImageEnd, &'static str> {
        match state {
            ImageState::Rejected => {
                let parse = |reason: &str| Rejection::parse(reason, self.rejection_cause.as_deref()).ok_or("rejection");
                Ok(ImageEnd::Rejected(self.rejection.as_deref().map_or(Ok(Rejection::ObjectMismatch), parse)?))
            }
            ImageState::Expired => Ok(ImageEnd::Expired),
            ImageState::Pending | ImageState::Ready | ImageState::Deleting | ImageState::Purged => {
                Ok(ImageEnd::Deleted { was_ready: self.uploaded_at.is_some() })
            }
        }
    }
}

/// Returns the image of a record.
///
/// # Errors
/// [`StoreError::Corrupt`] if any field is damaged.
pub(super) fn decode(record: &RawDocument) -> Result<Image, StoreError> {
    let id = || record.get_str("_id").unwrap_or_default().to_owned();
    mongodb::bson::deserialize_from_slice::<ImageDoc>(record.as_bytes())
        .map_err(|_| StoreError::Corrupt { collection: "images", id: id(), field: "a field" })
        .and_then(ImageDoc::into_image)
}

/// Returns the image of a record. An unreadable record is logged, and does not make the rest of a listing unreadable.
pub(super) fn readable(record: &RawDocument) -> Option<Image> {
    decode(record).inspect_err(|error| tracing::error!(%error, "failed to read an image's record")).ok()
}

/// Returns the stored name of an upload's kind.
fn kind_name(kind: UploadKind) -> &'static str {
    match kind {
        UploadKind::Put { .. } => kind::PUT,
        UploadKind::Parts(_) => kind::PARTS,
        UploadKind::Form => kind::FORM,
        UploadKind::UndeclaredParts => kind::UNDECLARED_PARTS,
    }
}
