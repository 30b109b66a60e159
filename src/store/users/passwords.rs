//! Passwords of accounts: `users {passwordHash, passwordVersion, passwordChangedAt, keptSession: {session, version}}`.
//!
//! A session records the password version at its start. A change raises the account's version and records the session that
//! requested the change, so that one update ends every other session.

use std::fmt;

use mongodb::bson::{DateTime, Document, doc};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Account, Users, deletion::not_deleted};
use crate::{
    model::{SessionId, UserId},
    store::{StoreError, datetime, driver_events::Operation, instant},
};

/// The password state of an account, which determines its valid sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordState {
    /// Number of password changes; sessions of this version are valid.
    pub version: i64,
    /// The session of an earlier password version that stays valid, because it requested the latest change.
    pub kept_session: Option<SessionId>,
    /// Time of the latest change; `None` also if only earlier versions of this program have changed it.
    pub changed_at: Option<OffsetDateTime>,
}

/// State of an account that determines its valid sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// The state of its password.
    pub password: PasswordState,
    /// Whether the account is suspended.
    pub is_suspended: bool,
}

/// A new password for an account.
pub struct NewPassword<'a> {
    /// PHC string.
    pub hash: &'a str,
    /// The session that stays valid.
    pub kept_session: Option<SessionId>,
    /// Time of the change.
    pub at: OffsetDateTime,
}

// Without the hash.
impl fmt::Debug for NewPassword<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewPassword").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The session that a change of the password does not end, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptSessionDoc {
    session: String,
    /// The version that this session set; with any other, another session has changed the password since.
    version: i64,
}

impl PasswordState {
    /// Reads the state of a password.
    pub(super) fn read(version: i64, changed_at: Option<DateTime>, kept: Option<&KeptSessionDoc>) -> Self {
        let kept = kept.filter(|kept| kept.version == version);
        Self { version, kept_session: kept.and_then(|kept| SessionId::parse(&kept.session)), changed_at: changed_at.map(instant) }
    }
}

/// The fields of a user that [`AccountState`] is read from.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountStateDoc {
    #[serde(default)]
    password_version: i64,
    #[serde(default)]
    password_changed_at: Option<DateTime>,
    #[serde(default)]
    kept_session: Option<KeptSessionDoc>,
    #[serde(default)]
    suspended_at: Option<DateTime>,
}

impl Users {
    /// Returns the state that determines an account's valid sessions; `None` if the account does not exist. One read by `_id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn state(&self, user: UserId) -> Result<Option<AccountState>, StoreError> {
        let states = self.collection.clone_with_type::<AccountStateDoc>();
        let filter = not_deleted(doc! { "_id": user.to_string() });
        let projection = doc! { "passwordVersion": 1, "passwordChangedAt": 1, "keptSession": 1, "suspendedAt": 1 };
        let found = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                states.find_one(filter.clone()).projection(projection.clone()).await
            })
            .await?;
        let read = |state: AccountStateDoc| AccountState {
            password: PasswordState::read(state.password_version, state.password_changed_at, state.kept_session.as_ref()),
            is_suspended: state.suspended_at.is_some(),
        };
        Ok(found.map(read))
    }

    /// Changes the password that `account` was read with, which ends every session of the account except
    /// `new.kept_session`, and returns the new version. `None` if the password was changed since, or the account no longer exists.
    ///
    /// # Errors
    /// [`StoreError`]; the caller must then read whether it happened.
    pub async fn change_password(&self, account: &Account, new: &NewPassword<'_>) -> Result<Option<i64>, StoreError> {
        let version = account.password.version + 1;
        let mut set = doc! { "passwordHash": new.hash, "passwordVersion": version, "passwordChangedAt": datetime(new.at) };
        let update = if let Some(session) = new.kept_session {
            set.insert("keptSession", doc! { "session": session.to_string(), "version": version });
            doc! { "$set": set }
        } else {
            doc! { "$set": set, "$unset": { "keptSession": "" } }
        };
        Ok(self.update_password(account, update).await?.then_some(version))
    }

    /// Stores a new hash of the same password, unless it was changed since.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn rehash_password(&self, account: &Account, password_hash: &str) -> Result<bool, StoreError> {
        self.update_password(account, doc! { "$set": { "passwordHash": password_hash } }).await
    }

    /// Updates an account unless its password was changed meanwhile; returns whether it was updated.
    async fn update_password(&self, account: &Account, update: Document) -> Result<bool, StoreError> {
        let filter = not_deleted(doc! { "_id": account.user.id.to_string(), "passwordVersion": version_filter(account) });
        self.mongo.update_one(&self.collection, filter, update).await
    }
}

/// Returns a filter value for the password's version. Accounts of earlier versions have no version, which means zero.
pub(super) fn version_filter(account: &Account) -> Document {
    match account.password.version {
        0 => doc! { "$in": [0_i64, null] },
        version => doc! { "$eq": version },
    }
}

#[cfg(test)]
mod tests {
    use super::{super::UserDoc, *};

    #[test]
    fn password_hashes_are_not_in_debug() {
        let mut record = UserDoc::new(UserId::new(), OffsetDateTime::UNIX_EPOCH);
        record.password_hash = Some("$argon2id$".to_owned());
        let new = NewPassword { hash: "$argon2id$", kept_session: None, at: OffsetDateTime::UNIX_EPOCH };
        let text = format!("{record:?} {new:?}");
        assert!(text.contains("UserDoc") && text.contains("NewPassword") && !text.contains("argon2id"), "{text}");
    }
}
