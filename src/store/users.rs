//! Accounts: `users {_id, email, emailKey, passwordHash, createdAt, usedBytes, images, holds: [{image, bytes, at}]}`.
//!
//! Quota lives here, in the one document every change to it must touch: an upload reserves its bytes with a hold, and
//! whoever takes the hold away, once, decides whether the bytes stay counted.

use mongodb::{
    ClientSession, Collection, Database, IndexModel,
    bson::{DateTime, Document, doc},
    options::IndexOptions,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{StoreError, bounded, datetime, instant, integer, is_duplicate};
use crate::model::{Email, ImageId, Usage, User, UserId};

/// Queries and updates of `users`.
#[derive(Debug, Clone)]
pub struct Users {
    collection: Collection<UserDoc>,
}

/// A user with what proves a password.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user.
    pub user: User,
    /// PHC string.
    pub password_hash: SecretString,
}

/// How a reservation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// The bytes are counted and the hold is made.
    Yes,
    /// Nothing was counted: over the quota, over the cap of open uploads, or no such user.
    No,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserDoc {
    #[serde(rename = "_id")]
    id: String,
    email: String,
    email_key: String,
    password_hash: String,
    created_at: DateTime,
    used_bytes: i64,
    images: i64,
    holds: Vec<Document>,
}

impl UserDoc {
    fn into_account(self) -> Result<Account, StoreError> {
        let corrupt = |field| StoreError::Corrupt { collection: "users", id: self.id.clone(), field };
        let user = User {
            id: UserId::parse(&self.id).ok_or_else(|| corrupt("_id"))?,
            email: Email::parse(&self.email).map_err(|_| corrupt("email"))?,
            created_at: instant(self.created_at),
        };
        Ok(Account { user, password_hash: self.password_hash.into() })
    }
}

impl Users {
    pub(super) fn new(database: &Database) -> Self {
        Self { collection: database.collection("users") }
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let unique = IndexOptions::builder().name("emailKey".to_owned()).unique(true).build();
        let holds = IndexOptions::builder().name("holdsAt".to_owned()).sparse(true).build();
        let indexes = [
            IndexModel::builder().keys(doc! { "emailKey": 1 }).options(unique).build(),
            IndexModel::builder().keys(doc! { "holds.at": 1 }).options(holds).build(),
        ];
        bounded(async { self.collection.create_indexes(indexes).await }).await.map(drop)
    }

    /// Adds an account. `None` when the email belongs to one already: the unique index decides.
    ///
    /// # Errors
    /// [`StoreError`]; an account may have been made whose answer was lost, and a repeat then answers `None`.
    pub async fn insert(&self, email: &Email, password_hash: &str, now: OffsetDateTime) -> Result<Option<User>, StoreError> {
        let id = UserId::new();
        let created_at = datetime(now);
        let document = UserDoc {
            id: id.to_string(),
            email: email.as_str().to_owned(),
            email_key: email.key().to_owned(),
            password_hash: password_hash.to_owned(),
            created_at,
            used_bytes: 0,
            images: 0,
            holds: Vec::new(),
        };
        match bounded(async { self.collection.insert_one(document).await }).await {
            Ok(_) => Ok(Some(User { id, email: email.clone(), created_at: instant(created_at) })),
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The account of an email.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, StoreError> {
        self.find_one(doc! { "emailKey": email.key() }).await
    }

    /// The account of an id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        self.find_one(doc! { "_id": user.to_string() }).await
    }

    async fn find_one(&self, filter: Document) -> Result<Option<Account>, StoreError> {
        // Holds may be many, and no reader of an account wants them.
        let projection = doc! { "holds": { "$literal": [] }, "email": 1, "emailKey": 1, "passwordHash": 1, "createdAt": 1, "usedBytes": 1, "images": 1 };
        bounded(async { self.collection.find_one(filter).projection(projection).await })
            .await?
            .map(UserDoc::into_account)
            .transpose()
    }

    /// Users in the order of their ids, after `after`; the last page is empty.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ids(&self, after: Option<UserId>, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let filter = after.map_or_else(Document::new, |after| doc! { "_id": { "$gt": after.to_string() } });
        let ids = self.collection.clone_with_type::<Document>();
        let found = bounded(async {
            use futures_util::TryStreamExt;
            let find = ids.find(filter).projection(doc! { "_id": 1 }).sort(doc! { "_id": 1 }).limit(i64::from(limit));
            find.await?.try_collect::<Vec<_>>().await
        })
        .await?;
        let id = |found: &Document| {
            let text = found.get_str("_id").unwrap_or_default();
            UserId::parse(text).ok_or(StoreError::Corrupt { collection: "users", id: text.to_owned(), field: "_id" })
        };
        found.iter().map(id).collect()
    }

    /// What a user holds now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn usage(&self, user: UserId) -> Result<Option<Usage>, StoreError> {
        let projection = doc! { "usedBytes": 1, "images": 1, "pending": { "$size": "$holds" } };
        let counts = self.collection.clone_with_type::<Document>();
        let found = bounded(async { counts.find_one(doc! { "_id": user.to_string() }).projection(projection).await }).await?;
        let Some(found) = found else { return Ok(None) };
        let count = |field: &'static str| {
            let value = found.get_i64(field).or_else(|_| found.get_i32(field).map(i64::from)).ok();
            value.and_then(|n| u64::try_from(n).ok()).ok_or(StoreError::Corrupt {
                collection: "users",
                id: user.to_string(),
                field,
            })
        };
        Ok(Some(Usage { bytes: count("usedBytes")?, images: count("images")?, pending: count("pending")? }))
    }

    /// Counts an upload's bytes and makes its hold, if both the quota and the cap of open uploads allow it.
    /// One conditional update: of any number at once, exactly those that fit succeed.
    ///
    /// # Errors
    /// [`StoreError`]; a hold without an image may then remain, which the sweeper settles.
    pub async fn reserve(
        &self,
        user: UserId,
        image: ImageId,
        bytes: u64,
        limits: (u64, u32),
        now: OffsetDateTime,
    ) -> Result<Reserved, StoreError> {
        let (quota, max_pending) = limits;
        let Some(room) = quota.checked_sub(bytes) else { return Ok(Reserved::No) };
        let mut filter = doc! { "_id": user.to_string(), "usedBytes": { "$lte": integer(room) } };
        filter.insert(format!("holds.{}", max_pending.saturating_sub(1)), doc! { "$exists": false });
        let hold = doc! { "image": image.to_string(), "bytes": integer(bytes), "at": datetime(now) };
        let update = doc! { "$inc": { "usedBytes": integer(bytes) }, "$push": { "holds": hold } };
        let done = bounded(async { self.collection.update_one(filter, update).await }).await?;
        Ok(if done.matched_count == 1 { Reserved::Yes } else { Reserved::No })
    }

    /// The upload became an image: its bytes stay counted. Does nothing when the hold is gone.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn keep_held(&self, user: UserId, image: ImageId) -> Result<bool, StoreError> {
        self.take_hold(user, image, doc! { "images": 1_i64 }).await
    }

    /// The upload came to nothing: its bytes are free again. Does nothing when the hold is gone.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn release_held(&self, user: UserId, image: ImageId, bytes: u64) -> Result<bool, StoreError> {
        self.take_hold(user, image, doc! { "usedBytes": -integer(bytes) }).await
    }

    async fn take_hold(&self, user: UserId, image: ImageId, increment: Document) -> Result<bool, StoreError> {
        let filter = doc! { "_id": user.to_string(), "holds.image": image.to_string() };
        let update = doc! { "$pull": { "holds": { "image": image.to_string() } }, "$inc": increment };
        Ok(bounded(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    /// In the transaction that takes a ready image away: its bytes are free, and it is not counted any more. Where the
    /// server died between the image's confirmation and [`Users::keep_held`], it never was.
    pub(super) async fn drop_image(
        &self,
        user: UserId,
        image: ImageId,
        bytes: u64,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<()> {
        let held = doc! { "_id": user.to_string(), "holds.image": image.to_string() };
        let update = doc! { "$pull": { "holds": { "image": image.to_string() } }, "$inc": { "usedBytes": -integer(bytes) } };
        if self.collection.update_one(held, update).session(&mut *session).await?.matched_count == 0 {
            let update = doc! { "$inc": { "usedBytes": -integer(bytes), "images": -1_i64 } };
            self.collection.update_one(doc! { "_id": user.to_string() }, update).session(session).await?;
        }
        Ok(())
    }

    /// Holds made before `before`, at most `limit` users' worth: what a server that died left unsettled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn old_holds(&self, before: OffsetDateTime, limit: i64) -> Result<Vec<(UserId, ImageId, u64)>, StoreError> {
        let before = datetime(before);
        let filter = doc! { "holds.at": { "$lt": before } };
        let found = bounded(async {
            use futures_util::TryStreamExt;
            self.collection.find(filter).limit(limit).await?.try_collect::<Vec<_>>().await
        })
        .await?;
        let mut holds = Vec::new();
        for user in found {
            let Some(id) = UserId::parse(&user.id) else { continue };
            for hold in &user.holds {
                let is_old = hold.get_datetime("at").is_ok_and(|at| *at < before);
                let image = hold.get_str("image").ok().and_then(ImageId::parse);
                let bytes = hold.get_i64("bytes").ok().and_then(|n| u64::try_from(n).ok());
                if let (true, Some(image), Some(bytes)) = (is_old, image, bytes) {
                    holds.push((id, image, bytes));
                }
            }
        }
        Ok(holds)
    }
}
