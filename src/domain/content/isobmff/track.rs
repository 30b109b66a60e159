//! `trak`: the pictures of an image sequence (ISO/IEC 14496-12, 8.3; 23008-12, 7).

use super::super::file::Stop;
use super::{BoxContent, Coding, Size};

/// A track's description of its pictures.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// Displayed size in whole pixels, from `tkhd`.
    size: Option<Size>,
    /// Handler type, from `hdlr`.
    handler: Option<[u8; 4]>,
    coding: Option<Coding>,
}

impl Track {
    /// Reads a box inside of `trak`.
    pub(super) fn read(&mut self, kind: &[u8; 4], content: &mut BoxContent<'_>) -> Result<(), Stop> {
        match kind {
            b"tkhd" => {
                // Version (1, read first), flags (3), two times (4 or 8 each), track_ID (4), reserved (4), duration (4 or 8),
                // reserved (8), layer, group and volume (6), reserved (2), matrix (36), width (4), height (4). The last two are
                // 16.16 fractions.
                let is_wide = content.first(1)?.u8()? != 0;
                let mut header = content.first(if is_wide { 95 } else { 83 })?;
                header.skip(if is_wide { 87 } else { 75 });
                self.size = Some(Size { width: header.u32_be()? >> 16, height: header.u32_be()? >> 16 });
            }
            b"hdlr" => {
                // Version and flags (4), pre_defined (4), handler_type (4).
                let mut handler = content.first(12)?;
                handler.skip(8);
                self.handler = Some(handler.array()?);
            }
            b"stsd" => {
                // Version and flags (4), entry_count (4), the first entry's size (4) and type (4).
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

    /// Returns the coding and displayed size of the track's pictures; `None` for a track without pictures.
    pub(super) fn picture(&self) -> Option<(Coding, Size)> {
        // Some writers give image sequences the handler of videos, `vide`. A track of alpha has the handler `auxv`.
        let coding = self.coding.filter(|_| matches!(self.handler.as_ref(), Some(b"pict" | b"vide")))?;
        let size = self.size.filter(|size| size.width > 0 && size.height > 0)?;
        Some((coding, size))
    }
}
