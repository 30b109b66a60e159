//! Confirming: S3's own word for size, type and digest, the bytes' own word for what they are, then one move to ready.

use std::collections::HashMap;

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

use super::{
    S3_AT_ONCE, Valet,
    content::{self, Inspection},
    multipart::MissingParts,
};
use crate::{
    model::{Dimensions, Image, ImageId, ImageState, Rejection, UserId},
    store::{StoreError, objects::Head},
};

/// Why an image is not ready.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// Not this user's, not there, or deleted.
    #[error("there is no such upload")]
    NotFound,
    /// Nothing was uploaded yet.
    #[error("nothing has been uploaded")]
    ObjectMissing,
    /// Not all parts of a multipart upload are there.
    #[error("the parts {0} are missing")]
    PartsMissing(MissingParts),
    /// What was uploaded is not what was declared. Final.
    #[error("what was uploaded is not what was declared")]
    Rejected(Rejection),
    /// The upload's time is over. Final.
    #[error("the upload has expired")]
    Expired,
    /// The database or S3 failed; nothing is decided, asking again is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was found at a pending image's key.
#[derive(Debug)]
pub(super) enum Finding {
    /// These bytes are the declared ones, and an image of the declared type.
    Proved {
        /// Of the object that was examined.
        etag: String,
        /// As displayed.
        size: Dimensions,
    },
    /// Something else.
    Wrong(Rejection),
    /// Nothing.
    Missing,
    /// Nothing yet, and not all parts either.
    PartsMissing(MissingParts),
}

impl Valet {
    /// Makes a pending image ready. However often and however many at once, the answer is the same.
    ///
    /// # Errors
    /// [`ConfirmError`].
    pub async fn confirm(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<Image, ConfirmError> {
        let image = self.store.images.find_owned(user, id).await?.ok_or(ConfirmError::NotFound)?;
        if image.state == ImageState::Pending {
            match self.gather(&image, now).await? {
                // Pending always tries: time alone never refuses.
                Finding::Proved { etag, size } => {
                    if let Some(ready) = self.accept(&image, &etag, size).await? {
                        return Ok(ready);
                    }
                }
                Finding::Wrong(why) => self.reject(&image, why, now).await?,
                missing @ (Finding::Missing | Finding::PartsMissing(_)) => {
                    // A delete may have taken the object while we looked.
                    let current = self.store.images.find_owned(user, id).await?;
                    if current.is_some_and(|image| image.state == ImageState::Pending) {
                        return Err(match missing {
                            Finding::PartsMissing(parts) => ConfirmError::PartsMissing(parts),
                            _ => ConfirmError::ObjectMissing,
                        });
                    }
                }
            }
        }
        let image = if image.state == ImageState::Pending {
            self.store.images.find_owned(user, id).await?.ok_or(ConfirmError::NotFound)?
        } else {
            image
        };
        match (image.outcome(), image.rejection) {
            (ImageState::Ready, _) => {
                // The answer to an earlier confirm was lost, perhaps with the server that owed the next step.
                self.store.users.keep_held(user, id).await?;
                Ok(image)
            }
            (ImageState::Rejected, Some(why)) => Err(ConfirmError::Rejected(why)),
            (ImageState::Expired, _) => Err(ConfirmError::Expired),
            _ => Err(ConfirmError::NotFound),
        }
    }

    /// [`Valet::confirm`] for many: S3 is asked for each, the database a few times for all. One that is not right harms no
    /// other.
    ///
    /// # Errors
    /// [`StoreError`] of the database; S3's are each item's own.
    pub async fn confirm_all(
        &self,
        user: UserId,
        ids: &[ImageId],
        now: OffsetDateTime,
    ) -> Result<Vec<Result<Image, ConfirmError>>, StoreError> {
        let mut looks = Vec::new();
        for image in self.store.images.find_all_owned(user, ids).await? {
            if image.state == ImageState::Pending {
                // Boxed: the stream's own futures are not `Send` for every lifetime.
                looks.push(async move { (self.gather(&image, now).await, image) }.boxed());
            }
        }
        let examined: Vec<_> = stream::iter(looks).buffer_unordered(S3_AT_ONCE).collect().await;
        let (mut proved, mut incomplete, mut failed) = (Vec::new(), HashMap::new(), HashMap::new());
        for (finding, image) in &examined {
            match finding {
                Ok(Finding::Proved { etag, size }) => proved.push((image, etag.as_str(), *size)),
                Ok(Finding::Wrong(why)) => self.reject(image, *why, now).await?,
                Ok(Finding::Missing) => {}
                Ok(Finding::PartsMissing(missing)) => drop(incomplete.insert(image.id, missing)),
                Err(error) => drop(failed.insert(image.id, error)),
            }
        }
        self.store.images.mark_all_ready(&proved).await?;
        let found = self.store.images.find_all_owned(user, ids).await?;
        let ready: Vec<_> = found.iter().filter(|image| image.state == ImageState::Ready).map(|image| image.id).collect();
        // Those that were ready before, too: the server that owed the next step may have died.
        self.store.users.keep_all_held(user, &ready).await?;
        let answer = |id: &ImageId| {
            let image = found.iter().find(|image| image.id == *id).ok_or(ConfirmError::NotFound)?;
            match (image.outcome(), image.rejection, failed.get(id)) {
                (ImageState::Ready, ..) => Ok(image.clone()),
                (ImageState::Pending, _, Some(error)) => Err(StoreError::clone(error).into()),
                (ImageState::Pending, _, None) => match incomplete.get(id) {
                    Some(missing) => Err(ConfirmError::PartsMissing(MissingParts::clone(missing))),
                    None => Err(ConfirmError::ObjectMissing),
                },
                (ImageState::Rejected, Some(why), _) => Err(ConfirmError::Rejected(why)),
                (ImageState::Expired, ..) => Err(ConfirmError::Expired),
                _ => Err(ConfirmError::NotFound),
            }
        };
        Ok(ids.iter().map(answer).collect())
    }

    /// Looks at what lies at the image's key, changing nothing.
    pub(super) async fn examine(&self, image: &Image) -> Result<Finding, StoreError> {
        let Some(head) = self.objects.head(&image.key).await? else { return Ok(Finding::Missing) };
        match self.is_declared(image, &head).await? {
            Some(true) => {}
            Some(false) => return Ok(Finding::Wrong(Rejection::ObjectMismatch)),
            None => return Ok(Finding::Missing),
        }
        let size = image.upload.size;
        let mut wanted = content::FIRST_HEAD;
        loop {
            let Some(bytes) = self.objects.read_head(&image.key, &head.etag, wanted).await? else { return Ok(Finding::Missing) };
            match content::inspect(&bytes, size, content::MAX_PIXELS) {
                Inspection::Proved(proved) if proved.format.matches(image.upload.content_type.as_str()) => {
                    let size = Dimensions { width: proved.width, height: proved.height };
                    return Ok(Finding::Proved { etag: head.etag, size });
                }
                Inspection::NeedMore { bytes: more } if more > wanted && more <= content::MAX_HEAD => wanted = more,
                Inspection::NeedMore { .. } | Inspection::Proved(_) => return Ok(Finding::Wrong(Rejection::ContentMismatch)),
                Inspection::Refused(refusal) => {
                    tracing::info!(image = %image.id, user = %image.user, reason = %refusal, "content refused");
                    return Ok(Finding::Wrong(Rejection::ContentMismatch));
                }
            }
        }
    }

    /// Whether size, type and digest, where one was declared, are the declared ones; `None` when the object went meanwhile. A store that keeps no
    /// checksum verified none: then the bytes are hashed here.
    async fn is_declared(&self, image: &Image, head: &Head) -> Result<Option<bool>, StoreError> {
        let upload = &image.upload;
        if head.size != upload.size || head.content_type.as_deref() != Some(upload.content_type.as_str()) {
            return Ok(Some(false));
        }
        let Some(declared) = upload.sha256 else { return Ok(Some(true)) };
        let digest = match head.sha256 {
            Some(digest) => Some(digest),
            None => self.objects.digest(&image.key, &head.etag).await?,
        };
        Ok(digest.map(|digest| digest == declared))
    }

    /// `pending → ready`, and the bytes stay counted. `None` when somebody else moved the image.
    pub(super) async fn accept(&self, image: &Image, etag: &str, size: Dimensions) -> Result<Option<Image>, StoreError> {
        let ready = self.store.images.mark_owned_ready(image.user, image.id, etag, size).await?;
        if ready.is_some() {
            tracing::info!(image = %image.id, user = %image.user, bytes = image.upload.size, "confirmed");
            self.settle_kept(image).await;
        }
        Ok(ready)
    }

    /// The image is ready whether or not this succeeds: a failure must not turn an acknowledged confirm into an error.
    async fn settle_kept(&self, image: &Image) {
        if let Err(error) = self.store.users.keep_held(image.user, image.id).await {
            tracing::warn!(image = %image.id, %error, "the hold of a confirmed image is left to the sweeper");
        }
    }

    /// `pending → rejected`; the bytes are free again, and the sweeper removes them.
    pub(super) async fn reject(&self, image: &Image, why: Rejection, now: OffsetDateTime) -> Result<(), StoreError> {
        if self.store.images.reject_owned(image.user, image.id, why, now).await? {
            tracing::info!(image = %image.id, user = %image.user, reason = why.as_str(), "rejected");
            self.store.users.release_held(image.user, image.id, image.upload.size).await?;
        }
        Ok(())
    }
}
