//! Registration of accounts under the keys that no two of them share (`store/account_keys.rs`): the address of a local account,
//! the identity of a provider's user.
//!
//! The key is taken first, then the account is inserted. If the server dies in between, the key names an account that does not
//! exist. Another sign-up takes it over after two seconds, and the sweeper releases it later. Before either, a tombstone with the
//! account's id makes the late insertion of a slow server impossible.
//!
//! An earlier version registers no keys: unique indexes of `users` decide. These indexes exist while `users` is not sharded, so
//! that both versions may run, and this version also finds accounts by them. The sweeper of this version registers accounts
//! without `registered`. When `users` is sharded, the keys alone decide.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Bson, Document, doc},
    options::Hint,
};
use time::OffsetDateTime;

use super::{UserDoc, Users, deletion::identity_digest, identities::IdentityDoc};
use crate::{
    model::{Email, OPENING_GRACE, UserId},
    store::{
        StoreError,
        account_keys::{AccountKeys, DueKey, KeyHolder},
        datetime,
        driver_events::Operation,
        is_duplicate,
    },
};

/// Name of the index of accounts that are not registered: those of an earlier version.
pub(super) const UNREGISTERED: &str = "unregistered";
/// Attempts at taking a key that another sign-up holds.
const MAX_ATTEMPTS: u32 = 8;
/// Pause after the first attempt; it doubles with each. The pauses are 5 s together, longer than the
/// 2 s after which a key counts as abandoned.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
/// Interval at which the sweeper examines a key, because servers of an earlier version delete accounts without releasing keys.
const CHECK_INTERVAL: time::Duration = time::Duration::days(30);

/// State of an account with a record. An account without a record was never inserted, is being inserted, or its deletion is
/// finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existence {
    /// The account exists.
    Exists,
    /// The record is a tombstone.
    Deleted,
}

/// Outcome of inserting an account under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registration {
    /// The account is inserted.
    Inserted,
    /// Another account has the key.
    KeyTaken,
    /// Another server has prevented the insertion, because this one was slow. Whether any account has the key is not known.
    Prevented,
}

/// Result of a step of the sweeper over keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyStep {
    /// Keys and accounts that could not be processed.
    pub failed: u32,
    /// Whether more keys or accounts may be due.
    pub more: bool,
}

impl Users {
    /// Inserts an account under its key.
    pub(super) async fn insert_registered(
        &self,
        keys: &AccountKeys,
        key: &str,
        id: UserId,
        account: UserDoc,
        now: OffsetDateTime,
    ) -> Result<Registration, StoreError> {
        if !self.take_key(keys, key, id, now).await? {
            return Ok(Registration::KeyTaken);
        }
        match self.mongo.insert_one(&self.collection, account).await {
            Ok(()) => {
                self.outbox.wake();
                Ok(Registration::Inserted)
            }
            // A tombstone prevents the insertion, or an account of an earlier version has the key.
            Err(StoreError::Database(error)) if is_duplicate(&error) => {
                keys.release(key, id).await?;
                let is_prevented = self.existence(&[id]).await?.get(&id) == Some(&Existence::Deleted);
                Ok(if is_prevented { Registration::Prevented } else { Registration::KeyTaken })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a key for an account. Returns `false` if another existing account has it.
    async fn take_key(&self, keys: &AccountKeys, key: &str, user: UserId, now: OffsetDateTime) -> Result<bool, StoreError> {
        for attempt in 0..MAX_ATTEMPTS {
            if keys.take(key, user).await? {
                return Ok(true);
            }
            let Some(holder) = keys.holder(key).await? else { continue };
            let is_free = match self.existence(&[holder.user]).await?.get(&holder.user) {
                Some(Existence::Exists) => return Ok(false),
                Some(Existence::Deleted) => true,
                None if holder.is_old => self.prevent_insertion(holder.user, now).await?,
                None => {
                    tokio::time::sleep(FIRST_BACKOFF * 2_u32.pow(attempt)).await;
                    false
                }
            };
            if is_free && keys.take_from(key, holder.user, user).await? {
                return Ok(true);
            }
        }
        Err(StoreError::Contention { subject: "accounts of the same address or identity" })
    }

    /// Returns the states of these accounts, without those that have no record.
    async fn existence(&self, users: &[UserId]) -> Result<HashMap<UserId, Existence>, StoreError> {
        let ids: Vec<_> = users.iter().map(ToString::to_string).collect();
        let records = self.collection.clone_with_type::<Document>();
        let found: Vec<_> = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                let find = records.find(doc! { "_id": { "$in": &ids } }).projection(doc! { "deletedAt": 1 });
                find.await?.try_collect().await
            })
            .await?;
        let read = |record: &Document| {
            let existence = if record.contains_key("deletedAt") { Existence::Deleted } else { Existence::Exists };
            Some((UserId::parse(record.get_str("_id").ok()?)?, existence))
        };
        Ok(found.iter().filter_map(read).collect())
    }

    /// Inserts a tombstone with the id of an account without a record, so that no server can insert the account. Returns `false`
    /// if there is a record. The sweeper later removes the tombstone and no data of the user: an existing account's record may have
    /// been lost.
    async fn prevent_insertion(&self, user: UserId, now: OffsetDateTime) -> Result<bool, StoreError> {
        let mut tombstone = mongodb::bson::serialize_to_document(&UserDoc::new(user, now)).map_err(|_| StoreError::Corrupt {
            collection: "users",
            id: user.to_string(),
            field: "a field",
        })?;
        // Later than any insertion of the account that is still under way.
        let due = datetime(now + OPENING_GRACE);
        tombstone.extend(doc! { "deletedAt": datetime(now), "due": due, "neverInserted": true });
        let records = self.collection.clone_with_type::<Document>();
        match self.mongo.insert_one(&records, tombstone).await {
            Ok(()) => Ok(true),
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns whether unique indexes of `users` also find accounts, as in an earlier version.
    pub(super) fn has_unique_indexes(&self) -> bool {
        self.has_unique_indexes.load(Ordering::Relaxed)
    }

    /// Releases the keys of a deleted account.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn release_keys(&self, user: UserId) -> Result<(), StoreError> {
        self.emails.release_all(user).await?;
        self.identities.release_all(user).await
    }

    /// Examines at most `limit` keys of each kind that are due, and releases those whose account does not exist.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn check_keys(&self, now: OffsetDateTime, limit: u32) -> Result<KeyStep, StoreError> {
        let mut step = KeyStep::default();
        for keys in [&self.emails, &self.identities] {
            let due = keys.find_due_keys(now, limit).await?;
            step.more |= due.len() == limit as usize;
            let users: Vec<_> = due.iter().filter_map(|due| due.holder).map(|holder| holder.user).collect();
            let existence = if users.is_empty() { HashMap::new() } else { self.existence(&users).await? };
            let mut examined = Vec::with_capacity(due.len());
            for DueKey { key, holder } in due {
                let Some(KeyHolder { user, is_old }) = holder else {
                    tracing::error!(kind = keys.name(), "failed to read the account of a key");
                    step.failed += 1;
                    examined.push(key);
                    continue;
                };
                match existence.get(&user) {
                    Some(Existence::Exists) => examined.push(key),
                    Some(Existence::Deleted) => keys.release_due(&key, user).await?,
                    // The key is due by the clock of `now`, but by the database's clock its account is just being inserted.
                    None if !is_old => {}
                    None if self.prevent_insertion(user, now).await? => keys.release_due(&key, user).await?,
                    None => examined.push(key),
                }
            }
            keys.postpone(&examined, now + CHECK_INTERVAL).await?;
        }
        Ok(step)
    }

    /// Registers at most `limit` accounts of an earlier version.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn register_earlier_accounts(&self, now: OffsetDateTime, limit: u32) -> Result<KeyStep, StoreError> {
        let records = self.collection.clone_with_type::<Document>();
        // Null also matches the absent field, and these accounts alone are in the index.
        let filter = doc! { "registered": null, "deletedAt": null };
        let found: Vec<_> = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                let find = records.find(filter.clone()).projection(doc! { "emailKey": 1, "identity": 1 });
                find.hint(Hint::Name(UNREGISTERED.to_owned())).limit(i64::from(limit)).await?.try_collect().await
            })
            .await?;
        let mut step = KeyStep { failed: 0, more: found.len() == limit as usize };
        let mut registered = Vec::with_capacity(found.len());
        for record in &found {
            let user = record.get("_id");
            match self.register(record, now).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::error!(?user, "failed to register an account: another one has its address or identity");
                    step.failed += 1;
                }
                // Its address or identity has an unreadable record, which no repeat cures.
                Err(error) if !error.is_temporary() => {
                    tracing::error!(?user, %error, "failed to register an account");
                    step.failed += 1;
                }
                // Another account is being inserted under its address or identity: the next sweep tries again.
                Err(error @ StoreError::Contention { .. }) => {
                    tracing::warn!(?user, %error, "failed to register an account");
                    step.failed += 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
            // Also accounts that cannot be registered: a repeat would fail in the same way.
            registered.extend(record.get("_id").cloned());
        }
        if !registered.is_empty() {
            let filter = doc! { "_id": { "$in": registered } };
            self.mongo.update_many(&self.collection, filter, doc! { "$set": { "registered": true } }).await?;
        }
        Ok(step)
    }

    /// Takes the keys of an existing account. Returns `false` if another account has one of them.
    async fn register(&self, record: &Document, now: OffsetDateTime) -> Result<bool, StoreError> {
        // A record without a readable id names no account.
        let Some(user) = record.get_str("_id").ok().and_then(UserId::parse) else { return Ok(true) };
        let identity = record.get_document("identity").ok().cloned();
        let identity = identity.and_then(|found| mongodb::bson::deserialize_from_document::<IdentityDoc>(found).ok());
        let mut is_registered = true;
        if let Some(Bson::String(key)) = record.get("emailKey") {
            is_registered &= self.take_key(&self.emails, key, user, now).await?;
        }
        if let Some(identity) = identity {
            let digest = identity_digest(&identity.into_identity());
            is_registered &= self.take_key(&self.identities, &digest, user, now).await?;
        }
        Ok(is_registered)
    }

    /// Returns the user who is registered under this address.
    pub(super) async fn find_email_holder(&self, email: &Email) -> Result<Option<UserId>, StoreError> {
        Ok(self.emails.holder(email.key()).await?.map(|holder| holder.user))
    }
}
