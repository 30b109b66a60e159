//! Accounts: `users {_id, email, emailKey, passwordHash, passwordVersion, passwordChangedAt, keptSession: {session, version},
//! identity: {issuer, subject}, suspendedAt, quotaBytes, registered, createdAt, usedBytes, images, pending, timeline: {month:
//! images}, opening: [{image, bytes, at}], settling: [{image, step, before, at, bytes, images, pending, hold, month, timeline}],
//! holds: [], deletedAt, due, formerIdentity, formerSubject, neverInserted, deletionFailures, outbox, outboxUnreadable}`. A local
//! account has emailKey and passwordHash, one of an identity provider has identity; each kind is registered under keys of its own,
//! so that neither can be mistaken for the other.
//!
//! This file inserts and finds accounts; `identities` does so for users of identity providers and of the app. `registration` takes
//! the keys that no two accounts share, `passwords` changes passwords, `quota`, `reservation_steps` and `timeline` count uploads,
//! `legacy_holds` converts the counts of an earlier version, `events` makes the events of accounts, `deletion` ends accounts, and
//! `administration` has the operations for an app's backend.

mod administration;
mod deletion;
mod events;
mod identities;
mod legacy_holds;
mod passwords;
mod quota;
mod registration;
mod reservation_steps;
pub(super) mod timeline;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mongodb::{
    Collection, IndexModel,
    bson::{DateTime, Document, doc},
    options::IndexOptions,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub(super) use self::reservation_steps::{AnnounceOutcome, Counted};
pub use self::{
    administration::{AccountPage, CountedAccount, UserFilter},
    deletion::{Deletion, DeletionDue},
    identities::{IdentityHolder, ProviderIdentity},
    legacy_holds::{LegacyHold, LegacyHolds},
    passwords::{AccountState, NewPassword, PasswordState},
    quota::{QuotaLimits, ReserveOutcome, StaleEntries},
    registration::KeyStep,
    reservation_steps::AnnouncedStep,
};
use self::{deletion::not_deleted, identities::IdentityDoc, passwords::KeptSessionDoc, registration::Registration};
use super::{
    MongoClient, StoreError,
    account_keys::AccountKeys,
    datetime,
    driver_events::Operation,
    instant, is_other_index, is_unique_index_on_sharded_collection,
    outbox::{self, Outbox},
};
use crate::model::{Email, User, UserId};

/// Pattern of the ids of users and images. A record of `users` with another `_id` belongs to no account, and a listing cannot
/// continue after it.
const ID_PATTERN: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";

/// Queries and updates of `users`.
#[derive(Debug, Clone)]
pub struct Users {
    collection: Collection<UserDoc>,
    mongo: MongoClient,
    emails: AccountKeys,
    identities: AccountKeys,
    /// Whether `users` has unique indexes, by which an earlier version finds accounts; it has none where it is sharded.
    has_unique_indexes: Arc<AtomicBool>,
    /// Uploads whose entries in `opening` the next reservation removes.
    inserted: Arc<quota::InsertedUploads>,
    outbox: Outbox,
}

/// An account, with its password hash.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user.
    pub user: User,
    /// PHC string; `None` for a user of an identity provider or of the app.
    pub password_hash: Option<SecretString>,
    /// The password's version, which determines the valid sessions.
    pub password: PasswordState,
    /// Identity of a user of an identity provider, or of the app.
    pub identity: Option<ProviderIdentity>,
    /// Time of the suspension; `None` for an account that is not suspended.
    pub suspended_at: Option<OffsetDateTime>,
}

/// A record of `users`, except the fields that only queries and updates name.
#[derive(Serialize, Deserialize)]
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
    password_changed_at: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept_session: Option<KeptSessionDoc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityDoc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspended_at: Option<DateTime>,
    /// Whether the account is registered under its keys. Absent from records of an earlier version.
    #[serde(default)]
    registered: bool,
    created_at: DateTime,
    used_bytes: i64,
    images: i64,
    #[serde(default)]
    pending: i64,
    #[serde(default)]
    opening: Vec<Document>,
    /// Always empty in records of this version; an earlier version cannot read a record without it.
    holds: Vec<Document>,
    /// Events of the account that are not fanned out yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outbox: Vec<Document>,
}

// Without the password's hash.
impl fmt::Debug for UserDoc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserDoc").field("id", &self.id).finish_non_exhaustive()
    }
}

impl UserDoc {
    /// Returns the record of a new account without credentials.
    fn new(id: UserId, now: OffsetDateTime) -> Self {
        Self {
            id: id.to_string(),
            email: None,
            email_key: None,
            password_hash: None,
            password_version: 0,
            password_changed_at: None,
            kept_session: None,
            identity: None,
            suspended_at: None,
            registered: true,
            created_at: datetime(now),
            used_bytes: 0,
            images: 0,
            pending: 0,
            opening: Vec::new(),
            holds: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// Converts the document; the error names the damaged field.
    fn into_account(self) -> Result<Account, StoreError> {
        let corrupt = |field| StoreError::Corrupt { collection: "users", id: self.id.clone(), field };
        let user = User {
            id: UserId::parse(&self.id).ok_or_else(|| corrupt("_id"))?,
            email: self.email.as_deref().map(Email::parse).transpose().map_err(|_| corrupt("email"))?,
            created_at: instant(self.created_at),
        };
        let password = PasswordState::read(self.password_version, self.password_changed_at, self.kept_session.as_ref());
        let identity = self.identity.map(IdentityDoc::into_identity);
        let suspended_at = self.suspended_at.map(instant);
        Ok(Account { identity, user, password_hash: self.password_hash.map(SecretString::from), password, suspended_at })
    }
}

impl Users {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self {
            collection: mongo.database().collection("users"),
            mongo: mongo.clone(),
            emails: AccountKeys::new(mongo, "emails"),
            identities: AccountKeys::new(mongo, "identities"),
            has_unique_indexes: Arc::new(AtomicBool::new(true)),
            inserted: Arc::default(),
            outbox: Outbox::default(),
        }
    }

    /// Returns the same queries, whose changes write events.
    pub(super) fn with_events(self, outbox: Outbox) -> Self {
        Self { outbox, ..self }
    }

    /// Returns the approximate number of accounts, which the database maintains.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn estimated_count(&self) -> Result<u64, StoreError> {
        self.mongo.read(Operation::count(&self.collection), || async { self.collection.estimated_document_count().await }).await
    }

    pub(super) async fn make_indexes(&self) -> Result<(), StoreError> {
        self.emails.make_indexes().await?;
        self.identities.make_indexes().await?;
        let sparse = |name: &str| IndexOptions::builder().name(name.to_owned()).sparse(true).build();
        let unregistered = IndexOptions::builder().name(registration::UNREGISTERED.to_owned());
        let unregistered = unregistered.partial_filter_expression(doc! { "registered": null, "deletedAt": null }).build();
        let by_address = IndexOptions::builder().name(administration::BY_ADDRESS.to_owned()).sparse(true);
        let by_address = by_address.collation(administration::address_collation()).build();
        let indexes = [
            IndexModel::builder().keys(doc! { "createdAt": 1 }).options(unregistered).build(),
            IndexModel::builder().keys(doc! { "opening.at": 1 }).options(sparse("openingAt")).build(),
            IndexModel::builder().keys(doc! { "settling.at": 1 }).options(sparse("settlingAt")).build(),
            IndexModel::builder().keys(doc! { "holds.at": 1 }).options(sparse("holdsAt")).build(),
            IndexModel::builder().keys(doc! { "due": 1 }).options(sparse("due")).build(),
            IndexModel::builder().keys(doc! { "deletedAt": 1 }).options(sparse("deletedAt")).build(),
            IndexModel::builder().keys(doc! { "formerIdentity": 1 }).options(sparse("formerIdentity")).build(),
            outbox::index(),
            IndexModel::builder().keys(doc! { "email": 1 }).options(by_address).build(),
        ];
        self.mongo.create_indexes(&self.collection, indexes).await?;
        self.make_unique_indexes().await
    }

    /// Creates the unique indexes by which an earlier version finds accounts, unless the collection is sharded.
    async fn make_unique_indexes(&self) -> Result<(), StoreError> {
        let unique = |name: &str| {
            let has_field = doc! { name: { "$exists": true } };
            IndexOptions::builder().name(name.to_owned()).unique(true).partial_filter_expression(has_field).build()
        };
        let by_identity = doc! { "identity.issuer": 1, "identity.subject": 1 };
        let indexes = [
            IndexModel::builder().keys(doc! { "emailKey": 1 }).options(unique("emailKey")).build(),
            IndexModel::builder().keys(by_identity).options(unique("identity")).build(),
        ];
        match self.mongo.create_indexes(&self.collection, indexes.clone()).await {
            // Before identity providers were supported, every user had an emailKey, and the index was not partial.
            Err(StoreError::Database(error)) if is_other_index(&error) => {
                self.mongo
                    .run(Operation::drop_indexes(&self.collection), async { self.collection.drop_index("emailKey").await })
                    .await?;
                self.mongo.create_indexes(&self.collection, indexes).await
            }
            Err(StoreError::Database(error)) if is_unique_index_on_sharded_collection(&error) => {
                self.has_unique_indexes.store(false, Ordering::Relaxed);
                Ok(())
            }
            made => made,
        }
    }

    /// Inserts an account. Returns `None` if the email belongs to an account already.
    ///
    /// # Errors
    /// [`StoreError`]; the account may have been created although the response was lost, and a repeat then returns `None`.
    pub async fn insert(&self, email: &Email, password_hash: &str, now: OffsetDateTime) -> Result<Option<Account>, StoreError> {
        let id = UserId::new();
        let document = UserDoc {
            email: Some(email.as_str().to_owned()),
            email_key: Some(email.key().to_owned()),
            password_hash: Some(password_hash.to_owned()),
            outbox: self.creation_event(Some(email), None, now),
            ..UserDoc::new(id, now)
        };
        let account = Account {
            user: User { id, email: Some(email.clone()), created_at: instant(document.created_at) },
            password_hash: Some(password_hash.into()),
            password: PasswordState::read(0, None, None),
            identity: None,
            suspended_at: None,
        };
        match self.insert_registered(&self.emails, email.key(), id, document, now).await? {
            Registration::Inserted => Ok(Some(account)),
            Registration::KeyTaken => Ok(None),
            Registration::Prevented => match self.find_by_email(email).await? {
                Some(_) => Ok(None),
                None => Err(StoreError::Contention { subject: "accounts of the same address" }),
            },
        }
    }

    /// Returns the account with this email address.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, StoreError> {
        if let Some(user) = self.find_email_holder(email).await?
            && let Some(account) = self.find_one(doc! { "_id": user.to_string(), "emailKey": email.key() }).await?
        {
            return Ok(Some(account));
        }
        // An account of an earlier version that is not registered yet.
        if self.has_unique_indexes() { self.find_one(doc! { "emailKey": email.key() }).await } else { Ok(None) }
    }

    /// Returns the account of an id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        self.find_one(doc! { "_id": user.to_string() }).await
    }

    /// Returns the account that matches and is not deleted.
    async fn find_one(&self, filter: Document) -> Result<Option<Account>, StoreError> {
        self.mongo
            .read(Operation::find(&self.collection), || async {
                self.collection.find_one(not_deleted(filter.clone())).projection(Self::account_projection()).await
            })
            .await?
            .map(UserDoc::into_account)
            .transpose()
    }

    /// Returns the projection of an account's fields, with constants for counters and holds: no reader of an account needs these,
    /// there may be many holds, and a damaged counter must neither prevent its user from signing in nor hide the user from the
    /// repair of the counter.
    fn account_projection() -> Document {
        let zero = doc! { "$literal": 0_i64 };
        let mut projection = doc! { "usedBytes": zero.clone(), "images": zero, "holds": { "$literal": [] } };
        for field in [
            "email",
            "passwordHash",
            "passwordVersion",
            "passwordChangedAt",
            "keptSession",
            "identity",
            "suspendedAt",
            "createdAt",
        ] {
            projection.insert(field, 1);
        }
        projection
    }

    /// Converts a record to an account.
    fn read_account(record: Document) -> Result<Account, StoreError> {
        let id = record.get_str("_id").unwrap_or_default().to_owned();
        let corrupt = |_| StoreError::Corrupt { collection: "users", id, field: "a field" };
        mongodb::bson::deserialize_from_document::<UserDoc>(record).map_err(corrupt)?.into_account()
    }

    /// Returns the ids of the records after `after`, in order; an id that is not a user id is an error. An empty page is the last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ids(&self, after: Option<&str>, limit: u32) -> Result<Vec<Result<UserId, String>>, StoreError> {
        // Comparisons match only values of the same type.
        let filter = doc! { "_id": after.map_or_else(|| doc! { "$gte": "" }, |after| doc! { "$gt": after }) };
        let ids = self.collection.clone_with_type::<Document>();
        let found = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                use futures_util::TryStreamExt;
                let find = ids.find(filter.clone()).projection(doc! { "_id": 1 }).sort(doc! { "_id": 1 }).limit(i64::from(limit));
                find.await?.try_collect::<Vec<_>>().await
            })
            .await?;
        let id = |found: &Document| {
            let text = found.get_str("_id").unwrap_or_default();
            UserId::parse(text).ok_or_else(|| text.to_owned())
        };
        Ok(found.iter().map(id).collect())
    }

    /// Returns the number of records whose id is not a text.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_without_text_id(&self) -> Result<u64, StoreError> {
        let filter = doc! { "_id": { "$not": { "$type": "string" } } };
        self.mongo
            .read(Operation::aggregate(&self.collection), || async { self.collection.count_documents(filter.clone()).await })
            .await
    }
}
