//! Deleting: final for the user at once; the object goes now, and once more when every URL for it has died.

use time::OffsetDateTime;

use super::Valet;
use crate::{
    model::{Image, ImageId, ImageState, UserId},
    store::StoreError,
};

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
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
        for _ in 0..TRIES {
            let image = self.store.images.find_owned(user, id).await?.ok_or(DeleteError::NotFound)?;
            let deleted = match image.state {
                ImageState::Gone => return Err(DeleteError::NotFound),
                ImageState::Deleting | ImageState::Rejected | ImageState::Expired => return Ok(()),
                ImageState::Pending => self.delete_pending(&image, now).await?,
                ImageState::Ready => self.store.delete_ready(&image, now).await?,
            };
            if deleted {
                tracing::info!(image = %id, %user, "deleted");
                self.purge_now(Image { state: ImageState::Deleting, ..image }, now).await;
                return Ok(());
            }
        }
        Err(DeleteError::NotFound)
    }

    pub(super) async fn delete_pending(&self, image: &Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        let deleted = self.store.images.delete_owned_pending(image.user, image.id, now).await?;
        if deleted {
            self.store.users.release_held(image.user, image.id, image.upload.size).await?;
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
