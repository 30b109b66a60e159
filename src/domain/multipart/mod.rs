//! Multipart uploads: opens them, presigns their parts, and lists the parts that have arrived. `opening` creates them in S3,
//! `parts` validates requests for part URLs; `inspection::completing` completes them.
//!
//! Each upload has a multipart upload in the store, whose id is the document's `uploadId`. It is created after the document is
//! inserted, and aborted before the object is deleted, so that a crash between two steps leaves nothing that the document does
//! not name.

mod opening;
mod parts;

use std::sync::Arc;

use time::OffsetDateTime;

pub(super) use self::opening::{MultipartOpening, unopened_lifetimes};
pub use self::parts::{InvalidPart, MAX_PARTS_PER_REQUEST, RequestedPart};
use super::{
    late_transfers::LateTransfers,
    lifecycle::Lifecycle,
    reservations::Reservations,
    store_capabilities::{KnownCapabilities, UnsupportedUpload, UploadClass},
    throttle::Throttled,
    unavailable_upload::UnavailableUpload,
    uploads::{DeclarationError, IdempotencyKeys, OpenError, Quota, fingerprint, validate_type},
};
use crate::{
    config,
    model::{
        Caption, FileName, Idempotency, IdempotencyKey, Image, ImageId, ImageStatus, ObjectKey, PartChecksums, PartLayout,
        Sha256, Upload, UploadKind, UserId,
    },
    store::{
        InsertOutcome, Objects, ReserveOutcome, Store, StoreError,
        objects::{NewPart, PresignedPut},
    },
};

/// A client's declaration of a multipart upload, not validated yet.
#[derive(Debug, Clone, Copy)]
pub struct DeclaredMultipart<'a> {
    /// See [`FileName`].
    pub file_name: &'a str,
    /// See [`crate::model::ContentType`].
    pub content_type: &'a str,
    /// Size in bytes; any integer.
    pub size: i64,
    /// Size in bytes of every part except the last; `None` lets the server choose.
    pub part_size: Option<i64>,
    /// Checksum that S3 verifies of each part.
    pub part_checksums: PartChecksums,
    /// See [`Caption`].
    pub caption: Option<&'a str>,
    /// See [`crate::model::ThumbHash`].
    pub thumb_hash: Option<&'a str>,
    /// See [`crate::model::TakenAt`].
    pub taken_at: Option<&'a str>,
    /// Idempotency key of the request.
    pub key: Option<&'a IdempotencyKey>,
}

impl DeclaredMultipart<'_> {
    /// Returns the digest of the declaration, which distinguishes a repeat from another request with the same key.
    fn fingerprint(&self) -> Sha256 {
        let (size, part_size) = (self.size.to_string(), self.part_size.map_or_else(String::new, |size| size.to_string()));
        let (caption, thumb_hash) = (self.caption.unwrap_or_default(), self.thumb_hash.unwrap_or_default());
        let (content_type, checksums) = (self.content_type, self.part_checksums.as_str());
        let members = ["multipart", self.file_name, content_type, &size, &part_size, checksums, caption, thumb_hash];
        fingerprint(&[members.as_slice(), self.taken_at.as_slice()].concat())
    }
}

/// Why the parts of an upload are not presigned or listed.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// The upload is neither open nor ready.
    #[error(transparent)]
    Unavailable(#[from] UnavailableUpload),
    /// The upload is a single PUT.
    #[error("the upload is not a multipart upload")]
    NotMultipart,
    /// The upload is complete: its parts are an image.
    #[error("the upload is complete")]
    Complete,
    /// Some requested parts are invalid; never empty.
    #[error("the parts cannot be signed")]
    InvalidParts(Vec<InvalidPart>),
    /// Listing the parts takes more calls to S3 than the user's rate limit allows.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The store does not take uploads of this class safely.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedUpload),
    /// The database, S3 or the credentials failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Attempts at an upload that concurrent requests change; more conflicts are an error.
const MAX_ATTEMPTS: usize = 5;

/// Multipart uploads.
#[derive(Debug)]
pub struct Multipart {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) settings: Arc<config::Uploads>,
    pub(super) capabilities: Arc<KnownCapabilities>,
    pub(super) idempotency_keys: IdempotencyKeys,
    pub(super) opening: Arc<MultipartOpening>,
    pub(super) reservations: Arc<Reservations>,
    pub(super) quota: Arc<Quota>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) late_transfers: LateTransfers,
}

/// An open multipart upload.
#[derive(Debug)]
pub struct OpenedMultipart {
    /// The upload.
    pub image: Image,
    /// The layout of its parts.
    pub layout: PartLayout,
    /// Whether this call opened it. Otherwise it was found by its idempotency key.
    pub is_new: bool,
}

impl Multipart {
    /// Opens a multipart upload, or finds the one with the same idempotency key.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        &self,
        user: UserId,
        declared: &DeclaredMultipart<'_>,
        now: OffsetDateTime,
    ) -> Result<OpenedMultipart, OpenError> {
        let (upload, layout) = self.validate_multipart(declared, now).map_err(OpenError::InvalidDeclaration)?;
        self.capabilities.require_support(UploadClass::WithoutDigest)?;
        let idempotency = declared.key.map(|key| Idempotency { key: key.clone(), request: declared.fingerprint() });
        for _ in 0..MAX_ATTEMPTS {
            if let Some(idempotency) = &idempotency
                && let Some(image) = self.idempotency_keys.find_under_key(user, idempotency, now).await?
            {
                let layout = image.upload.part_layout().ok_or(OpenError::KeyReused)?;
                if image.status == ImageStatus::Pending && image.is_unopened() {
                    // The request that opened the upload was cancelled, or is still running.
                    self.opening.create_multipart_in_s3(&image, layout.checksums()).await?;
                    continue;
                }
                return Ok(OpenedMultipart { image, layout, is_new: false });
            }
            let id = ImageId::new();
            // No URL can write the object, because only the server completes its parts. So it is created at its final key.
            let lifetimes = unopened_lifetimes(now);
            let image = Image::pending(user, id, ObjectKey::final_for(user, id), upload.clone(), idempotency.clone(), lifetimes);
            if self.reservations.reserve(user, &[&image], now).await? == ReserveOutcome::Rejected {
                self.quota.explain_rejection(user, image.reserved).await?;
                continue;
            }
            if self.reservations.insert_reserved(user, &[(&image, image.expires_at)]).await? != [InsertOutcome::Inserted] {
                continue;
            }
            if let Err(error) = self.opening.create_multipart_in_s3(&image, layout.checksums()).await {
                // The client gets no id, and its next attempt opens another upload, so this one must not take quota for days. The
                // sweeper aborts the upload that S3 may have opened.
                if let Err(error) = self.lifecycle.delete_pending(&image, now).await {
                    tracing::warn!(image = %id, %error, "failed to delete an upload that S3 did not open; it will expire");
                }
                return Err(error.into());
            }
            let expires_at = self.opening.opened_lifetimes(&image).expires_at;
            return Ok(OpenedMultipart { image: Image { expires_at, ..image }, layout, is_new: true });
        }
        Err(StoreError::Contention { subject: "the user's reservations" }.into())
    }

    /// Validates a declaration. Returns every rule that it breaks.
    fn validate_multipart(
        &self,
        declared: &DeclaredMultipart<'_>,
        now: OffsetDateTime,
    ) -> Result<(Upload, PartLayout), Vec<DeclarationError>> {
        let size = super::uploads::validate_size(declared.size, self.settings.multipart_max_bytes);
        let multipart = size.as_ref().ok().map(|size| {
            // A negative number is below the minimum, as zero is.
            let declared_size = declared.part_size.map(|bytes| u64::try_from(bytes).unwrap_or(0));
            let part_size = declared_size.unwrap_or_else(|| PartLayout::part_size_for(*size));
            PartLayout::new(*size, part_size, declared.part_checksums).ok_or(DeclarationError::PartSize)
        });
        let file_name = FileName::parse(declared.file_name).map_err(DeclarationError::FileName);
        let content_type = validate_type(&self.settings, declared.content_type);
        let caption = Caption::parse(declared.caption.unwrap_or_default()).map_err(DeclarationError::Caption);
        let thumb_hash_and_time = super::uploads::validate_thumb_hash_and_time(declared.thumb_hash, declared.taken_at, now);
        match (file_name, content_type, size, multipart, caption, thumb_hash_and_time) {
            (Ok(file_name), Ok(content_type), Ok(size), Some(Ok(multipart)), Ok(caption), Ok((thumb_hash, taken_at))) => {
                let kind = UploadKind::Parts(multipart);
                Ok((Upload { file_name, content_type, size, kind, caption, thumb_hash, taken_at }, multipart))
            }
            (file_name, content_type, size, multipart, caption, thumb_hash_and_time) => {
                let part_size = multipart.and_then(Result::err);
                let broken = [file_name.err(), content_type.err(), size.err(), part_size, caption.err()];
                Err(broken.into_iter().flatten().chain(thumb_hash_and_time.err().into_iter().flatten()).collect())
            }
        }
    }

    /// Presigns PUTs of these parts, in the order of the request.
    ///
    /// # Errors
    /// [`PartsError`].
    pub async fn sign_parts(
        &self,
        user: UserId,
        id: ImageId,
        requested: &[RequestedPart<'_>],
        now: OffsetDateTime,
    ) -> Result<Vec<(u32, PresignedPut)>, PartsError> {
        for _ in 0..MAX_ATTEMPTS {
            let (image, multipart) = self.find_multipart(user, id).await?;
            match image.status {
                ImageStatus::Ready(_) => return Err(PartsError::Complete),
                _ if image.expires_at <= now => return Err(UnavailableUpload::Expired.into()),
                _ => {}
            }
            let parts = parts::validate(multipart, requested).map_err(PartsError::InvalidParts)?;
            self.capabilities.require_support(UploadClass::WithoutDigest)?;
            let Some(upload_id) = &image.upload_id else {
                // The server that opened the upload died before it recorded S3's upload id.
                self.opening.create_multipart_in_s3(&image, multipart.checksums()).await?;
                continue;
            };
            let sign = |part: NewPart| {
                let put = self.objects.presign_part(&image.key, upload_id, part, now, self.settings.url_ttl)?;
                Ok((part.number, put))
            };
            let signed = parts.into_iter().map(sign).collect::<Result<Vec<_>, StoreError>>()?;
            let expires_at = signed.iter().map(|(_, put)| put.signed.expires_at).max().unwrap_or(now);
            let due = expires_at + self.late_transfers.grace(image.upload.largest_transfer());
            if self.store.images.raise_owned_url_expiry(user, &[id], expires_at, due).await? == 1 {
                return Ok(signed);
            }
        }
        Err(StoreError::Contention { subject: "a multipart upload" }.into())
    }

    /// Returns numbers and sizes of the parts that have arrived.
    ///
    /// # Errors
    /// [`PartsError`].
    pub async fn stored_parts(&self, user: UserId, id: ImageId) -> Result<Vec<(u32, u64)>, PartsError> {
        let (image, multipart) = self.find_multipart(user, id).await?;
        if matches!(image.status, ImageStatus::Ready(_)) {
            return Ok(multipart.parts().collect());
        }
        let Some(upload_id) = &image.upload_id else { return Ok(Vec::new()) };
        if let Some(parts) = self.objects.list_parts(&image.key, upload_id).await? {
            return Ok(parts.into_iter().map(|part| (part.number, part.size)).collect());
        }
        if self.objects.head(&image.key).await?.is_some() {
            // The upload was completed, but is not confirmed yet.
            return Ok(multipart.parts().collect());
        }
        // Another program aborted it, such as the bucket's lifecycle rule: the client uploads all parts again, under the same id.
        self.opening.create_multipart_in_s3(&image, multipart.checksums()).await?;
        Ok(Vec::new())
    }

    /// Returns the user's multipart upload, pending or ready.
    async fn find_multipart(&self, user: UserId, id: ImageId) -> Result<(Image, PartLayout), PartsError> {
        let image = self.store.images.find_owned(user, id).await?.ok_or(UnavailableUpload::NotFound)?;
        match (&image.status, image.upload.kind) {
            (ImageStatus::Pending | ImageStatus::Ready(_), UploadKind::Parts(layout)) => Ok((image, layout)),
            (ImageStatus::Pending | ImageStatus::Ready(_), _) => Err(PartsError::NotMultipart),
            (ImageStatus::Tombstone(end) | ImageStatus::Purged(end), _) => Err(UnavailableUpload::from(*end).into()),
        }
    }
}
