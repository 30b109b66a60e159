//! Writes a page of the gallery as JSON, and its entity tag.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem_openapi::Object;

use super::{
    pagination::{self, Listing},
    raw_json::{RawJson, push_decimal, push_number, push_text, push_time},
    responses::GalleryImage,
};
use crate::{
    domain::{
        StoreError,
        gallery::{GalleryPage, GalleryRow, PreviewUrl, Shown},
    },
    model::Sha256,
};

/// A page of the gallery.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct ImagePage {
    /// Newest first, in the requested order.
    images: Vec<GalleryImage>,
    /// Send it as `cursor` for the next page; absent on the last.
    next_cursor: Option<String>,
}

/// Writes the images of a page.
pub struct PageWriter<'a> {
    gallery: &'a GalleryPage<'a>,
    shown: Shown<'a>,
    next_cursor: Option<String>,
}

/// Initial capacity of the buffer of a response: for an image without pictures in smaller sizes.
const INITIAL_BYTES: usize = 2200;

impl<'a> PageWriter<'a> {
    /// Takes the first `limit` images of a gallery.
    #[must_use]
    pub fn new(gallery: &'a GalleryPage<'a>, listing: Listing, limit: u32) -> Self {
        let shown = gallery.shown(limit);
        let next_cursor = shown.next.map(|at| pagination::encode_cursor(at, listing));
        Self { gallery, shown, next_cursor }
    }

    /// Returns the entity tag. It changes when an image is added, deleted or changed, and when new URLs are due. Weak, since the
    /// response may be compressed.
    #[must_use]
    pub fn etag(&self) -> String {
        let version = concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes();
        let cursor = self.next_cursor.as_deref().unwrap_or_default().as_bytes();
        let hash = Sha256::of([version, &self.shown.digest().to_bytes(), cursor]);
        // 120 bits: 20 characters of base64.
        format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&hash.to_bytes()[..15]))
    }

    /// Writes the page, with a presigned URL for every image.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub fn write(&self) -> Result<RawJson<ImagePage>, StoreError> {
        let mut out = Vec::with_capacity(INITIAL_BYTES);
        out.extend_from_slice(b"{\"images\":[");
        for (index, image) in self.shown.images.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.gallery.push_image_json(image, &mut out, |row, out| self.push_image(row, out))?;
            if index == 0 {
                // The images of a page take about as much each.
                out.reserve(out.len() * self.shown.images.len());
            }
        }
        out.push(b']');
        if let Some(cursor) = &self.next_cursor {
            out.extend_from_slice(b",\"nextCursor\":");
            push_text(&mut out, cursor);
        }
        out.push(b'}');
        Ok(RawJson::new(out))
    }

    /// Writes the members of [`GalleryImage`].
    fn push_image(&self, row: &GalleryRow<'_>, out: &mut Vec<u8>) -> Result<(), StoreError> {
        out.extend_from_slice(b"{\"id\":");
        push_text(out, row.id);
        out.extend_from_slice(b",\"fileName\":");
        push_text(out, row.file_name);
        out.extend_from_slice(b",\"contentType\":");
        push_text(out, row.content_type.as_str());
        out.extend_from_slice(b",\"size\":");
        push_number(out, row.size);
        if let Some(sha256) = row.sha256 {
            out.extend_from_slice(b",\"sha256\":");
            push_text(out, sha256);
        }
        out.extend_from_slice(b",\"width\":");
        push_number(out, row.width.into());
        out.extend_from_slice(b",\"height\":");
        push_number(out, row.height.into());
        if let Some(caption) = row.caption {
            out.extend_from_slice(b",\"caption\":");
            push_text(out, caption);
        }
        // A presigned URL needs no escapes.
        out.extend_from_slice(b",\"url\":\"");
        let expires_at = self.gallery.push_url(row, out)?;
        out.push(b'"');
        if row.preview.is_some() {
            out.extend_from_slice(b",\"previewUrl\":\"");
            self.gallery.push_preview_url(row, out)?;
            out.push(b'"');
        }
        push_previews(row, &self.gallery.previews(row)?, out);
        if let Some(hash) = row.thumb_hash {
            out.extend_from_slice(b",\"thumbHash\":");
            push_text(out, hash);
        }
        if let Some(taken_at) = row.taken_at {
            out.extend_from_slice(b",\"takenAt\":");
            push_text(out, taken_at);
        }
        if let Some(camera) = row.camera {
            out.extend_from_slice(b",\"camera\":");
            push_text(out, camera);
        }
        if let Some(location) = row.location {
            out.extend_from_slice(b",\"location\":{\"latitude\":");
            push_decimal(out, location.latitude());
            out.extend_from_slice(b",\"longitude\":");
            push_decimal(out, location.longitude());
            out.push(b'}');
        }
        out.extend_from_slice(b",\"urlExpiresAt\":");
        push_time(out, expires_at);
        out.extend_from_slice(b",\"createdAt\":");
        push_time(out, row.created_at);
        out.extend_from_slice(b",\"uploadedAt\":");
        push_time(out, row.uploaded_at);
        out.push(b'}');
        Ok(())
    }
}

/// Writes the member `previews`, with the pictures of an image, and `previewUrl` with the smallest one if the client uploaded no
/// preview.
fn push_previews(row: &GalleryRow<'_>, previews: &[PreviewUrl], out: &mut Vec<u8>) {
    let Some(smallest) = previews.first() else { return };
    if row.preview.is_none() {
        out.extend_from_slice(b",\"previewUrl\":");
        push_text(out, &smallest.url);
    }
    for (index, PreviewUrl { url, size }) in previews.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b",\"previews\":[{\"url\":" } else { b",{\"url\":" });
        push_text(out, url);
        out.extend_from_slice(b",\"width\":");
        push_number(out, size.width.into());
        out.extend_from_slice(b",\"height\":");
        push_number(out, size.height.into());
        out.push(b'}');
    }
    out.push(b']');
}
