//! Exif (CIPA DC-008): a TIFF file whose directories have the tags. Every offset is checked, and no chain of directories is
//! followed.

use std::borrow::Cow;

use super::date_time::{parse_date_time, parse_exif_offset, parse_subsecond};
use crate::model::{Location, TakenAt};

/// Longest text that is read, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// Types of a text's elements.
const ASCII: u16 = 2;
const UTF_8: u16 = 129;

/// Tags of TIFF, Exif and GPS that are read.
mod tag {
    pub(super) const MAKE: u16 = 0x010F;
    pub(super) const MODEL: u16 = 0x0110;
    pub(super) const EXIF_DIRECTORY: u16 = 0x8769;
    pub(super) const GPS_DIRECTORY: u16 = 0x8825;
    pub(super) const LATITUDE_REF: u16 = 1;
    pub(super) const LATITUDE: u16 = 2;
    pub(super) const LONGITUDE_REF: u16 = 3;
    pub(super) const LONGITUDE: u16 = 4;
}

/// Tags of one time. Each date has an offset of its own: `OffsetTime` (0x9010) is that of the last change, and counts for no other.
struct TimeTags {
    date_time: u16,
    subsecond: u16,
    offset: u16,
}

/// `DateTimeOriginal`, then `DateTimeDigitized`, which scanners and some cameras write alone.
const TIMES: [TimeTags; 2] = [
    TimeTags { date_time: 0x9003, subsecond: 0x9291, offset: 0x9011 },
    TimeTags { date_time: 0x9004, subsecond: 0x9292, offset: 0x9012 },
];

/// Values of the tags that are read.
#[derive(Debug, Default)]
pub(super) struct Exif<'a> {
    pub(super) taken_at: Option<TakenAt>,
    pub(super) make: Option<Cow<'a, str>>,
    pub(super) model: Option<Cow<'a, str>>,
    pub(super) location: Option<Location>,
}

impl<'a> Exif<'a> {
    /// Reads a block; `None` if it is not TIFF.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let is_big_endian = match bytes.get(..4)? {
            b"MM\0*" => true,
            b"II*\0" => false,
            _ => return None,
        };
        let tiff = Tiff { bytes, is_big_endian };
        let main = tiff.u32_at(4)?;
        let directory = |tag| tiff.find(main, tag).and_then(|entry| tiff.u32_at(entry.value_at));
        // Raw converters also write the dates of the Exif directory to the main one.
        let dates = [directory(tag::EXIF_DIRECTORY), Some(main)];
        let text = |tag| dates.iter().flatten().find_map(|directory| tiff.text(*directory, tag));
        let time = |tags: &TimeTags| {
            let taken_at = parse_date_time(&text(tags.date_time)?)?;
            let millisecond = text(tags.subsecond).and_then(|text| parse_subsecond(&text));
            taken_at.completed(millisecond, text(tags.offset).and_then(|text| parse_exif_offset(&text)))
        };
        Some(Self {
            taken_at: TIMES.iter().find_map(time),
            make: tiff.text(main, tag::MAKE),
            model: tiff.text(main, tag::MODEL),
            location: directory(tag::GPS_DIRECTORY).and_then(|directory| tiff.location(directory)),
        })
    }
}

/// A block of TIFF and its byte order.
struct Tiff<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

/// An entry of a directory.
#[derive(Clone, Copy)]
struct Entry {
    /// Type of the value's elements, such as [`ASCII`].
    kind: u16,
    /// Number of the value's elements.
    count: u32,
    /// Offset of the field that has the value, or the value's offset if it is longer than four bytes.
    value_at: u32,
}

impl<'a> Tiff<'a> {
    /// Returns the bytes at an offset.
    fn at<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.get(usize::try_from(offset).ok()?..)?.first_chunk().copied()
    }

    /// Reads an integer of two bytes in the file's byte order.
    fn u16_at(&self, offset: u32) -> Option<u16> {
        let bytes = self.at(offset)?;
        Some(if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    /// Reads an integer of four bytes in the file's byte order.
    fn u32_at(&self, offset: u32) -> Option<u32> {
        let bytes = self.at(offset)?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// Returns the first entry of a directory with this tag.
    fn find(&self, directory: u32, tag: u16) -> Option<Entry> {
        // An entry has 12 bytes: tag (2), type (2), count (4), value (4).
        let mut at = directory.checked_add(2)?;
        for _ in 0..self.u16_at(directory)? {
            if self.u16_at(at)? == tag {
                let (kind, count) = (self.u16_at(at.checked_add(2)?)?, self.u32_at(at.checked_add(4)?)?);
                return Some(Entry { kind, count, value_at: at.checked_add(8)? });
            }
            at = at.checked_add(12)?;
        }
        None
    }

    /// Returns the bytes of a value whose elements have `size` bytes.
    fn value(&self, entry: Entry, size: usize) -> Option<&'a [u8]> {
        let length = usize::try_from(entry.count).ok()?.checked_mul(size)?;
        let offset = if length <= 4 { entry.value_at } else { self.u32_at(entry.value_at)? };
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(length)?)
    }

    /// Returns a text (ASCII, or UTF-8 since Exif 3.0), which NUL ends.
    fn text(&self, directory: u32, tag: u16) -> Option<Cow<'a, str>> {
        let entry = self.find(directory, tag).filter(|entry| matches!(entry.kind, ASCII | UTF_8))?;
        let bytes = self.value(entry, 1)?;
        let text = bytes.split(|b| *b == 0).next()?;
        Some(String::from_utf8_lossy(text.get(..MAX_TEXT_BYTES).unwrap_or(text)))
    }

    /// Returns the position of a GPS directory. Cameras without a fix write zeros, so the point at zero degrees is ignored.
    fn location(&self, directory: u32) -> Option<Location> {
        let degrees = |tag, reference, [positive, negative]: [&str; 2]| {
            let sign = match self.text(directory, reference)?.trim() {
                text if text == positive => 1.0,
                text if text == negative => -1.0,
                _ => return None,
            };
            Some(sign * self.degrees(directory, tag)?)
        };
        let latitude: f64 = degrees(tag::LATITUDE, tag::LATITUDE_REF, ["N", "S"])?;
        let longitude: f64 = degrees(tag::LONGITUDE, tag::LONGITUDE_REF, ["E", "W"])?;
        let location = Location::new(latitude, longitude)?;
        (Location::new(0.0, 0.0) != Some(location)).then_some(location)
    }

    /// Returns degrees, minutes and seconds, each a fraction, as degrees.
    fn degrees(&self, directory: u32, tag: u16) -> Option<f64> {
        const RATIONAL: u16 = 5;
        let entry = self.find(directory, tag).filter(|entry| entry.kind == RATIONAL && entry.count == 3)?;
        let start = self.u32_at(entry.value_at)?;
        let fraction = |at: u32| {
            let (numerator, denominator) = (self.u32_at(at)?, self.u32_at(at.checked_add(4)?)?);
            match (numerator, denominator) {
                // Cameras write 0/0 for seconds that they do not record.
                (0, 0) => Some(0.0),
                (_, 0) => None,
                (numerator, denominator) => Some(f64::from(numerator) / f64::from(denominator)),
            }
        };
        let [degrees, minutes, seconds] = [fraction(start)?, fraction(start.checked_add(8)?)?, fraction(start.checked_add(16)?)?];
        Some(degrees + minutes / 60.0 + seconds / 3600.0)
    }
}
