//! Confirming: S3's own word for size, type and digest, the bytes' own word for what they are, then one move to ready.
//!
//! Here are the answers and the moves; `examine` looks at what lies in S3, `copying` makes it final on stores that do not
//! hold to what was signed.

mod copying;
mod examine;

use std::{collections::HashMap, sync::OnceLock, time::Instant};

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

pub(super) use self::examine::Finding;
use super::{S3_AT_ONCE, Valet, multipart::MissingParts, one, store_capabilities::UnsupportedUpload};
use crate::{
    model::{Image, ImageId, ImageState, Rejection, UserId, Verified},
    store::StoreError,
};

/// How often an upload is looked at that is declared anew meanwhile.
const TRIES: usize = 3;

/// Why an image is not ready.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// S3 makes no object of the parts as they are. Final for these parts.
    #[error("the parts make no object")]
    PartsRefused,
    /// The uploaded object is not the declared one. Final.
    #[error("what was uploaded is not what was declared")]
    Rejected(Rejection),
    /// The upload's time is over. Final.
    #[error("the upload has expired")]
    Expired,
    /// The store cannot have it.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedUpload),
    /// The database or S3 failed; nothing is decided, asking again is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Valet {
    /// Makes a pending image ready. However often and however many at once, the answer is the same.
    ///
    /// # Errors
    /// [`ConfirmError`].
    pub async fn confirm(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<Image, ConfirmError> {
        one(self.confirm_all(user, &[id], now).await?)
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
        let mut found = self.store.images.find_all_owned(user, ids).await?;
        let (mut unsettled, mut moved) = (HashMap::new(), Vec::new());
        for _ in 0..TRIES {
            // Pending always tries: time alone never refuses. An upload that was declared anew meanwhile is looked at again.
            let is_open = |image: &&Image| image.state == ImageState::Pending && !unsettled.contains_key(&image.id);
            let pending: Vec<_> = found.readable().iter().filter(is_open).cloned().collect();
            if pending.is_empty() {
                break;
            }
            moved.extend(pending.iter().map(|image| image.id));
            unsettled.extend(self.settle_pending(pending, now).await?);
            // Read again: another request may have moved them.
            found = self.store.images.find_all_owned(user, ids).await?;
        }
        // Those that were ready before, too: the server that was to settle them may have died.
        let owes = |image: &&Image| image.reservation.is_some() || moved.contains(&image.id);
        let ready: Vec<_> =
            found.readable().iter().filter(|image| image.state == ImageState::Ready).filter(owes).cloned().collect();
        if let Err(error) = self.settle(user, &ready, now).await {
            // They are ready all the same: this must not turn an acknowledged confirm into an error.
            tracing::warn!(%user, %error, "failed to settle confirmed images; the sweeper does");
        }
        // The same id may be asked for twice.
        let answer = |id: &ImageId| {
            let image = found.get(*id)?.ok_or(ConfirmError::NotFound)?;
            match (image.outcome(), image.rejection) {
                (ImageState::Ready, _) => Ok(image.clone()),
                (ImageState::Pending, _) => Err(unsettled.get(id).cloned().unwrap_or_else(declared_anew)),
                (ImageState::Rejected, Some(why)) => Err(ConfirmError::Rejected(why)),
                (ImageState::Expired, _) => Err(ConfirmError::Expired),
                _ => Err(ConfirmError::NotFound),
            }
        };
        Ok(ids.iter().map(answer).collect())
    }

    /// Looks at what came of each, and moves those that can be decided; why the others stay pending.
    async fn settle_pending(
        &self,
        pending: Vec<Image>,
        now: OffsetDateTime,
    ) -> Result<HashMap<ImageId, ConfirmError>, StoreError> {
        // Once it has said nothing in time, S3 is not waited for again, item after item.
        let silence = OnceLock::new();
        let look = |image: Image| {
            let silence = &silence;
            // Boxed: the stream's own futures are not `Send` for every lifetime.
            async move {
                // However many requests of this user ask at once: the next user's objects need not wait for theirs.
                let asked = Instant::now();
                let _turn = self.s3_turns.acquire(image.user, ()).await;
                // Another request's calls were given up while this one waited for its turn.
                if self.silences.any_since(image.user, asked) {
                    let _ = silence.set(silent("HeadObject"));
                }
                let finding = match silence.get() {
                    Some(error) => Err(StoreError::clone(error)),
                    None => self.gather(&image, now).await,
                };
                if let Err(StoreError::ObjectsTimeout { operation }) = &finding {
                    self.silences.record(image.user, Instant::now());
                    let _ = silence.set(silent(operation));
                }
                (finding, image)
            }
            .boxed()
        };
        let looks = pending.into_iter().map(look);
        let examined: Vec<_> = stream::iter(looks).buffer_unordered(S3_AT_ONCE).collect().await;
        let (mut proved, mut unsettled) = (Vec::new(), HashMap::new());
        for (finding, image) in examined {
            match finding {
                Ok(Finding::Proved(verified)) => proved.push((image, verified)),
                Ok(Finding::Wrong(why)) => self.reject(&image, why, now).await?,
                Ok(Finding::Missing) => drop(unsettled.insert(image.id, ConfirmError::ObjectMissing)),
                Ok(Finding::PartsMissing(missing)) => drop(unsettled.insert(image.id, ConfirmError::PartsMissing(missing))),
                Ok(Finding::PartsRefused) => drop(unsettled.insert(image.id, ConfirmError::PartsRefused)),
                Ok(Finding::Unsupported(unfit)) => drop(unsettled.insert(image.id, ConfirmError::Unsupported(unfit))),
                Err(error) => drop(unsettled.insert(image.id, error.into())),
            }
        }
        let moves: Vec<_> = proved.iter().map(|(image, verified)| (image, verified)).collect();
        self.store.images.mark_all_ready(&moves).await?;
        for (image, verified) in &proved {
            tracing::info!(image = %image.id, user = %image.user, bytes = verified.bytes, "confirmed");
        }
        Ok(unsettled)
    }

    /// Moves the image from pending to ready; its bytes stay counted. Returns `None` if another request changed its state.
    pub(super) async fn accept(&self, image: &Image, verified: &Verified) -> Result<Option<Image>, StoreError> {
        let ready = self.store.images.mark_owned_ready(image, verified).await?;
        if let Some(ready) = &ready {
            tracing::info!(image = %image.id, user = %image.user, bytes = verified.bytes, "confirmed");
            if let Err(error) = self.settle_places(ready.user, std::slice::from_ref(ready)).await {
                tracing::warn!(image = %ready.id, %error, "failed to settle a confirmed image; the sweeper does");
            }
        }
        Ok(ready)
    }

    /// `pending → rejected`; the sweeper removes the bytes, and frees them when no URL can write them again.
    pub(super) async fn reject(&self, image: &Image, why: Rejection, now: OffsetDateTime) -> Result<(), StoreError> {
        if self.store.images.reject(image, why, now).await? {
            tracing::info!(image = %image.id, user = %image.user, reason = why.as_str(), "rejected");
            self.settle_places(image.user, &[Image { state: ImageState::Rejected, ..image.clone() }]).await?;
        }
        Ok(())
    }
}

fn declared_anew() -> ConfirmError {
    StoreError::Contention { what: "an upload that is declared anew while it is confirmed" }.into()
}

/// Returns the error for an object that was not requested from S3, since S3 did not answer for an earlier one.
fn silent(operation: &'static str) -> StoreError {
    StoreError::Objects { operation, reason: "it did not answer for another object".to_owned() }
}
