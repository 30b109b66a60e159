//! Networks from which accounts were signed in to: `knownNetworks {_id: "<user>/<network>", at}`. A TTL index on `at` removes
//! them. A separate collection, because only logins to an account under attack read it.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};
use time::OffsetDateTime;

use super::{MongoClient, StoreError, datetime, driver_events::Operation};
use crate::model::UserId;

/// Time for which a network is known after a sign-in from it.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Maximum number of stored networks of an account: an IPv6 network has many free hosts, whose sign-ins must not fill the
/// database.
const MAX_NETWORKS: u64 = 200;

/// Queries and updates of `knownNetworks`.
#[derive(Debug, Clone)]
pub struct KnownNetworks {
    collection: Collection<Document>,
    mongo: MongoClient,
}

/// Returns the id of a user's network.
fn id(user: UserId, network: &str) -> String {
    format!("{user}/{network}")
}

/// Returns a filter for all networks of a user.
fn owned_by(user: UserId) -> Document {
    // All ids that begin with `<user>/`: '0' is the character after '/'.
    doc! { "_id": { "$gte": id(user, ""), "$lt": format!("{user}0") } }
}

impl KnownNetworks {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self { collection: mongo.database().collection("knownNetworks"), mongo: mongo.clone() }
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let ttl = IndexOptions::builder().name("at".to_owned()).expire_after(RETENTION).build();
        let index = IndexModel::builder().keys(doc! { "at": 1 }).options(ttl).build();
        self.mongo.create_indexes(&self.collection, [index]).await
    }

    /// Records a sign-in from the networks that contain its address, and deletes the oldest beyond `MAX_NETWORKS` of the account.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn record(&self, user: UserId, networks: &[String], now: OffsetDateTime) -> Result<(), StoreError> {
        for network in networks {
            let (filter, update) = (doc! { "_id": id(user, network) }, doc! { "$max": { "at": datetime(now) } });
            self.mongo
                .run(Operation::update(&self.collection), async { self.collection.update_one(filter, update).upsert(true).await })
                .await?;
        }
        let find_excess = || async {
            let found = self
                .collection
                .find(owned_by(user))
                .sort(doc! { "at": -1 })
                .skip(MAX_NETWORKS)
                .projection(doc! { "_id": 1 })
                .await?;
            found.try_collect::<Vec<_>>().await
        };
        let excess = self.mongo.read(Operation::find(&self.collection), find_excess).await?;
        let ids: Vec<_> = excess.iter().filter_map(|document| document.get("_id").cloned()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.mongo.delete_many(&self.collection, doc! { "_id": { "$in": ids } }).await.map(drop)
    }

    /// Returns those of the networks from which the account was recently signed in to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_known(&self, user: UserId, networks: [&str; 2], now: OffsetDateTime) -> Result<Vec<String>, StoreError> {
        let ids = networks.map(|network| id(user, network)).to_vec();
        // The TTL monitor runs once a minute; until then an expired record is ignored.
        let filter = doc! { "_id": { "$in": ids }, "at": { "$gt": datetime(now - RETENTION) } };
        let find = || async { self.collection.find(filter.clone()).await?.try_collect::<Vec<_>>().await };
        let found = self.mongo.read(Operation::find(&self.collection), find).await?;
        let network = |document: &Document| document.get_str("_id").ok()?.split_once('/').map(|(_, network)| network.to_owned());
        Ok(found.iter().filter_map(network).collect())
    }

    /// Deletes the networks of a deleted account.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_all(&self, user: UserId) -> Result<(), StoreError> {
        self.mongo.delete_many(&self.collection, owned_by(user)).await.map(drop)
    }
}
