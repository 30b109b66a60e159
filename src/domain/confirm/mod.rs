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
use super::{S3_AT_ONCE, Valet, finalize::Unfit, multipart::MissingParts, one};
use crate::{
    model::{Image, ImageId, ImageState, Rejection, UserId, Verified},
    store::{Accepted, Found, StoreError},
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
    Unfit(#[from] Unfit),
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
            let settled = self.settle_pending(pending, now).await?;
            unsettled.extend(settled.undecided);
            found = match settled.ready {
                Some(image) if ids.len() == 1 => {
                    moved.clear();
                    Found::from(image)
                }
                // Read again: another request may have moved them.
                _ => self.store.images.find_all_owned(user, ids).await?,
            };
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

    /// Inspects the upload of each pending image, and moves those that can be decided.
    async fn settle_pending(&self, pending: Vec<Image>, now: OffsetDateTime) -> Result<Settled, StoreError> {
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
        let (mut proved, mut undecided) = (Vec::new(), HashMap::new());
        for (finding, image) in examined {
            match finding {
                Ok(Finding::Proved(verified)) => proved.push((image, verified)),
                Ok(Finding::Wrong(why)) => self.reject(&image, why, now).await?,
                Ok(Finding::Missing) => drop(undecided.insert(image.id, ConfirmError::ObjectMissing)),
                Ok(Finding::PartsMissing(missing)) => drop(undecided.insert(image.id, ConfirmError::PartsMissing(missing))),
                Ok(Finding::PartsRefused) => drop(undecided.insert(image.id, ConfirmError::PartsRefused)),
                Ok(Finding::Unfit(unfit)) => drop(undecided.insert(image.id, ConfirmError::Unfit(unfit))),
                Err(error) => drop(undecided.insert(image.id, error.into())),
            }
        }
        // The update of a single image returns it and settles its reservation, which saves a read and a write.
        if let ([(image, verified)], true) = (proved.as_slice(), undecided.is_empty()) {
            let ready = self.accept(image, verified).await?;
            return Ok(Settled { undecided, ready });
        }
        let moves: Vec<_> = proved.iter().map(|(image, verified)| (image, verified)).collect();
        self.store.images.mark_all_ready(&moves).await?;
        for (image, verified) in &proved {
            log_confirmed(image, verified);
        }
        Ok(Settled { undecided, ready: None })
    }

    /// Moves the image from pending to ready; its bytes stay counted. Returns `None` if another request changed its state.
    pub(super) async fn accept(&self, image: &Image, verified: &Verified) -> Result<Option<Image>, StoreError> {
        if let Some(settlement) = image.acceptance(verified) {
            match self.store.accept(image, verified, &settlement).await? {
                Accepted::Ready(ready) => {
                    log_confirmed(image, verified);
                    return Ok(Some(*ready));
                }
                Accepted::Changed => return Ok(None),
                // Counted by the step that is under way, or once that is finished.
                Accepted::InTheWay => {}
            }
        }
        let ready = self.store.images.mark_owned_ready(image, verified).await?;
        if let Some(ready) = &ready {
            log_confirmed(image, verified);
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

/// Outcome of [`Valet::settle_pending`].
struct Settled {
    /// Reasons for which images stay pending.
    undecided: HashMap<ImageId, ConfirmError>,
    /// The image, where there was one alone and it became ready.
    ready: Option<Image>,
}

fn log_confirmed(image: &Image, verified: &Verified) {
    tracing::info!(image = %image.id, user = %image.user, bytes = verified.bytes, "confirmed");
}

fn declared_anew() -> ConfirmError {
    StoreError::Contention { what: "an upload that is declared anew while it is confirmed" }.into()
}

/// Returns the error for an object that was not requested from S3, since S3 did not answer for an earlier one.
fn silent(operation: &'static str) -> StoreError {
    StoreError::Objects { operation, reason: "it did not answer for another object".to_owned() }
}
