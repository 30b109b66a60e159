//! Recomputes the counters of a user's record from the images. Shared by the test binaries.

use mongodb::bson::Document;

/// Counters of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes that count against the quota: ready images with their previews, reservations of open uploads, and bytes that deleted
    /// and failed images keep until their URLs expire.
    pub bytes: i64,
    /// Number of ready images.
    pub images: i64,
    /// Number of open uploads.
    pub pending: i64,
}

impl Counts {
    /// Computes the counters from a user's images; correct only while no operation is in progress.
    pub fn of_images<'a>(images: impl Iterator<Item = &'a Document>) -> Self {
        let mut counts = Self::default();
        for image in images {
            // A missing size counts as a negative number, so that the sum differs from every user's record.
            let size = image.get_i64("size").unwrap_or(i64::from(i32::MIN));
            let preview = image.get_document("preview").and_then(|preview| preview.get_i64("size")).unwrap_or_default();
            let reserved = image.get_document("reservation").and_then(|reservation| reservation.get_i64("bytes"));
            match image.get_str("state") {
                Ok("ready") => {
                    counts.bytes += reserved.unwrap_or(size + preview);
                    counts.images += 1;
                }
                Ok("pending") => {
                    // An image that an earlier version opened has no reservation.
                    counts.bytes += reserved.or_else(|_| image.get_i64("reserved")).unwrap_or(size);
                    counts.pending += 1;
                }
                _ => counts.bytes += reserved.unwrap_or(0),
            }
        }
        counts
    }

    /// Reads the counters in the user's record; `None` if they are unreadable.
    pub fn of_user(user: &Document) -> Option<Self> {
        let number = |field| user.get_i64(field).ok();
        let holds = i64::try_from(user.get_array("holds").ok()?.len()).ok()?;
        let pending = number("pending").unwrap_or(0) + holds;
        Some(Self { bytes: number("usedBytes")?, images: number("images")?, pending })
    }
}

/// Returns a description of an image whose reservation contradicts its state; correct only while no operation is in progress.
pub fn reservation_mismatch(image: &Document) -> Option<String> {
    let reservation = image.get_document("reservation").ok();
    let place = reservation.map(|reservation| reservation.get_str("place").unwrap_or("?"));
    let fits = match image.get_str("state") {
        // A reservation without `place` was made by an earlier version.
        Ok("pending") => matches!(place, None | Some("pending")),
        // Only while another object may still be written, until `due`.
        Ok("ready") => place.is_none() || (place == Some("image") && image.contains_key("due")),
        Ok("deleting" | "rejected" | "expired") => matches!(place, None | Some("none")),
        _ => place.is_none(),
    };
    (!fits).then(|| format!("a reservation that does not fit the state: {image}"))
}
