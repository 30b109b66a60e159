//! Pages of a listing: the limit, and the keyset cursor of the next page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use time::OffsetDateTime;

use super::problem::{Code, Problem};
use crate::model::{Image, ImageId, Position, Sha256, UserId};

/// Number of items on a page without a `limit`.
pub const DEFAULT_LIMIT: i64 = 50;
/// Largest `limit`.
pub const MAX_LIMIT: i64 = 100;
/// Value in a cursor for a position without a time: milliseconds that no time has.
const NO_TIME: i64 = i64::MIN;

/// Listing that a cursor belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Listing {
    /// Ready images of a user.
    Gallery(UserId),
    /// Ready images of a user in the order in which they were taken.
    Taken(UserId),
    /// Open uploads of a user.
    Pending(UserId),
    /// All users.
    Users,
}

/// Returns the size of the page.
///
/// # Errors
/// 400 for a limit out of range: clamping would hide a client's mistake.
pub fn parse_limit(requested: Option<i64>) -> Result<u32, Problem> {
    let limit = requested.unwrap_or(DEFAULT_LIMIT);
    let fits = u32::try_from(limit).ok().filter(|_| (1..=MAX_LIMIT).contains(&limit));
    let rule = "must be from 1 to 100";
    fits.ok_or_else(|| Problem::new(Code::InvalidRequest, "The limit is out of range.").field("limit", rule))
}

/// Returns the position after which the page of a cursor starts, in a listing of images.
///
/// # Errors
/// 400 for a text that this listing did not issue.
pub fn parse_cursor(cursor: Option<&str>, listing: Listing) -> Result<Option<Position>, Problem> {
    parse_optional(cursor, |cursor| {
        // Eight bytes of milliseconds, and sixteen of the image's id.
        let position_bytes: [u8; 24] = decode(cursor, listing)?;
        let (at, id) = position_bytes.split_first_chunk::<8>()?;
        let millis = i64::from_be_bytes(*at);
        let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok();
        let at = match listing {
            Listing::Gallery(_) => Some(instant?),
            Listing::Taken(_) if millis == NO_TIME => None,
            Listing::Taken(_) => Some(instant?),
            Listing::Pending(_) | Listing::Users => None,
        };
        Some(Position { at, id: ImageId::from_bytes(id.try_into().ok()?) })
    })
}

/// Returns the user after whom the page of a cursor starts, in the list of all users.
///
/// # Errors
/// 400 for a text that this list did not issue.
pub fn parse_user_cursor(cursor: Option<&str>) -> Result<Option<UserId>, Problem> {
    parse_optional(cursor, |cursor| decode(cursor, Listing::Users).map(UserId::from_bytes))
}

/// Splits the images that were read, at most one more than the limit, into the page and the cursor of the next page.
pub fn split_page(mut found: Vec<Image>, limit: u32, listing: Listing) -> (Vec<Image>, Option<String>) {
    let limit = limit as usize;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let cursor_after =
        |last: &Image| encode_cursor(Position { at: last.ready().map(|ready| ready.uploaded_at), id: last.id }, listing);
    let cursor = found.last().filter(|_| has_more).map(cursor_after);
    (found, cursor)
}

/// Returns the cursor with which a listing of images continues after this position.
pub fn encode_cursor(last: Position, listing: Listing) -> String {
    let without_time = if matches!(listing, Listing::Taken(_)) { NO_TIME } else { 0 };
    let millis = last.at.map_or(without_time, |at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX));
    encode(&[&millis.to_be_bytes()[..], last.id.as_bytes()].concat(), listing)
}

/// Returns the cursor with which the list of all users continues after this one.
pub fn encode_user_cursor(last: UserId) -> String {
    encode(last.as_bytes(), Listing::Users)
}

/// Returns the cursor of a position: its bytes and their checksum, in base64.
fn encode(position_bytes: &[u8], listing: Listing) -> String {
    URL_SAFE_NO_PAD.encode([position_bytes, &checksum(position_bytes, listing)].concat())
}

/// Returns the bytes of a cursor's position; `None` for a cursor of another listing.
fn decode<const LENGTH: usize>(cursor: &str, listing: Listing) -> Option<[u8; LENGTH]> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (position_bytes, check) = bytes.split_first_chunk()?;
    (check == checksum(position_bytes, listing)).then_some(*position_bytes)
}

/// Parses a cursor if there is one.
fn parse_optional<T>(cursor: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    let detail = "Send the `nextCursor` of the previous page unchanged, or no cursor for the first page.";
    cursor.map(|cursor| parse(cursor).ok_or_else(|| Problem::new(Code::InvalidCursor, detail))).transpose()
}

/// Returns the checksum by which damaged cursors, and those of other users and listings, are rejected. It protects no secret: a
/// forged cursor shows only items that its caller may list.
fn checksum(position_bytes: &[u8], listing: Listing) -> [u8; 8] {
    let (name, owner): (&[u8], Option<UserId>) = match listing {
        Listing::Gallery(owner) => (b"gallery 1", Some(owner)),
        Listing::Taken(owner) => (b"taken 1", Some(owner)),
        Listing::Pending(owner) => (b"pending 1", Some(owner)),
        Listing::Users => (b"users 1", None),
    };
    let owner = owner.as_ref().map_or(&[][..], |owner| owner.as_bytes());
    let mut short = [0; 8];
    short.copy_from_slice(&Sha256::of([name, owner, position_bytes]).to_bytes()[..8]);
    short
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::text_strategies::{any_text, mutated};

    /// Returns the listings of a user's images.
    fn listings(user: UserId) -> [Listing; 3] {
        [Listing::Gallery(user), Listing::Pending(user), Listing::Taken(user)]
    }

    /// Generates times of the years 1 to 9999, in whole milliseconds.
    fn instants() -> impl Strategy<Value = OffsetDateTime> {
        (-62_135_596_800_000..253_402_300_800_000_i64)
            .prop_map(|millis| OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap())
    }

    /// Returns whether every listing rejects a cursor.
    fn is_rejected_everywhere(text: &str, user: UserId) -> bool {
        listings(user).iter().all(|listing| parse_cursor(Some(text), *listing).is_err()) && parse_user_cursor(Some(text)).is_err()
    }

    proptest! {
        #[test]
        fn cursors_are_valid_only_for_their_listing_and_user(at in instants(), id in any::<[u8; 16]>(), owner in any::<[u8; 16]>()) {
            let (id, owner) = (ImageId::from_bytes(id), UserId::from_bytes(owner));
            let [of_gallery, of_pending, of_taken] = listings(owner);
            let text = |listing| encode_cursor(Position { at: Some(at), id }, listing);
            let gallery = parse_cursor(Some(&text(of_gallery)), of_gallery).ok().flatten().unwrap();
            prop_assert_eq!((gallery.at, gallery.id), (Some(at), id));
            let pending = parse_cursor(Some(&text(of_pending)), of_pending).ok().flatten().unwrap();
            prop_assert_eq!((pending.at, pending.id), (None, id));
            for at in [Some(at), None] {
                let position = Position { at, id };
                prop_assert_eq!(parse_cursor(Some(&encode_cursor(position, of_taken)), of_taken).ok().flatten(), Some(position));
            }
            prop_assert!(parse_cursor(Some(&text(of_taken)), of_gallery).is_err(), "another order");
            prop_assert!(parse_cursor(Some(&text(of_gallery)), of_taken).is_err(), "another order");
            prop_assert!(parse_cursor(Some(&text(of_gallery)), of_pending).is_err(), "another listing");
            prop_assert!(is_rejected_everywhere(&text(of_gallery), UserId::new()), "another user");
            prop_assert_eq!(parse_user_cursor(Some(&encode_user_cursor(owner))).ok().flatten(), Some(owner));
        }

        #[test]
        fn other_texts_are_rejected(text in prop_oneof![any_text(), "[A-Za-z0-9_-]{42,44}"], user in any::<[u8; 16]>()) {
            prop_assert!(is_rejected_everywhere(&text, UserId::from_bytes(user)));
        }

        #[test]
        fn changed_cursors_are_rejected(
            (user, text) in (instants(), any::<[u8; 16]>(), any::<[u8; 16]>(), 0..3_usize).prop_flat_map(|(at, id, user, index)| {
                let user = UserId::from_bytes(user);
                let position = Position { at: Some(at), id: ImageId::from_bytes(id) };
                let texts = [encode_cursor(position, listings(user)[index]), encode_user_cursor(user)];
                (Just(user), proptest::sample::select(texts.to_vec()).prop_flat_map(mutated))
            })
        ) {
            prop_assert!(is_rejected_everywhere(&text, user));
        }

        #[test]
        fn forged_cursors_with_valid_checksums_cause_no_panic(
            millis in any::<i64>(), id in any::<[u8; 16]>(), user in any::<[u8; 16]>()
        ) {
            let user = UserId::from_bytes(user);
            for listing in listings(user) {
                let text = encode(&[&millis.to_be_bytes()[..], &id].concat(), listing);
                if let Ok(found) = parse_cursor(Some(&text), listing) {
                    prop_assert_eq!(*found.unwrap().id.as_bytes(), id);
                }
            }
        }
    }
}
