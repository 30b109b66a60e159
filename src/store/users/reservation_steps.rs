//! Announced steps of reservations: `settling: [{image, step, before, at, bytes, images, pending, hold, month, timeline}]`. An
//! entry has the amounts that its step adds to the counters, and the month of the timeline to which it adds `timeline` images;
//! it exists from before its image changes until the counters have changed (`store/reservations.rs`). `before` is the image's
//! latest step when it was read; `hold` is the bytes of a hold of an earlier version, which the entry replaces until the image has
//! a reservation.

use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;

use super::{
    Users, legacy_holds,
    quota::{QuotaLimits, StaleEntries, fits_quota, pending},
    timeline,
};
use crate::{
    model::{ImageId, ReservationStep, StepId, UserId},
    store::{StoreError, count, driver_events::Operation, entries, integer, last_step, whole_number},
};

/// Projection of a whole field.
const PROJECT_FIELD: Bson = Bson::Int32(1);

/// An announced step.
#[derive(Debug, Clone, Copy)]
pub struct AnnouncedStep {
    /// The image.
    pub image: ImageId,
    /// The step's id.
    pub id: StepId,
    /// The image's latest step when it was read: the step is taken only if this is still the latest.
    pub last_step: Option<StepId>,
    /// Bytes of the hold of an earlier version that becomes the image's reservation.
    pub hold: Option<u64>,
}

/// Counters of a user's record, with the announced steps that they do not include.
#[derive(Debug, Clone)]
pub(in crate::store) struct Counted<T> {
    /// The counters.
    pub(in crate::store) value: T,
    /// The announced steps; their images may have taken them.
    pub(in crate::store) announced: Vec<AnnouncedStep>,
}

impl<T> Counted<T> {
    /// Reads the announced steps of the record that has the counters.
    pub(super) fn new(value: T, record: &Document) -> Self {
        Self { value, announced: announced_steps(record) }
    }
}

/// The outcome of announcing steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum AnnounceOutcome {
    /// The steps are announced.
    Announced,
    /// Another step of one of the images is announced, or a hold of an earlier version counts one of the images, or the quota does
    /// not permit the steps.
    Conflict,
    /// The user does not exist, and has no counters.
    NoUser,
}

impl Users {
    /// Announces steps of a user's images: all of them or none. With `limits`, only if the quota permits the bytes that they add.
    pub(in crate::store) async fn announce_steps(
        &self,
        user: UserId,
        steps: impl Iterator<Item = (&AnnouncedStep, &ReservationStep)>,
        limits: Option<QuotaLimits>,
    ) -> Result<AnnounceOutcome, StoreError> {
        let (mut ids, mut announced, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
        for (step, change) in steps {
            let added = change.counts_after - change.counts_before;
            bytes = bytes.saturating_add(u64::try_from(added.bytes).unwrap_or(0));
            let mut entry = entry(step);
            entry.extend(doc! { "bytes": added.bytes, "images": added.images, "pending": added.pending });
            if let Some(month_change) = change.timeline {
                entry.extend(doc! { "month": month_change.month.to_string(), "timeline": month_change.images });
            }
            ids.push(step.image.to_string());
            announced.push(entry);
        }
        let mut filter = doc! { "_id": user.to_string(), "settling.image": { "$nin": &ids }, "holds.image": { "$nin": &ids } };
        filter.extend(limits.map(|limits| ("$expr".to_owned(), fits_quota(bytes, limits).into())));
        let set = doc! { "settling": { "$concatArrays": [settling(), announced] } };
        if self.mongo.update_one(&self.collection, filter, vec![doc! { "$set": set }]).await? {
            return Ok(AnnounceOutcome::Announced);
        }
        let users = self.collection.clone_with_type::<Document>();
        let query = || async { users.find_one(doc! { "_id": user.to_string() }).projection(doc! { "_id": 1 }).await };
        Ok(if self.mongo.read(Operation::find(&self.collection), query).await?.is_some() {
            AnnounceOutcome::Conflict
        } else {
            AnnounceOutcome::NoUser
        })
    }

    /// Turns holds of an earlier version into announced steps, which count the same amounts. Announces no step if one of the
    /// holds no longer exists.
    pub(in crate::store) async fn announce_conversions(&self, user: UserId, steps: &[AnnouncedStep]) -> Result<bool, StoreError> {
        if steps.is_empty() {
            return Ok(true);
        }
        let ids: Vec<_> = steps.iter().map(|step| step.image.to_string()).collect();
        let filter = doc! { "_id": user.to_string(), "settling.image": { "$nin": &ids }, "holds.image": { "$all": &ids } };
        let set = doc! {
            "pending": { "$add": [pending(), count(steps.len())] },
            "holds": legacy_holds::without(&ids),
            "settling": { "$concatArrays": [settling(), steps.iter().map(entry).collect::<Vec<_>>()] },
        };
        self.mongo.update_one(&self.collection, filter, vec![doc! { "$set": set }]).await
    }

    /// Removes the entries of `steps` and adds to the counters the amounts of those in `taken`. Entries that no longer exist
    /// add nothing.
    pub(in crate::store) async fn close_steps(
        &self,
        user: UserId,
        steps: &[AnnouncedStep],
        taken: &[StepId],
    ) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = steps.iter().map(|step| step.id.to_string()).collect();
        let taken: Vec<_> = taken.iter().map(ToString::to_string).collect();
        let counted = doc! { "$filter": { "input": settling(), "cond": { "$in": ["$$this.step", taken] } } };
        let sum = |field: &str| doc! { "$sum": { "$map": { "input": counted.clone(), "in": format!("$$this.{field}") } } };
        let set = doc! {
            "usedBytes": { "$add": ["$usedBytes", sum("bytes")] },
            "images": { "$add": ["$images", sum("images")] },
            "pending": { "$add": [pending(), sum("pending")] },
            "timeline": timeline::with_changes(counted),
            "settling": { "$filter": { "input": settling(), "cond": { "$not": [{ "$in": ["$$this.step", &all] }] } } },
        };
        let filter = doc! { "_id": user.to_string(), "settling.step": { "$in": all } };
        self.mongo.update_one(&self.collection, filter, vec![doc! { "$set": set }]).await.map(drop)
    }

    /// Returns the steps of a user's images that were announced `age` ago or earlier, by the database's clock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_announced_steps(&self, user: UserId, age: Duration) -> Result<Vec<AnnouncedStep>, StoreError> {
        let until = doc! { "$subtract": ["$$NOW", i64::try_from(age.as_millis()).unwrap_or(i64::MAX)] };
        let announced = doc! { "$filter": { "input": settling(), "cond": { "$lte": ["$$this.at", until] } } };
        self.read_steps(user, announced.into()).await
    }

    /// Returns all announced steps of a user's images, also those of a server whose clock is ahead of the database's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_all_steps(&self, user: UserId) -> Result<Vec<AnnouncedStep>, StoreError> {
        self.read_steps(user, PROJECT_FIELD).await
    }

    /// Reads the announced steps of a user: all that the projection of `settling` leaves.
    async fn read_steps(&self, user: UserId, projection: Bson) -> Result<Vec<AnnouncedStep>, StoreError> {
        let users = self.collection.clone_with_type::<Document>();
        let projection = doc! { "settling": projection };
        let query = || async { users.find_one(doc! { "_id": user.to_string() }).projection(projection.clone()).await };
        let found = self.mongo.read(Operation::find(&self.collection), query).await?.unwrap_or_default();
        Ok(announced_steps(&found))
    }

    /// Returns steps that were announced before `before`, of at most `users` users and at most `each` of a user: left by servers
    /// that died. The oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_stale_steps(
        &self,
        before: OffsetDateTime,
        users: u32,
        each: usize,
    ) -> Result<Vec<StaleEntries<AnnouncedStep>>, StoreError> {
        self.find_stale("settling", before, users, each, parse_step).await
    }

    /// Postpones a user's stale steps to `at`, so that they do not block those of other users.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn postpone_steps(&self, user: UserId, at: OffsetDateTime) -> Result<(), StoreError> {
        self.postpone_stale("settling", user, at).await
    }
}

/// Returns the entry of a step, with amounts of zero.
fn entry(step: &AnnouncedStep) -> Document {
    let mut entry = doc! {
        "image": step.image.to_string(),
        "step": step.id.to_string(),
        "before": last_step(step.last_step),
        "at": "$$NOW",
        "bytes": 0_i64,
        "images": 0_i64,
        "pending": 0_i64,
    };
    if let Some(bytes) = step.hold {
        entry.insert("hold", integer(bytes));
    }
    entry
}

/// Returns the announced steps of a user's record, except damaged ones.
fn announced_steps(record: &Document) -> Vec<AnnouncedStep> {
    entries(record, "settling").filter_map(parse_step).collect()
}

/// Converts an announced step; `None` if it is damaged.
fn parse_step(entry: &Document) -> Option<AnnouncedStep> {
    let hold = match entry.get("hold") {
        Some(_) => Some(u64::try_from(whole_number(entry, "hold")?).ok()?),
        None => None,
    };
    let last_step = match entry.get("before") {
        Some(Bson::String(last_step)) => Some(StepId::parse(last_step)?),
        _ => None,
    };
    let counts = ["bytes", "images", "pending"];
    let is_whole = counts.iter().all(|count| whole_number(entry, count).is_some());
    let (image, id) = (entry.get_str("image").ok()?, entry.get_str("step").ok()?);
    is_whole.then_some(AnnouncedStep { image: ImageId::parse(image)?, id: StepId::parse(id)?, last_step, hold })
}

/// Returns the expression of `settling`, which is absent from records of an earlier version.
fn settling() -> Document {
    doc! { "$ifNull": ["$settling", []] }
}
