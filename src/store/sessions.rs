//! Sessions: `sessions {_id, user, createdAt, expiresAt}`. A TTL index removes what has expired.

use std::time::Duration;

use mongodb::{
    Collection, Database, IndexModel,
    bson::{DateTime, doc},
    options::IndexOptions,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{StoreError, bounded, datetime};
use crate::model::{SessionId, UserId};

/// Queries and updates of `sessions`.
#[derive(Debug, Clone)]
pub struct Sessions {
    collection: Collection<SessionDoc>,
}

/// A sign-in.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    /// The `sid` of its access tokens.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionDoc {
    #[serde(rename = "_id")]
    id: String,
    user: String,
    created_at: DateTime,
    expires_at: DateTime,
}

impl Sessions {
    pub(super) fn new(database: &Database) -> Self {
        Self { collection: database.collection("sessions") }
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
        bounded(async { self.collection.create_indexes(indexes).await }).await.map(drop)
    }

    /// Records a sign-in.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert(&self, session: &Session, now: OffsetDateTime) -> Result<(), StoreError> {
        let document = SessionDoc {
            id: session.id.to_string(),
            user: session.user.to_string(),
            created_at: datetime(now),
            expires_at: datetime(session.expires_at),
        };
        bounded(async { self.collection.insert_one(document).await }).await.map(drop)
    }
}
