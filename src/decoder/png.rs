//! PNG: read row by row, except for interlaced images and animations whose first frame is not the default image.

mod colours;

use std::io::Cursor;

use png::{ColorType, Decoder, DecodingError, Limits, Reader, Transformations};

use super::pixels::{Decoded, Frame, RowReducer, buffer, check_pixels};
use crate::model::decoding::Undecodable;

/// Number of bytes, at most, that the decoder may allocate for a row, and for metadata.
const MAX_BYTES: usize = 64 << 20;

/// Decodes the image; of an animated one, its first frame.
pub fn decode(file: &[u8]) -> Result<Decoded, Undecodable> {
    let mut reader = open(file)?;
    let (width, height) = reader.info().size();
    check_pixels(width, height)?;
    let colour = reader.output_color_type().0;
    let profile = colours::profile_of(reader.info(), matches!(colour, ColorType::Grayscale | ColorType::GrayscaleAlpha));
    // Browsers show the animation, whose frames do not include the default image.
    let has_other_frame = reader.info().animation_control.is_some() && reader.info().frame_control.is_none();
    let mut rows = RowReducer::new(width, height);
    let has_read = has_other_frame && read_first_frame(file, &mut rows).is_some();
    match reader.info().interlaced {
        _ if has_read => {}
        true => read_interlaced(&mut reader, colour.samples(), &mut rows)?,
        false => read_rows(&mut reader, colour.samples(), &mut rows)?,
    }
    Ok(Decoded { pixels: rows.end(), width, height, profile })
}

/// Reads the header, and sets the transformations and limits.
fn open(file: &[u8]) -> Result<Reader<Cursor<&[u8]>>, Undecodable> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: MAX_BYTES });
    // Palettes become colours, transparent colours alpha, and sixteen bits eight.
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.read_info().map_err(|error| failure(&error))
}

/// Reads the first frame behind the default image into `rows`. Returns `None` if the frame is broken; `rows` is unchanged then.
fn read_first_frame(file: &[u8], rows: &mut RowReducer) -> Option<()> {
    let mut reader = open(file).ok()?;
    let frame = *reader.next_frame_info().ok()?;
    let channels = reader.output_color_type().0.samples();
    let mut samples = buffer(frame.width, frame.height, channels as u64, 0).ok()?;
    reader.next_frame(&mut samples).ok()?;
    rows.push_frame(&Frame { samples: &samples, channels, left: frame.x_offset, top: frame.y_offset, width: frame.width });
    Some(())
}

/// Reads the rows up to the first fault: browsers show what is there.
fn read_rows(reader: &mut Reader<Cursor<&[u8]>>, channels: usize, rows: &mut RowReducer) -> Result<(), Undecodable> {
    let mut count = 0_u32;
    loop {
        match reader.next_row() {
            Ok(Some(row)) => rows.push(row.data(), channels),
            Ok(None) => return Ok(()),
            Err(error) if count == 0 => return Err(failure(&error)),
            Err(_) => return Ok(()),
        }
        count += 1;
    }
}

/// Reads all passes, up to the first fault.
fn read_interlaced(reader: &mut Reader<Cursor<&[u8]>>, channels: usize, rows: &mut RowReducer) -> Result<(), Undecodable> {
    let (width, height) = reader.info().size();
    // White, which shows afterwards whether any pixel was read.
    let mut pixels = buffer(width, height, channels as u64, u8::MAX)?;
    match reader.next_frame(&mut pixels) {
        Err(error) if pixels.iter().all(|byte| *byte == u8::MAX) => return Err(failure(&error)),
        Ok(_) | Err(_) => {}
    }
    for row in pixels.chunks_exact(width as usize * channels) {
        rows.push(row, channels);
    }
    Ok(())
}

/// Converts an error of the decoder.
fn failure(error: &DecodingError) -> Undecodable {
    match error {
        DecodingError::LimitsExceeded => Undecodable::TooBig,
        _ => Undecodable::Corrupt,
    }
}
