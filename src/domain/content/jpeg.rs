//! JPEG (ITU-T T.81 annex B): the markers up to the first scan.

use super::reader::{Reader, Stop};
use super::{Refusal, Size, exif};

/// The displayed size. Everything before the first scan counts, since decoders honour EXIF up to there; everything
/// after it is no concern of ours.
pub(super) fn size(file: &mut Reader<'_>) -> Result<Size, Stop> {
    file.skip(2);
    let mut frame = None;
    let mut turned = None;
    loop {
        match marker(file)? {
            // TEM and RSTn stand alone.
            0x01 | 0xD0..=0xD7 => {}
            // SOI or EOI before a scan: no image here.
            0xD8 | 0xD9 => return Err(Refusal::Malformed.into()),
            0xDA => break,
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let header = frame_header(&mut segment(file)?)?;
                if frame.replace(header).is_some() {
                    return Err(Refusal::Malformed.into());
                }
            }
            0xE1 if turned.is_none() => {
                let tiff = segment(file)?.rest().strip_prefix(b"Exif\0\0");
                turned = tiff.and_then(exif::quarter_turn);
            }
            _ => {
                let length = length(file)?;
                file.skip(length);
            }
        }
    }
    let (width, height) = frame.ok_or(Refusal::Malformed)?;
    Ok(if turned == Some(true) { (height, width) } else { (width, height) })
}

/// The next marker's code. Stray bytes between segments are passed over, as decoders do: some cameras write them.
fn marker(file: &mut Reader<'_>) -> Result<u8, Stop> {
    loop {
        while file.u8()? != 0xFF {}
        let mut code = 0xFF;
        while code == 0xFF {
            code = file.u8()?;
        }
        if code != 0 {
            return Ok(code);
        }
    }
}

/// The length of the segment's content: what is written includes its own two bytes.
fn length(file: &mut Reader<'_>) -> Result<u64, Stop> {
    u64::from(file.u16_be()?).checked_sub(2).ok_or(Refusal::Malformed.into())
}

fn segment<'a>(file: &mut Reader<'a>) -> Result<Reader<'a>, Stop> {
    let length = length(file)?;
    Ok(Reader::of_part(file.take(length)?))
}

fn frame_header(segment: &mut Reader<'_>) -> Result<Size, Stop> {
    let _precision = segment.u8()?;
    let height = segment.u16_be()?;
    let width = segment.u16_be()?;
    let components = segment.u8()?;
    if components == 0 || segment.remaining() != 3 * u64::from(components) {
        return Err(Refusal::Malformed.into());
    }
    Ok((width.into(), height.into()))
}
