//! Service keys: `serviceKeys {_id, name, hash, scopes, createdAt, expiresAt, lastUsedAt, revokedAt}`. Only the SHA-256 of a key's
//! secret is stored. The record of a revoked key stays, so that its id in the audit log can be looked up.

use futures_util::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Binary, DateTime, doc, spec::BinarySubtype},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{MongoClient, StoreError, datetime, driver_events::Operation, instant};
use crate::model::{Scope, ServiceKeyId};

/// Queries and updates of `serviceKeys`.
#[derive(Debug, Clone)]
pub struct ServiceKeys {
    collection: Collection<ServiceKeyDoc>,
    mongo: MongoClient,
}

/// A service key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceKey {
    /// The part of the key that is not secret.
    pub id: ServiceKeyId,
    /// The operator's name for it.
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Permissions of the key.
    pub scopes: Vec<Scope>,
    /// Time of its creation.
    pub created_at: OffsetDateTime,
    /// Time at which it expires; `None` if it does not.
    pub expires_at: Option<OffsetDateTime>,
    /// The hour of its last use.
    pub last_used_at: Option<OffsetDateTime>,
    /// Time at which it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// A record of `serviceKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceKeyDoc {
    #[serde(rename = "_id")]
    id: String,
    name: String,
    hash: Binary,
    scopes: Vec<String>,
    created_at: DateTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used_at: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at: Option<DateTime>,
}

impl ServiceKeyDoc {
    fn new(key: &ServiceKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            hash: Binary { subtype: BinarySubtype::Generic, bytes: key.hash.to_vec() },
            scopes: key.scopes.iter().map(ToString::to_string).collect(),
            created_at: datetime(key.created_at),
            expires_at: key.expires_at.map(datetime),
            last_used_at: key.last_used_at.map(datetime),
            revoked_at: key.revoked_at.map(datetime),
        }
    }

    /// Converts the document; the error names the damaged field.
    fn into_key(self) -> Result<ServiceKey, StoreError> {
        let corrupt = |field| StoreError::Corrupt { collection: "serviceKeys", id: self.id.clone(), field };
        Ok(ServiceKey {
            id: ServiceKeyId::parse(&self.id).ok_or_else(|| corrupt("_id"))?,
            hash: <[u8; 32]>::try_from(&*self.hash.bytes).map_err(|_| corrupt("hash"))?,
            // A later version may know more scopes; this one grants those that it knows.
            scopes: self.scopes.iter().filter_map(|scope| Scope::parse(scope)).collect(),
            created_at: instant(self.created_at),
            expires_at: self.expires_at.map(instant),
            last_used_at: self.last_used_at.map(instant),
            revoked_at: self.revoked_at.map(instant),
            name: self.name,
        })
    }
}

impl ServiceKeys {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self { collection: mongo.database().collection("serviceKeys"), mongo: mongo.clone() }
    }

    /// Inserts a key.
    ///
    /// # Errors
    /// [`StoreError`]; the key may then exist, and its secret is lost.
    pub async fn insert(&self, key: &ServiceKey) -> Result<(), StoreError> {
        self.mongo.insert_one(&self.collection, ServiceKeyDoc::new(key)).await
    }

    /// Returns the key of an id, also a revoked or expired one: one read by `_id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: ServiceKeyId) -> Result<Option<ServiceKey>, StoreError> {
        let query = || async { self.collection.find_one(doc! { "_id": id.to_string() }).await };
        let found = self.mongo.read(Operation::find(&self.collection), query).await?;
        found.map(ServiceKeyDoc::into_key).transpose()
    }

    /// Returns all keys, the oldest first; a key that cannot be read is an error.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self) -> Result<Vec<Result<ServiceKey, StoreError>>, StoreError> {
        let raw = self.collection.clone_with_type::<mongodb::bson::Document>();
        let query = || async { raw.find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect::<Vec<_>>().await };
        let found = self.mongo.read(Operation::find(&self.collection), query).await?;
        let read = |document: mongodb::bson::Document| {
            let id = document.get_str("_id").unwrap_or_default().to_owned();
            let corrupt = |_| StoreError::Corrupt { collection: "serviceKeys", id, field: "a field" };
            mongodb::bson::deserialize_from_document::<ServiceKeyDoc>(document).map_err(corrupt)?.into_key()
        };
        Ok(found.into_iter().map(read).collect())
    }

    /// Revokes a key. Returns `false` if no key has this id, or if it was revoked before.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn revoke(&self, id: ServiceKeyId, now: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! { "_id": id.to_string(), "revokedAt": { "$exists": false } };
        self.mongo.update_one(&self.collection, filter, doc! { "$set": { "revokedAt": datetime(now) } }).await
    }

    /// Records that a key was used in this hour, unless this hour or a later one is recorded.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn record_use(&self, id: ServiceKeyId, hour: OffsetDateTime) -> Result<(), StoreError> {
        let filter = doc! { "_id": id.to_string(), "lastUsedAt": { "$not": { "$gte": datetime(hour) } } };
        let update = doc! { "$set": { "lastUsedAt": datetime(hour) } };
        self.mongo.update_one(&self.collection, filter, update).await.map(drop)
    }
}
