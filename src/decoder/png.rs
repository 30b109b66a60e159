//! PNG: read row by row, except for interlaced images.

use std::io::Cursor;

use png::{ColorType, Decoder, DecodingError, Limits, Reader, Transformations};

use super::pixels::{Decoded, Profile, ProfileKind, RowReducer, buffer, check_pixels};
use crate::model::decoding::Undecodable;

/// Number of bytes, at most, that the decoder may allocate for a row, and for metadata.
const MAX_BYTES: usize = 64 << 20;

/// Decodes the image; of an animated one, its first picture.
pub fn decode(file: &[u8]) -> Result<Decoded, Undecodable> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: MAX_BYTES });
    // Palettes become colours, transparent colours alpha, and sixteen bits eight.
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    let mut reader = decoder.read_info().map_err(|error| failure(&error))?;
    let (width, height) = reader.info().size();
    check_pixels(width, height)?;
    let colour = reader.output_color_type().0;
    let kind =
        if matches!(colour, ColorType::Grayscale | ColorType::GrayscaleAlpha) { ProfileKind::Grey } else { ProfileKind::Rgb };
    let icc = reader.info().icc_profile.as_deref().map(<[u8]>::to_vec);
    let mut rows = RowReducer::new(width, height);
    if reader.info().interlaced {
        read_interlaced(&mut reader, colour.samples(), &mut rows)?;
    } else {
        read_rows(&mut reader, colour.samples(), &mut rows)?;
    }
    Ok(Decoded { pixels: rows.end(), width, height, profile: icc.map(|icc| Profile { icc, kind }) })
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

fn failure(error: &DecodingError) -> Undecodable {
    match error {
        DecodingError::LimitsExceeded => Undecodable::TooBig,
        _ => Undecodable::Corrupt,
    }
}
