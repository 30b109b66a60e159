//! Administration of users by an app's backend: lists, quotas, suspension.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{MAX_UNREADABLE_PAGES, audit::audit, identity_provider::Identities, service_keys::Authorized, sessions::Sessions};
pub use crate::store::ProviderIdentity;
use crate::{
    config,
    model::{Email, InvalidEmail, Subject, Usage, User, UserId},
    store::{Account, CountedAccount, Store, StoreError, UserFilter},
};

/// Largest quota of a user in bytes: the largest integer that every JSON parser keeps exactly.
pub const MAX_QUOTA: u64 = (1 << 53) - 1;

/// An account as the app's backend sees it.
#[derive(Debug, Clone)]
pub struct AdministeredUser {
    /// The user.
    pub user: User,
    /// Identity of a user of the app or of an identity provider.
    pub identity: Option<ProviderIdentity>,
    /// When the account was suspended.
    pub suspended_at: Option<OffsetDateTime>,
    /// Bytes, images and uploads that are counted for the user.
    pub usage: Usage,
    /// The quota that applies, in bytes.
    pub quota_bytes: u64,
}

/// Selection of users to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserQuery<'a> {
    /// Users of this subject, of the app and of the identity provider.
    pub subject: Option<&'a str>,
    /// Users with this address.
    pub email: Option<&'a str>,
    /// The user after whom the page begins.
    pub after: Option<UserId>,
    /// Maximum number of users on the page.
    pub limit: u32,
}

/// A page of users.
#[derive(Debug)]
pub struct UserPage {
    /// The users, in the order of their creation.
    pub users: Vec<AdministeredUser>,
    /// The user of the page's last record, if more follow.
    pub next: Option<UserId>,
}

/// Why users were not listed.
#[derive(Debug, thiserror::Error)]
pub enum ListUsersError {
    /// The text is not an email address.
    #[error(transparent)]
    Email(#[from] InvalidEmail),
    /// The request has both a subject and an address.
    #[error("subject and email exclude each other")]
    TwoFilters,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a user was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No account has this id, or it was deleted.
    #[error("no such user")]
    NotFound,
    /// The quota is out of range.
    #[error("the quota must be from 0 to {MAX_QUOTA} bytes")]
    Quota,
    /// The database failed; the change may have been made. A repeat is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Users, for the app's backend.
#[derive(Debug)]
pub struct UserAdministration {
    store: Arc<Store>,
    settings: Arc<config::Uploads>,
    identities: Arc<Identities>,
    sessions: Arc<Sessions>,
}

impl UserAdministration {
    /// Builds the service from its parts.
    pub(super) fn new(
        store: &Arc<Store>,
        settings: &Arc<config::Uploads>,
        identities: &Arc<Identities>,
        sessions: &Arc<Sessions>,
    ) -> Self {
        let (store, settings) = (store.clone(), settings.clone());
        Self { store, settings, identities: identities.clone(), sessions: sessions.clone() }
    }

    /// Returns a page of users. Leaves out and logs users whose records cannot be read.
    ///
    /// # Errors
    /// [`ListUsersError`].
    pub async fn list(&self, _: &Authorized, query: UserQuery<'_>) -> Result<UserPage, ListUsersError> {
        let filter = match (query.subject, query.email) {
            (Some(_), Some(_)) => return Err(ListUsersError::TwoFilters),
            (None, Some(email)) => UserFilter::Email(Email::parse(email)?),
            (Some(subject), None) => UserFilter::Ids(self.find_by_subject(subject).await?),
            (None, None) => UserFilter::All,
        };
        let mut page = self.store.account_page(&filter, query.after, query.limit).await?;
        for _ in 0..MAX_UNREADABLE_PAGES {
            let Some(next) = page.next.filter(|_| page.accounts.is_empty()) else { break };
            page = self.store.account_page(&filter, Some(next), query.limit).await?;
        }
        let users = page.accounts.into_iter().map(|counted| self.describe(counted)).collect();
        Ok(UserPage { users, next: page.next })
    }

    /// Returns the users of a subject: of the app, and of the identity provider.
    async fn find_by_subject(&self, subject: &str) -> Result<Vec<UserId>, StoreError> {
        let mut found = Vec::new();
        for issuer in std::iter::once(Subject::ISSUER).chain(self.identities.issuer()) {
            let identity = ProviderIdentity { issuer: issuer.to_owned(), subject: subject.to_owned() };
            found.extend(self.store.users.find_identity(&identity).await?.map(|holder| holder.user));
        }
        Ok(found)
    }

    /// Returns a user.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn get(&self, _: &Authorized, user: UserId) -> Result<AdministeredUser, UserError> {
        self.read(user).await
    }

    /// Sets the user's own quota; `None` removes it. A quota below the used bytes only rejects new uploads.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn set_quota(&self, key: &Authorized, user: UserId, bytes: Option<u64>) -> Result<AdministeredUser, UserError> {
        if bytes.is_some_and(|bytes| bytes > MAX_QUOTA) {
            return Err(UserError::Quota);
        }
        if !self.store.users.set_quota(user, bytes).await? {
            return Err(UserError::NotFound);
        }
        audit!("quota_changed", %user, key = key.key_name(), bytes, "the app's backend changed a user's quota");
        self.read(user).await
    }

    /// Suspends a user: every call is rejected until the user is resumed, on this server at once. Sessions do not end.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn suspend(&self, key: &Authorized, user: UserId, now: OffsetDateTime) -> Result<AdministeredUser, UserError> {
        if !self.store.users.suspend(user, now).await? {
            return Err(UserError::NotFound);
        }
        audit!("account_suspended", %user, key = key.key_name(), "the app's backend suspended a user");
        self.forget_cached(user).await?;
        self.read(user).await
    }

    /// Ends the suspension of a user. Sessions that have not ended meanwhile are active again.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn resume(&self, key: &Authorized, user: UserId) -> Result<AdministeredUser, UserError> {
        if !self.store.users.resume(user).await? {
            return Err(UserError::NotFound);
        }
        audit!("account_resumed", %user, key = key.key_name(), "the app's backend resumed a user");
        self.forget_cached(user).await?;
        self.read(user).await
    }

    /// Checks that a user exists.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn require(&self, _: &Authorized, user: UserId) -> Result<(), UserError> {
        self.store.users.state(user).await?.map(drop).ok_or(UserError::NotFound)
    }

    /// Discards this server's cache entries of the user. Those of other servers expire.
    async fn forget_cached(&self, user: UserId) -> Result<(), StoreError> {
        self.sessions.forget_statuses(user);
        if let Some(account) = self.store.users.find(user).await? {
            self.identities.forget_user(&account);
        }
        Ok(())
    }

    /// Returns a user with its usage, from the database.
    async fn read(&self, user: UserId) -> Result<AdministeredUser, UserError> {
        let account = self.store.users.find(user).await?.ok_or(UserError::NotFound)?;
        let usage = self.store.usage(user).await?.ok_or(UserError::NotFound)?;
        Ok(self.describe(CountedAccount { account, usage }))
    }

    /// Combines an account with the quota that applies to it.
    fn describe(&self, counted: CountedAccount) -> AdministeredUser {
        let CountedAccount { account: Account { user, identity, suspended_at, .. }, usage } = counted;
        let quota_bytes = usage.quota(self.settings.quota_bytes);
        AdministeredUser { user, identity, suspended_at, usage, quota_bytes }
    }
}
