//! Sessions: `sessions {_id, user, device, passwordVersion, createdAt, lastUsedAt, expiresAt, endsAt, tokenHash, tokenKey, agent,
//! parent: {hash, salt, at, agent, network, newcomer}, earlier: [the same], generation}`. A TTL index on `expiresAt` removes
//! expired sessions; a session that was ended by itself is deleted, one that a changed password ended is dead by its version.
//!
//! Refresh tokens are kept as hashes alone: the living one's and those of the last exchanges, with the salts that lead from a
//! token to its child.

mod document;

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};
use time::OffsetDateTime;

use self::document::{ExchangeDoc, SessionDoc, binary};
use super::{Calls, StoreError, datetime};
use crate::model::{SessionId, UserId};

/// Sessions that a listing shows: a person has few, a program that logs in for every call has many.
const MOST_LISTED: i64 = 1000;

/// The names of indexes that former versions made. Their queries are answered by those of today: both versions may run at once.
const FORMER_INDEXES: [&str; 1] = ["user"];

/// Queries and updates of `sessions`.
#[derive(Debug, Clone)]
pub struct Sessions {
    collection: Collection<SessionDoc>,
    calls: Calls,
}

/// A sign-in.
#[derive(Debug, Clone)]
pub struct Session {
    /// The `sid` of its access tokens.
    pub id: SessionId,
    /// Its user.
    pub user: UserId,
    /// The `User-Agent` that signed in, cut to be shown.
    pub device: Option<String>,
    /// The account's password version at the sign-in; `None` in records of before sessions had one.
    pub password_version: Option<i64>,
    /// When it was begun.
    pub created_at: OffsetDateTime,
    /// When a token was issued last.
    pub last_used_at: OffsetDateTime,
    /// When it ends unless it is used.
    pub expires_at: OffsetDateTime,
    /// When it ends however much it is used.
    pub ends_at: OffsetDateTime,
    /// SHA-256 of the living refresh token.
    pub token_hash: [u8; 32],
    /// Tells the session's own refresh tokens, spent ones included, from all others; no token can be made from it. `None` in
    /// records of before there was one.
    pub token_key: Option<[u8; 32]>,
    /// SHA-256 of the `User-Agent` that was given the living token; `None` in records of before it was kept.
    pub agent: Option<[u8; 32]>,
    /// The exchange that gave the living token.
    pub parent: Option<Exchange>,
    /// Exchanges before that one, the latest first, as far back as a late copy of a token is borne with.
    pub earlier: Vec<Exchange>,
}

/// An exchange of a refresh token for its child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// SHA-256 of the exchanged token.
    pub hash: [u8; 32],
    /// Leads from the token to its child.
    pub salt: [u8; 32],
    /// When it was exchanged.
    pub at: OffsetDateTime,
    /// SHA-256 of the `User-Agent` that exchanged it; `None` in records of before it was kept.
    pub agent: Option<[u8; 32]>,
    /// The network it was exchanged from.
    pub network: Option<String>,
    /// Whether the token had been given to another `User-Agent` than the one that exchanged it.
    pub by_newcomer: bool,
}

/// The change to a session when its living token is exchanged.
#[derive(Debug)]
pub struct Rotation {
    /// The exchange, which becomes [`Session::parent`].
    pub exchange: Exchange,
    /// Becomes [`Session::earlier`].
    pub earlier: Vec<Exchange>,
    /// SHA-256 of the child.
    pub child: [u8; 32],
    /// Becomes [`Session::token_key`].
    pub token_key: [u8; 32],
    /// When the session ends unless the child is used.
    pub expires_at: OffsetDateTime,
}

impl Sessions {
    pub(super) fn new(calls: &Calls) -> Self {
        Self { collection: calls.database().collection("sessions"), calls: calls.clone() }
    }

    /// Makes the indexes, and drops those of former versions.
    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let ttl = IndexOptions::builder().name("expiresAt".to_owned()).expire_after(Duration::ZERO).build();
        let last_used = IndexOptions::builder().name("userLastUsed".to_owned()).build();
        let indexes = [
            IndexModel::builder().keys(doc! { "expiresAt": 1 }).options(ttl).build(),
            IndexModel::builder().keys(doc! { "user": 1, "lastUsedAt": -1, "_id": -1 }).options(last_used).build(),
        ];
        self.calls.run(async { self.collection.create_indexes(indexes).await }).await?;
        for name in FORMER_INDEXES {
            self.calls.drop_index(&self.collection, name).await?;
        }
        Ok(())
    }

    /// Records a sign-in.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert(&self, session: &Session) -> Result<(), StoreError> {
        let document = SessionDoc::of(session);
        self.calls.run(async { self.collection.insert_one(document).await }).await.map(drop)
    }

    /// Returns the session of this id, for any user: for a caller with its refresh token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: SessionId, now: OffsetDateTime) -> Result<Option<Session>, StoreError> {
        self.find_where(doc! { "_id": id.to_string(), "expiresAt": { "$gt": datetime(now) } }).await
    }

    /// Returns the session of this id, if it is this user's: one read by `_id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_owned(&self, user: UserId, id: SessionId, now: OffsetDateTime) -> Result<Option<Session>, StoreError> {
        let filter = doc! { "_id": id.to_string(), "user": user.to_string(), "expiresAt": { "$gt": datetime(now) } };
        self.find_where(filter).await
    }

    async fn find_where(&self, filter: Document) -> Result<Option<Session>, StoreError> {
        let found = self.calls.read(|| async { self.collection.find_one(filter.clone()).await }).await?;
        found.map(SessionDoc::into_session).transpose()
    }

    /// Exchanges the living token for its child. `false` when it lives no more: of many that try, one succeeds.
    ///
    /// # Errors
    /// [`StoreError`]; whether it happened is then to be read, or tried again with the same token.
    pub async fn rotate(&self, id: SessionId, rotation: &Rotation) -> Result<bool, StoreError> {
        let Rotation { exchange, earlier, child, token_key, expires_at } = rotation;
        let now = datetime(exchange.at);
        let filter = doc! { "_id": id.to_string(), "tokenHash": binary(&exchange.hash), "expiresAt": { "$gt": now } };
        let mut set = doc! {
            "tokenHash": binary(child),
            "tokenKey": binary(token_key),
            "parent": ExchangeDoc::of(exchange).into_bson(),
            "earlier": earlier.iter().map(|exchange| ExchangeDoc::of(exchange).into_bson()).collect::<Vec<_>>(),
            "lastUsedAt": now,
            "expiresAt": datetime(*expires_at),
        };
        if let Some(agent) = &exchange.agent {
            set.insert("agent", binary(agent));
        }
        let update = doc! { "$set": set, "$inc": { "generation": 1_i64 } };
        Ok(self.calls.run(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    /// Returns a user's sessions, the newest first, at most a thousand.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_owned(&self, user: UserId, now: OffsetDateTime) -> Result<Vec<Session>, StoreError> {
        let filter = doc! { "user": user.to_string(), "expiresAt": { "$gt": datetime(now) } };
        let found = self.calls.read(|| async {
            // Ids begin with their time.
            let find = self.collection.find(filter.clone()).sort(doc! { "_id": -1 }).limit(MOST_LISTED);
            find.await?.try_collect::<Vec<_>>().await
        });
        let found = found.await?;
        found.into_iter().map(SessionDoc::into_session).collect()
    }

    /// Returns whether a user has any session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_any(&self, user: UserId) -> Result<bool, StoreError> {
        let ids = self.collection.clone_with_type::<Document>();
        let filter = doc! { "user": user.to_string() };
        let found = self.calls.read(|| async { ids.find_one(filter.clone()).projection(doc! { "_id": 1 }).await });
        Ok(found.await?.is_some())
    }

    /// Ends a session of this user. `false` when there was none.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_owned(&self, user: UserId, id: SessionId) -> Result<bool, StoreError> {
        let filter = doc! { "_id": id.to_string(), "user": user.to_string() };
        Ok(self.calls.run(async { self.collection.delete_one(filter).await }).await?.deleted_count == 1)
    }

    /// Deletes all sessions of a user and answers how many there were.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be deleted, and it is safe to repeat.
    pub async fn delete_all(&self, user: UserId) -> Result<u64, StoreError> {
        self.delete_many(doc! { "user": user.to_string() }).await
    }

    /// Deletes a user's sessions of other password versions than this one, but for one session, and answers how many there
    /// were.
    ///
    /// # Errors
    /// [`StoreError`]; some may then be deleted, and it is safe to repeat.
    pub async fn delete_outdated(&self, user: UserId, version: i64, but: Option<SessionId>) -> Result<u64, StoreError> {
        let mut filter = doc! { "user": user.to_string(), "passwordVersion": { "$ne": version } };
        if let Some(but) = but {
            filter.insert("_id", doc! { "$ne": but.to_string() });
        }
        self.delete_many(filter).await
    }

    /// Deletes a user's sessions that were not used for longest, beyond `most`, and answers how many there were. Reads as
    /// many entries of an index as the user has sessions, up to `most`.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_unused_beyond(&self, user: UserId, most: u32) -> Result<u64, StoreError> {
        let filter = doc! { "user": user.to_string() };
        let found = self.calls.read(|| async {
            let uses = self.collection.clone_with_type::<Document>();
            let find = uses.find_one(filter.clone()).sort(doc! { "lastUsedAt": -1, "_id": -1 }).skip(u64::from(most));
            find.projection(doc! { "lastUsedAt": 1 }).await
        });
        let Some(found) = found.await? else { return Ok(0) };
        let (Ok(at), Ok(id)) = (found.get_datetime("lastUsedAt"), found.get_str("_id")) else { return Ok(0) };
        let of_that_time = doc! { "lastUsedAt": at, "_id": { "$lte": id } };
        let before = doc! { "lastUsedAt": { "$lt": at } };
        self.delete_many(doc! { "user": user.to_string(), "$or": [before, of_that_time] }).await
    }

    async fn delete_many(&self, filter: Document) -> Result<u64, StoreError> {
        Ok(self.calls.run(async { self.collection.delete_many(filter).await }).await?.deleted_count)
    }
}
