//! Deleting: final for the user at once; the object goes now, and once more when every URL for it has died.

use std::collections::HashMap;

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

use super::{S3_AT_ONCE, Valet, one};
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
const TRIES: usize = 5;

impl Valet {
    /// Deletes an image or an open upload; done again while its tombstone lives.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn delete(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<(), DeleteError> {
        one(self.delete_all(user, &[id], now).await?)
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
        let mut purges = Vec::new();
        for _ in 0..TRIES {
            let left: Vec<_> = ids.iter().copied().filter(|id| !done.contains_key(id)).collect();
            if left.is_empty() {
                break;
            }
            let found = self.store.images.find_all_owned(user, &left).await?;
            let ready: Vec<_> = found.iter().filter(|image| image.state == ImageState::Ready).map(|image| image.id).collect();
            let taken = if ready.is_empty() { Vec::new() } else { self.store.delete_owned_ready(user, &ready, now).await? };
            for id in &left {
                let image = found.iter().find(|image| image.id == *id);
                let deleted = match image.map(|image| image.state) {
                    None | Some(ImageState::Gone) => {
                        done.insert(*id, Err(DeleteError::NotFound));
                        false
                    }
                    Some(ImageState::Deleting | ImageState::Rejected | ImageState::Expired) => {
                        done.insert(*id, Ok(()));
                        false
                    }
                    Some(ImageState::Ready) => taken.contains(id),
                    Some(ImageState::Pending) => match image {
                        Some(image) => self.delete_pending(image, now).await?,
                        None => false,
                    },
                };
                if let (true, Some(image)) = (deleted, image) {
                    tracing::info!(image = %id, %user, "deleted");
                    done.insert(*id, Ok(()));
                    purges.push(self.purge_now(Image { state: ImageState::Deleting, ..image.clone() }, now).boxed());
                }
            }
        }
        stream::iter(purges).buffer_unordered(S3_AT_ONCE).collect::<()>().await;
        Ok(ids.iter().map(|id| done.get(id).cloned().unwrap_or(Err(DeleteError::NotFound))).collect())
    }

    pub(super) async fn delete_pending(&self, image: &Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        let deleted = self.store.images.delete_owned_pending(image.user, image.id, now).await?;
        if deleted {
            self.store.users.release_held(image.user, image.id, image.reserved).await?;
        }
        Ok(deleted)
    }

    /// The bytes go while the user waits, as one expects of a delete. What fails here the sweeper does: the tombstone is
    /// due already.
    async fn purge_now(&self, tombstone: Image, now: OffsetDateTime) {
        let purge = async {
            self.remove(&tombstone).await?;
            // The image is due at `now`, by the update that made it a tombstone.
            self.store.images.postpone(&tombstone, now, self.quiet_from(&tombstone).max(now)).await
        };
        if let Err(error) = purge.await {
            tracing::warn!(image = %tombstone.id, %error, "the object of a deleted image is left to the sweeper");
        }
    }
}
