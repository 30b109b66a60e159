//! Deletes images: for the user at once and for good. The object is deleted at once, and again when every URL for it has expired.

use std::{collections::HashMap, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

use super::{MAX_S3_CALLS_PER_USER, Valet, removal::Removal, single_result};
use crate::{
    model::{Image, ImageId, ImageState, UserId},
    store::StoreError,
};

/// Why an image was not deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeleteError {
    /// The image does not exist, is another user's, or is purged.
    #[error("there is no such image")]
    NotFound,
    /// The database failed; safe to repeat.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Attempts at deleting images that a confirm or the sweeper changes meanwhile.
pub(super) const MAX_ATTEMPTS: u32 = 5;
/// How long a request waits for the objects' deletion; the sweeper deletes the rest.
const PURGE_DEADLINE: Duration = Duration::from_secs(4);

impl Valet {
    /// Deletes an image or an open upload. Succeeds again while its tombstone exists.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn delete(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<(), DeleteError> {
        single_result(self.delete_all(user, &[id], now).await?)
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
        let mut done: HashMap<ImageId, Result<(), DeleteError>> = HashMap::new();
        let mut tombstones = Vec::new();
        for tried in 0..MAX_ATTEMPTS {
            let left: Vec<_> = ids.iter().copied().filter(|id| !done.contains_key(id)).collect();
            if left.is_empty() {
                break;
            }
            let found = self.store.images.find_all_owned(user, &left).await?;
            let ready: Vec<_> = found.readable().iter().filter(|image| image.state == ImageState::Ready).collect();
            let mut taken = Vec::new();
            if !ready.is_empty() {
                taken.extend(self.delete_ready(user, &ready, tried, now).await?);
            }
            let pending: Vec<_> = found.readable().iter().filter(|image| image.state == ImageState::Pending).collect();
            taken.extend(self.delete_all_pending(user, &pending, now).await?);
            for id in &left {
                let image = match found.get(*id) {
                    Ok(image) => image,
                    Err(error) => {
                        done.insert(*id, Err(error.into()));
                        continue;
                    }
                };
                let deleted = match image.map(|image| image.state) {
                    None | Some(ImageState::Purged) => {
                        done.insert(*id, Err(DeleteError::NotFound));
                        false
                    }
                    Some(ImageState::Deleting | ImageState::Rejected | ImageState::Expired) => {
                        done.insert(*id, Ok(()));
                        false
                    }
                    Some(ImageState::Ready | ImageState::Pending) => taken.contains(id),
                };
                if let (true, Some(image)) = (deleted, image) {
                    tracing::info!(image = %id, %user, "deleted an image");
                    done.insert(*id, Ok(()));
                    tombstones.push(Image { state: ImageState::Deleting, ..image.clone() });
                }
            }
        }
        self.purge_now(tombstones, now).await;
        let lost = || Err(StoreError::Contention { what: "images that are deleted" }.into());
        Ok(ids.iter().map(|id| done.get(id).cloned().unwrap_or_else(lost)).collect())
    }

    /// [`Valet::delete_pending`] for many images, in a few round trips. Returns the deleted ones.
    async fn delete_all_pending(&self, user: UserId, images: &[&Image], now: OffsetDateTime) -> Result<Vec<ImageId>, StoreError> {
        match images {
            [] => return Ok(Vec::new()),
            [image] => return Ok(if self.delete_pending(image, now).await? { vec![image.id] } else { Vec::new() }),
            _ => {}
        }
        let ids: Vec<_> = images.iter().map(|image| image.id).collect();
        self.store.images.delete_all_owned_pending(user, &ids, now).await?;
        let found = self.store.images.find_all_owned(user, &ids).await?;
        // A concurrent request may have deleted some, and settles the same reservations: each is settled once.
        let deleted: Vec<_> = found.readable().iter().filter(|image| image.state == ImageState::Deleting).cloned().collect();
        self.settle_reservations(user, &deleted, now).await?;
        Ok(deleted.iter().map(|image| image.id).collect())
    }

    /// Deletes the objects of tombstones while the user waits. The sweeper retries failures: the tombstones are due already.
    pub(super) async fn purge_now(&self, tombstones: Vec<Image>, now: OffsetDateTime) {
        // The bucket is another database's. If it becomes this one's again, the sweeper removes them.
        if self.is_parted() {
            return;
        }
        let purge = |tombstone: Image| {
            async move {
                let removed = self.remove_image_objects(&tombstone).await;
                (removed, tombstone)
            }
            .boxed()
        };
        let purged = stream::iter(tombstones).map(purge).buffer_unordered(MAX_S3_CALLS_PER_USER);
        let purged: Vec<_> = purged.take_until(tokio::time::sleep(PURGE_DEADLINE)).collect().await;
        let mut done = Vec::new();
        for (removed, tombstone) in &purged {
            match removed {
                Ok(Removal::Complete) => done.push((tombstone, self.quiet_from(tombstone).max(now))),
                // The tombstone is due already: the sweeper continues.
                Ok(Removal::Partial) => {}
                Err(error) => {
                    tracing::warn!(image = %tombstone.id, %error, "failed to delete the object of a deleted image; the sweeper retries");
                }
            }
        }
        // The updates that made them tombstones have set their next sweep to `now`.
        if let Err(error) = self.store.images.postpone_all(&done, now).await {
            tracing::warn!(%error, "failed to postpone tombstones; the sweeper checks them early");
        }
    }
}
