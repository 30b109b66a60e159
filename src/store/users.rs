//! Accounts: `users {_id, email, emailKey, passwordHash, passwordVersion, identity: {issuer, subject}, createdAt, usedBytes,
//! images, holds: [{image, bytes, at}], deletedAt, due, formerIdentity}`. An account of our own has emailKey and passwordHash, one of an identity provider has
//! identity; each is unique by an index of those that have it, so that neither kind can be taken for the other.
//!
//! Quota lives here, in the one document every change to it must touch: an upload reserves its bytes with a hold, and
//! whoever takes the hold away, once, decides whether the bytes stay counted.

mod deletion;
mod identities;

use mongodb::{
    ClientSession, Collection, IndexModel,
    bson::{DateTime, Document, doc},
    options::IndexOptions,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use self::deletion::{Deletion, Hold};
use self::{
    deletion::{not_deleted, version},
    identities::IdentityDoc,
};
use super::{Calls, StoreError, datetime, instant, integer, is_duplicate, is_other_index};
use crate::model::{Email, ImageId, Usage, User, UserId};

/// Queries and updates of `users`.
#[derive(Debug, Clone)]
pub struct Users {
    collection: Collection<UserDoc>,
    calls: Calls,
}

/// A user with what proves a password.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user.
    pub user: User,
    /// PHC string; an identity provider's user has no password here.
    pub password_hash: Option<SecretString>,
    /// How often the password was changed.
    pub password_version: i64,
    /// Issuer and subject of an identity provider's user.
    pub identity: Option<(String, String)>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_hash: Option<String>,
    #[serde(default)]
    password_version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityDoc>,
    created_at: DateTime,
    used_bytes: i64,
    images: i64,
    holds: Vec<Document>,
}

impl UserDoc {
    fn new(id: UserId, now: OffsetDateTime) -> Self {
        Self {
            id: id.to_string(),
            email: None,
            email_key: None,
            password_hash: None,
            password_version: 0,
            identity: None,
            created_at: datetime(now),
            used_bytes: 0,
            images: 0,
            holds: Vec::new(),
        }
    }

    fn into_account(self) -> Result<Account, StoreError> {
        let corrupt = |field| StoreError::Corrupt { collection: "users", id: self.id.clone(), field };
        let user = User {
            id: UserId::parse(&self.id).ok_or_else(|| corrupt("_id"))?,
            email: self.email.as_deref().map(Email::parse).transpose().map_err(|_| corrupt("email"))?,
            created_at: instant(self.created_at),
        };
        let identity = self.identity.map(|identity| (identity.issuer, identity.subject));
        Ok(Account {
            identity,
            user,
            password_hash: self.password_hash.map(SecretString::from),
            password_version: self.password_version,
        })
    }
}

impl Users {
    pub(super) fn new(calls: &Calls) -> Self {
        Self { collection: calls.database().collection("users"), calls: calls.clone() }
    }

    /// How many accounts there are, about: the database's own figure, which costs nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn estimated_count(&self) -> Result<u64, StoreError> {
        self.calls.read(|| async { self.collection.estimated_document_count().await }).await
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        let unique = |name: &str, of: &str| {
            let among = doc! { of: { "$exists": true } };
            IndexOptions::builder().name(name.to_owned()).unique(true).partial_filter_expression(among).build()
        };
        let sparse = |name: &str| IndexOptions::builder().name(name.to_owned()).sparse(true).build();
        let indexes = [
            IndexModel::builder().keys(doc! { "emailKey": 1 }).options(unique("emailKey", "emailKey")).build(),
            IndexModel::builder()
                .keys(doc! { "identity.issuer": 1, "identity.subject": 1 })
                .options(unique("identity", "identity"))
                .build(),
            IndexModel::builder().keys(doc! { "holds.at": 1 }).options(sparse("holdsAt")).build(),
            IndexModel::builder().keys(doc! { "due": 1 }).options(sparse("due")).build(),
            IndexModel::builder().keys(doc! { "formerIdentity": 1 }).options(sparse("formerIdentity")).build(),
        ];
        match self.calls.run(async { self.collection.create_indexes(indexes.clone()).await }).await {
            // Before identity providers, every user had an emailKey and the index knew none without.
            Err(StoreError::Database(error)) if is_other_index(&error) => {
                self.calls.run(async { self.collection.drop_index("emailKey").await }).await?;
                self.calls.run(async { self.collection.create_indexes(indexes).await }).await.map(drop)
            }
            made => made.map(drop),
        }
    }

    /// Adds an account. `None` when the email belongs to one already: the unique index decides.
    ///
    /// # Errors
    /// [`StoreError`]; an account may have been made whose answer was lost, and a repeat then answers `None`.
    pub async fn insert(&self, email: &Email, password_hash: &str, now: OffsetDateTime) -> Result<Option<User>, StoreError> {
        let id = UserId::new();
        let document = UserDoc {
            email: Some(email.as_str().to_owned()),
            email_key: Some(email.key().to_owned()),
            password_hash: Some(password_hash.to_owned()),
            ..UserDoc::new(id, now)
        };
        let created_at = instant(document.created_at);
        Ok(self.insert_unique(document).await?.then(|| User { id, email: Some(email.clone()), created_at }))
    }

    async fn insert_unique(&self, document: UserDoc) -> Result<bool, StoreError> {
        match self.calls.run(async { self.collection.insert_one(document).await }).await {
            Ok(_) => Ok(true),
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(false),
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
        let projection = doc! { "holds": { "$literal": [] }, "email": 1, "passwordHash": 1, "passwordVersion": 1, "identity": 1, "createdAt": 1, "usedBytes": 1, "images": 1 };
        self.calls
            .read(|| async { self.collection.find_one(not_deleted(filter.clone())).projection(projection.clone()).await })
            .await?
            .map(UserDoc::into_account)
            .transpose()
    }

    /// Changes the password that `account` was read with. `false` when it was changed since, or the account is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change_password(&self, account: &Account, password_hash: &str) -> Result<bool, StoreError> {
        let update = doc! { "$set": { "passwordHash": password_hash }, "$inc": { "passwordVersion": 1_i64 } };
        self.update_password(account, update).await
    }

    /// Writes the same password with another hash, unless it was changed since.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn rehash_password(&self, account: &Account, password_hash: &str) -> Result<bool, StoreError> {
        self.update_password(account, doc! { "$set": { "passwordHash": password_hash } }).await
    }

    async fn update_password(&self, account: &Account, update: Document) -> Result<bool, StoreError> {
        let filter = not_deleted(doc! { "_id": account.user.id.to_string(), "passwordVersion": version(account) });
        Ok(self.calls.run(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    /// Users in the order of their ids, after `after`; the last page is empty.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ids(&self, after: Option<UserId>, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let filter = after.map_or_else(Document::new, |after| doc! { "_id": { "$gt": after.to_string() } });
        let ids = self.collection.clone_with_type::<Document>();
        let found = self
            .calls
            .read(|| async {
                use futures_util::TryStreamExt;
                let find = ids.find(filter.clone()).projection(doc! { "_id": 1 }).sort(doc! { "_id": 1 }).limit(i64::from(limit));
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
        let found = self
            .calls
            .read(|| async {
                counts.find_one(not_deleted(doc! { "_id": user.to_string() })).projection(projection.clone()).await
            })
            .await?;
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

    /// Counts uploads' bytes and makes their holds, if both the quota and the cap of open uploads allow all of them.
    /// One conditional update: of any number at once, exactly those that fit succeed.
    ///
    /// # Errors
    /// [`StoreError`]; holds without an image may then remain, which the sweeper settles.
    pub async fn reserve(
        &self,
        user: UserId,
        uploads: &[(ImageId, u64)],
        (quota, max_pending): (u64, u32),
        now: OffsetDateTime,
    ) -> Result<Reserved, StoreError> {
        let bytes = uploads.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let places = (max_pending as usize).checked_sub(uploads.len());
        let (Some(room), Some(free)) = (quota.checked_sub(bytes), places) else { return Ok(Reserved::No) };
        let mut filter = not_deleted(doc! { "_id": user.to_string(), "usedBytes": { "$lte": integer(room) } });
        // With this place in the array free, there are places for all.
        filter.insert(format!("holds.{free}"), doc! { "$exists": false });
        let hold =
            |(image, bytes): &(ImageId, u64)| doc! { "image": image.to_string(), "bytes": integer(*bytes), "at": datetime(now) };
        let holds: Vec<_> = uploads.iter().map(hold).collect();
        let update = doc! { "$inc": { "usedBytes": integer(bytes) }, "$push": { "holds": { "$each": holds } } };
        let done = self.calls.run(async { self.collection.update_one(filter, update).await }).await?;
        Ok(if done.matched_count == 1 { Reserved::Yes } else { Reserved::No })
    }

    /// The upload became an image: its bytes stay counted, but for `surplus` that did not come. Does nothing when the hold
    /// is gone.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn keep_held(&self, user: UserId, image: ImageId, surplus: u64) -> Result<bool, StoreError> {
        self.take_hold(user, image, kept(surplus)).await
    }

    /// [`Users::keep_held`] for many, in one round trip.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn keep_all_held(&self, user: UserId, images: &[(ImageId, u64)]) -> Result<(), StoreError> {
        let moves = images.iter().map(|(image, surplus)| hold_taken(user, *image, kept(*surplus)));
        self.calls.update_each(&self.collection, moves.map(|(filter, update)| (filter, update.into()))).await.map(drop)
    }

    /// The upload came to nothing: its bytes are free again. Does nothing when the hold is gone.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn release_held(&self, user: UserId, image: ImageId, bytes: u64) -> Result<bool, StoreError> {
        self.take_hold(user, image, doc! { "usedBytes": -integer(bytes) }).await
    }

    /// [`Users::release_held`] for many, in one round trip.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn release_all_held(&self, user: UserId, uploads: &[(ImageId, u64)]) -> Result<(), StoreError> {
        let moves = uploads.iter().map(|(image, bytes)| hold_taken(user, *image, doc! { "usedBytes": -integer(*bytes) }));
        self.calls.update_each(&self.collection, moves.map(|(filter, update)| (filter, update.into()))).await.map(drop)
    }

    /// The holds' uploads are still open: each is not looked at again before its time has come. One round trip.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn postpone_holds(&self, user: UserId, until: &[(ImageId, OffsetDateTime)]) -> Result<(), StoreError> {
        let moves = until.iter().map(|(image, at)| {
            let filter = doc! { "_id": user.to_string(), "holds.image": image.to_string() };
            (filter, doc! { "$set": { "holds.$.at": datetime(*at) } }.into())
        });
        self.calls.update_each(&self.collection, moves).await.map(drop)
    }

    async fn take_hold(&self, user: UserId, image: ImageId, increment: Document) -> Result<bool, StoreError> {
        let (filter, update) = hold_taken(user, image, increment);
        Ok(self.calls.run(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    /// In the transaction that takes ready images away: their bytes are free, and they are not counted any more. Where a
    /// server died between an image's confirmation and [`Users::keep_held`], it never was: its hold goes instead.
    pub(super) async fn drop_images(
        &self,
        user: UserId,
        images: &[(String, i64)],
        session: &mut ClientSession,
    ) -> mongodb::error::Result<()> {
        let ids: Vec<_> = images.iter().map(|(id, _)| id.as_str()).collect();
        let is_taken = doc! { "$in": ["$$this.image", ids] };
        let held = doc! { "$filter": { "input": "$holds", "cond": is_taken.clone() } };
        // What is counted for an image is its hold's while that is there.
        let unless_held = |id: &str, n: i64| doc! { "$cond": [{ "$in": [id, "$holds.image"] }, 0_i64, n] };
        let mut freed = vec![doc! { "$sum": { "$map": { "input": held, "in": "$$this.bytes" } } }];
        freed.extend(images.iter().map(|(id, bytes)| unless_held(id, *bytes)));
        let counted: Vec<_> = images.iter().map(|(id, _)| unless_held(id, 1)).collect();
        let set = doc! {
            "usedBytes": { "$subtract": ["$usedBytes", { "$add": freed }] },
            "images": { "$subtract": ["$images", { "$add": counted }] },
            "holds": { "$filter": { "input": "$holds", "cond": { "$not": [is_taken] } } },
        };
        let filter = doc! { "_id": user.to_string() };
        self.collection.update_one(filter, vec![doc! { "$set": set }]).session(session).await.map(drop)
    }

    /// Holds made, or to be looked at, before `before`, by user, of at most `limit` users: what servers that died may have
    /// left unsettled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn old_holds(&self, before: OffsetDateTime, limit: i64) -> Result<Vec<(UserId, Vec<(ImageId, u64)>)>, StoreError> {
        let before = datetime(before);
        let filter = doc! { "holds.at": { "$lt": before } };
        let found = self
            .calls
            .read(|| async {
                use futures_util::TryStreamExt;
                self.collection.find(filter.clone()).limit(limit).await?.try_collect::<Vec<_>>().await
            })
            .await?;
        let mut holds = Vec::new();
        for user in found {
            let Some(id) = UserId::parse(&user.id) else { continue };
            let old = user.holds.iter().filter_map(|hold| {
                let is_old = hold.get_datetime("at").is_ok_and(|at| *at < before);
                let image = hold.get_str("image").ok().and_then(ImageId::parse);
                let bytes = hold.get_i64("bytes").ok().and_then(|n| u64::try_from(n).ok());
                image.zip(bytes).filter(|_| is_old)
            });
            holds.push((id, old.collect()));
        }
        Ok(holds)
    }
}

/// The change to a user when an upload became an image.
fn kept(surplus: u64) -> Document {
    doc! { "images": 1_i64, "usedBytes": -integer(surplus) }
}

/// Takes a hold, once: who comes second finds none.
fn hold_taken(user: UserId, image: ImageId, increment: Document) -> (Document, Document) {
    let filter = doc! { "_id": user.to_string(), "holds.image": image.to_string() };
    (filter, doc! { "$pull": { "holds": { "image": image.to_string() } }, "$inc": increment })
}
