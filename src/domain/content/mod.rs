//! Identifies an uploaded file from its bytes: its format by magic bytes and headers, and its pixel size as displayed. No I/O, no
//! decoding of pixels, and no allocation by a size that the file claims. The caller fetches the bytes: a [`ContentInspector`]
//! names the range that it needs next.
//!
//! Valet has its own parsers because readers of whole files cannot distinguish a broken file from an incomplete one. Boxes,
//! segments, chunks and blocks are skipped by their length: cameras write the index behind the pixels, and editors write mebibytes
//! of metadata before them.
//!
//! The displayed size is the one that browsers lay out (CSS `image-orientation: from-image`, the default):
//! - JPEG: the frame's size, swapped for EXIF orientations 5 to 8 of the first Exif segment.
//! - PNG: the same by an `eXIf` chunk, if it precedes the image data (PNG 3rd ed. 11.3.2.2; browsers ignore a later one) and has no
//!   prefix.
//! - WebP: the canvas. Its EXIF chunk follows the pixels, Chromium ignores its orientation and cameras write none.
//! - GIF: the logical screen, widened to its first frame, as browsers do.
//! - AVIF (`isobmff`): the primary item's `ispe`, then its `clap` and `irot` (ISO/IEC 23008-12, 6.5); EXIF orientation is ignored,
//!   as the standard says. Of a sequence without an item: the size of its track.
//! - HEIF: the same, but the size of the picture that is coded in HEVC, or of the canvas of a grid or an overlay, is preferred to
//!   `ispe`.
//!
//! No byte is fetched to check what does not affect the size: chunks and frames behind the first picture, and where an item's data
//! is. Flags and properties that decoders reject are passed over, because decoders differ in them.
//!
//! Data after the image's end is legal: Motion Photo and Ultra HDR append a video or a second JPEG. So is a file that ends inside
//! its pixels: browsers show the part that exists.
//!
//! `file` has the cursors of all parsers. `capture` reads when, where and with which camera an image was taken.

mod capture;
mod exif;
mod file;
mod gif;
mod isobmff;
mod jpeg;
mod png;
mod webp;

#[cfg(test)]
mod tests;

use std::ops::Range;

use file::{File, Stop};

pub use capture::{FetchedRanges, read_capture};

use crate::model::Orientation;
pub use crate::model::{ContentError, Format};

/// Limits of how much of a file an inspection reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBudget {
    /// Length of the first range in bytes.
    pub first: u64,
    /// Maximum number of ranges.
    pub ranges: u32,
    /// Maximum number of bytes in all ranges.
    pub bytes: u64,
}

impl ReadBudget {
    /// The first range suffices for almost every photograph; the rest covers the metadata of any editor.
    pub const DEFAULT: Self = Self { first: 64 << 10, ranges: 16, bytes: 16 << 20 };
}

/// Default of `max_pixels`: enough for 200-megapixel phones, a limit for decompression bombs (1 GiB as RGBA).
pub const MAX_PIXELS: u64 = 1 << 28;

/// Longest accepted side in pixels: the maximum of JPEG.
pub const MAX_SIDE: u32 = 65_535;

/// A verified image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The image's format.
    pub format: Format,
    /// Width as displayed, in pixels, 1 to [`MAX_SIDE`].
    pub width: u32,
    /// Height as displayed, in pixels, 1 to [`MAX_SIDE`].
    pub height: u32,
    /// Orientation of the stored pixels by EXIF, for formats where it counts. Normal for AVIF and HEIF, whose own properties turn
    /// them.
    pub orientation: Orientation,
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
}

impl Size {
    /// Returns the size of the image turned by a quarter.
    fn turned(self) -> Self {
        Self { width: self.height, height: self.width }
    }

    /// Returns the size with its sides exchanged if `turned`.
    fn turned_if(self, turned: bool) -> Self {
        if turned { self.turned() } else { self }
    }
}

/// The parser of a file, by its magic bytes.
#[derive(Debug)]
enum Parser {
    Jpeg(jpeg::Jpeg),
    Png(png::Png),
    Gif(gif::Gif),
    Webp(webp::Webp),
    Boxes(Box<isobmff::Boxes>),
}

/// Inspects one file step by step.
///
/// The caller fetches [`Self::wanted`] and supplies it until there is a verdict. No byte is fetched twice, and almost every
/// photograph takes one range; [`ReadBudget`] limits the rest.
#[derive(Debug)]
pub struct ContentInspector {
    file: File,
    max_pixels: u64,
    budget: ReadBudget,
    parser: Option<Parser>,
    wanted: Range<u64>,
    ranges: u32,
    fetched: u64,
}

impl ContentInspector {
    /// Begins the inspection of a file of `total` bytes, which may have at most `max_pixels`.
    #[must_use]
    pub fn new(total: u64, max_pixels: u64) -> Self {
        Self::with_budget(total, max_pixels, ReadBudget::DEFAULT)
    }

    /// Begins an inspection with another budget than the default.
    #[must_use]
    pub fn with_budget(total: u64, max_pixels: u64, budget: ReadBudget) -> Self {
        let wanted = 0..total.min(budget.first);
        Self { file: File::new(total), max_pixels, budget, parser: None, wanted, ranges: 0, fetched: 0 }
    }

    /// Returns the range of the file to fetch next. It lies within the file; it is empty for an empty file.
    #[must_use]
    pub fn wanted(&self) -> Range<u64> {
        self.wanted.clone()
    }

    /// Takes the bytes of [`Self::wanted`], and ignores further ones. Returns the verdict, or `None` if another range is wanted.
    ///
    /// The verdict does not depend on the ranges: it is that of the whole file.
    pub fn supply(&mut self, bytes: &[u8]) -> Option<Result<Content, ContentError>> {
        let length = self.wanted.end - self.wanted.start;
        let bytes = usize::try_from(length).ok().and_then(|length| bytes.get(..length)).unwrap_or(bytes);
        self.file.supply(bytes);
        self.ranges += 1;
        self.fetched += length;
        self.file.rewind();
        let (format, size) = match self.advance() {
            Ok(found) => found,
            Err(Stop::Rejected(error)) => return Some(Err(error)),
            Err(Stop::NeedMore { end }) => match self.next_range(end) {
                Some(wanted) => {
                    self.wanted = wanted;
                    return None;
                }
                // If only an element that might change the size lies too deep, the size that was found counts.
                None => match self.parser.as_ref().and_then(Parser::size_so_far) {
                    Some(known) => known,
                    None => return Some(Err(ContentError::TooDeep)),
                },
            },
        };
        Some(self.checked(format, size))
    }

    /// Continues parsing with the bytes that have been fetched so far.
    fn advance(&mut self) -> Result<(Format, Size), Stop> {
        let parser = match &mut self.parser {
            Some(parser) => parser,
            None => self.parser.insert(Parser::choose(&mut self.file)?),
        };
        parser.advance(&mut self.file)
    }

    /// Returns the next range for a parser that needs the bytes up to `end`; `None` if the budget does not suffice.
    ///
    /// Ranges grow, so that headers in many small pieces do not take many requests, and the last ones use up the rest of the
    /// budget.
    fn next_range(&self, end: u64) -> Option<Range<u64>> {
        let start = self.file.frontier();
        let needed = end.saturating_sub(start);
        let ReadBudget { first, ranges, bytes } = self.budget;
        let bytes_left = bytes.saturating_sub(self.fetched);
        let usual_length = match (self.ranges, ranges.checked_sub(self.ranges)?) {
            (_, 0) => return None,
            (..=1, _) => first,
            (2, _) => 4 * first,
            (3, _) => 16 * first,
            (_, ranges_left) => bytes_left / u64::from(ranges_left),
        };
        (needed <= bytes_left)
            .then(|| start..start.saturating_add(needed.max(usual_length).min(bytes_left)).min(self.file.total()))
    }

    /// Checks a size against the limits.
    fn checked(&self, format: Format, Size { width, height }: Size) -> Result<Content, ContentError> {
        if width == 0 || height == 0 {
            return Err(ContentError::EmptyDimensions);
        }
        if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ContentError::TooManyPixels);
        }
        let orientation = self.parser.as_ref().map_or(Orientation::NORMAL, Parser::orientation);
        Ok(Content { format, width, height, orientation })
    }
}

impl Parser {
    /// Chooses the parser by the magic bytes.
    fn choose(file: &mut File) -> Result<Self, Stop> {
        let Ok(start) = file.take(file.total().min(12)) else { return Err(ContentError::UnknownType.into()) };
        let (parser, length) = match start.rest() {
            [0xFF, 0xD8, 0xFF, ..] => (Self::Jpeg(jpeg::Jpeg::default()), 2),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => (Self::Png(png::Png::default()), 8),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => (Self::Gif(gif::Gif::default()), 6),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => (Self::Webp(webp::Webp::default()), 4),
            [_, _, _, _, b'f', b't', b'y', b'p', _, _, _, _] => (Self::Boxes(Box::default()), 0),
            _ => return Err(ContentError::UnknownType.into()),
        };
        file.rewind();
        file.skip(length);
        file.mark();
        Ok(parser)
    }

    /// Continues parsing in the format of this parser.
    fn advance(&mut self, file: &mut File) -> Result<(Format, Size), Stop> {
        match self {
            Self::Jpeg(jpeg) => Ok((Format::Jpeg, jpeg.advance(file)?)),
            Self::Png(png) => Ok((Format::Png, png.advance(file)?)),
            Self::Gif(gif) => Ok((Format::Gif, gif.advance(file)?)),
            Self::Webp(webp) => Ok((Format::Webp, webp.advance(file)?)),
            Self::Boxes(boxes) => boxes.advance(file),
        }
    }

    /// Returns the orientation that the metadata declares; formats whose size includes it have the normal one.
    fn orientation(&self) -> Orientation {
        match self {
            Self::Jpeg(jpeg) => jpeg.orientation(),
            Self::Png(png) => png.orientation(),
            Self::Gif(_) | Self::Webp(_) | Self::Boxes(_) => Orientation::NORMAL,
        }
    }

    /// Returns the format and the displayed size, as far as the file has been read.
    fn size_so_far(&self) -> Option<(Format, Size)> {
        match self {
            Self::Jpeg(jpeg) => jpeg.size_so_far().map(|size| (Format::Jpeg, size)),
            Self::Png(png) => png.size_so_far().map(|size| (Format::Png, size)),
            Self::Gif(gif) => gif.size_so_far().map(|size| (Format::Gif, size)),
            Self::Webp(webp) => webp.size_so_far().map(|size| (Format::Webp, size)),
            Self::Boxes(boxes) => boxes.size_so_far(),
        }
    }
}
