//! Networks that accounts were signed in to from: `knownNetworks {_id: "<user>/<network>", at}`. A TTL index on `at` forgets them. A
//! collection of its own: nobody reads it but logins of an account that is under attack.

use std::time::Duration;

use mongodb::{
    Collection, IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};
use time::OffsetDateTime;

use super::{Calls, StoreError, datetime};
use crate::model::UserId;

/// How long a network is known after a sign-in from there.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Queries and updates of `knownNetworks`.
#[derive(Debug, Clone)]
pub struct KnownNetworks {
    collection: Collection<Document>,
    calls: Calls,
}

fn id(user: UserId, network: &str) -> String {
    format!("{user}/{network}")
}

impl KnownNetworks {
    pub(super) fn new(calls: &Calls) -> Self {
        Self { collection: calls.database().collection("knownNetworks"), calls: calls.clone() }
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let ttl = IndexOptions::builder().name("at".to_owned()).expire_after(KEPT).build();
        let index = IndexModel::builder().keys(doc! { "at": 1 }).options(ttl).build();
        self.calls.run(async { self.collection.create_index(index).await }).await.map(drop)
    }

    /// Records a sign-in from a network.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn record(&self, user: UserId, network: &str, now: OffsetDateTime) -> Result<(), StoreError> {
        let (filter, update) = (doc! { "_id": id(user, network) }, doc! { "$max": { "at": datetime(now) } });
        self.calls.run(async { self.collection.update_one(filter, update).upsert(true).await }).await.map(drop)
    }

    /// Whether the account was signed in to from this network lately.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_known(&self, user: UserId, network: &str, now: OffsetDateTime) -> Result<bool, StoreError> {
        // The database removes what is too old once a minute; until then it does not count any more.
        let filter = doc! { "_id": id(user, network), "at": { "$gt": datetime(now - KEPT) } };
        Ok(self.calls.read(|| async { self.collection.find_one(filter.clone()).await }).await?.is_some())
    }

    /// Forgets the networks of a deleted account.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn forget_all(&self, user: UserId) -> Result<(), StoreError> {
        // '0' is the character after '/'.
        let filter = doc! { "_id": { "$gte": id(user, ""), "$lt": format!("{user}0") } };
        self.calls.run(async { self.collection.delete_many(filter).await }).await.map(drop)
    }
}
