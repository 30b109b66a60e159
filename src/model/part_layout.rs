//! The layout of a multipart upload: part sizes and their limits (AWS document "Amazon S3 multipart upload limits").

/// The checksum that S3 verifies for each part. Fixed when the upload is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartChecksums {
    /// No checksum: only the length is verified.
    None,
    /// The length and the SHA-256 are verified.
    Sha256,
}

impl PartChecksums {
    /// Returns the name in the database and in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sha256 => "sha256",
        }
    }

    /// Parses the name in the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Sha256].into_iter().find(|known| known.as_str() == text)
    }
}

/// The layout of a file's parts: all of one size except the last, which has the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLayout {
    /// Size of the file in bytes.
    file_size: u64,
    /// Size of every part except the last, in bytes.
    part_size: u64,
    part_count: u32,
    checksums: PartChecksums,
}

impl PartLayout {
    /// The smallest size of a part that is not the last, in bytes.
    pub const MIN_PART_SIZE: u64 = 5 << 20;
    /// The largest size of a part, in bytes.
    pub const MAX_PART_SIZE: u64 = 5 << 30;
    /// The largest number of parts.
    pub const MAX_PARTS: u32 = 10_000;
    /// Part size when the client chose none, in bytes: small enough to repeat on a bad network, large enough for a good one.
    const DEFAULT_PART_SIZE: u64 = 8 << 20;

    /// Divides a file of `file_size` bytes into parts of `part_size` bytes. `None` when the file is empty, or when the size of a
    /// part or the number of parts is out of bounds.
    #[must_use]
    pub fn new(file_size: u64, part_size: u64, checksums: PartChecksums) -> Option<Self> {
        if file_size == 0 || !(Self::MIN_PART_SIZE..=Self::MAX_PART_SIZE).contains(&part_size) {
            return None;
        }
        let part_count = u32::try_from(file_size.div_ceil(part_size)).ok().filter(|count| *count <= Self::MAX_PARTS)?;
        Some(Self { file_size, part_size, part_count, checksums })
    }

    /// Returns the part size for a file of `file_size` bytes: `DEFAULT_PART_SIZE`, or if that needs more than
    /// [`Self::MAX_PARTS`] parts, the smallest sufficient number of whole MiB.
    #[must_use]
    pub fn part_size_for(file_size: u64) -> u64 {
        let needed = file_size.div_ceil(u64::from(Self::MAX_PARTS)).next_multiple_of(1 << 20);
        needed.max(Self::DEFAULT_PART_SIZE)
    }

    /// Returns the size of every part except the last, in bytes.
    #[must_use]
    pub fn part_size(&self) -> u64 {
        self.part_size
    }

    /// Returns the number of parts; they are numbered from 1.
    #[must_use]
    pub fn part_count(&self) -> u32 {
        self.part_count
    }

    /// Returns the checksum that S3 verifies for each part.
    #[must_use]
    pub fn checksums(&self) -> PartChecksums {
        self.checksums
    }

    /// Returns the exact length of a part in bytes; `None` when there is no such part.
    #[must_use]
    pub fn part_length(&self, number: u32) -> Option<u64> {
        let before = u64::from(number.checked_sub(1)?) * self.part_size;
        (number <= self.part_count).then(|| self.part_size.min(self.file_size - before))
    }

    /// Returns every part's number and length.
    pub fn parts(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (1..=self.part_count).filter_map(|number| Some((number, self.part_length(number)?)))
    }

    /// Returns the length of the longest part in bytes.
    #[must_use]
    pub fn longest_part(&self) -> u64 {
        self.part_size.min(self.file_size)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Returns a layout without checksums.
    fn layout(file_size: u64, part_size: u64) -> Option<PartLayout> {
        PartLayout::new(file_size, part_size, PartChecksums::None)
    }

    proptest! {
        /// Up to S3's largest object, the chosen size is legal and the lengths add up to the file's.
        #[test]
        fn lengths_of_parts_add_up_to_the_size(size in 1..=5u64 << 40) {
            let part_size = PartLayout::part_size_for(size);
            let parts = layout(size, part_size).unwrap();
            prop_assert!(part_size.is_multiple_of(MIB) && parts.part_count() <= PartLayout::MAX_PARTS);
            prop_assert_eq!(parts.parts().map(|(_, length)| length).sum::<u64>(), size);
            let last = parts.part_length(parts.part_count()).unwrap();
            prop_assert!((1..=part_size).contains(&last), "the last part is not empty");
            prop_assert_eq!(parts.parts().count(), parts.part_count() as usize);
        }
    }

    #[test]
    fn layouts_keep_s3s_limits_and_parts_have_their_exact_lengths() {
        assert_eq!(layout(100 * MIB, 5 * MIB - 1), None);
        assert_eq!(layout(100 * MIB, (5 << 30) + 1), None);
        assert_eq!(layout(0, 5 * MIB), None);
        assert_eq!(layout(10_000 * 5 * MIB, 5 * MIB).unwrap().part_count(), 10_000);
        assert_eq!(layout(10_000 * 5 * MIB + 1, 5 * MIB), None, "a part too many");
        assert_eq!(layout(u64::MAX, 5 << 30), None);
        let parts = layout(11 * MIB, 5 * MIB).unwrap();
        assert_eq!(
            [0, 1, 2, 3, 4, u32::MAX].map(|n| parts.part_length(n)),
            [None, Some(5 * MIB), Some(5 * MIB), Some(MIB), None, None]
        );
        assert_eq!(layout(3, 5 * MIB).unwrap().parts().collect::<Vec<_>>(), [(1, 3)], "one small part is the last");
        assert_eq!((parts.longest_part(), layout(3, 5 * MIB).unwrap().longest_part()), (5 * MIB, 3));
        assert_eq!(PartLayout::part_size_for(5 << 30), 8 * MIB);
        assert_eq!(PartLayout::part_size_for(5 << 40), 525 * MIB);
    }
}
