//! Reads ready images, their timeline and captions. Presigned URLs stay the same within a time window, so that caches hit.

mod fragments;
mod page;
mod urls;

use std::sync::Arc;

use time::OffsetDateTime;

pub use self::page::{GalleryPage, Shown, ShownImage};
use self::{
    fragments::Fragments,
    urls::{ReadUrls, UrlDigests},
};
pub use super::previews::PreviewUrl;
use super::{MAX_UNREADABLE_PAGES, previews::Previews};
pub use crate::store::GalleryRow;
use crate::{
    config,
    model::{Caption, GalleryOrder, Image, ImageId, ImageState, ObjectKey, Position, TimelineMonth, UserId},
    signer::Presigned,
    store::{Objects, Store, StoreError},
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
    url_digests: UrlDigests,
    fragments: Fragments,
}

impl Gallery {
    /// Creates the service; with `previews` if imgproxy makes the pictures.
    pub(super) fn new(
        store: Arc<Store>,
        objects: Arc<Objects>,
        settings: Arc<config::Uploads>,
        previews: Option<Previews>,
    ) -> Self {
        Self { store, objects, settings, previews, url_digests: UrlDigests::default(), fragments: Fragments::default() }
    }

    /// Reads `limit` ready images in this order, the newest first, and one more, by which [`GalleryPage::shown`] finds out
    /// whether there is a next page.
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
            if found.length() <= limit as usize || found.has_readable() {
                break;
            }
            found = self.store.images.page_owned_ready(user, order, found.end(), with_next).await?;
        }
        let urls = self.read_urls(user, now);
        let urls_digest = urls.digest(&self.url_digests)?;
        Ok(GalleryPage { found, order, urls, urls_digest, fragments: &self.fragments })
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
            let series = urls.series(content_type)?;
            Ok::<_, StoreError>(Presigned { url: series.url(key.as_str()), expires_at: series.expires_at() })
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
        ReadUrls::new(&self.objects, self.previews.as_ref(), owner, now, self.settings.read_url_ttl)
    }

    /// Returns a ready image of this user.
    async fn find_ready(&self, user: UserId, id: ImageId) -> Result<Image, ReadError> {
        let found = self.store.images.find_owned(user, id).await?;
        found.filter(|image| image.state() == ImageState::Ready).ok_or(ReadError::NotFound)
    }
}
