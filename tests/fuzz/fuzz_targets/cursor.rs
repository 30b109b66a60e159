//! Fuzzes keyset cursors. The input is a user's id (16 bytes), an image's id (16), milliseconds (8), a position and a byte to
//! replace in a cursor (1 each), and text that may be a cursor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use time::OffsetDateTime;
use valet::{
    http::{
        fuzzing::{Listing, encode_cursor, parse_cursor},
        problem::Code,
    },
    model::{ImageId, Position, UserId},
};

const LISTINGS: [fn(UserId) -> Listing; 3] = [Listing::Gallery, Listing::Pending, Listing::Taken];

/// Parses a cursor; asserts that a malformed one gives the problem `InvalidCursor`.
fn read(text: &str, listing: Listing) -> Option<Position> {
    match parse_cursor(Some(text), listing) {
        Ok(position) => Some(position.expect("a cursor has a position")),
        Err(problem) => {
            assert_eq!(problem.code, Code::InvalidCursor);
            None
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((user, rest)) = bytes.split_first_chunk::<16>() else { return };
    let Some((id, rest)) = rest.split_first_chunk::<16>() else { return };
    let Some((millis, rest)) = rest.split_first_chunk::<8>() else { return };
    let Some((&[changed_at, new_byte], text)) = rest.split_first_chunk::<2>() else { return };
    let (user, id) = (UserId::from_bytes(*user), ImageId::from_bytes(*id));
    let text = String::from_utf8_lossy(text);
    for listing in LISTINGS {
        // The result is ignored: the input may contain a valid cursor of this user.
        let _ = read(&text, listing(user));
    }

    let nanos = i128::from(i64::from_be_bytes(*millis)) * 1_000_000;
    let Ok(instant) = OffsetDateTime::from_unix_timestamp_nanos(nanos) else { return };
    let other = UserId::from_bytes(user.as_bytes().map(|byte| !byte));
    for (listing_index, at) in [(0, Some(instant)), (1, None), (2, Some(instant)), (2, None)] {
        let (listing, another) = (LISTINGS[listing_index], LISTINGS[(listing_index + 1) % 3]);
        let given = Position { at, id };
        let text = encode_cursor(given, listing(user));
        assert_eq!(read(&text, listing(user)), Some(given), "a cursor returns its position");
        assert_eq!(read(&text, listing(other)), None, "a cursor is rejected for another user");
        assert_eq!(read(&text, another(user)), None, "a cursor is rejected in another list");
        let mut changed = text.clone().into_bytes();
        let at = usize::from(changed_at) % changed.len();
        changed[at] = new_byte;
        let changed = String::from_utf8_lossy(&changed);
        if changed != text {
            assert_eq!(read(&changed, listing(user)), None, "a changed cursor is rejected");
        }
        assert_eq!(read(&text[..at], listing(user)), None, "a shortened cursor is rejected");
        assert_eq!(read(&format!("{text}{}", char::from(new_byte)), listing(user)), None, "a lengthened cursor is rejected");
    }
});
