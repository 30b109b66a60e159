//! Reads how an image was taken (time, camera, position) from the bytes that its inspection fetched. Metadata outside of these
//! bytes is not read: it is not worth another request.
//!
//! Metadata is optional and often broken, so no function here fails: a value that cannot be read is omitted.
//!
//! - `containers` finds the Exif and XMP blocks of JPEG, PNG and WebP, `heif` those of HEIF and AVIF; GIF has none.
//! - `exif` and `xmp` read the blocks, `date_time` their dates.

mod containers;
mod date_time;
mod exif;
mod heif;
#[cfg(test)]
mod tests;
mod xmp;

use std::borrow::Cow;

use crate::model::{Camera, Capture, Format};

/// Bytes of a file that are kept for its metadata, at most: several of the first ranges of an inspection.
const MAX_KEPT_BYTES: usize = 512 << 10;

/// Ranges of a file that an inspection fetched.
#[derive(Debug, Default)]
pub struct FetchedRanges<'a> {
    ranges: Vec<Range<'a>>,
    kept_bytes: usize,
}

/// Adjacent bytes of a file.
#[derive(Debug)]
struct Range<'a> {
    offset: u64,
    bytes: Cow<'a, [u8]>,
}

impl<'a> FetchedRanges<'a> {
    /// Keeps a range that begins at `offset`, and joins it to the last one if it follows that. Ignores it if the ranges would have
    /// too many bytes.
    pub fn keep(&mut self, offset: u64, bytes: impl Into<Cow<'a, [u8]>>) {
        let bytes = bytes.into();
        if self.kept_bytes + bytes.len() > MAX_KEPT_BYTES {
            return;
        }
        self.kept_bytes += bytes.len();
        match self.ranges.last_mut().filter(|last| last.offset + last.bytes.len() as u64 == offset) {
            Some(last) => last.bytes.to_mut().extend_from_slice(&bytes),
            None => self.ranges.push(Range { offset, bytes }),
        }
    }

    /// Returns the fetched bytes from `offset` on; an empty slice if that byte was not fetched.
    fn from(&self, offset: u64) -> &[u8] {
        let start_in = |range: &'_ Range<'_>| {
            let start = usize::try_from(offset.checked_sub(range.offset)?).ok()?;
            range.bytes.len().checked_sub(start).filter(|length| *length > 0).map(|_| start)
        };
        self.ranges.iter().find_map(|range| Some(&range.bytes[start_in(range)?..])).unwrap_or_default()
    }

    /// Returns `length` bytes from `offset` on, if all of them were fetched.
    fn get(&self, offset: u64, length: u64) -> Option<&[u8]> {
        self.from(offset).get(..usize::try_from(length).ok()?)
    }
}

/// The first block of each kind.
#[derive(Debug, Default, Clone, Copy)]
struct Blocks<'a> {
    /// A TIFF file with the tags of Exif.
    exif: Option<&'a [u8]>,
    /// RDF in XML.
    xmp: Option<&'a [u8]>,
}

/// Returns time, camera and position from the metadata of an image. The Exif block is preferred to XMP, which editors write.
#[must_use]
pub fn read_capture(format: Format, fetched: &FetchedRanges<'_>) -> Capture {
    let blocks = match format {
        Format::Jpeg => containers::jpeg(fetched),
        Format::Png => containers::png(fetched),
        Format::Webp => containers::webp(fetched),
        Format::Heif | Format::Avif => heif::blocks(fetched),
        Format::Gif => Blocks::default(),
    };
    let exif = blocks.exif.and_then(exif::Exif::read).unwrap_or_default();
    let xmp = blocks.xmp.map(xmp::Xmp::read).unwrap_or_default();
    let camera = Camera::new(exif.make.as_deref(), exif.model.as_deref())
        .or_else(|| Camera::new(xmp.make.as_deref(), xmp.model.as_deref()));
    Capture { taken_at: exif.taken_at.or(xmp.taken_at), camera, location: exif.location }
}
