//! Reservations of quota: `usedBytes`, `images` and `pending` are counters, and `opening` lists the uploads that are being
//! opened at this moment.
//!
//! Opening an upload takes two writes: one conditional update of the user counts its bytes and adds an entry to `opening`; then
//! the image is inserted, whose own `reservation` replaces the entry. If the server dies in between, the sweeper releases the
//! bytes in the entry, once: the update that subtracts them removes the entry. An entry whose image was inserted is removed by
//! the same server's next reservation for this user, or else by the sweeper; so the length of `opening` is the number of
//! uploads being opened at once, not of open uploads. `reservation_steps` changes the counters from then on.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};
use parking_lot::Mutex;
use time::OffsetDateTime;

use super::{Counted, ID_PATTERN, Users, deletion::not_deleted};
use crate::{
    model::{Image, ImageId, Usage, UserId},
    store::{StoreError, count, datetime, driver_events::Operation, entries, integer, whole_number},
};

/// The outcome of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// The bytes are counted.
    Reserved,
    /// Nothing was counted: over the quota, over the limit of open uploads, or no such user.
    Rejected,
}

/// Limits of a user.
#[derive(Debug, Clone, Copy)]
pub struct QuotaLimits {
    /// Maximum of the total bytes of a user without an own quota.
    pub quota_bytes: u64,
    /// Maximum number of open uploads.
    pub max_pending: u32,
}

/// Entries in a user's document that are older than any request.
#[derive(Debug, Clone)]
pub struct StaleEntries<T> {
    /// The user.
    pub user: UserId,
    /// The entries, up to the requested number.
    pub entries: Vec<T>,
    /// Number of entries that cannot be read.
    pub unreadable: u32,
}

/// The largest number of users whose inserted uploads are remembered; beyond it, all are forgotten.
const MAX_REMEMBERED_USERS: usize = 10_000;

/// Uploads that this server has inserted and whose entries in `opening` are to be removed. If this server forgets an upload, the
/// sweeper removes its entry.
#[derive(Debug, Default)]
pub(super) struct InsertedUploads(Mutex<HashMap<UserId, Vec<ImageId>>>);

impl InsertedUploads {
    /// Adds inserted uploads of a user; forgets all of them if there are too many users.
    fn add(&self, user: UserId, images: impl Iterator<Item = ImageId>) {
        let mut known = self.0.lock();
        if known.len() >= MAX_REMEMBERED_USERS && !known.contains_key(&user) {
            known.clear();
        }
        known.entry(user).or_default().extend(images);
    }

    /// Removes and returns the uploads of a user.
    fn take(&self, user: UserId) -> Vec<ImageId> {
        self.0.lock().remove(&user).unwrap_or_default()
    }
}

impl Users {
    /// Returns the counters in the user's record.
    pub(in crate::store) async fn usage(&self, user: UserId) -> Result<Option<Counted<Usage>>, StoreError> {
        let counts = self.collection.clone_with_type::<Document>();
        let found = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                counts.find_one(not_deleted(doc! { "_id": user.to_string() })).projection(usage_projection()).await
            })
            .await?;
        found.map(|found| Ok(Counted::new(read_usage(&found, &user.to_string())?, &found))).transpose()
    }

    /// Counts new uploads, if both the quota and the limit of open uploads allow all of them: one conditional update, so that of
    /// concurrent reservations exactly those that fit succeed. Its cost does not depend on the number of open uploads.
    ///
    /// # Errors
    /// [`StoreError`]; entries without an image may then remain, which the sweeper releases.
    pub async fn reserve(
        &self,
        user: UserId,
        uploads: &[&Image],
        limits: QuotaLimits,
        now: OffsetDateTime,
    ) -> Result<ReserveOutcome, StoreError> {
        let bytes = uploads.iter().fold(0_u64, |sum, image| sum.saturating_add(image.reserved));
        let max_others = u64::from(limits.max_pending).checked_sub(uploads.len() as u64);
        let Some(max_others) = max_others else { return Ok(ReserveOutcome::Rejected) };
        let fits_quota = fits_quota(bytes, limits);
        let fits_pending = doc! { "$lte": [{ "$add": [pending(), holds()] }, integer(max_others)] };
        let mut filter = not_deleted(doc! { "_id": user.to_string(), "usedBytes": { "$type": "number" } });
        filter.insert("$expr", doc! { "$and": [fits_quota, fits_pending] });
        let entry =
            |image: &&Image| doc! { "image": image.id.to_string(), "bytes": integer(image.reserved), "at": datetime(now) };
        let opened: Vec<_> = uploads.iter().map(entry).collect();
        let inserted = self.inserted.take(user);
        let set = doc! {
            "usedBytes": { "$add": ["$usedBytes", integer(bytes)] },
            "pending": { "$add": [pending(), count(uploads.len())] },
            "opening": { "$concatArrays": [opening_without(&inserted), opened] },
        };
        let done = self.mongo.update_one(&self.collection, filter, vec![doc! { "$set": set }]).await;
        if !inserted.is_empty() && !matches!(done, Ok(true)) {
            self.inserted.add(user, inserted.into_iter());
        }
        Ok(if done? { ReserveOutcome::Reserved } else { ReserveOutcome::Rejected })
    }

    /// Records that the images of these uploads were inserted: the next reservation removes their entries in `opening`.
    pub fn remember_inserted(&self, user: UserId, images: impl Iterator<Item = ImageId>) {
        self.inserted.add(user, images);
    }

    /// Removes entries of `opening`: entries whose image was `inserted`, and entries of `cancelled` uploads. Releases the counts of
    /// the cancelled uploads, and returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat: the entry's amount is subtracted in the update that removes it.
    pub async fn close_openings(&self, user: UserId, inserted: &[ImageId], cancelled: &[ImageId]) -> Result<u32, StoreError> {
        let all: Vec<_> = inserted.iter().chain(cancelled).copied().collect();
        if all.is_empty() {
            return Ok(0);
        }
        let cancelled = texts(cancelled);
        let freed = doc! { "$filter": { "input": opening(), "cond": { "$in": ["$$this.image", cancelled.clone()] } } };
        let set = doc! {
            "usedBytes": { "$subtract": ["$usedBytes", { "$sum": { "$map": { "input": freed.clone(), "in": "$$this.bytes" } } }] },
            "pending": { "$subtract": [pending(), { "$size": freed }] },
            "opening": opening_without(&all),
        };
        let filter = doc! { "_id": user.to_string(), "opening.image": { "$in": texts(&all) } };
        let users = self.collection.clone_with_type::<Document>();
        let update = users.find_one_and_update(filter, vec![doc! { "$set": set }]);
        let update = update.projection(doc! { "opening.image": 1 }).return_document(ReturnDocument::Before);
        let before =
            self.mongo.run(Operation::find_and_modify(&self.collection), async { update.await }).await?.unwrap_or_default();
        let is_cancelled = |entry: &&Document| entry.get_str("image").is_ok_and(|image| cancelled.iter().any(|id| id == image));
        Ok(u32::try_from(entries(&before, "opening").filter(is_cancelled).count()).unwrap_or(u32::MAX))
    }

    /// Returns entries of `opening` made before `before`, of at most `users` users and at most `each` of a user: left by servers
    /// that died, or inserted and not yet removed. The oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_stale_openings(
        &self,
        before: OffsetDateTime,
        users: u32,
        each: usize,
    ) -> Result<Vec<StaleEntries<ImageId>>, StoreError> {
        // An entry without a number of bytes cannot be released.
        let read =
            |entry: &Document| ImageId::parse(entry.get_str("image").ok()?).filter(|_| whole_number(entry, "bytes").is_some());
        self.find_stale("opening", before, users, each, read).await
    }

    /// Postpones a user's stale openings to `at`, so that they do not block those of other users.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn postpone_openings(&self, user: UserId, at: OffsetDateTime) -> Result<(), StoreError> {
        self.postpone_stale("opening", user, at).await
    }

    /// Returns entries of the array `field` whose `at` is before `before`, the users with the oldest first. Entries whose `at` is a
    /// list count as unreadable: the database compares its elements.
    pub(super) async fn find_stale<T>(
        &self,
        field: &'static str,
        before: OffsetDateTime,
        users: u32,
        each: usize,
        read: impl Fn(&Document) -> Option<T>,
    ) -> Result<Vec<StaleEntries<T>>, StoreError> {
        let (at, before) = (format!("{field}.at"), datetime(before));
        // A record without a valid user id, or whose field is not an array, cannot be postponed, and must not block others.
        let filter = doc! { &at: { "$lt": before }, field: { "$type": "array" }, "_id": { "$regex": ID_PATTERN } };
        let order = doc! { &at: 1 };
        let documents = self.collection.clone_with_type::<Document>();
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = documents.find(filter.clone()).projection(doc! { field: 1 }).sort(order.clone());
            find.limit(i64::from(users)).await?.try_collect::<Vec<_>>().await
        });
        let stale_of = |document: Document| {
            let user = document.get_str("_id").ok().and_then(UserId::parse)?;
            let is_stale = |entry: &&Document| match entry.get("at") {
                Some(Bson::DateTime(at)) => *at < before,
                at => matches!(at, Some(Bson::Array(_))),
            };
            let stale = entries(&document, field).filter(is_stale).take(each);
            let mut found = StaleEntries { user, entries: Vec::new(), unreadable: 0 };
            for entry in stale {
                match entry.get_datetime("at").ok().and_then(|_| read(entry)) {
                    Some(entry) => found.entries.push(entry),
                    None => found.unreadable += 1,
                }
            }
            Some(found)
        };
        Ok(found.await?.into_iter().filter_map(stale_of).collect())
    }

    /// Sets to `at` the time of all older entries in the array `field` of a user's record.
    pub(super) async fn postpone_stale(&self, field: &str, user: UserId, at: OffsetDateTime) -> Result<(), StoreError> {
        let stale = doc! { "entry.at": { "$lt": datetime(at) } };
        let update = doc! { "$set": { format!("{field}.$[entry].at"): datetime(at) } };
        let update = self.collection.update_one(doc! { "_id": user.to_string() }, update).array_filters([stale]);
        self.mongo.run(Operation::update(&self.collection), async { update.await }).await.map(drop)
    }

    /// Returns the uploads that are being opened for a user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_openings(&self, user: UserId) -> Result<Vec<ImageId>, StoreError> {
        let documents = self.collection.clone_with_type::<Document>();
        let projection = doc! { "opening.image": 1 };
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            documents.find_one(doc! { "_id": user.to_string() }).projection(projection.clone()).await
        });
        let found = found.await?.unwrap_or_default();
        Ok(entries(&found, "opening").filter_map(|entry| entry.get_str("image").ok().and_then(ImageId::parse)).collect())
    }
}

/// Returns the condition that the quota permits `bytes` in addition to those that are counted, and to those that announced steps
/// will add.
pub(super) fn fits_quota(bytes: u64, limits: QuotaLimits) -> Document {
    let quota = doc! { "$ifNull": ["$quotaBytes", integer(limits.quota_bytes)] };
    let steps = doc! { "$cond": [{ "$isArray": "$settling" }, "$settling", []] };
    let announced = doc! { "$sum": { "$map": { "input": steps, "in": { "$max": [0_i64, "$$this.bytes"] } } } };
    doc! { "$lte": ["$usedBytes", { "$subtract": [quota, { "$add": [integer(bytes), announced] }] }] }
}

/// Returns the projection for [`read_usage`]. Its expression has a value for every record, so that a damaged record fails no query.
pub(super) fn usage_projection() -> Document {
    let is_number = doc! { "$in": [{ "$type": pending() }, ["int", "long"]] };
    let sum = doc! { "$add": [pending(), { "$cond": [{ "$isArray": "$holds" }, holds(), 0_i64] }] };
    doc! { "usedBytes": 1, "images": 1, "quotaBytes": 1, "settling": 1, "pending": { "$cond": [is_number, sum, "$pending"] } }
}

/// Returns the counters of the record `id`.
pub(super) fn read_usage(found: &Document, id: &str) -> Result<Usage, StoreError> {
    let counter = |field: &'static str| {
        // While servers of an earlier version run, a counter may briefly be negative.
        whole_number(found, field).map(|n| u64::try_from(n).unwrap_or(0)).ok_or_else(|| StoreError::Corrupt {
            collection: "users",
            id: id.to_owned(),
            field,
        })
    };
    let own_quota = whole_number(found, "quotaBytes").map(|quota| u64::try_from(quota).unwrap_or(0));
    Ok(Usage { bytes: counter("usedBytes")?, images: counter("images")?, pending: counter("pending")?, own_quota })
}

/// Returns ids as texts.
fn texts(images: &[ImageId]) -> Vec<String> {
    images.iter().map(ToString::to_string).collect()
}

/// Returns the expression of `opening`, which is absent from records of an earlier version.
fn opening() -> Document {
    doc! { "$ifNull": ["$opening", []] }
}

/// Returns the expression of the entries in `opening` without these images.
fn opening_without(images: &[ImageId]) -> Document {
    if images.is_empty() {
        return opening();
    }
    doc! { "$filter": { "input": opening(), "cond": { "$not": [{ "$in": ["$$this.image", texts(images)] }] } } }
}

/// Returns the expression of the number of open uploads, except those that an earlier version counts by holds.
pub(in crate::store) fn pending() -> Document {
    doc! { "$ifNull": ["$pending", 0_i64] }
}

/// Returns the expression of the number of open uploads that an earlier version counts.
fn holds() -> Document {
    doc! { "$size": { "$ifNull": ["$holds", []] } }
}
