//! Errors of authenticating a caller that local sessions and the identity provider share.

use super::credentials::TokenError;
use crate::store::StoreError;

/// Why an access token is rejected.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The token is malformed, forged or expired.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The session of the token has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// The account of the token's user is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// The identity provider's keys could not be fetched, or may not include a new one.
    #[error("failed to fetch the identity provider's keys")]
    KeysUnavailable,
    /// The database failed, so it is not known whether the session has ended.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a request that needs a local account is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLocalAccount {
    /// Local accounts are disabled on this server.
    #[error("this server has no local accounts")]
    Disabled,
    /// The caller's account belongs to an identity provider.
    #[error("the account belongs to an identity provider")]
    Foreign,
}
