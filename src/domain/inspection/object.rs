//! Compares one object in S3 with its declaration: size, type, headers, digest, and content. Makes no change in S3 or the database.

use std::{borrow::Cow, ops::RangeInclusive, sync::Arc};

use super::Inspection;
use crate::{
    config,
    domain::{
        content::{self, Content, ContentInspector, FetchedRanges, read_capture},
        store_capabilities::KnownCapabilities,
    },
    model::{
        Capture, ContentError, ContentType, Dimensions, Format, Image, ObjectKey, ReadyImage, Rejection, Sha256, UploadKind,
        Verified,
    },
    store::{
        Objects, StoreError,
        objects::{Head, Peek, PeekedObject, USER_METADATA},
    },
};

/// Pixels of a preview, at most: far more than a preview needs, few enough for every client to decode.
const MAX_PREVIEW_PIXELS: u64 = 1 << 22;

/// The declaration that an object is compared with.
#[derive(Debug)]
struct DeclaredObject {
    content_type: ContentType,
    /// The types that the client's request may have carried. Empty if Valet set the type: then the store's answer is not checked,
    /// because GET URLs set the type of the response.
    signed_types: Vec<ContentType>,
    /// Sizes that the object may have, in bytes.
    lengths: RangeInclusive<u64>,
    /// `None` for a multipart upload, which declares no digest.
    sha256: Option<Sha256>,
    max_pixels: u64,
    writer: Writer,
    /// Whether the object probably exists, so that its first bytes are read beside its metadata.
    is_expected: bool,
}

/// The writer of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// A client, through a presigned URL.
    Client,
    /// Valet, which copied the object without its metadata.
    Valet,
}

/// Outcome of comparing the object at a key with its declaration.
enum ObjectMatch {
    /// As declared.
    Match { etag: String, bytes: u64, size: Dimensions, capture: Capture },
    /// Not as declared.
    Mismatch(Rejection),
    /// There is no object, or it was removed or replaced meanwhile.
    Missing,
}

impl DeclaredObject {
    /// Returns the declaration of the image itself.
    fn image(image: &Image, writer: Writer) -> Self {
        let upload = &image.upload;
        let (content_type, lengths, max_pixels) = (upload.content_type, upload.accepted_sizes(), content::MAX_PIXELS);
        let is_typed_by_client = writer == Writer::Client && upload.part_layout().is_none();
        let signed_types = if is_typed_by_client { image.signed_types().collect() } else { Vec::new() };
        // Before its parts are completed, an upload in parts has no object.
        let is_expected = matches!(upload.kind, UploadKind::Put { .. });
        Self { content_type, signed_types, lengths, sha256: upload.sha256(), max_pixels, writer, is_expected }
    }

    /// Returns the declaration of its preview, if it has one.
    fn preview(image: &Image, writer: Writer) -> Option<Self> {
        let preview = image.upload.preview()?;
        let (content_type, lengths, sha256) = (preview.content_type, preview.size..=preview.size, Some(preview.sha256));
        let signed_types = if writer == Writer::Valet { Vec::new() } else { vec![content_type] };
        Some(Self { content_type, signed_types, lengths, sha256, max_pixels: MAX_PREVIEW_PIXELS, writer, is_expected: true })
    }
}

/// Returns whether an object that a client wrote has headers that no URL signed: S3 would serve them with it.
pub(super) fn has_unsigned_headers(key: &ObjectKey, head: &Head) -> bool {
    has_unexpected_headers(key, head, Writer::Client)
}

/// Returns whether the object has headers that its writer was not to set. User metadata of a copy is ignored, because some stores
/// add their own.
fn has_unexpected_headers(key: &ObjectKey, head: &Head, writer: Writer) -> bool {
    let is_counted = |header: &&&str| writer == Writer::Client || **header != USER_METADATA;
    let refused: Vec<_> = head.unsigned.iter().filter(is_counted).collect();
    if !refused.is_empty() {
        tracing::info!(%key, headers = ?refused, "refused an object with unsigned headers");
    }
    !refused.is_empty()
}

/// Compares single objects with their declarations.
#[derive(Debug)]
pub(in crate::domain) struct ObjectInspector {
    pub(in crate::domain) objects: Arc<Objects>,
    pub(in crate::domain) capabilities: Arc<KnownCapabilities>,
    pub(in crate::domain) settings: Arc<config::Uploads>,
}

impl ObjectInspector {
    /// Inspects the object at `key`, and the preview beside it. If the preview is missing or wrong, the image is
    /// accepted without a preview.
    pub(super) async fn inspect_object(&self, image: &Image, key: ObjectKey) -> Result<Inspection, StoreError> {
        let writer = if key == image.key { Writer::Client } else { Writer::Valet };
        match Box::pin(self.compare_object(&key, DeclaredObject::image(image, writer))).await? {
            ObjectMatch::Missing => Ok(Inspection::Missing),
            ObjectMatch::Mismatch(why) => Ok(Inspection::Mismatch(why)),
            ObjectMatch::Match { etag, bytes, size, capture } => {
                let preview = match DeclaredObject::preview(image, writer) {
                    Some(declared) => {
                        matches!(Box::pin(self.compare_object(&key.preview(), declared)).await?, ObjectMatch::Match { .. })
                    }
                    None => false,
                };
                Ok(Inspection::Verified(Verified { key, etag, bytes, size, preview, capture: self.recorded_part(capture) }))
            }
        }
    }

    /// Reads time, camera and position of a ready image, as a confirm does. Returns `None` if its object is missing or was
    /// replaced.
    pub(in crate::domain) async fn read_capture(&self, image: &Image, ready: &ReadyImage) -> Result<Option<Capture>, StoreError> {
        // No such metadata is read from a GIF.
        if image.upload.content_type == ContentType::Gif {
            return Ok(Some(Capture::default()));
        }
        let head =
            Head { size: image.upload.size, content_type: None, sha256: None, etag: ready.etag.clone(), unsigned: Vec::new() };
        let read = self.inspect_content(&image.key, &head, content::MAX_PIXELS, None).await?;
        // The file was accepted before, so one that cannot be read today counts as a file without metadata.
        Ok(read.map(|verdict| verdict.map_or_else(|_| Capture::default(), |(_, capture)| self.recorded_part(capture))))
    }

    /// Returns the part of a capture that is recorded: the position only if the operator wants it.
    fn recorded_part(&self, capture: Capture) -> Capture {
        if self.settings.keep_location { capture } else { capture.without_location() }
    }

    /// Compares an object with its declaration. An object that the store refuses to read, such as one encrypted with a key of the
    /// client's, is a mismatch.
    async fn compare_object(&self, key: &ObjectKey, declared: DeclaredObject) -> Result<ObjectMatch, StoreError> {
        match self.compare_readable(key, declared).await {
            Err(error @ StoreError::ObjectRejected { .. }) => {
                tracing::info!(%key, %error, "refused an object that cannot be read");
                Ok(ObjectMatch::Mismatch(Rejection::ObjectMismatch))
            }
            compared => compared,
        }
    }

    /// Compares an object with its declaration. [`StoreError::ObjectRejected`] means that the store refuses to read it.
    async fn compare_readable(&self, key: &ObjectKey, declared: DeclaredObject) -> Result<ObjectMatch, StoreError> {
        let found = if declared.is_expected {
            // The range is chosen for the largest declared size, so it may end behind the object.
            let first = ContentInspector::new(*declared.lengths.end(), declared.max_pixels).wanted();
            Box::pin(self.objects.peek(key, first.end)).await?
        } else {
            Box::pin(self.objects.head(key)).await?.map(|head| PeekedObject { head, first: None })
        };
        let Some(PeekedObject { head, first: peeked }) = found else { return Ok(ObjectMatch::Missing) };
        let types = &declared.signed_types;
        let is_typed = types.is_empty() || types.iter().any(|signed| head.content_type.as_deref() == Some(signed.as_str()));
        if !declared.lengths.contains(&head.size) || !is_typed || has_unexpected_headers(key, &head, declared.writer) {
            let is_current = self.objects.verify_head(key, &head).await?;
            return Ok(if is_current { ObjectMatch::Mismatch(Rejection::ObjectMismatch) } else { ObjectMatch::Missing });
        }
        if let Some(sha256) = declared.sha256 {
            let reported = head.sha256.filter(|_| self.capabilities.trusts_checksums());
            let digest = match reported {
                Some(digest) => Some(digest),
                // The store verified no checksum of these bytes, so they are hashed here.
                None => self.objects.digest(key, &head).await?,
            };
            match digest {
                None => return Ok(ObjectMatch::Missing),
                Some(digest) if digest != sha256 => return Ok(ObjectMatch::Mismatch(Rejection::ObjectMismatch)),
                Some(_) => {}
            }
        }
        let Some(content) = self.inspect_content(key, &head, declared.max_pixels, peeked.as_ref()).await? else {
            return Ok(ObjectMatch::Missing);
        };
        let expected = Format::declared_as(declared.content_type);
        let require_type =
            |found: Content| if found.format == expected { Ok(found) } else { Err(ContentError::OtherType(found.format)) };
        match content.and_then(|(found, capture)| Ok((require_type(found)?, capture))) {
            Ok((Content { width, height, .. }, capture)) => {
                Ok(ObjectMatch::Match { etag: head.etag, bytes: head.size, size: Dimensions { width, height }, capture })
            }
            Err(error) => {
                tracing::info!(%key, reason = %error, "refused an object's content");
                Ok(ObjectMatch::Mismatch(Rejection::ContentMismatch(Some(error))))
            }
        }
    }

    /// Reads an object until its format and dimensions are known, and the time, camera and position that the bytes read so far
    /// contain. Returns `None` if the object was removed or replaced meanwhile.
    async fn inspect_content(
        &self,
        key: &ObjectKey,
        head: &Head,
        max_pixels: u64,
        peeked: Option<&Peek>,
    ) -> Result<Option<Result<(Content, Capture), ContentError>>, StoreError> {
        let (mut inspector, mut fetched) = (ContentInspector::new(head.size, max_pixels), FetchedRanges::default());
        let verdict = loop {
            let wanted = inspector.wanted();
            let start = wanted.start;
            let bytes = match peeked.and_then(|peeked| peeked.bytes_of(head, wanted.clone())) {
                Some(bytes) => Cow::Borrowed(bytes),
                None => match self.objects.read_range(key, head, wanted).await? {
                    Some(bytes) => Cow::Owned(bytes),
                    None => return Ok(None),
                },
            };
            let supplied = inspector.supply(&bytes);
            fetched.keep(start, bytes);
            if let Some(verdict) = supplied {
                break verdict;
            }
        };
        Ok(Some(verdict.map(|content| (content, read_capture(content.format, &fetched)))))
    }
}
