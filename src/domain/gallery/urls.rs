//! URLs by which an owner's images are read. They stay the same within a time window, so that caches hit.

use std::{sync::OnceLock, time::Duration};

use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::{
    domain::{
        generational_cache::GenerationalCache,
        previews::{PreviewUrl, Previews},
    },
    model::{ContentType, Dimensions, ObjectKey, Sha256, UserId},
    store::{GetSeries, GetSigner, Objects, StoreError},
};

/// Digests of the parameters of users' URLs, which change with the time window and the credentials.
#[derive(Debug)]
pub(super) struct UrlDigests(Mutex<GenerationalCache<UserId, UrlDigest>>);

/// The digest for a user's time window.
#[derive(Debug, Clone)]
struct UrlDigest {
    signer: GetSigner,
    signed_at: OffsetDateTime,
    digest: Sha256,
}

impl Default for UrlDigests {
    fn default() -> Self {
        // `Fragments` keeps 4096 texts, so at most this many users have any.
        Self(Mutex::new(GenerationalCache::new(4096)))
    }
}

/// Parameters of the read URLs of a user's images in this window.
#[derive(Debug)]
pub(super) struct ReadUrls<'a> {
    /// Signer of the URLs of objects.
    signer: GetSigner,
    cache_control: String,
    signed_at: OffsetDateTime,
    ttl: Duration,
    owner: UserId,
    /// Signer of imgproxy's URLs, if the server uses imgproxy.
    previews: Option<&'a Previews>,
    /// One series for each type, in the order of [`ContentType`]; created when the first URL of the type is signed. Boxed, because
    /// pages are moved, and have images of few types.
    series: [OnceLock<Box<GetSeries>>; ContentType::ALL.len()],
}

impl<'a> ReadUrls<'a> {
    /// Returns the signer of the owner's GET URLs at this time, which are valid for `ttl`.
    pub(super) fn new(
        objects: &Objects,
        previews: Option<&'a Previews>,
        owner: UserId,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Self {
        // The URL contains this header, so it is the same in every request. The bytes of a key never change, hence `immutable`.
        let cache_control = format!("private, max-age={}, immutable", ttl.as_secs());
        let signed_at = window_start(owner, now, ttl);
        Self { signer: objects.get_signer(), cache_control, signed_at, ttl, owner, previews, series: Default::default() }
    }

    /// Returns a digest of everything on which the URLs of images depend, except the images: the owner and, by a URL of each kind,
    /// the time window, the credentials and the locations.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub(super) fn digest(&self, known: &UrlDigests) -> Result<Sha256, StoreError> {
        const SIZE: Dimensions = Dimensions { width: 1, height: 1 };
        let is_current = |known: &UrlDigest| known.signer == self.signer && known.signed_at == self.signed_at;
        if let Some(known) = known.0.lock().get(&self.owner).filter(is_current) {
            return Ok(known.digest);
        }
        let series = self.series(ContentType::Jpeg)?;
        let mut urls = series.url("").into_bytes();
        urls.extend_from_slice(&series.expires_at().unix_timestamp().to_be_bytes());
        self.previews("", SIZE, std::iter::empty())?.iter().for_each(|preview| urls.extend_from_slice(preview.url.as_bytes()));
        let digest = Sha256::of([&self.owner.as_bytes()[..], &urls]);
        known.0.lock().insert(self.owner, UrlDigest { signer: self.signer.clone(), signed_at: self.signed_at, digest });
        Ok(digest)
    }

    /// Returns the series of the URLs of this type.
    pub(super) fn series(&self, content_type: ContentType) -> Result<&GetSeries, StoreError> {
        let slot = &self.series[content_type as usize];
        if let Some(series) = slot.get() {
            return Ok(series);
        }
        let series = self.signer.series(content_type, &self.cache_control, self.signed_at, self.ttl)?;
        Ok(slot.get_or_init(|| Box::new(series)))
    }

    /// Returns the pictures of an image of this size: those of a worker, whose sizes are `made`, else those of imgproxy.
    pub(super) fn previews(
        &self,
        key: &str,
        size: Dimensions,
        made: impl Iterator<Item = Dimensions>,
    ) -> Result<Vec<PreviewUrl>, StoreError> {
        let mut made = made.peekable();
        if made.peek().is_none() {
            return Ok(self.previews.map(|previews| previews.of_image(key, size, self.signed_at + self.ttl)).unwrap_or_default());
        }
        let keys = ObjectKey::from_stored(key.to_owned()).pictures();
        let series = self.series(ContentType::Jpeg)?;
        let sign = |(key, size): (&ObjectKey, Dimensions)| PreviewUrl { url: series.url(key.as_str()), size };
        Ok(keys.iter().zip(made).map(sign).collect())
    }
}

/// Returns the signing time of read URLs: `now` rounded down to half the TTL, so that every URL has between half and all of its
/// lifetime left, shifted by the owner, so that not all users' URLs change at once.
fn window_start(owner: UserId, now: OffsetDateTime, ttl: Duration) -> OffsetDateTime {
    let half = i64::try_from(ttl.as_secs() / 2).unwrap_or(i64::MAX).max(1);
    // The last eight bytes of a UUIDv7 are random.
    let mut random = [0; 8];
    random.copy_from_slice(&owner.as_bytes()[8..]);
    let shift = i64::from_be_bytes(random).rem_euclid(half);
    let seconds = now.unix_timestamp();
    let start = (seconds - shift).div_euclid(half) * half + shift;
    now.replace_nanosecond(0).unwrap_or(now) - Duration::from_secs(u64::try_from(seconds - start).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn url_is_valid_for_half_to_all_of_its_lifetime() {
        let now = datetime!(2026-11-22 10:00:00.25 UTC);
        for ttl in [2, 3, 7, 300, 301, 3600] {
            let ttl = Duration::from_secs(ttl);
            let half = Duration::from_secs(ttl.as_secs() / 2);
            for _ in 0..50 {
                let owner = UserId::new();
                let mut starts = std::collections::BTreeSet::new();
                for second in 0..ttl.as_secs() {
                    let at = now + Duration::from_secs(second);
                    let start = window_start(owner, at, ttl);
                    let validity = start + ttl - at.replace_nanosecond(0).unwrap_or(at);
                    assert!(validity <= ttl && validity > half.saturating_sub(Duration::from_secs(1)), "{validity} of {ttl:?}");
                    starts.insert(start);
                }
                assert!(starts.len() <= 4, "the URL changes every half lifetime: {starts:?}");
            }
        }
    }

    #[test]
    fn signing_windows_of_users_end_at_different_times() {
        let now = datetime!(2026-11-22 10:00 UTC);
        let starts: std::collections::BTreeSet<_> =
            (0..100).map(|_| window_start(UserId::new(), now, Duration::from_secs(300))).collect();
        assert!(starts.len() > 20, "{} windows of 100 users", starts.len());
    }
}
