//! Huffman codes of JPEG (ITU-T T.81, annex F), and the bits that they are read from.

use crate::model::decoding::Undecodable;

/// Longest code in bits.
const LONGEST: u32 = 16;

/// A table of codes: for each value of the next 16 bits, the length of the code that they begin with (in the upper byte, 0 for
/// none) and the code's value.
#[derive(Debug)]
pub(super) struct Codes(Vec<u16>);

impl Codes {
    /// Builds the table of a `DHT` segment: the number of codes of each length, and their values.
    pub(super) fn new(counts: [u8; 16], values: &[u8]) -> Result<Self, Undecodable> {
        let mut table = Vec::with_capacity(1 << LONGEST);
        let mut values = values.iter();
        for (length, count) in (1_u16..).zip(counts) {
            for value in values.by_ref().take(usize::from(count)) {
                let end = table.len() + (1 << (LONGEST - u32::from(length)));
                if end > 1 << LONGEST {
                    return Err(Undecodable::Corrupt);
                }
                table.resize(end, length << 8 | u16::from(*value));
            }
        }
        table.resize(1 << LONGEST, 0);
        Ok(Self(table))
    }
}

/// The bits of a scan, up to the next marker.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Bits that were taken from `data`, the next one first.
    taken: u64,
    /// Number of bits in `taken`, including padding.
    count: u32,
    /// Zeros that were added behind the last bit.
    padding: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, taken: 0, count: 0, padding: 0 }
    }

    /// Takes bytes until at least 57 bits are there. `0xFF 0` stands for the byte 0xFF; from the next marker on, bits are zeros.
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match *self.data.get(self.at..).unwrap_or_default() {
                [0xFF, 0, ..] => {
                    self.at += 2;
                    0xFF
                }
                [byte, ..] if byte != 0xFF => {
                    self.at += 1;
                    byte
                }
                _ => {
                    self.padding += 8;
                    0
                }
            };
            self.taken |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Returns whether more bits were read than there are.
    pub(super) fn is_exhausted(&self) -> bool {
        self.padding > self.count
    }

    /// Drops the next bits.
    pub(super) fn skip(&mut self, bits: u8) {
        self.taken = self.taken.checked_shl(u32::from(bits)).unwrap_or(0);
        self.count = self.count.saturating_sub(u32::from(bits));
    }

    /// Reads a code, and returns its value. At least 40 bits are there afterwards.
    pub(super) fn code(&mut self, codes: &Codes) -> Result<u8, Undecodable> {
        if self.count < 56 {
            self.fill();
        }
        let [high, low, ..] = self.taken.to_be_bytes();
        let [length, value] = codes.0.get(usize::from(u16::from_be_bytes([high, low]))).copied().unwrap_or(0).to_be_bytes();
        if length == 0 {
            return Err(Undecodable::Corrupt);
        }
        self.skip(length);
        Ok(value)
    }

    /// Reads a number of `size` bits (F.2.2.1), at most 16.
    pub(super) fn number(&mut self, size: u8) -> i32 {
        if size == 0 {
            return 0;
        }
        let [high, low, ..] = self.taken.to_be_bytes();
        let bits = i32::from(u16::from_be_bytes([high, low])) >> (16 - i32::from(size));
        self.skip(size);
        if bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
    }

    /// Passes over the next marker if it is a restart marker. Returns whether it is.
    pub(super) fn restart(&mut self) -> bool {
        let rest = self.rest();
        if let [0xFF, 0xD0..=0xD7, ..] = rest {
            *self = Self::new(rest.get(2..).unwrap_or_default());
            return true;
        }
        false
    }

    /// Returns the data from the next marker on.
    pub(super) fn rest(&self) -> &'a [u8] {
        let data = self.data.get(self.at..).unwrap_or_default();
        let marker = data.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF));
        marker.and_then(|at| data.get(at..)).unwrap_or_default()
    }
}
