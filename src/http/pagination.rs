//! Pages of a listing: the limit, and the keyset cursor of the next page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use time::OffsetDateTime;

use super::problem::{Code, Problem};
use crate::model::{Image, ImageId, Position, Sha256, UserId};

/// Items on a page without a `limit`.
const DEFAULT_LIMIT: i64 = 50;
/// Largest `limit`.
pub const MAX_LIMIT: i64 = 100;

/// Listing that a cursor belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Listing {
    /// Ready images.
    Gallery,
    /// Open uploads.
    Pending,
}

/// Returns the size of the page.
///
/// # Errors
/// 400 for a limit out of range: clamping would hide a client's mistake.
pub fn limit(asked: Option<i64>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
    let fits = u32::try_from(limit).ok().filter(|_| (1..=MAX_LIMIT).contains(&limit));
    let rule = "must be from 1 to 100";
    fits.ok_or_else(|| Problem::new(Code::InvalidRequest, "The limit is out of range.").field("limit", rule))
}

/// Returns the position after which the page of a cursor starts.
///
/// # Errors
/// 400 for a text that this listing did not issue to this user.
pub fn after(cursor: Option<&str>, listing: Listing, user: UserId) -> Result<Option<Position>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let bad = || {
        Problem::new(
            Code::InvalidCursor,
            "Send the `nextCursor` of the previous page unchanged, or no cursor for the first page.",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    let (place, check) = bytes.split_at_checked(24).ok_or_else(bad)?;
    if check != checksum(place, listing, user) {
        return Err(bad());
    }
    let (at, id) = place.split_at(8);
    let millis = i64::from_be_bytes(at.try_into().map_err(|_| bad())?);
    let id = ImageId::from_bytes(id.try_into().map_err(|_| bad())?);
    let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).map_err(|_| bad())?;
    Ok(Some(Position { uploaded_at: matches!(listing, Listing::Gallery).then_some(instant), id }))
}

/// Splits the items that were read, at most one more than the limit, into the page and the cursor of the next page.
pub fn split<T>(mut found: Vec<T>, limit: u32, listing: Listing, image: impl Fn(&T) -> &Image) -> (Vec<T>, Option<String>) {
    let limit = limit as usize;
    let more = found.len() > limit;
    found.truncate(limit);
    let place = |last: &Image| {
        cursor(Position { uploaded_at: last.ready().map(|ready| ready.uploaded_at), id: last.id }, last.user, listing)
    };
    let cursor = found.last().filter(|_| more).map(|last| place(image(last)));
    (found, cursor)
}

/// Returns the cursor with which this user continues after this position.
pub fn cursor(last: Position, user: UserId, listing: Listing) -> String {
    let millis = last.uploaded_at.map_or(0, |at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX));
    let mut place = Vec::with_capacity(32);
    place.extend(millis.to_be_bytes());
    place.extend(last.id.as_bytes());
    place.extend(checksum(&place, listing, user));
    URL_SAFE_NO_PAD.encode(place)
}

/// Detects damaged cursors, and those of other users and listings. It protects no secret: a forged cursor shows only the caller's
/// own images.
fn checksum(place: &[u8], listing: Listing, user: UserId) -> [u8; 8] {
    let listing: &[u8] = match listing {
        Listing::Gallery => b"gallery 1",
        Listing::Pending => b"pending 1",
    };
    let mut short = [0; 8];
    short.copy_from_slice(&Sha256::of([listing, user.as_bytes(), place]).to_bytes()[..8]);
    short
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::text_strategies::{any_text, mutated};

    const LISTINGS: [Listing; 2] = [Listing::Gallery, Listing::Pending];

    /// Milliseconds of the years that an instant can name.
    fn instants() -> impl Strategy<Value = OffsetDateTime> {
        (-62_135_596_800_000..253_402_300_800_000_i64)
            .prop_map(|millis| OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap())
    }

    fn is_refused(text: &str, user: UserId) -> bool {
        LISTINGS.iter().all(|listing| after(Some(text), *listing, user).is_err())
    }

    proptest! {
        #[test]
        fn cursors_are_valid_only_for_their_listing_and_user(at in instants(), id in any::<[u8; 16]>(), owner in any::<[u8; 16]>()) {
            let (id, owner) = (ImageId::from_bytes(id), UserId::from_bytes(owner));
            let text = |listing| cursor(Position { uploaded_at: Some(at), id }, owner, listing);
            let gallery = after(Some(&text(Listing::Gallery)), Listing::Gallery, owner).ok().flatten().unwrap();
            prop_assert_eq!((gallery.uploaded_at, gallery.id), (Some(at), id));
            let pending = after(Some(&text(Listing::Pending)), Listing::Pending, owner).ok().flatten().unwrap();
            prop_assert_eq!((pending.uploaded_at, pending.id), (None, id));
            prop_assert!(after(Some(&text(Listing::Gallery)), Listing::Pending, owner).is_err(), "another listing");
            prop_assert!(is_refused(&text(Listing::Gallery), UserId::new()), "another user");
        }

        #[test]
        fn other_texts_are_rejected(text in prop_oneof![any_text(), "[A-Za-z0-9_-]{42,44}"], user in any::<[u8; 16]>()) {
            prop_assert!(is_refused(&text, UserId::from_bytes(user)));
        }

        #[test]
        fn changed_cursors_are_rejected(
            (user, text) in (instants(), any::<[u8; 16]>(), any::<[u8; 16]>(), any::<bool>()).prop_flat_map(|(at, id, user, first)| {
                let user = UserId::from_bytes(user);
                let place = Position { uploaded_at: Some(at), id: ImageId::from_bytes(id) };
                (Just(user), mutated(cursor(place, user, LISTINGS[usize::from(first)])))
            })
        ) {
            prop_assert!(is_refused(&text, user));
        }

        /// A cursor with a valid checksum and any position causes no panic.
        #[test]
        fn forged_cursors_are_harmless(millis in any::<i64>(), id in any::<[u8; 16]>(), user in any::<[u8; 16]>()) {
            let user = UserId::from_bytes(user);
            for listing in LISTINGS {
                let place = [&millis.to_be_bytes()[..], &id].concat();
                let text = URL_SAFE_NO_PAD.encode([&place[..], &checksum(&place, listing, user)].concat());
                if let Ok(found) = after(Some(&text), listing, user) {
                    prop_assert_eq!(*found.unwrap().id.as_bytes(), id);
                }
            }
        }
    }
}
