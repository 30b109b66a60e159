//! Entry point for `tests/fuzz` to code that only large images reach. Compiled only with `cfg(fuzzing)`, which cargo-fuzz sets.

use super::jpeg;
use crate::model::decoding::Undecodable;

/// Decodes a sequential JPEG of at most `max_pixels` at a quarter of its size.
///
/// # Errors
/// [`Undecodable`] if the file is not such a JPEG.
pub fn decode_quarter(file: &[u8], max_pixels: u64) -> Result<(), Undecodable> {
    jpeg::decode_quarter(file, max_pixels).map(drop)
}
