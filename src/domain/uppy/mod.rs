//! Uploads by unmodified Uppy, which declares neither size nor digest, and does not confirm its forms.
//!
//! These uploads have a maximum size, which is reserved; the actual bytes are verified at confirm, and the rest of the reservation
//! is released.
//! Forms, and the objects of Uppy's own S3 client, are written under `in/` and copied at confirm, because their URLs can write
//! more than once; the sweeper polls for them. Parts that this server completes become an object at its final key.
//!
//! This file has the validation of metadata, and forms; `token` has the tokens in paths, `parts` the multipart calls of
//! Companion's protocol, `signing` the requests that Uppy's own S3 client sends, `part_limits` the bound on parts of undeclared
//! length.

pub(super) mod part_limits;
mod parts;
mod signing;
mod token;

use std::sync::Arc;

use time::OffsetDateTime;

pub(super) use self::part_limits::PartLimits;
pub use self::token::{UppyToken, UppyTokens};
pub use self::{
    parts::{CompletePartsError, ListedPart, NamedPart, NamedUpload},
    signing::{PartsCall, SignError, SignedCall, UppyCall},
};
use super::{
    arrival_polling::{ArrivalPoller, FIRST_POLL_DELAY},
    confirm::Confirmation,
    inspection::PartsCompletion,
    lifecycle::Lifecycle,
    multipart::MultipartOpening,
    removal::ObjectRemoval,
    reservations::Reservations,
    store_capabilities::{KnownCapabilities, UploadClass},
    throttle::Throttle,
    unavailable_upload::UnavailableUpload,
    uploads::{DeclarationError, OpenError, Quota, validate_size, validate_type},
};
pub use crate::signer::SignedForm;
use crate::{
    config,
    model::{Caption, ContentType, FileName, Image, ImageId, ImageStatus, Lifetimes, ObjectKey, Upload, UploadKind, UserId},
    store::{InsertOutcome, Objects, ReserveOutcome, Store, StoreError},
};

/// A multipart upload without a declared size reserves the quota divided by this, within the limits of `validate_parts()`.
const QUOTA_DIVISOR: u64 = 16;
/// Maximum number of forms that are confirmed at once if the free quota is too small for another upload.
const MAX_FORMS_PER_CONFIRM: usize = 16;
/// Maximum number of open uploads that are read to find these forms.
const MAX_OPEN_UPLOADS_READ: u32 = 100;
/// Attempts to reserve: one, and more after the user's forms were confirmed.
const MAX_ATTEMPTS: usize = 5;

/// A file's metadata as Uppy sends it, not validated yet.
#[derive(Debug, Clone, Copy)]
pub struct UppyMetadata<'a> {
    /// See [`FileName`].
    pub file_name: &'a str,
    /// Media type; absent for file types that Uppy does not know.
    pub content_type: Option<&'a str>,
    /// Size in bytes, if the page adds it. A value that is not a number is ignored.
    pub size: Option<i64>,
    /// See [`Caption`].
    pub caption: Option<&'a str>,
}

/// Uploads by Uppy.
#[derive(Debug)]
pub struct UppyUploads {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) settings: Arc<config::Uploads>,
    pub(super) capabilities: Arc<KnownCapabilities>,
    pub(super) arrival_poller: Arc<ArrivalPoller>,
    pub(super) reservations: Arc<Reservations>,
    pub(super) quota: Arc<Quota>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) confirmation: Arc<Confirmation>,
    pub(super) opening: Arc<MultipartOpening>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) part_limits: Arc<PartLimits>,
    pub(super) parts_completion: Arc<PartsCompletion>,
    pub(super) removal: Arc<ObjectRemoval>,
}

impl UppyUploads {
    /// Returns a signed form for one file.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_form(
        &self,
        user: UserId,
        metadata: &UppyMetadata<'_>,
        now: OffsetDateTime,
    ) -> Result<SignedForm, OpenError> {
        self.capabilities.require_support(UploadClass::WithoutDigest)?;
        let upload = self.validate_form(user, metadata).await?;
        let id = ImageId::new();
        let key = ObjectKey::incoming(user, id);
        let form = self.objects.sign_form(&key, upload.content_type, upload.size, now, self.settings.url_ttl)?;
        // No other form can be signed for this upload, so the upload expires with this form.
        let lifetimes = Lifetimes { created_at: now, expires_at: form.expires_at, urls_expire_at: form.expires_at };
        self.reserve_and_insert(&Image::pending(user, id, key, upload, None, lifetimes), now + FIRST_POLL_DELAY, now).await?;
        self.arrival_poller.schedule();
        Ok(form)
    }

    /// Reserves quota and inserts the image. If the free quota is too small, confirms the user's earlier forms first: each may
    /// have reserved many more bytes than it needs.
    async fn reserve_and_insert(&self, image: &Image, due: OffsetDateTime, now: OffsetDateTime) -> Result<(), OpenError> {
        let (user, bytes) = (image.user, image.reserved);
        for round in 0..MAX_ATTEMPTS {
            if self.reservations.reserve(user, &[image], now).await? == ReserveOutcome::Reserved {
                if self.reservations.insert_reserved(user, &[(image, due)]).await? == [InsertOutcome::Inserted] {
                    return Ok(());
                }
                return Err(StoreError::Contention { subject: "an image's id" }.into());
            }
            if round == 0 {
                self.confirm_arrived_forms(user, now).await?;
            } else {
                self.quota.explain_rejection(user, bytes).await?;
            }
        }
        Err(StoreError::Contention { subject: "the user's reservations" }.into())
    }

    /// Confirms the user's forms that have arrived, the oldest first.
    ///
    /// # Errors
    /// [`OpenError::Throttled`] if the user has used up their calls to S3: each form takes two, one to find and one to read the
    /// object.
    async fn confirm_arrived_forms(&self, user: UserId, now: OffsetDateTime) -> Result<(), OpenError> {
        let open = self.store.images.list_owned_pending(user, None, MAX_OPEN_UPLOADS_READ).await?;
        let forms = open.iter().rev().filter(|image| image.upload.kind == UploadKind::Form).map(|image| image.id);
        let forms: Vec<_> = forms.take(MAX_FORMS_PER_CONFIRM).collect();
        if !forms.is_empty() {
            self.throttle.count_s3_calls(user, 2 * u32::try_from(forms.len()).unwrap_or(u32::MAX / 2))?;
            self.confirmation.confirm_all(user, &forms, now).await?;
        }
        Ok(())
    }

    /// Validates the metadata of a form.
    ///
    /// # Errors
    /// [`OpenError::InvalidDeclaration`] with every rule that it breaks; [`OpenError::Store`].
    async fn validate_form(&self, user: UserId, metadata: &UppyMetadata<'_>) -> Result<Upload, OpenError> {
        let max = self.settings.max_bytes;
        let when_undeclared = match metadata.size {
            Some(_) => max,
            None => self.quota.owned_quota(user).await?.min(max).max(1),
        };
        self.validate_metadata(metadata, UploadKind::Form, SizeLimits { max, when_undeclared })
            .map_err(OpenError::InvalidDeclaration)
    }

    /// Validates the metadata of a multipart upload.
    ///
    /// # Errors
    /// [`OpenError::InvalidDeclaration`] with every rule that it breaks; [`OpenError::Store`].
    async fn validate_parts(&self, user: UserId, metadata: &UppyMetadata<'_>) -> Result<Upload, OpenError> {
        let max = self.settings.multipart_max_bytes;
        let when_undeclared = match metadata.size {
            Some(_) => max,
            None => {
                let quota = self.quota.owned_quota(user).await?;
                (quota / QUOTA_DIVISOR).max(self.settings.max_bytes).min(max).min(quota).max(1)
            }
        };
        let limits = SizeLimits { max, when_undeclared };
        self.validate_metadata(metadata, UploadKind::UndeclaredParts, limits).map_err(OpenError::InvalidDeclaration)
    }

    /// Validates the metadata of a file.
    fn validate_metadata(
        &self,
        metadata: &UppyMetadata<'_>,
        kind: UploadKind,
        limits: SizeLimits,
    ) -> Result<Upload, Vec<DeclarationError>> {
        let size = metadata.size.map_or(Ok(limits.when_undeclared), |size| validate_size(size, limits.max));
        let file_name = FileName::parse(metadata.file_name).map_err(DeclarationError::FileName);
        let declared =
            metadata.content_type.filter(|text| !matches!(*text, "" | "null" | "undefined" | "application/octet-stream"));
        let content_type = match declared {
            Some(declared) => validate_type(&self.settings, declared),
            // Neither Uppy's list of extensions nor every browser knows all of these types.
            None => validate_type(&self.settings, ContentType::by_extension(metadata.file_name).map_or("", ContentType::as_str)),
        };
        let caption = metadata.caption.filter(|text| !matches!(*text, "null" | "undefined")).unwrap_or_default();
        let caption = Caption::parse(caption).map_err(DeclarationError::Caption);
        match (file_name, content_type, size, caption) {
            (Ok(file_name), Ok(content_type), Ok(size), Ok(caption)) => {
                Ok(Upload { file_name, content_type, size, kind, caption, thumb_hash: None, taken_at: None })
            }
            (file_name, content_type, size, caption) => {
                Err([file_name.err(), content_type.err(), size.err(), caption.err()].into_iter().flatten().collect())
            }
        }
    }
}

/// Limits of the size of an upload, in bytes.
#[derive(Debug, Clone, Copy)]
struct SizeLimits {
    /// Maximum of a declared size.
    max: u64,
    /// Bound of an upload whose size is not declared.
    when_undeclared: u64,
}

/// Checks that a multipart upload is open at `now`, or ready.
fn require_open_or_ready(image: Image, now: OffsetDateTime) -> Result<Image, UnavailableUpload> {
    match &image.status {
        ImageStatus::Ready(_) => Ok(image),
        ImageStatus::Pending if image.expires_at > now => Ok(image),
        ImageStatus::Pending => Err(UnavailableUpload::Expired),
        ImageStatus::Tombstone(end) | ImageStatus::Purged(end) => Err((*end).into()),
    }
}
