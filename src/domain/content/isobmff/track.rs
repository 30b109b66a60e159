//! `trak`: the pictures of an image sequence (ISO/IEC 14496-12, 8.3; 23008-12, 7).

use super::super::file::Stop;
use super::{Coding, Content, Size};

/// A track's description of its pictures.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// The displayed size, in whole pixels, of `tkhd`.
    size: Option<Size>,
    handler: Option<[u8; 4]>,
    coding: Option<Coding>,
}

impl Track {
    /// Reads a box inside of `trak`.
    pub(super) fn read(&mut self, kind: &[u8; 4], content: &mut Content<'_>) -> Result<(), Stop> {
        match kind {
            b"tkhd" => {
                // Two times and a duration, of 32 or 64 bits; the width and height are the last fields, as 16.16 fractions.
                let is_wide = content.first(1)?.u8()? != 0;
                let mut header = content.first(if is_wide { 95 } else { 83 })?;
                header.skip(if is_wide { 87 } else { 75 });
                self.size = Some(Size { width: header.u32_be()? >> 16, height: header.u32_be()? >> 16 });
            }
            b"hdlr" => {
                let mut handler = content.first(12)?;
                handler.skip(8);
                self.handler = Some(handler.array()?);
            }
            b"stsd" => {
                let mut samples = content.first(16)?;
                samples.skip(12);
                self.coding = match &samples.array::<4>()? {
                    b"av01" => Some(Coding::Av1),
                    b"hvc1" | b"hev1" => Some(Coding::Other),
                    _ => None,
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns how the track's pictures are coded and their displayed size; none for a track of anything else.
    pub(super) fn picture(&self) -> Option<(Coding, Size)> {
        let coding = self.coding.filter(|_| self.handler == Some(*b"pict"))?;
        let size = self.size.filter(|size| size.width > 0 && size.height > 0)?;
        Some((coding, size))
    }
}
