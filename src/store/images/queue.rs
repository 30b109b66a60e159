//! The two queues of images: the sweeper's and the workers'. Each orders the images by a field with the time at which they are due,
//! and raising that field claims an image; `sweep_queue` and `renderings` have the claims.
//!
//! A record is claimed by its id, its owner and that field as it is stored, and decoded afterwards, so that damaged records never
//! block a queue.

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;

use super::Images;
use crate::{
    model::{Image, ImageState},
    store::{StoreError, datetime, driver_events::Operation, instant, whole_number},
};

/// A queue of images, by its consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageQueue {
    /// Ordered by `due`.
    Sweeper,
    /// Ordered by `rendering.due`.
    Workers,
}

impl ImageQueue {
    /// Returns the field with the time at which an image is due.
    fn due_field(self) -> &'static str {
        match self {
            Self::Sweeper => "due",
            Self::Workers => "rendering.due",
        }
    }

    /// Returns the projection of a [`QueuedImage`].
    pub(super) fn fields(self) -> Document {
        match self {
            Self::Sweeper => doc! { "user": 1, "due": 1, "state": 1, "size": 1, "sweepFailures": 1 },
            Self::Workers => doc! { "user": 1, "rendering": 1 },
        }
    }

    /// Returns the field with the time at which a record is due, and its value as it is stored. For a `rendering` that is not a
    /// document, that is the field `rendering`.
    fn stored_due(self, record: &Document) -> (&'static str, Bson) {
        match (self, record.get("rendering")) {
            (Self::Sweeper, _) => (self.due_field(), record.get("due").cloned().into()),
            (Self::Workers, Some(Bson::Document(rendering))) => (self.due_field(), rendering.get("due").cloned().into()),
            (Self::Workers, damaged) => ("rendering", damaged.cloned().into()),
        }
    }
}

/// A record of a queue, with the fields that decide its order and its claim. Any field may be damaged.
#[derive(Debug, Clone)]
pub struct QueuedImage {
    pub(super) id: Bson,
    pub(super) user: Bson,
    queue: ImageQueue,
    /// The result of [`ImageQueue::stored_due`], also if it cannot be read as a time; the condition of the claim.
    stored_due: (&'static str, Bson),
    /// Time at which the record is due.
    pub due: OffsetDateTime,
    /// Further fields in the sweeper's queue; their defaults in the workers' queue.
    pub sweep: SweepHints,
}

/// Fields by which the sweeper chooses how it sweeps an image, before it claims the image.
#[derive(Debug, Clone, Copy, Default)]
pub struct SweepHints {
    /// Whether the image's state is [`ImageState::Pending`].
    pub is_pending: bool,
    /// The upload's declared bytes, or their maximum; zero where they cannot be read.
    pub bytes: u64,
    /// Consecutive failures that no repeat cures.
    pub failures: u32,
}

impl SweepHints {
    /// Reads the fields of a record; a damaged field gets its default.
    fn read(record: &Document) -> Self {
        let number = |field: &str| whole_number(record, field).and_then(|n| u64::try_from(n).ok());
        Self {
            is_pending: record.get_str("state").is_ok_and(|state| state == ImageState::Pending.as_str()),
            bytes: number("size").unwrap_or(0),
            failures: number("sweepFailures").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        }
    }
}

impl QueuedImage {
    /// Reads the fields of a record that the queue needs; a record without a readable time is due at `now`.
    pub(super) fn read(queue: ImageQueue, record: &Document, now: OffsetDateTime) -> Self {
        let value = |field: &str| record.get(field).cloned().unwrap_or(Bson::Null);
        let stored_due = queue.stored_due(record);
        let due = stored_due.1.as_datetime().map_or(now, |due| instant(*due));
        Self { id: value("_id"), user: value("user"), queue, stored_due, due, sweep: SweepHints::read(record) }
    }

    /// Returns the record's id, for logs.
    #[must_use]
    pub fn id(&self) -> String {
        text(&self.id)
    }

    /// Returns the owner as stored: owners take turns in the queue.
    #[must_use]
    pub fn owner(&self) -> String {
        text(&self.user)
    }

    /// Returns the same record, due at another time, such as the end of the lease that claimed it.
    #[must_use]
    pub fn with_due(&self, due: OffsetDateTime) -> Self {
        Self { due, stored_due: (self.queue.due_field(), datetime(due).into()), ..self.clone() }
    }

    /// Returns a filter for the record while the time at which it is due is unchanged.
    pub(super) fn filter(&self) -> Document {
        let (field, value) = &self.stored_due;
        doc! { "_id": self.id.clone(), "user": self.user.clone(), *field: value.clone() }
    }
}

/// Outcome of a claim.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// The image as it is now, claimed until the lease ends.
    Image(Box<Image>, Lease),
    /// The record cannot be decoded, but is claimed.
    Unreadable(StoreError, Lease),
    /// Another consumer of the queue claimed it, or it is no longer due.
    Lost,
}

/// The times of a claim, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Time of the claim.
    pub now: OffsetDateTime,
    /// Time from which another consumer of the queue may claim the image.
    pub ends: OffsetDateTime,
}

impl Images {
    /// Returns the records that are due at `now`, the longest due first: all of them, or those that are due since `from`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_due(
        &self,
        queue: ImageQueue,
        from: Option<OffsetDateTime>,
        now: OffsetDateTime,
        limit: usize,
    ) -> Result<Vec<QueuedImage>, StoreError> {
        let field = queue.due_field();
        let mut between = doc! { "$lte": datetime(now) };
        between.extend(from.map(|from| ("$gte".to_owned(), datetime(from).into())));
        let filter = doc! { field: between };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let records = self.collection.clone_with_type::<Document>();
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = records.find(filter.clone()).projection(queue.fields()).sort(doc! { field: 1 });
            find.limit(limit).await?.try_collect::<Vec<_>>().await
        });
        Ok(found.await?.iter().map(|record| QueuedImage::read(queue, record, now)).collect())
    }
}

/// Returns a stored id of any type as a text.
fn text(value: &Bson) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
