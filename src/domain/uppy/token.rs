//! Tokens in the path of Uppy's calls.

use std::sync::Arc;

use secrecy::SecretString;
use time::OffsetDateTime;

use crate::{
    config,
    domain::{
        audit,
        authentication::AuthenticateError,
        credentials::{Caller, TokenError, TokenOrigin, Tokens},
        identity_provider::Identities,
        sessions::Sessions,
        store_capabilities::{KnownCapabilities, UnsupportedUpload, UploadClass},
    },
    model::{ContentType, UserId},
    store::{Store, StoreError},
};

/// A short-lived token for the path of Uppy's calls, and the limits of uploads.
#[derive(Debug)]
pub struct UppyToken {
    /// Token in the path of Uppy's calls.
    pub token: SecretString,
    /// Expiry of the token.
    pub expires_at: OffsetDateTime,
    /// Maximum size of a form upload in bytes.
    pub max_form_bytes: u64,
    /// Maximum size of a file in bytes.
    pub max_bytes: u64,
    /// Accepted media types.
    pub types: Vec<ContentType>,
}

/// Tokens in the path of Uppy's calls.
#[derive(Debug)]
pub struct UppyTokens {
    pub(in crate::domain) store: Arc<Store>,
    pub(in crate::domain) settings: Arc<config::Uploads>,
    pub(in crate::domain) capabilities: Arc<KnownCapabilities>,
    pub(in crate::domain) tokens: Arc<Tokens>,
    pub(in crate::domain) identities: Arc<Identities>,
    pub(in crate::domain) sessions: Arc<Sessions>,
}

impl UppyTokens {
    /// Returns a token for the path of Uppy's calls. It is valid no longer than an access token, an upload's URL or the caller's
    /// provider token, and ends with the caller's session.
    ///
    /// # Errors
    /// [`UnsupportedUpload`] if the store does not take Uppy's uploads safely, or the token could not be signed.
    pub async fn issue(&self, caller: Caller, now: OffsetDateTime) -> Result<UppyToken, UnsupportedUpload> {
        self.capabilities.require_support(UploadClass::WithoutDigest)?;
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let latest_expiry = now + self.tokens.ttl().min(self.settings.url_ttl);
        let expires_at = match caller.origin {
            // If the session has ended, the token expires at once.
            TokenOrigin::Session(session) => self
                .store
                .sessions
                .find_owned(caller.user, session, now)
                .await?
                .map_or(now, |session| latest_expiry.min(session.expires_at)),
            TokenOrigin::Provider { expires_at, .. } => latest_expiry.min(expires_at),
        };
        let token = self.tokens.issue_uppy_token(caller, now, expires_at);
        Ok(UppyToken {
            token: token.ok_or(StoreError::Credentials { reason: "failed to sign a token".to_owned() })?,
            expires_at,
            max_form_bytes: self.settings.max_bytes,
            max_bytes: self.settings.multipart_max_bytes,
            types: self.settings.types.clone(),
        })
    }

    /// Returns the user of a token whose session has not ended.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    pub async fn authenticate(&self, token: &str, now: OffsetDateTime) -> Result<UserId, AuthenticateError> {
        let refused = |reason: &str| audit::log_refused_token(reason);
        let (user, session) = self.tokens.verify_uppy_token(token, now).inspect_err(|error| match error {
            TokenError::Invalid => refused("invalid in a path"),
            TokenError::Expired => refused("expired in a path"),
        })?;
        let checked = match session {
            // A session that is not accepted without local accounts is reported as ended, because the token itself is valid.
            Some(session) => self.sessions.require_active(user, session, now).await.map_err(|error| match error {
                AuthenticateError::Token(_) => AuthenticateError::SessionEnded,
                error => error,
            }),
            None => self.require_provider_user(user).await,
        };
        checked.map(|()| user).inspect_err(|error| match error {
            AuthenticateError::Suspended => refused("account suspended"),
            AuthenticateError::SessionEnded => refused("session ended"),
            AuthenticateError::Token(_) => refused("invalid in a path"),
            AuthenticateError::KeysUnavailable | AuthenticateError::Store(_) => {}
        })
    }

    /// Checks that the account of a provider's user exists and is not suspended: this server does not know the provider's
    /// sessions.
    async fn require_provider_user(&self, user: UserId) -> Result<(), AuthenticateError> {
        let account = if self.identities.provider.is_some() { self.store.users.state(user).await? } else { None };
        match account {
            None => Err(AuthenticateError::SessionEnded),
            Some(account) if account.is_suspended => Err(AuthenticateError::Suspended),
            Some(_) => Ok(()),
        }
    }
}
