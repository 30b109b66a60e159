//! Declared uploads, and the four ways in which their bytes arrive.

use std::ops::RangeInclusive;

use super::{Caption, ContentType, FileName, PartLayout, Preview, Sha256, TakenAt, ThumbHash};

/// A validated declaration of an upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The file name that is shown and under which downloads are saved.
    pub file_name: FileName,
    /// The media type: signed into the URL; compared and verified at confirm.
    pub content_type: ContentType,
    /// Size in bytes: signed into the URL and compared at confirm. For a form and for parts of undeclared lengths, the upper bound
    /// until the upload is confirmed.
    pub size: u64,
    /// The way in which the bytes arrive, and what was declared of them.
    pub kind: UploadKind,
    /// The caption, which is shown with the image.
    pub caption: Option<Caption>,
    /// A placeholder that clients show while the image loads.
    pub thumb_hash: Option<ThumbHash>,
    /// When the image was taken, for files whose metadata does not have the time.
    pub taken_at: Option<TakenAt>,
}

/// The way in which the bytes of an upload arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadKind {
    /// One presigned PUT.
    Put {
        /// The digest: signed into the URL and compared at confirm. Two uploads with the same digest have the same bytes.
        sha256: Sha256,
        /// The preview that is uploaded beside it; for a ready image, the one that was verified.
        preview: Option<Preview>,
    },
    /// Presigned PUTs of parts whose lengths are declared. S3's digest of parts is not that of the file.
    Parts(PartLayout),
    /// One form that is posted to S3, as Uppy does.
    Form,
    /// Parts whose lengths the client chooses, as Uppy does.
    UndeclaredParts,
}

impl Upload {
    /// Returns the bytes that count against the quota: file and preview.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.size.saturating_add(self.preview().map_or(0, |preview| preview.size))
    }

    /// Returns the declared digest; `None` unless the bytes arrive by one presigned PUT.
    #[must_use]
    pub fn sha256(&self) -> Option<Sha256> {
        match self.kind {
            UploadKind::Put { sha256, .. } => Some(sha256),
            UploadKind::Parts(_) | UploadKind::Form | UploadKind::UndeclaredParts => None,
        }
    }

    /// Returns the preview; `None` unless the bytes arrive by one presigned PUT.
    #[must_use]
    pub fn preview(&self) -> Option<Preview> {
        match self.kind {
            UploadKind::Put { preview, .. } => preview,
            UploadKind::Parts(_) | UploadKind::Form | UploadKind::UndeclaredParts => None,
        }
    }

    /// Returns the layout of parts of declared lengths.
    #[must_use]
    pub fn part_layout(&self) -> Option<PartLayout> {
        match self.kind {
            UploadKind::Parts(layout) => Some(layout),
            UploadKind::Put { .. } | UploadKind::Form | UploadKind::UndeclaredParts => None,
        }
    }

    /// Returns whether `later` declares the same file name, content type, caption, preview, ThumbHash and time taken: the fields
    /// that a repeated declaration of the same bytes may change.
    #[must_use]
    pub fn is_declared_as(&self, later: &Self) -> bool {
        let is_same_file =
            (&self.file_name, self.content_type, self.preview()) == (&later.file_name, later.content_type, later.preview());
        is_same_file && (&self.caption, &self.thumb_hash, self.taken_at) == (&later.caption, &later.thumb_hash, later.taken_at)
    }

    /// Returns the bytes of the largest single transfer: the whole file, or a part.
    #[must_use]
    pub fn largest_transfer(&self) -> u64 {
        self.part_layout().map_or(self.size, |layout| layout.longest_part())
    }

    /// Returns whether `size` is only an upper bound until the upload is confirmed.
    #[must_use]
    pub fn is_size_bound(&self) -> bool {
        matches!(self.kind, UploadKind::Form | UploadKind::UndeclaredParts)
    }

    /// Returns the accepted sizes in bytes: exactly the declared one, or 1 to the bound.
    #[must_use]
    pub fn accepted_sizes(&self) -> RangeInclusive<u64> {
        (if self.is_size_bound() { 1 } else { self.size })..=self.size
    }

    /// Returns whether the upload arrives in parts, of declared or of client-chosen sizes.
    #[must_use]
    pub fn is_in_parts(&self) -> bool {
        matches!(self.kind, UploadKind::Parts(_) | UploadKind::UndeclaredParts)
    }
}
