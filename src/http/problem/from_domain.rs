//! Maps the domain's errors to problems: the code, and a detail that states what to do.

use poem::http::{HeaderValue, header};

use super::{Code, Problem, UNKNOWN_OUTCOME};
use crate::{
    domain::{
        StoreError,
        authentication::{AuthenticateError, NoLocalAccount},
        confirm::ConfirmError,
        credentials::TokenError,
        deletion::DeleteError,
        event_streams::{MAX_STREAMS_PER_USER, OpenStreamError, TooManyStreams},
        gallery::ReadError,
        multipart::{InvalidPart, MAX_PARTS_PER_REQUEST, PartsError},
        sessions::RefreshError,
        store_capabilities::{UnsupportedUpload, UploadClass},
        unavailable_upload::UnavailableUpload,
        uploads::{DeclarationError, OpenError, RenewError},
        uppy::{CompletePartsError, SignError},
    },
    model::{PartLayout, Rejection},
};

/// Detail of a failure that will pass.
const AFTER_A_MOMENT: &str = "Repeat the request after a moment, with the same Idempotency-Key if it had one.";
/// Retry-After, in seconds, for a failure that the operator must correct.
const OPERATOR_RETRY_AFTER: HeaderValue = HeaderValue::from_static("30");
/// Retry-After, in seconds, for an event stream beyond a limit: the streams that are open last for minutes.
const STREAM_RETRY_AFTER: HeaderValue = HeaderValue::from_static("30");

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Corrupt { .. } => {
                tracing::error!(%error, "malformed document in the database");
                Self::new(
                    Code::Internal,
                    "An internal error was logged under this request id. Repeating the request will not help.",
                )
            }
            StoreError::DatabaseTimeout | StoreError::ObjectsTimeout { .. } => {
                tracing::warn!(%error, "dependency timed out");
                Self::new(Code::Timeout, UNKNOWN_OUTCOME)
            }
            StoreError::Database(_)
            | StoreError::NotPrimary
            | StoreError::Update(_)
            | StoreError::Objects { .. }
            | StoreError::ObjectNotVisible
            | StoreError::Credentials { .. } => {
                tracing::warn!(%error, "dependency failed");
                Self::new(Code::Unavailable, AFTER_A_MOMENT)
            }
            StoreError::Contention { .. } => {
                tracing::warn!(%error, "request gave up after concurrent updates");
                Self::new(Code::Unavailable, "Concurrent requests changed the same records. Repeat the request after a moment.")
            }
            StoreError::ObjectsMisconfigured { .. } | StoreError::ObjectsRemain { .. } => {
                tracing::error!(%error, "object store rejects the configured credentials or bucket");
                let detail =
                    "The object store rejects this service until the operator corrects its settings. Repeat the request later.";
                Self::new(Code::Unavailable, detail).header(header::RETRY_AFTER, OPERATOR_RETRY_AFTER)
            }
            StoreError::ObjectRejected { .. } | StoreError::ObjectsUnsupported { .. } => {
                tracing::warn!(%error, "object store rejected a request for good");
                Self::new(
                    Code::NotSupportedByStore,
                    "The object store rejected the request and would reject it again. Upload the file with one PUT or as a multipart upload.",
                )
            }
        }
    }
}

impl From<OpenStreamError> for Problem {
    fn from(error: OpenStreamError) -> Self {
        match error {
            OpenStreamError::TooMany(TooManyStreams::OfUser) => {
                let detail =
                    format!("{MAX_STREAMS_PER_USER} event streams of this user are open. Close one, or poll the gallery.");
                Self::new(Code::RateLimited, detail).header(header::RETRY_AFTER, STREAM_RETRY_AFTER)
            }
            OpenStreamError::TooMany(TooManyStreams::OfServer) => {
                Self::new(Code::Unavailable, "Too many event streams are open. Poll the gallery meanwhile.")
                    .header(header::RETRY_AFTER, STREAM_RETRY_AFTER)
            }
            OpenStreamError::Unavailable => Self::new(Code::Unavailable, "No events can be sent now. Reconnect after a moment."),
        }
    }
}

impl From<NoLocalAccount> for Problem {
    fn from(error: NoLocalAccount) -> Self {
        Self::new(
            Code::LocalAccountsOnly,
            match error {
                NoLocalAccount::Disabled => "Sign in at the identity provider, and send its token as `Authorization: Bearer …`.",
                NoLocalAccount::Foreign => "The account belongs to an identity provider: it has no password here.",
            },
        )
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid => Self::new(Code::TokenInvalid, "Sign in to get an access token of this service."),
            TokenError::Expired => {
                Self::new(Code::TokenExpired, "Exchange the refresh token for a new access token, or sign in again.")
            }
        }
    }
}

impl From<AuthenticateError> for Problem {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Token(error) => error.into(),
            AuthenticateError::SessionEnded => Self::session_ended(),
            AuthenticateError::Suspended => Self::account_suspended(),
            AuthenticateError::KeysUnavailable => Self::new(
                Code::Unavailable,
                "The identity provider did not answer, and nothing was changed. Repeat the request after a moment.",
            ),
            AuthenticateError::Store(error @ StoreError::Corrupt { .. }) => error.into(),
            AuthenticateError::Store(error) => {
                tracing::warn!(%error, "failed to look up a session");
                Self::new(
                    Code::Unavailable,
                    "The session could not be checked, and nothing was changed. Repeat the request after a moment.",
                )
            }
        }
    }
}

impl From<RefreshError> for Problem {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Invalid => Self::new(Code::TokenInvalid, "Send the `refreshToken` of the last sign-in or refresh."),
            RefreshError::AlreadyExchanged => Self::new(
                Code::TokenInvalid,
                "The refresh token was exchanged a moment ago. Use the tokens of that exchange; a client that does not have them signs in again.",
            ),
            RefreshError::Ended => Self::session_ended(),
            RefreshError::Suspended => Self::account_suspended(),
            RefreshError::NoLocalAccount(error) => error.into(),
            RefreshError::Throttled(error) => error.into(),
            RefreshError::Store(error) => error.into(),
        }
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::InvalidDeclaration(reasons) => invalid_declaration(&reasons),
            OpenError::QuotaExceeded { quota, free } => Self::new(
                Code::QuotaExceeded,
                format!("{free} of {quota} bytes are free. Delete images or open uploads, or wait until open uploads expire."),
            ),
            OpenError::TooManyPending(most) => Self::new(
                Code::TooManyPending,
                format!("At most {most} uploads may be open. Confirm or delete some: GET /api/images/pending lists them."),
            ),
            OpenError::KeyReused => {
                Self::new(Code::IdempotencyKeyReused, "Send a new key, or exactly the request that first used this key.")
            }
            OpenError::NoAccount => Self::session_ended(),
            OpenError::Throttled(error) => error.into(),
            OpenError::Unsupported(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

/// Returns the problem of a declaration, with a field error for each reason; the first reason determines the code.
fn invalid_declaration(reasons: &[DeclarationError]) -> Problem {
    let code_and_member = |reason: &DeclarationError| match reason {
        DeclarationError::FileName(_) => (Code::InvalidFileName, "fileName"),
        DeclarationError::ContentType(_) => (Code::TypeNotAllowed, "contentType"),
        DeclarationError::Size => (Code::InvalidSize, "size"),
        DeclarationError::TooLarge(_) => (Code::FileTooLarge, "size"),
        DeclarationError::Sha256(_) => (Code::InvalidSha256, "sha256"),
        DeclarationError::PartSize => (Code::InvalidPartSize, "partSize"),
        DeclarationError::Caption(_) => (Code::InvalidCaption, "caption"),
        DeclarationError::PreviewType => (Code::InvalidPreview, "preview.contentType"),
        DeclarationError::PreviewSize => (Code::InvalidPreview, "preview.size"),
        DeclarationError::PreviewSha256(_) => (Code::InvalidPreview, "preview.sha256"),
        DeclarationError::ThumbHash(_) => (Code::InvalidThumbHash, "thumbHash"),
        DeclarationError::TakenAt | DeclarationError::TakenInFuture => (Code::InvalidTakenAt, "takenAt"),
    };
    let code = reasons.first().map_or(Code::InvalidRequest, |first| code_and_member(first).0);
    let problem = Problem::new(code, "The file cannot be stored as declared. Change the members that `errors` lists.");
    reasons.iter().fold(problem, |problem, reason| problem.field(code_and_member(reason).1, reason.to_string()))
}

impl From<UnavailableUpload> for Problem {
    fn from(error: UnavailableUpload) -> Self {
        match error {
            UnavailableUpload::NotFound => Self::not_found(),
            UnavailableUpload::Expired => expired(),
            UnavailableUpload::Rejected(why) => why.into(),
        }
    }
}

impl From<RenewError> for Problem {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Unavailable(error) => error.into(),
            RenewError::NotSingle => Self::new(
                Code::NotSinglePart,
                "The upload takes parts, not a single PUT. POST to /api/images/{id}/parts for the URLs of the missing parts; Uppy \
                 requests its own.",
            ),
            RenewError::Unsupported(error) => error.into(),
            RenewError::Store(error) => error.into(),
        }
    }
}

impl From<ConfirmError> for Problem {
    fn from(error: ConfirmError) -> Self {
        match error {
            ConfirmError::Unavailable(error) => error.into(),
            ConfirmError::ObjectMissing => Self::new(
                Code::ObjectMissing,
                "The bytes have not arrived. PUT them to the upload's URL, or complete Uppy's upload in parts, then confirm. If the \
                 URL has expired, renew it.",
            ),
            ConfirmError::PartsMissing(parts) => Self::new(
                Code::PartsMissing,
                format!("PUT these parts first, then confirm: {parts}. POST to /api/images/{{id}}/parts for their URLs."),
            ),
            ConfirmError::PartsRejected => Self::new(
                Code::InvalidParts,
                "The object store cannot assemble these parts. Upload those again that are too small (every part but the last \
                 needs at least 5 MiB) or too large, or delete the upload.",
            ),
            ConfirmError::Unsupported(error) => error.into(),
            ConfirmError::Store(error) => error.into(),
        }
    }
}

impl From<PartsError> for Problem {
    fn from(error: PartsError) -> Self {
        match error {
            PartsError::Unavailable(error) => error.into(),
            PartsError::NotMultipart => {
                Self::new(Code::NotMultipart, "The upload takes a single PUT. POST to /api/images/{id}/renew for a fresh URL.")
            }
            PartsError::Complete => {
                Self::new(Code::UploadComplete, "All parts have arrived. Confirm the upload to get the image.")
            }
            PartsError::InvalidParts(reasons) => unsignable(&reasons),
            PartsError::Throttled(error) => error.into(),
            PartsError::Unsupported(error) => error.into(),
            PartsError::Store(error) => error.into(),
        }
    }
}

impl From<CompletePartsError> for Problem {
    fn from(error: CompletePartsError) -> Self {
        match error {
            CompletePartsError::Count => Self::new(Code::InvalidParts, "The upload cannot be completed with so many parts.")
                .field("parts", format!("must have from 1 to {} items", PartLayout::MAX_PARTS)),
            CompletePartsError::Numbers(positions) => {
                let detail = "The upload cannot be completed with these parts. Change the members that `errors` lists.";
                positions.iter().fold(Self::new(Code::InvalidParts, detail), |problem, index| {
                    problem.field(format!("parts[{index}].PartNumber"), format!("must be from 1 to {}", PartLayout::MAX_PARTS))
                })
            }
            CompletePartsError::PartsMissing(parts) => Self::new(
                Code::PartsMissing,
                format!(
                    "These parts have not arrived, or have other entity tags: {parts}. Upload them again, then complete the upload."
                ),
            ),
            CompletePartsError::Parts(error) => error.into(),
            CompletePartsError::Confirm(error) => error.into(),
        }
    }
}

impl From<SignError> for Problem {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Open(error) => error.into(),
            SignError::Parts(error) => error.into(),
        }
    }
}

/// Returns the problem of parts that cannot be signed.
fn unsignable(reasons: &[InvalidPart]) -> Problem {
    let code_member_and_rule = |reason: &InvalidPart| match reason {
        InvalidPart::Count => {
            (Code::InvalidParts, "parts".to_owned(), format!("must have from 1 to {MAX_PARTS_PER_REQUEST} items"))
        }
        InvalidPart::Number(index, highest) => {
            (Code::InvalidParts, format!("parts[{index}].partNumber"), format!("must be from 1 to {highest}"))
        }
        InvalidPart::Sha256(index, rule) => (Code::InvalidSha256, format!("parts[{index}].sha256"), (*rule).to_owned()),
    };
    let code = reasons.first().map_or(Code::InvalidParts, |first| code_member_and_rule(first).0);
    let problem = Problem::new(code, "No URL was signed. Change the members that `errors` lists.");
    reasons.iter().map(code_member_and_rule).fold(problem, |problem, (_, member, rule)| problem.field(member, rule))
}

/// Returns the problem of an expired upload.
fn expired() -> Problem {
    Problem::new(Code::UploadExpired, "The upload has expired and nothing of it is kept. Open a new upload.")
}

impl From<Rejection> for Problem {
    fn from(why: Rejection) -> Self {
        match why {
            Rejection::ObjectMismatch => Self::new(
                Code::ObjectMismatch,
                "The uploaded object is not the declared one: its size, type or digest differs, it was sent with headers that the \
                 URL does not name, or it is stored in a way that cannot be read. It was deleted; open a new upload.",
            ),
            Rejection::ContentMismatch(Some(why)) => Self::new(
                Code::ContentMismatch,
                format!("The uploaded file was refused: {why}. It was deleted; open a new upload."),
            ),
            Rejection::ContentMismatch(None) => Self::new(
                Code::ContentMismatch,
                "The uploaded file is not an image of the declared type. It was deleted; open a new upload.",
            ),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::not_found(),
            ReadError::InvalidCaption(rule) => {
                Self::new(Code::InvalidCaption, format!("The caption {rule}.")).field("caption", rule)
            }
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<DeleteError> for Problem {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::NotFound => Self::not_found(),
            DeleteError::Complete => {
                Self::new(Code::UploadComplete, "The upload has become an image. Omit `onlyPending` to delete the image.")
            }
            DeleteError::Store(error) => error.into(),
        }
    }
}

impl From<UnsupportedUpload> for Problem {
    fn from(error: UnsupportedUpload) -> Self {
        match error {
            UnsupportedUpload::NotSupported(UploadClass::WithoutDigest) => Self::new(
                Code::NotSupportedByStore,
                "The object store would accept other bytes than the user's through this kind of upload. Declare the file's SHA-256 \
                 and upload it with one PUT: POST to /api/images/upload.",
            ),
            UnsupportedUpload::NotSupported(UploadClass::WithDigest) => Self::new(
                Code::NotSupportedByStore,
                "The object store obeys headers that no URL signs, which could publish or replace an upload. Nothing can be uploaded \
                 until the operator corrects this: `valet check` says how.",
            ),
            UnsupportedUpload::Store(error) => error.into(),
        }
    }
}
