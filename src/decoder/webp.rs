//! WebP: lossy, lossless, with alpha; of an animation, the first frame.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::pixels::{Decoded, Profile, ProfileKind, RowReducer, buffer, check_bytes, check_pixels};
use crate::model::decoding::Undecodable;

/// Decodes the image.
pub fn decode(file: &[u8]) -> Result<Decoded, Undecodable> {
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(|error| failure(&error))?;
    decoder.set_memory_limit(usize::try_from(super::MAX_DECODED_BYTES).unwrap_or(usize::MAX));
    let (width, height) = decoder.dimensions();
    check_pixels(width, height)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    check_bytes(width, height, bytes_held(&mut decoder))?;
    let icc = decoder.icc_profile().unwrap_or_default();
    let mut pixels = buffer(width, height, channels as u64, 0)?;
    decoder.read_image(&mut pixels).map_err(|error| failure(&error))?;
    let mut rows = RowReducer::new(width, height);
    for row in pixels.chunks_exact(width as usize * channels) {
        rows.push(row, channels);
    }
    drop(pixels);
    Ok(Decoded { pixels: rows.end(), width, height, profile: icc.map(|icc| Profile::Icc { icc, kind: ProfileKind::Rgb }) })
}

/// Returns how many bytes for each pixel are held at once, by the decoder and here.
fn bytes_held(decoder: &mut WebPDecoder<Cursor<&[u8]>>) -> u64 {
    match (decoder.is_animated(), decoder.is_lossy(), decoder.has_alpha()) {
        // The canvas, a frame and the result.
        (true, ..) => 12,
        // Luma and chroma, alpha in its own image of four channels, and the result.
        (_, true, true) => 11,
        (_, true, false) => 5,
        (_, false, true) => 4,
        // Four channels, and the result.
        (_, false, false) => 7,
    }
}

fn failure(error: &DecodingError) -> Undecodable {
    match error {
        DecodingError::MemoryLimitExceeded | DecodingError::ImageTooLarge => Undecodable::TooBig,
        DecodingError::UnsupportedFeature(_) => Undecodable::Unsupported,
        _ => Undecodable::Corrupt,
    }
}
