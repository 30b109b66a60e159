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
    authentication::{Application, CurrentUser},
    body::{self, Body},
    operation::{CLOSED, LISTING_DEADLINE, OPENING, Operation, RequestBody, SHORT_DEADLINE, Tag},
    parameters::{parse_idempotency_header, parse_image_id},
    problem::{Code, Problem},
    responses::{PresignedRequest, whole_seconds},
};
use crate::{
    domain::{
        multipart::{DeclaredMultipart, RequestedPart},
        throttle::names::{CALLS, S3, UPLOAD, URLS},
    },
    model,
};

/// Metadata of the operations below.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "create_multipart_upload",
        body: RequestBody::SINGLE,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, UPLOAD, S3],
        problems: &[
            OPENING,
            &[
                Code::SessionEnded,
                Code::InvalidPartSize,
                Code::InvalidThumbHash,
                Code::InvalidTakenAt,
                Code::IdempotencyKeyReused,
            ],
        ],
    },
    Operation {
        id: "sign_parts",
        body: RequestBody::PARTS,
        deadline: LISTING_DEADLINE,
        rate_limits: &[CALLS, URLS],
        problems: &[
            CLOSED,
            &[Code::NotMultipart, Code::UploadComplete, Code::InvalidParts, Code::InvalidSha256, Code::NotSupportedByStore],
        ],
    },
    Operation {
        id: "list_parts",
        body: RequestBody::None,
        deadline: LISTING_DEADLINE,
        rate_limits: &[CALLS, S3],
        problems: &[CLOSED, &[Code::NotMultipart, Code::NotSupportedByStore]],
    },
];

/// Maximum number of calls to S3 for listing the parts of an upload: S3 lists a thousand in a response, of at most 10,000 parts.
pub(super) const LISTING_CALLS: u32 = 10;

/// Handlers of multipart uploads.
pub struct MultipartApi;

/// Properties of each part that S3 verifies. `none`: its length. `sha256`: its digest too, which is sent with the request for its
/// URL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "lowercase")]
// Read as text first: for a value of another JSON type, serde would report that the body is not valid JSON.
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
    fn from(checksums: PartChecksums) -> Self {
        match checksums {
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
    /// Properties of each part that S3 verifies; `none` when left out. It cannot be changed later.
    #[serde(default, deserialize_with = "body::present")]
    part_checksums: Option<PartChecksums>,
    /// A caption of at most 1000 characters.
    #[serde(default, deserialize_with = "body::present")]
    caption: Option<String>,
    /// Base64 of the image's ThumbHash, at most 32 bytes: returned unchanged, as a placeholder while the image loads.
    #[serde(default, deserialize_with = "body::present")]
    thumb_hash: Option<String>,
    /// When the image was taken, for a file that does not say it: the local date and time in whole seconds, with the offset
    /// from UTC if it is known (`2024-12-21T23:39:24+01:00`), else without one (`2024-12-21T23:39:24`). The time in the
    /// file, if it has one, is used instead.
    #[serde(default, deserialize_with = "body::present")]
    taken_at: Option<String>,
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
impl MultipartApi {
    /// Open a multipart upload
    ///
    /// For large files and unreliable networks. Cut the file into parts of `partSize` bytes, the last being the rest; request
    /// the parts' URLs when they are needed, PUT the parts in any order and in parallel, then confirm. The image has no
    /// `sha256` and is not compared with others, because S3's digest of the parts is not the digest of the file.
    #[oai(path = "/multipart", method = "post", operation_id = "create_multipart_upload")]
    async fn create(
        &self,
        app: Application<'_>,
        caller: CurrentUser,
        request: &Request,
        /// 1 to 255 printable ASCII characters, such as a UUID: a repeat with the same key and body within 24 hours gets the same
        /// upload.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<String>>,
        body: Body<NewMultipart>,
    ) -> Result<MultipartResponse, Problem> {
        app.valet.throttle.count_uploads(caller.user, 1)?;
        app.valet.throttle.count_s3_calls(caller.user, 1)?;
        let key = parse_idempotency_header(request, key.0.as_deref())?;
        let declared = DeclaredMultipart {
            file_name: &body.file_name,
            content_type: &body.content_type,
            size: body.size,
            part_size: body.part_size,
            part_checksums: body.part_checksums.unwrap_or_default().into(),
            caption: body.caption.as_deref(),
            thumb_hash: body.thumb_hash.as_deref(),
            taken_at: body.taken_at.as_deref(),
            key: key.as_ref(),
        };
        let opened = app.valet.multipart.open(caller.user, &declared, OffsetDateTime::now_utc()).await?;
        let ticket = Json(MultipartTicket {
            id: opened.image.id.to_string(),
            part_size: opened.layout.part_size(),
            part_count: opened.layout.part_count(),
            expires_at: whole_seconds(opened.image.expires_at),
        });
        Ok(if opened.is_new { MultipartResponse::Opened(ticket) } else { MultipartResponse::Known(ticket) })
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
        caller: CurrentUser,
        id: Path<String>,
        body: Body<PartsToSign>,
    ) -> Result<Json<SignedParts>, Problem> {
        let now = OffsetDateTime::now_utc();
        let parts: Vec<_> =
            body.parts.iter().map(|part| RequestedPart { number: part.part_number, sha256: part.sha256.as_deref() }).collect();
        app.valet.throttle.count_urls(caller.user, u32::try_from(parts.len()).unwrap_or(u32::MAX))?;
        let signed = app.valet.multipart.sign_parts(caller.user, parse_image_id(&id)?, &parts, now).await?;
        let to_response = |(part_number, put)| SignedPart { part_number, request: PresignedRequest::new(put, now) };
        Ok(Json(SignedParts { parts: signed.into_iter().map(to_response).collect() }))
    }

    /// List the parts that have arrived
    ///
    /// For resuming after a lost connection or a restart: PUT the parts that are not listed, then confirm.
    #[oai(path = "/:id/parts", method = "get", operation_id = "list_parts")]
    async fn list(&self, app: Application<'_>, caller: CurrentUser, id: Path<String>) -> Result<Json<StoredParts>, Problem> {
        app.valet.throttle.count_s3_calls(caller.user, LISTING_CALLS)?;
        let stored = app.valet.multipart.stored_parts(caller.user, parse_image_id(&id)?).await?;
        let to_response = |(part_number, size)| StoredPart { part_number, size };
        Ok(Json(StoredParts { parts: stored.into_iter().map(to_response).collect() }))
    }
}
