//! Looking at what lies in S3, changing nothing: the declared bytes, and an image of the declared type.

use std::ops::RangeInclusive;

use crate::{
    domain::{
        Valet,
        content::{self, Content, Inspection},
        finalize::Unfit,
        multipart::MissingParts,
    },
    model::{ContentType, Dimensions, Format, Image, ObjectKey, Refusal, Rejection, Sha256, Verified},
    store::{
        StoreError,
        objects::{Head, USER_METADATA},
    },
};

/// The most pixels of a preview: far more than any needs, far less than harms a client.
const MAX_PREVIEW_PIXELS: u64 = 1 << 22;

/// Outcome of inspecting a pending image's upload.
#[derive(Debug)]
pub(in crate::domain) enum Finding {
    /// These bytes are the declared ones, and an image of the declared type.
    Proved(Verified),
    /// Something else.
    Wrong(Rejection),
    /// Nothing.
    Missing,
    /// Nothing yet, and not all parts either.
    PartsMissing(MissingParts),
    /// Nothing yet, and S3 makes no object of the parts that are there.
    PartsRefused,
    /// The upload cannot be trusted on this store.
    Unfit(Unfit),
}

/// The declaration of an object.
#[derive(Debug)]
pub(super) struct Declared {
    content_type: ContentType,
    /// The types that the client's own request may have given it. Empty where Valet gave it its type: a store that has not kept
    /// that is no fault of the client's, and GET URLs pin the type.
    signed_types: Vec<ContentType>,
    /// How many bytes it may have.
    lengths: RangeInclusive<u64>,
    /// None is declared for a multipart upload.
    sha256: Option<Sha256>,
    max_pixels: u64,
    writer: Writer,
}

/// The writer of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// A client, through a presigned URL.
    Client,
    /// Valet, which copied the object without its metadata.
    Valet,
}

/// The object at a key.
pub(super) enum Verdict {
    /// As declared.
    Right { etag: String, bytes: u64, size: Dimensions },
    /// Something else.
    Wrong(Rejection),
    /// Nothing, or nothing any more.
    Missing,
}

impl Declared {
    /// The image itself.
    pub(super) fn image(image: &Image, writer: Writer) -> Self {
        let upload = &image.upload;
        let (content_type, lengths, max_pixels) = (upload.content_type, upload.accepted_sizes(), content::MAX_PIXELS);
        let is_typed_by_client = writer == Writer::Client && upload.multipart.is_none();
        let signed_types = if is_typed_by_client { image.signed_types().collect() } else { Vec::new() };
        Self { content_type, signed_types, lengths, sha256: upload.sha256, max_pixels, writer }
    }

    /// Its preview, if there is to be one.
    pub(super) fn preview(image: &Image, writer: Writer) -> Option<Self> {
        let preview = image.upload.preview?;
        let (content_type, lengths, sha256) = (preview.content_type, preview.size..=preview.size, Some(preview.sha256));
        let signed_types = if writer == Writer::Valet { Vec::new() } else { vec![content_type] };
        Some(Self { content_type, signed_types, lengths, sha256, max_pixels: MAX_PREVIEW_PIXELS, writer })
    }
}

/// Returns whether an object that a client wrote has headers that no URL signed: S3 would serve them with it.
pub(super) fn has_unsigned(key: &ObjectKey, head: &Head) -> bool {
    has_headers_of_another(key, head, Writer::Client)
}

/// Returns whether the object has headers that its writer was not asked for. Stores give a copy metadata of their own.
fn has_headers_of_another(key: &ObjectKey, head: &Head, writer: Writer) -> bool {
    let is_counted = |header: &&&str| writer == Writer::Client || **header != USER_METADATA;
    let refused: Vec<_> = head.unsigned.iter().filter(is_counted).collect();
    if !refused.is_empty() {
        tracing::info!(%key, headers = ?refused, "headers refused");
    }
    !refused.is_empty()
}

impl Valet {
    /// Looks at what lies at the image's own key.
    pub(in crate::domain) async fn examine(&self, image: &Image) -> Result<Finding, StoreError> {
        self.examine_at(image, image.key.clone()).await
    }

    /// Looks at the bytes at `key`, and at the preview beside them. A preview that is absent or wrong is no error: the image
    /// goes without.
    pub(super) async fn examine_at(&self, image: &Image, key: ObjectKey) -> Result<Finding, StoreError> {
        let writer = if key == image.key { Writer::Client } else { Writer::Valet };
        match self.verify(&key, Declared::image(image, writer)).await? {
            Verdict::Missing => Ok(Finding::Missing),
            Verdict::Wrong(why) => Ok(Finding::Wrong(why)),
            Verdict::Right { etag, bytes, size } => {
                let preview = match Declared::preview(image, writer) {
                    Some(declared) => matches!(self.verify(&key.preview(), declared).await?, Verdict::Right { .. }),
                    None => false,
                };
                Ok(Finding::Proved(Verified { key, etag, bytes, size, preview }))
            }
        }
    }

    /// What the store never lets anybody read, such as an object under a key of the client's own, is not what was declared.
    async fn verify(&self, key: &ObjectKey, declared: Declared) -> Result<Verdict, StoreError> {
        match self.read(key, declared).await {
            Err(error @ StoreError::ObjectRefused { .. }) => {
                tracing::info!(%key, %error, "an object that cannot be read is refused");
                Ok(Verdict::Wrong(Rejection::ObjectMismatch))
            }
            verdict => verdict,
        }
    }

    async fn read(&self, key: &ObjectKey, declared: Declared) -> Result<Verdict, StoreError> {
        let Some(head) = self.objects.head(key).await? else { return Ok(Verdict::Missing) };
        let types = &declared.signed_types;
        let is_typed = types.is_empty() || types.iter().any(|signed| head.content_type.as_deref() == Some(signed.as_str()));
        if !declared.lengths.contains(&head.size) || !is_typed || has_headers_of_another(key, &head, declared.writer) {
            let still = self.objects.verify_head(key, &head).await?;
            return Ok(if still { Verdict::Wrong(Rejection::ObjectMismatch) } else { Verdict::Missing });
        }
        if let Some(sha256) = declared.sha256 {
            let told = head.sha256.filter(|_| self.finalization.believes_checksums());
            // What no store has verified is hashed here.
            let digest = match told {
                Some(digest) => Some(digest),
                None => self.objects.digest(key, &head).await?,
            };
            match digest {
                None => return Ok(Verdict::Missing),
                Some(digest) if digest != sha256 => return Ok(Verdict::Wrong(Rejection::ObjectMismatch)),
                Some(_) => {}
            }
        }
        let mut inspection = Inspection::begin(head.size, declared.max_pixels);
        let verdict = loop {
            let Some(bytes) = self.objects.read_range(key, &head, inspection.wanted()).await? else {
                return Ok(Verdict::Missing);
            };
            if let Some(verdict) = inspection.supply(&bytes) {
                break verdict;
            }
        };
        let expected = Format::declared_as(declared.content_type);
        match verdict
            .and_then(|proved| if proved.format == expected { Ok(proved) } else { Err(Refusal::OtherType(proved.format)) })
        {
            Ok(Content { width, height, .. }) => {
                Ok(Verdict::Right { etag: head.etag, bytes: head.size, size: Dimensions { width, height } })
            }
            Err(refusal) => {
                tracing::info!(%key, reason = %refusal, "content refused");
                Ok(Verdict::Wrong(Rejection::ContentMismatch(Some(refusal))))
            }
        }
    }
}
