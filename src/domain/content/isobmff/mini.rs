//! `mini`: an image without `meta`, its properties in a few bits (`MinimizedImageBox`, ISO/IEC 23008-12 amendment 2). Browsers show
//! those that are coded with AV1.

use super::super::file::Stop;
use super::{BoxContent, ContentError, Size, bits::Bits};

/// Bytes of the box up to the end of the types of item and configuration, at most: 142 bits, if every optional field is present.
const MAX_HEAD_BYTES: u64 = 18;

/// Returns the displayed size of an image that is coded with AV1; `None` for another coding. A box that names no coding means AV1.
pub(super) fn read(content: &mut BoxContent<'_>) -> Result<Option<Size>, Stop> {
    let mut bits = Bits::new(content.first(MAX_HEAD_BYTES)?);
    let (version, has_types, is_float) = (bits.read(2)?, bits.flag()?, bits.flag()?);
    let (_is_full_range, has_alpha, has_colours) = (bits.flag()?, bits.flag()?, bits.flag()?);
    // Flags of high dynamic range, a colour profile, Exif and XMP; their data follows the size.
    bits.read(4)?;
    let (subsampling, orientation, is_large) = (bits.read(2)?, bits.read(3)? + 1, bits.flag()?);
    let side = if is_large { 15 } else { 7 };
    let size = Size { width: bits.read(side)? + 1, height: bits.read(side)? + 1 };
    if version != 0 || is_float {
        return Err(ContentError::Malformed.into());
    }
    // The positions of the chroma samples follow.
    bits.read(match subsampling {
        1 => 2,
        2 => 1,
        _ => 0,
    })?;
    if bits.flag()? {
        // The depth in bits follows.
        bits.read(3)?;
    }
    if has_alpha {
        // A flag follows: whether the colours are multiplied by alpha.
        bits.read(1)?;
    }
    if has_colours {
        // Primaries, transfer, and the matrix where there are colours.
        bits.read(if subsampling == 0 { 16 } else { 24 })?;
    }
    let types = has_types.then(|| Ok::<_, Stop>((bits.read(32)?.to_be_bytes(), bits.read(32)?.to_be_bytes()))).transpose()?;
    let is_av1 = types.is_none_or(|types| types == (*b"av01", *b"av1C"));
    Ok(is_av1.then(|| size.turned_if(orientation > 4)))
}
