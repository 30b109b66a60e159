//! WebP (RFC 9649): the RIFF header and the chunks up to the first picture.

use super::file::{File, Part, Stop};
use super::{Refusal, Size};

/// The flag of `VP8X` for an animation.
const ANIMATION: u8 = 0x02;

/// State read from the chunks so far.
#[derive(Debug, Default)]
pub(super) struct Webp {
    /// End of the RIFF container.
    end: Option<u64>,
    canvas: Option<Canvas>,
    has_animation: bool,
    /// End of the first frame of an animation, once the cursor is inside of it.
    frame: Option<u64>,
}

/// RFC 9649, 2.7: a byte of flags, three reserved, the canvas in 24 bits each less one.
#[derive(Debug, Clone, Copy)]
struct Canvas {
    size: Size,
    is_animated: bool,
}

impl Webp {
    /// Reads on to the displayed size: that of the only picture, or the canvas of an animation. The container may be longer
    /// than the file: browsers show the part that is there.
    pub(super) fn advance(&mut self, file: &mut File) -> Result<Size, Stop> {
        let container = match self.end {
            Some(end) => end,
            None => {
                // The length of what follows it, and "WEBP".
                let end = file.at() + 4 + u64::from(file.take(4)?.u32_le()?);
                file.take(4)?;
                file.mark();
                *self.end.insert(end)
            }
        };
        loop {
            let end = self.frame.unwrap_or(container);
            if file.at().saturating_add(8) > end {
                return Err(Refusal::NoPicture.into());
            }
            let mut chunk = file.take(8)?;
            let (kind, length) = (chunk.array::<4>()?, chunk.u32_le()?);
            let content = file.at();
            if content + u64::from(length) > end {
                return Err(Refusal::Malformed.into());
            }
            match (&kind, self.canvas) {
                (b"VP8 ", _) => return self.shown(lossy(file.take(10)?, length)?),
                (b"VP8L", _) => return self.shown(lossless(file.take(5)?)?),
                (b"VP8X", None) => self.canvas = Some(canvas(file.take(10)?)?),
                (_, None) => return Err(Refusal::Malformed.into()),
                (b"ANIM", _) => self.has_animation = true,
                (b"ANMF", Some(canvas)) if canvas.is_animated && self.frame.is_none() => {
                    if !self.has_animation {
                        return Err(Refusal::Malformed.into());
                    }
                    frame(file.take(16)?, canvas.size)?;
                    self.frame = Some(content + u64::from(length));
                    file.mark();
                    continue;
                }
                _ => {}
            }
            file.skip_to(content + u64::from(length) + u64::from(length & 1));
            file.mark();
        }
    }

    /// Returns the canvas, once it has been read.
    pub(super) fn size_so_far(&self) -> Option<Size> {
        self.canvas.map(|canvas| canvas.size)
    }

    /// Returns the displayed size of a file whose first picture has this size. A still fills its canvas (2.7); in an animation
    /// decoders read a picture that does not fill its frame too.
    fn shown(&self, picture: Size) -> Result<Size, Stop> {
        match (self.canvas, self.frame) {
            (None, _) => Ok(picture),
            (Some(canvas), None) if !canvas.is_animated && canvas.size == picture => Ok(picture),
            (Some(canvas), Some(_)) => Ok(canvas.size),
            // The pictures of an animation are in its frames.
            (Some(_), None) => Err(Refusal::Malformed.into()),
        }
    }
}

/// A key frame (RFC 6386, 9.1): three bytes of tag, the start code, then 14 bits each; the two above are scaling
/// hints that decoders ignore. The tag: key frame, profile, shown, the first partition's length.
fn lossy(mut picture: Part<'_>, length: u32) -> Result<Size, Stop> {
    let tag = picture.u24_le()?;
    let (is_inter, profile, is_shown, partition) = (tag & 1 == 1, tag >> 1 & 7, tag >> 4 & 1 == 1, tag >> 5);
    if is_inter || profile > 3 || !is_shown || partition >= length || picture.array()? != [0x9D, 0x01, 0x2A] {
        return Err(Refusal::Malformed.into());
    }
    let (width, height) = (picture.u16_le()?, picture.u16_le()?);
    Ok(Size { width: (width & 0x3FFF).into(), height: (height & 0x3FFF).into() })
}

/// RFC 9649, 3.4: the signature, 14 bits each less one, one bit of alpha, three of version.
fn lossless(mut picture: Part<'_>) -> Result<Size, Stop> {
    let (signature, bits) = (picture.u8()?, picture.u32_le()?);
    if signature != 0x2F || bits >> 29 != 0 {
        return Err(Refusal::Malformed.into());
    }
    Ok(Size { width: (bits & 0x3FFF) + 1, height: (bits >> 14 & 0x3FFF) + 1 })
}

/// Reads the chunk `VP8X`.
fn canvas(mut content: Part<'_>) -> Result<Canvas, Stop> {
    let [flags, ..] = content.array::<4>()?;
    let size = Size { width: content.u24_le()? + 1, height: content.u24_le()? + 1 };
    Ok(Canvas { size, is_animated: flags & ANIMATION != 0 })
}

/// RFC 9649, 2.7.1.1: half the place and the size less one, in 24 bits each. A frame lies within the canvas.
fn frame(mut content: Part<'_>, canvas: Size) -> Result<(), Stop> {
    let (left, top) = (2 * content.u24_le()?, 2 * content.u24_le()?);
    let (width, height) = (content.u24_le()? + 1, content.u24_le()? + 1);
    let is_inside = left + width <= canvas.width && top + height <= canvas.height;
    if is_inside { Ok(()) } else { Err(Refusal::Malformed.into()) }
}
