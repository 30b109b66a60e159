//! Uploads in parts, for big files and bad networks: opening them, keys for any parts, what has arrived, and joining them.
//!
//! S3 has a state of its own for each of these uploads, named by the document's `uploadId`. It is opened after the
//! document is there and aborted before the object is deleted, so that whatever dies between two steps leaves something
//! that the document's key finds.

mod opening;
mod parts;

use std::time::Duration;

use time::OffsetDateTime;

pub(super) use self::opening::unopened;
pub use self::parts::{AskedPart, MAX_SIGNED, MissingParts, Unsignable};
use super::{
    Valet,
    confirm::Finding,
    finalize::{Declares, Unfit},
    throttle::Throttled,
    uploads::{IssueError, Unstorable, fingerprint},
};
use crate::{
    model::{
        Caption, FileName, Idempotency, IdempotencyKey, Image, ImageId, ImageState, ObjectKey, PartChecksums, PartLayout,
        Rejection, Sha256, UnverifiedUpload, Upload, UserId,
    },
    store::{
        InsertOutcome, ReserveOutcome, StoreError,
        objects::{COMPLETE_DEADLINE, Completion, NewPart, PresignedPut, StoredPart},
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
    Unsignable(Vec<Unsignable>),
    /// Looking at what has arrived takes more calls to S3 than the user has left.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The store cannot have it.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The database, S3 or the credentials failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Outcome of completing a multipart upload.
enum Assembly {
    /// S3 answered; what lies at the key now tells whether it made the object.
    Asked(Completion),
    /// S3 makes no object of these parts.
    Refused,
    /// Another request is completing it.
    Busy,
    /// Not all parts are there.
    Incomplete(MissingParts),
    /// S3 has no such upload: it was completed or aborted.
    NoUpload,
    /// Another request changed the image's state.
    Moved,
}

/// Takes out of the parts that S3 has those that do not belong to the object; the missing ones, if any are.
pub(super) type Choose<'a> = &'a (dyn Fn(&mut Vec<StoredPart>) -> Option<MissingParts> + Sync);

/// Races are settled by looking again; more than this is a fault.
const TRIES: usize = 5;
/// How long another request's completion is awaited, and how often it is checked meanwhile.
const WAIT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(300);

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
        let (upload, multipart) = self.check_multipart(declared).map_err(IssueError::Unstorable)?;
        self.finalization.stands(Declares::Nothing)?;
        let named = declared.key.map(|key| Idempotency { key: key.clone(), request: declared.fingerprint() });
        for _ in 0..TRIES {
            if let Some(named) = &named
                && let Some(image) = self.find_under_key(user, named, now).await?
            {
                let multipart = image.upload.multipart.ok_or(IssueError::KeyReused)?;
                if image.state == ImageState::Pending && image.is_unopened() {
                    // The request that opened it was given up, or is under way.
                    self.open_in_s3(&image, multipart.checksums()).await?;
                    continue;
                }
                return Ok((image, multipart, false));
            }
            let id = ImageId::new();
            // No URL has left yet. Only this server completes the parts, so what comes of them is final where it lies.
            let lifetimes = unopened(now);
            let image = Image::pending((user, id, ObjectKey::final_for(user, id)), upload.clone(), named.clone(), lifetimes);
            if self.reserve(user, &[&image], now).await? == ReserveOutcome::Refused {
                self.explain_refusal(user, upload.size).await?;
                continue;
            }
            if self.insert_reserved(user, &[(&image, image.expires_at)]).await? != [InsertOutcome::Inserted] {
                continue;
            }
            if let Err(error) = self.open_in_s3(&image, multipart.checksums()).await {
                // The client gets no id to go on with, and its next try is another upload: this one must not hold quota
                // for days. What S3 may have opened, the tombstone's sweep aborts.
                if let Err(error) = self.delete_pending(&image, now).await {
                    tracing::warn!(image = %id, %error, "an upload that S3 did not open is left to expire");
                }
                return Err(error.into());
            }
            let expires_at = self.opened(&image).expires_at;
            return Ok((Image { expires_at, ..image }, multipart, true));
        }
        Err(StoreError::Contention { what: "the user's reservations" }.into())
    }

    /// Every rule that what was declared breaks.
    fn check_multipart(&self, declared: &DeclaredMultipart<'_>) -> Result<(Upload, PartLayout), Vec<Unstorable>> {
        let size = super::uploads::check_size(declared.size, self.uploads.multipart_max_bytes);
        let multipart = size.as_ref().ok().map(|size| {
            // A negative number is below every bound, as zero is.
            let asked = declared.part_size.map(|asked| u64::try_from(asked).unwrap_or(0));
            let part_size = asked.unwrap_or_else(|| PartLayout::part_size_for(*size));
            PartLayout::cut(*size, part_size, declared.part_checksums).ok_or(Unstorable::PartSize)
        });
        let file_name = FileName::parse(declared.file_name).map_err(Unstorable::FileName);
        let content_type = self.check_type(declared.content_type);
        let caption = Caption::parse(declared.caption.unwrap_or_default()).map_err(Unstorable::Caption);
        let thumb_hash = super::uploads::check_thumb_hash(declared.thumb_hash);
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
        asked: &[AskedPart<'_>],
        now: OffsetDateTime,
    ) -> Result<Vec<(u32, PresignedPut)>, PartsError> {
        for _ in 0..TRIES {
            let (image, multipart) = self.find_multipart(user, id).await?;
            match image.state {
                ImageState::Ready => return Err(PartsError::Complete),
                _ if image.expires_at <= now => return Err(PartsError::Expired),
                _ => {}
            }
            let parts = parts::check(multipart, asked).map_err(PartsError::Unsignable)?;
            self.finalization.stands(Declares::Nothing)?;
            let Some(upload_id) = &image.upload_id else {
                // The server that opened it died before it recorded S3's name.
                self.open_in_s3(&image, multipart.checksums()).await?;
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
        self.open_in_s3(&image, multipart.checksums()).await?;
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

    /// Looks at what came of an upload. Parts that are all there are made one object first.
    pub(super) async fn gather(&self, image: &Image, now: OffsetDateTime) -> Result<Finding, StoreError> {
        if image.upload.sha256.is_none() {
            // Its parts may be copies of what is another's.
            match self.finalization.stands(Declares::Nothing) {
                Ok(()) => {}
                Err(Unfit::Store(error)) => return Err(error),
                Err(unfit) => return Ok(Finding::Unfit(unfit)),
            }
        }
        if let Some(multipart) = image.upload.multipart {
            return self.put_together(image, &|stored| parts::missing(multipart, stored), now).await;
        }
        if image.key.is_incoming() {
            return self.examine_copy(image, now).await;
        }
        let finding = self.examine(image).await?;
        if image.upload.unverified == Some(UnverifiedUpload::Parts) && !matches!(finding, Finding::Missing) {
            self.abort_leftovers(image).await?;
        }
        Ok(finding)
    }

    /// Aborts a second upload of this key, left by a server that died: it can come to nothing any more. One that S3 never
    /// aborts does not keep the first from being an image.
    async fn abort_leftovers(&self, image: &Image) -> Result<(), StoreError> {
        match self.objects.abort_multiparts(&image.key).await {
            Err(error) if error.is_final() => {
                tracing::warn!(image = %image.id, %error, "failed to abort an upload beside a complete one");
                Ok(())
            }
            done => done,
        }
    }

    /// Makes the parts that `choose` leaves one object, and looks at it; `choose` says which are missing.
    pub(super) async fn put_together(
        &self,
        image: &Image,
        choose: Choose<'_>,
        now: OffsetDateTime,
    ) -> Result<Finding, StoreError> {
        let (mut no_upload, mut waited, mut tries, mut last) = (false, Duration::ZERO, 0, None);
        while tries < TRIES {
            match self.examine(image).await? {
                Finding::Missing => {}
                finding => {
                    self.abort_leftovers(image).await?;
                    return Ok(finding);
                }
            }
            match self.assemble(image, choose, now).await? {
                Assembly::Asked(completion) => (tries, last) = (tries + 1, Some(completion)),
                Assembly::Refused => return Ok(Finding::PartsRefused),
                Assembly::Busy if waited < WAIT => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    waited += LOOK_AGAIN;
                }
                Assembly::Busy => {
                    return Err(StoreError::Contention { what: "an upload whose parts another request completes" });
                }
                Assembly::Incomplete(missing) => return Ok(Finding::PartsMissing(missing)),
                // Completed by somebody else between our looks, or gone for good.
                Assembly::NoUpload if no_upload => {
                    return Ok(choose(&mut Vec::new()).map_or(Finding::Missing, Finding::PartsMissing));
                }
                Assembly::NoUpload => no_upload = true,
                Assembly::Moved => return Ok(Finding::Missing),
            }
        }
        match last {
            // What S3 lists it refuses, each time.
            Some(Completion::PartChanged) => Ok(Finding::PartsRefused),
            _ => Err(StoreError::Contention { what: "an upload whose parts are being completed" }),
        }
    }

    async fn assemble(&self, image: &Image, choose: Choose<'_>, now: OffsetDateTime) -> Result<Assembly, StoreError> {
        let listed = match &image.upload_id {
            Some(upload_id) => match self.objects.list_parts(&image.key, upload_id).await {
                Err(error @ StoreError::ObjectRefused { .. }) => return Ok(refused(image, &error)),
                listed => listed?.map(|parts| (upload_id, parts)),
            },
            None => return Ok(choose(&mut Vec::new()).map_or(Assembly::NoUpload, Assembly::Incomplete)),
        };
        let Some((upload_id, mut parts)) = listed else { return Ok(Assembly::NoUpload) };
        if let Some(missing) = choose(&mut parts) {
            return Ok(Assembly::Incomplete(missing));
        }
        // Completing writes the key as a PUT does, and may do so after we stopped waiting: a tombstone must outlive it.
        let dies_at = now + COMPLETE_DEADLINE;
        let due = dies_at + self.grace(0);
        // One at a time: not every store shows nothing of a completion until it is done when another has been before.
        if !self.store.images.claim_completion(image, COMPLETE_DEADLINE, dies_at, due, &[]).await? {
            let current = self.store.images.find_owned(image.user, image.id).await?;
            let is_pending = current.is_some_and(|image| image.state == ImageState::Pending);
            return Ok(if is_pending { Assembly::Busy } else { Assembly::Moved });
        }
        let completed = self.objects.complete_multipart(&image.key, upload_id, parts).await;
        // After `Done` nobody completes it again; after a timeout S3 may still be at it, and the claim ends by itself.
        if !matches!(completed, Ok(Completion::Done) | Err(StoreError::ObjectsTimeout { .. })) {
            self.store.images.drop_completion(image).await?;
        }
        match completed {
            Err(error @ StoreError::ObjectRefused { .. }) => Ok(refused(image, &error)),
            completed => completed.map(Assembly::Asked),
        }
    }
}

fn refused(image: &Image, error: &StoreError) -> Assembly {
    tracing::info!(image = %image.id, %error, "parts that make no object are refused");
    Assembly::Refused
}
