//! What a user's record must say, counted anew from the images. Shared by the test binaries.

use std::collections::BTreeSet;

use mongodb::bson::{Bson, Document};

/// Of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// What counts against the quota: ready images with their previews, and what open uploads have reserved.
    pub bytes: i64,
    /// Ready ones.
    pub images: i64,
    /// Open uploads, each held once.
    pub held: BTreeSet<String>,
}

impl Counts {
    /// As the images have it.
    pub fn of_images<'a>(images: impl Iterator<Item = &'a Document>) -> Self {
        let mut counts = Self::default();
        for image in images {
            // With one that has no size, no record is right.
            let size = image.get_i64("size").unwrap_or(i64::from(i32::MIN));
            let preview = image.get_document("preview").and_then(|preview| preview.get_i64("size")).unwrap_or_default();
            match image.get_str("state") {
                Ok("ready") => {
                    counts.bytes += size + preview;
                    counts.images += 1;
                }
                Ok("pending") => {
                    counts.bytes += image.get_i64("reserved").unwrap_or(size);
                    counts.held.insert(image.get_str("_id").unwrap_or_default().to_owned());
                }
                _ => {}
            }
        }
        counts
    }

    /// As the user's record has it; `None` when there are no holds to read, or an upload is held twice.
    pub fn of_user(user: &Document) -> Option<Self> {
        let holds = user.get_array("holds").ok()?;
        let held: BTreeSet<_> =
            holds.iter().filter_map(Bson::as_document).filter_map(|hold| hold.get_str("image").ok()).map(str::to_owned).collect();
        let number = |field| user.get_i64(field).unwrap_or(i64::MIN);
        (held.len() == holds.len()).then(|| Self { bytes: number("usedBytes"), images: number("images"), held })
    }
}
