//! The bytes of parts whose length no URL signs: summed before more of them are signed, and by the sweeper while a URL lives.
//!
//! S3 takes up to 5 GiB by each such URL. What lies in the bucket for an upload is never more than its reservation and what its
//! client sends between two looks: [`SIGNED_BETWEEN`] URLs or [`SEEN_FOR`], whichever comes first, as long as it asks for URLs,
//! and a minute of the sweeper's when it does not. Above the reservation the upload is rejected and its parts are aborted, which
//! ends every URL of them.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use time::OffsetDateTime;

use crate::{
    domain::{Valet, multipart::PartsError, recent::Recent},
    model::{Image, ImageId, ImageState, Rejection, UnverifiedUpload},
    store::StoreError,
};

/// The longest life of a URL for a part of any length. S3 looks at it when a transfer begins.
pub(super) const PART_URL_TTL: Duration = Duration::from_secs(15 * 60);
/// URLs that are signed for an upload between two looks at its parts.
const SIGNED_BETWEEN: u32 = 16;
/// How long a look counts.
const SEEN_FOR: Duration = Duration::from_secs(10);
/// Open uploads of one key whose parts are summed. No client of ours opens as many.
const MOST_OPEN: usize = 100;
/// Listings at once.
const AT_ONCE: usize = 8;
/// Uploads whose last look is remembered.
const REMEMBERED: usize = 10_000;

/// When this server last looked at the parts of an upload, and how many URLs it has signed since.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    signed: u32,
}

/// The latest looks of this server.
#[derive(Debug)]
pub(in crate::domain) struct Looks(Mutex<Recent<ImageId, Look>>);

impl Default for Looks {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(REMEMBERED)))
    }
}

impl Looks {
    /// Counts URLs that are about to be signed. `false` when the parts are to be looked at first.
    fn allow(&self, image: ImageId, urls: usize) -> bool {
        let urls = u32::try_from(urls).unwrap_or(u32::MAX);
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(look) = looks.get(image) else { return false };
        // The first of a look may be any number: they are asked for in one call.
        let allowed = look.at.elapsed() < SEEN_FOR && (look.signed == 0 || look.signed.saturating_add(urls) <= SIGNED_BETWEEN);
        if allowed {
            looks.insert(image, Look { signed: look.signed.saturating_add(urls), ..look });
        }
        allowed
    }

    fn note(&self, image: ImageId, signed: usize) {
        let signed = u32::try_from(signed).unwrap_or(u32::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(image, Look { at: Instant::now(), signed });
    }
}

impl Valet {
    /// Looks at the parts of an upload before `urls` more are signed, unless this server did so a moment ago. Each listing counts
    /// as a call to S3 of the user's.
    ///
    /// # Errors
    /// [`PartsError::Rejected`] when they are more than was reserved; [`PartsError::Throttled`].
    pub(super) async fn bound_parts(&self, image: &Image, urls: usize, now: OffsetDateTime) -> Result<(), PartsError> {
        if self.part_looks.allow(image.id, urls) {
            return Ok(());
        }
        self.throttle.s3(image.user, 1)?;
        let open = self.uploads_at(image).await?;
        self.throttle.s3(image.user, u32::try_from(open.len()).unwrap_or(u32::MAX))?;
        if self.reject_overfull_of(image, open, now).await? {
            return Err(PartsError::Rejected(Rejection::ObjectMismatch));
        }
        self.part_looks.note(image.id, urls);
        Ok(())
    }

    /// Rejects a pending upload whose parts of undeclared length are more than was reserved, and removes them. `false` for any
    /// other image.
    pub(in crate::domain) async fn reject_overfull(&self, image: &Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        if image.upload.unverified != Some(UnverifiedUpload::Parts) {
            return Ok(false);
        }
        let open = self.uploads_at(image).await?;
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
    async fn uploads_at(&self, image: &Image) -> Result<Vec<String>, StoreError> {
        let listed = self.objects.open_uploads(&image.key).await?;
        let mut ids = listed.map(|open| open.ids).unwrap_or_default();
        ids.extend(image.upload_id.clone());
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Bytes of all parts of these uploads at the image's key; counted no further than above `enough`.
    async fn bytes_in_parts(&self, image: &Image, ids: Vec<String>, enough: u64) -> Result<u64, StoreError> {
        if ids.len() > MOST_OPEN {
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
        let (looks, image) = (Looks::default(), ImageId::new());
        assert!(!looks.allow(image, 1), "never looked at");
        looks.note(image, 1);
        assert!((1..16).all(|_| looks.allow(image, 1)));
        assert!(!looks.allow(image, 1));
        looks.note(image, 1000);
        assert!(!looks.allow(image, 1), "a batch is a look of its own");
        assert!(!looks.allow(ImageId::new(), 1), "another's");
    }
}
