//! Finds the TIFF block of a JPEG's Exif segment, and reads the orientation from such a block: the only tag that changes the
//! displayed size. `capture` reads the other tags.

use crate::model::Orientation;

/// Returns the TIFF block of a segment APP1; `None` for another segment, or an empty block. Like Chromium, accepts any byte in the
/// place of the second zero (Exif 3.0, 4.7.2.1).
pub(super) fn block(segment: &[u8]) -> Option<&[u8]> {
    segment.strip_prefix(b"Exif\0")?.get(1..).filter(|block| !block.is_empty())
}

/// Returns the orientation of the block's image; `None` if it has none.
///
/// Like browsers, it reads only the first directory, and only a whole entry of one SHORT. A broken block has no orientation; the
/// image is accepted.
pub(super) fn orientation(tiff: &[u8]) -> Option<Orientation> {
    let is_big_endian = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let u16_at = |at: usize| -> Option<u16> {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if is_big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    };
    let u32_at = |at: usize| -> Option<u32> {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if is_big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
    };

    const ORIENTATION: u16 = 0x0112;
    const SHORT: u16 = 3;
    const ENTRY_BYTES: usize = 12;
    let directory = usize::try_from(u32_at(4)?).ok()?;
    // Each entry has a tag (2), type (2), count (4) and value (4).
    let mut entry = directory.checked_add(2)?;
    for _ in 0..u16_at(directory)? {
        let end = entry.checked_add(ENTRY_BYTES).filter(|end| *end <= tiff.len())?;
        if u16_at(entry)? == ORIENTATION && u16_at(entry.checked_add(2)?)? == SHORT && u32_at(entry.checked_add(4)?)? == 1 {
            return Orientation::new(u16_at(entry.checked_add(8)?)?);
        }
        entry = end;
    }
    None
}
