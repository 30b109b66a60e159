//! Decodes sequential JPEG at a quarter of its width and height, in a sixteenth of the memory.
//!
//! Of each block of 8 by 8 pixels, the four lowest frequencies give 2 by 2 pixels; the others are passed over. So a photograph of
//! 200 megapixels takes about 60 MiB. A unit has the blocks of all components for one place of the image (the MCU of ITU-T T.81).

use super::{
    Frame,
    huffman::{Bits, Codes},
};
use crate::{decoder::pixels::Pixels, model::decoding::Undecodable};

/// A decoded image, and its colour profile.
pub(super) struct Quarter {
    pub(super) pixels: Pixels,
    pub(super) icc: Option<Vec<u8>>,
}

#[derive(Default)]
struct Decoder {
    components: Vec<Component>,
    /// The values of each quantization table for the four lowest frequencies.
    quantization: [Option<[i32; 4]>; 4],
    dc: [Option<Codes>; 4],
    ac: [Option<Codes>; 4],
    restart_interval: usize,
    /// The colour transform of Adobe's segment.
    adobe: Option<u8>,
    /// Parts of the ICC profile, each with its number.
    profile: Vec<(u8, Vec<u8>)>,
    has_scan: bool,
}

struct Component {
    id: u8,
    /// Horizontal sampling factor.
    across: usize,
    /// Vertical sampling factor.
    down: usize,
    /// Index of the quantization table.
    table: usize,
    /// Number of blocks in a row, of whole units.
    columns: usize,
    /// Two by two values for each block.
    plane: Vec<u8>,
}

/// A component in a scan: its index, its Huffman tables, and the mean of its last block.
struct Scanned {
    index: usize,
    dc: usize,
    ac: usize,
    mean: i32,
}

/// Decodes the image of a frame that was found to be sequential, with eight bits.
pub(super) fn decode(file: &[u8], frame: &Frame) -> Result<Quarter, Undecodable> {
    let mut decoder = Decoder::default();
    let mut rest = file.get(2..).ok_or(Undecodable::Corrupt)?;
    while let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF)) {
        let [marker, after @ ..] = &rest[at + 1..] else { break };
        // A marker without a segment.
        if matches!(marker, 0x01 | 0xD0..=0xD8) {
            rest = after;
            continue;
        }
        // The end of the image.
        if *marker == 0xD9 {
            break;
        }
        let length = after.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length))).max(2);
        // A file that is cut off is shown as far as it goes.
        let Some((segment, after)) = after.split_at_checked(length) else { break };
        rest = after;
        // The start of a scan.
        if *marker == 0xDA {
            rest = decoder.scan(frame, &segment[2..], after)?;
        } else {
            decoder.segment(*marker, &segment[2..], frame)?;
        }
    }
    if !decoder.has_scan {
        return Err(Undecodable::Corrupt);
    }
    decoder.profile.sort_by_key(|(number, _)| *number);
    let icc: Vec<u8> = decoder.profile.iter().flat_map(|(_, part)| part).copied().collect();
    Ok(Quarter { pixels: decoder.pixels(frame)?, icc: (!icc.is_empty()).then_some(icc) })
}

impl Decoder {
    /// Reads a segment: a frame, codes, quantization, the restart interval, or a part of the colour profile.
    fn segment(&mut self, marker: u8, content: &[u8], frame: &Frame) -> Result<(), Undecodable> {
        match marker {
            0xC0 | 0xC1 if self.components.is_empty() => self.frame(content, frame)?,
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => return Err(Undecodable::Corrupt),
            0xC4 => self.codes(content)?,
            0xDB => self.quantization(content)?,
            0xDD => {
                let interval = content.first_chunk().ok_or(Undecodable::Corrupt)?;
                self.restart_interval = usize::from(u16::from_be_bytes(*interval));
            }
            0xE2 => {
                if let Some([number, _count, part @ ..]) = content.strip_prefix(b"ICC_PROFILE\0") {
                    self.profile.push((*number, part.to_vec()));
                }
            }
            0xEE if content.starts_with(b"Adobe") => self.adobe = content.get(11).copied(),
            _ => {}
        }
        Ok(())
    }

    /// Creates the components that a frame's segment lists.
    fn frame(&mut self, content: &[u8], frame: &Frame) -> Result<(), Undecodable> {
        let components = content.get(6..).unwrap_or_default().as_chunks::<3>().0;
        if components.len() != usize::from(frame.components) || !matches!(components.len(), 1 | 3 | 4) {
            return Err(Undecodable::Unsupported);
        }
        let sampling = |bits: fn(u8) -> u8| components.iter().map(move |[_, sampling, _]| bits(*sampling));
        let (widest, highest) = (sampling(|byte| byte >> 4).max(), sampling(|byte| byte & 15).max());
        let is_valid = sampling(|byte| byte >> 4).chain(sampling(|byte| byte & 15)).all(|factor| (1..=4).contains(&factor));
        let (Some(widest), Some(highest), true) = (widest, highest, is_valid) else { return Err(Undecodable::Corrupt) };
        let units_across = (frame.width as usize).div_ceil(8 * usize::from(widest));
        let units_down = (frame.height as usize).div_ceil(8 * usize::from(highest));
        for [id, sampling, table] in components {
            let (across, down) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            let columns = units_across * across;
            let plane = vec![128; 4 * columns * units_down * down];
            self.components.push(Component { id: *id, across, down, table: usize::from(table & 3), columns, plane });
        }
        Ok(())
    }

    /// Reads the tables of a quantization segment.
    fn quantization(&mut self, mut content: &[u8]) -> Result<(), Undecodable> {
        while let [head, rest @ ..] = content {
            let (bytes, id) = (if head >> 4 == 0 { 1 } else { 2 }, usize::from(head & 3));
            let (table, rest) = rest.split_at_checked(64 * bytes).ok_or(Undecodable::Corrupt)?;
            let value = |at: usize| {
                let value = &table[at * bytes..(at + 1) * bytes];
                value.iter().fold(0, |value, byte| value << 8 | i32::from(*byte))
            };
            // In zigzag order: the mean, one wave across, one wave down, one of each.
            self.quantization[id] = Some([0, 1, 2, 4].map(value));
            content = rest;
        }
        Ok(())
    }

    /// Reads the tables of a segment of Huffman codes.
    fn codes(&mut self, mut content: &[u8]) -> Result<(), Undecodable> {
        while let Some((head, rest)) = content.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(Undecodable::Corrupt)?;
            let count = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, rest) = rest.split_at_checked(count).ok_or(Undecodable::Corrupt)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            tables[usize::from(head & 3)] = Some(Codes::new(*counts, values)?);
            content = rest;
        }
        Ok(())
    }

    /// Decodes a scan, and returns the data behind it.
    fn scan<'a>(&mut self, frame: &Frame, header: &[u8], data: &'a [u8]) -> Result<&'a [u8], Undecodable> {
        let count = usize::from(*header.first().ok_or(Undecodable::Corrupt)?);
        let mut scanned = Vec::new();
        for [id, tables] in header.get(1..1 + 2 * count).unwrap_or_default().as_chunks::<2>().0 {
            let index = self.components.iter().position(|component| component.id == *id).ok_or(Undecodable::Corrupt)?;
            scanned.push(Scanned { index, dc: usize::from(tables >> 4 & 3), ac: usize::from(tables & 3), mean: 0 });
        }
        let (units_across, units_down) = self.units(frame, &scanned)?;
        let mut bits = Bits::new(data);
        for unit in 0..units_across * units_down {
            if self.restart_interval > 0 && unit > 0 && unit % self.restart_interval == 0 {
                if !bits.restart() {
                    break;
                }
                scanned.iter_mut().for_each(|component| component.mean = 0);
            }
            let (x, y) = (unit % units_across, unit / units_across);
            // A broken scan is shown as far as it goes.
            if self.unit(&mut bits, &mut scanned, x, y).is_err() || bits.is_exhausted() {
                break;
            }
            self.has_scan = true;
        }
        Ok(bits.rest())
    }

    /// Returns the number of units of a scan, across and down. In a scan of one component, each block is a unit.
    fn units(&self, frame: &Frame, scanned: &[Scanned]) -> Result<(usize, usize), Undecodable> {
        let (widest, highest) = self.factors();
        let (width, height) = (frame.width as usize, frame.height as usize);
        match scanned {
            [] => Err(Undecodable::Corrupt),
            [alone] => {
                let Component { across, down, .. } = self.components[alone.index];
                Ok(((width * across).div_ceil(8 * widest), (height * down).div_ceil(8 * highest)))
            }
            _ => Ok((width.div_ceil(8 * widest), height.div_ceil(8 * highest))),
        }
    }

    /// Returns the greatest sampling factors.
    fn factors(&self) -> (usize, usize) {
        let greatest = |factor: fn(&Component) -> usize| self.components.iter().map(factor).max().unwrap_or(1);
        (greatest(|component| component.across), greatest(|component| component.down))
    }

    /// Decodes the blocks of one unit.
    fn unit(&mut self, bits: &mut Bits<'_>, scanned: &mut [Scanned], x: usize, y: usize) -> Result<(), Undecodable> {
        let is_alone = scanned.len() == 1;
        for Scanned { index, dc, ac, mean } in scanned {
            let component = &mut self.components[*index];
            let quantization = self.quantization[component.table].ok_or(Undecodable::Corrupt)?;
            let dc = self.dc[*dc].as_ref().ok_or(Undecodable::Corrupt)?;
            let ac = self.ac[*ac].as_ref().ok_or(Undecodable::Corrupt)?;
            let (across, down) = if is_alone { (1, 1) } else { (component.across, component.down) };
            for row in 0..down {
                for column in 0..across {
                    let size = bits.code(dc)?;
                    *mean = mean.wrapping_add(bits.number(size.min(16)));
                    let coefficients = lowest(bits, ac, *mean)?;
                    component.put(x * across + column, y * down + row, coefficients, quantization);
                }
            }
        }
        Ok(())
    }

    /// Combines the components into RGB pixels.
    fn pixels(&self, frame: &Frame) -> Result<Pixels, Undecodable> {
        let (width, height) = (frame.width.div_ceil(4), frame.height.div_ceil(4));
        let (widest, highest) = self.factors();
        let ids: Vec<_> = self.components.iter().map(|component| component.id).collect();
        let is_rgb = self.adobe == Some(0) || self.adobe.is_none() && ids == *b"RGB";
        let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
        for y in 0..height as usize {
            for x in 0..width as usize {
                let value = |component: &Component| {
                    let (x, y) = (x * component.across / widest, y * component.down / highest);
                    component.plane.get(y * 2 * component.columns + x).copied().unwrap_or(128)
                };
                rgb.extend(match self.components.as_slice() {
                    [grey] => [value(grey); 3],
                    [red, green, blue] if is_rgb => [value(red), value(green), value(blue)],
                    [luma, blue, red] => rgb_of(value(luma), value(blue), value(red)),
                    // Inks are stored inverted, as Adobe's programs do.
                    [cyan, magenta, yellow, key] => {
                        let inks = [value(cyan), value(magenta), value(yellow)];
                        let [cyan, magenta, yellow] =
                            if self.adobe == Some(2) { rgb_of(inks[0], inks[1], inks[2]) } else { inks };
                        let key = u16::from(value(key));
                        [cyan, magenta, yellow].map(|ink| u8::try_from(u16::from(ink) * key / 255).unwrap_or(u8::MAX))
                    }
                    _ => return Err(Undecodable::Corrupt),
                });
            }
        }
        Ok(Pixels { width, height, rgb })
    }
}

/// Reads the coefficients of a block, and returns those of the four lowest frequencies.
fn lowest(bits: &mut Bits<'_>, ac: &Codes, mean: i32) -> Result<[i32; 4], Undecodable> {
    let mut lowest = [mean, 0, 0, 0];
    let mut at = 1;
    while at < 64 {
        let code = bits.code(ac)?;
        let (zeros, size) = (usize::from(code >> 4), code & 15);
        match (zeros, size) {
            // Sixteen zeros.
            (15, 0) => at += 16,
            // The end of the block.
            (_, 0) => break,
            _ => {
                at += zeros;
                match at {
                    1 | 2 => lowest[at] = bits.number(size),
                    4 => lowest[3] = bits.number(size),
                    _ => bits.skip(size),
                }
                at += 1;
            }
        }
    }
    Ok(lowest)
}

impl Component {
    /// Transforms four coefficients to 2 by 2 values, and puts them at the block's place.
    fn put(&mut self, column: usize, row: usize, coefficients: [i32; 4], quantization: [i32; 4]) {
        let value = |at: usize| coefficients[at].saturating_mul(quantization[at]).clamp(-1 << 20, 1 << 20);
        let (mean, across, down, diagonal) = (value(0), value(1), value(2), value(3));
        // Coefficients are eight times the values, which are centred on 0 instead of 128.
        let pixel = |sum: i32| u8::try_from((((sum + 4) >> 3) + 128).clamp(0, 255)).unwrap_or(0);
        let stride = 2 * self.columns;
        let start = row * 2 * stride + column * 2;
        let upper = [pixel(mean + across + down + diagonal), pixel(mean - across + down - diagonal)];
        let lower = [pixel(mean + across - down - diagonal), pixel(mean - across - down + diagonal)];
        for (start, pair) in [(start, upper), (start + stride, lower)] {
            if let Some(place) = self.plane.get_mut(start..start + 2) {
                place.copy_from_slice(&pair);
            }
        }
    }
}

/// Converts luma and chroma by the factors of JFIF (1.402, 0.344, 0.714, 1.772), in units of 2^-16.
fn rgb_of(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    let (luma, blue, red) = (i32::from(luma) << 16, i32::from(blue) - 128, i32::from(red) - 128);
    let value = |sum: i32| u8::try_from(((sum + (1 << 15)) >> 16).clamp(0, 255)).unwrap_or(0);
    [value(luma + 91_881 * red), value(luma - 22_554 * blue - 46_802 * red), value(luma + 116_130 * blue)]
}
