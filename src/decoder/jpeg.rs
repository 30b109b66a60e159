//! JPEG. Sequential images of more than [`FULL_PIXELS`] are decoded at a quarter of their size by a decoder of our own ([`quarter`]),
//! because no available library does that on one thread.

mod huffman;
mod quarter;

use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use self::quarter::Quarter;
use super::pixels::{Decoded, Pixels, Profile, ProfileKind};
use crate::model::decoding::Undecodable;

/// Number of pixels, at most, of a sequential image that is decoded at its full size. A larger image has a side of more than 6400
/// pixels, so that a quarter of it is still longer than the largest picture (1600 pixels).
const FULL_PIXELS: u64 = 41_000_000;

/// Number of pixels, at most, of a progressive image: all of its coefficients are in memory until the last scan.
const PROGRESSIVE_PIXELS: u64 = 50_000_000;

/// Number of pixels, at most, of a sequential image; above `FULL_PIXELS` it is decoded at a quarter of its size.
const SEQUENTIAL_PIXELS: u64 = 200_000_000;

/// The fields of a frame's header (SOF segment) that choose the decoder.
struct Frame {
    is_progressive: bool,
    width: u32,
    height: u32,
    components: u8,
}

/// Decodes the image.
pub fn decode(file: &[u8]) -> Result<Decoded, Undecodable> {
    let frame = Frame::find(file)?;
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    match (frame.is_progressive, pixels) {
        (_, 0) => Err(Undecodable::Corrupt),
        (true, ..=PROGRESSIVE_PIXELS) | (false, ..=FULL_PIXELS) => decode_whole(file, &frame),
        (false, ..=SEQUENTIAL_PIXELS) => decode_reduced(file, &frame),
        _ => Err(Undecodable::TooBig),
    }
}

impl Frame {
    /// Finds the frame's header. Returns an error for kinds of frames that the decoders do not support.
    fn find(file: &[u8]) -> Result<Self, Undecodable> {
        let mut rest = file.get(2..).ok_or(Undecodable::Corrupt)?;
        loop {
            // Stray bytes and fill bytes before a marker are passed over, as decoders do.
            let at = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF));
            let (marker, after) =
                rest.get(at.ok_or(Undecodable::Corrupt)? + 1..).and_then(<[u8]>::split_first).ok_or(Undecodable::Corrupt)?;
            let length = after.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
            let segment = || after.get(2..).and_then(|after| after.first_chunk()).ok_or(Undecodable::Corrupt);
            match marker {
                0xC0..=0xC2 => {
                    let &[precision, height_high, height_low, width_high, width_low, components] = segment()?;
                    let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                    if precision != 8 {
                        return Err(Undecodable::Unsupported);
                    }
                    return Ok(Self {
                        is_progressive: *marker == 0xC2,
                        width: side(width_high, width_low),
                        height: side(height_high, height_low),
                        components,
                    });
                }
                // Lossless, hierarchical and arithmetic frames.
                0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => return Err(Undecodable::Unsupported),
                // The end of the image, or a scan, before any frame.
                0xD9 | 0xDA => return Err(Undecodable::Corrupt),
                // Markers without a segment.
                0x01 | 0xD0..=0xD8 => rest = after,
                _ => rest = after.get(length.max(2)..).ok_or(Undecodable::Corrupt)?,
            }
        }
    }

    /// Returns the profile, unless the file stores CMYK: the decoders convert its pixels to RGB, which the profile is not for.
    fn profile(&self, icc: Option<Vec<u8>>) -> Option<Profile> {
        let kind = match self.components {
            1 => ProfileKind::Grey,
            3 => ProfileKind::Rgb,
            _ => return None,
        };
        icc.map(|icc| Profile::Icc { icc, kind })
    }
}

fn decode_whole(file: &[u8], frame: &Frame) -> Result<Decoded, Undecodable> {
    let side = usize::from(u16::MAX);
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(side)
        .set_max_height(side)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    let rgb = decoder.decode().map_err(|error| match error {
        DecodeErrors::Unsupported(_) => Undecodable::Unsupported,
        DecodeErrors::LargeDimensions(_) => Undecodable::TooBig,
        _ => Undecodable::Corrupt,
    })?;
    let (width, height) = decoder.dimensions().ok_or(Undecodable::Corrupt)?;
    let (width, height) = (side_of(width)?, side_of(height)?);
    if rgb.len() as u64 != u64::from(width) * u64::from(height) * 3 {
        return Err(Undecodable::Corrupt);
    }
    let profile = frame.profile(decoder.icc_profile());
    Ok(Decoded { pixels: Pixels { width, height, rgb }, width, height, profile })
}

/// Decodes a small image as large ones are decoded.
#[cfg(fuzzing)]
pub fn decode_quarter(file: &[u8], max_pixels: u64) -> Result<Decoded, Undecodable> {
    let frame = Frame::find(file)?;
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    if frame.is_progressive || !(1..=max_pixels).contains(&pixels) {
        return Err(Undecodable::Unsupported);
    }
    decode_reduced(file, &frame)
}

fn decode_reduced(file: &[u8], frame: &Frame) -> Result<Decoded, Undecodable> {
    let Quarter { pixels, icc } = quarter::decode(file, frame)?;
    Ok(Decoded { pixels, width: frame.width, height: frame.height, profile: frame.profile(icc) })
}

fn side_of(side: usize) -> Result<u32, Undecodable> {
    u32::try_from(side).map_err(|_| Undecodable::TooBig)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::{Frame, decode_reduced, decode_whole};
    use crate::decoder::pixels::{Pixels, Profile};

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)).unwrap()
    }

    /// Returns the mean difference between the values of a reduced image and the means of 4 by 4 pixels of the whole one.
    fn mean_difference(reduced: &Pixels, whole: &Pixels) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        // Pixels that fill up the last blocks are not compared.
        for y in 0..whole.height / 4 {
            for x in 0..whole.width / 4 {
                for channel in 0..3 {
                    let part = |dx, dy| whole.rgb[(((y * 4 + dy) * whole.width + x * 4 + dx) * 3 + channel) as usize];
                    let parts = (0..16).map(|at| f64::from(part(at % 4, at / 4))).sum::<f64>();
                    sum += (parts / 16.0 - f64::from(reduced.rgb[((y * reduced.width + x) * 3 + channel) as usize])).abs();
                    count += 1.0;
                }
            }
        }
        sum / count
    }

    #[test]
    fn a_quarter_has_the_colours_of_the_whole() {
        let files =
            ["fixtures/plain.jpg", "fixtures/grey.jpg", "decoder/fixtures/orientation-1.jpg", "decoder/fixtures/cmyk.jpg"];
        for name in files {
            let file = fixture(name);
            let frame = Frame::find(&file).unwrap();
            let (reduced, whole) = (decode_reduced(&file, &frame).unwrap(), decode_whole(&file, &frame).unwrap());
            let expected = (whole.width.div_ceil(4), whole.height.div_ceil(4));
            assert_eq!((reduced.pixels.width, reduced.pixels.height), expected, "{name}");
            assert_eq!((reduced.width, reduced.height), (whole.width, whole.height), "{name}");
            let difference = mean_difference(&reduced.pixels, &whole.pixels);
            // Of 255.
            assert!(difference < 3.0, "{name}: {difference}");
        }
    }

    #[test]
    fn profiles_of_a_quarter_are_those_of_the_whole() {
        let file = fixture("decoder/fixtures/p3.jpg");
        let frame = Frame::find(&file).unwrap();
        let icc = |decoded: super::Decoded| match decoded.profile {
            Some(Profile::Icc { icc, .. }) => icc,
            other => panic!("{other:?}"),
        };
        assert_eq!(icc(decode_reduced(&file, &frame).unwrap()), icc(decode_whole(&file, &frame).unwrap()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn decoding_any_bytes_does_not_panic(
            name in prop_oneof![Just("fixtures/plain.jpg"), Just("decoder/fixtures/cmyk.jpg"), Just("fixtures/grey.jpg")],
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
            end in any::<proptest::sample::Index>(),
        ) {
            let mut file = fixture(name);
            for (at, byte) in changes {
                let at = at.index(file.len());
                file[at] = byte;
            }
            for file in [&file[..], &file[..end.index(file.len())]] {
                if let Ok(frame) = Frame::find(file) && u64::from(frame.width) * u64::from(frame.height) < 4_000_000 {
                    let _ = decode_reduced(file, &frame);
                }
            }
        }
    }
}
