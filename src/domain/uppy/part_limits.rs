//! Bounds the parts of uploads whose URLs sign no length: their sizes are summed before more URLs are signed, and by the sweeper
//! while a URL is valid.
//!
//! S3 accepts up to 5 GiB for each such URL. An upload's parts never exceed its reservation by more than its client sends between
//! two checks. While the client requests URLs, they are checked after [`MAX_URLS_PER_CHECK`] URLs (or those of one request, if it
//! is for more) or after [`CHECK_TTL`], whichever comes first; otherwise by the sweeper, every minute. Above the reservation the
//! upload is rejected and its parts are aborted, which invalidates all their URLs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::{
    domain::{
        generational_cache::GenerationalCache, lifecycle::Lifecycle, multipart::PartsError, removal::ObjectRemoval,
        throttle::Throttle, unavailable_upload::UnavailableUpload,
    },
    model::{Image, ImageId, Rejection, UploadKind},
    store::{Objects, StoreError},
};

/// Maximum lifetime of a URL for a part of any length. S3 checks it when a transfer begins.
pub(super) const PART_URL_TTL: Duration = Duration::from_secs(15 * 60);
/// Interval between two checks of parts of undeclared length, while a URL for more parts is valid.
pub(in crate::domain) const PART_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// URLs that are signed for an upload between two checks of its parts.
const MAX_URLS_PER_CHECK: u32 = 16;
/// Time for which the result of a check is used.
const CHECK_TTL: Duration = Duration::from_secs(10);
/// Maximum number of open uploads of one key whose parts are summed. No regular client opens as many.
const MAX_OPEN_UPLOADS: usize = 100;
/// Listings of parts that run concurrently.
const MAX_CONCURRENT: usize = 8;
/// Uploads whose latest check is remembered.
const CAPACITY: usize = 10_000;

/// Time of this server's latest check of an upload's parts, and the number of URLs that it has signed since.
#[derive(Debug, Clone, Copy)]
struct PartCheck {
    at: Instant,
    /// Number of URLs.
    signed: u32,
}

/// The latest checks of this server.
#[derive(Debug)]
pub(in crate::domain) struct PartChecks(Mutex<GenerationalCache<ImageId, PartCheck>>);

impl Default for PartChecks {
    fn default() -> Self {
        Self(Mutex::new(GenerationalCache::new(CAPACITY)))
    }
}

impl PartChecks {
    /// Counts URLs that are about to be signed. Returns `false` if the parts must be checked first.
    fn try_count(&self, image: ImageId, urls: usize) -> bool {
        let urls = u32::try_from(urls).unwrap_or(u32::MAX);
        let mut checks = self.0.lock();
        let Some(check) = checks.get(&image) else { return false };
        let signed = check.signed.saturating_add(urls);
        let is_allowed = check.at.elapsed() < CHECK_TTL && signed <= MAX_URLS_PER_CHECK;
        if is_allowed {
            checks.insert(image, PartCheck { signed, ..check });
        }
        is_allowed
    }

    /// Records a listing of the image's parts, and the number of URLs that are signed after it.
    fn record(&self, image: ImageId, signed: usize) {
        let signed = u32::try_from(signed).unwrap_or(u32::MAX);
        self.0.lock().insert(image, PartCheck { at: Instant::now(), signed });
    }
}

/// Bounds the parts of uploads by their reservations.
#[derive(Debug)]
pub(in crate::domain) struct PartLimits {
    pub(in crate::domain) objects: Arc<Objects>,
    pub(in crate::domain) part_checks: PartChecks,
    pub(in crate::domain) throttle: Arc<Throttle>,
    pub(in crate::domain) lifecycle: Arc<Lifecycle>,
    pub(in crate::domain) removal: Arc<ObjectRemoval>,
}

impl PartLimits {
    /// Checks the parts of an upload before `urls` more are signed, unless this server did so a moment ago. Each listing counts
    /// as one of the user's calls to S3.
    ///
    /// # Errors
    /// [`UnavailableUpload::Rejected`] if they exceed the reservation; [`PartsError::Throttled`].
    pub(super) async fn enforce_reservation(&self, image: &Image, urls: usize, now: OffsetDateTime) -> Result<(), PartsError> {
        if self.part_checks.try_count(image.id, urls) {
            return Ok(());
        }
        self.throttle.count_s3_calls(image.user, 1)?;
        let open = self.open_upload_ids(image).await?;
        self.throttle.count_s3_calls(image.user, u32::try_from(open.len()).unwrap_or(u32::MAX))?;
        if self.reject_if_overfull(image, open, now).await? {
            return Err(UnavailableUpload::Rejected(Rejection::ObjectMismatch).into());
        }
        self.part_checks.record(image.id, urls);
        Ok(())
    }

    /// Rejects a pending upload whose parts of undeclared length exceed its reservation, and removes the parts. Returns `false` for
    /// any other image.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Contention`] if another request changed the image's state meanwhile.
    pub(in crate::domain) async fn reject_overfull(&self, image: &Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        if image.upload.kind != UploadKind::UndeclaredParts {
            return Ok(false);
        }
        let open = self.open_upload_ids(image).await?;
        self.reject_if_overfull(image, open, now).await
    }

    /// Rejects an upload whose parts exceed its reservation; returns whether it did.
    async fn reject_if_overfull(&self, image: &Image, open: Vec<String>, now: OffsetDateTime) -> Result<bool, StoreError> {
        if self.bytes_in_parts(image, open, image.reserved).await? <= image.reserved {
            return Ok(false);
        }
        // Another request, such as a Complete that names fewer parts, may have made the image ready since the parts were listed.
        let Some(tombstone) = self.lifecycle.reject(image, Rejection::ObjectMismatch, now).await? else {
            return Err(StoreError::Contention { subject: "an upload that is changed while its parts are counted" });
        };
        tracing::warn!(image = %image.id, user = %image.user, reserved = image.reserved, "rejected an upload whose parts exceeded its reservation");
        self.removal.purge_now(vec![tombstone], now).await;
        Ok(true)
    }

    /// Returns the ids of the open uploads at the image's key.
    async fn open_upload_ids(&self, image: &Image) -> Result<Vec<String>, StoreError> {
        let listed = self.objects.open_uploads(&image.key).await?;
        let mut ids = listed.map(|open| open.ids).unwrap_or_default();
        ids.extend(image.upload_id.clone());
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Returns the bytes of all parts of these uploads; stops counting above `enough`. Returns [`u64::MAX`] for more than
    /// [`MAX_OPEN_UPLOADS`] uploads.
    async fn bytes_in_parts(&self, image: &Image, ids: Vec<String>, enough: u64) -> Result<u64, StoreError> {
        if ids.len() > MAX_OPEN_UPLOADS {
            return Ok(u64::MAX);
        }
        let sum = |id: String| {
            async move {
                let parts = self.objects.list_parts(&image.key, &id).await?.unwrap_or_default();
                Ok::<_, StoreError>(parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size)))
            }
            .boxed()
        };
        let mut sums = stream::iter(ids).map(sum).buffer_unordered(MAX_CONCURRENT);
        let mut total = 0_u64;
        while let Some(bytes) = sums.try_next().await? {
            total = total.saturating_add(bytes);
            if total > enough {
                break;
            }
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_listing_of_parts_suffices_for_a_few_urls() {
        let (checks, image) = (PartChecks::default(), ImageId::new());
        assert!(!checks.try_count(image, 1), "never checked");
        checks.record(image, 1);
        // docs/quota.md and docs/uppy.md have the number.
        assert!((1..16).all(|_| checks.try_count(image, 1)));
        assert!(!checks.try_count(image, 1));
        checks.record(image, 1000);
        assert!(!checks.try_count(image, 1), "a batch uses up a check");
        assert!(!checks.try_count(ImageId::new(), 1), "an image that was not checked");
    }
}
