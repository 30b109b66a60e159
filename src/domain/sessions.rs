//! Sessions: started by a sign-in, continued by refresh tokens, ended by a logout, by their owner, or by a change of the account.
//!
//! A session is active while its record exists and its password version is the account's, or the account names it as the session
//! that the last change of password kept. So changing the password or deleting the account ends sessions with one update;
//! deleting the records afterwards is cleanup.

mod refresh;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use time::OffsetDateTime;

use self::refresh::ClientFingerprint;
use super::{
    audit::{self, audit},
    authentication::{AuthenticateError, NoLocalAccount},
    credentials::{Caller, NoRandomness, SessionEnd, TokenError, TokenIssuer, TokenOrigin, Tokens},
    identity_provider::Identities,
    known_networks::KnownNetworks,
    refresh_token::{self, RefreshToken},
    session_cache::{SessionCache, SessionStatus},
    throttle::{ClientInfo, Throttle, Throttled},
};
pub use crate::store::Session;
use crate::{
    model::{ServiceKeyId, SessionId, User, UserId},
    store::{Account, AccountState, PasswordState, Store, StoreError},
};

/// Maximum lifetime of a session, however often it is refreshed.
const MAX_SESSION_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Maximum number of sessions of an account. A further sign-in ends the session unused for longest.
const MAX_SESSIONS: u32 = 1000;
/// Characters of a `User-Agent` that are stored.
const MAX_DEVICE_CHARS: usize = 200;

/// Tokens of a sign-in, for the client.
#[derive(Debug)]
pub struct SignedIn {
    /// The user who signed in.
    pub user: User,
    /// The access token.
    pub token: SecretString,
    /// Lifetime of the access token.
    pub expires_in: Duration,
    /// The refresh token, valid for one exchange.
    pub refresh_token: SecretString,
    /// Lifetime of the session unless it is refreshed.
    pub refresh_expires_in: Duration,
}

/// Why a refresh token is rejected.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The text is not a refresh token, or its session did not issue it.
    #[error("the refresh token is not valid")]
    Invalid,
    /// The token was exchanged a moment ago, and its successor is in use or was given to another client. The session stays
    /// active.
    #[error("the refresh token was exchanged already")]
    AlreadyExchanged,
    /// The session was ended or has expired.
    #[error("the session has ended")]
    Ended,
    /// The account is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// Local accounts are disabled.
    #[error(transparent)]
    NoLocalAccount(#[from] NoLocalAccount),
    /// Too many refreshes from the client's networks.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The database failed; the token may have been exchanged. The client can send it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sessions, and the callers that access tokens belong to.
#[derive(Debug)]
pub struct Sessions {
    pub(super) store: Arc<Store>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) identities: Arc<Identities>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) known_networks: Arc<KnownNetworks>,
    pub(super) session_ttl: Duration,
    pub(super) session_cache: SessionCache,
}

impl Sessions {
    /// Starts a session of the account, and ends those unused for longest beyond [`MAX_SESSIONS`].
    pub(super) async fn start_session(
        &self,
        account: Account,
        client: &ClientInfo,
        now: OffsetDateTime,
    ) -> Result<(SignedIn, SessionId), StoreError> {
        let (id, user) = (SessionId::new(), account.user.id);
        let token_key = refresh_token::random().map_err(no_randomness)?;
        let token = RefreshToken::new(id, &token_key).map_err(no_randomness)?;
        let session = Session {
            id,
            user,
            device: client.device.as_deref().and_then(device_name),
            // If the password was changed after the account was read, the session is never active.
            password_version: Some(account.password.version),
            created_at: now,
            last_used_at: now,
            expires_at: now + self.session_ttl.min(MAX_SESSION_LIFETIME),
            ends_at: now + MAX_SESSION_LIFETIME,
            token_hash: token.hash(),
            token_key: Some(token_key),
            agent: Some(ClientFingerprint::of(client).agent),
            issued_by: None,
            parent: None,
            earlier: Vec::new(),
        };
        self.insert_session(&session).await?;
        Ok((self.issue_tokens(account.user, &token, session.expires_at, now)?, id))
    }

    /// Starts a session without a refresh token, for a token that a service key creates, and returns that token.
    pub(super) async fn start_app_session(
        &self,
        account: &Account,
        issued_by: ServiceKeyId,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<SecretString, StoreError> {
        let (id, user) = (SessionId::new(), account.user.id);
        // The token's `exp` is in whole seconds; the session must not end before it.
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let expires_at = now + lifetime;
        let session = Session {
            id,
            user,
            device: None,
            password_version: Some(account.password.version),
            created_at: now,
            last_used_at: now,
            expires_at,
            ends_at: expires_at,
            // Digest of random bytes that are discarded, so that no refresh token has it.
            token_hash: refresh_token::random().map_err(no_randomness)?,
            token_key: None,
            agent: None,
            issued_by: Some(issued_by),
            parent: None,
            earlier: Vec::new(),
        };
        self.insert_session(&session).await?;
        let issued = self.tokens.issue_for(user, SessionEnd { id, at: expires_at }, lifetime, now);
        issued.ok_or(StoreError::Credentials { reason: "failed to sign a token".to_owned() })
    }

    /// Inserts a session, and ends those unused for longest beyond [`MAX_SESSIONS`].
    async fn insert_session(&self, session: &Session) -> Result<(), StoreError> {
        let user = session.user;
        self.store.sessions.insert(session).await?;
        match self.store.sessions.delete_least_recently_used_beyond(user, MAX_SESSIONS).await {
            Ok(0) => {}
            Ok(count) => audit!("sessions_ended", %user, count, "ended the sessions unused for longest"),
            // The next sign-in retries.
            Err(error) => tracing::warn!(%user, %error, "failed to delete the sessions unused for longest"),
        }
        Ok(())
    }

    /// Returns the caller of an access token whose session is active. An end on another server takes effect within
    /// [`SessionCache::TTL`], an end on this server at once.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    pub async fn authenticate(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthenticateError> {
        self.verify_active(token, now).await.inspect_err(|error| match error {
            AuthenticateError::Token(TokenError::Invalid) => audit::log_refused_token("invalid"),
            AuthenticateError::Token(TokenError::Expired) => audit::log_refused_token("expired"),
            AuthenticateError::SessionEnded => audit::log_refused_token("session ended"),
            AuthenticateError::Suspended => audit::log_refused_token("account suspended"),
            AuthenticateError::KeysUnavailable | AuthenticateError::Store(_) => {}
        })
    }

    /// Checks again that an access token is accepted, while a long response is sent. An error ends the response; it rejects no
    /// request, so it is not audited.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    pub async fn recheck(&self, token: &str, now: OffsetDateTime) -> Result<(), AuthenticateError> {
        self.verify_active(token, now).await.map(drop)
    }

    /// Returns the caller of a valid token whose session has not ended.
    async fn verify_active(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthenticateError> {
        let caller = match self.tokens.recall(token) {
            Some(verified) => verified.at(now)?,
            None => match TokenIssuer::read(token)? {
                TokenIssuer::Local => self.tokens.verify(token, now)?,
                TokenIssuer::Provider(key) => return self.identities.authenticate_with_provider(token, &key, now).await,
            },
        };
        // A local access token always belongs to a session.
        let TokenOrigin::Session(session) = caller.origin else { return Err(TokenError::Invalid.into()) };
        self.require_active(caller.user, session, now).await?;
        Ok(caller)
    }

    /// Checks that a session belongs to this user and is active. Without local accounts, only sessions that a service key
    /// created are.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    pub(super) async fn require_active(
        &self,
        user: UserId,
        session: SessionId,
        now: OffsetDateTime,
    ) -> Result<(), AuthenticateError> {
        let queried_at = Instant::now();
        let status = match self.session_cache.get(user, session, queried_at) {
            Some(status) => status,
            None => {
                let found = self.store.sessions.find_owned(user, session, now);
                let (found, account) = tokio::try_join!(found, self.store.users.state(user))?;
                if !self.identities.local_accounts && found.as_ref().is_some_and(|found| found.issued_by.is_none()) {
                    return Err(TokenError::Invalid.into());
                }
                self.session_cache.insert(user, session, status(found.as_ref(), account.as_ref()), queried_at)
            }
        };
        match status {
            SessionStatus::Active => Ok(()),
            SessionStatus::Ended => Err(AuthenticateError::SessionEnded),
            SessionStatus::Suspended => Err(AuthenticateError::Suspended),
        }
    }

    /// Discards the cached statuses of the user's sessions: the next request of each queries the database.
    pub(super) fn forget_statuses(&self, user: UserId) {
        self.session_cache.invalidate_user(user, Instant::now());
    }

    /// Returns a user's active sessions, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_sessions(&self, user: UserId, now: OffsetDateTime) -> Result<Vec<Session>, StoreError> {
        let sessions = self.store.sessions.list_owned(user, now);
        let (mut sessions, account) = tokio::try_join!(sessions, self.store.users.state(user))?;
        sessions.retain(|session| account.is_some_and(|account| is_active(session, &account.password)));
        Ok(sessions)
    }

    /// Ends a session of this user. Returns `false` if the user has no session of this id.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn end_session(&self, user: UserId, id: SessionId) -> Result<bool, StoreError> {
        let ended = self.store.sessions.delete_owned(user, id).await?;
        if ended {
            self.session_cache.mark_ended(user, id, Instant::now());
            audit!("session_ended", %user, session = %id, "the owner ended a session");
        } else {
            audit!("session_not_found", %user, session = %id, "request to end a session that does not exist or belongs to another user");
        }
        Ok(ended)
    }

    /// Deletes the sessions that a change of password to this version has ended: all except `kept`.
    pub(super) async fn clear_outdated_sessions(&self, user: UserId, version: i64, kept: Option<SessionId>) {
        self.session_cache.invalidate_user(user, Instant::now());
        let deleted = self.store.sessions.delete_outdated(user, version, kept).await;
        log_cleared(user, deleted);
    }

    /// Deletes the sessions of a deleted account.
    pub(super) async fn clear_sessions(&self, user: UserId) {
        self.session_cache.invalidate_user(user, Instant::now());
        let deleted = self.store.sessions.delete_all(user).await;
        log_cleared(user, deleted);
    }

    /// Issues an access token, and returns it with the refresh token of the same session.
    fn issue_tokens(
        &self,
        user: User,
        token: &RefreshToken,
        expires_at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<SignedIn, StoreError> {
        let session = SessionEnd { id: token.session(), at: expires_at };
        let access = self.tokens.issue(user.id, session, now);
        let (access, expires_in) = access.ok_or(StoreError::Credentials { reason: "failed to sign a token".to_owned() })?;
        Ok(SignedIn {
            user,
            token: access,
            expires_in,
            refresh_token: token.expose(),
            refresh_expires_in: (expires_at - now).try_into().unwrap_or_default(),
        })
    }
}

/// Returns whether the account's password leaves the session active. A session of an earlier version, without a password version,
/// stays active until this version changes the password.
fn is_active(session: &Session, password: &PasswordState) -> bool {
    let is_current = match session.password_version {
        Some(version) => version == password.version,
        None => password.changed_at.is_none(),
    };
    is_current || password.kept_session == Some(session.id)
}

/// Returns the status of a session; `Ended` if it or its account does not exist.
fn status(session: Option<&Session>, account: Option<&AccountState>) -> SessionStatus {
    match session.zip(account) {
        Some((session, account)) if is_active(session, &account.password) => {
            if account.is_suspended {
                SessionStatus::Suspended
            } else {
                SessionStatus::Active
            }
        }
        _ => SessionStatus::Ended,
    }
}

/// Logs the outcome of deleting ended sessions. Records that could not be deleted expire by themselves.
fn log_cleared(user: UserId, deleted: Result<u64, StoreError>) {
    match deleted {
        Ok(count) => audit!("sessions_ended", %user, count, "ended sessions"),
        Err(error) => tracing::warn!(%user, %error, "failed to delete the records of ended sessions"),
    }
}

/// Converts the error of a failed random generator to a [`StoreError`].
fn no_randomness(error: NoRandomness) -> StoreError {
    StoreError::Credentials { reason: error.to_string() }
}

/// Returns the client's name in displayable form: one line without control characters, shortened.
fn device_name(user_agent: &str) -> Option<String> {
    // U+FFFD stands for bytes that are not UTF-8.
    let plain: String = user_agent.chars().map(|c| if c.is_control() || c == '\u{fffd}' { ' ' } else { c }).collect();
    let name: String = plain.trim().chars().take(MAX_DEVICE_CHARS).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_in_one_clean_line() {
        assert_eq!(device_name(" Valet\u{0}iOS/1.0\r\n").as_deref(), Some("Valet iOS/1.0"));
        assert_eq!(device_name(&"é".repeat(300)).map(|name| name.chars().count()), Some(MAX_DEVICE_CHARS));
        assert_eq!(device_name(" \t"), None);
    }
}
