//! Issuing uploads: what may be uploaded, who pays for it, and the key to write it once.

use std::fmt;

use time::OffsetDateTime;

use super::{Valet, confirm::Finding};
use crate::{
    model::{
        Caption, ContentType, FileName, Image, ImageId, ImageState, InvalidFileName, InvalidSha256, Multipart, ObjectKey,
        Position, Rejection, Sha256, Upload, UserId,
    },
    store::{Inserted, Reserved, StoreError, objects::PresignedPut},
};

/// What a client declares, not checked yet.
#[derive(Debug, Clone, Copy)]
pub struct Declared<'a> {
    /// See [`FileName`].
    pub file_name: &'a str,
    /// See [`ContentType`].
    pub content_type: &'a str,
    /// Bytes; anything an integer can be.
    pub size: i64,
    /// See [`Sha256`].
    pub sha256: &'a str,
    /// See [`Caption`].
    pub caption: Option<&'a str>,
}

/// Why a declared upload cannot be stored. Each names the member it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unstorable {
    /// `fileName`
    FileName(InvalidFileName),
    /// `contentType`; holds what is allowed.
    ContentType(Vec<ContentType>),
    /// `size`: less than a byte.
    Size,
    /// `size`; holds the most that is allowed, in bytes.
    TooLarge(u64),
    /// `sha256`
    Sha256(InvalidSha256),
    /// `partSize`, or the number of parts it makes.
    PartSize,
    /// `caption`; the rest of the sentence.
    Caption(&'static str),
}

impl fmt::Display for Unstorable {
    /// The end of a sentence that begins with the member's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileName(error) => error.fmt(f),
            Self::ContentType(allowed) => {
                let names: Vec<_> = allowed.iter().map(|known| known.as_str()).collect();
                write!(f, "must be one of {}", names.join(", "))
            }
            Self::Size => f.write_str("must be at least 1 byte"),
            Self::TooLarge(most) => write!(f, "must be at most {most} bytes"),
            Self::Sha256(error) => error.fmt(f),
            Self::PartSize => write!(
                f,
                "must be from {} to {} bytes, and large enough for {} parts to suffice",
                Multipart::MIN_PART_SIZE,
                Multipart::MAX_PART_SIZE,
                Multipart::MAX_PARTS
            ),
            Self::Caption(rule) => f.write_str(rule),
        }
    }
}

/// Why no upload was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// What was declared cannot be stored; never empty.
    #[error("the declared upload cannot be stored")]
    Unstorable(Vec<Unstorable>),
    /// The bytes would not fit.
    #[error("the quota of {quota} bytes has {free} left")]
    QuotaExceeded {
        /// Bytes.
        quota: u64,
        /// Bytes.
        free: u64,
    },
    /// Too many uploads are open; holds how many may be.
    #[error("{0} uploads are open already")]
    TooManyPending(u32),
    /// The account is gone.
    #[error("the account is gone")]
    NoAccount,
    /// Not known whether an upload was opened; asking again is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an upload's URL was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Not this user's, or not there.
    #[error("there is no such upload")]
    NotFound,
    /// It comes in parts, whose URLs are asked for by number.
    #[error("the upload is not a single one")]
    NotSingle,
    /// The upload's time is over.
    #[error("the upload has expired")]
    Expired,
    /// Its bytes came, and were not what was declared.
    #[error("the upload was rejected")]
    Rejected(Rejection),
    /// The database or the credentials failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An upload that is open, or an image that needs none.
#[derive(Debug)]
pub enum Ticket {
    /// The bytes are awaited.
    Pending(Box<Image>, PresignedPut),
    /// The bytes are here.
    Ready(Box<Image>),
}

/// A ticket, and whether this call opened the upload.
#[derive(Debug)]
pub struct Issued {
    /// What the client goes on with.
    pub ticket: Ticket,
    /// `false`: these bytes were known already.
    pub opened: bool,
}

/// Races with a confirm, a delete or a twin are settled by looking again; more than this is a fault.
const TRIES: usize = 5;

impl Valet {
    /// Opens an upload, or finds the one or the image that this user has of the same bytes.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue(&self, user: UserId, declared: &Declared<'_>, now: OffsetDateTime) -> Result<Issued, IssueError> {
        let (upload, sha256) = self.check(declared).map_err(IssueError::Unstorable)?;
        for _ in 0..TRIES {
            let id = ImageId::new();
            let key = ObjectKey::of(user, id);
            let put = self.presign_put(&key, (&upload, sha256), now)?;
            let image = Image {
                id,
                user,
                key,
                state: ImageState::Pending,
                upload: upload.clone(),
                upload_id: None,
                rejection: None,
                etag: None,
                dimensions: None,
                created_at: now,
                uploaded_at: None,
                expires_at: now + self.uploads.ttl,
                urls_die_at: put.signed.expires_at,
            };
            let limits = (self.uploads.quota_bytes, self.uploads.max_pending);
            if self.store.users.reserve(user, id, upload.size, limits, now).await? == Reserved::Yes {
                if self.store.images.insert(&image, self.quiet_from(&image)).await? == Inserted::Yes {
                    return Ok(Issued { ticket: Ticket::Pending(Box::new(image), put), opened: true });
                }
                self.store.users.release_held(user, id, upload.size).await?;
            }
            match self.store.images.find_owned_bytes(user, sha256, upload.size).await? {
                Some(known) => match self.renew(user, known.id, now).await {
                    Ok(ticket) => return Ok(Issued { ticket, opened: false }),
                    Err(RenewError::Store(error)) => return Err(error.into()),
                    // Its time is over: what came of it is settled now, so that the next round finds the image, or opens
                    // a new upload.
                    Err(RenewError::Expired) => self.settle_expired(&known, now).await?,
                    Err(RenewError::NotFound | RenewError::NotSingle | RenewError::Rejected(_)) => {}
                },
                None => self.explain_refusal(user, upload.size).await?,
            }
        }
        Err(StoreError::Corrupt { collection: "images", id: user.to_string(), field: "live" }.into())
    }

    /// Every rule that what was declared breaks.
    fn check(&self, declared: &Declared<'_>) -> Result<(Upload, Sha256), Vec<Unstorable>> {
        let size = check_size(declared.size, self.uploads.max_bytes);
        let file_name = FileName::parse(declared.file_name).map_err(Unstorable::FileName);
        let content_type = self.check_type(declared.content_type);
        let sha256 = Sha256::parse(declared.sha256).map_err(Unstorable::Sha256);
        let caption = Caption::parse(declared.caption.unwrap_or_default()).map_err(Unstorable::Caption);
        match (file_name, content_type, size, sha256, caption) {
            (Ok(file_name), Ok(content_type), Ok(size), Ok(sha256), Ok(caption)) => {
                let upload = Upload { file_name, content_type, size, sha256: Some(sha256), caption, multipart: None };
                Ok((upload, sha256))
            }
            (file_name, content_type, size, sha256, caption) => {
                let broken = [file_name.err(), content_type.err(), size.err(), sha256.err(), caption.err()];
                Err(broken.into_iter().flatten().collect())
            }
        }
    }

    /// A media type that is accepted here.
    pub(super) fn check_type(&self, declared: &str) -> Result<ContentType, Unstorable> {
        let allowed = ContentType::parse(declared).filter(|known| self.uploads.types.contains(known));
        allowed.ok_or_else(|| Unstorable::ContentType(self.uploads.types.clone()))
    }

    /// Why a reservation failed; `Ok` when it would succeed by now.
    pub(super) async fn explain_refusal(&self, user: UserId, size: u64) -> Result<(), IssueError> {
        let usage = self.store.users.usage(user).await?.ok_or(IssueError::NoAccount)?;
        let free = self.uploads.quota_bytes.saturating_sub(usage.bytes);
        if size > free {
            return Err(IssueError::QuotaExceeded { quota: self.uploads.quota_bytes, free });
        }
        if usage.pending >= u64::from(self.uploads.max_pending) {
            return Err(IssueError::TooManyPending(self.uploads.max_pending));
        }
        Ok(())
    }

    /// A fresh URL for an upload that is open; the image when it needs none any more.
    ///
    /// # Errors
    /// [`RenewError`].
    pub async fn renew(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<Ticket, RenewError> {
        for _ in 0..TRIES {
            let image = self.store.images.find_owned(user, id).await?.ok_or(RenewError::NotFound)?;
            match (image.state, image.rejection) {
                (ImageState::Ready, _) => return Ok(Ticket::Ready(Box::new(image))),
                (ImageState::Rejected, Some(why)) => return Err(RenewError::Rejected(why)),
                (ImageState::Expired, _) => return Err(RenewError::Expired),
                (ImageState::Pending, _) if image.expires_at <= now => return Err(RenewError::Expired),
                (ImageState::Pending, _) => {}
                _ => return Err(RenewError::NotFound),
            }
            let Some(sha256) = image.upload.sha256 else { return Err(RenewError::NotSingle) };
            let put = self.presign_put(&image.key, (&image.upload, sha256), now)?;
            let due = put.signed.expires_at + self.grace(image.upload.size);
            let raised = self.store.images.raise_owned_urls_die_at(user, id, put.signed.expires_at, due).await?;
            if let Some(image) = raised {
                return Ok(Ticket::Pending(Box::new(image), put));
            }
        }
        Err(RenewError::NotFound)
    }

    /// An upload whose time is over must not keep its bytes from being uploaded anew, nor lose them if they came.
    async fn settle_expired(&self, image: &Image, now: OffsetDateTime) -> Result<(), StoreError> {
        match self.examine(image).await? {
            Finding::Proved { etag, size } => self.accept(image, &etag, size).await.map(drop),
            Finding::Wrong(why) => self.reject(image, why, now).await,
            Finding::Missing | Finding::PartsMissing(_) => self.expire(image, now).await.map(drop),
        }
    }

    /// `pending → expired`; the bytes are free again, and the tombstone outlives every URL that could bring them.
    pub(super) async fn expire(&self, image: &Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        let expired = self.store.images.expire(image, now).await?;
        if expired {
            tracing::info!(image = %image.id, user = %image.user, "expired");
            self.store.users.release_held(image.user, image.id, image.upload.size).await?;
        }
        Ok(expired)
    }

    /// Open uploads, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pending(&self, user: UserId, after: Option<Position>, limit: u32) -> Result<Vec<Image>, StoreError> {
        self.store.images.list_owned_pending(user, after, limit).await
    }

    fn presign_put(
        &self,
        key: &ObjectKey,
        (upload, sha256): (&Upload, Sha256),
        now: OffsetDateTime,
    ) -> Result<PresignedPut, StoreError> {
        self.objects.presign_put(key, (upload.content_type, upload.size, sha256), now, self.uploads.url_ttl)
    }
}

/// At least a byte, and at most `most`.
pub(super) fn check_size(declared: i64, most: u64) -> Result<u64, Unstorable> {
    match u64::try_from(declared) {
        Err(_) | Ok(0) => Err(Unstorable::Size),
        Ok(size) if size > most => Err(Unstorable::TooLarge(most)),
        Ok(size) => Ok(size),
    }
}
