//! Opens uploads: validates declarations, reserves quota, and presigns PUTs.
//!
//! This file has the service, the declarations with their validation, and the signing of PUTs. `open` opens uploads, `idempotency`
//! finds the upload of an idempotency key, `recent_uploads` guesses whether the bytes of an upload are known, `quota` reads quotas
//! and explains why a reservation was rejected, `renew` signs new URLs, `redeclare` changes the declaration of pending uploads.
//! `open`, `renew` and `redeclare` work on batches, in a few round trips for any number.

mod idempotency;
mod open;
mod quota;
mod recent_uploads;
mod redeclare;
mod renew;

use std::{fmt, sync::Arc};

use aws_lc_rs::digest;
use time::OffsetDateTime;

pub(super) use self::{idempotency::IdempotencyKeys, quota::Quota, recent_uploads::RecentUploads};
use super::{
    inspection::UploadInspector,
    late_transfers::LateTransfers,
    lifecycle::Lifecycle,
    reservations::Reservations,
    single_result,
    store_capabilities::{KnownCapabilities, UnsupportedUpload},
    throttle::Throttled,
    unavailable_upload::UnavailableUpload,
};
pub use crate::store::objects::PresignedPut;
use crate::{
    config,
    model::{
        Caption, ContentType, FileName, IdempotencyKey, Image, ImageId, InvalidFileName, InvalidSha256, InvalidThumbHash,
        ObjectKey, PartLayout, Position, Preview, Sha256, TakenAt, ThumbHash, Upload, UploadKind, UserId,
    },
    store::{Objects, Store, StoreError, objects::NewObject},
};

/// A client's declaration of an upload, not validated yet.
#[derive(Debug, Clone, Copy)]
pub struct DeclaredUpload<'a> {
    /// See [`FileName`].
    pub file_name: &'a str,
    /// See [`ContentType`].
    pub content_type: &'a str,
    /// Size in bytes; any integer.
    pub size: i64,
    /// See [`Sha256`].
    pub sha256: &'a str,
    /// See [`Caption`].
    pub caption: Option<&'a str>,
    /// The image's preview, if one is uploaded beside it.
    pub preview: Option<DeclaredPreview<'a>>,
    /// See [`ThumbHash`].
    pub thumb_hash: Option<&'a str>,
    /// See [`TakenAt`].
    pub taken_at: Option<&'a str>,
    /// Idempotency key of the request.
    pub key: Option<&'a IdempotencyKey>,
}

/// A client's declaration of a preview, not validated yet.
#[derive(Debug, Clone, Copy)]
pub struct DeclaredPreview<'a> {
    /// Type of the preview: one of [`Preview::TYPES`].
    pub content_type: &'a str,
    /// Size in bytes; any integer.
    pub size: i64,
    /// See [`Sha256`].
    pub sha256: &'a str,
}

impl DeclaredUpload<'_> {
    /// Returns the digest of the declaration, which distinguishes a repeat from another request with the same key.
    fn fingerprint(&self) -> Sha256 {
        let size = self.size.to_string();
        let (caption, thumb_hash) = (self.caption.unwrap_or_default(), self.thumb_hash.unwrap_or_default());
        let preview = self.preview.map(|preview| (preview.content_type, preview.size.to_string(), preview.sha256));
        let (preview_type, preview_size, preview_sha256) =
            preview.as_ref().map_or(("", "", ""), |(content_type, size, sha256)| (*content_type, size.as_str(), *sha256));
        let preview = [preview_type, preview_size, preview_sha256];
        let members = [self.file_name, self.content_type, &size, self.sha256, caption, thumb_hash];
        // `taken_at` counts only if it is declared, so that the idempotency key of a request to a version without `takenAt` stays
        // valid.
        fingerprint(&[members.as_slice(), preview.as_slice(), self.taken_at.as_slice()].concat())
    }
}

/// Returns the digest of a request's members, in order.
pub(super) fn fingerprint(members: &[&str]) -> Sha256 {
    let mut context = digest::Context::new(&digest::SHA256);
    for member in members {
        context.update(&(member.len() as u64).to_be_bytes());
        context.update(member.as_bytes());
    }
    Sha256::finish(context)
}

/// Why a declaration is invalid. Each variant is about one member of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclarationError {
    /// `fileName`
    FileName(InvalidFileName),
    /// `contentType`; contains the allowed types.
    ContentType(Vec<ContentType>),
    /// `size`: less than a byte.
    Size,
    /// `size`; contains the maximum in bytes.
    TooLarge(u64),
    /// `sha256`
    Sha256(InvalidSha256),
    /// `partSize`, or the number of parts that follows from it.
    PartSize,
    /// `caption`; contains the rule, which ends a sentence that begins with the member's name.
    Caption(&'static str),
    /// `preview.contentType`
    PreviewType,
    /// `preview.size`
    PreviewSize,
    /// `preview.sha256`
    PreviewSha256(InvalidSha256),
    /// `thumbHash`
    ThumbHash(InvalidThumbHash),
    /// `takenAt`
    TakenAt,
    /// `takenAt`: in the future in every time zone.
    TakenInFuture,
}

impl fmt::Display for DeclarationError {
    /// Writes the end of a sentence that begins with the member's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileName(error) => error.fmt(f),
            Self::ContentType(allowed) => write_allowed_types(f, allowed),
            Self::PreviewType => write_allowed_types(f, &Preview::TYPES),
            Self::PreviewSize => write!(f, "must be from 1 to {} bytes", Preview::MAX_BYTES),
            Self::ThumbHash(error) => error.fmt(f),
            Self::TakenAt => write!(
                f,
                "must be a local date and time in whole seconds from the year {} on, such as 2024-12-21T23:39:24+01:00, or \
                 2024-12-21T23:39:24 if the offset from UTC is unknown",
                TakenAt::FIRST_YEAR
            ),
            Self::TakenInFuture => f.write_str("must not be in the future"),
            Self::Size => f.write_str("must be at least 1 byte"),
            Self::TooLarge(max) => write!(f, "must be at most {max} bytes"),
            Self::Sha256(error) | Self::PreviewSha256(error) => error.fmt(f),
            Self::PartSize => write!(
                f,
                "must be from {} to {} bytes, and large enough for {} parts to suffice",
                PartLayout::MIN_PART_SIZE,
                PartLayout::MAX_PART_SIZE,
                PartLayout::MAX_PARTS
            ),
            Self::Caption(rule) => f.write_str(rule),
        }
    }
}

/// Writes the rule that names the allowed types.
fn write_allowed_types(f: &mut fmt::Formatter<'_>, allowed: &[ContentType]) -> fmt::Result {
    let names: Vec<_> = allowed.iter().map(|known| known.as_str()).collect();
    write!(f, "must be one of {}", names.join(", "))
}

/// Why no upload was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The declaration is invalid; never empty.
    #[error("the declaration is invalid")]
    InvalidDeclaration(Vec<DeclarationError>),
    /// The bytes exceed the free quota.
    #[error("the quota of {quota} bytes has {free} left")]
    QuotaExceeded {
        /// Quota of the user in bytes.
        quota: u64,
        /// Free part of the quota in bytes.
        free: u64,
    },
    /// Too many uploads are open; contains the maximum.
    #[error("the maximum of {0} open uploads is reached")]
    TooManyPending(u32),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The account has been deleted.
    #[error("the account has been deleted")]
    NoAccount,
    /// Freeing quota for the upload takes more calls to S3 than the user's rate limit allows.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The store does not take uploads of this class safely.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedUpload),
    /// The database failed; an upload may have been opened. A repeat is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an upload got no new URLs.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The upload is neither open nor ready.
    #[error(transparent)]
    Unavailable(#[from] UnavailableUpload),
    /// The upload is a multipart upload; its URLs are requested by part number.
    #[error("the upload is a multipart upload")]
    NotSingle,
    /// The store does not take uploads of this class safely.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedUpload),
    /// The database or the credentials failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An open upload, or a ready image with the same bytes.
#[derive(Debug)]
pub enum Ticket {
    /// The client is to upload the bytes.
    Pending(Box<Image>, PresignedPuts),
    /// The bytes have been uploaded before.
    Ready(Box<Image>),
}

/// The presigned PUTs of an upload.
#[derive(Debug, Clone)]
pub struct PresignedPuts {
    /// PUT of the image.
    pub image: PresignedPut,
    /// PUT of its preview, if one was declared.
    pub preview: Option<PresignedPut>,
}

impl PresignedPuts {
    /// Returns when the last of the URLs expires.
    fn expire_at(&self) -> OffsetDateTime {
        let preview = self.preview.as_ref().map(|put| put.signed.expires_at);
        preview.map_or(self.image.signed.expires_at, |expires_at| expires_at.max(self.image.signed.expires_at))
    }
}

/// Result of a declaration: an upload or image, new or known before.
#[derive(Debug)]
pub struct OpenOutcome {
    /// The ticket, for the client.
    pub ticket: Ticket,
    /// Whether this call opened the upload. Otherwise an upload or image with the same bytes or key was found.
    pub is_new: bool,
}

/// Uploads by single PUTs.
#[derive(Debug)]
pub struct Uploads {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) settings: Arc<config::Uploads>,
    pub(super) capabilities: Arc<KnownCapabilities>,
    pub(super) reservations: Arc<Reservations>,
    pub(super) late_transfers: LateTransfers,
    pub(super) quota: Arc<Quota>,
    pub(super) inspector: Arc<UploadInspector>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) recent: RecentUploads,
}

impl Uploads {
    /// Opens an upload, or finds this user's upload or image with the same bytes or the same key.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, user: UserId, declared: DeclaredUpload<'_>, now: OffsetDateTime) -> Result<OpenOutcome, OpenError> {
        single_result(self.open_all(user, &[declared], now).await?)
    }

    /// Signs new URLs for an open upload; returns the image if it is ready.
    ///
    /// # Errors
    /// [`RenewError`].
    pub async fn renew(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<Ticket, RenewError> {
        single_result(self.renew_all(user, &[id], now).await?)
    }

    /// Validates a declaration. Returns every rule that it breaks.
    fn validate(&self, declared: &DeclaredUpload<'_>, now: OffsetDateTime) -> Result<(Upload, Sha256), Vec<DeclarationError>> {
        let size = validate_size(declared.size, self.settings.max_bytes);
        let file_name = FileName::parse(declared.file_name).map_err(DeclarationError::FileName);
        let content_type = validate_type(&self.settings, declared.content_type);
        let sha256 = Sha256::parse(declared.sha256).map_err(DeclarationError::Sha256);
        let caption = Caption::parse(declared.caption.unwrap_or_default()).map_err(DeclarationError::Caption);
        let preview = declared.preview.map(validate_preview).transpose();
        let thumb_hash_and_time = validate_thumb_hash_and_time(declared.thumb_hash, declared.taken_at, now);
        match (file_name, content_type, size, sha256, caption, preview, thumb_hash_and_time) {
            (Ok(file_name), Ok(content_type), Ok(size), Ok(sha256), Ok(caption), Ok(preview), Ok((thumb_hash, taken_at))) => {
                let kind = UploadKind::Put { sha256, preview };
                Ok((Upload { file_name, content_type, size, kind, caption, thumb_hash, taken_at }, sha256))
            }
            (file_name, content_type, size, sha256, caption, preview, thumb_hash_and_time) => {
                let broken = [file_name.err(), content_type.err(), size.err(), sha256.err(), caption.err()];
                let error_lists = [thumb_hash_and_time.err(), preview.err()].into_iter().flatten().flatten();
                Err(broken.into_iter().flatten().chain(error_lists).collect())
            }
        }
    }

    /// Returns at most `limit` open uploads, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_pending(&self, user: UserId, after: Option<Position>, limit: u32) -> Result<Vec<Image>, StoreError> {
        self.store.images.list_owned_pending(user, after, limit).await
    }

    /// Presigns the PUTs of an upload and of its preview.
    fn presign_puts(
        &self,
        key: &ObjectKey,
        upload: &Upload,
        sha256: Sha256,
        now: OffsetDateTime,
    ) -> Result<PresignedPuts, StoreError> {
        let ttl = self.settings.url_ttl;
        let sign = |Preview { content_type, size, sha256 }: Preview| {
            self.objects.presign_put(&key.preview(), NewObject { content_type, size, sha256 }, now, ttl)
        };
        let image = NewObject { content_type: upload.content_type, size: upload.size, sha256 };
        Ok(PresignedPuts {
            image: self.objects.presign_put(key, image, now, ttl)?,
            preview: upload.preview().map(sign).transpose()?,
        })
    }

    /// Returns the quota, in bytes, of users without a quota of their own.
    #[must_use]
    pub fn default_quota_bytes(&self) -> u64 {
        self.settings.quota_bytes
    }
}

/// Returns the declared media type if it is accepted.
pub(super) fn validate_type(settings: &config::Uploads, declared: &str) -> Result<ContentType, DeclarationError> {
    let allowed = ContentType::parse(declared).filter(|known| settings.types.contains(known));
    allowed.ok_or_else(|| DeclarationError::ContentType(settings.types.clone()))
}

/// Returns the declared size if it is from 1 to `max` bytes.
pub(super) fn validate_size(declared: i64, max: u64) -> Result<u64, DeclarationError> {
    match u64::try_from(declared) {
        Err(_) | Ok(0) => Err(DeclarationError::Size),
        Ok(size) if size > max => Err(DeclarationError::TooLarge(max)),
        Ok(size) => Ok(size),
    }
}

/// Validates the declaration of a preview.
fn validate_preview(declared: DeclaredPreview<'_>) -> Result<Preview, Vec<DeclarationError>> {
    let content_type = ContentType::parse(declared.content_type).filter(|known| Preview::TYPES.contains(known));
    let size = u64::try_from(declared.size).ok().filter(|size| (1..=Preview::MAX_BYTES).contains(size));
    match (content_type, size, Sha256::parse(declared.sha256)) {
        (Some(content_type), Some(size), Ok(sha256)) => Ok(Preview { content_type, size, sha256 }),
        (content_type, size, sha256) => {
            let broken = [
                content_type.is_none().then_some(DeclarationError::PreviewType),
                size.is_none().then_some(DeclarationError::PreviewSize),
                sha256.err().map(DeclarationError::PreviewSha256),
            ];
            Err(broken.into_iter().flatten().collect())
        }
    }
}

/// Validates the `ThumbHash` and the time taken. Each is `None` if it was not declared.
pub(super) fn validate_thumb_hash_and_time(
    thumb_hash: Option<&str>,
    taken_at: Option<&str>,
    now: OffsetDateTime,
) -> Result<(Option<ThumbHash>, Option<TakenAt>), Vec<DeclarationError>> {
    let thumb_hash = thumb_hash.map(ThumbHash::parse).transpose().map_err(DeclarationError::ThumbHash);
    let taken_at = taken_at.map(|text| validate_taken_at(text, now)).transpose();
    match (thumb_hash, taken_at) {
        (Ok(thumb_hash), Ok(taken_at)) => Ok((thumb_hash, taken_at)),
        (thumb_hash, taken_at) => Err([thumb_hash.err(), taken_at.err()].into_iter().flatten().collect()),
    }
}

/// Validates the declared time at which an image was taken.
fn validate_taken_at(declared: &str, now: OffsetDateTime) -> Result<TakenAt, DeclarationError> {
    let taken_at = TakenAt::parse(declared).ok_or(DeclarationError::TakenAt)?;
    if taken_at.has_passed(now) { Ok(taken_at) } else { Err(DeclarationError::TakenInFuture) }
}
