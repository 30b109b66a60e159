//! Reads ready images, their timeline and captions. Presigned URLs stay the same within a time window, so that caches hit.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use time::OffsetDateTime;

pub use super::previews::PreviewUrl;
use super::{MAX_UNREADABLE_PAGES, previews::Previews};
pub use crate::store::GalleryRow;
use crate::{
    config,
    model::{
        Caption, ContentType, Dimensions, GalleryOrder, Image, ImageId, ImageState, ObjectKey, Position, TimelineMonth, UserId,
    },
    signer::Presigned,
    store::{GetSeries, Objects, RawGalleryPage, Store, StoreError},
};

/// A ready image with its presigned URLs.
#[derive(Debug)]
pub struct PresignedImage {
    /// The image, in state ready.
    pub image: Image,
    /// URL of the bytes; the same for all requests within the window.
    pub url: Presigned,
    /// URL of the preview: the client's, else the smallest of `previews`.
    pub preview: Option<Presigned>,
    /// Pictures in smaller sizes that a worker made, or that imgproxy makes on request.
    pub previews: Vec<PreviewUrl>,
}

/// A page of ready images. URLs are signed when the response is written.
#[derive(Debug)]
pub struct GalleryPage<'a> {
    found: RawGalleryPage,
    order: GalleryOrder,
    urls: ReadUrls<'a>,
}

/// Parameters of the read URLs of a user's images in this window.
#[derive(Debug)]
struct ReadUrls<'a> {
    objects: &'a Objects,
    cache_control: String,
    signed_at: OffsetDateTime,
    ttl: Duration,
    /// Signer of imgproxy's URLs, if the server uses imgproxy.
    previews: Option<&'a Previews>,
    /// One series for each type, in the order of [`ContentType`]; created when the first URL of the type is signed. Boxed, because
    /// pages are moved, and have images of few types.
    series: [OnceLock<Box<GetSeries>>; ContentType::ALL.len()],
}

impl ReadUrls<'_> {
    /// Returns the series of the URLs of this type.
    fn series(&self, content_type: ContentType) -> Result<&GetSeries, StoreError> {
        let slot = &self.series[content_type as usize];
        if let Some(series) = slot.get() {
            return Ok(series);
        }
        let series = self.objects.presign_gets(content_type, &self.cache_control, self.signed_at, self.ttl)?;
        Ok(slot.get_or_init(|| Box::new(series)))
    }

    /// Returns the pictures of an image of this size: those of a worker, whose sizes are `made`, else those of imgproxy.
    fn previews(
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

impl GalleryPage<'_> {
    /// Returns the first `limit` readable images, and the position of the next page if there are more.
    ///
    /// # Errors
    /// [`StoreError`] if the database's answer is malformed.
    pub fn rows(&self, limit: u32) -> Result<(Vec<GalleryRow<'_>>, Option<Position>), StoreError> {
        let limit = limit as usize;
        let mut rows = self.found.rows()?;
        let all_shown = rows.len() <= limit;
        rows.truncate(limit);
        let next = match self.found.length()? > limit {
            false => None,
            // Unreadable records are among the found ones: the next page continues after the last of them.
            true if all_shown => self.found.end()?,
            true => rows.last().and_then(|row| row.position(self.order)),
        };
        Ok((rows, next))
    }

    /// Appends an image's URL, which is ASCII without quotes or backslashes, and returns its expiry, the same for the whole page.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub fn push_url(&self, row: &GalleryRow<'_>, out: &mut Vec<u8>) -> Result<OffsetDateTime, StoreError> {
        let series = self.urls.series(row.content_type)?;
        series.push_url(row.key, out);
        Ok(series.expires_at())
    }

    /// Returns the pictures of an image in smaller sizes that a worker made, or that imgproxy makes on request.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub fn previews(&self, row: &GalleryRow<'_>) -> Result<Vec<PreviewUrl>, StoreError> {
        let size = Dimensions { width: row.width, height: row.height };
        self.urls.previews(row.key, size, row.pictures.into_iter().flatten())
    }

    /// Appends the URL of an image's preview, if its client made one.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub fn push_preview_url(&self, row: &GalleryRow<'_>, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let Some(content_type) = row.preview else { return Ok(()) };
        let key = ObjectKey::from_stored(row.key.to_owned()).preview();
        self.urls.series(content_type)?.push_url(key.as_str(), out);
        Ok(())
    }
}

/// Why an image is not returned.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The image does not exist, is another user's, or is not ready.
    #[error("there is no such image")]
    NotFound,
    /// The caption is invalid; completes a sentence that begins with "the caption".
    #[error("the caption {0}")]
    InvalidCaption(&'static str),
    /// The database or the credentials failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads ready images.
#[derive(Debug)]
pub struct Gallery {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) settings: Arc<config::Uploads>,
    pub(super) previews: Option<Previews>,
}

impl Gallery {
    /// Reads `limit` ready images in this order, the newest first, and one more, by which [`GalleryPage::rows`] finds out whether
    /// there is a next page.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page(
        &self,
        user: UserId,
        order: GalleryOrder,
        after: Option<Position>,
        limit: u32,
        now: OffsetDateTime,
    ) -> Result<GalleryPage<'_>, StoreError> {
        let with_next = limit.saturating_add(1);
        let mut found = self.store.images.page_owned_ready(user, order, after, with_next).await?;
        for _ in 0..MAX_UNREADABLE_PAGES {
            if found.length()? <= limit as usize || found.has_readable()? {
                break;
            }
            found = self.store.images.page_owned_ready(user, order, found.end()?, with_next).await?;
        }
        Ok(GalleryPage { found, order, urls: self.read_urls(user, now) })
    }

    /// Returns the months in which the user has images, the latest first, with the number of images. An image counts in the month
    /// of the time by which [`GalleryOrder::Taken`] sorts it. The cost does not depend on the number of images.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn timeline(&self, user: UserId) -> Result<Vec<(TimelineMonth, u64)>, StoreError> {
        Ok(self.store.timeline(user).await?.unwrap_or_default())
    }

    /// Returns one ready image.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<PresignedImage, ReadError> {
        Ok(self.presign_image(self.find_ready(user, id).await?, now)?)
    }

    /// Returns a result for each id: the ready image, or the reason why it is not returned.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_all(
        &self,
        user: UserId,
        ids: &[ImageId],
        now: OffsetDateTime,
    ) -> Result<Vec<Result<PresignedImage, ReadError>>, StoreError> {
        let found = self.store.images.find_all_owned(user, ids).await?;
        let read = |id: &ImageId| {
            let image = found.get(*id)?.filter(|image| image.state() == ImageState::Ready).ok_or(ReadError::NotFound)?;
            Ok(self.presign_image(image.clone(), now)?)
        };
        Ok(ids.iter().map(read).collect())
    }

    /// Returns a URL that saves the image under its file name, with an extension of its type.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn download(&self, user: UserId, id: ImageId, now: OffsetDateTime) -> Result<Presigned, ReadError> {
        let image = self.find_ready(user, id).await?;
        let upload = &image.upload;
        let name = upload.file_name.download_name(upload.content_type);
        let ttl = self.settings.read_url_ttl;
        Ok(self.objects.presign_download(&image.key, upload.content_type, &name, now, ttl)?)
    }

    /// Sets the caption; an empty one removes it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn set_caption(
        &self,
        user: UserId,
        id: ImageId,
        caption: &str,
        now: OffsetDateTime,
    ) -> Result<PresignedImage, ReadError> {
        let caption = Caption::parse(caption).map_err(ReadError::InvalidCaption)?;
        let image = self.store.images.set_owned_caption(user, id, caption.as_ref()).await?.ok_or(ReadError::NotFound)?;
        Ok(self.presign_image(image, now)?)
    }

    /// Signs the URLs of a ready image.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub fn presign_image(&self, image: Image, now: OffsetDateTime) -> Result<PresignedImage, StoreError> {
        let urls = self.read_urls(image.user, now);
        let sign = |key: &ObjectKey, content_type| {
            urls.objects.presign_get(key, content_type, &urls.cache_control, urls.signed_at, urls.ttl)
        };
        let url = sign(&image.key, image.upload.content_type)?;
        let preview = image.preview_key().zip(image.upload.preview());
        let preview = preview.map(|(key, preview)| sign(&key, preview.content_type)).transpose()?;
        let made = image.rendering.iter().flat_map(|rendering| rendering.pictures.iter().copied());
        let previews = match image.ready() {
            Some(ready) => urls.previews(image.key.as_str(), ready.dimensions, made)?,
            None => Vec::new(),
        };
        let smallest = || Some(Presigned { url: previews.first()?.url.clone(), expires_at: url.expires_at });
        let preview = preview.or_else(smallest);
        Ok(PresignedImage { image, url, preview, previews })
    }

    /// Returns the signer of the owner's GET URLs at this time.
    fn read_urls(&self, owner: UserId, now: OffsetDateTime) -> ReadUrls<'_> {
        let ttl = self.settings.read_url_ttl;
        // The URL contains this header, so it is the same in every request. The bytes of a key never change, hence `immutable`.
        let cache_control = format!("private, max-age={}, immutable", ttl.as_secs());
        let previews = self.previews.as_ref();
        let signed_at = window_start(owner, now, ttl);
        ReadUrls { objects: &self.objects, cache_control, signed_at, ttl, previews, series: Default::default() }
    }

    /// Returns a ready image of this user.
    async fn find_ready(&self, user: UserId, id: ImageId) -> Result<Image, ReadError> {
        let found = self.store.images.find_owned(user, id).await?;
        found.filter(|image| image.state() == ImageState::Ready).ok_or(ReadError::NotFound)
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
