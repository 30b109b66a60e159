//! Deletes images. For the user, an image is deleted at once and permanently. Its object is deleted at once too, and again when
//! every URL for it has expired.

use std::{collections::HashMap, sync::Arc};

use time::OffsetDateTime;

use super::{
    audit::audit,
    lifecycle::Lifecycle,
    removal::ObjectRemoval,
    reservations::{MAX_DELETION_ATTEMPTS, Reservations},
    service_keys::Authorized,
    single_result,
};
use crate::{
    model::{Image, ImageId, ImageState, UserId},
    store::{Store, StoreError},
};

/// Why an image was not deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeleteError {
    /// The image does not exist, is another user's, or is purged.
    #[error("there is no such image")]
    NotFound,
    /// Only an open upload was to be deleted, and the upload is complete.
    #[error("the upload is complete")]
    Complete,
    /// The database failed; safe to repeat.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes images and open uploads for their owner.
#[derive(Debug)]
pub struct ImageDeletion {
    pub(super) store: Arc<Store>,
    pub(super) reservations: Arc<Reservations>,
    pub(super) removal: Arc<ObjectRemoval>,
    pub(super) lifecycle: Arc<Lifecycle>,
}

impl ImageDeletion {
    /// Deletes an image or an open upload. Succeeds again while its tombstone exists.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn delete(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<(), DeleteError> {
        single_result(self.delete_all(user, &[id], now).await?)
    }

    /// Deletes an open upload, and never an image: a client that cancels an upload may not know that it is complete. Succeeds
    /// again while its tombstone exists.
    ///
    /// # Errors
    /// [`DeleteError::Complete`] for an image, and the others.
    pub async fn delete_open(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<(), DeleteError> {
        for _ in 0..MAX_DELETION_ATTEMPTS {
            let image = self.store.images.find_owned(user, id).await?.ok_or(DeleteError::NotFound)?;
            match image.state() {
                ImageState::Pending => {
                    if let Some(tombstone) = self.lifecycle.delete_pending(&image, now).await? {
                        tracing::info!(image = %id, %user, "deleted an open upload");
                        self.removal.purge_now(vec![tombstone], now).await;
                        return Ok(());
                    }
                    // Another request changed its state at the same time.
                }
                ImageState::Ready => return Err(DeleteError::Complete),
                ImageState::Purged => return Err(DeleteError::NotFound),
                ImageState::Deleting | ImageState::Rejected | ImageState::Expired => return Ok(()),
            }
        }
        Err(StoreError::Contention { subject: "an open upload" }.into())
    }

    /// Deletes a user's image or open upload for the app's backend.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn delete_for_backend(
        &self,
        key: &Authorized,
        user: UserId,
        id: ImageId,
        now: OffsetDateTime,
    ) -> Result<(), DeleteError> {
        self.delete(user, id, now).await?;
        audit!("image_deleted", %user, image = %id, key = key.key_name(), "the app's backend deleted an image");
        Ok(())
    }

    /// Deletes images and open uploads. Succeeds again while their tombstones exist. A failure of one does not affect the others.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_all(
        &self,
        user: UserId,
        ids: &[ImageId],
        now: OffsetDateTime,
    ) -> Result<Vec<Result<(), DeleteError>>, StoreError> {
        let mut results: HashMap<ImageId, Result<(), DeleteError>> = HashMap::new();
        let mut tombstones = Vec::new();
        for attempt in 0..MAX_DELETION_ATTEMPTS {
            let left: Vec<_> = ids.iter().copied().filter(|id| !results.contains_key(id)).collect();
            if left.is_empty() {
                break;
            }
            let found = self.store.images.find_all_owned(user, &left).await?;
            let ready: Vec<_> = found.readable().iter().filter(|image| image.state() == ImageState::Ready).collect();
            let mut tombstones_by_id = HashMap::new();
            if !ready.is_empty() {
                let deleted = self.reservations.delete_ready(user, &ready, attempt, now).await?;
                let deleted = ready.iter().filter(|image| deleted.contains(&image.id));
                tombstones_by_id.extend(deleted.map(|image| (image.id, Image::clone(image).deleted())));
            }
            let pending: Vec<_> = found.readable().iter().filter(|image| image.state() == ImageState::Pending).collect();
            let deleted = self.delete_all_pending(user, &pending, now).await?;
            tombstones_by_id.extend(deleted.into_iter().map(|tombstone| (tombstone.id, tombstone)));
            for id in &left {
                let image = match found.get(*id) {
                    Ok(image) => image,
                    Err(error) => {
                        results.insert(*id, Err(error.into()));
                        continue;
                    }
                };
                match image.map(Image::state) {
                    None | Some(ImageState::Purged) => drop(results.insert(*id, Err(DeleteError::NotFound))),
                    Some(ImageState::Deleting | ImageState::Rejected | ImageState::Expired) => drop(results.insert(*id, Ok(()))),
                    Some(ImageState::Ready | ImageState::Pending) => {
                        if let Some(tombstone) = tombstones_by_id.remove(id) {
                            tracing::info!(image = %id, %user, "deleted an image");
                            results.insert(*id, Ok(()));
                            tombstones.push(tombstone);
                        }
                    }
                }
            }
        }
        self.removal.purge_now(tombstones, now).await;
        let contended = || Err(StoreError::Contention { subject: "images that are deleted" }.into());
        Ok(ids.iter().map(|id| results.get(id).cloned().unwrap_or_else(contended)).collect())
    }

    /// Deletes open uploads like [`Lifecycle::delete_pending`], many in a few round trips. Returns the tombstones.
    async fn delete_all_pending(&self, user: UserId, images: &[&Image], now: OffsetDateTime) -> Result<Vec<Image>, StoreError> {
        match images {
            [] => return Ok(Vec::new()),
            [image] => return Ok(self.lifecycle.delete_pending(image, now).await?.into_iter().collect()),
            _ => {}
        }
        let ids: Vec<_> = images.iter().map(|image| image.id).collect();
        self.store.images.delete_all_owned_pending(user, &ids, now).await?;
        let found = self.store.images.find_all_owned(user, &ids).await?;
        // A concurrent request may have deleted some of them, and may settle their reservations too: each is settled only once.
        let deleted: Vec<_> = found.readable().iter().filter(|image| image.state() == ImageState::Deleting).cloned().collect();
        self.reservations.settle_reservations(user, &deleted, now).await?;
        Ok(deleted)
    }
}
