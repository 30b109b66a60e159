//! The size of an image that is composed of others, from its item's data (ISO/IEC 23008-12, 6.6.2).

use super::super::file::{Part, Stop};
use super::{Size, locations::ItemLocations};

/// Returns the size of the canvas of a grid or an overlay, whose data is in `idat`. `None` if the data is elsewhere or cannot
/// be read.
pub(super) fn canvas(kind: &[u8; 4], item: u32, iloc: &[u8], idat: &[u8]) -> Option<Size> {
    let location = ItemLocations::read(iloc)?.find(item).filter(|location| location.is_in_meta)?;
    let start = usize::try_from(location.offset).ok()?;
    let end = start.checked_add(usize::try_from(location.length).ok()?)?;
    read_canvas(kind, Part(idat.get(start..end)?)).ok()
}

/// Reads the size of the canvas.
fn read_canvas(kind: &[u8; 4], mut data: Part<'_>) -> Result<Size, Stop> {
    // Version (1) and flags (1). Then a grid has the numbers of rows and columns (1 each), an overlay the colour of its canvas (8).
    let [_, flags] = data.array()?;
    data.take(if kind == b"grid" { 2 } else { 8 })?;
    let has_wide_fields = flags & 1 == 1;
    let mut side = || if has_wide_fields { data.u32_be() } else { data.u16_be().map(u32::from) };
    Ok(Size { width: side()?, height: side()? })
}
