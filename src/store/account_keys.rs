//! Keys that no two accounts share: `emails {_id, user, at, due}`, whose `_id` is the normalised address, and `identities` with the
//! same fields, whose `_id` is the digest of a provider's identity. They have collections of their own, because a unique index of
//! the sharded collection `users` would have to begin with the shard key.
//!
//! A key is taken before its account is inserted, and released after the account is deleted. Until the insertion it names an
//! account that does not exist, and for ever if the server dies: `users/registration.rs` decides whether to wait or to take over.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Bson, Document, doc},
    options::IndexOptions,
};
use time::OffsetDateTime;

use super::{MongoClient, StoreError, datetime, driver_events::Operation, is_duplicate};
use crate::model::UserId;

/// Age of a key from which its account, if it does not exist, counts as abandoned: the server that inserts it died, or is slow.
const ABANDONED_AFTER: Duration = Duration::from_secs(2);
/// Age at which the sweeper examines a key for the first time.
const FIRST_CHECK_AFTER: Duration = Duration::from_secs(2 * 60);

/// The keys of one kind.
#[derive(Debug, Clone)]
pub(super) struct AccountKeys {
    name: &'static str,
    collection: Collection<Document>,
    mongo: MongoClient,
}

/// The account that a key names.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHolder {
    pub(super) user: UserId,
    /// Whether the key is at least [`ABANDONED_AFTER`] old: an account that does not exist is then abandoned.
    pub(super) is_old: bool,
}

/// A key that is due to be examined.
#[derive(Debug)]
pub(super) struct DueKey {
    /// The key as it is stored; that of a damaged record may have any type.
    pub(super) key: Bson,
    /// Holder of the key; `None` if it cannot be read.
    pub(super) holder: Option<KeyHolder>,
}

/// Returns the projection for [`KeyHolder::read`]. The age is by the database's clock; a key is also old if its time is of another
/// type, or so far ahead that no server wrote it.
fn holder_projection() -> Document {
    let since = doc! { "$subtract": ["$$NOW", milliseconds(ABANDONED_AFTER)] };
    let until = doc! { "$add": ["$$NOW", milliseconds(FIRST_CHECK_AFTER)] };
    let is_young = doc! { "$and": [{ "$gt": ["$at", since] }, { "$lte": ["$at", until] }] };
    doc! { "user": 1, "isOld": { "$not": [is_young] } }
}

impl KeyHolder {
    /// Reads the holder from a key's record; `None` if its user cannot be read.
    fn read(found: &Document) -> Option<Self> {
        let user = found.get_str("user").ok().and_then(UserId::parse)?;
        Some(Self { user, is_old: found.get_bool("isOld").unwrap_or(true) })
    }
}

/// Returns a duration in milliseconds, as MongoDB takes it.
fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the fields of a key that is taken now, by the database's clock.
fn taken_by(user: UserId) -> Document {
    let due = doc! { "$add": ["$$NOW", milliseconds(FIRST_CHECK_AFTER)] };
    doc! { "$set": { "user": user.to_string(), "at": "$$NOW", "due": due } }
}

impl AccountKeys {
    pub(super) fn new(mongo: &MongoClient, name: &'static str) -> Self {
        Self { name, collection: mongo.database().collection(name), mongo: mongo.clone() }
    }

    /// Returns the collection's name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let index = |field: &str| {
            let options = IndexOptions::builder().name(field.to_owned()).build();
            IndexModel::builder().keys(doc! { field: 1 }).options(options).build()
        };
        self.mongo.create_indexes(&self.collection, [index("user"), index("due")]).await
    }

    /// Takes a key that no other account has. Returns `false` if another account has it. Safe to repeat.
    pub(super) async fn take(&self, key: &str, user: UserId) -> Result<bool, StoreError> {
        let filter = doc! { "_id": key, "user": user.to_string() };
        let take = self.collection.update_one(filter, vec![taken_by(user)]).upsert(true);
        match self.mongo.run(Operation::update(&self.collection), async { take.await }).await {
            Ok(_) => Ok(true),
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a key from an account that does not exist any more. Returns `false` if that account no longer has it.
    pub(super) async fn take_from(&self, key: &str, holder: UserId, user: UserId) -> Result<bool, StoreError> {
        let filter = doc! { "_id": key, "user": holder.to_string() };
        self.mongo.update_one(&self.collection, filter, vec![taken_by(user)]).await
    }

    /// Returns the account that a key names.
    pub(super) async fn holder(&self, key: &str) -> Result<Option<KeyHolder>, StoreError> {
        let query = || async { self.collection.find_one(doc! { "_id": key }).projection(holder_projection()).await };
        let Some(found) = self.mongo.read(Operation::find(&self.collection), query).await? else { return Ok(None) };
        // The id is a person's address or a digest of an identity: neither belongs in a log.
        let corrupt = || StoreError::Corrupt { collection: self.name, id: "of an account".to_owned(), field: "user" };
        KeyHolder::read(&found).ok_or_else(corrupt).map(Some)
    }

    /// Releases a key, if it names this account.
    pub(super) async fn release(&self, key: &str, user: UserId) -> Result<(), StoreError> {
        self.release_due(&key.into(), user).await
    }

    /// Releases a key as it is stored, if it names this account.
    pub(super) async fn release_due(&self, key: &Bson, user: UserId) -> Result<(), StoreError> {
        self.mongo.delete_one(&self.collection, doc! { "_id": key, "user": user.to_string() }).await.map(drop)
    }

    /// Releases the keys that name this account.
    pub(super) async fn release_all(&self, user: UserId) -> Result<(), StoreError> {
        self.mongo.delete_many(&self.collection, doc! { "user": user.to_string() }).await.map(drop)
    }

    /// Returns keys that are due to be examined, the longest due first.
    pub(super) async fn find_due_keys(&self, now: OffsetDateTime, limit: u32) -> Result<Vec<DueKey>, StoreError> {
        let filter = doc! { "due": { "$lte": datetime(now) } };
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = self.collection.find(filter.clone()).projection(holder_projection()).sort(doc! { "due": 1 });
            find.limit(i64::from(limit)).await?.try_collect::<Vec<_>>().await
        });
        let key = |found: &Document| found.get("_id").cloned().unwrap_or(Bson::Null);
        Ok(found.await?.iter().map(|found| DueKey { key: key(found), holder: KeyHolder::read(found) }).collect())
    }

    /// Has these keys examined again at `due`.
    pub(super) async fn postpone(&self, keys: &[Bson], due: OffsetDateTime) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let update = doc! { "$set": { "due": datetime(due) } };
        self.mongo.update_many(&self.collection, doc! { "_id": { "$in": keys } }, update).await.map(drop)
    }
}
