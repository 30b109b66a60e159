//! Metadata of an operation, which each resource lists beside its handlers: body, deadline, rate limits and problems. The
//! middleware enforces body and deadline, and the OpenAPI document is completed from the metadata.

use std::time::Duration;

use poem_openapi::Tags;

use super::problem::Code;

/// Tags of the OpenAPI document.
#[derive(Tags)]
pub enum Tag {
    /// Sign up, sign in, and manage the account.
    Accounts,
    /// From a file to a stored image.
    Uploads,
    /// Operations for many images in one request.
    Batches,
    /// Read, caption and delete images.
    Gallery,
    /// For the app's own backend, with a service key.
    Backend,
    /// For `@uppy/aws-s3`: the operations of `@uppy/companion`.
    Uppy,
    /// Health checks, for orchestrators and load balancers.
    Health,
}

/// Metadata of an operation. A test compares it with the document, and fails for an operation without it.
#[derive(Debug)]
pub struct Operation {
    /// The `operationId`.
    pub id: &'static str,
    /// The request body.
    pub body: RequestBody,
    /// Time that the handler may take, from the arrival of the body.
    pub deadline: Duration,
    /// Names of its rate limits. A test calls the operation until each limit is exceeded.
    pub rate_limits: &'static [&'static str],
    /// Problems in addition to those that follow from the operation's shape.
    pub problems: &'static [&'static [Code]],
}

impl Operation {
    /// Returns whether the operation serves to end sessions. A server reserves permits for such operations, and they have a rate
    /// limit of their own, which counts for each session.
    #[must_use]
    pub fn ends_sessions(&self) -> bool {
        matches!(self.id, "log_out" | "list_sessions" | "end_session")
    }
}

/// Problems of opening an upload.
pub const OPENING: &[Code] = &[
    Code::QuotaExceeded,
    Code::TooManyPending,
    Code::InvalidSize,
    Code::FileTooLarge,
    Code::TypeNotAllowed,
    Code::InvalidFileName,
    Code::InvalidCaption,
    Code::NotSupportedByStore,
];
/// Problems of continuing an upload that may be over.
pub const CLOSED: &[Code] = &[Code::NotFound, Code::UploadExpired, Code::ObjectMismatch, Code::ContentMismatch];
/// Problems of operations with a token in their path.
pub const PATH_TOKEN: &[Code] = &[Code::TokenInvalid, Code::TokenExpired, Code::SessionEnded, Code::AccountSuspended];

/// The request body of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// The operation takes no body.
    None,
    /// JSON of at most this many bytes.
    Json(usize),
}

impl RequestBody {
    /// Body with email addresses, passwords or tokens.
    pub const CREDENTIALS: Self = Self::Json(4 * 1024);
    /// Body about one file or image.
    pub const SINGLE: Self = Self::Json(Self::DEFAULT_MAX_BYTES);
    /// Body about up to a hundred files or images.
    pub const BATCH: Self = Self::Json(256 * 1024);
    /// Body about the parts of a multipart upload.
    pub const PARTS: Self = Self::Json(1024 * 1024);

    /// Maximum bytes of a body about one file or image, and of a body that no operation takes.
    pub const DEFAULT_MAX_BYTES: usize = 16 * 1024;
}

/// Deadline of operations that need MongoDB and at most a few calls to S3.
pub const SHORT_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of operations that may list the parts of an upload, in up to ten pages.
pub const LISTING_DEADLINE: Duration = Duration::from_secs(30);
/// Deadline of operations that read objects from S3, on some stores the whole file.
pub const READING_DEADLINE: Duration = Duration::from_secs(60);
