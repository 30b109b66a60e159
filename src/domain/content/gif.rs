//! GIF (87a and 89a): the logical screen and the first frame.

use super::file::{File, Stop};
use super::{Refusal, Size};

/// State read from the blocks so far.
#[derive(Debug, Default)]
pub(super) struct Gif {
    screen: Option<Size>,
    /// Whether the cursor is inside of an extension.
    is_in_extension: bool,
}

impl Gif {
    /// Reads up to the displayed size: the logical screen, widened to hold the first frame, as browsers lay it out. A file
    /// without a frame is refused.
    pub(super) fn advance(&mut self, file: &mut File) -> Result<Size, Stop> {
        let screen = match self.screen {
            Some(screen) => screen,
            None => {
                // Logical Screen Descriptor: width (2), height (2), flags (1), background colour (1), aspect ratio (1).
                let mut descriptor = file.take(7)?;
                let screen = Size { width: descriptor.u16_le()?.into(), height: descriptor.u16_le()?.into() };
                let flags = descriptor.u8()?;
                // A table of colours follows, three bytes each.
                if flags & 0x80 != 0 {
                    file.skip(3 << ((flags & 7) + 1));
                }
                file.mark();
                *self.screen.insert(screen)
            }
        };
        loop {
            if self.is_in_extension {
                // Blocks of a stated length, until an empty one.
                match file.take(1)?.u8()? {
                    0 => self.is_in_extension = false,
                    length => file.skip(length.into()),
                }
            } else {
                match file.take(1)?.u8()? {
                    // An extension and its label.
                    0x21 => {
                        file.take(1)?;
                        self.is_in_extension = true;
                    }
                    // A frame: its position and size.
                    0x2C => {
                        let mut frame = file.take(8)?;
                        let (left, top) = (u32::from(frame.u16_le()?), u32::from(frame.u16_le()?));
                        let (width, height) = (u32::from(frame.u16_le()?), u32::from(frame.u16_le()?));
                        return Ok(Size { width: screen.width.max(left + width), height: screen.height.max(top + height) });
                    }
                    // The end of the file.
                    0x3B => return Err(Refusal::NoPicture.into()),
                    // Decoders pass over empty blocks that no extension precedes.
                    0 => {}
                    _ => return Err(Refusal::Malformed.into()),
                }
            }
            file.mark();
        }
    }

    /// Returns the logical screen, once it has been read.
    pub(super) fn size_so_far(&self) -> Option<Size> {
        self.screen
    }
}
