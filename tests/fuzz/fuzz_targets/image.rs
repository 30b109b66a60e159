//! Headers of uploaded files, through the one entry that confirm uses. The input is a file, so any image is a seed.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use valet::{
    domain::content::{Content, ContentInspector, MAX_PIXELS, MAX_SIDE, ReadBudget, Refusal},
    model::Format,
};

/// Inspects a file as confirm does, and checks that the ranges keep to the bounds.
fn inspect(file: &[u8], max_pixels: u64, budget: ReadBudget) -> Result<Content, Refusal> {
    let total = file.len() as u64;
    let mut inspection = ContentInspector::with_budget(total, max_pixels, budget);
    let (mut ranges, mut bytes, mut seen) = (0, 0, 0);
    loop {
        let wanted = inspection.wanted();
        assert!(wanted.start >= seen, "asks for bytes twice");
        assert!(wanted.end <= total, "asks for what is not there");
        assert!(wanted.start < wanted.end || total == 0, "asks for nothing");
        ranges += 1;
        bytes += wanted.end - wanted.start;
        seen = wanted.end;
        assert!(ranges <= budget.ranges && bytes <= budget.bytes, "asks for too much");
        if let Some(verdict) = inspection.supply(&file[wanted.start as usize..wanted.end as usize]) {
            if let Ok(Content { format, width, height }) = verdict {
                assert!((1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height));
                assert!(u64::from(width) * u64::from(height) <= max_pixels);
                assert!(Format::ALL.contains(&format));
            }
            return verdict;
        }
    }
}

/// A file, and ranges of several lengths.
fn judge(file: &[u8], first: u64) {
    let whole = inspect(file, MAX_PIXELS, ReadBudget { first: u64::MAX, ranges: 1, bytes: u64::MAX });
    // So many ranges that each is as short as can be.
    let steps = inspect(file, MAX_PIXELS, ReadBudget { first, ranges: u32::MAX, bytes: u64::MAX });
    assert_eq!(steps, whole, "the verdict depends on where the ranges lie");
    let usual = inspect(file, MAX_PIXELS, ReadBudget::DEFAULT);
    // With less of it seen, a file may be accepted that the rest would refuse, or be refused for want of budget.
    assert!(usual == whole || file.len() as u64 > ReadBudget::DEFAULT.first, "one range of all of it");
}

thread_local! {
    static LONG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fuzz_target!(|file: &[u8]| {
    let total = file.len();
    // Where to cut, from the bytes themselves: the same for the same file.
    let hash = file.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let at = |n: u32| (hash.rotate_left(n) % (total as u64 + 1)) as usize;
    judge(file, 12 + at(0) as u64);

    // Bytes behind the range are not looked at.
    let mut inspection = ContentInspector::new(total as u64, MAX_PIXELS);
    let longer = [file, &hash.to_le_bytes()].concat();
    let first = inspection.wanted().end as usize;
    if let Some(verdict) = inspection.supply(&longer) {
        assert_eq!(Some(verdict), ContentInspector::new(total as u64, MAX_PIXELS).supply(&file[..first]));
    }
    // The beginning of a file that is longer than any, and a store that sends too little.
    let mut endless = ContentInspector::new(u64::MAX, MAX_PIXELS);
    for _ in 0..20 {
        if endless.supply(file).is_some() {
            break;
        }
    }
    // A bound that nothing fits into.
    assert!(inspect(file, 0, ReadBudget::DEFAULT).is_err());

    // Some files again with a hole in them, so that the rest lies where the first range does not reach.
    if hash % 16 == 0 {
        LONG.with_borrow_mut(|long| {
            let (before, after) = file.split_at(at(7));
            let hole = [1 << 16, 1 << 18, 1 << 20, 3 << 20][(hash >> 8) as usize % 4];
            long.clear();
            long.extend_from_slice(before);
            long.resize(before.len() + hole, 0);
            long.extend_from_slice(after);
            judge(long, 1 << 16);
        });
    }
});
