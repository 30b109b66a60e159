//! Images and URLs as clients see them, shared by the resources that answer with them.

use std::collections::BTreeMap;

use poem::Request;
use poem_openapi::{Enum, Object};
use time::OffsetDateTime;

use crate::{
    domain::{gallery::Shown, uploads::Ticket},
    model::{self, IdempotencyKey, ImageId, InvalidIdempotencyKey},
    store::{StoreError, objects::PresignedPut},
};

use super::problem::{Code, Problem};

/// The request's time: read once, where it enters.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Times go out in whole seconds.
pub fn whole_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

/// An identifier in a path. What cannot be one names nothing.
///
/// # Errors
/// The 404 of an unknown id.
pub fn image_id(text: &str) -> Result<ImageId, Problem> {
    ImageId::parse(text).ok_or_else(Problem::not_found)
}

/// A key of the caller's.
///
/// # Errors
/// A 400 that names where it stood.
pub fn idempotency_key(text: &str, member: &str) -> Result<IdempotencyKey, Problem> {
    let refused = |error: InvalidIdempotencyKey| {
        Problem::new(Code::InvalidRequest, "The idempotency key is not valid.").field(member, error.to_string())
    };
    IdempotencyKey::parse(text).map_err(refused)
}

/// The key of a request's header. poem leaves out a value that is not ASCII: without its key a repeat would be another request.
///
/// # Errors
/// A 400 for what is no key.
pub fn idempotency_header(request: &Request, key: Option<&str>) -> Result<Option<IdempotencyKey>, Problem> {
    const NAME: &str = "Idempotency-Key";
    if key.is_none() && request.headers().contains_key(NAME) {
        return idempotency_key("", NAME).map(Some);
    }
    key.map(|text| idempotency_key(text, NAME)).transpose()
}

/// A ready image.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct Image {
    /// Opaque. The cache key for clients: the bytes behind an id never change.
    pub id: String,
    /// The name it was uploaded under, cleaned.
    pub file_name: String,
    /// Proved by the bytes.
    pub content_type: String,
    /// Bytes.
    pub size: u64,
    /// Base64 of the SHA-256 of the bytes; absent when they came in parts.
    pub sha256: Option<String>,
    /// Pixels across, as displayed: EXIF orientation and HEIF rotation applied.
    pub width: u32,
    /// Pixels down, as displayed.
    pub height: u32,
    /// The owner's words.
    pub caption: Option<String>,
    /// A presigned GET. The same for repeated reads within a window, so that caches hit; at least half of its life is
    /// left. Fetch it without the access token. Where a page also reads the bytes of an image that it shows, its `<img>` needs
    /// `crossorigin="anonymous"`: the browser keeps one answer for both.
    pub url: String,
    /// A presigned GET of its preview, if it has one; works as long as `url`.
    pub preview_url: Option<String>,
    /// Base64 of its ThumbHash, as it was declared.
    pub thumb_hash: Option<String>,
    /// When `url` stops working; read the image again for a fresh one.
    pub url_expires_at: OffsetDateTime,
    /// When the upload was issued.
    pub created_at: OffsetDateTime,
    /// When it was confirmed: the gallery's order.
    pub uploaded_at: OffsetDateTime,
}

impl From<Shown> for Image {
    fn from(Shown { image, url, preview }: Shown) -> Self {
        let size = image.dimensions.unwrap_or(model::Dimensions { width: 0, height: 0 });
        Self {
            id: image.id.to_string(),
            file_name: image.upload.file_name.as_str().to_owned(),
            content_type: image.upload.content_type.to_string(),
            size: image.upload.size,
            sha256: image.upload.sha256.map(|digest| digest.to_string()),
            width: size.width,
            height: size.height,
            caption: image.upload.caption.map(|caption| caption.as_str().to_owned()),
            url: url.url,
            preview_url: preview.map(|url| url.url),
            thumb_hash: image.upload.thumb_hash.map(|hash| hash.to_string()),
            url_expires_at: whole_seconds(url.expires_at),
            created_at: whole_seconds(image.created_at),
            uploaded_at: whole_seconds(image.uploaded_at.unwrap_or(image.created_at)),
        }
    }
}

/// A request to S3, to be sent exactly as it is described.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct PresignedRequest {
    /// The HTTP method: `PUT`.
    pub method: String,
    /// The whole URL. Send no access token with it.
    pub url: String,
    /// Exactly the headers to send, besides those every HTTP client sends by itself (host, content-length). The length
    /// of the body is signed too.
    pub headers: BTreeMap<String, String>,
    /// S3 begins no request with this URL after this time; one that has begun may take longer.
    pub expires_at: OffsetDateTime,
    /// Seconds until then.
    pub expires_in: u64,
}

/// Where an upload stands. `pending`: PUT the bytes, then confirm. `ready`: nothing is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum TicketState {
    /// PUT the bytes, then confirm.
    Pending,
    /// Nothing is left to do.
    Ready,
}

/// What to do to get an image stored.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct UploadTicket {
    /// Names the image from now on.
    pub id: String,
    /// Where the upload stands.
    pub state: TicketState,
    /// The end of the upload, not of its URL: until then the URL can be renewed. Only while pending.
    pub expires_at: Option<OffsetDateTime>,
    /// The PUT of the bytes. Only while pending.
    pub upload: Option<PresignedRequest>,
    /// The PUT of the preview, when one was declared. Only while pending.
    pub preview_upload: Option<PresignedRequest>,
    /// The image. Only when ready.
    pub image: Option<Image>,
}

impl UploadTicket {
    /// The ticket as clients see it; `show` gives a ready image its URL.
    ///
    /// # Errors
    /// What `show` answers.
    pub fn new(
        ticket: Ticket,
        now: OffsetDateTime,
        show: impl FnOnce(model::Image) -> Result<Shown, StoreError>,
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
    /// A PUT as clients see it.
    pub fn new(put: PresignedPut, now: OffsetDateTime) -> Self {
        let left = (put.signed.expires_at - whole_seconds(now)).whole_seconds();
        Self {
            method: "PUT".to_owned(),
            url: put.signed.url,
            headers: put.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            expires_at: put.signed.expires_at,
            expires_in: u64::try_from(left).unwrap_or(0),
        }
    }
}
