//! The codes of problems, each with its status and title.

use poem::http::StatusCode;
use poem_openapi::Enum;

/// Declares [`Code`]: the meaning of each code, its text in JSON, its status and its title.
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

            /// Returns the meaning of the code, as in the OpenAPI document.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*)),* }
            }
        }
    };
}

codes! {
    /// The request does not match the documented format.
    InvalidRequest = "invalid_request", BAD_REQUEST, "Invalid request";
    /// The cursor was not issued by this list to this user.
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "Invalid cursor";
    /// No access token was sent.
    TokenMissing = "token_missing", UNAUTHORIZED, "Missing access token";
    /// The token is malformed, was not issued by this service, or is of another kind.
    TokenInvalid = "token_invalid", UNAUTHORIZED, "Invalid token";
    /// The access token has expired.
    TokenExpired = "token_expired", UNAUTHORIZED, "Expired access token";
    /// The session ended (signed out, expired, or its refresh token was used twice), or the account was deleted.
    SessionEnded = "session_ended", UNAUTHORIZED, "Ended session";
    /// The operation requires that the user signed in at the identity provider within the last five minutes.
    TokenTooOld = "token_too_old", UNAUTHORIZED, "Access token too old";
    /// No account has this email and password.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, "Wrong email address or password";
    /// The operation is only for accounts with a password: this server has none, or the account is an identity provider's.
    LocalAccountsOnly = "local_accounts_only", FORBIDDEN, "Operation for accounts with a password";
    /// The operator has closed sign-up.
    SignupClosed = "signup_closed", FORBIDDEN, "Closed sign-up";
    /// The account is suspended: the app's backend must resume it.
    AccountSuspended = "account_suspended", FORBIDDEN, "Suspended account";
    /// The service key does not have the scope of the operation.
    InsufficientScope = "insufficient_scope", FORBIDDEN, "Insufficient scope";
    /// The resource does not exist, or it belongs to another user.
    NotFound = "not_found", NOT_FOUND, "Not found";
    /// The path exists, but not for this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// The request's body took too long to arrive.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "Request body timeout";
    /// The email address already has an account.
    EmailTaken = "email_taken", CONFLICT, "Email address already registered";
    /// Nothing has been uploaded yet.
    ObjectMissing = "object_missing", CONFLICT, "Missing object";
    /// Parts of the multipart upload are missing.
    PartsMissing = "parts_missing", CONFLICT, "Missing parts";
    /// A multipart upload has no single URL to renew.
    NotSinglePart = "not_single_part", CONFLICT, "Not a single-part upload";
    /// Only multipart uploads have parts.
    NotMultipart = "not_multipart", CONFLICT, "Not a multipart upload";
    /// The upload is an image already.
    UploadComplete = "upload_complete", CONFLICT, "Upload already complete";
    /// The bytes do not fit into the user's quota.
    QuotaExceeded = "quota_exceeded", CONFLICT, "Quota exceeded";
    /// Too many uploads are open.
    TooManyPending = "too_many_pending", CONFLICT, "Too many open uploads";
    /// The object store lacks a feature that the request needs, or does not enforce what is signed for this kind of upload.
    NotSupportedByStore = "not_supported_by_store", CONFLICT, "Not supported by the object store";
    /// The upload has expired.
    UploadExpired = "upload_expired", GONE, "Expired upload";
    /// The request's body is too large.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "Request body too large";
    /// The request's body is not JSON.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type";
    /// Not an email address.
    InvalidEmail = "invalid_email", UNPROCESSABLE_ENTITY, "Invalid email address";
    /// The password is too easy to guess.
    WeakPassword = "weak_password", UNPROCESSABLE_ENTITY, "Weak password";
    /// The size is less than one byte.
    InvalidSize = "invalid_size", UNPROCESSABLE_ENTITY, "Invalid size";
    /// The file is larger than this server accepts.
    FileTooLarge = "file_too_large", UNPROCESSABLE_ENTITY, "File too large";
    /// The media type is not accepted.
    TypeNotAllowed = "type_not_allowed", UNPROCESSABLE_ENTITY, "Media type not accepted";
    /// The file name cannot be stored.
    InvalidFileName = "invalid_file_name", UNPROCESSABLE_ENTITY, "Invalid file name";
    /// The digest is not the base64 of a SHA-256.
    InvalidSha256 = "invalid_sha256", UNPROCESSABLE_ENTITY, "Invalid SHA-256";
    /// S3 does not accept parts of this size.
    InvalidPartSize = "invalid_part_size", UNPROCESSABLE_ENTITY, "Invalid part size";
    /// The parts do not belong to this upload, cannot be assembled, or are too few or too many.
    InvalidParts = "invalid_parts", UNPROCESSABLE_ENTITY, "Invalid parts";
    /// The S3 request is not one of those that make up an upload.
    InvalidUppyRequest = "invalid_uppy_request", UNPROCESSABLE_ENTITY, "Invalid Uppy request";
    /// The caption cannot be stored.
    InvalidCaption = "invalid_caption", UNPROCESSABLE_ENTITY, "Invalid caption";
    /// The preview cannot be stored.
    InvalidPreview = "invalid_preview", UNPROCESSABLE_ENTITY, "Invalid preview";
    /// The text is not the base64 of a ThumbHash.
    InvalidThumbHash = "invalid_thumb_hash", UNPROCESSABLE_ENTITY, "Invalid ThumbHash";
    /// The text is not a local date and time that has passed.
    InvalidTakenAt = "invalid_taken_at", UNPROCESSABLE_ENTITY, "Invalid time taken";
    /// The text cannot name a user of the app.
    InvalidSubject = "invalid_subject", UNPROCESSABLE_ENTITY, "Invalid subject";
    /// The lifetime of a token is out of range.
    InvalidLifetime = "invalid_lifetime", UNPROCESSABLE_ENTITY, "Invalid lifetime";
    /// The quota is out of range.
    InvalidQuota = "invalid_quota", UNPROCESSABLE_ENTITY, "Invalid quota";
    /// The idempotency key was used with another request.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "Idempotency key reused";
    /// The uploaded object is not the declared one.
    ObjectMismatch = "object_mismatch", UNPROCESSABLE_ENTITY, "Object mismatch";
    /// The uploaded bytes are not an image of the declared type.
    ContentMismatch = "content_mismatch", UNPROCESSABLE_ENTITY, "Content mismatch";
    /// The header section is too large.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "Request headers too large";
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// An error inside the service.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal server error";
    /// The service, or one that it depends on, is temporarily unavailable.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Service unavailable";
    /// The service, or one that it depends on, did not answer in time.
    Timeout = "timeout", GATEWAY_TIMEOUT, "Timeout";
}
