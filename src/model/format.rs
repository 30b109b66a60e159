//! Image formats that Valet recognizes by a file's own bytes.

use super::ContentType;

/// An image format. HEIC and HEIF are one, because devices disagree about which of the two to declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG, with or without anything appended.
    Jpeg,
    /// PNG and APNG.
    Png,
    /// WebP: lossy, lossless, extended.
    Webp,
    /// GIF, 87a and 89a.
    Gif,
    /// HEIF with the coding AV1.
    Avif,
    /// HEIF with any other coding, usually HEVC, which phones call HEIC.
    Heif,
}

impl Format {
    /// All formats, in the order of [`ContentType::ALL`].
    pub const ALL: [Self; 6] = [Self::Jpeg, Self::Png, Self::Webp, Self::Gif, Self::Avif, Self::Heif];

    /// Returns the format of files that are declared as `content_type`.
    #[must_use]
    pub fn declared_as(content_type: ContentType) -> Self {
        match content_type {
            ContentType::Jpeg => Self::Jpeg,
            ContentType::Png => Self::Png,
            ContentType::Webp => Self::Webp,
            ContentType::Gif => Self::Gif,
            ContentType::Avif => Self::Avif,
            ContentType::Heic | ContentType::Heif => Self::Heif,
        }
    }
}
