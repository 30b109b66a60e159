//! Confirms uploads: inspects each pending one in S3, marks it ready or rejected, and returns its state.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

use super::{
    MAX_S3_CALLS_PER_USER,
    inspection::{Inspection, MissingParts, UploadInspector},
    lifecycle::Lifecycle,
    reservations::Reservations,
    s3_timeouts::RecentTimeouts,
    single_result,
    store_capabilities::UnsupportedUpload,
    unavailable_upload::UnavailableUpload,
};
use crate::{
    model::{Image, ImageId, ImageState, ImageStatus, UserId},
    store::{LookupResult, Store, StoreError, fair_semaphore::FairSemaphore},
};

/// Inspections of one upload, at most: a declaration that is changed during an inspection makes another one necessary.
const MAX_ATTEMPTS: usize = 3;

/// Why an image is not ready.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfirmError {
    /// The upload is neither open nor ready.
    #[error(transparent)]
    Unavailable(#[from] UnavailableUpload),
    /// The store has no object at the key.
    #[error("nothing has been uploaded")]
    ObjectMissing,
    /// Parts of a multipart upload are missing.
    #[error("the parts {0} are missing")]
    PartsMissing(MissingParts),
    /// The store refuses to make an object of the parts. A repeat with the same parts fails again.
    #[error("the store refused to complete the parts")]
    PartsRejected,
    /// The store does not take uploads of this class safely.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedUpload),
    /// The database or S3 failed. Nothing was decided; safe to repeat.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Confirms uploads: inspects them, and makes them ready or rejects them.
#[derive(Debug)]
pub struct Confirmation {
    pub(super) store: Arc<Store>,
    pub(super) reservations: Arc<Reservations>,
    /// Permits for inspections: [`MAX_S3_CALLS_PER_USER`] for each user, over all requests.
    pub(super) s3_turns: Arc<FairSemaphore<UserId>>,
    /// Latest timeouts of inspections, by user.
    pub(super) timeouts: RecentTimeouts,
    pub(super) inspector: Arc<UploadInspector>,
    pub(super) lifecycle: Arc<Lifecycle>,
}

impl Confirmation {
    /// Makes a pending image ready. Repeated and concurrent calls get the same answer.
    ///
    /// # Errors
    /// [`ConfirmError`].
    pub async fn confirm(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<Image, ConfirmError> {
        single_result(self.confirm_all(user, &[id], now).await?)
    }

    /// Confirms many images: some calls to S3 for each, and a few to the database for all. A failure of one does not affect the
    /// others.
    ///
    /// # Errors
    /// [`StoreError`] of the database; errors of S3 are in the results.
    pub async fn confirm_all(
        &self,
        user: UserId,
        ids: &[ImageId],
        now: OffsetDateTime,
    ) -> Result<Vec<Result<Image, ConfirmError>>, StoreError> {
        let mut found = self.store.images.find_all_owned(user, ids).await?;
        let (mut unresolved, mut inspected_ids) = (HashMap::new(), Vec::new());
        for _ in 0..MAX_ATTEMPTS {
            // A pending upload is inspected even after its expiry, and again if it was declared again meanwhile.
            let is_open = |image: &&Image| image.status == ImageStatus::Pending && !unresolved.contains_key(&image.id);
            let pending: Vec<_> = found.readable().iter().filter(is_open).cloned().collect();
            if pending.is_empty() {
                break;
            }
            inspected_ids.extend(pending.iter().map(|image| image.id));
            let resolved = self.resolve_pending(user, pending, now).await?;
            unresolved.extend(resolved.unresolved);
            inspected_ids.retain(|id| !resolved.settled.contains(id));
            found = match resolved.image {
                Some(image) if ids.len() == 1 => LookupResult::from(image),
                // Read again: another request may have changed their states.
                _ => self.store.images.find_all_owned(user, ids).await?,
            };
        }
        // Includes images that were ready before: the server that confirmed them may have died before it settled their
        // reservations.
        let is_unsettled = |image: &&Image| image.reservation.is_some() || inspected_ids.contains(&image.id);
        let ready: Vec<_> =
            found.readable().iter().filter(|image| image.state() == ImageState::Ready).filter(is_unsettled).cloned().collect();
        if let Err(error) = self.reservations.settle_reservations(user, &ready, now).await {
            // The images are ready, so the confirm succeeds even if their reservations are not settled yet.
            tracing::warn!(%user, %error, "failed to settle reservations of confirmed images; the sweeper retries");
        }
        // Clones: the same id may occur twice.
        let answer = |id: &ImageId| {
            let image = found.get(*id)?.ok_or(UnavailableUpload::NotFound)?;
            match &image.status {
                ImageStatus::Ready(_) => Ok(image.clone()),
                ImageStatus::Pending => Err(unresolved.get(id).cloned().unwrap_or_else(declared_again)),
                ImageStatus::Tombstone(end) | ImageStatus::Purged(end) => Err(UnavailableUpload::from(*end).into()),
            }
        };
        Ok(ids.iter().map(answer).collect())
    }

    /// Waits until the images that were confirmed so far are counted in their owners' usage.
    pub async fn wait_for_counts(&self) {
        self.store.wait_for_counts().await;
    }

    /// Inspects pending images, and marks ready or rejected those that can be decided.
    async fn resolve_pending(&self, user: UserId, pending: Vec<Image>, now: OffsetDateTime) -> Result<Resolved, StoreError> {
        // After the first timeout, the remaining images fail without a call to S3.
        let timeout = OnceLock::new();
        let inspect = |image: Image| {
            let timeout = &timeout;
            // Boxed: the stream's own futures are not `Send` for every lifetime.
            async move {
                // Limits the inspections of this user over all requests, so that other users' inspections do not wait for them.
                let began = Instant::now();
                let _permit = self.s3_turns.acquire(image.user, ()).await;
                // Another request's call timed out while this one waited for its permit.
                if self.timeouts.has_any_since(image.user, began) {
                    let _ = timeout.set(no_response("HeadObject"));
                }
                let inspection = match timeout.get() {
                    Some(error) => Err(StoreError::clone(error)),
                    None => self.inspector.inspect_upload(&image, now).await,
                };
                if let Err(StoreError::ObjectsTimeout { operation }) = &inspection {
                    self.timeouts.record(image.user, Instant::now());
                    let _ = timeout.set(no_response(operation));
                }
                (inspection, image)
            }
            .boxed()
        };
        let inspections = pending.into_iter().map(inspect);
        let inspected: Vec<_> = stream::iter(inspections).buffer_unordered(MAX_S3_CALLS_PER_USER).collect().await;
        let (mut verified, mut unresolved, mut rejected) = (Vec::new(), HashMap::new(), Vec::new());
        for (inspection, image) in inspected {
            match inspection {
                Ok(Inspection::Verified(object)) => verified.push((image, object)),
                // If another request has changed the image, the caller reads its state.
                Ok(Inspection::Mismatch(why)) => rejected.extend(self.lifecycle.reject(&image, why, now).await?),
                // An object that some nodes of the store do not know yet is reported as missing, so that the client confirms again.
                Ok(Inspection::Missing) | Err(StoreError::ObjectNotVisible) => {
                    drop(unresolved.insert(image.id, ConfirmError::ObjectMissing));
                }
                Ok(Inspection::PartsMissing(missing)) => drop(unresolved.insert(image.id, ConfirmError::PartsMissing(missing))),
                Ok(Inspection::PartsRejected) => drop(unresolved.insert(image.id, ConfirmError::PartsRejected)),
                Ok(Inspection::Unsupported(error)) => drop(unresolved.insert(image.id, ConfirmError::Unsupported(error))),
                Err(error) => drop(unresolved.insert(image.id, error.into())),
            }
        }
        // The transition of a single image returns it, which saves a read.
        let (settled, image) = match verified.as_slice() {
            [] => (Vec::new(), rejected.pop()),
            [(image, object)] => match self.lifecycle.accept(image, object).await? {
                Some(ready) => (vec![ready.id], Some(ready)),
                None => (Vec::new(), None),
            },
            _ => (self.lifecycle.accept_all(user, &verified).await?, None),
        };
        Ok(Resolved { unresolved, settled, image })
    }
}

/// Outcome of [`Confirmation::resolve_pending`].
struct Resolved {
    /// Reasons for which images stay pending.
    unresolved: HashMap<ImageId, ConfirmError>,
    /// Images that became ready, and whose reservations are settled or still on the returned `image`.
    settled: Vec<ImageId>,
    /// An image that was accepted or rejected, as it is then.
    image: Option<Image>,
}

/// Returns the error for an upload whose declaration changed during every inspection.
fn declared_again() -> ConfirmError {
    StoreError::Contention { subject: "an upload that is declared again while it is confirmed" }.into()
}

/// Returns the error for an object that was not requested from S3, because a call for another object timed out.
fn no_response(operation: &'static str) -> StoreError {
    StoreError::Objects { operation, reason: "it did not answer for another object".to_owned() }
}
