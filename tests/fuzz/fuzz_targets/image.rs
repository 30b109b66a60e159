//! Fuzzes headers of uploaded files through the entry point of confirm. The input is a file, so any image is a seed.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use valet::{
    domain::content::{Content, ContentError, ContentInspector, MAX_PIXELS, MAX_SIDE, ReadBudget},
    model::Format,
};

/// Inspects a file as confirm does, and asserts that the ranges stay within the bounds.
fn inspect(file: &[u8], max_pixels: u64, budget: ReadBudget) -> Result<Content, ContentError> {
    let total = file.len() as u64;
    let mut inspection = ContentInspector::with_budget(total, max_pixels, budget);
    let (mut ranges, mut bytes, mut seen) = (0, 0, 0);
    loop {
        let wanted = inspection.wanted();
        assert!(wanted.start >= seen, "a range overlaps an earlier one");
        assert!(wanted.end <= total, "a range ends behind the file");
        assert!(wanted.start < wanted.end || total == 0, "a range is empty");
        ranges += 1;
        bytes += wanted.end - wanted.start;
        seen = wanted.end;
        assert!(ranges <= budget.ranges && bytes <= budget.bytes, "the budget is exceeded");
        if let Some(verdict) = inspection.supply(&file[wanted.start as usize..wanted.end as usize]) {
            if let Ok(Content { format, width, height, orientation: _ }) = verdict {
                assert!((1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height));
                assert!(u64::from(width) * u64::from(height) <= max_pixels);
                assert!(Format::ALL.contains(&format));
            }
            return verdict;
        }
    }
}

/// Asserts that the verdict on a file does not depend on the lengths of the ranges. The first range has `first` bytes.
fn assert_same_verdict(file: &[u8], first: u64) {
    let whole = inspect(file, MAX_PIXELS, ReadBudget { first: u64::MAX, ranges: 1, bytes: u64::MAX });
    // Reads as many ranges as needed, each as short as possible.
    let steps = inspect(file, MAX_PIXELS, ReadBudget { first, ranges: u32::MAX, bytes: u64::MAX });
    assert_eq!(steps, whole, "the verdict depends on the ranges");
    let usual = inspect(file, MAX_PIXELS, ReadBudget::DEFAULT);
    // If less of a file is read, it may be accepted although the rest is wrong, or be rejected because of the limits.
    assert!(usual == whole || file.len() as u64 > ReadBudget::DEFAULT.first, "one range of the whole file gives another verdict");
}

thread_local! {
    /// Buffer for files with a hole.
    static LONG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fuzz_target!(|file: &[u8]| {
    let total = file.len();
    // Positions to cut at, derived from the bytes with FNV-1a, so that they are the same for the same file.
    let hash = file.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let position = |n: u32| (hash.rotate_left(n) % (total as u64 + 1)) as usize;
    assert_same_verdict(file, 12 + position(0) as u64);

    // Bytes after the range are not read.
    let mut inspection = ContentInspector::new(total as u64, MAX_PIXELS);
    let longer = [file, &hash.to_le_bytes()].concat();
    let first = inspection.wanted().end as usize;
    if let Some(verdict) = inspection.supply(&longer) {
        assert_eq!(Some(verdict), ContentInspector::new(total as u64, MAX_PIXELS).supply(&file[..first]));
    }
    // A file of maximum length, for which the store sends the bytes of `file` instead of each range.
    let mut endless = ContentInspector::new(u64::MAX, MAX_PIXELS);
    for _ in 0..20 {
        if endless.supply(file).is_some() {
            break;
        }
    }
    // No image satisfies a limit of 0 pixels.
    assert!(inspect(file, 0, ReadBudget::DEFAULT).is_err());

    // One file in 16 again, with a hole of zeros, so that its rest is beyond the first range.
    if hash % 16 == 0 {
        LONG.with_borrow_mut(|long| {
            let (before, after) = file.split_at(position(7));
            let hole = [1 << 16, 1 << 18, 1 << 20, 3 << 20][(hash >> 8) as usize % 4];
            long.clear();
            long.extend_from_slice(before);
            long.resize(before.len() + hole, 0);
            long.extend_from_slice(after);
            assert_same_verdict(long, 1 << 16);
        });
    }
});
