//! EXIF orientation from a TIFF block: the only tag that changes the displayed size. `capture` reads the other tags.

use crate::model::Orientation;

/// Returns the orientation of the block's image; `None` if it has none.
///
/// Like browsers, it reads only the first directory, and only a tag of one SHORT. A broken block has no orientation; the image is
/// accepted.
pub(super) fn orientation(tiff: &[u8]) -> Option<Orientation> {
    let big = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let u16_at = |at: usize| -> Option<u16> {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if big { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    };
    let u32_at = |at: usize| -> Option<u32> {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if big { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
    };

    const ORIENTATION: u16 = 0x0112;
    const SHORT: u16 = 3;
    let directory = usize::try_from(u32_at(4)?).ok()?;
    // An entry has 12 bytes: tag (2), type (2), count (4), value (4).
    let mut entry = directory.checked_add(2)?;
    for _ in 0..u16_at(directory)? {
        if u16_at(entry)? == ORIENTATION && u16_at(entry.checked_add(2)?)? == SHORT && u32_at(entry.checked_add(4)?)? == 1 {
            return Orientation::new(u16_at(entry.checked_add(8)?)?);
        }
        entry = entry.checked_add(12)?;
    }
    None
}
