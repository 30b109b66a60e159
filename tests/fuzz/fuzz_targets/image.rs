//! Headers of uploaded files, through the one entry that confirm uses. The input is a file, so any image is a seed.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use valet::domain::content::{Content, FIRST_HEAD, Inspection, MAX_HEAD, MAX_PIXELS, MAX_SIDE, inspect};

const TYPES: [&str; 7] = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/heic", "image/heif"];

/// What is said of a file of which this much is known.
fn ask(head: &[u8], total: usize) -> Inspection {
    let answer = inspect(head, total as u64, MAX_PIXELS);
    match answer {
        Inspection::NeedMore { bytes } => {
            assert!(bytes > head.len(), "asks for what it has");
            assert!(bytes <= total && bytes <= MAX_HEAD, "asks for what it may not have");
        }
        Inspection::Proved(Content { format, width, height }) => {
            assert!((1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height));
            assert!(u64::from(width) * u64::from(height) <= MAX_PIXELS);
            assert!(TYPES.iter().any(|name| format.matches(name)));
        }
        Inspection::Refused(_) => {}
    }
    answer
}

/// Whether two heads of a file lead to the same end. Why a file is refused is for the log alone, and may depend on what was seen first.
fn agree(one: &Inspection, other: &Inspection) -> bool {
    one == other || matches!((one, other), (Inspection::Refused(_), Inspection::Refused(_)))
}

/// A file, and what is seen of it through heads of these lengths.
fn judge(file: &[u8], heads: impl IntoIterator<Item = usize>) {
    let total = file.len();
    let whole = ask(&file[..total.min(MAX_HEAD)], total);
    assert!(!matches!(whole, Inspection::NeedMore { .. }), "all that is ever looked at is not enough");
    for head in heads {
        let answer = ask(&file[..head.min(total).min(MAX_HEAD)], total);
        assert!(
            agree(&answer, &whole) || matches!(answer, Inspection::NeedMore { .. }),
            "the answer depends on how the head grew"
        );
    }
    // As confirm asks.
    let mut head = total.min(FIRST_HEAD);
    for request in 1.. {
        assert!(request <= 3, "more than three requests");
        match ask(&file[..head], total) {
            Inspection::NeedMore { bytes } => head = bytes,
            answer => {
                assert_eq!(answer, whole);
                break;
            }
        }
    }
}

thread_local! {
    static LONG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fuzz_target!(|file: &[u8]| {
    let total = file.len();
    // Where to cut, from the bytes themselves: the same for the same file.
    let hash = file.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let at = |n: u32| (hash.rotate_left(n) % (total as u64 + 1)) as usize;
    judge(file, [0, 1, 11, 12, total.saturating_sub(1), at(0), at(17), at(34), at(51)]);

    // Nothing behind the file's end counts.
    let longer = [file, &hash.to_le_bytes()].concat();
    assert_eq!(inspect(&longer, total as u64, MAX_PIXELS), inspect(file, total as u64, MAX_PIXELS));
    // The head of a file that is said to be longer than any.
    assert!(!matches!(inspect(file, u64::MAX, MAX_PIXELS), Inspection::NeedMore { bytes } if bytes <= total || bytes > MAX_HEAD));
    // A bound that nothing fits into.
    assert!(!matches!(inspect(file, total as u64, 0), Inspection::Proved(_)));

    // Some files again with a hole in them, so that what counts lies where a head does not reach.
    if hash % 16 == 0 {
        LONG.with_borrow_mut(|long| {
            let (before, after) = file.split_at(at(7));
            let hole = [FIRST_HEAD, 4 * FIRST_HEAD, MAX_HEAD - total.min(MAX_HEAD), MAX_HEAD][(hash >> 8) as usize % 4];
            long.clear();
            long.extend_from_slice(before);
            long.resize(before.len() + hole, 0);
            long.extend_from_slice(after);
            judge(long, [FIRST_HEAD / 2, FIRST_HEAD, FIRST_HEAD + at(23), hole, hole + at(29)]);
        });
    }
});
