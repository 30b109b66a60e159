//! Sessions: `sessions {_id, user, device, createdAt, lastUsedAt, expiresAt, endsAt, tokenHash, parent: {hash, salt, at},
//! generation}`. A TTL index on `expiresAt` removes what has expired; a session that ended is not there.
//!
//! Of refresh tokens only hashes are here: the living one's and its parent's, with the salt that leads from one to the other.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Binary, DateTime, Document, doc, spec::BinarySubtype},
    options::IndexOptions,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Calls, StoreError, datetime, instant};
use crate::model::{SessionId, UserId};

/// Sessions that a listing shows: a person has few, a program that logs in for every call has many.
const MOST_LISTED: i64 = 1000;

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
    /// Whose it is.
    pub user: UserId,
    /// What the client called itself.
    pub device: Option<String>,
    /// When somebody signed in.
    pub created_at: OffsetDateTime,
    /// When a token was issued last.
    pub last_used_at: OffsetDateTime,
    /// When it ends unless it is used.
    pub expires_at: OffsetDateTime,
    /// When it ends however much it is used.
    pub ends_at: OffsetDateTime,
    /// Of the refresh token that lives.
    pub token_hash: [u8; 32],
    /// The token before that one.
    pub parent: Option<Parent>,
}

/// A refresh token that was exchanged for the living one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Of the token.
    pub hash: [u8; 32],
    /// Leads from the token to its child.
    pub salt: [u8; 32],
    /// When it was exchanged.
    pub at: OffsetDateTime,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionDoc {
    #[serde(rename = "_id")]
    id: String,
    user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    created_at: DateTime,
    last_used_at: DateTime,
    expires_at: DateTime,
    ends_at: DateTime,
    token_hash: Binary,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<ParentDoc>,
    /// How often the token was exchanged.
    generation: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ParentDoc {
    hash: Binary,
    salt: Binary,
    at: DateTime,
}

impl SessionDoc {
    fn into_session(self) -> Result<Session, StoreError> {
        let corrupt = |field| StoreError::Corrupt { collection: "sessions", id: self.id.clone(), field };
        let bytes = |binary: &Binary, field| <[u8; 32]>::try_from(&*binary.bytes).map_err(|_| corrupt(field));
        let parent = self.parent.as_ref().map(|parent| {
            let (hash, salt) = (bytes(&parent.hash, "parent.hash")?, bytes(&parent.salt, "parent.salt")?);
            Ok::<_, StoreError>(Parent { hash, salt, at: instant(parent.at) })
        });
        Ok(Session {
            id: SessionId::parse(&self.id).ok_or_else(|| corrupt("_id"))?,
            user: UserId::parse(&self.user).ok_or_else(|| corrupt("user"))?,
            created_at: instant(self.created_at),
            last_used_at: instant(self.last_used_at),
            expires_at: instant(self.expires_at),
            ends_at: instant(self.ends_at),
            token_hash: bytes(&self.token_hash, "tokenHash")?,
            parent: parent.transpose()?,
            device: self.device,
        })
    }
}

fn binary(bytes: &[u8; 32]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}

impl Sessions {
    pub(super) fn new(calls: &Calls) -> Self {
        Self { collection: calls.database().collection("sessions"), calls: calls.clone() }
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let ttl = IndexOptions::builder().name("expiresAt".to_owned()).expire_after(Duration::ZERO).build();
        let indexes = [
            IndexModel::builder().keys(doc! { "expiresAt": 1 }).options(ttl).build(),
            IndexModel::builder()
                .keys(doc! { "user": 1 })
                .options(IndexOptions::builder().name("user".to_owned()).build())
                .build(),
        ];
        self.calls.run(async { self.collection.create_indexes(indexes).await }).await.map(drop)
    }

    /// Records a sign-in.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert(&self, session: &Session) -> Result<(), StoreError> {
        let document = SessionDoc {
            id: session.id.to_string(),
            user: session.user.to_string(),
            device: session.device.clone(),
            created_at: datetime(session.created_at),
            last_used_at: datetime(session.last_used_at),
            expires_at: datetime(session.expires_at),
            ends_at: datetime(session.ends_at),
            token_hash: binary(&session.token_hash),
            parent: None,
            generation: 0,
        };
        self.calls.run(async { self.collection.insert_one(document).await }).await.map(drop)
    }

    /// The session, whoever's it is: for who shows its refresh token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: SessionId, now: OffsetDateTime) -> Result<Option<Session>, StoreError> {
        let filter = doc! { "_id": id.to_string(), "expiresAt": { "$gt": datetime(now) } };
        self.calls
            .read(|| async { self.collection.find_one(filter.clone()).await })
            .await?
            .map(SessionDoc::into_session)
            .transpose()
    }

    /// Whether the session goes on: one read by `_id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_alive(&self, id: SessionId, now: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! { "_id": id.to_string(), "expiresAt": { "$gt": datetime(now) } };
        let ids = self.collection.clone_with_type::<Document>();
        Ok(self.calls.read(|| async { ids.find_one(filter.clone()).projection(doc! { "_id": 1 }).await }).await?.is_some())
    }

    /// Exchanges the living token for its child. `false` when it lives no more: of many that try, one succeeds.
    ///
    /// # Errors
    /// [`StoreError`]; whether it happened is then to be read, or tried again with the parent.
    pub async fn rotate(
        &self,
        id: SessionId,
        parent: &Parent,
        child: &[u8; 32],
        expires_at: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let now = datetime(parent.at);
        let filter = doc! { "_id": id.to_string(), "tokenHash": binary(&parent.hash), "expiresAt": { "$gt": now } };
        let update = doc! {
            "$set": {
                "tokenHash": binary(child),
                "parent": { "hash": binary(&parent.hash), "salt": binary(&parent.salt), "at": now },
                "lastUsedAt": now,
                "expiresAt": datetime(expires_at),
            },
            "$inc": { "generation": 1_i64 },
        };
        Ok(self.calls.run(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    /// A user's sessions, the newest first, at most a thousand.
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

    /// Whether a user has any session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_any(&self, user: UserId) -> Result<bool, StoreError> {
        let ids = self.collection.clone_with_type::<Document>();
        let filter = doc! { "user": user.to_string() };
        let found = self.calls.read(|| async { ids.find_one(filter.clone()).projection(doc! { "_id": 1 }).await });
        Ok(found.await?.is_some())
    }

    /// Ends a session, whoever's it is. `false` when there was none.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        self.delete_where(doc! { "_id": id.to_string() }).await
    }

    /// Ends a session of this user. `false` when there was none.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_owned(&self, user: UserId, id: SessionId) -> Result<bool, StoreError> {
        self.delete_where(doc! { "_id": id.to_string(), "user": user.to_string() }).await
    }

    /// Ends all sessions of a user but one, and says which were there.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_all(&self, user: UserId, but: Option<SessionId>) -> Result<Vec<SessionId>, StoreError> {
        let mut filter = doc! { "user": user.to_string() };
        if let Some(but) = but {
            filter.insert("_id", doc! { "$ne": but.to_string() });
        }
        let ids = self.collection.clone_with_type::<Document>();
        let found = self
            .calls
            .read(|| async { ids.find(filter.clone()).projection(doc! { "_id": 1 }).await?.try_collect::<Vec<_>>().await });
        let found = found.await?;
        // By the user, not by these ids: a session that began in between ends, too.
        self.calls.run(async { self.collection.delete_many(filter).await }).await?;
        Ok(found.iter().filter_map(|session| SessionId::parse(session.get_str("_id").ok()?)).collect())
    }

    async fn delete_where(&self, filter: Document) -> Result<bool, StoreError> {
        Ok(self.calls.run(async { self.collection.delete_one(filter).await }).await?.deleted_count == 1)
    }
}
