//! `/api/uppy/…` and `/uppy/{token}/s3/…`: the requests of an unmodified `@uppy/aws-s3`, answered as `@uppy/companion` does.
//!
//! Uppy 6 sends neither headers nor cookies to a Companion of another origin, so its token is part of the path.

pub(super) mod dto;

use std::time::Duration;

use poem_openapi::{
    OpenApi,
    param::{Path, Query},
    payload::Json,
};
use time::OffsetDateTime;

pub use self::dto::{
    UppyAborted, UppyFile, UppyForm, UppyJoined, UppyMethod, UppyPart, UppyPartUrl, UppyPartUrls, UppyPartsToJoin, UppyRequest,
    UppySession, UppySignature, UppyUpload,
};
use super::{
    authentication::{Application, CurrentUser, admit},
    body::Body,
    multipart::LISTING_CALLS,
    operation::{CLOSED, LISTING_DEADLINE, OPENING, Operation, PATH_TOKEN, READING_DEADLINE, RequestBody, SHORT_DEADLINE, Tag},
    parameters::parse_image_id,
    problem::{Code, Problem},
};
use crate::{
    domain::{
        authentication::AuthenticateError,
        credentials::TokenError,
        throttle::names::{CALLS, S3, UPLOAD, URLS},
        uppy::{self, NamedPart, NamedUpload, PartsCall, UppyCall, UppyMetadata},
    },
    model::UserId,
};

/// Metadata of the operations below.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "create_uppy_session",
        body: RequestBody::None,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS],
        problems: &[&[Code::NotSupportedByStore]],
    },
    Operation {
        id: "sign_uppy_request",
        body: RequestBody::SINGLE,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, UPLOAD, URLS, S3],
        problems: &[OPENING, CLOSED, &[Code::InvalidUppyRequest, Code::UploadComplete, Code::InvalidParts]],
    },
    Operation {
        id: "uppy_form",
        body: RequestBody::None,
        deadline: LISTING_DEADLINE,
        rate_limits: &[CALLS, UPLOAD, S3],
        problems: &[OPENING, PATH_TOKEN],
    },
    Operation {
        id: "uppy_create_multipart",
        body: RequestBody::SINGLE,
        deadline: LISTING_DEADLINE,
        rate_limits: &[CALLS, UPLOAD, S3],
        problems: &[OPENING, PATH_TOKEN],
    },
    Operation {
        id: "uppy_list_parts",
        body: RequestBody::None,
        deadline: LISTING_DEADLINE,
        rate_limits: &[CALLS, S3],
        problems: &[PATH_TOKEN, CLOSED, &[Code::NotSupportedByStore]],
    },
    Operation {
        id: "uppy_sign_part",
        body: RequestBody::None,
        deadline: LISTING_DEADLINE,
        rate_limits: &[CALLS, URLS, S3],
        problems: &[PATH_TOKEN, CLOSED, &[Code::UploadComplete, Code::InvalidParts, Code::NotSupportedByStore]],
    },
    Operation {
        id: "uppy_sign_parts",
        body: RequestBody::None,
        deadline: LISTING_DEADLINE,
        rate_limits: &[CALLS, URLS, S3],
        problems: &[PATH_TOKEN, CLOSED, &[Code::UploadComplete, Code::InvalidParts, Code::NotSupportedByStore]],
    },
    Operation {
        id: "uppy_complete_multipart",
        body: RequestBody::PARTS,
        deadline: READING_DEADLINE,
        rate_limits: &[CALLS, S3],
        problems: &[
            PATH_TOKEN,
            CLOSED,
            &[Code::PartsMissing, Code::ObjectMissing, Code::InvalidParts, Code::NotSupportedByStore],
        ],
    },
    Operation {
        id: "uppy_abort_multipart",
        body: RequestBody::None,
        deadline: LISTING_DEADLINE,
        rate_limits: &[CALLS, S3],
        problems: &[PATH_TOKEN, &[Code::NotFound, Code::UploadComplete]],
    },
];

/// Names of an upload's members: in the domain, and in the query by which Uppy requests a form.
const NAMES_IN_FORM: &[(&str, &str)] =
    &[("fileName", "filename"), ("contentType", "type"), ("size", "metadata[size]"), ("caption", "metadata[caption]")];
/// Names of an upload's members: in the domain, and in [`UppyFile`].
const NAMES_IN_FILE: &[(&str, &str)] =
    &[("fileName", "filename"), ("contentType", "type"), ("size", "metadata.size"), ("caption", "metadata.caption")];
/// Name of the parts in the domain, and of the part in Uppy's request for one URL.
const NAME_OF_PART: &[(&str, &str)] = &[("parts", "partNumber")];
/// Name of the parts in the domain, and in Uppy's request for many URLs.
const NAME_OF_PARTS: &[(&str, &str)] = &[("parts", "partNumbers")];

/// Returns a function that converts an error to a problem with these names of members.
fn with_names<E: Into<Problem>>(names: &'static [(&'static str, &'static str)]) -> impl Fn(E) -> Problem {
    move |error| error.into().with_names(names)
}

/// Handlers of Uppy's requests.
pub struct UppyApi;

#[OpenApi(tag = "Tag::Uppy")]
impl UppyApi {
    /// Create an Uppy session
    ///
    /// For `companionEndpoint` of Uppy 6 and `endpoint` of Uppy 5, which send no `Authorization` header: the token is in their
    /// path. It is valid for the operations below that path only. Uppy needs a new one after it has expired: request one before
    /// each batch of files.
    #[oai(path = "/api/uppy/session", method = "post", operation_id = "create_uppy_session")]
    async fn session(&self, app: Application<'_>, caller: CurrentUser) -> Result<Json<UppySession>, Problem> {
        let now = OffsetDateTime::now_utc();
        Ok(Json(UppySession::new(&app.valet.uppy_tokens.issue(*caller, now).await?, now)))
    }

    /// Sign a request for Uppy's own S3 client
    ///
    /// For `signRequest` of Uppy 6.3, which passes its arguments on. To upload a file, the answer is a form; to open, list,
    /// complete or abort a multipart upload, it is a URL that the browser requests from S3. Nothing needs to be confirmed: the
    /// server soon finds what has arrived and copies it to a key that no URL can write.
    #[oai(path = "/api/uppy/presign", method = "post", operation_id = "sign_uppy_request")]
    async fn presign(
        &self,
        app: Application<'_>,
        caller: CurrentUser,
        body: Body<UppyRequest>,
    ) -> Result<Json<UppySignature>, Problem> {
        let (user, now) = (caller.user, OffsetDateTime::now_utc());
        let request = s3_request(&body)?;
        match request {
            UppyCall::Put(_) | UppyCall::Create(_) => app.valet.throttle.count_uploads(user, 1)?,
            UppyCall::Open { .. } => app.valet.throttle.count_urls(user, 1)?,
        }
        let max_lifetime = body.expires_in.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)));
        Ok(Json(match app.valet.uppy.sign(user, request, max_lifetime, now).await.map_err(with_names(NAME_OF_PART))? {
            uppy::SignedCall::Form(form) => {
                let form = UppyForm::new(form, now);
                let key = form.fields.get("key").cloned().unwrap_or_default();
                UppySignature { url: form.url, key, fields: Some(form.fields) }
            }
            uppy::SignedCall::Url(signed, key) => UppySignature { url: signed.url, key: key.to_string(), fields: None },
        }))
    }

    /// Get a form for one file
    ///
    /// A POST policy for this media type and for 1 byte up to the file's size, or up to the largest accepted size. Nothing needs
    /// to be confirmed: the server soon finds what has arrived and copies it to a key that no form can write. The image's id is
    /// the last segment of `fields.key`; a client that cannot wait may confirm it.
    #[oai(path = "/uppy/:token/s3/params", method = "get", operation_id = "uppy_form")]
    #[allow(clippy::too_many_arguments)]
    async fn form(
        &self,
        app: Application<'_>,
        token: Path<String>,
        /// The name to show and to save under, at most 255 bytes of UTF-8.
        filename: Query<Option<String>>,
        /// The media type; if Uppy does not know it, the name's extension decides.
        #[oai(name = "type")]
        kind: Query<Option<String>>,
        /// The file's size in bytes, if the page stores it in the file's metadata: exactly this much of the quota is then reserved.
        /// A value that is not a number is ignored, as is other metadata.
        #[oai(name = "metadata[size]")]
        size: Query<Option<String>>,
        /// The caption.
        #[oai(name = "metadata[caption]")]
        caption: Query<Option<String>>,
    ) -> Result<Json<UppyForm>, Problem> {
        let now = OffsetDateTime::now_utc();
        let user = user_of(&app, &token, now).await?;
        app.valet.throttle.count_uploads(user, 1)?;
        let metadata = UppyMetadata {
            file_name: filename.0.as_deref().ok_or_else(|| missing_parameter("filename"))?,
            content_type: kind.0.as_deref(),
            size: size.0.as_deref().and_then(|text| text.parse().ok()),
            caption: caption.0.as_deref(),
        };
        let form = app.valet.uppy.open_form(user, &metadata, now).await.map_err(with_names(NAMES_IN_FORM))?;
        Ok(Json(UppyForm::new(form, now)))
    }

    /// Open a multipart upload for Uppy
    ///
    /// Uppy cuts the file and sends neither its size nor that of the parts. Without `metadata.size`, a share of the quota is
    /// reserved until the upload is completed, and a file that turns out larger than this share is refused then.
    #[oai(path = "/uppy/:token/s3/multipart", method = "post", operation_id = "uppy_create_multipart")]
    async fn create(&self, app: Application<'_>, token: Path<String>, body: Body<UppyFile>) -> Result<Json<UppyUpload>, Problem> {
        let now = OffsetDateTime::now_utc();
        let user = user_of(&app, &token, now).await?;
        app.valet.throttle.count_uploads(user, 1)?;
        app.valet.throttle.count_s3_calls(user, 1)?;
        let metadata = UppyMetadata {
            file_name: &body.filename,
            content_type: body.kind.as_deref(),
            size: body.number("size"),
            caption: body.text("caption"),
        };
        let image = app.valet.uppy.open_parts(user, &metadata, now).await.map_err(with_names(NAMES_IN_FILE))?;
        let bucket = app.valet.dependencies.bucket().to_owned();
        Ok(Json(UppyUpload { key: image.key.to_string(), upload_id: image.id.to_string(), bucket }))
    }

    /// List the parts that have arrived for Uppy
    ///
    /// All parts that S3 has; Uppy uploads the others.
    #[oai(path = "/uppy/:token/s3/multipart/:uploadId", method = "get", operation_id = "uppy_list_parts")]
    async fn list(
        &self,
        app: Application<'_>,
        token: Path<String>,
        #[oai(name = "uploadId")] upload_id: Path<String>,
        key: Query<Option<String>>,
    ) -> Result<Json<Vec<UppyPart>>, Problem> {
        let now = OffsetDateTime::now_utc();
        let user = user_of(&app, &token, now).await?;
        app.valet.throttle.count_s3_calls(user, LISTING_CALLS)?;
        let parts = app.valet.uppy.list_parts(user, upload_of(&upload_id, &key)?, now).await?;
        Ok(Json(parts.into_iter().map(Into::into).collect()))
    }

    /// Get a part's URL for Uppy
    ///
    /// For a part of any length, since Uppy does not send the length. Request a new URL when this one has expired.
    #[oai(path = "/uppy/:token/s3/multipart/:uploadId/:partNumber", method = "get", operation_id = "uppy_sign_part")]
    async fn sign(
        &self,
        app: Application<'_>,
        token: Path<String>,
        #[oai(name = "uploadId")] upload_id: Path<String>,
        /// From 1 to 10000.
        #[oai(name = "partNumber")]
        part_number: Path<String>,
        key: Query<Option<String>>,
    ) -> Result<Json<UppyPartUrl>, Problem> {
        let now = OffsetDateTime::now_utc();
        let user = user_of(&app, &token, now).await?;
        app.valet.throttle.count_urls(user, 1)?;
        let number = part_number.parse().map_err(|_| Problem::not_found())?;
        let signed = app
            .valet
            .uppy
            .sign_parts(user, upload_of(&upload_id, &key)?, &[number], now)
            .await
            .map_err(with_names(NAME_OF_PART))?;
        let (_, signed) = signed.into_iter().next().ok_or_else(Problem::not_found)?;
        Ok(Json(UppyPartUrl { expires: dto::seconds_until(signed.expires_at, now), url: signed.url }))
    }

    /// Get many parts' URLs for Uppy
    ///
    /// As in Companion, for clients that request several URLs at once.
    #[oai(path = "/uppy/:token/s3/multipart/:uploadId/batch", method = "get", operation_id = "uppy_sign_parts")]
    async fn sign_many(
        &self,
        app: Application<'_>,
        token: Path<String>,
        #[oai(name = "uploadId")] upload_id: Path<String>,
        key: Query<Option<String>>,
        /// Part numbers, separated by commas; at most 1000.
        #[oai(name = "partNumbers")]
        part_numbers: Query<Option<String>>,
    ) -> Result<Json<UppyPartUrls>, Problem> {
        let now = OffsetDateTime::now_utc();
        let user = user_of(&app, &token, now).await?;
        let upload = upload_of(&upload_id, &key)?;
        let listed = part_numbers.0.as_deref().unwrap_or_default().split(',').filter(|text| !text.is_empty());
        // Text that is not a number becomes 0, which is not the number of a part.
        let numbers: Vec<i64> = listed.map(|text| text.trim().parse().unwrap_or(0)).collect();
        app.valet.throttle.count_urls(user, u32::try_from(numbers.len()).unwrap_or(u32::MAX))?;
        let signed = app.valet.uppy.sign_parts(user, upload, &numbers, now).await.map_err(with_names(NAME_OF_PARTS))?;
        let presigned_urls = signed.into_iter().map(|(number, signed)| (number.to_string(), signed.url)).collect();
        Ok(Json(UppyPartUrls { presigned_urls }))
    }

    /// Complete a multipart upload for Uppy
    ///
    /// Assembles the listed parts and confirms the upload: after the answer the image is in the gallery. Repeating it is safe and
    /// gives the same answer.
    #[oai(path = "/uppy/:token/s3/multipart/:uploadId/complete", method = "post", operation_id = "uppy_complete_multipart")]
    async fn complete(
        &self,
        app: Application<'_>,
        token: Path<String>,
        #[oai(name = "uploadId")] upload_id: Path<String>,
        key: Query<Option<String>>,
        body: Body<UppyPartsToJoin>,
    ) -> Result<Json<UppyJoined>, Problem> {
        let now = OffsetDateTime::now_utc();
        let user = user_of(&app, &token, now).await?;
        app.valet.throttle.count_s3_calls(user, 1)?;
        let parts: Vec<_> = body.parts.iter().map(|part| NamedPart { number: part.number, etag: &part.etag }).collect();
        let image = app.valet.uppy.complete_parts(user, upload_of(&upload_id, &key)?, &parts, now).await?;
        let (key, bucket) = (image.key.to_string(), app.valet.dependencies.bucket().to_owned());
        Ok(Json(UppyJoined { location: app.valet.gallery.presign_image(image, now)?.url.url, key, bucket }))
    }

    /// Abort a multipart upload for Uppy
    ///
    /// Frees the reserved quota at once. A completed upload is not affected.
    #[oai(path = "/uppy/:token/s3/multipart/:uploadId", method = "delete", operation_id = "uppy_abort_multipart")]
    async fn abort(
        &self,
        app: Application<'_>,
        token: Path<String>,
        #[oai(name = "uploadId")] upload_id: Path<String>,
        key: Query<Option<String>>,
    ) -> Result<Json<UppyAborted>, Problem> {
        let now = OffsetDateTime::now_utc();
        let user = user_of(&app, &token, now).await?;
        app.valet.throttle.count_s3_calls(user, 1)?;
        app.valet.uppy.abort_parts(user, upload_of(&upload_id, &key)?, now).await?;
        Ok(Json(UppyAborted {}))
    }
}

/// Returns the user of the token in the path, within the user's rate limit.
async fn user_of(app: &Application<'_>, token: &str, now: OffsetDateTime) -> Result<UserId, Problem> {
    let user = app.valet.uppy_tokens.authenticate(token, now).await.map_err(|error| match error {
        AuthenticateError::Token(TokenError::Invalid) => {
            Problem::new(Code::TokenInvalid, "Create a new Uppy session: POST to /api/uppy/session with an access token.")
        }
        AuthenticateError::Token(TokenError::Expired) => {
            Problem::new(Code::TokenExpired, "Create a new Uppy session: POST to /api/uppy/session with an access token.")
        }
        AuthenticateError::SessionEnded => Problem::session_ended(),
        error => error.into(),
    })?;
    tracing::Span::current().record("user", tracing::field::display(user));
    admit(app, user)?;
    Ok(user)
}

/// Parses the upload's id and key, which the domain compares.
fn upload_of<'a>(upload_id: &str, key: &'a Query<Option<String>>) -> Result<NamedUpload<'a>, Problem> {
    Ok(NamedUpload { id: parse_image_id(upload_id)?, key: key.0.as_deref().ok_or_else(Problem::not_found)? })
}

/// Returns the problem of a missing parameter.
fn missing_parameter(parameter: &str) -> Problem {
    Problem::new(Code::InvalidRequest, "A required parameter is missing.").field(parameter, "is required")
}

/// Returns the S3 request that the arguments of `signRequest` describe, by S3's rules of method and parameters.
fn s3_request(body: &UppyRequest) -> Result<UppyCall<'_>, Problem> {
    let metadata = UppyMetadata {
        file_name: body.file_name(),
        content_type: body.content_type.as_deref(),
        size: body.size,
        caption: body.caption.as_deref(),
    };
    let parts_call = |upload_id, call| Ok(UppyCall::Open { key: &body.key, upload_id, call });
    match (body.method, body.upload_id.as_deref(), body.part_number) {
        (UppyMethod::Put, None, None) => Ok(UppyCall::Put(metadata)),
        (UppyMethod::Post, None, None) => Ok(UppyCall::Create(metadata)),
        (UppyMethod::Put, Some(upload_id), Some(number)) => parts_call(upload_id, PartsCall::Part(number)),
        (UppyMethod::Get, Some(upload_id), None) => parts_call(upload_id, PartsCall::List),
        (UppyMethod::Post, Some(upload_id), None) => parts_call(upload_id, PartsCall::Complete),
        (UppyMethod::Delete, Some(upload_id), None) => parts_call(upload_id, PartsCall::Abort),
        _ => {
            let rule =
                "must be PUT or POST alone; GET, POST or DELETE with an uploadId; or PUT with an uploadId and a partNumber";
            Err(Problem::new(Code::InvalidUppyRequest, "Send what Uppy passes to `signRequest`.").field("method", rule))
        }
    }
}
