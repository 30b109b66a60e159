//! Reads fields that are not whole bytes.

use super::super::file::{Part, Stop};

/// A cursor over the bits of a part of a file, the highest of each byte first.
pub(super) struct Bits<'a> {
    bytes: Part<'a>,
    /// The byte that is being read.
    byte: u8,
    /// Number of its bits that were not read yet.
    left: u32,
}

impl<'a> Bits<'a> {
    /// Returns the bits of these bytes.
    pub(super) fn new(bytes: Part<'a>) -> Self {
        Self { bytes, byte: 0, left: 0 }
    }

    /// Reads an integer of `count` bits; of more than 32 bits, the last 32.
    pub(super) fn read(&mut self, count: u32) -> Result<u32, Stop> {
        let mut value = 0;
        for _ in 0..count {
            if self.left == 0 {
                (self.byte, self.left) = (self.bytes.u8()?, 8);
            }
            self.left -= 1;
            value = value << 1 | u32::from(self.byte >> self.left & 1);
        }
        Ok(value)
    }

    /// Reads one bit.
    pub(super) fn flag(&mut self) -> Result<bool, Stop> {
        Ok(self.read(1)? == 1)
    }
}
