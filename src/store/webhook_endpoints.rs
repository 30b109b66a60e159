//! Webhook endpoints: `endpoints {_id, slot, url, types, secretGen, rotatedAt, state, disabledWhy, firstFailureAt, createdAt}`.
//!
//! No secret is stored: it is derived from `WEBHOOK_SECRET`, the id and the generation `secretGen`. `slot` is a number that no two
//! endpoints share, and limits how many endpoints there are.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Bson, Document, doc},
    options::IndexOptions,
};
use time::OffsetDateTime;

use super::{MongoClient, StoreError, datetime, driver_events::Operation, instant, is_duplicate, whole_number};
use crate::model::{DisabledReason, EndpointState, WebhookEndpoint};

/// Queries and updates of `endpoints`.
#[derive(Debug, Clone)]
pub struct WebhookEndpoints {
    collection: Collection<Document>,
    mongo: MongoClient,
}

/// Reads an endpoint; `None` without a readable id. An endpoint without readable types receives events of all types.
fn read(record: &Document) -> Option<WebhookEndpoint> {
    let types = record.get_array("types").map_or(&[][..], Vec::as_slice).iter().filter_map(Bson::as_str);
    let at = |field: &str| record.get_datetime(field).ok().map(|at| instant(*at));
    Some(WebhookEndpoint {
        id: record.get_str("_id").ok()?.to_owned(),
        url: record.get_str("url").unwrap_or_default().to_owned(),
        types: types.map(str::to_owned).collect(),
        secret_generation: whole_number(record, "secretGen").and_then(|n| n.try_into().ok()).unwrap_or(1),
        rotated_at: at("rotatedAt"),
        state: EndpointState::parse(record.get_str("state").unwrap_or_default()),
        disabled_reason: record.get_str("disabledWhy").ok().map(str::to_owned),
        first_failure_at: at("firstFailureAt"),
        created_at: at("createdAt").unwrap_or(OffsetDateTime::UNIX_EPOCH),
    })
}

impl WebhookEndpoints {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self { collection: mongo.database().collection("endpoints"), mongo: mongo.clone() }
    }

    /// Returns all readable endpoints, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_all(&self) -> Result<Vec<WebhookEndpoint>, StoreError> {
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            self.collection.find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect::<Vec<_>>().await
        });
        Ok(found.await?.iter().filter_map(read).collect())
    }

    /// Creates the index by which a second endpoint with the same slot is rejected.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn make_indexes(&self) -> Result<(), StoreError> {
        let options = IndexOptions::builder().name("slot".to_owned()).unique(true);
        let options = options.partial_filter_expression(doc! { "slot": { "$exists": true } }).build();
        let index = IndexModel::builder().keys(doc! { "slot": 1 }).options(options).build();
        self.mongo.create_indexes(&self.collection, [index]).await
    }

    /// Returns the slots that are taken.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_slots(&self) -> Result<BTreeSet<i64>, StoreError> {
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            self.collection.find(doc! {}).projection(doc! { "slot": 1 }).await?.try_collect::<Vec<_>>().await
        });
        Ok(found.await?.iter().filter_map(|record| whole_number(record, "slot")).collect())
    }

    /// Inserts an endpoint in a slot, and returns whether the slot was free.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert(&self, endpoint: &WebhookEndpoint, slot: i64) -> Result<bool, StoreError> {
        let document = doc! {
            "_id": &endpoint.id,
            "slot": slot,
            "url": &endpoint.url,
            "types": &endpoint.types,
            "secretGen": i64::from(endpoint.secret_generation),
            "state": endpoint.state.as_str(),
            "createdAt": datetime(endpoint.created_at),
        };
        match self.mongo.insert_one(&self.collection, document).await {
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(false),
            inserted => inserted.map(|()| true),
        }
    }

    /// Replaces the secret of generation `from` by the next, and returns whether it was the current one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rotate(&self, id: &str, from: u32, now: OffsetDateTime) -> Result<bool, StoreError> {
        let set = doc! { "secretGen": i64::from(from) + 1, "rotatedAt": datetime(now) };
        self.update(doc! { "_id": id, "secretGen": i64::from(from) }, doc! { "$set": set }).await
    }

    /// Lets an endpoint receive messages again, and removes the record of its failures. Returns whether it exists.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn enable(&self, id: &str) -> Result<bool, StoreError> {
        let unset = doc! { "disabledWhy": "", "firstFailureAt": "" };
        self.update(doc! { "_id": id }, doc! { "$set": { "state": EndpointState::On.as_str() }, "$unset": unset }).await
    }

    /// Turns an endpoint off for the operator. Returns whether it exists.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn turn_off(&self, id: &str) -> Result<bool, StoreError> {
        self.update(doc! { "_id": id }, doc! { "$set": { "state": EndpointState::Off.as_str() } }).await
    }

    /// Disables an endpoint that is on. Returns whether this call disabled it.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn disable_now(&self, id: &str, why: DisabledReason) -> Result<bool, StoreError> {
        self.disable(doc! { "_id": id }, why).await
    }

    /// Disables an endpoint that is on and has failed since that time or longer. Returns whether this call disabled it.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn disable_if_failing_since(&self, id: &str, since: OffsetDateTime) -> Result<bool, StoreError> {
        self.disable(doc! { "_id": id, "firstFailureAt": { "$lte": datetime(since) } }, DisabledReason::Failing).await
    }

    /// Disables the endpoint that the filter matches, if it is on.
    async fn disable(&self, mut filter: Document, why: DisabledReason) -> Result<bool, StoreError> {
        filter.insert("state", EndpointState::On.as_str());
        let set = doc! { "state": EndpointState::Disabled.as_str(), "disabledWhy": why.as_str() };
        self.update(filter, doc! { "$set": set }).await
    }

    /// Stores the time of a failed attempt, if it is the first since an attempt succeeded. Returns whether it is.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn record_failure(&self, id: &str, now: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! { "_id": id, "firstFailureAt": { "$exists": false } };
        self.update(filter, doc! { "$set": { "firstFailureAt": datetime(now) } }).await
    }

    /// Records a successful attempt: removes the time of the first failure. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn record_success(&self, id: &str) -> Result<bool, StoreError> {
        let filter = doc! { "_id": id, "firstFailureAt": { "$exists": true } };
        self.update(filter, doc! { "$unset": { "firstFailureAt": "" } }).await
    }

    /// Updates one endpoint; returns whether one matched.
    async fn update(&self, filter: Document, update: Document) -> Result<bool, StoreError> {
        self.mongo.update_one(&self.collection, filter, update).await
    }
}
