//! PNG (W3C PNG 3rd edition): the header, and the chunks up to the image data.

use super::reader::{Reader, Stop};
use super::{Refusal, Size, exif};

/// The displayed size.
pub(super) fn size(file: &mut Reader<'_>) -> Result<Size, Stop> {
    file.skip(8);
    let (width, height) = header(file)?;
    let turned = match turned(file) {
        // More than a mebibyte of text before the pixels: editors do that. The size is known, the rest is decoration.
        Err(Stop::Refused(Refusal::TooDeep)) => false,
        other => other?,
    };
    Ok(if turned { (height, width) } else { (width, height) })
}

fn header(file: &mut Reader<'_>) -> Result<Size, Stop> {
    if file.u32_be()? != 13 || &file.tag()? != b"IHDR" {
        return Err(Refusal::Malformed.into());
    }
    let size = (file.u32_be()?, file.u32_be()?);
    let (depth, colour) = (file.u8()?, file.u8()?);
    let (compression, filter, interlace) = (file.u8()?, file.u8()?, file.u8()?);
    let depth_fits = match colour {
        0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
        3 => matches!(depth, 1 | 2 | 4 | 8),
        2 | 4 | 6 => matches!(depth, 8 | 16),
        _ => false,
    };
    if !depth_fits || compression != 0 || filter != 0 || interlace > 1 {
        return Err(Refusal::Malformed.into());
    }
    file.skip(4);
    Ok(size)
}

/// Whether an `eXIf` chunk before the image data turns the image by a quarter.
fn turned(file: &mut Reader<'_>) -> Result<bool, Stop> {
    let mut turned = None;
    loop {
        let length = file.u32_be()?;
        let kind = file.tag()?;
        if length > i32::MAX as u32 || !kind.iter().all(u8::is_ascii_alphabetic) {
            return Err(Refusal::Malformed.into());
        }
        match &kind {
            b"IDAT" => return Ok(turned.unwrap_or(false)),
            b"IEND" => return Err(Refusal::Malformed.into()),
            b"eXIf" if turned.is_none() => turned = exif::quarter_turn(file.take(length.into())?),
            _ => file.skip(length.into()),
        }
        file.skip(4);
    }
}
