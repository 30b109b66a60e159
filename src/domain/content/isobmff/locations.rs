//! `iloc`: where the bytes of items are (ISO/IEC 14496-12, 8.11.3).

/// The location of an item's bytes.
#[derive(Clone, Copy)]
pub(in crate::domain::content) struct ItemLocation {
    /// Whether the bytes are in `idat`, which is part of `meta`.
    pub(in crate::domain::content) is_in_meta: bool,
    pub(in crate::domain::content) offset: u64,
    pub(in crate::domain::content) length: u64,
}

/// The entries of `iloc`.
pub(in crate::domain::content) struct ItemLocations<'a> {
    version: u64,
    /// Length of the fields of an entry in bytes: 0, 4 or 8.
    offset_size: usize,
    length_size: usize,
    base_size: usize,
    index_size: usize,
    count: u64,
    entries: &'a [u8],
}

impl<'a> ItemLocations<'a> {
    /// Reads the box `iloc`.
    pub(in crate::domain::content) fn read(mut iloc: &'a [u8]) -> Option<Self> {
        let version = number(&mut iloc, 4)? >> 24;
        let sizes = number(&mut iloc, 2)?;
        // Four bits for each size.
        let size = |shift: u32| usize::try_from(sizes >> shift & 15).ok().filter(|size| matches!(size, 0 | 4 | 8));
        let index_size = if version == 0 { 0 } else { size(0)? };
        let count = number(&mut iloc, if version < 2 { 2 } else { 4 })?;
        Some(Self {
            version,
            offset_size: size(12)?,
            length_size: size(8)?,
            base_size: size(4)?,
            index_size,
            count,
            entries: iloc,
        })
    }

    /// Returns the location of an item. `None` for an item in several extents, or in another file or item.
    pub(in crate::domain::content) fn find(&self, wanted: u32) -> Option<ItemLocation> {
        let mut rest = self.entries;
        for _ in 0..self.count {
            let item = number(&mut rest, if self.version < 2 { 2 } else { 4 })?;
            let construction = if self.version == 0 { 0 } else { number(&mut rest, 2)? & 15 };
            let reference = number(&mut rest, 2)?;
            let base = number(&mut rest, self.base_size)?;
            let extents = number(&mut rest, 2)?;
            let mut location = None;
            for _ in 0..extents {
                number(&mut rest, self.index_size)?;
                let (offset, length) = (number(&mut rest, self.offset_size)?, number(&mut rest, self.length_size)?);
                location = Some(ItemLocation { is_in_meta: construction == 1, offset: base.checked_add(offset)?, length });
                // An extent without fields has no bytes, so a large count of them would cost time for nothing.
                if self.index_size + self.offset_size + self.length_size == 0 {
                    break;
                }
            }
            if item == u64::from(wanted) {
                return location.filter(|_| extents == 1 && construction < 2 && reference == 0);
            }
        }
        None
    }
}

/// Takes a number of `size` bytes, at most eight; of no bytes it is zero.
pub(in crate::domain::content) fn number(bytes: &mut &[u8], size: usize) -> Option<u64> {
    let (taken, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    Some(taken.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
}
