//! Response types that several resources share: images, tickets and presigned requests.

use std::collections::BTreeMap;

use poem_openapi::{Enum, Object};
use time::OffsetDateTime;

use crate::{
    domain::{
        StoreError,
        gallery::{PresignedImage, PreviewUrl},
        uploads::{PresignedPut, Ticket},
    },
    model,
};

/// Returns the time without its fraction of a second, as the API shows it.
pub fn whole_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

/// A ready image.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct GalleryImage {
    /// Opaque. Use it as a cache key: the bytes of an image never change.
    pub id: String,
    /// The declared name, cleaned.
    pub file_name: String,
    /// The media type, verified from the content.
    pub content_type: String,
    /// Size in bytes.
    pub size: u64,
    /// Base64 of the SHA-256 of the bytes; absent after a multipart upload.
    pub sha256: Option<String>,
    /// Width in pixels, as displayed: with EXIF orientation and HEIF rotation applied.
    pub width: u32,
    /// Height in pixels, as displayed.
    pub height: u32,
    /// The caption.
    pub caption: Option<String>,
    /// A presigned GET URL. Repeated reads return the same URL for a while, so that caches hit; at least half of its lifetime is
    /// left. Fetch it without the access token. Where a page also reads the bytes of an image that it shows, its `<img>` needs
    /// `crossorigin="anonymous"`, because the browser caches one response for both.
    pub url: String,
    /// A signed GET URL of the preview, if there is one: the client's, else the smallest of `previews`. Expires with `url`.
    pub preview_url: Option<String>,
    /// Pictures in smaller sizes, the smallest first, where the operator has a server that makes them. Their URLs expire with
    /// `url`.
    pub previews: Option<Vec<ImagePreview>>,
    /// Base64 of the ThumbHash: as declared, or else of the pictures that a worker made.
    pub thumb_hash: Option<String>,
    /// When the image was taken, by the clocks at that place: RFC 3339 with the offset from UTC (`2024-12-21T23:39:24+01:00`), or
    /// without one (`2024-12-21T23:39:24`) if the camera recorded none. An offset is never guessed: show the time as it is, and
    /// do not convert it. Absent if neither the file nor its declaration says it.
    pub taken_at: Option<String>,
    /// Make and model of the camera, if the file names them.
    pub camera: Option<String>,
    /// The position where the image was taken. Only if the operator has turned it on (`KEEP_LOCATION`) and the file says it.
    pub location: Option<ImageLocation>,
    /// When `url` expires; read the image again for a new one.
    pub url_expires_at: OffsetDateTime,
    /// When the upload was opened.
    pub created_at: OffsetDateTime,
    /// When the upload was confirmed; the gallery is in this order, unless another is requested.
    pub uploaded_at: OffsetDateTime,
}

/// A picture of an image in a smaller size.
#[derive(Object)]
pub struct ImagePreview {
    /// A signed GET URL. Fetch it without the access token.
    pub url: String,
    /// Width in pixels, to the nearest.
    pub width: u32,
    /// Height in pixels, to the nearest.
    pub height: u32,
}

impl From<PreviewUrl> for ImagePreview {
    fn from(PreviewUrl { url, size }: PreviewUrl) -> Self {
        Self { url, width: size.width, height: size.height }
    }
}

/// A position on earth (WGS 84), in degrees.
#[derive(Object)]
pub struct ImageLocation {
    /// Degrees north of the equator; negative in the south.
    pub latitude: f64,
    /// Degrees east of Greenwich; negative in the west.
    pub longitude: f64,
}

impl From<model::Location> for ImageLocation {
    fn from(location: model::Location) -> Self {
        Self { latitude: location.latitude(), longitude: location.longitude() }
    }
}

impl From<PresignedImage> for GalleryImage {
    fn from(PresignedImage { image, url, preview, previews }: PresignedImage) -> Self {
        let (size, uploaded_at, capture) = match image.ready() {
            Some(ready) => (ready.dimensions, ready.uploaded_at, ready.capture.clone()),
            None => (model::Dimensions { width: 0, height: 0 }, image.created_at, model::Capture::default()),
        };
        Self {
            id: image.id.to_string(),
            file_name: image.upload.file_name.as_str().to_owned(),
            content_type: image.upload.content_type.to_string(),
            size: image.upload.size,
            sha256: image.upload.sha256().map(|digest| digest.to_string()),
            width: size.width,
            height: size.height,
            caption: image.upload.caption.map(|caption| caption.as_str().to_owned()),
            url: url.url,
            preview_url: preview.map(|url| url.url),
            previews: (!previews.is_empty()).then(|| previews.into_iter().map(ImagePreview::from).collect()),
            thumb_hash: image.upload.thumb_hash.map(|hash| hash.to_string()),
            taken_at: capture.taken_at.map(|taken_at| taken_at.to_string()),
            camera: capture.camera.map(|camera| camera.to_string()),
            location: capture.location.map(ImageLocation::from),
            url_expires_at: whole_seconds(url.expires_at),
            created_at: whole_seconds(image.created_at),
            uploaded_at: whole_seconds(uploaded_at),
        }
    }
}

/// A presigned request to S3, to be sent exactly as described.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct PresignedRequest {
    /// The HTTP method: `PUT`.
    pub method: String,
    /// The presigned URL. Send no access token with it.
    pub url: String,
    /// Exactly the headers to send, besides those that every HTTP client adds (host, content-length). The length of the body is
    /// signed too.
    pub headers: BTreeMap<String, String>,
    /// S3 refuses requests that start after this time; a request that has started may finish.
    pub expires_at: OffsetDateTime,
    /// Seconds until `expiresAt`.
    pub expires_in: u64,
}

/// State of an upload. `pending`: PUT the bytes, then confirm. `ready`: the image is in the gallery. Treat an unknown state as
/// not ready yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum TicketState {
    /// PUT the bytes, then confirm.
    Pending,
    /// The image is in the gallery.
    Ready,
}

/// An upload, and the requests that complete it.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct UploadTicket {
    /// Identifies the upload, and later the image.
    pub id: String,
    /// State of the upload.
    pub state: TicketState,
    /// When the upload expires, which is later than its URL: until then the URL can be renewed. Only while pending.
    pub expires_at: Option<OffsetDateTime>,
    /// The PUT of the bytes. Only while pending.
    pub upload: Option<PresignedRequest>,
    /// The PUT of the preview, when one was declared. Only while pending.
    pub preview_upload: Option<PresignedRequest>,
    /// The image. Only when ready.
    pub image: Option<GalleryImage>,
}

impl UploadTicket {
    /// Converts a ticket; `show` signs the URLs of a ready image.
    ///
    /// # Errors
    /// Errors of `show`.
    pub fn new(
        ticket: Ticket,
        now: OffsetDateTime,
        show: impl FnOnce(model::Image) -> Result<PresignedImage, StoreError>,
    ) -> Result<Self, StoreError> {
        Ok(match ticket {
            Ticket::Pending(image, puts) => Self {
                id: image.id.to_string(),
                state: TicketState::Pending,
                expires_at: Some(whole_seconds(image.expires_at)),
                upload: Some(PresignedRequest::new(puts.image, now)),
                preview_upload: puts.preview.map(|put| PresignedRequest::new(put, now)),
                image: None,
            },
            Ticket::Ready(image) => {
                let id = image.id.to_string();
                Self {
                    id,
                    state: TicketState::Ready,
                    expires_at: None,
                    upload: None,
                    preview_upload: None,
                    image: Some(show(*image)?.into()),
                }
            }
        })
    }
}

impl PresignedRequest {
    /// Converts a presigned PUT.
    pub fn new(put: PresignedPut, now: OffsetDateTime) -> Self {
        let seconds_left = (put.signed.expires_at - whole_seconds(now)).whole_seconds();
        Self {
            method: "PUT".to_owned(),
            url: put.signed.url,
            headers: put.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            expires_at: put.signed.expires_at,
            expires_in: u64::try_from(seconds_left).unwrap_or(0),
        }
    }
}
