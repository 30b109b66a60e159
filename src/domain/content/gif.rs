//! GIF (87a and 89a): the logical screen and the first frame.

use super::file::{File, Stop};
use super::{ContentError, Size};

/// The label of the extension that has a frame's delay and transparency, and the length of its block.
const GRAPHIC_CONTROL: u8 = 0xF9;
const GRAPHIC_CONTROL_BYTES: u8 = 4;

/// State read from the blocks so far.
#[derive(Debug, Default)]
pub(super) struct Gif {
    screen: Option<Size>,
    /// Whether the cursor is inside of an extension.
    is_in_extension: bool,
}

impl Gif {
    /// Reads up to the displayed size: the logical screen, widened to hold the first frame, as browsers lay it out. A file
    /// without a frame is rejected.
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
                    // An extension: its label, and the length of its first block.
                    0x21 => {
                        let [label, length] = file.take(2)?.array()?;
                        // No decoder reads a graphic control block that is cut (GIF89a, 23); some read an empty one.
                        if label == GRAPHIC_CONTROL && (1..GRAPHIC_CONTROL_BYTES).contains(&length) {
                            return Err(ContentError::Malformed.into());
                        }
                        file.skip(length.into());
                        self.is_in_extension = length > 0;
                    }
                    // A frame: its position and size.
                    0x2C => {
                        let mut frame = file.take(8)?;
                        let (left, top) = (u32::from(frame.u16_le()?), u32::from(frame.u16_le()?));
                        let (width, height) = (u32::from(frame.u16_le()?), u32::from(frame.u16_le()?));
                        return Ok(Size { width: screen.width.max(left + width), height: screen.height.max(top + height) });
                    }
                    // The end of the file.
                    0x3B => return Err(ContentError::NoPicture.into()),
                    // Decoders pass over empty blocks that no extension precedes.
                    0 => {}
                    _ => return Err(ContentError::Malformed.into()),
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
