//! Sessions: `sessions {_id, user, device, passwordVersion, createdAt, lastUsedAt, expiresAt, endsAt, tokenHash, tokenKey, agent,
//! issuedBy, parent: {hash, salt, at, agent, network, newcomer}, earlier: [the same], generation}`. A TTL index on `expiresAt`
//! removes expired sessions. Ending one session deletes its record; a changed password ends sessions by their
//! `passwordVersion`.
//!
//! Refresh tokens are stored only as hashes: the hash of the valid token and those of the latest exchanges, with the salts that
//! derive a token's successor from it.

mod document;

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use mongodb::{
    Collection, IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};
use time::OffsetDateTime;

use self::document::{ExchangeDoc, SessionDoc, binary};
use super::{MongoClient, StoreError, datetime, driver_events::Operation};
use crate::model::{ServiceKeyId, SessionId, UserId};

/// Maximum number of listed sessions: a person has few, but a program may sign in for every request.
const MAX_LISTED: usize = 1000;

/// Names of indexes of earlier versions, which are dropped. The current indexes also serve the queries of earlier versions, because
/// both may run at once.
const DROPPED_INDEXES: [&str; 1] = ["user"];

/// Queries and updates of `sessions`.
#[derive(Debug, Clone)]
pub struct Sessions {
    collection: Collection<SessionDoc>,
    mongo: MongoClient,
}

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The `sid` of its access tokens.
    pub id: SessionId,
    /// User of the session.
    pub user: UserId,
    /// The `User-Agent` that signed in, truncated for display.
    pub device: Option<String>,
    /// The account's password version at the sign-in; `None` in records of earlier versions.
    pub password_version: Option<i64>,
    /// Time of the sign-in.
    pub created_at: OffsetDateTime,
    /// Time at which the latest token was issued.
    pub last_used_at: OffsetDateTime,
    /// Time at which it ends unless it is used.
    pub expires_at: OffsetDateTime,
    /// Time at which it ends even if it is used.
    pub ends_at: OffsetDateTime,
    /// SHA-256 of the valid refresh token.
    pub token_hash: [u8; 32],
    /// Key that recognizes the session's own refresh tokens, exchanged ones included; no token can be made from it. `None` in
    /// records of earlier versions.
    pub token_key: Option<[u8; 32]>,
    /// SHA-256 of the `User-Agent` that received the valid token; `None` in records of earlier versions.
    pub agent: Option<[u8; 32]>,
    /// The exchange that issued the valid token.
    pub parent: Option<Exchange>,
    /// Service key that created the session, which then has no refresh token and belongs to a user of the app.
    pub issued_by: Option<ServiceKeyId>,
    /// Earlier exchanges, the latest first, as far back as a late use of a token is tolerated.
    pub earlier: Vec<Exchange>,
}

/// An exchange of a refresh token for its successor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// SHA-256 of the exchanged token.
    pub hash: [u8; 32],
    /// The salt that derives the successor.
    pub salt: [u8; 32],
    /// Time of the exchange.
    pub at: OffsetDateTime,
    /// SHA-256 of the `User-Agent` that exchanged it; `None` in records of earlier versions.
    pub agent: Option<[u8; 32]>,
    /// The network that the exchange came from.
    pub network: Option<String>,
    /// Whether the exchange was made by another `User-Agent` than the one that had received the token.
    pub by_other_agent: bool,
}

/// The change of a session when its valid token is exchanged.
#[derive(Debug)]
pub struct Rotation {
    /// The exchange; the new [`Session::parent`].
    pub exchange: Exchange,
    /// The new [`Session::earlier`].
    pub earlier: Vec<Exchange>,
    /// SHA-256 of the successor; the new [`Session::token_hash`].
    pub successor_hash: [u8; 32],
    /// The new [`Session::token_key`].
    pub token_key: [u8; 32],
    /// Time at which the session ends unless the successor is used.
    pub expires_at: OffsetDateTime,
}

impl Sessions {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self { collection: mongo.database().collection("sessions"), mongo: mongo.clone() }
    }

    /// Creates the indexes, and drops those of earlier versions.
    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let ttl = IndexOptions::builder().name("expiresAt".to_owned()).expire_after(Duration::ZERO).build();
        let last_used = IndexOptions::builder().name("userLastUsed".to_owned()).build();
        let indexes = [
            IndexModel::builder().keys(doc! { "expiresAt": 1 }).options(ttl).build(),
            IndexModel::builder().keys(doc! { "user": 1, "lastUsedAt": -1, "_id": -1 }).options(last_used).build(),
        ];
        self.mongo.create_indexes(&self.collection, indexes).await?;
        for name in DROPPED_INDEXES {
            self.mongo.drop_index(&self.collection, name).await?;
        }
        Ok(())
    }

    /// Inserts a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert(&self, session: &Session) -> Result<(), StoreError> {
        let document = SessionDoc::new(session);
        self.mongo.insert_one(&self.collection, document).await
    }

    /// Returns the session of this id, of any user: the caller must verify the session's refresh token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: SessionId, now: OffsetDateTime) -> Result<Option<Session>, StoreError> {
        self.find_where(doc! { "_id": id.to_string(), "expiresAt": { "$gt": datetime(now) } }).await
    }

    /// Returns the session of this id if it belongs to this user: one read by `_id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_owned(&self, user: UserId, id: SessionId, now: OffsetDateTime) -> Result<Option<Session>, StoreError> {
        let filter = doc! { "_id": id.to_string(), "user": user.to_string(), "expiresAt": { "$gt": datetime(now) } };
        self.find_where(filter).await
    }

    /// Returns the session that matches.
    async fn find_where(&self, filter: Document) -> Result<Option<Session>, StoreError> {
        let found = self
            .mongo
            .read(Operation::find(&self.collection), || async { self.collection.find_one(filter.clone()).await })
            .await?;
        found.map(SessionDoc::into_session).transpose()
    }

    /// Exchanges the valid token for its successor. Returns `false` if the token is no longer valid: of concurrent exchanges, one
    /// succeeds.
    ///
    /// # Errors
    /// [`StoreError`]; the caller must then read whether it happened, or retry with the same token.
    pub async fn rotate(&self, id: SessionId, rotation: &Rotation) -> Result<bool, StoreError> {
        let Rotation { exchange, earlier, successor_hash, token_key, expires_at } = rotation;
        let now = datetime(exchange.at);
        let filter = doc! { "_id": id.to_string(), "tokenHash": binary(&exchange.hash), "expiresAt": { "$gt": now } };
        let mut set = doc! {
            "tokenHash": binary(successor_hash),
            "tokenKey": binary(token_key),
            "parent": ExchangeDoc::new(exchange).into_bson(),
            "earlier": earlier.iter().map(|exchange| ExchangeDoc::new(exchange).into_bson()).collect::<Vec<_>>(),
            "lastUsedAt": now,
            "expiresAt": datetime(*expires_at),
        };
        if let Some(agent) = &exchange.agent {
            set.insert("agent", binary(agent));
        }
        let update = doc! { "$set": set, "$inc": { "generation": 1_i64 } };
        self.mongo.update_one(&self.collection, filter, update).await
    }

    /// Returns a user's sessions, the newest first, at most a thousand. An unreadable record is logged and left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_owned(&self, user: UserId, now: OffsetDateTime) -> Result<Vec<Session>, StoreError> {
        let filter = doc! { "user": user.to_string(), "expiresAt": { "$gt": datetime(now) } };
        let records = self.collection.clone_with_type::<Document>();
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            // Ids begin with their time.
            let found = records.find(filter.clone()).sort(doc! { "_id": -1 }).await?;
            found.try_filter_map(async |record| Ok(readable(record))).take(MAX_LISTED).try_collect().await
        });
        found.await
    }

    /// Returns whether a user has any session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_any(&self, user: UserId) -> Result<bool, StoreError> {
        let ids = self.collection.clone_with_type::<Document>();
        let filter = doc! { "user": user.to_string() };
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            ids.find_one(filter.clone()).projection(doc! { "_id": 1 }).await
        });
        Ok(found.await?.is_some())
    }

    /// Deletes a session of this user. Returns `false` if the user has no session of this id.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_owned(&self, user: UserId, id: SessionId) -> Result<bool, StoreError> {
        let filter = doc! { "_id": id.to_string(), "user": user.to_string() };
        self.mongo.delete_one(&self.collection, filter).await
    }

    /// Deletes all sessions of a user and returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be deleted, and it is safe to repeat.
    pub async fn delete_all(&self, user: UserId) -> Result<u64, StoreError> {
        self.delete_many(doc! { "user": user.to_string() }).await
    }

    /// Deletes a user's sessions of other password versions, except the given session, and returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be deleted, and it is safe to repeat.
    pub async fn delete_outdated(&self, user: UserId, version: i64, except: Option<SessionId>) -> Result<u64, StoreError> {
        let mut filter = doc! { "user": user.to_string(), "passwordVersion": { "$ne": version } };
        if let Some(except) = except {
            filter.insert("_id", doc! { "$ne": except.to_string() });
        }
        self.delete_many(filter).await
    }

    /// Deletes the least recently used sessions of a user beyond `most`, and returns their number. Reads one index entry per
    /// session, up to `most`.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_least_recently_used_beyond(&self, user: UserId, most: u32) -> Result<u64, StoreError> {
        let filter = doc! { "user": user.to_string() };
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let uses = self.collection.clone_with_type::<Document>();
            let find = uses.find_one(filter.clone()).sort(doc! { "lastUsedAt": -1, "_id": -1 }).skip(u64::from(most));
            find.projection(doc! { "lastUsedAt": 1 }).await
        });
        let Some(found) = found.await? else { return Ok(0) };
        let mut unused = doc! { "user": user.to_string() };
        match found.get_datetime("lastUsedAt") {
            Ok(at) => {
                let same_time_filter = doc! { "lastUsedAt": at, "_id": { "$lte": found.get("_id") } };
                unused.insert("$or", vec![doc! { "lastUsedAt": { "$lt": at } }, same_time_filter]);
            }
            // Sessions with an unreadable time have no position in the order, and no refresh accepts them.
            Err(_) => drop(unused.insert("lastUsedAt", doc! { "$not": { "$type": "date" } })),
        }
        self.delete_many(unused).await
    }

    /// Deletes the sessions that a service key created, of all users, and returns their number. Scans the collection.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_issued_by(&self, key: ServiceKeyId) -> Result<u64, StoreError> {
        self.delete_many(doc! { "issuedBy": key.to_string() }).await
    }

    /// Deletes the sessions that match; returns their number.
    async fn delete_many(&self, filter: Document) -> Result<u64, StoreError> {
        self.mongo.delete_many(&self.collection, filter).await
    }
}

/// Returns the session of a record. An unreadable record is logged, and does not make the rest of a list unreadable.
fn readable(record: Document) -> Option<Session> {
    let id = record.get_str("_id").unwrap_or_default().to_owned();
    let corrupt = |_| StoreError::Corrupt { collection: "sessions", id, field: "a field" };
    let session = mongodb::bson::deserialize_from_document::<SessionDoc>(record).map_err(corrupt);
    let session = session.and_then(SessionDoc::into_session);
    session.inspect_err(|error| tracing::error!(%error, "failed to read a session")).ok()
}
