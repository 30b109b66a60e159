//! What a user's record must say, counted anew from the images. Shared by the test binaries.

use mongodb::bson::Document;

/// Of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// What counts against the quota: ready images with their previews, what open uploads have reserved, and what deleted and
    /// failed ones keep until their URLs are dead.
    pub bytes: i64,
    /// Ready ones.
    pub images: i64,
    /// Open uploads.
    pub pending: i64,
}

impl Counts {
    /// As the images have it when nothing is under way.
    pub fn of_images<'a>(images: impl Iterator<Item = &'a Document>) -> Self {
        let mut counts = Self::default();
        for image in images {
            // With one that has no size, no record is right.
            let size = image.get_i64("size").unwrap_or(i64::from(i32::MIN));
            let preview = image.get_document("preview").and_then(|preview| preview.get_i64("size")).unwrap_or_default();
            let reserved = image.get_document("reservation").and_then(|reservation| reservation.get_i64("bytes"));
            match image.get_str("state") {
                Ok("ready") => {
                    counts.bytes += reserved.unwrap_or(size + preview);
                    counts.images += 1;
                }
                Ok("pending") => {
                    // One that the version before reservations opened has none.
                    counts.bytes += reserved.or_else(|_| image.get_i64("reserved")).unwrap_or(size);
                    counts.pending += 1;
                }
                _ => counts.bytes += reserved.unwrap_or(0),
            }
        }
        counts
    }

    /// As the user's record has it; `None` when it cannot be read.
    pub fn of_user(user: &Document) -> Option<Self> {
        let number = |field| user.get_i64(field).ok();
        let held = i64::try_from(user.get_array("holds").ok()?.len()).ok()?;
        let pending = number("pending").unwrap_or(0) + held;
        Some(Self { bytes: number("usedBytes")?, images: number("images")?, pending })
    }
}

/// What does not fit together in the image's reservation and its state, when nothing is under way.
pub fn inconsistency(image: &Document) -> Option<String> {
    let reservation = image.get_document("reservation").ok();
    let place = reservation.map(|reservation| reservation.get_str("place").unwrap_or("?"));
    let fits = match image.get_str("state") {
        // None: the version before reservations opened it.
        Ok("pending") => matches!(place, None | Some("pending")),
        // Only while something can be written beside it.
        Ok("ready") => place.is_none() || (place == Some("image") && image.contains_key("due")),
        Ok("deleting" | "rejected" | "expired") => matches!(place, None | Some("none")),
        _ => place.is_none(),
    };
    (!fits).then(|| format!("a reservation that does not fit the state: {image}"))
}
