//! The bytes of parts whose length no URL signs: summed before more of them are signed, and by the sweeper while a URL lives.
//!
//! S3 takes up to 5 GiB by each such URL. What lies in the bucket for an upload is never more than its reservation and what its
//! client sends between two checks: [`MAX_URLS_PER_CHECK`] URLs or [`CHECK_TTL`], whichever comes first, as long as it asks for URLs,
//! and a minute of the sweeper's when it does not. Above the reservation the upload is rejected and its parts are aborted, which
//! ends every URL of them.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use time::OffsetDateTime;

use crate::{
    domain::{Valet, generational_cache::GenerationalCache, multipart::PartsError},
    model::{Image, ImageId, ImageState, Rejection, UnverifiedUpload},
    store::StoreError,
};

/// The longest life of a URL for a part of any length. S3 checks at it when a transfer begins.
pub(super) const PART_URL_TTL: Duration = Duration::from_secs(15 * 60);
/// URLs that are signed for an upload between two checks at its parts.
const MAX_URLS_PER_CHECK: u32 = 16;
/// How long a check counts.
const CHECK_TTL: Duration = Duration::from_secs(10);
/// Open uploads of one key whose parts are summed. No client of ours opens as many.
const MAX_OPEN_UPLOADS: usize = 100;
/// Listings at once.
const AT_ONCE: usize = 8;
/// Uploads whose last check is remembered.
const CAPACITY: usize = 10_000;

/// When this server last looked at the parts of an upload, and how many URLs it has signed since.
#[derive(Debug, Clone, Copy)]
struct PartCheck {
    at: Instant,
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
    /// Counts URLs that are about to be signed. `false` when the parts are to be looked at first.
    fn allow(&self, image: ImageId, urls: usize) -> bool {
        let urls = u32::try_from(urls).unwrap_or(u32::MAX);
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(check) = checks.get(image) else { return false };
        // The first of a check may be any number: they are asked for in one call.
        let allowed =
            check.at.elapsed() < CHECK_TTL && (check.signed == 0 || check.signed.saturating_add(urls) <= MAX_URLS_PER_CHECK);
        if allowed {
            checks.insert(image, PartCheck { signed: check.signed.saturating_add(urls), ..check });
        }
        allowed
    }

    fn note(&self, image: ImageId, signed: usize) {
        let signed = u32::try_from(signed).unwrap_or(u32::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(image, PartCheck { at: Instant::now(), signed });
    }
}

impl Valet {
    /// PartChecks at the parts of an upload before `urls` more are signed, unless this server did so a moment ago. Each listing counts
    /// as a call to S3 of the user's.
    ///
    /// # Errors
    /// [`PartsError::Rejected`] when they are more than was reserved; [`PartsError::Throttled`].
    pub(super) async fn enforce_reservation(&self, image: &Image, urls: usize, now: OffsetDateTime) -> Result<(), PartsError> {
        if self.part_checks.allow(image.id, urls) {
            return Ok(());
        }
        self.throttle.count_s3_calls(image.user, 1)?;
        let open = self.open_upload_ids(image).await?;
        self.throttle.count_s3_calls(image.user, u32::try_from(open.len()).unwrap_or(u32::MAX))?;
        if self.reject_overfull_of(image, open, now).await? {
            return Err(PartsError::Rejected(Rejection::ObjectMismatch));
        }
        self.part_checks.note(image.id, urls);
        Ok(())
    }

    /// Rejects a pending upload whose parts of undeclared length are more than was reserved, and removes them. `false` for any
    /// other image.
    pub(in crate::domain) async fn reject_overfull(&self, image: &Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        if image.upload.unverified != Some(UnverifiedUpload::Parts) {
            return Ok(false);
        }
        let open = self.open_upload_ids(image).await?;
        self.reject_overfull_of(image, open, now).await
    }

    async fn reject_overfull_of(&self, image: &Image, open: Vec<String>, now: OffsetDateTime) -> Result<bool, StoreError> {
        if self.bytes_in_parts(image, open, image.reserved).await? <= image.reserved {
            return Ok(false);
        }
        tracing::warn!(image = %image.id, user = %image.user, reserved = image.reserved, "an upload has more parts than it reserved");
        self.reject(image, Rejection::ObjectMismatch, now).await?;
        self.purge_now(vec![Image { state: ImageState::Rejected, ..image.clone() }], now).await;
        Ok(true)
    }

    /// S3's names of the uploads that are open at the image's key.
    async fn open_upload_ids(&self, image: &Image) -> Result<Vec<String>, StoreError> {
        let listed = self.objects.open_uploads(&image.key).await?;
        let mut ids = listed.map(|open| open.ids).unwrap_or_default();
        ids.extend(image.upload_id.clone());
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Bytes of all parts of these uploads at the image's key; counted no further than above `enough`.
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
        let mut sums = stream::iter(ids).map(sum).buffer_unordered(AT_ONCE);
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
    fn a_look_lasts_for_a_few_urls() {
        let (checks, image) = (PartChecks::default(), ImageId::new());
        assert!(!checks.allow(image, 1), "never looked at");
        checks.note(image, 1);
        assert!((1..16).all(|_| checks.allow(image, 1)));
        assert!(!checks.allow(image, 1));
        checks.note(image, 1000);
        assert!(!checks.allow(image, 1), "a batch is a check of its own");
        assert!(!checks.allow(ImageId::new(), 1), "another's");
    }
}
