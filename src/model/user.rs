//! A user as the rest of the program sees one.

use time::OffsetDateTime;

use super::{Email, UserId};

/// An account.
#[derive(Debug, Clone)]
pub struct User {
    /// Also the token's `sub` and the second segment of every key this user owns.
    pub id: UserId,
    /// Of an account of this service's own: unique by [`Email::key`]. Of an identity provider's user: what it verified, if it
    /// said; belongs to nobody, and opens nothing.
    pub email: Option<Email>,
    /// When the account was made.
    pub created_at: OffsetDateTime,
}

/// A user's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that count against the quota: of ready images, of open uploads, and of deleted and failed ones until no URL can
    /// write them again.
    pub bytes: u64,
    /// Ready images.
    pub images: u64,
    /// Open uploads.
    pub pending: u64,
}
