//! Signs new URLs for open uploads.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::{RenewError, Ticket, Uploads};
use crate::{
    domain::{store_capabilities::UploadClass, unavailable_upload::UnavailableUpload},
    model::{ImageId, ImageStatus, UserId},
    store::StoreError,
};

impl Uploads {
    /// Signs new URLs for each open upload, and returns ready images. Takes three round trips for any number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn renew_all(
        &self,
        user: UserId,
        ids: &[ImageId],
        now: OffsetDateTime,
    ) -> Result<Vec<Result<Ticket, RenewError>>, StoreError> {
        let support = self.capabilities.require_support(UploadClass::WithDigest);
        let mut signed = HashMap::new();
        for image in self.store.images.find_all_owned(user, ids).await?.readable() {
            let is_open = support.is_ok() && image.expires_at > now;
            if let (ImageStatus::Pending, Some(sha256), true) = (&image.status, image.upload.sha256(), is_open) {
                let puts = self.presign_puts(&image.key, &image.upload, sha256, now)?;
                signed.insert(image.id, (puts, image.upload.size));
            }
        }
        let pending: Vec<_> = signed.keys().copied().collect();
        let last_expiry = signed.values().map(|(puts, _)| puts.expire_at()).max();
        if let Some(expiry) = last_expiry {
            // All uploads get the largest grace period: a late sweep is safe.
            let largest = signed.values().map(|(_, size)| *size).max().unwrap_or(0);
            self.store.images.raise_owned_url_expiry(user, &pending, expiry, expiry + self.late_transfers.grace(largest)).await?;
        }
        // Read after the URLs' expiry was stored: an upload that is pending now cannot expire before its URLs.
        let current = self.store.images.find_all_owned(user, ids).await?;
        // Clones, because the same id may occur twice.
        let answer = |id: &ImageId| {
            let image = current.get(*id)?.cloned().ok_or(UnavailableUpload::NotFound)?;
            match (&image.status, signed.get(id)) {
                (ImageStatus::Ready(_), _) => Ok(Ticket::Ready(Box::new(image))),
                (ImageStatus::Pending, Some((puts, _))) => Ok(Ticket::Pending(Box::new(image), puts.clone())),
                (ImageStatus::Pending, None) if image.expires_at <= now => Err(UnavailableUpload::Expired.into()),
                (ImageStatus::Pending, None) if image.upload.sha256().is_none() => Err(RenewError::NotSingle),
                // The store does not support the upload, or another request prolonged the upload between the two reads.
                (ImageStatus::Pending, None) => Err(support.clone().err().map_or_else(prolonged, RenewError::Unsupported)),
                (ImageStatus::Tombstone(end) | ImageStatus::Purged(end), _) => Err(UnavailableUpload::from(*end).into()),
            }
        };
        Ok(ids.iter().map(answer).collect())
    }
}

/// Returns the error for an upload that had expired when it was read first, and had been prolonged when it was read again.
fn prolonged() -> RenewError {
    StoreError::Contention { subject: "an upload that is renewed" }.into()
}
