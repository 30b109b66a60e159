//! GIF (87a and 89a): the logical screen and the first frame.

use super::reader::{Reader, Stop};
use super::{Refusal, Size};

/// The displayed size: the logical screen, widened to hold the first frame, as browsers lay it out. A file without
/// a frame is no image.
pub(super) fn size(file: &mut Reader<'_>) -> Result<Size, Stop> {
    file.skip(6);
    let (width, height) = (u32::from(file.u16_le()?), u32::from(file.u16_le()?));
    let flags = file.u8()?;
    file.skip(2);
    if flags & 0x80 != 0 {
        file.skip(3 << ((flags & 7) + 1));
    }
    loop {
        match file.u8()? {
            // An extension: its label, then blocks until an empty one.
            0x21 => {
                file.skip(1);
                loop {
                    match file.u8()? {
                        0 => break,
                        length => file.skip(length.into()),
                    }
                }
            }
            0x2C => {
                let (left, top) = (u32::from(file.u16_le()?), u32::from(file.u16_le()?));
                let (frame_width, frame_height) = (u32::from(file.u16_le()?), u32::from(file.u16_le()?));
                return Ok((width.max(left + frame_width), height.max(top + frame_height)));
            }
            _ => return Err(Refusal::Malformed.into()),
        }
    }
}
