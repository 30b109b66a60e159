//! Pages of a gallery. Images are decoded, and their URLs signed, when the response is written, except those whose text is kept.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    fragments::{Fragment, Fragments, Lookup},
    urls::ReadUrls,
};
use crate::{
    domain::previews::PreviewUrl,
    model::{Dimensions, GalleryOrder, ObjectKey, Position, Sha256},
    store::{GalleryRecord, GalleryRow, RawGalleryPage, StoreError},
};

/// A page of ready images.
#[derive(Debug)]
pub struct GalleryPage<'a> {
    pub(super) found: RawGalleryPage,
    pub(super) order: GalleryOrder,
    pub(super) urls: ReadUrls<'a>,
    /// Digest of the parameters of the URLs.
    pub(super) urls_digest: Sha256,
    pub(super) fragments: &'a Fragments,
}

/// The images of a page that are shown.
pub struct Shown<'a> {
    /// The images, in the page's order.
    pub images: Vec<ShownImage<'a>>,
    /// The position after which the next page begins, if there is one.
    pub next: Option<Position>,
}

/// An image that is shown.
pub struct ShownImage<'a>(Source<'a>);

/// Source of an image's text. Not `Debug`: a text contains presigned URLs.
enum Source<'a> {
    /// The text, as it was written before.
    Kept(Arc<Fragment>),
    /// The record from which the text is written, and the text's digest.
    Record {
        row: Box<GalleryRow<'a>>,
        digest: Sha256,
        /// The key by which the text is kept, if it is.
        kept_as: Option<Box<[u8]>>,
    },
}

impl ShownImage<'_> {
    /// Returns the digest of everything on which the image's text depends: the fields of its record that are shown, and the
    /// parameters of its URLs.
    fn digest(&self) -> Sha256 {
        match &self.0 {
            Source::Kept(fragment) => fragment.digest,
            Source::Record { digest, .. } => *digest,
        }
    }
}

impl Shown<'_> {
    /// Returns a digest that changes when an image is added, deleted or changed, and when new URLs are due.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.images.iter().map(|image| image.digest().to_bytes()))
    }
}

impl GalleryPage<'_> {
    /// Returns the first `limit` readable images.
    #[must_use]
    pub fn shown(&self, limit: u32) -> Shown<'_> {
        let limit = limit as usize;
        let mut images = Vec::with_capacity(limit.min(self.found.length()));
        let (mut key, mut shown, mut last) = (Vec::with_capacity(1024), Vec::with_capacity(1024), None);
        for record in self.found.records() {
            if images.len() == limit {
                let next = last.and_then(GalleryRecord::row).and_then(|row| row.position(self.order));
                return Shown { images, next };
            }
            self.set_key(&mut key, record);
            let source = match self.fragments.get(&key) {
                Lookup::Kept(fragment) => Some(Source::Kept(fragment)),
                found => record.row().map(|row| {
                    // The entity tag depends on this digest: other fields change without a visible difference.
                    shown.clear();
                    record.push_shown_elements(&mut shown);
                    let digest = Sha256::of([&self.urls_digest.to_bytes()[..], &shown]);
                    Source::Record {
                        row: Box::new(row),
                        digest,
                        kept_as: matches!(found, Lookup::Shown).then(|| key.as_slice().into()),
                    }
                }),
            };
            if let Some(source) = source {
                images.push(ShownImage(source));
                last = Some(record);
            }
        }
        // `length()` and `end()` count unreadable records too: the next page continues after the last record that was found.
        let next = if self.found.length() > limit { self.found.end() } else { None };
        Shown { images, next }
    }

    /// Appends the text of an image: the one that is kept, else the one that `write` appends, which is kept.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn push_image_json(
        &self,
        image: &ShownImage<'_>,
        out: &mut Vec<u8>,
        write: impl FnOnce(&GalleryRow<'_>, &mut Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match &image.0 {
            Source::Kept(fragment) => out.extend_from_slice(&fragment.text),
            Source::Record { row, digest, kept_as } => {
                let start = out.len();
                write(row, out)?;
                if let Some(key) = kept_as {
                    self.fragments.insert(key.clone(), Fragment { digest: *digest, text: out[start..].into() });
                }
            }
        }
        Ok(())
    }

    /// Replaces the bytes by the key of a record's text.
    fn set_key(&self, key: &mut Vec<u8>, record: GalleryRecord<'_>) {
        key.clear();
        key.extend_from_slice(&self.urls_digest.to_bytes());
        key.extend_from_slice(record.bytes());
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
