//! Reasons for which an upload is rejected: the defect found in its bytes, and the rejection reported to its owner.

use super::Format;

/// The reason why a file is not accepted. The messages are constants: they repeat nothing of the file or of its
/// declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ContentError {
    /// No magic bytes of an image format: HTML, SVG, PDF, video, an empty file, and others.
    #[error("it is not a JPEG, PNG, WebP, GIF, AVIF or HEIF image")]
    UnknownType,
    /// A valid image of a type that was not declared.
    #[error("it is {}, which is not the declared type", name_and_type(*.0))]
    OtherType(Format),
    /// The file ends inside its headers.
    #[error("the file is cut short: it ends inside the image's headers")]
    Truncated,
    /// The headers violate the format.
    #[error("the image's headers are damaged, so that no decoder reads it")]
    Malformed,
    /// The headers are valid, but name a coding that no decoder supports.
    #[error("the image uses an encoding that no decoder reads")]
    Undecodable,
    /// Valid headers without picture data.
    #[error("the file contains no picture")]
    NoPicture,
    /// The dimensions are stored beyond the part of a file that is read.
    #[error("the image's dimensions lie too deep in the file: more than 16 MiB, or too many pieces, of other data precede them")]
    TooDeep,
    /// More pixels than allowed, or a side that is too long.
    #[error("the image has too many pixels")]
    TooManyPixels,
    /// A width or height of zero.
    #[error("the image has a width or height of zero")]
    EmptyDimensions,
}

impl ContentError {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::UnknownType,
        Self::OtherType(Format::Jpeg),
        Self::OtherType(Format::Png),
        Self::OtherType(Format::Webp),
        Self::OtherType(Format::Gif),
        Self::OtherType(Format::Avif),
        Self::OtherType(Format::Heif),
        Self::Truncated,
        Self::Malformed,
        Self::Undecodable,
        Self::NoPicture,
        Self::TooDeep,
        Self::TooManyPixels,
        Self::EmptyDimensions,
    ];

    /// Returns the name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::OtherType(Format::Jpeg) => "is_jpeg",
            Self::OtherType(Format::Png) => "is_png",
            Self::OtherType(Format::Webp) => "is_webp",
            Self::OtherType(Format::Gif) => "is_gif",
            Self::OtherType(Format::Avif) => "is_avif",
            Self::OtherType(Format::Heif) => "is_heif",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Undecodable => "undecodable",
            Self::NoPicture => "no_picture",
            Self::TooDeep => "too_deep",
            Self::TooManyPixels => "too_many_pixels",
            Self::EmptyDimensions => "empty_dimensions",
        }
    }

    /// Parses the name in the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

/// Returns the name of the format with its article, and the media type to declare.
fn name_and_type(format: Format) -> &'static str {
    match format {
        Format::Jpeg => "a JPEG image (image/jpeg)",
        Format::Png => "a PNG image (image/png)",
        Format::Webp => "a WebP image (image/webp)",
        Format::Gif => "a GIF image (image/gif)",
        Format::Avif => "an AVIF image (image/avif)",
        Format::Heif => "a HEIC or HEIF image (image/heic or image/heif)",
    }
}

/// The reason why a pending image was rejected. Reported to its owner until the tombstone is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Size, type or digest of the object differ from the declaration.
    ObjectMismatch,
    /// The bytes are not an image of the declared type. `None` when the record does not have the reason.
    ContentMismatch(Option<ContentError>),
}

impl Rejection {
    /// Returns the name in the database and in the problem's `code`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectMismatch => "object_mismatch",
            Self::ContentMismatch(_) => "content_mismatch",
        }
    }

    /// Returns the name of the cause in the database, if one is stored.
    #[must_use]
    pub fn cause(self) -> Option<&'static str> {
        match self {
            Self::ObjectMismatch => None,
            Self::ContentMismatch(cause) => cause.map(ContentError::as_str),
        }
    }

    /// Parses the names in the database. A cause that this version does not know, or that an earlier version did not record,
    /// becomes `None`.
    #[must_use]
    pub fn parse(text: &str, cause: Option<&str>) -> Option<Self> {
        match text {
            "object_mismatch" => Some(Self::ObjectMismatch),
            "content_mismatch" => Some(Self::ContentMismatch(cause.and_then(ContentError::parse))),
            _ => None,
        }
    }
}
