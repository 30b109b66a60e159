//! HEIF and AVIF (ISO/IEC 14496-12, 23008-12, AV1 Image File Format): brands, then the primary item's properties.

use super::reader::{Reader, Stop};
use super::{Format, Refusal, Size};

/// The format by its brands and the primary item's displayed size.
pub(super) fn format_and_size(file: &mut Reader<'_>) -> Result<(Format, Size), Stop> {
    let format = brands(next_box(file)?.content(file)?)?;
    loop {
        let next = next_box(file)?;
        if &next.kind == b"meta" {
            return Ok((format, displayed(next.content(file)?, format)?));
        }
        if next.length >= file.remaining() {
            // Items live in `meta`: a file that ends without one is a video, or cut short.
            let whole = next.length == file.remaining();
            return Err(if whole { Refusal::Malformed } else { Refusal::Truncated }.into());
        }
        file.skip(next.length);
    }
}

/// A box whose header has been read.
struct BoxHeader {
    kind: [u8; 4],
    /// Of the content, in bytes.
    length: u64,
}

impl BoxHeader {
    fn content<'a>(&self, within: &mut Reader<'a>) -> Result<Reader<'a>, Stop> {
        Ok(Reader::of_part(within.take(self.length)?))
    }
}

fn next_box(within: &mut Reader<'_>) -> Result<BoxHeader, Stop> {
    let short = within.u32_be()?;
    let kind = within.tag()?;
    let length = match short {
        // To the end of the file.
        0 => Some(within.remaining()),
        1 => within.u64_be()?.checked_sub(16),
        _ => u64::from(short).checked_sub(8),
    };
    Ok(BoxHeader { kind, length: length.ok_or(Refusal::Malformed)? })
}

/// The major brand decides; `mif1` and its like say only "an item of some kind", so there the compatible ones do.
fn brands(mut ftyp: Reader<'_>) -> Result<Format, Stop> {
    let major = ftyp.tag()?;
    ftyp.skip(4);
    let (compatible, _) = ftyp.rest().as_chunks::<4>();
    let avif = |brand: &[u8; 4]| matches!(brand, b"avif" | b"avis");
    let hevc = |brand: &[u8; 4]| matches!(brand, b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs");
    let any = |brand: &[u8; 4]| matches!(brand, b"mif1" | b"mif2" | b"msf1");
    if avif(&major) {
        Ok(Format::Avif)
    } else if hevc(&major) || compatible.iter().any(hevc) {
        Ok(Format::Heif)
    } else if compatible.iter().any(avif) {
        Ok(Format::Avif)
    } else if any(&major) || compatible.iter().any(any) {
        Ok(Format::Heif)
    } else {
        Err(Refusal::UnknownType.into())
    }
}

/// What `meta` says about the primary item.
fn displayed(mut meta: Reader<'_>, format: Format) -> Result<Size, Stop> {
    let mut primary = None;
    let mut properties = None;
    let mut pictures = false;
    meta.skip(4);
    while meta.remaining() > 0 {
        let next = next_box(&mut meta)?;
        let mut content = next.content(&mut meta)?;
        match &next.kind {
            b"hdlr" => {
                content.skip(8);
                pictures = &content.tag()? == b"pict";
            }
            b"pitm" => {
                let wide = content.u32_be()? >> 24 != 0;
                primary = Some(item_id(&mut content, wide)?);
            }
            b"iprp" => properties = Some(content),
            _ => {}
        }
    }
    match (primary, properties) {
        (Some(primary), Some(properties)) if pictures => size_of(primary, properties, format),
        _ => Err(Refusal::Malformed.into()),
    }
}

fn item_id(content: &mut Reader<'_>, wide: bool) -> Result<u32, Stop> {
    if wide { content.u32_be() } else { Ok(content.u16_be()?.into()) }
}

/// Walks `iprp`: the properties in `ipco` and, in `ipma`, which of them an item has and in which order they apply.
fn size_of(primary: u32, mut iprp: Reader<'_>, format: Format) -> Result<Size, Stop> {
    let mut properties = Vec::new();
    let mut order = None;
    while iprp.remaining() > 0 {
        let next = next_box(&mut iprp)?;
        let mut content = next.content(&mut iprp)?;
        match &next.kind {
            b"ipco" if properties.is_empty() => {
                while content.remaining() > 0 {
                    let property = next_box(&mut content)?;
                    properties.push((property.kind, property.content(&mut content)?.rest()));
                }
            }
            b"ipma" if order.is_none() => order = associations(primary, &mut content)?,
            _ => {}
        }
    }
    // The brand is only a claim: AV1 needs its configuration among the properties, of the item or of its tiles.
    if format == Format::Avif && !properties.iter().any(|(kind, _)| kind == b"av1C") {
        return Err(Refusal::Malformed.into());
    }
    let mut mine = Vec::new();
    for index in order.unwrap_or_default() {
        // Counted from one; zero stands for no property.
        if let Some(index) = usize::from(index).checked_sub(1) {
            mine.push(properties.get(index).ok_or(Refusal::Malformed)?);
        }
    }
    let (_, extents) = mine.iter().find(|(kind, _)| kind == b"ispe").ok_or(Refusal::Malformed)?;
    let mut extents = Reader::of_part(extents);
    extents.skip(4);
    let mut size = (extents.u32_be()?, extents.u32_be()?);
    for (kind, content) in mine {
        size = match kind {
            b"irot" if Reader::of_part(content).u8()? & 1 == 1 => (size.1, size.0),
            b"clap" => clean_aperture(size, &mut Reader::of_part(content))?,
            _ => size,
        };
    }
    Ok(size)
}

/// The indices of the item's properties, in their order; none if this `ipma` does not name the item.
fn associations(item: u32, ipma: &mut Reader<'_>) -> Result<Option<Vec<u16>>, Stop> {
    let head = ipma.u32_be()?;
    let (wide_ids, wide_indices) = (head >> 24 != 0, head & 1 == 1);
    for _ in 0..ipma.u32_be()? {
        let id = item_id(ipma, wide_ids)?;
        let count = ipma.u8()?;
        let mut indices = Vec::with_capacity(count.into());
        for _ in 0..count {
            // The top bit says that a reader must understand the property.
            indices.push(if wide_indices { ipma.u16_be()? & 0x7FFF } else { u16::from(ipma.u8()? & 0x7F) });
        }
        if id == item {
            return Ok(Some(indices));
        }
    }
    Ok(None)
}

/// The crop's size (ISO/IEC 14496-12, 12.1.4): width and height as fractions, rounded to whole pixels. A crop larger
/// than the image is none.
fn clean_aperture(size: Size, clap: &mut Reader<'_>) -> Result<Size, Stop> {
    let mut side = |full: u32| -> Result<u32, Stop> {
        let (numerator, denominator) = (u64::from(clap.u32_be()?), u64::from(clap.u32_be()?));
        let rounded = (numerator + denominator / 2).checked_div(denominator).ok_or(Refusal::Malformed)?;
        Ok(u32::try_from(rounded).map_or(full, |side| side.min(full)))
    };
    Ok((side(size.0)?, side(size.1)?))
}
