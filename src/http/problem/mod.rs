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
    ($($(#[doc = $doc:literal])* $variant:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// Identifies the kind of problem; stable. Later versions may add codes: handle an unknown one by its HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enum)]
        #[oai(rename = "ProblemCode", rename_all = "snake_case")]
        pub enum Code {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the code as it appears in JSON.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }

            /// Returns the HTTP status of every problem of this code.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),* }
            }

            /// Returns the title, which is the same for every problem of this code.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }

            /// Returns what the code means, as in the OpenAPI document.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*)),* }
            }
        }
    };
}

codes! {
    /// The request does not match the documented format.
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request is not valid";
    /// The cursor was not issued by this list to this user.
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "The cursor is not valid";
    /// No access token was sent.
    TokenMissing = "token_missing", UNAUTHORIZED, "An access token is required";
    /// The token is malformed, was not issued by this service, or is of another kind.
    TokenInvalid = "token_invalid", UNAUTHORIZED, "The token is not valid";
    /// The access token has expired.
    TokenExpired = "token_expired", UNAUTHORIZED, "The access token has expired";
    /// The session ended (signed out, expired, or its refresh token was used twice), or the account was deleted.
    SessionEnded = "session_ended", UNAUTHORIZED, "The session has ended";
    /// The operation requires that the user signed in at the identity provider within the last five minutes.
    TokenTooOld = "token_too_old", UNAUTHORIZED, "A more recent sign-in is required";
    /// No account has this email and password.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, "The email address or the password is wrong";
    /// The operation is only for accounts with a password: this server has none, or the account is an identity provider's.
    LocalAccountsOnly = "local_accounts_only", FORBIDDEN, "Only for accounts with a password";
    /// The operator has closed sign-up.
    SignupClosed = "signup_closed", FORBIDDEN, "Sign-up is closed";
    /// It does not exist, or it belongs to another user.
    NotFound = "not_found", NOT_FOUND, "Not found";
    /// The path exists, but not for this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed";
    /// The request's body took too long to arrive.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request body took too long to arrive";
    /// The email address already has an account.
    EmailTaken = "email_taken", CONFLICT, "The email address already has an account";
    /// Nothing has been uploaded yet.
    ObjectMissing = "object_missing", CONFLICT, "Nothing has been uploaded yet";
    /// Parts of the multipart upload are missing.
    PartsMissing = "parts_missing", CONFLICT, "Parts of the upload are missing";
    /// A multipart upload has no single URL to renew.
    NotSingle = "not_single", CONFLICT, "The upload is a multipart upload";
    /// Only multipart uploads have parts.
    NotMultipart = "not_multipart", CONFLICT, "The upload is not a multipart upload";
    /// The parts have already been assembled into an image.
    UploadComplete = "upload_complete", CONFLICT, "The upload is complete";
    /// The bytes do not fit into the user's quota.
    QuotaExceeded = "quota_exceeded", CONFLICT, "The quota is exceeded";
    /// Too many uploads are open.
    TooManyPending = "too_many_pending", CONFLICT, "Too many uploads are open";
    /// The object store lacks a feature that the request needs, or does not enforce what is signed for this kind of upload.
    NotSupportedByStore = "not_supported_by_store", CONFLICT, "The object store does not support this";
    /// The upload has expired.
    UploadExpired = "upload_expired", GONE, "The upload has expired";
    /// The request's body is too large.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The request's body is too large";
    /// The request's body is not JSON.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The request's body must be JSON";
    /// Not an email address.
    InvalidEmail = "invalid_email", UNPROCESSABLE_ENTITY, "The email address is not valid";
    /// The password is too easy to guess.
    WeakPassword = "weak_password", UNPROCESSABLE_ENTITY, "The password is too weak";
    /// The size is less than one byte.
    InvalidSize = "invalid_size", UNPROCESSABLE_ENTITY, "The size is not valid";
    /// The file is larger than this server accepts.
    FileTooLarge = "file_too_large", UNPROCESSABLE_ENTITY, "The file is too large";
    /// The media type is not accepted.
    TypeNotAllowed = "type_not_allowed", UNPROCESSABLE_ENTITY, "The media type is not accepted";
    /// The file name cannot be stored.
    InvalidFileName = "invalid_file_name", UNPROCESSABLE_ENTITY, "The file name is not valid";
    /// The digest is not the base64 of a SHA-256.
    InvalidSha256 = "invalid_sha256", UNPROCESSABLE_ENTITY, "The SHA-256 is not valid";
    /// S3 does not accept parts of this size.
    InvalidPartSize = "invalid_part_size", UNPROCESSABLE_ENTITY, "The part size is not valid";
    /// The parts do not belong to this upload, cannot be assembled, or are too few or too many.
    InvalidParts = "invalid_parts", UNPROCESSABLE_ENTITY, "The parts are not valid";
    /// The S3 request is not one that an upload consists of.
    InvalidCall = "invalid_call", UNPROCESSABLE_ENTITY, "The S3 request is not part of an upload";
    /// The caption cannot be stored.
    InvalidCaption = "invalid_caption", UNPROCESSABLE_ENTITY, "The caption is not valid";
    /// The preview cannot be stored.
    InvalidPreview = "invalid_preview", UNPROCESSABLE_ENTITY, "The preview is not valid";
    /// The text is not the base64 of a ThumbHash.
    InvalidThumbHash = "invalid_thumb_hash", UNPROCESSABLE_ENTITY, "The ThumbHash is not valid";
    /// The idempotency key was used with another request.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The idempotency key was used for another request";
    /// The uploaded object is not the declared one.
    ObjectMismatch = "object_mismatch", UNPROCESSABLE_ENTITY, "The object is not the declared one";
    /// The uploaded bytes are not an image of the declared type.
    ContentMismatch = "content_mismatch", UNPROCESSABLE_ENTITY, "The bytes are not an image of the declared type";
    /// The header section is too large.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's headers are too large";
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// An error inside the service.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal server error";
    /// The service, or one that it depends on, is temporarily unavailable.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The service is temporarily unavailable";
    /// The service, or one that it depends on, did not answer in time.
    Timeout = "timeout", GATEWAY_TIMEOUT, "The service did not answer in time";
}

/// A member, parameter or header of the request that breaks a rule.
#[derive(Debug, Clone, Object)]
pub struct FieldError {
    /// Path of the member, such as `items[3].sha256`, or name of the parameter or header; empty for the whole body.
    pub field: String,
    /// The rule that it breaks, as the end of a sentence that begins with `field`.
    pub message: String,
}

/// An error (RFC 9457), sent as `application/problem+json`. In a batch, each failed item has one.
#[derive(Debug, Object)]
#[oai(rename = "Problem", rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct ProblemBody {
    /// URI of the kind of problem; ends in the code.
    #[oai(rename = "type")]
    kind: String,
    /// The same text for every problem of this code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Identifies the kind of problem. Handle an unknown code by its HTTP status.
    code: Code,
    /// For people: what is wrong with this request, and what to do about it.
    detail: String,
    /// Identifies the request in the service's logs; also in the header `x-request-id`.
    request_id: String,
    /// The members, parameters or headers that break a rule.
    errors: Option<Vec<FieldError>>,
    /// Only in Uppy's operations: one sentence, which Uppy shows to people.
    message: Option<String>,
}

/// A problem before it is sent; the outermost layer writes it, with the request's id.
#[derive(Debug)]
pub struct Problem {
    /// Identifies the kind; has the status and the title.
    pub code: Code,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    is_for_uppy: bool,
}

impl Problem {
    /// Creates a problem. `detail` says what is wrong with this request and what to do about it.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), headers: Vec::new(), is_for_uppy: false }
    }

    /// Returns the problem for what does not exist and for what belongs to another user, which clients must not tell apart.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "It does not exist, or it is not yours.")
    }

    /// Adds a member, parameter or header that breaks `rule`, the end of a sentence that begins with its name.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, rule: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), message: rule.into() });
        self
    }

    /// Replaces the names of members by those of the operation: each pair is a member and its name there.
    #[must_use]
    pub fn with_names(mut self, names: &[(&str, &str)]) -> Self {
        for error in &mut self.errors {
            let member = error.field.split(['.', '[']).next().unwrap_or_default();
            if let Some((_, name)) = names.iter().find(|(known, _)| *known == member) {
                error.field = (*name).to_owned();
            }
        }
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns one sentence for Uppy's users: the detail, or the title with the broken rules.
    fn for_people(&self) -> String {
        // The last step of a path: `size` of `metadata[size]`.
        let last = |field: &str| field.rsplit(['.', '[']).next().unwrap_or_default().trim_end_matches(']').to_owned();
        let rules: Vec<_> = self.errors.iter().map(|error| format!("{} {}", last(&error.field), error.message)).collect();
        if rules.is_empty() { self.detail.clone() } else { format!("{}: {}.", self.code.title(), rules.join("; ")) }
    }

    /// Adds the member `message`, which Uppy shows to people.
    #[must_use]
    pub fn for_uppy(mut self) -> Self {
        self.is_for_uppy = true;
        self
    }

    /// Returns the problem of one item of a batch.
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

    /// Returns the response.
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
    /// Registers the schema, which poem-openapi would leave out as unused. `http::openapi` replaces this response with each
    /// operation's own problems.
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
    fn a_sign_up_of_unknown_outcome_says_to_sign_in() {
        for error in [StoreError::DatabaseTimeout, StoreError::Contention { what: "x" }] {
            let problem = Problem::from(SignUpError::from(error));
            assert!(problem.detail.contains("may have been created. Sign in"), "{problem:?}");
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
