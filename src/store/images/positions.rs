//! Positions of damaged records in lists, so that the pages after them have all records that can be read.

use mongodb::bson::RawBsonRef;

use crate::{
    model::{ImageId, Position},
    store::{FIRST_SORT_TIME, LAST_SORT_TIME, instant},
};

/// The first of all ids.
pub(super) const FIRST_ID: ImageId = ImageId::from_bytes([0; 16]);
/// The last of all ids.
const LAST_ID: ImageId = ImageId::from_bytes([0xff; 16]);

/// Returns the position of a record in the order of the time taken. A damaged time has a position by its type, as MongoDB sorts
/// it, so that the next page has all images with a time that follow.
pub(super) fn taken_position(taken_sort: Option<RawBsonRef<'_>>, id: ImageId) -> Position {
    match taken_sort {
        Some(RawBsonRef::DateTime(at)) if at < FIRST_SORT_TIME => Position { at: None, id: LAST_ID },
        Some(RawBsonRef::DateTime(at)) if at <= LAST_SORT_TIME => Position { at: Some(instant(at)), id },
        // MongoDB sorts values of these types after dates: with the newest first, they come before them.
        Some(
            RawBsonRef::DateTime(_)
            | RawBsonRef::Timestamp(_)
            | RawBsonRef::RegularExpression(_)
            | RawBsonRef::DbPointer(_)
            | RawBsonRef::JavaScriptCode(_)
            | RawBsonRef::JavaScriptCodeWithScope(_)
            | RawBsonRef::MaxKey,
        ) => Position { at: Some(instant(LAST_SORT_TIME)), id: LAST_ID },
        None | Some(RawBsonRef::Null | RawBsonRef::Undefined) => Position { at: None, id },
        Some(RawBsonRef::MinKey) => Position { at: None, id: FIRST_ID },
        // The other types sort between null and dates.
        Some(_) => Position { at: None, id: LAST_ID },
    }
}

/// Returns the position of an `_id` among image ids, as an image id: for a malformed `_id`, the last image id that sorts before it.
pub(super) fn position_of_id(id: RawBsonRef<'_>) -> ImageId {
    match id {
        RawBsonRef::String(text) => last_id_up_to(text),
        // MongoDB orders values of these types before texts, and all others after them.
        RawBsonRef::Null | RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) | RawBsonRef::Decimal128(_) => {
            FIRST_ID
        }
        _ => LAST_ID,
    }
}

/// Returns the last id whose text does not sort after this one, or the first of all ids.
fn last_id_up_to(text: &str) -> ImageId {
    // `h` stands for a hexadecimal digit.
    const FORM: &str = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
    let (mut digits, mut left) = (0_u128, 32_u32);
    // The first and the last id that begin with these digits, when `left` more follow.
    let first = |digits: u128, left: u32| digits.checked_shl(4 * left).unwrap_or(0);
    let last = |digits, left| first(digits, left) | u128::MAX.checked_shr(128 - 4 * left).unwrap_or(0);
    let id = |number: u128| ImageId::from_bytes(number.to_be_bytes());
    for (index, form) in FORM.bytes().enumerate() {
        let byte = text.as_bytes().get(index).copied().unwrap_or(0);
        match (form, byte) {
            (b'-', b'-') => {}
            (b'h', b'0'..=b'9' | b'a'..=b'f') => {
                let digit = if byte <= b'9' { byte - b'0' } else { byte - b'a' + 10 };
                (digits, left) = (digits << 4 | u128::from(digit), left - 1);
            }
            // All ids with the same characters before this one sort after the text.
            (b'-', ..b'-') | (b'h', ..b'0') => return id(first(digits, left).saturating_sub(1)),
            // Of the ids with the same characters before this one, those with a letter here sort after the text.
            (b'h', ..b'a') => return id(last(digits << 4 | 9, left - 1)),
            // All ids with the same characters before this one sort before the text.
            _ => return id(last(digits, left)),
        }
    }
    id(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::text_strategies::{any_text, mutated};

    /// Generates ids and texts that resemble ids.
    fn texts() -> impl Strategy<Value = String> {
        let ids = any::<[u8; 16]>().prop_map(|id| ImageId::from_bytes(id).to_string());
        prop_oneof![
            any_text(),
            ids.clone().prop_flat_map(mutated),
            (ids, "[ -~]{0,2}", 0..37_usize).prop_map(|(id, more, length)| id[..length].to_owned() + &more)
        ]
    }

    proptest! {
        #[test]
        fn last_id_up_to_a_text_separates_the_ids_before_and_after_it(
            text in texts(),
            id in any::<[u8; 16]>(),
            distance in -2..3_i8,
        ) {
            let last = last_id_up_to(&text);
            let near = u128::from_be_bytes(*last.as_bytes()).saturating_add_signed(distance.into());
            for id in [ImageId::from_bytes(id), ImageId::from_bytes(near.to_be_bytes())] {
                let is_first = *id.as_bytes() == [0; 16];
                prop_assert!(is_first || (id.to_string() <= text) == (id <= last), "{id} and {text:?}: {last}");
            }
        }
    }
}
