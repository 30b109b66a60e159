//! GIF: the first frame, on its canvas.

use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::pixels::{Decoded, Frame, RowReducer, buffer, check_pixels};
use crate::model::decoding::Undecodable;

/// Decodes the image. Its canvas is the logical screen, widened to the first frame, as browsers do.
pub fn decode(file: &[u8]) -> Result<Decoded, Undecodable> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    options.set_memory_limit(NonZeroU64::new(super::MAX_DECODED_BYTES).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    let mut decoder = options.read_info(file).map_err(|error| failure(&error))?;
    let screen = (u32::from(decoder.width()), u32::from(decoder.height()));
    let frame = decoder.next_frame_info().map_err(|error| failure(&error))?.ok_or(Undecodable::Corrupt)?;
    let [left, top, frame_width, frame_height] = [frame.left, frame.top, frame.width, frame.height].map(u32::from);
    let (width, height) = (screen.0.max(left + frame_width), screen.1.max(top + frame_height));
    check_pixels(width, height)?;
    check_pixels(frame_width, frame_height)?;
    let mut pixels = buffer(frame_width, frame_height, 4, 0)?;
    match decoder.read_into_buffer(&mut pixels) {
        // A frame that is cut off is shown as far as it goes, unless no pixel of it was read.
        Err(error) if pixels.iter().all(|byte| *byte == 0) => return Err(failure(&error)),
        Ok(()) | Err(_) => {}
    }
    let mut rows = RowReducer::new(width, height);
    rows.push_frame(&Frame { samples: &pixels, channels: 4, left, top, width: frame_width });
    Ok(Decoded { pixels: rows.end(), width, height, profile: None })
}

/// Converts an error of the decoder.
fn failure(error: &DecodingError) -> Undecodable {
    match error {
        DecodingError::MemoryLimit | DecodingError::OutOfMemory => Undecodable::TooBig,
        _ => Undecodable::Corrupt,
    }
}
