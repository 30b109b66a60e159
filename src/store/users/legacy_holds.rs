//! Legacy holds: the entries by which an earlier version counts open uploads, and their conversion while both versions run.
//!
//! The earlier version has `users.holds: [{image, bytes, at}]`, one for each open upload, and its images have no
//! `reservation`. So the image shows which version counts it:
//!
//! - Without a reservation, its hold counts it, and the update that removes the hold decides, once, whether the bytes are
//!   released. This version settles such an image by the same rule, and the sweeper converts the holds of pending ones: one
//!   update of the user turns the hold into an announced step that counts the same amounts, and the step gives the image its
//!   `reservation`, in any state that the earlier version has set meanwhile. `usedBytes` does not change.
//! - With a reservation, the earlier version finds no hold and changes no counter when it confirms, rejects, expires or deletes
//!   the pending upload; the sweeper of this version finds the reservation that no longer fits the state, and settles it. When
//!   the earlier version deletes a *ready* image it subtracts the image's bytes and one image; the counts of such a tombstone
//!   take that into account (`model/reservation.rs`).
//!
//! The limit of open uploads is enforced on the uploads that each version counts: this version adds `holds` to `pending`,
//! the earlier version reads `holds` alone.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{ID_PATTERN, Users};
use crate::{
    model::{ImageId, UserId},
    store::{StoreError, driver_events::Operation, instant, integer, whole_number},
};

/// A hold of an earlier version.
#[derive(Debug, Clone, Copy)]
pub struct LegacyHold {
    /// The upload.
    pub image: ImageId,
    /// Bytes that are counted for the upload.
    pub bytes: u64,
    /// Time of its creation, or of its next examination.
    pub at: OffsetDateTime,
}

/// The first holds of a user.
#[derive(Debug, Clone)]
pub struct LegacyHolds {
    /// The user.
    pub user: UserId,
    /// Readable holds, each image once.
    pub holds: Vec<LegacyHold>,
    /// Holds that cannot be read.
    pub unreadable: u32,
}

impl Users {
    /// Returns users that have holds, in the order of their ids after `after`: at most `limit` users, and at most `each` holds
    /// of a user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn legacy_holds(&self, after: Option<UserId>, limit: u32, each: i32) -> Result<Vec<LegacyHolds>, StoreError> {
        let after = after.map_or_else(String::new, |after| after.to_string());
        let filter = doc! { "holds.at": { "$exists": true }, "_id": { "$gt": after, "$regex": ID_PATTERN } };
        let documents = self.collection.clone_with_type::<Document>();
        let projection = first_holds(each);
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find =
                documents.find(filter.clone()).projection(projection.clone()).sort(doc! { "_id": 1 }).limit(i64::from(limit));
            find.await?.try_collect::<Vec<_>>().await
        });
        Ok(found.await?.iter().filter_map(holds_of).collect())
    }

    /// Returns the first holds of one user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn legacy_holds_of(&self, user: UserId, each: i32) -> Result<Option<LegacyHolds>, StoreError> {
        let documents = self.collection.clone_with_type::<Document>();
        let projection = first_holds(each);
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            documents.find_one(doc! { "_id": user.to_string() }).projection(projection.clone()).await
        });
        Ok(found.await?.as_ref().and_then(holds_of))
    }

    /// Removes holds: the images of `ready` stay counted, without their surplus bytes; those of `ended` are no longer counted.
    /// Missing holds change nothing.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat: the amount subtracted depends on the holds that the same update removes.
    pub async fn settle_legacy_holds(&self, user: UserId, ready: &[(ImageId, u64)], ended: &[ImageId]) -> Result<(), StoreError> {
        if ready.is_empty() && ended.is_empty() {
            return Ok(());
        }
        let ready_ids: Vec<_> = ready.iter().map(|(image, _)| image.to_string()).collect();
        let ended_ids: Vec<_> = ended.iter().map(ToString::to_string).collect();
        let all: Vec<_> = ready_ids.iter().chain(&ended_ids).cloned().collect();
        let held_in = |ids: &[String]| doc! { "$filter": { "input": "$holds", "cond": { "$in": ["$$this.image", ids] } } };
        let mut freed = vec![doc! { "$sum": { "$map": { "input": held_in(&ended_ids), "in": "$$this.bytes" } } }];
        let surplus = ready.iter().filter(|(_, surplus)| *surplus > 0);
        freed.extend(surplus.map(|(image, surplus)| {
            doc! { "$cond": [{ "$in": [image.to_string(), "$holds.image"] }, integer(*surplus), 0_i64] }
        }));
        let set = doc! {
            "usedBytes": { "$subtract": ["$usedBytes", { "$add": freed }] },
            "images": { "$add": ["$images", { "$size": held_in(&ready_ids) }] },
            "holds": without(&all),
        };
        let filter = doc! { "_id": user.to_string(), "holds.image": { "$in": all } };
        self.mongo.update_one(&self.collection, filter, vec![doc! { "$set": set }]).await.map(drop)
    }
}

/// Returns the expression of the holds without those of these images.
pub(super) fn without(images: &[String]) -> Document {
    doc! { "$filter": { "input": "$holds", "cond": { "$not": [{ "$in": ["$$this.image", images] }] } } }
}

/// Returns the projection for [`holds_of`]: the first `each` holds that [`read`] can read, and the number of unreadable holds.
fn first_holds(each: i32) -> Document {
    let is = |field: &str, types: &[&str]| doc! { "$in": [{ "$type": format!("$$this{field}") }, types] };
    let is_readable = doc! { "$and": [
        is("", &["object"]),
        is(".image", &["string"]),
        is(".bytes", &["int", "long"]),
        is(".at", &["date"]),
        { "$gte": ["$$this.bytes", 0_i64] },
        { "$regexMatch": { "input": { "$cond": [is(".image", &["string"]), "$$this.image", ""] }, "regex": ID_PATTERN } },
    ] };
    let all = doc! { "$cond": [{ "$isArray": "$holds" }, "$holds", []] };
    let readable = doc! { "$filter": { "input": all.clone(), "cond": is_readable } };
    doc! {
        "holds": { "$slice": [readable.clone(), each] },
        "unreadable": { "$subtract": [{ "$size": all }, { "$size": readable }] },
    }
}

/// Reads the holds in a user's record; `None` if its id is not a user id.
fn holds_of(user: &Document) -> Option<LegacyHolds> {
    let id = user.get_str("_id").ok().and_then(UserId::parse)?;
    let mut unreadable = whole_number(user, "unreadable").and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let (mut seen, mut holds) = (HashSet::new(), Vec::new());
    for hold in user.get_array("holds").map_or(&[][..], Vec::as_slice) {
        match hold.as_document().and_then(read) {
            Some(hold) if seen.insert(hold.image) => holds.push(hold),
            Some(_) => {}
            None => unreadable += 1,
        }
    }
    Some(LegacyHolds { user: id, holds, unreadable })
}

/// Converts a stored hold; `None` if it is damaged.
fn read(hold: &Document) -> Option<LegacyHold> {
    let bytes = u64::try_from(whole_number(hold, "bytes")?).ok()?;
    let image = hold.get_str("image").ok().and_then(ImageId::parse)?;
    Some(LegacyHold { image, bytes, at: instant(*hold.get_datetime("at").ok()?) })
}
