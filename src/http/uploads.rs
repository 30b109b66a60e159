//! `/api/images/upload`, `/api/images/{id}/renew`, `/api/images/{id}/confirm` and `/api/images/pending`: uploads with one PUT,
//! and all open uploads.

use poem::Request;
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    authentication::{Application, CurrentUser},
    body::{self, Body},
    operation::{CLOSED, OPENING, Operation, READING_DEADLINE, RequestBody, SHORT_DEADLINE, Tag},
    pagination::{self, Listing},
    parameters::{parse_idempotency_header, parse_image_id},
    problem::{Code, Problem},
    responses::{GalleryImage, UploadTicket, whole_seconds},
};
use crate::{
    domain::{
        throttle::names::{CALLS, S3, UPLOAD, URLS},
        uploads::{DeclaredPreview, DeclaredUpload},
    },
    model::{IdempotencyKey, Image},
};

/// Metadata of the operations below.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "create_upload",
        body: RequestBody::SINGLE,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, UPLOAD],
        problems: &[
            OPENING,
            &[
                Code::InvalidSha256,
                Code::InvalidPreview,
                Code::InvalidThumbHash,
                Code::InvalidTakenAt,
                Code::IdempotencyKeyReused,
            ],
        ],
    },
    Operation {
        id: "renew_upload",
        body: RequestBody::None,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, URLS],
        problems: &[CLOSED, &[Code::NotSinglePart, Code::NotSupportedByStore]],
    },
    Operation {
        id: "confirm_upload",
        body: RequestBody::None,
        deadline: READING_DEADLINE,
        rate_limits: &[CALLS, S3],
        problems: &[CLOSED, &[Code::ObjectMissing, Code::PartsMissing, Code::InvalidParts, Code::NotSupportedByStore]],
    },
    Operation {
        id: "list_pending_uploads",
        body: RequestBody::None,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS],
        problems: &[&[Code::InvalidCursor]],
    },
];

/// Handlers of uploads with one PUT, and of all open uploads.
pub struct UploadsApi;

/// Defines a request type with the members of an upload and `$more`: poem-openapi's `flatten` excludes `deny_unknown_fields`.
macro_rules! upload_request {
    ($(#[$doc:meta])* struct $name:ident { $($more:tt)* }) => {
        $(#[$doc])*
        #[derive(Object, Deserialize)]
        #[oai(rename_all = "camelCase", deny_unknown_fields, skip_serializing_if_is_none)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            /// The name to show and to save under. A path before it and control and bidirectional-override characters are removed,
            /// and a name of more than 255 bytes of UTF-8 is shortened, keeping its extension.
            file_name: String,
            /// The media type, without parameters: its registered name or a common alias (`image/jpg`). The uploaded bytes must be
            /// of this type.
            content_type: String,
            /// Size in bytes. The upload must have exactly this size.
            #[serde(deserialize_with = "body::integer")]
            size: i64,
            /// Base64 (not hex) of the SHA-256 of the bytes, as in S3's checksum header. The upload must have this digest.
            sha256: String,
            /// A caption of at most 1000 characters.
            #[serde(default, deserialize_with = "body::present")]
            caption: Option<String>,
            /// A thumbnail that the client made, of at most 4,194,304 pixels. It is uploaded with a PUT of its own, `previewUpload`,
            /// before the upload is confirmed; a preview that is missing then, is not the declared one or has more pixels, is left
            /// out, and the confirm still succeeds: `previewUrl` of the image is then another picture, or absent.
            #[serde(default, deserialize_with = "body::present_object")]
            preview: Option<NewPreview>,
            /// Base64 of the image's ThumbHash, at most 32 bytes: returned unchanged, as a placeholder while the image loads.
            #[serde(default, deserialize_with = "body::present")]
            thumb_hash: Option<String>,
            /// When the image was taken, for a file that does not say it: the local date and time in whole seconds, with the offset
            /// from UTC if it is known (`2024-12-21T23:39:24+01:00`), else without one (`2024-12-21T23:39:24`). The time in the
            /// file, if it has one, is used instead.
            #[serde(default, deserialize_with = "body::present")]
            taken_at: Option<String>,
            $($more)*
        }

        impl $name {
            /// Converts the request to the domain's type.
            pub(super) fn declared<'a>(&'a self, key: Option<&'a IdempotencyKey>) -> DeclaredUpload<'a> {
                DeclaredUpload {
                    file_name: &self.file_name,
                    content_type: &self.content_type,
                    size: self.size,
                    sha256: &self.sha256,
                    caption: self.caption.as_deref(),
                    preview: self.preview.as_ref().map(NewPreview::declared),
                    thumb_hash: self.thumb_hash.as_deref(),
                    taken_at: self.taken_at.as_deref(),
                    key,
                }
            }
        }
    };
}

upload_request! {
    /// A file to upload.
    struct NewUpload {}
}

upload_request! {
    /// One of the uploads to open.
    struct BatchUpload {
        /// As the header `Idempotency-Key` of a single upload.
        #[serde(default, deserialize_with = "body::present")]
        pub(super) idempotency_key: Option<String>,
    }
}

/// A preview to upload with its image.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewPreview {
    /// `image/jpeg` or `image/webp`.
    content_type: String,
    /// Size in bytes, at most 262144. The upload must have exactly this size.
    #[serde(deserialize_with = "body::integer")]
    size: i64,
    /// Base64 (not hex) of the SHA-256 of the preview's bytes.
    sha256: String,
}

impl NewPreview {
    /// Converts the request to the domain's type.
    fn declared(&self) -> DeclaredPreview<'_> {
        DeclaredPreview { content_type: &self.content_type, size: self.size, sha256: &self.sha256 }
    }
}

#[derive(ApiResponse)]
enum UploadResponse {
    /// These bytes are already here or on their way: the ready image, or the open upload with a new URL. An open upload takes
    /// over fileName, contentType, caption, preview, thumbHash and takenAt from this request.
    #[oai(status = 200)]
    Known(Json<UploadTicket>),
    /// The upload is open: PUT the bytes, then confirm.
    #[oai(status = 201)]
    Opened(Json<UploadTicket>),
}

/// How the file is uploaded. `single`: with one PUT. `multipart`: as a multipart upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
enum UploadKind {
    /// With one PUT.
    Single,
    /// As a multipart upload.
    Multipart,
}

/// An open upload.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
struct PendingUpload {
    /// Identifies the upload, and later the image.
    id: String,
    /// How the file is uploaded.
    kind: UploadKind,
    /// As declared.
    file_name: String,
    /// As declared.
    content_type: String,
    /// Size in bytes, as declared; for Uppy's uploads, the largest size that is accepted.
    size: u64,
    /// As declared: a restarted client finds the file by it. Absent for multipart uploads and for Uppy's.
    sha256: Option<String>,
    /// As declared.
    caption: Option<String>,
    /// Size of every part but the last, in bytes. Only for multipart uploads, except Uppy's.
    part_size: Option<u64>,
    /// Number of parts. Only for multipart uploads, except Uppy's.
    part_count: Option<u32>,
    /// When the upload was opened.
    created_at: OffsetDateTime,
    /// When the upload expires; until then its URL can be renewed.
    expires_at: OffsetDateTime,
}

/// A page of open uploads.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
struct PendingUploads {
    /// Newest first.
    uploads: Vec<PendingUpload>,
    /// Send it as `cursor` for the next page; absent on the last.
    next_cursor: Option<String>,
}

impl From<Image> for PendingUpload {
    fn from(image: Image) -> Self {
        Self {
            id: image.id.to_string(),
            kind: if image.upload.is_in_parts() { UploadKind::Multipart } else { UploadKind::Single },
            file_name: image.upload.file_name.as_str().to_owned(),
            content_type: image.upload.content_type.to_string(),
            size: image.upload.size,
            sha256: image.upload.sha256().map(|digest| digest.to_string()),
            caption: image.upload.caption.as_ref().map(|caption| caption.as_str().to_owned()),
            part_size: image.upload.part_layout().map(|layout| layout.part_size()),
            part_count: image.upload.part_layout().map(|layout| layout.part_count()),
            created_at: whole_seconds(image.created_at),
            expires_at: whole_seconds(image.expires_at),
        }
    }
}

#[OpenApi(prefix_path = "/api/images", tag = "Tag::Uploads")]
impl UploadsApi {
    /// Open an upload
    ///
    /// The answer has a presigned PUT, valid once and for exactly these bytes. PUT the file to `upload.url` with exactly
    /// `upload.headers` and without the access token, then confirm.
    ///
    /// After the PUT: on **200 or 412**, confirm. On **409, 5xx or no answer**, repeat the PUT. On **403**, renew the URL
    /// once. On **400**, the bytes have changed: open a new upload.
    #[oai(path = "/upload", method = "post", operation_id = "create_upload")]
    async fn create(
        &self,
        app: Application<'_>,
        caller: CurrentUser,
        request: &Request,
        /// 1 to 255 printable ASCII characters, such as a UUID: a repeat with the same key and body within 24 hours gets the same
        /// upload with a new URL.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<String>>,
        body: Body<NewUpload>,
    ) -> Result<UploadResponse, Problem> {
        app.valet.throttle.count_uploads(caller.user, 1)?;
        let now = OffsetDateTime::now_utc();
        let key = parse_idempotency_header(request, key.0.as_deref())?;
        let opened = app.valet.uploads.open(caller.user, body.declared(key.as_ref()), now).await?;
        let ticket = Json(UploadTicket::new(opened.ticket, now, |image| app.valet.gallery.presign_image(image, now))?);
        Ok(if opened.is_new { UploadResponse::Opened(ticket) } else { UploadResponse::Known(ticket) })
    }

    /// Renew an upload's URL
    ///
    /// For an open upload whose URL has expired or was lost. Earlier URLs stay valid until they expire. For a multipart upload,
    /// request the parts' URLs instead.
    #[oai(path = "/:id/renew", method = "post", operation_id = "renew_upload")]
    async fn renew(&self, app: Application<'_>, caller: CurrentUser, id: Path<String>) -> Result<Json<UploadTicket>, Problem> {
        let now = OffsetDateTime::now_utc();
        app.valet.throttle.count_urls(caller.user, 1)?;
        let ticket = app.valet.uploads.renew(caller.user, parse_image_id(&id)?, now).await?;
        Ok(Json(UploadTicket::new(ticket, now, |image| app.valet.gallery.presign_image(image, now))?))
    }

    /// Confirm an upload
    ///
    /// Checks that the object in S3 has the declared size, type and digest and that its bytes are an image of that type, and adds
    /// the image to the gallery. A multipart upload is completed first. Repeating it is safe and gives the same answer: on 503,
    /// 504 or no answer, repeat it.
    #[oai(path = "/:id/confirm", method = "post", operation_id = "confirm_upload")]
    async fn confirm(&self, app: Application<'_>, caller: CurrentUser, id: Path<String>) -> Result<Json<GalleryImage>, Problem> {
        let now = OffsetDateTime::now_utc();
        app.valet.throttle.count_s3_calls(caller.user, 1)?;
        let image = app.valet.confirmation.confirm(caller.user, parse_image_id(&id)?, now).await?;
        Ok(Json(app.valet.gallery.presign_image(image, now)?.into()))
    }

    /// List open uploads
    ///
    /// For a client that was restarted. Single upload: find the file by its `sha256`, renew the URL, PUT, confirm. Multipart
    /// upload: list its parts, PUT the missing ones, confirm.
    #[oai(path = "/pending", method = "get", operation_id = "list_pending_uploads")]
    async fn pending(
        &self,
        app: Application<'_>,
        caller: CurrentUser,
        /// Uploads on a page, from 1 to 100.
        limit: Query<Option<i64>>,
        /// The `nextCursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<Json<PendingUploads>, Problem> {
        let limit = pagination::parse_limit(limit.0)?;
        let listing = Listing::Pending(caller.user);
        let after = pagination::parse_cursor(cursor.0.as_deref(), listing)?;
        let found = app.valet.uploads.list_pending(caller.user, after, limit + 1).await?;
        let (uploads, next_cursor) = pagination::split_page(found, limit, listing);
        Ok(Json(PendingUploads { uploads: uploads.into_iter().map(Into::into).collect(), next_cursor }))
    }
}
