//! `/api/images/multipart` and `/api/images/{id}/parts`: multipart uploads.

use poem::Request;
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Header, Path},
    payload::Json,
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Tag,
    bearer::{Application, Signed},
    body::{self, Body},
    problem::{Code, Problem},
    view::{self, PresignedRequest, idempotency_header, image_id, whole_seconds},
};
use crate::{
    domain::multipart::{DeclaredMultipart, RequestedPart},
    model,
};

/// Problems of each operation, in addition to those that follow from its shape.
pub const PROBLEMS: &[(&str, &[Code])] = &[
    (
        "create_multipart_upload",
        &[
            Code::SessionEnded,
            Code::QuotaExceeded,
            Code::TooManyPending,
            Code::InvalidSize,
            Code::FileTooLarge,
            Code::TypeNotAllowed,
            Code::InvalidFileName,
            Code::InvalidPartSize,
            Code::InvalidCaption,
            Code::InvalidThumbHash,
            Code::IdempotencyKeyReused,
            Code::NotSupportedByStore,
        ],
    ),
    (
        "sign_parts",
        &[
            Code::NotFound,
            Code::NotMultipart,
            Code::UploadComplete,
            Code::UploadExpired,
            Code::InvalidParts,
            Code::InvalidSha256,
            Code::ObjectMismatch,
            Code::ContentMismatch,
            Code::NotSupportedByStore,
        ],
    ),
    (
        "list_parts",
        &[
            Code::NotFound,
            Code::NotMultipart,
            Code::UploadExpired,
            Code::ObjectMismatch,
            Code::ContentMismatch,
            Code::NotSupportedByStore,
        ],
    ),
];

/// Calls to S3 that listing the parts of an upload may take: a thousand of at most 10,000 in each answer.
pub(super) const LISTING: u32 = 10;

/// The operations.
pub struct Multipart;

/// What S3 verifies of each part. `none`: its length. `sha256`: its digest too, which is sent with the request for its URL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "lowercase")]
// Read as a text first: of another JSON type, serde would say that the body is no JSON.
#[serde(try_from = "String")]
enum PartChecksums {
    /// The length and the SHA-256, which is sent with the request for the part's URL.
    Sha256,
    /// The length.
    #[default]
    None,
}

impl TryFrom<String> for PartChecksums {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "sha256" => Ok(Self::Sha256),
            "none" => Ok(Self::None),
            _ => Err("expected sha256 or none"),
        }
    }
}

impl From<PartChecksums> for model::PartChecksums {
    fn from(asked: PartChecksums) -> Self {
        match asked {
            PartChecksums::Sha256 => Self::Sha256,
            PartChecksums::None => Self::None,
        }
    }
}

/// A file to upload as a multipart upload.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields, skip_serializing_if_is_none)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewMultipart {
    /// The name to show and to save under. A path before it and control and bidirectional-override characters are removed, and
    /// a name of more than 255 bytes of UTF-8 is shortened, keeping its extension.
    file_name: String,
    /// The media type, without parameters: its registered name or a common alias (`image/jpg`). The uploaded bytes must be of
    /// this type.
    content_type: String,
    /// Size of the whole file, in bytes. The parts must add up to exactly this size.
    #[serde(deserialize_with = "body::integer")]
    size: i64,
    /// Size of every part but the last, from 5 MiB to 5 GiB; at most 10000 parts. The server chooses it when left out.
    #[serde(default, deserialize_with = "body::present_integer")]
    part_size: Option<i64>,
    /// What S3 verifies of each part; `none` when left out. It cannot be changed later.
    #[serde(default, deserialize_with = "body::present")]
    part_checksums: Option<PartChecksums>,
    /// A caption of at most 1000 characters.
    #[serde(default, deserialize_with = "body::present")]
    caption: Option<String>,
    /// Base64 of the image's ThumbHash, at most 32 bytes: returned unchanged, as a placeholder while the image loads.
    #[serde(default, deserialize_with = "body::present")]
    thumb_hash: Option<String>,
}

/// An open multipart upload.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct MultipartTicket {
    /// Identifies the upload, and later the image.
    id: String,
    /// Size of every part but the last, in bytes; the last part is the rest.
    part_size: u64,
    /// Number of parts, which are numbered from 1.
    part_count: u32,
    /// When the upload expires; until then its parts' URLs can be requested.
    expires_at: OffsetDateTime,
}

#[derive(ApiResponse)]
enum MultipartResponse {
    /// The upload that was opened with this idempotency key: continue with it.
    #[oai(status = 200)]
    Known(Json<MultipartTicket>),
    /// The upload is open: request the parts' URLs, PUT the parts, then confirm.
    #[oai(status = 201)]
    Opened(Json<MultipartTicket>),
}

/// A part to request a URL for.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields, skip_serializing_if_is_none)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PartToSign {
    /// From 1 to the upload's `partCount`.
    #[serde(deserialize_with = "body::integer")]
    part_number: i64,
    /// Base64 (not hex) of the SHA-256 of the part's bytes. Required if `partChecksums` is `sha256`, else not allowed.
    #[serde(default, deserialize_with = "body::present")]
    sha256: Option<String>,
}

/// Parts to request URLs for.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PartsToSign {
    /// Any parts of the upload, at most 1000.
    #[serde(deserialize_with = "body::objects")]
    parts: Vec<PartToSign>,
}

/// A part's URL.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct SignedPart {
    /// The part's number.
    part_number: u32,
    /// The PUT of the part.
    request: PresignedRequest,
}

/// The parts' URLs.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct SignedParts {
    /// In the order of the request.
    parts: Vec<SignedPart>,
}

/// A part that S3 has.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct StoredPart {
    /// The part's number.
    part_number: u32,
    /// Size in bytes.
    size: u64,
}

/// The parts that S3 has.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct StoredParts {
    /// In the order of their numbers.
    parts: Vec<StoredPart>,
}

#[OpenApi(prefix_path = "/api/images", tag = "Tag::Uploads")]
impl Multipart {
    /// Open a multipart upload
    ///
    /// For large files and unreliable networks. Cut the file into parts of `partSize` bytes, the last being the rest; request
    /// the parts' URLs when they are needed, PUT the parts in any order and in parallel, then confirm. The image has no
    /// `sha256` and is not compared with others, because S3's digest of the parts is not the digest of the file.
    #[oai(path = "/multipart", method = "post", operation_id = "create_multipart_upload")]
    async fn create(
        &self,
        app: Application<'_>,
        caller: Signed,
        request: &Request,
        /// 1 to 255 printable ASCII characters, such as a UUID: a repeat with the same key and body within 24 hours gets the same
        /// upload.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<String>>,
        body: Body<NewMultipart>,
    ) -> Result<MultipartResponse, Problem> {
        app.valet.throttle().count_uploads(caller.0.user, 1)?;
        app.valet.throttle().count_s3_calls(caller.0.user, 1)?;
        let key = idempotency_header(request, key.0.as_deref())?;
        let declared = DeclaredMultipart {
            file_name: &body.0.file_name,
            content_type: &body.0.content_type,
            size: body.0.size,
            part_size: body.0.part_size,
            part_checksums: body.0.part_checksums.unwrap_or_default().into(),
            caption: body.0.caption.as_deref(),
            thumb_hash: body.0.thumb_hash.as_deref(),
            key: key.as_ref(),
        };
        let (image, multipart, opened) = app.valet.issue_multipart(caller.0.user, &declared, view::now()).await?;
        let ticket = Json(MultipartTicket {
            id: image.id.to_string(),
            part_size: multipart.part_size(),
            part_count: multipart.part_count(),
            expires_at: whole_seconds(image.expires_at),
        });
        Ok(if opened { MultipartResponse::Opened(ticket) } else { MultipartResponse::Known(ticket) })
    }

    /// Get URLs for parts
    ///
    /// Each URL accepts exactly its part: the length is signed, and the digest if the upload was opened with checksums. Request
    /// a new URL for a part whose URL has expired or whose bytes have changed; of several PUTs of a part, the last counts.
    ///
    /// After a part's PUT: on **200**, the part is done. On **409, 5xx or no answer**, repeat the PUT. On **403**, request a
    /// new URL once. On **404**, list the parts. On **400**, the bytes do not have the signed digest: request a URL with theirs.
    #[oai(path = "/:id/parts", method = "post", operation_id = "sign_parts")]
    async fn sign(
        &self,
        app: Application<'_>,
        caller: Signed,
        id: Path<String>,
        body: Body<PartsToSign>,
    ) -> Result<Json<SignedParts>, Problem> {
        let now = view::now();
        let asked: Vec<_> =
            body.0.parts.iter().map(|part| RequestedPart { number: part.part_number, sha256: part.sha256.as_deref() }).collect();
        app.valet.throttle().count_urls(caller.0.user, u32::try_from(asked.len()).unwrap_or(u32::MAX))?;
        let signed = app.valet.sign_parts(caller.0.user, image_id(&id)?, &asked, now).await?;
        let shown = |(part_number, put)| SignedPart { part_number, request: PresignedRequest::new(put, now) };
        Ok(Json(SignedParts { parts: signed.into_iter().map(shown).collect() }))
    }

    /// List the parts that have arrived
    ///
    /// For resuming after a lost connection or a restart: PUT the parts that are not listed, then confirm.
    #[oai(path = "/:id/parts", method = "get", operation_id = "list_parts")]
    async fn list(&self, app: Application<'_>, caller: Signed, id: Path<String>) -> Result<Json<StoredParts>, Problem> {
        app.valet.throttle().count_s3_calls(caller.0.user, LISTING)?;
        let stored = app.valet.stored_parts(caller.0.user, image_id(&id)?).await?;
        let shown = |(part_number, size)| StoredPart { part_number, size };
        Ok(Json(StoredParts { parts: stored.into_iter().map(shown).collect() }))
    }
}
