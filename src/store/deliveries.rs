//! Deliveries: `deliveries {_id, endpoint, event, type, body, at, due, tries, lease, last, doneAt, deadAt, why}`, one document for
//! each event and endpoint.
//!
//! `_id` is derived from both, so that any number of servers, and repeats after a crash, insert one document. `due` is present
//! until the delivery has ended. A claim moves it a minute ahead ([`LEASE`]) and writes a random `lease`, which the record of the
//! attempt must still find: a delivery whose server died is due again after that minute, and its attempt is not counted in `tries`.
//! `doneAt` or `deadAt` ends it, and a TTL index then removes the document.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Bson, Document, doc},
    options::IndexOptions,
};
use time::OffsetDateTime;

use super::{MongoClient, StoreError, datetime, driver_events::Operation, duplicates, whole_number};
use crate::model::{Sha256, StepId};

/// Time for which a delivery stays in the database after its endpoint has accepted it.
const DONE_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Duration of a claim: longer than an attempt and the write of its outcome.
const LEASE: Duration = Duration::from_secs(60);
/// Time for which a delivery stays in the database after it was given up.
const DEAD_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A delivery that is to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery<'a> {
    /// The endpoint's id.
    pub endpoint: &'a str,
    /// The event's id.
    pub event: &'a str,
    /// The name of the event's type.
    pub type_name: &'a str,
    /// The message's text, which is signed and sent as it is.
    pub body: &'a str,
    /// Time of the change.
    pub at: OffsetDateTime,
    /// Time of the first attempt.
    pub due: OffsetDateTime,
}

impl NewDelivery<'_> {
    /// Returns the id of the delivery of an event to an endpoint.
    fn id(&self) -> String {
        hex::encode(Sha256::of([self.event, "\0", self.endpoint]).to_bytes())
    }

    /// Returns the document of a new delivery.
    fn document(&self) -> Document {
        doc! {
            "_id": self.id(),
            "endpoint": self.endpoint,
            "event": self.event,
            "type": self.type_name,
            "body": self.body,
            "at": datetime(self.at),
            "due": datetime(self.due),
            "tries": 0_i64,
        }
    }
}

/// A delivery that is due, as it was read.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    id: Bson,
    due: Bson,
    /// The event's id; `None` if it cannot be read.
    event: Option<String>,
    /// The message; `None` if it cannot be read.
    body: Option<String>,
    tries: u32,
}

/// A delivery that this server makes.
#[derive(Debug, Clone)]
pub struct ClaimedDelivery {
    id: Bson,
    lease: String,
    /// The event's id.
    pub event: String,
    /// The message's text.
    pub body: String,
    /// Attempts before this one.
    pub tries: u32,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// HTTP status of the answer; `None` without one.
    pub status: Option<u16>,
    /// Reason why there was no answer.
    pub error: Option<&'static str>,
    /// Duration of the attempt.
    pub took: Duration,
    /// Time at which it ended.
    pub at: OffsetDateTime,
}

/// The next state of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint has the message.
    Delivered,
    /// Another attempt is made at this time.
    Retry(OffsetDateTime),
    /// The delivery is given up for this reason.
    Dead(&'static str),
}

/// Queries and updates of `deliveries`.
#[derive(Debug, Clone)]
pub struct Deliveries {
    collection: Collection<Document>,
    mongo: MongoClient,
}

impl Deliveries {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self { collection: mongo.database().collection("deliveries"), mongo: mongo.clone() }
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let index = |keys, options| IndexModel::builder().keys(keys).options(options).build();
        let named = |name: &str| IndexOptions::builder().name(name.to_owned());
        let due = named("due").partial_filter_expression(doc! { "due": { "$exists": true } }).build();
        let indexes = [
            index(doc! { "endpoint": 1, "due": 1 }, due),
            index(doc! { "endpoint": 1, "at": -1 }, named("endpoint").build()),
            index(doc! { "doneAt": 1 }, named("done").expire_after(DONE_TTL).build()),
            index(doc! { "deadAt": 1 }, named("dead").expire_after(DEAD_TTL).build()),
        ];
        self.mongo.create_indexes(&self.collection, indexes).await
    }

    /// Inserts the deliveries that do not exist yet, in one round trip.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be inserted, and a repeat inserts the others.
    pub async fn insert_new(&self, deliveries: &[NewDelivery<'_>]) -> Result<(), StoreError> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let documents: Vec<_> = deliveries.iter().map(NewDelivery::document).collect();
        let insert = async { self.collection.insert_many(&documents).ordered(false).await };
        match self.mongo.run(Operation::insert(&self.collection), insert).await {
            Ok(_) => Ok(()),
            Err(StoreError::Database(error)) if duplicates(&error).is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns deliveries to an endpoint that are due at `now`, the longest due first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_due_deliveries(
        &self,
        endpoint: &str,
        now: OffsetDateTime,
        limit: usize,
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let filter = doc! { "endpoint": endpoint, "due": { "$lte": datetime(now) } };
            self.collection.find(filter).sort(doc! { "due": 1 }).limit(limit).await?.try_collect::<Vec<_>>().await
        });
        Ok(found.await?.iter().map(DueDelivery::read).collect())
    }

    /// Claims a delivery. Returns `None` if another server was first, and for a delivery that cannot be read, which is given up.
    ///
    /// # Errors
    /// [`StoreError`]; a claim whose answer was lost ends by itself.
    pub async fn claim(&self, delivery: DueDelivery, now: OffsetDateTime) -> Result<Option<ClaimedDelivery>, StoreError> {
        let DueDelivery { id, due, event, body, tries } = delivery;
        let filter = doc! { "_id": id.clone(), "due": due };
        let (Some(event), Some(body)) = (event, body) else {
            tracing::error!(%id, "failed to read a delivery; it is given up");
            let set = doc! { "deadAt": datetime(now), "why": "unreadable" };
            let update = doc! { "$set": set, "$unset": { "due": "", "lease": "" } };
            return self.mongo.update_one(&self.collection, filter, update).await.map(|_| None);
        };
        let lease = StepId::new().to_string();
        let set = doc! { "due": datetime(now + LEASE), "lease": &lease };
        let is_first = self.mongo.update_one(&self.collection, filter, doc! { "$set": set }).await?;
        Ok(is_first.then_some(ClaimedDelivery { id, lease, event, body, tries }))
    }

    /// Records the outcome of a claimed delivery's attempt. Returns whether the claim still held.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn record(&self, claimed: &ClaimedDelivery, attempt: Attempt, outcome: Outcome) -> Result<bool, StoreError> {
        let mut last = doc! { "at": datetime(attempt.at), "ms": i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX) };
        last.extend(attempt.status.map(|status| ("status".to_owned(), i64::from(status).into())));
        last.extend(attempt.error.map(|error| ("error".to_owned(), error.into())));
        let (mut set, mut unset) = (doc! { "last": last }, doc! { "lease": "" });
        match outcome {
            Outcome::Retry(due) => drop(set.insert("due", datetime(due))),
            Outcome::Delivered => {
                set.insert("doneAt", datetime(attempt.at));
                unset.insert("due", "");
            }
            Outcome::Dead(why) => {
                set.extend([("deadAt".to_owned(), datetime(attempt.at).into()), ("why".to_owned(), why.into())]);
                unset.insert("due", "");
            }
        }
        set.insert("tries", i64::from(claimed.tries) + 1);
        let filter = doc! { "_id": claimed.id.clone(), "lease": &claimed.lease };
        self.mongo.update_one(&self.collection, filter, doc! { "$set": set, "$unset": unset }).await
    }

    /// Gives up all deliveries that wait for an endpoint that is off or disabled, and returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn give_up_all(&self, endpoint: &str, now: OffsetDateTime) -> Result<u64, StoreError> {
        // A claimed delivery is left to the server that makes its attempt.
        let is_free = [doc! { "lease": { "$exists": false } }, doc! { "due": { "$lte": datetime(now) } }];
        let filter = doc! { "endpoint": endpoint, "due": { "$exists": true }, "$or": is_free.to_vec() };
        let set = doc! { "deadAt": datetime(now), "why": "endpoint is off" };
        let update = doc! { "$set": set, "$unset": { "due": "", "lease": "" } };
        Ok(self.mongo.update_many(&self.collection, filter, update).await?.modified_count)
    }

    /// Makes the ended deliveries to an endpoint due again, as if never attempted, if their changes were made at `since` or later.
    /// Returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn replay(&self, endpoint: &str, since: OffsetDateTime, now: OffsetDateTime) -> Result<u64, StoreError> {
        let filter = doc! { "endpoint": endpoint, "at": { "$gte": datetime(since) }, "due": { "$exists": false } };
        let set = doc! { "due": datetime(now), "tries": 0_i64 };
        let update = doc! { "$set": set, "$unset": { "doneAt": "", "deadAt": "", "why": "" } };
        Ok(self.mongo.update_many(&self.collection, filter, update).await?.modified_count)
    }
}

impl DueDelivery {
    /// Reads the fields of a delivery that a claim needs; a damaged field becomes `None` or zero.
    fn read(record: &Document) -> Self {
        let value = |field: &str| record.get(field).cloned().unwrap_or(Bson::Null);
        let text = |field: &str| record.get_str(field).ok().map(str::to_owned);
        let tries = whole_number(record, "tries").and_then(|tries| tries.try_into().ok()).unwrap_or(0);
        Self { id: value("_id"), due: value("due"), event: text("event"), body: text("body"), tries }
    }
}
