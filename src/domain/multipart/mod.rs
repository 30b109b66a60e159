//! Uploads in parts, for big files and bad networks: opening them, keys for any parts, what has arrived, and joining them.
//!
//! S3 has a state of its own for each of these uploads, named by the document's `uploadId`. It is opened after the
//! document is there and aborted before the object is deleted, so that whatever dies between two steps leaves something
//! that the document's key finds.

mod completing;
mod opening;
mod parts;

use time::OffsetDateTime;

pub use self::parts::{InvalidPart, MAX_PARTS_PER_REQUEST, RequestedPart};
pub(super) use self::{opening::unopened_lifetimes, parts::select_by_length};
use super::{
    Valet,
    store_capabilities::{UnsupportedUpload, UploadClass},
    throttle::Throttled,
    uploads::{DeclarationError, IssueError, fingerprint},
};
use crate::{
    model::{
        Caption, FileName, Idempotency, IdempotencyKey, Image, ImageId, ImageState, ObjectKey, PartChecksums, PartLayout,
        Rejection, Sha256, Upload, UserId,
    },
    store::{
        InsertOutcome, ReserveOutcome, StoreError,
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
    /// Bytes; anything an integer can be.
    pub size: i64,
    /// Bytes of every part but the last; `None` leaves it to us.
    pub part_size: Option<i64>,
    /// Checksum that S3 verifies of each part.
    pub part_checksums: PartChecksums,
    /// See [`Caption`].
    pub caption: Option<&'a str>,
    /// See [`crate::model::ThumbHash`].
    pub thumb_hash: Option<&'a str>,
    /// The caller's name for this request.
    pub key: Option<&'a IdempotencyKey>,
}

impl DeclaredMultipart<'_> {
    fn fingerprint(&self) -> Sha256 {
        let (size, part_size) = (self.size.to_string(), self.part_size.map_or_else(String::new, |size| size.to_string()));
        let (caption, thumb_hash) = (self.caption.unwrap_or_default(), self.thumb_hash.unwrap_or_default());
        let (content_type, checksums) = (self.content_type, self.part_checksums.as_str());
        fingerprint(&["multipart", self.file_name, content_type, &size, &part_size, checksums, caption, thumb_hash])
    }
}

/// Why an upload's parts are not signed or listed.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// Not this user's, or not there.
    #[error("there is no such upload")]
    NotFound,
    /// It comes in one PUT.
    #[error("the upload is not in parts")]
    NotMultipart,
    /// Its parts are an image already.
    #[error("the upload is complete")]
    Complete,
    /// The upload's time is over.
    #[error("the upload has expired")]
    Expired,
    /// Its bytes came, and were not what was declared.
    #[error("the upload was rejected")]
    Rejected(Rejection),
    /// The requested parts cannot be signed; never empty.
    #[error("the parts cannot be signed")]
    InvalidParts(Vec<InvalidPart>),
    /// Looking at what has arrived takes more calls to S3 than the user has left.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The store cannot have it.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedUpload),
    /// The database, S3 or the credentials failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Races are settled by looking again; more than this is a fault.
const MAX_ATTEMPTS: usize = 5;

impl Valet {
    /// Opens an upload in parts, or finds the one under the same key; the last value says whether it was opened now.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue_multipart(
        &self,
        user: UserId,
        declared: &DeclaredMultipart<'_>,
        now: OffsetDateTime,
    ) -> Result<(Image, PartLayout, bool), IssueError> {
        let (upload, multipart) = self.validate_multipart(declared).map_err(IssueError::InvalidDeclaration)?;
        self.capabilities.require_support(UploadClass::WithoutDigest)?;
        let named = declared.key.map(|key| Idempotency { key: key.clone(), request: declared.fingerprint() });
        for _ in 0..MAX_ATTEMPTS {
            if let Some(named) = &named
                && let Some(image) = self.find_under_key(user, named, now).await?
            {
                let multipart = image.upload.multipart.ok_or(IssueError::KeyReused)?;
                if image.state == ImageState::Pending && image.is_unopened() {
                    // The request that opened it was given up, or is under way.
                    self.create_multipart_in_s3(&image, multipart.checksums()).await?;
                    continue;
                }
                return Ok((image, multipart, false));
            }
            let id = ImageId::new();
            // No URL has left yet. Only this server completes the parts, so what comes of them is final where it lies.
            let lifetimes = unopened_lifetimes(now);
            let image = Image::pending((user, id, ObjectKey::final_for(user, id)), upload.clone(), named.clone(), lifetimes);
            if self.reserve(user, &[&image], now).await? == ReserveOutcome::Refused {
                self.explain_refusal(user, upload.size).await?;
                continue;
            }
            if self.insert_reserved(user, &[(&image, image.expires_at)]).await? != [InsertOutcome::Inserted] {
                continue;
            }
            if let Err(error) = self.create_multipart_in_s3(&image, multipart.checksums()).await {
                // The client gets no id to go on with, and its next try is another upload: this one must not hold quota
                // for days. What S3 may have opened, the tombstone's sweep aborts.
                if let Err(error) = self.delete_pending(&image, now).await {
                    tracing::warn!(image = %id, %error, "an upload that S3 did not open is left to expire");
                }
                return Err(error.into());
            }
            let expires_at = self.opened_lifetimes(&image).expires_at;
            return Ok((Image { expires_at, ..image }, multipart, true));
        }
        Err(StoreError::Contention { what: "the user's reservations" }.into())
    }

    /// Every rule that what was declared breaks.
    fn validate_multipart(&self, declared: &DeclaredMultipart<'_>) -> Result<(Upload, PartLayout), Vec<DeclarationError>> {
        let size = super::uploads::validate_size(declared.size, self.uploads.multipart_max_bytes);
        let multipart = size.as_ref().ok().map(|size| {
            // A negative number is below every bound, as zero is.
            let asked = declared.part_size.map(|asked| u64::try_from(asked).unwrap_or(0));
            let part_size = asked.unwrap_or_else(|| PartLayout::part_size_for(*size));
            PartLayout::cut(*size, part_size, declared.part_checksums).ok_or(DeclarationError::PartSize)
        });
        let file_name = FileName::parse(declared.file_name).map_err(DeclarationError::FileName);
        let content_type = self.validate_type(declared.content_type);
        let caption = Caption::parse(declared.caption.unwrap_or_default()).map_err(DeclarationError::Caption);
        let thumb_hash = super::uploads::validate_thumb_hash(declared.thumb_hash);
        match (file_name, content_type, size, multipart, caption, thumb_hash) {
            (Ok(file_name), Ok(content_type), Ok(size), Some(Ok(multipart)), Ok(caption), Ok(thumb_hash)) => {
                let (sha256, preview, multipart_of) = (None, None, Some(multipart));
                let upload = Upload {
                    file_name,
                    content_type,
                    size,
                    unverified: None,
                    sha256,
                    caption,
                    multipart: multipart_of,
                    preview,
                    thumb_hash,
                };
                Ok((upload, multipart))
            }
            (file_name, content_type, size, multipart, caption, thumb_hash) => {
                let part_size = multipart.and_then(Result::err);
                let broken = [file_name.err(), content_type.err(), size.err(), part_size, caption.err(), thumb_hash.err()];
                Err(broken.into_iter().flatten().collect())
            }
        }
    }

    /// Keys to write these parts, in the order asked for.
    ///
    /// # Errors
    /// [`PartsError`].
    pub async fn sign_parts(
        &self,
        user: UserId,
        id: ImageId,
        asked: &[RequestedPart<'_>],
        now: OffsetDateTime,
    ) -> Result<Vec<(u32, PresignedPut)>, PartsError> {
        for _ in 0..MAX_ATTEMPTS {
            let (image, multipart) = self.find_multipart(user, id).await?;
            match image.state {
                ImageState::Ready => return Err(PartsError::Complete),
                _ if image.expires_at <= now => return Err(PartsError::Expired),
                _ => {}
            }
            let parts = parts::validate(multipart, asked).map_err(PartsError::InvalidParts)?;
            self.capabilities.require_support(UploadClass::WithoutDigest)?;
            let Some(upload_id) = &image.upload_id else {
                // The server that opened it died before it recorded S3's name.
                self.create_multipart_in_s3(&image, multipart.checksums()).await?;
                continue;
            };
            let sign = |part: NewPart| {
                let put = self.objects.presign_part(&image.key, upload_id, part, now, self.uploads.url_ttl)?;
                Ok((part.number, put))
            };
            let signed = parts.into_iter().map(sign).collect::<Result<Vec<_>, StoreError>>()?;
            let dies_at = signed.iter().map(|(_, put)| put.signed.expires_at).max().unwrap_or(now);
            let due = dies_at + self.grace(image.upload.largest_transfer());
            if self.store.images.raise_owned_urls_die_at(user, &[id], dies_at, due).await? == 1 {
                return Ok(signed);
            }
        }
        Err(StoreError::Contention { what: "an upload in parts" }.into())
    }

    /// Numbers and sizes of the parts that S3 has.
    ///
    /// # Errors
    /// [`PartsError`].
    pub async fn stored_parts(&self, user: UserId, id: ImageId) -> Result<Vec<(u32, u64)>, PartsError> {
        let (image, multipart) = self.find_multipart(user, id).await?;
        if image.state == ImageState::Ready {
            return Ok(multipart.parts().collect());
        }
        let Some(upload_id) = &image.upload_id else { return Ok(Vec::new()) };
        if let Some(parts) = self.objects.list_parts(&image.key, upload_id).await? {
            return Ok(parts.into_iter().map(|part| (part.number, part.size)).collect());
        }
        if self.objects.head(&image.key).await?.is_some() {
            // Completed, and the confirm did not get further.
            return Ok(multipart.parts().collect());
        }
        // Somebody else aborted it, such as the bucket's lifecycle rule: the client begins anew, under the same id.
        self.create_multipart_in_s3(&image, multipart.checksums()).await?;
        Ok(Vec::new())
    }

    /// The user's upload in parts, pending or ready.
    async fn find_multipart(&self, user: UserId, id: ImageId) -> Result<(Image, PartLayout), PartsError> {
        let image = self.store.images.find_owned(user, id).await?.ok_or(PartsError::NotFound)?;
        match (image.outcome(), image.rejection, image.upload.multipart) {
            (ImageState::Pending | ImageState::Ready, _, Some(multipart)) => Ok((image, multipart)),
            (ImageState::Pending | ImageState::Ready, _, None) => Err(PartsError::NotMultipart),
            (ImageState::Rejected, Some(why), _) => Err(PartsError::Rejected(why)),
            (ImageState::Expired, _, _) => Err(PartsError::Expired),
            _ => Err(PartsError::NotFound),
        }
    }
}
