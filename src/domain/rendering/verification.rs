//! Verifies the output of a child as untrusted input.
//!
//! A picture must be a baseline JPEG of the requested size, with only the data that decoding needs and a small
//! colour profile: no metadata, and no byte after its end.

use super::{RenderFailure, Rendered};
use crate::model::decoding::{DecodeOutput, DecodeRequest, EDGES, MAX_OUTPUT_BYTES, MAX_PICTURE_BYTES, Picture, Pictures, fit};

/// A fault of a child's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongOutput {
    /// The output is too long, ends early, or is not a message of the child.
    #[error("malformed output")]
    Message,
    /// The pictures do not have the requested sizes.
    #[error("pictures of the wrong size")]
    Sizes,
    /// A picture is not a plain JPEG.
    #[error("a picture that is not a plain JPEG")]
    Jpeg,
}

/// Maximum length of a segment with a colour profile, in bytes: some 4 KiB of profile after its name and numbers.
const MAX_PROFILE_SEGMENT: usize = (4 << 10) + 16;

/// Returns the result that the output contains, after verifying it.
pub(super) fn verify(output: Vec<u8>, request: DecodeRequest) -> Result<Result<Rendered, RenderFailure>, WrongOutput> {
    if output.len() > MAX_OUTPUT_BYTES {
        return Err(WrongOutput::Message);
    }
    let DecodeOutput { sandbox, reply } = DecodeOutput::parse(&output).ok_or(WrongOutput::Message)?;
    let Pictures { thumb_hash, pictures } = match reply.ok_or(WrongOutput::Message)? {
        Ok(made) => made,
        Err(undecodable) => return Ok(Err(undecodable.into())),
    };
    let mut sizes = EDGES.map(|edge| fit(request.width, request.height, edge)).to_vec();
    sizes.dedup();
    if !pictures.iter().map(|picture| (picture.width, picture.height)).eq(sizes) {
        return Err(WrongOutput::Sizes);
    }
    for (picture, max_bytes) in pictures.iter().zip(MAX_PICTURE_BYTES) {
        if picture.jpeg.len() > max_bytes || !is_plain_jpeg(picture) {
            return Err(WrongOutput::Jpeg);
        }
    }
    Ok(Ok(Rendered { thumb_hash, pictures, sandbox }))
}

/// Returns whether a JPEG is baseline, has the expected size, and contains only the data that decoding needs and a colour
/// profile.
fn is_plain_jpeg(Picture { width, height, jpeg }: &Picture) -> bool {
    let Some(mut rest) = jpeg.strip_prefix(b"\xFF\xD8") else { return false };
    let mut frames = 0;
    loop {
        let &[0xFF, marker, high, low, ..] = rest else { return false };
        let Some((segment, after)) = rest[2..].split_at_checked(usize::from(u16::from_be_bytes([high, low]))) else {
            return false;
        };
        let Some(content) = segment.get(2..) else { return false };
        match marker {
            // Quantization and Huffman tables.
            0xDB | 0xC4 => {}
            // The header of JFIF, which has 14 bytes without a thumbnail.
            0xE0 if content.starts_with(b"JFIF\0") && content.len() == 14 => {}
            // A colour profile in one segment.
            0xE2 if content.starts_with(b"ICC_PROFILE\0\x01\x01") && content.len() <= MAX_PROFILE_SEGMENT => {}
            // The header of a baseline frame.
            0xC0 if is_frame(content, *width, *height) => frames += 1,
            // The scan, which is the last segment.
            0xDA => return frames == 1 && is_last_scan(after),
            _ => return false,
        }
        rest = after;
    }
}

/// Returns whether a frame's header is of three components of eight bits, in this size.
fn is_frame(content: &[u8], width: u16, height: u16) -> bool {
    let ([h1, h2], [w1, w2]) = (height.to_be_bytes(), width.to_be_bytes());
    // Six bytes, and three for each component.
    content.starts_with(&[8, h1, h2, w1, w2, 3]) && content.len() == 15
}

/// Returns whether coded data has no marker but the end of the image, as its last two bytes.
fn is_last_scan(data: &[u8]) -> bool {
    let Some(coded) = data.strip_suffix(b"\xFF\xD9") else { return false };
    coded.last() != Some(&0xFF) && coded.windows(2).all(|pair| pair[0] != 0xFF || pair[1] == 0)
}
