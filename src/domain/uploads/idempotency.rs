//! Idempotency keys: a repeated request finds the upload of the first.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::OpenError;
use crate::{
    model::{Idempotency, Image, ImageStatus, UserId},
    store::Store,
};

/// Lifetime of an idempotency key. The key of an open multipart upload stays valid until the upload expires.
pub(super) const IDEMPOTENCY_KEY_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Finds uploads by idempotency key.
#[derive(Debug)]
pub(in crate::domain) struct IdempotencyKeys {
    pub(in crate::domain) store: Arc<Store>,
}

impl IdempotencyKeys {
    /// Returns the user's upload with this idempotency key. Releases an expired key, and the key of an expired upload.
    ///
    /// # Errors
    /// [`OpenError::KeyReused`] if the key was used for another request.
    pub(in crate::domain) async fn find_under_key(
        &self,
        user: UserId,
        idempotency: &Idempotency,
        now: OffsetDateTime,
    ) -> Result<Option<Image>, OpenError> {
        let known_uploads = self.store.images.find_owned_known(user, &[], &[&idempotency.key]).await?;
        known_uploads.verify_readable(Some(&idempotency.key), None)?;
        let is_open_in_parts = |image: &Image| image.status == ImageStatus::Pending && image.upload.is_in_parts();
        let is_old = |image: &Image| image.created_at + IDEMPOTENCY_KEY_TTL <= now && !is_open_in_parts(image);
        match known_uploads.readable().first().cloned() {
            // The key of an expired upload is free at once; the sweeper confirms or expires the upload. An open multipart upload
            // keeps its key longer than 24 hours: its client repeats the request with the key to continue it, even after days.
            Some(image) if image.is_past_expiry(now) || is_old(&image) => {
                self.store.images.release_owned_key(user, image.id, &idempotency.key).await?;
                Ok(None)
            }
            Some(image) if image.idempotency.as_ref() == Some(idempotency) => Ok(Some(image)),
            Some(_) => Err(OpenError::KeyReused),
            None => Ok(None),
        }
    }
}
