//! Makes the pictures and the ThumbHash of a decoded image. Pictures are JPEGs, reduced and turned, without metadata except the
//! colour profile.

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use super::{colour, pixels::Decoded, thumb_hash};
use crate::{
    decoder::pixels::Pixels,
    model::{
        ThumbHash,
        decoding::{DecodeReply, DecodeRequest, EDGES, MAX_PICTURE_BYTES, Picture, Pictures, Undecodable, fit},
    },
};

/// Qualities of JPEG, one after the other, until the picture is small enough.
const QUALITIES: [u8; 6] = [80, 70, 60, 45, 30, 15];

/// JPEG quality of drawings and text, whose edges have coloured fringes at the quality of photographs. From 90 on, the encoder
/// keeps the colour of each pixel (no chroma subsampling).
const GRAPHIC_QUALITY: u8 = 92;

/// JPEG quality of a tiny picture, which costs few bytes at any quality.
const TINY_QUALITY: u8 = 97;

/// Maximum number of pixels of a tiny picture.
const TINY_PIXELS: u32 = 100_000;

/// Maximum size in bytes of a picture in one of these two qualities, by its index in [`EDGES`]. One that is larger is encoded
/// again, as a photograph.
const MAX_GRAPHIC_BYTES: [usize; 2] = [48 << 10, 192 << 10];

/// Longer side of the image that is hashed: the most that a ThumbHash is computed from.
const HASHED_EDGE: u16 = 100;

/// Makes the pictures and the ThumbHash.
pub fn make(decoded: Decoded, request: &DecodeRequest) -> DecodeReply {
    let stored = |side: u32| u16::try_from(side).map_err(|_| Undecodable::TooBig);
    let (width, height) = (stored(decoded.width)?, stored(decoded.height)?);
    let displayed = if request.orientation.swaps_sides() { (height, width) } else { (width, height) };
    // A different size: the decoder reads another image than the one whose header was verified.
    if displayed != (request.width, request.height) {
        return Err(Undecodable::Corrupt);
    }
    let [small, large] = EDGES;
    let (reduced_width, reduced_height) = fit(width, height, large);
    let pixels = decoded.pixels.resized(reduced_width, reduced_height)?;
    let coloured = colour::apply_profile(pixels.oriented(request.orientation), decoded.profile);
    let (pixels, profile) = (coloured.pixels, coloured.profile);

    let (small_width, small_height) = fit(request.width, request.height, small);
    let larger = ((pixels.width, pixels.height) != (u32::from(small_width), u32::from(small_height))).then(|| pixels.clone());
    let pixels = pixels.resized(small_width, small_height)?;
    let graphic = encode_graphic(&pixels, profile.as_deref(), MAX_GRAPHIC_BYTES[0])?;
    let is_graphic = graphic.is_some();
    let mut pictures = vec![graphic.map_or_else(|| encode(&pixels, profile.as_deref(), MAX_PICTURE_BYTES[0]), Ok)?];
    if let Some(larger) = larger {
        // If the small picture is a photograph, so is the large one: it is encoded once.
        let graphic = if is_graphic { encode_graphic(&larger, profile.as_deref(), MAX_GRAPHIC_BYTES[1])? } else { None };
        pictures.push(graphic.map_or_else(|| encode(&larger, profile.as_deref(), MAX_PICTURE_BYTES[1]), Ok)?);
    }

    let (width, height) = fit(small_width, small_height, HASHED_EDGE);
    let mut hashed = pixels.resized(width, height)?;
    if let Some(icc) = profile {
        hashed = colour::to_srgb(hashed, &icc);
    }
    let hash = thumb_hash(hashed.width, hashed.height, &hashed.rgb);
    let thumb_hash = ThumbHash::from_bytes(hash).map_err(|_| Undecodable::Corrupt)?;
    Ok(Pictures { thumb_hash, pictures })
}

/// Encodes a picture of at most `max_bytes`.
fn encode(pixels: &Pixels, profile: Option<&[u8]>, max_bytes: usize) -> Result<Picture, Undecodable> {
    for quality in QUALITIES {
        let picture = encode_at(quality, pixels, profile)?;
        if picture.jpeg.len() <= max_bytes {
            return Ok(picture);
        }
    }
    Err(Undecodable::TooBig)
}

/// Encodes a picture as a tiny one or a drawing; `None` if it then has more than `max_bytes`.
fn encode_graphic(pixels: &Pixels, profile: Option<&[u8]>, max_bytes: usize) -> Result<Option<Picture>, Undecodable> {
    let quality = if pixels.width * pixels.height <= TINY_PIXELS { TINY_QUALITY } else { GRAPHIC_QUALITY };
    let picture = encode_at(quality, pixels, profile)?;
    Ok((picture.jpeg.len() <= max_bytes).then_some(picture))
}

/// Encodes a picture. From a quality of 90 on, no chroma is left out.
fn encode_at(quality: u8, pixels: &Pixels, profile: Option<&[u8]>) -> Result<Picture, Undecodable> {
    let side = |side: u32| u16::try_from(side).map_err(|_| Undecodable::TooBig);
    let (width, height) = (side(pixels.width)?, side(pixels.height)?);
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, quality);
    encoder.set_sampling_factor(if quality < 90 { SamplingFactor::F_2_2 } else { SamplingFactor::F_1_1 });
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    if let Some(icc) = profile {
        encoder.add_icc_profile(icc).map_err(|_| Undecodable::Corrupt)?;
    }
    encoder.encode(&pixels.rgb, width, height, ColorType::Rgb).map_err(|_| Undecodable::Corrupt)?;
    Ok(Picture { width, height, jpeg })
}
