//! JPEG (ITU-T T.81 annex B): the markers up to the first scan. Where the standard and libjpeg differ, libjpeg counts: every
//! browser reads with a version of it, and a file that one of them shows is accepted.

use super::file::{File, Part, Stop};
use super::{ContentError, Orientation, Size, exif};

/// The longest side that libjpeg decodes (`JPEG_MAX_DIMENSION`), in pixels.
const MAX_SIDE: u32 = 65_500;

/// State read from the segments so far.
#[derive(Debug, Default)]
pub(super) struct Jpeg {
    frame: Option<Frame>,
    /// Orientation by the first Exif segment with content. Later ones do not count (Exif 3.0, 4.7.2: there is one).
    orientation: Option<Orientation>,
    /// The ids of the quantization tables that are defined, one bit each.
    tables: u8,
}

/// The header of a frame (B.2.2).
#[derive(Debug)]
struct Frame {
    size: Size,
    /// Whether the frame is lossless, and has no quantization tables.
    is_lossless: bool,
    components: Vec<Component>,
}

/// A component of a frame.
#[derive(Debug)]
struct Component {
    id: u8,
    /// Id of its quantization table.
    table: u8,
}

impl Jpeg {
    /// Continues reading up to the displayed size. All segments before the first scan are read, because decoders honour EXIF up to
    /// there, and none after it.
    pub(super) fn advance(&mut self, file: &mut File) -> Result<Size, Stop> {
        loop {
            let code = marker(file)?;
            match code {
                // TEM and RSTn have no content.
                0x01 | 0xD0..=0xD7 => {}
                // SOI or EOI before a scan: no image here.
                0xD8 | 0xD9 => return Err(ContentError::NoPicture.into()),
                0xDA => {
                    let frame = self.frame.as_ref().ok_or(ContentError::Malformed)?;
                    self.check_scan(frame, segment(file)?)?;
                    return self.size_so_far().ok_or(ContentError::Malformed.into());
                }
                0xC0..=0xC3 | 0xC9 | 0xCA => {
                    let frame = Frame::read(code, segment(file)?)?;
                    if self.frame.replace(frame).is_some() {
                        return Err(ContentError::Malformed.into());
                    }
                }
                // Hierarchical frames (5 to 7, 13 to 15; 8 is reserved, 11 lossless and arithmetic): no decoder in use reads them.
                0xC5..=0xC8 | 0xCB | 0xCD..=0xCF => return Err(ContentError::Undecodable.into()),
                0xC4 => huffman_tables(segment(file)?)?,
                0xDB => self.tables |= quantization_tables(segment(file)?)?,
                0xDD => restart_interval(segment(file)?)?,
                0xE1 if self.orientation.is_none() => {
                    let tiff = exif::block(segment(file)?.rest());
                    self.orientation = tiff.map(|tiff| exif::orientation(tiff).unwrap_or(Orientation::NORMAL));
                }
                // DAC, DNL, APPn, COM.
                0xCC | 0xDC | 0xE0..=0xEF | 0xFE => {
                    let length = content_length(file)?;
                    file.skip(length);
                }
                // Reserved, or hierarchical (DHP, EXP): Firefox takes such a marker and its content for stray bytes.
                _ => {}
            }
            file.mark();
        }
    }

    /// Returns how the image is turned, as far as the file has been read.
    pub(super) fn orientation(&self) -> Orientation {
        self.orientation.unwrap_or(Orientation::NORMAL)
    }

    /// Returns the displayed size, once the frame has been read.
    pub(super) fn size_so_far(&self) -> Option<Size> {
        let frame = self.frame.as_ref()?;
        Some(frame.size.turned_if(self.orientation().swaps_sides()))
    }

    /// Checks a scan's header (B.2.3): its components are the frame's, and those have their quantization tables.
    fn check_scan(&self, frame: &Frame, mut header: Part<'_>) -> Result<(), Stop> {
        let count = usize::from(header.u8()?);
        if !(1..=4).contains(&count) || header.rest().len() != 2 * count + 3 {
            return Err(ContentError::Malformed.into());
        }
        // A scan has each component once; those of a frame may have the same id.
        let mut components: Vec<_> = frame.components.iter().collect();
        for _ in 0..count {
            let [id, _entropy_tables] = header.array()?;
            let position = components.iter().position(|component| component.id == id).ok_or(ContentError::Malformed)?;
            let component = components.remove(position);
            if !frame.is_lossless && self.tables >> component.table & 1 == 0 {
                return Err(ContentError::Malformed.into());
            }
        }
        Ok(())
    }
}

impl Frame {
    /// Reads a frame's header (B.2.2).
    fn read(code: u8, mut header: Part<'_>) -> Result<Self, Stop> {
        let precision = header.u8()?;
        let (height, width) = (u32::from(header.u16_be()?), u32::from(header.u16_be()?));
        let count = usize::from(header.u8()?);
        if header.rest().len() != 3 * count {
            return Err(ContentError::Malformed.into());
        }
        // Grey, three colours, or CMYK; browsers and other decoders accept no other number.
        if !matches!(count, 1 | 3 | 4) {
            return Err(ContentError::Undecodable.into());
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(ContentError::TooManyPixels.into());
        }
        let is_lossless = code == 0xC3;
        if !(matches!(precision, 8 | 12) || is_lossless && (2..=16).contains(&precision)) {
            return Err(ContentError::Malformed.into());
        }
        let mut components = Vec::with_capacity(count);
        for _ in 0..count {
            let [id, sampling, table] = header.array()?;
            if !(1..=4).contains(&(sampling >> 4)) || !(1..=4).contains(&(sampling & 15)) || table > 3 {
                return Err(ContentError::Malformed.into());
            }
            components.push(Component { id, table });
        }
        Ok(Self { size: Size { width, height }, is_lossless, components })
    }
}

/// Returns the next marker's code. Stray bytes between segments are passed over, as decoders do: some cameras write them.
fn marker(file: &mut File) -> Result<u8, Stop> {
    loop {
        file.find(0xFF)?;
        match file.take(2)?.array()? {
            // A fill byte: the second may begin the marker.
            [_, 0xFF] => {
                file.rewind();
                file.skip(1);
            }
            [_, 0] => {}
            [_, code] => return Ok(code),
        }
        file.mark();
    }
}

/// Returns the length of the segment's content. The stated length includes its own two bytes; libjpeg takes a smaller one for
/// an empty segment.
fn content_length(file: &mut File) -> Result<u64, Stop> {
    Ok(u64::from(file.take(2)?.u16_be()?).saturating_sub(2))
}

/// Reads the content of a segment.
fn segment(file: &mut File) -> Result<Part<'_>, Stop> {
    let length = content_length(file)?;
    file.take(length)
}

/// Reads quantization tables (B.2.4.1), and returns their ids, one bit each.
fn quantization_tables(mut segment: Part<'_>) -> Result<u8, Stop> {
    let mut defined = 0;
    while !segment.rest().is_empty() {
        let head = segment.u8()?;
        let (is_wide, id) = (head >> 4 != 0, head & 15);
        if id > 3 {
            return Err(ContentError::Malformed.into());
        }
        segment.take(if is_wide { 128 } else { 64 })?;
        defined |= 1 << id;
    }
    Ok(defined)
}

/// Checks Huffman tables (B.2.4.2).
fn huffman_tables(mut segment: Part<'_>) -> Result<(), Stop> {
    while !segment.rest().is_empty() {
        let head = segment.u8()?;
        let lengths: [u8; 16] = segment.array()?;
        let count: usize = lengths.iter().map(|count| usize::from(*count)).sum();
        if count > 256 || !matches!(head, 0..=3 | 0x10..=0x13) {
            return Err(ContentError::Malformed.into());
        }
        segment.take(count)?;
    }
    Ok(())
}

/// Checks the length of a segment that defines the restart interval.
fn restart_interval(segment: Part<'_>) -> Result<(), Stop> {
    if segment.rest().len() == 2 { Ok(()) } else { Err(ContentError::Malformed.into()) }
}
