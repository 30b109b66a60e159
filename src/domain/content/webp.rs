//! WebP (RFC 9649): the RIFF header and the chunks up to the first picture.

use super::file::{File, Part, Stop};
use super::{ContentError, Size};

/// The flag of `VP8X` for an animation.
const ANIMATION: u8 = 0x02;

/// All flags of `VP8X`; libwebp refuses a file with others.
const FLAGS: u8 = 0x3E;

/// Length of `VP8X`, in bytes.
const CANVAS_BYTES: u32 = 10;

/// Length of `ANIM`, and of the header of a frame (`ANMF`), in bytes, at least.
const ANIMATION_BYTES: u32 = 6;
const FRAME_BYTES: u32 = 16;

/// Largest length in a RIFF header: the container with its header and a padding byte has at most 2^32 - 1 bytes.
const MAX_RIFF_LENGTH: u32 = u32::MAX - 9;

/// State read from the chunks so far. Where the standard and libwebp differ, libwebp counts: every browser reads with it.
#[derive(Debug, Default)]
pub(super) struct Webp {
    /// End of the RIFF container.
    end: Option<u64>,
    canvas: Option<Canvas>,
    /// Whether the parameters of an animation (`ANIM`) were read.
    has_animation: bool,
    /// The frame of an animation that contains the cursor.
    frame: Option<Frame>,
    /// Whether the alpha of a picture (`ALPH`) was read; the picture follows it.
    has_alpha: bool,
}

/// A frame of an animation (`ANMF`).
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Offset of the first byte behind the frame.
    end: u64,
    /// Whether the frame lies within the canvas.
    is_inside: bool,
}

/// Content of the chunk `VP8X` (RFC 9649, 2.7).
#[derive(Debug, Clone, Copy)]
struct Canvas {
    size: Size,
    is_animated: bool,
}

impl Webp {
    /// Continues reading up to the displayed size: that of the only picture, or the canvas of an animation. The container may be
    /// longer than the file: browsers show the part that exists.
    pub(super) fn advance(&mut self, file: &mut File) -> Result<Size, Stop> {
        let container = match self.end {
            Some(end) => end,
            None => {
                // The length of the rest of the container, then "WEBP".
                let start = file.at() + 4;
                let length = file.take(4)?.u32_le()?;
                if length > MAX_RIFF_LENGTH {
                    return Err(ContentError::Malformed.into());
                }
                let end = start + u64::from(length);
                file.take(4)?;
                file.mark();
                *self.end.insert(end)
            }
        };
        loop {
            let end = self.frame.map_or(container, |frame| frame.end);
            if file.at().saturating_add(8) > end {
                // Decoders pass over a frame without a picture.
                if self.frame.is_none() || self.has_alpha {
                    return Err(ContentError::NoPicture.into());
                }
                self.frame = None;
                file.skip_to(end + (end & 1));
                file.mark();
                continue;
            }
            let mut chunk = file.take(8)?;
            let (kind, length) = (chunk.array::<4>()?, chunk.u32_le()?);
            let content = file.at();
            if content + u64::from(length) > end {
                return Err(ContentError::Malformed.into());
            }
            match (&kind, self.canvas) {
                (b"VP8 ", _) => return self.displayed_size(lossy(file.take(10)?, length)?),
                // A lossless picture has its own alpha.
                (b"VP8L", _) if !self.has_alpha => return self.displayed_size(lossless(file.take(5)?)?),
                (b"VP8X", None) if length == CANVAS_BYTES => self.canvas = Some(canvas(file.take(10)?)?),
                (b"ALPH", Some(_)) if !self.has_alpha => self.has_alpha = true,
                // Nothing else stands before a picture behind its alpha, or in a frame.
                _ if self.canvas.is_none() || self.has_alpha || self.frame.is_some() => {
                    return Err(ContentError::Malformed.into());
                }
                (b"VP8X", _) => return Err(ContentError::Malformed.into()),
                (b"ANIM", _) if length < ANIMATION_BYTES => return Err(ContentError::Malformed.into()),
                (b"ANIM", _) => self.has_animation = true,
                (b"ANMF", _) if !self.has_animation => return Err(ContentError::Malformed.into()),
                (b"ANMF", Some(canvas)) if canvas.is_animated && length >= FRAME_BYTES => {
                    let is_inside = is_inside(file.take(FRAME_BYTES.into())?, canvas.size)?;
                    self.frame = Some(Frame { end: content + u64::from(length), is_inside });
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

    /// Returns the displayed size of a file whose first picture has this size. A still picture fills its canvas (2.7). In an
    /// animation, decoders also read a picture that does not fill its frame, which lies within the canvas.
    fn displayed_size(&self, picture: Size) -> Result<Size, Stop> {
        match (self.canvas, self.frame) {
            (None, _) => Ok(picture),
            (Some(canvas), Some(frame)) if frame.is_inside => Ok(canvas.size),
            // The pictures of an animation are in its frames.
            (Some(canvas), None) if !canvas.is_animated && !self.has_animation && canvas.size == picture => Ok(picture),
            (Some(_), _) => Err(ContentError::Malformed.into()),
        }
    }
}

/// Reads the size of a lossy picture from its key frame (RFC 6386, 9.1): a tag of three bytes, the start code, then width and
/// height in 14 bits each. The two bits above each are scaling hints that decoders ignore. The tag has the kind of frame, the
/// profile, whether the frame is shown, and the length of the first partition.
fn lossy(mut picture: Part<'_>, length: u32) -> Result<Size, Stop> {
    let tag = picture.u24_le()?;
    let (is_inter, profile, is_shown, partition) = (tag & 1 == 1, tag >> 1 & 7, tag >> 4 & 1 == 1, tag >> 5);
    if is_inter || profile > 3 || !is_shown || partition >= length || picture.array()? != [0x9D, 0x01, 0x2A] {
        return Err(ContentError::Malformed.into());
    }
    let (width, height) = (picture.u16_le()?, picture.u16_le()?);
    Ok(Size { width: (width & 0x3FFF).into(), height: (height & 0x3FFF).into() })
}

/// Reads the size of a lossless picture (RFC 9649, 3.4): the signature, width and height in 14 bits each less one, one bit of
/// alpha, three of the version.
fn lossless(mut picture: Part<'_>) -> Result<Size, Stop> {
    let (signature, bits) = (picture.u8()?, picture.u32_le()?);
    if signature != 0x2F || bits >> 29 != 0 {
        return Err(ContentError::Malformed.into());
    }
    Ok(Size { width: (bits & 0x3FFF) + 1, height: (bits >> 14 & 0x3FFF) + 1 })
}

/// Reads the chunk `VP8X` (RFC 9649, 2.7): a byte of flags, three reserved ones, then width and height in 24 bits each less one.
fn canvas(mut content: Part<'_>) -> Result<Canvas, Stop> {
    let [flags, ..] = content.array::<4>()?;
    let size = Size { width: content.u24_le()? + 1, height: content.u24_le()? + 1 };
    if flags & !FLAGS != 0 {
        return Err(ContentError::Malformed.into());
    }
    Ok(Canvas { size, is_animated: flags & ANIMATION != 0 })
}

/// Returns whether a frame lies within the canvas. Its header has half the offsets, then the sides less one, in 24 bits each (RFC
/// 9649, 2.7.1.1).
fn is_inside(mut content: Part<'_>, canvas: Size) -> Result<bool, Stop> {
    let (left, top) = (2 * content.u24_le()?, 2 * content.u24_le()?);
    let (width, height) = (content.u24_le()? + 1, content.u24_le()? + 1);
    Ok(left + width <= canvas.width && top + height <= canvas.height)
}
