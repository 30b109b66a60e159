//! Errors as clients see them: RFC 9457 problems with stable codes. The codes and the body are here; `of_domain` is the only place
//! where domain errors meet statuses.
//!
//! A detail says what happened and what to do, in fixed words or with the service's own limits; never the caller's values.

use poem::{
    IntoResponse, Response,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, Enum, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{ToJSON, Type},
};

mod of_accounts;
mod of_domain;
mod of_store;

pub(super) use of_domain::{UNKNOWN, session_ended};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// What went wrong, for programs to decide by. Stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enum)]
        #[oai(rename = "ProblemCode", rename_all = "snake_case")]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code as it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }

            /// The status it always comes with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),* }
            }

            /// Its title: the same for every occurrence.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }
    };
}

codes! {
    /// The request is not of the documented shape.
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request is not of the documented shape";
    /// The cursor is not one that this listing gave to this user.
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "The cursor is not valid";
    /// No access token was sent.
    TokenMissing = "token_missing", UNAUTHORIZED, "An access token is needed";
    /// What was sent is not a token of this service, or not of the kind that is wanted.
    TokenInvalid = "token_invalid", UNAUTHORIZED, "The token is not valid";
    /// The access token's time is over.
    TokenExpired = "token_expired", UNAUTHORIZED, "The access token has expired";
    /// The token's session or account has ended: signed out, expired, or a refresh token was used twice.
    SessionEnded = "session_ended", UNAUTHORIZED, "The session has ended";
    /// A user of an identity provider needs a fresh token for this.
    TokenTooOld = "token_too_old", UNAUTHORIZED, "The token is too old for this";
    /// No account has this email and password.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, "The email address or the password is wrong";
    /// The call is for accounts of this service's own: there are none here, or the caller's is an identity provider's.
    LocalAccountsOnly = "local_accounts_only", FORBIDDEN, "The call is for accounts of this service's own";
    /// No accounts are made here.
    SignupClosed = "signup_closed", FORBIDDEN, "Sign-up is closed";
    /// Not there, or not yours.
    NotFound = "not_found", NOT_FOUND, "There is no such thing here";
    /// The path exists, for other methods.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The request's body took too long to arrive.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request took too long to arrive";
    /// The email address has an account.
    EmailTaken = "email_taken", CONFLICT, "The email address has an account already";
    /// Nothing was uploaded yet.
    ObjectMissing = "object_missing", CONFLICT, "Nothing has been uploaded yet";
    /// Parts of a multipart upload are missing.
    PartsMissing = "parts_missing", CONFLICT, "Parts of the upload are missing";
    /// Only single uploads have a URL to renew.
    NotSingle = "not_single", CONFLICT, "The upload is not a single one";
    /// Only uploads in parts have parts.
    NotMultipart = "not_multipart", CONFLICT, "The upload is not in parts";
    /// The parts are an image already.
    UploadComplete = "upload_complete", CONFLICT, "The upload is complete";
    /// The bytes do not fit into the user's quota.
    QuotaExceeded = "quota_exceeded", CONFLICT, "The quota is exceeded";
    /// Too many uploads are open.
    TooManyPending = "too_many_pending", CONFLICT, "Too many uploads are open";
    /// The object store does not have what the request needs, or does not hold to what is signed for this kind of upload.
    NotSupportedByStore = "not_supported_by_store", CONFLICT, "The object store does not support this";
    /// The upload's time is over.
    UploadExpired = "upload_expired", GONE, "The upload has expired";
    /// The request's body is too large.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The request's body is too large";
    /// The request's body is not JSON.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The request's body must be JSON";
    /// Not an email address.
    InvalidEmail = "invalid_email", UNPROCESSABLE_ENTITY, "The email address is not valid";
    /// The password protects nothing.
    WeakPassword = "weak_password", UNPROCESSABLE_ENTITY, "The password is too weak";
    /// Less than a byte.
    InvalidSize = "invalid_size", UNPROCESSABLE_ENTITY, "The size is not valid";
    /// Larger than a file may be.
    FileTooLarge = "file_too_large", UNPROCESSABLE_ENTITY, "The file is too large";
    /// Not a media type that is accepted.
    TypeNotAllowed = "type_not_allowed", UNPROCESSABLE_ENTITY, "The media type is not accepted";
    /// Not a name that can be stored.
    InvalidFileName = "invalid_file_name", UNPROCESSABLE_ENTITY, "The file name is not valid";
    /// Not the base64 of a SHA-256.
    InvalidSha256 = "invalid_sha256", UNPROCESSABLE_ENTITY, "The SHA-256 is not valid";
    /// Not a size of parts that S3 takes.
    InvalidPartSize = "invalid_part_size", UNPROCESSABLE_ENTITY, "The size of the parts is not valid";
    /// Not parts of this upload, none, or too many at once.
    InvalidParts = "invalid_parts", UNPROCESSABLE_ENTITY, "The parts are not valid";
    /// No call of S3 that an upload is made of.
    InvalidCall = "invalid_call", UNPROCESSABLE_ENTITY, "The call is not one of an upload";
    /// Not a caption that can be stored.
    InvalidCaption = "invalid_caption", UNPROCESSABLE_ENTITY, "The caption is not valid";
    /// Not a preview that can be stored.
    InvalidPreview = "invalid_preview", UNPROCESSABLE_ENTITY, "The preview is not valid";
    /// Not the base64 of a ThumbHash.
    InvalidThumbHash = "invalid_thumb_hash", UNPROCESSABLE_ENTITY, "The ThumbHash is not valid";
    /// The key was used with another body.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The key was used for another request";
    /// The object is not what was declared.
    ObjectMismatch = "object_mismatch", UNPROCESSABLE_ENTITY, "The object is not what was declared";
    /// The bytes are not an image of the declared type.
    ContentMismatch = "content_mismatch", UNPROCESSABLE_ENTITY, "The bytes are not an image of the declared type";
    /// The header section is too large.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's headers are too large";
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// A fault of the service.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The service has a fault";
    /// A part of the service is not available now.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The service is not available right now";
    /// A part of the service did not answer in time.
    Timeout = "timeout", GATEWAY_TIMEOUT, "The service did not answer in time";
}

/// A member of the request that is not acceptable.
#[derive(Debug, Clone, Object)]
pub struct FieldError {
    /// The member's path, for example `items[3].sha256`.
    pub field: String,
    /// The rule it breaks.
    pub message: String,
}

/// An error (RFC 9457), sent as `application/problem+json`; in a batch, an item's own.
#[derive(Debug, Object)]
#[oai(rename = "Problem", rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct ProblemBody {
    /// A URI that names the kind of problem; it ends in the code.
    #[oai(rename = "type")]
    kind: String,
    /// The same text for every problem of this code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What went wrong, for programs to decide by.
    code: Code,
    /// What happened this time and what to do about it, for people.
    detail: String,
    /// Names this request in the service's logs; also in `x-request-id`.
    request_id: String,
    /// Which members are not acceptable.
    errors: Option<Vec<FieldError>>,
    /// What happened in one sentence, in Uppy's calls alone: it shows this to people.
    message: Option<String>,
}

/// A problem on its way out; the outermost layer writes it, with the request's id.
#[derive(Debug)]
pub struct Problem {
    /// Decides the status.
    pub code: Code,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    is_for_uppy: bool,
}

impl Problem {
    /// A problem with what to do about it.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), headers: Vec::new(), is_for_uppy: false }
    }

    /// The one answer for what is not there and for what is somebody else's.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "It does not exist, or it is not yours.")
    }

    /// Names a member that is not acceptable; `rule` ends a sentence that begins with the member's name.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, rule: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), message: rule.into() });
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What happened, in a sentence that names what is not acceptable.
    fn for_people(&self) -> String {
        let rules: Vec<_> = self.errors.iter().map(|error| format!("{} {}", error.field, error.message)).collect();
        if rules.is_empty() { self.detail.clone() } else { format!("{}: {}.", self.code.title(), rules.join("; ")) }
    }

    /// Says what happened where Uppy looks for it, too.
    #[must_use]
    pub fn for_uppy(mut self) -> Self {
        self.is_for_uppy = true;
        self
    }

    /// The problem of one item in a batch.
    #[must_use]
    pub fn item(self, request_id: &str) -> ProblemBody {
        let status = self.code.status();
        ProblemBody {
            kind: format!("urn:valet:problem:{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: status.as_u16(),
            code: self.code,
            message: self.is_for_uppy.then(|| self.for_people()),
            detail: self.detail,
            request_id: request_id.to_owned(),
            errors: (!self.errors.is_empty()).then_some(self.errors),
        }
    }

    /// The answer.
    #[must_use]
    pub fn respond(mut self, request_id: &str) -> Response {
        let (code, status) = (self.code, self.code.status());
        let extra = std::mem::take(&mut self.headers);
        let body = self.item(request_id);
        let mut response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/problem+json")
            .header(header::CACHE_CONTROL, "no-store")
            .body(body.to_json_string());
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 6750 section 3: an error code only when a token was sent.
            let challenge = match code {
                Code::TokenInvalid | Code::TokenExpired | Code::SessionEnded => "Bearer error=\"invalid_token\"",
                // RFC 9470 section 3.
                Code::TokenTooOld => "Bearer error=\"insufficient_user_authentication\", max_age=\"300\"",
                _ => "Bearer",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if matches!(code, Code::Unavailable | Code::RateLimited | Code::Timeout) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        // Not `extend`, which would send two of what is set above.
        for (name, value) in extra {
            headers.insert(name, value);
        }
        response
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code.as_str())
    }
}

impl std::error::Error for Problem {}

impl poem::error::ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Never sent: the outermost layer takes the problem out of the error and answers with the request's id.
    fn as_response(&self) -> Response {
        self.code.status().into_response()
    }
}

impl ApiResponse for Problem {
    /// The openapi room documents every operation's problems, with their codes, in place of this one; without it the
    /// schema would count as unused and be left out.
    fn meta() -> MetaResponses {
        let content = MetaMediaType { content_type: "application/problem+json", schema: ProblemBody::schema_ref() };
        let problem = MetaResponse {
            description: "A problem.",
            status: None,
            status_range: None,
            content: vec![content],
            headers: Vec::new(),
        };
        MetaResponses { responses: vec![problem] }
    }

    fn register(registry: &mut Registry) {
        ProblemBody::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::accounts::SignUpError, store::StoreError};

    /// Its account may be there, and its password good: repeating the call would only say that the address is taken.
    #[test]
    fn a_sign_up_of_unknown_outcome_says_to_log_in() {
        for error in [StoreError::DatabaseTimeout, StoreError::Contention { what: "x" }] {
            let problem = Problem::from(SignUpError::from(error));
            assert!(problem.detail.contains("may have been made. Log in"), "{problem:?}");
            assert_eq!(problem.respond("x").headers()[header::RETRY_AFTER], "2");
        }
    }

    #[test]
    fn the_enum_in_the_document_is_what_is_sent() {
        for code in Code::ALL {
            assert_eq!(code.to_json(), Some(serde_json::Value::from(code.as_str())));
        }
    }

    /// A failure that passes asks for a repeat and says when; one that does not pass never does.
    #[test]
    fn only_a_passing_failure_asks_for_a_repeat() {
        let operation = "HeadObject";
        let reason = || "503".to_owned();
        for (error, status) in [
            (StoreError::Contention { what: "images" }, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::Update(reason()), StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::Objects { operation, reason: reason() }, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::ObjectsMisconfigured { operation, reason: reason() }, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::Credentials { reason: reason() }, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::DatabaseTimeout, StatusCode::GATEWAY_TIMEOUT),
            (StoreError::ObjectsTimeout { operation }, StatusCode::GATEWAY_TIMEOUT),
            (StoreError::ObjectRefused { operation, reason: reason() }, StatusCode::CONFLICT),
            (StoreError::ObjectsUnsupported { operation, reason: reason() }, StatusCode::CONFLICT),
            (StoreError::Corrupt { collection: "images", id: "7".to_owned(), field: "size" }, StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            let response = Problem::from(error.clone()).respond("a request");
            assert_eq!(response.status(), status, "{error}");
            let waits = response.headers().contains_key(header::RETRY_AFTER);
            let passes = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
            assert_eq!(waits, passes, "{error}");
        }
    }
}
