//! The text of a page of the gallery, and its entity tag.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem_openapi::Object;

use super::{
    page::{self, Listing},
    problem::Problem,
    view::Image,
    written::{Written, push_number, push_text, push_time},
};
use crate::{
    domain::gallery::GalleryPage,
    model::UserId,
    store::{GalleryRow, StoreError},
};

/// A page of the gallery.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct ImagePage {
    /// Newest first.
    images: Vec<Image>,
    /// Send it as `cursor` for the next page; absent on the last.
    next_cursor: Option<String>,
}

/// A page that was found and is not written yet.
pub struct Draft<'a> {
    gallery: &'a GalleryPage<'a>,
    rows: Vec<GalleryRow<'a>>,
    next_cursor: Option<String>,
}

/// Bytes of an image in the answer, roughly.
const ROOM: usize = 1100;

impl<'a> Draft<'a> {
    /// The first `limit` images of what was found.
    ///
    /// # Errors
    /// When the database's answer is malformed.
    pub fn new(gallery: &'a GalleryPage<'a>, user: UserId, limit: u32) -> Result<Self, Problem> {
        let (rows, next) = gallery.rows(limit)?;
        Ok(Self { gallery, rows, next_cursor: next.map(|at| page::cursor(at, user, Listing::Gallery)) })
    }

    /// The same for as long as the answer is: until an image comes, goes or changes, and the window's end. Weak, since the
    /// answer may be compressed on its way. Costs one signature, not a page of them: the first URL tells the window and
    /// the credentials of all.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub fn etag(&self) -> Result<String, StoreError> {
        let mut url = Vec::new();
        if let Some(first) = self.rows.first() {
            self.gallery.push_url(first, &mut url)?;
        }
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes());
        context.update(&url);
        self.rows.iter().for_each(|row| context.update(row.bytes));
        context.update(self.next_cursor.as_deref().unwrap_or_default().as_bytes());
        Ok(format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..15])))
    }

    /// The answer, each URL signed into its place.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub fn write(&self) -> Result<Written<ImagePage>, StoreError> {
        let mut out = Vec::with_capacity(self.rows.len() * ROOM + 2 * ROOM);
        out.extend_from_slice(b"{\"images\":[");
        for (at, row) in self.rows.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.push_image(row, &mut out)?;
        }
        out.push(b']');
        if let Some(cursor) = &self.next_cursor {
            out.extend_from_slice(b",\"nextCursor\":");
            push_text(&mut out, cursor);
        }
        out.push(b'}');
        Ok(Written::new(out))
    }

    /// Member by member what [`Image`] is.
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
        let ends = self.gallery.push_url(row, out)?;
        out.push(b'"');
        if row.preview.is_some() {
            out.extend_from_slice(b",\"previewUrl\":\"");
            self.gallery.push_preview_url(row, out)?;
            out.push(b'"');
        }
        if let Some(hash) = row.thumb_hash {
            out.extend_from_slice(b",\"thumbHash\":");
            push_text(out, hash);
        }
        out.extend_from_slice(b",\"urlExpiresAt\":");
        push_time(out, ends);
        out.extend_from_slice(b",\"createdAt\":");
        push_time(out, row.created_at);
        out.extend_from_slice(b",\"uploadedAt\":");
        push_time(out, row.uploaded_at);
        out.push(b'}');
        Ok(())
    }
}

/// Whether `If-None-Match` names this tag (RFC 9110 section 13.1.2: compared weakly).
pub fn matches(if_none_match: &str, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    if_none_match.trim() == "*" || if_none_match.split(',').any(|tag| opaque(tag) == opaque(etag))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn tags_are_compared_weakly() {
        for given in ["W/\"a\"", "\"a\"", "*", "\"b\", W/\"a\"", " \"b\",\"a\" "] {
            assert!(matches(given, "W/\"a\""), "{given}");
        }
        for given in ["", "a", "W/\"b\"", "\"A\"", "\"a"] {
            assert!(!matches(given, "W/\"a\""), "{given}");
        }
    }
}
