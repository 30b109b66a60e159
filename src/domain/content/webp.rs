//! WebP (RFC 9649): the RIFF header and the first chunk, which holds the size in each of the three layouts.

use super::reader::{Reader, Stop};
use super::{Refusal, Size};

/// The displayed size: the canvas.
pub(super) fn size(file: &mut Reader<'_>) -> Result<Size, Stop> {
    file.skip(4);
    if u64::from(file.u32_le()?) > file.remaining() {
        return Err(Refusal::Truncated.into());
    }
    file.skip(4);
    let layout = file.tag()?;
    file.skip(4);
    match &layout {
        b"VP8 " => lossy(file),
        b"VP8L" => lossless(file),
        b"VP8X" => extended(file),
        _ => Err(Refusal::Malformed.into()),
    }
}

/// A key frame (RFC 6386, 9.1): three bytes of tag, the start code, then 14 bits each; the two above are scaling
/// hints that decoders ignore.
fn lossy(file: &mut Reader<'_>) -> Result<Size, Stop> {
    let tag = file.take(3)?;
    let key_frame = tag.first().is_some_and(|byte| byte & 1 == 0);
    if !key_frame || file.take(3)? != [0x9D, 0x01, 0x2A] {
        return Err(Refusal::Malformed.into());
    }
    let (width, height) = (file.u16_le()?, file.u16_le()?);
    Ok(((width & 0x3FFF).into(), (height & 0x3FFF).into()))
}

/// RFC 9649, 3.4: the signature, 14 bits each less one, one bit of alpha, three of version.
fn lossless(file: &mut Reader<'_>) -> Result<Size, Stop> {
    if file.u8()? != 0x2F {
        return Err(Refusal::Malformed.into());
    }
    let bits = file.u32_le()?;
    if bits >> 29 != 0 {
        return Err(Refusal::Malformed.into());
    }
    Ok(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
}

/// RFC 9649, 2.7: a byte of flags, three reserved, the canvas in 24 bits each less one.
fn extended(file: &mut Reader<'_>) -> Result<Size, Stop> {
    file.skip(4);
    let mut u24 = || -> Result<u32, Stop> { Ok(u32::from(file.u16_le()?) | u32::from(file.u8()?) << 16) };
    Ok((u24()? + 1, u24()? + 1))
}
