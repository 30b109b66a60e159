//! Deleting: final for the user at once; the object goes now, and once more when every URL for it has died.

use std::{collections::HashMap, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

use super::{MAX_S3_CALLS_PER_USER, Valet, removal::Removal, single_result};
use crate::{
    model::{Image, ImageId, ImageState, UserId},
    store::StoreError,
};

/// Why nothing was deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeleteError {
    /// Not this user's, or not there any more.
    #[error("there is no such image")]
    NotFound,
    /// The database failed; asking again is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Races with a confirm or the sweeper are settled by looking again.
pub(super) const MAX_ATTEMPTS: u32 = 5;
/// How long the user waits for the bytes to go; what is left then is the sweeper's.
const PURGE_DEADLINE: Duration = Duration::from_secs(4);

impl Valet {
    /// Deletes an image or an open upload; done again while its tombstone lives.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn delete(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<(), DeleteError> {
        single_result(self.delete_all(user, &[id], now).await?)
    }

    /// Deletes images and open uploads; done again while their tombstones live. One that is not there harms no other.
    ///
    /// # Errors
    /// [`StoreError`]; asking again is safe.
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
                    tracing::info!(image = %id, %user, "deleted");
                    done.insert(*id, Ok(()));
                    tombstones.push(Image { state: ImageState::Deleting, ..image.clone() });
                }
            }
        }
        self.purge_now(tombstones, now).await;
        let lost = || Err(StoreError::Contention { what: "images that are deleted" }.into());
        Ok(ids.iter().map(|id| done.get(id).cloned().unwrap_or_else(lost)).collect())
    }

    /// [`Valet::delete_pending`] for many, at the cost of a few round trips; says which are deleted.
    async fn delete_all_pending(&self, user: UserId, images: &[&Image], now: OffsetDateTime) -> Result<Vec<ImageId>, StoreError> {
        match images {
            [] => return Ok(Vec::new()),
            [image] => return Ok(if self.delete_pending(image, now).await? { vec![image.id] } else { Vec::new() }),
            _ => {}
        }
        let ids: Vec<_> = images.iter().map(|image| image.id).collect();
        self.store.images.delete_all_owned_pending(user, &ids, now).await?;
        let found = self.store.images.find_all_owned(user, &ids).await?;
        // Some may be another delete's, which settles the same reservations: each is settled once.
        let deleted: Vec<_> = found.readable().iter().filter(|image| image.state == ImageState::Deleting).cloned().collect();
        self.settle_reservations(user, &deleted, now).await?;
        Ok(deleted.iter().map(|image| image.id).collect())
    }

    /// The bytes go while the user waits, as one expects of a delete. What fails here the sweeper does: the tombstones are
    /// due already.
    pub(super) async fn purge_now(&self, tombstones: Vec<Image>, now: OffsetDateTime) {
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
                // It is due already: the sweeper goes on.
                Ok(Removal::Partial) => {}
                Err(error) => {
                    tracing::warn!(image = %tombstone.id, %error, "the object of a deleted image is left to the sweeper");
                }
            }
        }
        // The images are due at `now`, by the updates that made them tombstones.
        if let Err(error) = self.store.images.postpone_all(&done, now).await {
            tracing::warn!(%error, "deleted images are looked at again before their URLs have died");
        }
    }
}
