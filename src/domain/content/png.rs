//! PNG (W3C PNG 3rd edition): the header, and the chunks up to the image data.

use super::file::{File, Part, Stop};
use super::{ContentError, Orientation, Size, exif};

/// The colour type whose pixels are indices into `PLTE`.
const INDEXED: u8 = 3;

/// The bit in the first byte of a chunk's name that makes the chunk ancillary.
const ANCILLARY: u8 = 0x20;

/// Length of the CRC behind a chunk's content, in bytes.
const CRC_BYTES: u64 = 4;

/// State read from the chunks so far.
#[derive(Debug, Default)]
pub(super) struct Png {
    header: Option<Header>,
    /// Orientation by the first `eXIf` chunk with a correct CRC.
    orientation: Option<Orientation>,
    /// Whether the palette of indexed pixels was read.
    has_palette: bool,
}

/// The header chunk `IHDR`.
#[derive(Debug, Clone, Copy)]
struct Header {
    size: Size,
    /// Whether pixels are indices into `PLTE`.
    is_indexed: bool,
}

impl Png {
    /// Continues reading up to the displayed size.
    pub(super) fn advance(&mut self, file: &mut File) -> Result<Size, Stop> {
        loop {
            let mut chunk = file.take(8)?;
            let (length, kind) = (chunk.u32_be()?, chunk.array()?);
            if length > i32::MAX as u32 {
                return Err(ContentError::Malformed.into());
            }
            let Some(header) = self.header else {
                match &kind {
                    b"IHDR" if length == Header::BYTES => self.header = Some(Header::read(file)?),
                    // The header is the first chunk (5.6), but Firefox and Pillow pass over ancillary ones before it.
                    [first, ..] if first & ANCILLARY != 0 => file.skip(u64::from(length) + CRC_BYTES),
                    _ => return Err(ContentError::Malformed.into()),
                }
                file.mark();
                continue;
            };
            match &kind {
                // Indices need a palette before them (11.2.2).
                b"IDAT" if header.is_indexed && !self.has_palette => return Err(ContentError::Malformed.into()),
                b"IDAT" => return self.size_so_far().ok_or(ContentError::Malformed.into()),
                b"IHDR" => return Err(ContentError::Malformed.into()),
                b"IEND" => return Err(ContentError::NoPicture.into()),
                // An error in a critical chunk is fatal (13.1).
                b"PLTE" if header.is_indexed => {
                    let palette = content(file, kind, length)?.ok_or(ContentError::Malformed)?;
                    let is_sound = palette.len().is_multiple_of(3) && (3..=3 * 256).contains(&palette.len());
                    if !is_sound || self.has_palette {
                        return Err(ContentError::Malformed.into());
                    }
                    self.has_palette = true;
                }
                // A decoder must not read on behind a critical chunk that it does not know (13.1): a name whose first byte lacks
                // this bit (5.4).
                [first, ..] if &kind != b"PLTE" && first & ANCILLARY == 0 => return Err(ContentError::Malformed.into()),
                // Like every ancillary chunk, one with an error is ignored (13.1). Browsers take the prefix that Exif has in a JPEG
                // segment for an error.
                b"eXIf" if self.orientation.is_none() && File::is_takeable(u64::from(length) + CRC_BYTES) => {
                    self.orientation =
                        content(file, kind, length)?.map(|tiff| exif::orientation(tiff).unwrap_or(Orientation::NORMAL));
                }
                _ => file.skip(u64::from(length) + CRC_BYTES),
            }
            file.mark();
        }
    }

    /// Returns how the image is turned, as far as the file has been read.
    pub(super) fn orientation(&self) -> Orientation {
        self.orientation.unwrap_or(Orientation::NORMAL)
    }

    /// Returns the displayed size, once the header has been read.
    pub(super) fn size_so_far(&self) -> Option<Size> {
        Some(self.header?.size.turned_if(self.orientation().swaps_sides()))
    }
}

impl Header {
    /// Length of the chunk's content.
    const BYTES: u32 = 13;

    /// Reads the content of `IHDR` (11.2.1), which must have valid values and a correct CRC.
    fn read(file: &mut File) -> Result<Self, Stop> {
        let mut header = Part(content(file, *b"IHDR", Self::BYTES)?.ok_or(ContentError::Malformed)?);
        let size = Size { width: header.u32_be()?, height: header.u32_be()? };
        let [depth, colour, compression, filter, interlace] = header.array()?;
        let depth_fits = match colour {
            0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
            INDEXED => matches!(depth, 1 | 2 | 4 | 8),
            2 | 4 | 6 => matches!(depth, 8 | 16),
            _ => false,
        };
        if !depth_fits || compression != 0 || filter != 0 || interlace > 1 {
            return Err(ContentError::Malformed.into());
        }
        Ok(Self { size, is_indexed: colour == INDEXED })
    }
}

/// Returns a chunk's content; `None` if its CRC is wrong (5.3).
fn content(file: &mut File, kind: [u8; 4], length: u32) -> Result<Option<&[u8]>, Stop> {
    let mut chunk = file.take(u64::from(length) + CRC_BYTES)?;
    let content = chunk.take(usize::try_from(length).unwrap_or(usize::MAX))?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&kind);
    crc.update(content);
    Ok((crc.finalize() == chunk.u32_be()?).then_some(content))
}
