//! What an uploaded file really is, proved from its first bytes: the format by its magic bytes and headers, and the
//! pixel size as displayed. Bytes in, verdict out: no I/O, no pixel is decoded, no allocation follows a size the file
//! claims. Fetching the bytes belongs to the caller.
//!
//! The parsers are our own: the size lies where the headers say, and the question "is this a broken file, or do we
//! need more of it?" is one that readers of whole files cannot answer.
//!
//! Displayed means what browsers lay out (CSS `image-orientation: from-image`, the default):
//! - JPEG: the frame's size, swapped for EXIF orientations 5 to 8.
//! - PNG: the same by an `eXIf` chunk, if it stands before the image data (PNG 3rd ed. 11.3.2.2; browsers ignore a later one).
//! - WebP: the canvas. Its EXIF chunk follows the pixels, Chromium ignores its orientation and cameras write none.
//! - GIF: the logical screen, widened to its first frame, as browsers do.
//! - AVIF and HEIF: the primary item's `ispe`, then its `clap` and `irot` in their order (ISO/IEC 23008-12, 6.5);
//!   EXIF orientation is ignored there, as the standard says.
//!
//! Data after the image's end is legal: Motion Photo and Ultra HDR append a video or a second JPEG.

mod exif;
mod gif;
mod isobmff;
mod jpeg;
mod png;
mod reader;
mod webp;

#[cfg(test)]
mod tests;

use reader::{Reader, Stop};

/// How much of a file to fetch first, in bytes: enough for almost every photograph.
pub const FIRST_HEAD: usize = 64 * 1024;

/// The most of a file that is ever looked at, in bytes: Ultra HDR, MPF and large ICC profiles push a JPEG's
/// dimensions past the first 64 KiB.
pub const MAX_HEAD: usize = 1024 * 1024;

/// A sensible `max_pixels`: room for 200-megapixel phones, an end for decompression bombs (1 GiB as RGBA).
pub const MAX_PIXELS: u64 = 1 << 28;

/// The longest side accepted, in pixels: the most that JPEG can say.
pub const MAX_SIDE: u32 = 65_535;

/// The image formats Valet can prove.
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
    /// HEIF holding AV1.
    Avif,
    /// HEIF holding anything else, HEVC as a rule: what phones call HEIC.
    Heif,
}

impl Format {
    /// Whether a file of this format may be declared as `content_type` (lower case, without parameters).
    /// `image/heic` and `image/heif` are one family: devices disagree about which to say.
    #[must_use]
    pub fn matches(self, content_type: &str) -> bool {
        match self {
            Self::Jpeg => content_type == "image/jpeg",
            Self::Png => content_type == "image/png",
            Self::Webp => content_type == "image/webp",
            Self::Gif => content_type == "image/gif",
            Self::Avif => content_type == "image/avif",
            Self::Heif => matches!(content_type, "image/heic" | "image/heif"),
        }
    }
}

/// A proved image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// What it is.
    pub format: Format,
    /// Width as displayed, in pixels, 1 to [`MAX_SIDE`].
    pub width: u32,
    /// Height as displayed, in pixels, 1 to [`MAX_SIDE`].
    pub height: u32,
}

/// The verdict of [`inspect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// An image, and its size.
    Proved(Content),
    /// The answer lies deeper: fetch the file's first `bytes` bytes and ask again.
    NeedMore {
        /// The whole head wanted: more than was given, at most the file and at most [`MAX_HEAD`].
        bytes: usize,
    },
    /// Not an image that Valet stores.
    Refused(Refusal),
}

/// Why a file is not accepted. The messages are constants: nothing of the file is echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// No magic bytes of an image format: HTML, SVG, PDF, video, an empty file, anything else.
    #[error("the file is not a JPEG, PNG, WebP, GIF, AVIF or HEIF image")]
    UnknownType,
    /// The file ends before its headers do.
    #[error("the image file is cut short")]
    Truncated,
    /// The headers contradict the format.
    #[error("the image file's headers are malformed")]
    Malformed,
    /// The dimensions lie beyond [`MAX_HEAD`].
    #[error("the image's dimensions lie too deep in the file")]
    TooDeep,
    /// More pixels than allowed, or a side longer than [`MAX_SIDE`].
    #[error("the image has too many pixels")]
    TooManyPixels,
    /// A width or height of zero.
    #[error("the image has no pixels")]
    EmptyDimensions,
}

/// Width and height in pixels.
type Size = (u32, u32);

/// Proves what a file is from `head`, its first bytes, where `total` is its whole length in bytes.
///
/// Answers for a file do not depend on how the head grew: whoever fetches [`FIRST_HEAD`] bytes and follows
/// [`Inspection::NeedMore`] makes at most three requests and learns what the whole file would have said.
/// Bytes past `total` or [`MAX_HEAD`] are not looked at.
#[must_use]
pub fn inspect(head: &[u8], total: u64, max_pixels: u64) -> Inspection {
    match prove(Reader::of_file(head, total), max_pixels) {
        Ok(content) => Inspection::Proved(content),
        Err(Stop::NeedMore(bytes)) => Inspection::NeedMore { bytes },
        Err(Stop::Refused(refusal)) => Inspection::Refused(refusal),
    }
}

fn prove(mut file: Reader<'_>, max_pixels: u64) -> Result<Content, Stop> {
    let (format, (width, height)) = match file.peek(12) {
        [0xFF, 0xD8, 0xFF, ..] => (Format::Jpeg, jpeg::size(&mut file)?),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => (Format::Png, png::size(&mut file)?),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => (Format::Gif, gif::size(&mut file)?),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => (Format::Webp, webp::size(&mut file)?),
        [_, _, _, _, b'f', b't', b'y', b'p', _, _, _, _] => isobmff::format_and_size(&mut file)?,
        start if start.len() < 12 && file.has_more() => return Err(file.short(12)),
        _ => return Err(Refusal::UnknownType.into()),
    };
    if width == 0 || height == 0 {
        return Err(Refusal::EmptyDimensions.into());
    }
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > max_pixels {
        return Err(Refusal::TooManyPixels.into());
    }
    Ok(Content { format, width, height })
}
