//! Users: an account, and its use of storage.

use time::OffsetDateTime;

use super::{Email, UserId};

/// An account.
#[derive(Debug, Clone)]
pub struct User {
    /// Also the `sub` of its access tokens and the second segment of its object keys.
    pub id: UserId,
    /// Address of a local account, unique by [`Email::key`]. For a user of an identity provider, the address that the provider
    /// verified; for a user of the app, the one that its backend sent: both are optional, not unique, and not for signing in.
    pub email: Option<Email>,
    /// When the account was created.
    pub created_at: OffsetDateTime,
}

/// A user's use of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that count against the quota: those of ready images, of open uploads, and of deleted and failed ones until no URL
    /// can write them again.
    pub bytes: u64,
    /// Number of ready images.
    pub images: u64,
    /// Number of open uploads.
    pub pending: u64,
    /// The user's own quota in bytes; `None` if `USER_QUOTA_BYTES` applies.
    pub own_quota: Option<u64>,
}

impl Usage {
    /// Returns the user's quota in bytes; `default_quota` is that of users without one of their own.
    #[must_use]
    pub fn quota(&self, default_quota: u64) -> u64 {
        self.own_quota.unwrap_or(default_quota)
    }
}
