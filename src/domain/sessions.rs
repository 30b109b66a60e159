//! Sessions: begun by a sign-in, carried on by refresh tokens, ended by their holder, their owner, or a change of the account.
//!
//! A session lives while its record is there and the account's password is of the session's version, or names the session as
//! the one that outlived its last change. So a changed password and a deleted account end sessions with the one update that
//! they are; that the records are deleted afterwards is cleaning up.

mod refresh;
pub mod session_cache;

use std::time::{Duration, Instant};

use secrecy::SecretString;
use time::OffsetDateTime;

use self::refresh::ClientFingerprint;
use super::{
    Valet,
    audit::{self, audit},
    authentication::{AuthenticateError, NoLocalAccount},
    credentials::{Caller, NoRandomness, SessionEnd, TokenError, TokenIssuer, TokenOrigin},
    refresh_token::{self, RefreshToken},
    throttle::{ClientInfo, Throttled},
};
use crate::{
    model::{SessionId, User, UserId},
    store::{Account, PasswordState, Session, StoreError},
};

/// A session ends after this however much it is used.
const MAX_SESSION_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Sessions that an account may have: where a sign-in makes more, those go that were not used for longest.
const MAX_SESSIONS: u32 = 1000;
/// Characters that are kept of a `User-Agent`.
const MAX_DEVICE_CHARS: usize = 200;

/// A sign-in: what a client keeps.
#[derive(Debug)]
pub struct SignedIn {
    /// The user who signed in.
    pub user: User,
    /// The access token.
    pub token: SecretString,
    /// How long the access token lives.
    pub expires_in: Duration,
    /// The refresh token, good for one exchange.
    pub refresh_token: SecretString,
    /// How long the session lives unless it is refreshed.
    pub refresh_expires_in: Duration,
}

/// Why a refresh token does nothing.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Not a refresh token of this service, or not one of the session that it names.
    #[error("the refresh token is not valid")]
    Invalid,
    /// It was exchanged a moment ago, and its child is in use or was given to another client. The session goes on.
    #[error("the refresh token was exchanged already")]
    Spent,
    /// Its session is over: signed out, expired, or ended because a token was used twice or the password was changed.
    #[error("the session has ended")]
    Ended,
    /// There are no accounts here.
    #[error(transparent)]
    NoLocalAccount(#[from] NoLocalAccount),
    /// Too many from there.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// Not known whether it happened; the same token can be tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Valet {
    /// Begins a session of the account as it was read, and ends the longest unused beyond [`MAX_SESSIONS`].
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
            // Where the password was changed since, the session is dead from its beginning.
            password_version: Some(account.password.version),
            created_at: now,
            last_used_at: now,
            expires_at: now + self.session_ttl.min(MAX_SESSION_LIFETIME),
            ends_at: now + MAX_SESSION_LIFETIME,
            token_hash: token.hash(),
            token_key: Some(token_key),
            agent: Some(ClientFingerprint::of(client).agent),
            parent: None,
            earlier: Vec::new(),
        };
        self.store.sessions.insert(&session).await?;
        match self.store.sessions.delete_unused_beyond(user, MAX_SESSIONS).await {
            Ok(0) => {}
            Ok(count) => audit!("sessions_ended", %user, count, "the longest unused of too many sessions ended"),
            // The next sign-in does it.
            Err(error) => tracing::warn!(%user, %error, "failed to delete the longest unused sessions"),
        }
        Ok((self.signed_in(account.user, &token, session.expires_at, now)?, id))
    }

    /// Who holds this access token, if its session goes on. A session that ended elsewhere is noticed within
    /// [`session_cache::SessionCache::TTL`], one that ended here at once.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    pub async fn authenticate(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthenticateError> {
        self.verify_active(token, now).await.inspect_err(|error| match error {
            AuthenticateError::Token(TokenError::Invalid) => audit::token_refused("invalid"),
            AuthenticateError::Token(TokenError::Expired) => audit::token_refused("expired"),
            AuthenticateError::SessionEnded => audit::token_refused("session ended"),
            AuthenticateError::KeysUnavailable | AuthenticateError::Store(_) => {}
        })
    }

    async fn verify_active(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthenticateError> {
        match TokenIssuer::read(token)? {
            TokenIssuer::Local if self.local_accounts => {}
            TokenIssuer::Local => return Err(TokenError::Invalid.into()),
            TokenIssuer::Provider(key) => return self.authenticate_with_provider(token, &key, now).await,
        }
        let caller = self.tokens.verify(token, now)?;
        // Ours come from a session.
        let TokenOrigin::Session(session) = caller.origin else { return Err(TokenError::Invalid.into()) };
        if self.is_session_active(caller.user, session, now).await? { Ok(caller) } else { Err(AuthenticateError::SessionEnded) }
    }

    /// Whether a session is this user's and lives.
    pub(super) async fn is_session_active(
        &self,
        user: UserId,
        session: SessionId,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        if let Some(alive) = self.session_cache.get(user, session, Instant::now()) {
            return Ok(alive);
        }
        let asked = Instant::now();
        let found = self.store.sessions.find_owned(user, session, now);
        let (found, password) = tokio::try_join!(found, self.store.users.password_state(user))?;
        let alive = found.zip(password).is_some_and(|(session, password)| is_active(&session, &password));
        Ok(self.session_cache.insert(user, session, alive, asked))
    }

    /// A user's sessions, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_sessions(&self, user: UserId, now: OffsetDateTime) -> Result<Vec<Session>, StoreError> {
        let sessions = self.store.sessions.list_owned(user, now);
        let (mut sessions, password) = tokio::try_join!(sessions, self.store.users.password_state(user))?;
        sessions.retain(|session| password.is_some_and(|password| is_active(session, &password)));
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
            audit!("session_ended", %user, session = %id, "session ended by its owner");
        } else {
            audit!("session_not_found", %user, session = %id, "asked to end a session that is not there, or another's");
        }
        Ok(ended)
    }

    /// Cleans up behind a changed password of this version, which has ended every session but `kept`.
    pub(super) async fn clear_outdated_sessions(&self, user: UserId, version: i64, kept: Option<SessionId>) {
        self.session_cache.invalidate_user(user, Instant::now());
        let deleted = self.store.sessions.delete_outdated(user, version, kept).await;
        log_cleared(user, deleted);
    }

    /// Cleans up behind a deleted account, whose sessions have ended with it.
    pub(super) async fn clear_sessions(&self, user: UserId) {
        self.session_cache.invalidate_user(user, Instant::now());
        let deleted = self.store.sessions.delete_all(user).await;
        log_cleared(user, deleted);
    }

    fn signed_in(
        &self,
        user: User,
        token: &RefreshToken,
        expires_at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<SignedIn, StoreError> {
        let session = SessionEnd { id: token.session(), at: expires_at };
        let access = self.tokens.issue(user.id, session, now);
        let (access, expires_in) = access.ok_or(StoreError::Credentials { reason: "no token could be signed".to_owned() })?;
        Ok(SignedIn {
            user,
            token: access,
            expires_in,
            refresh_token: token.expose(),
            refresh_expires_in: (expires_at - now).try_into().unwrap_or_default(),
        })
    }
}

/// Whether the account's password lets the session live. Sessions of before they had a version live until its first change by
/// a program that records the time of it.
fn is_active(session: &Session, password: &PasswordState) -> bool {
    let is_current = match session.password_version {
        Some(version) => version == password.version,
        None => password.changed_at.is_none(),
    };
    is_current || password.kept_session == Some(session.id)
}

/// Sessions that are dead are deleted by and by where this has failed: they expire.
fn log_cleared(user: UserId, deleted: Result<u64, StoreError>) {
    match deleted {
        Ok(count) => audit!("sessions_ended", %user, count, "sessions ended"),
        Err(error) => tracing::warn!(%user, %error, "failed to delete the records of ended sessions"),
    }
}

fn no_randomness(error: NoRandomness) -> StoreError {
    StoreError::Credentials { reason: error.to_string() }
}

/// A client's name for itself, fit to be shown: no control characters, and no more than a line of it.
fn device_name(user_agent: &str) -> Option<String> {
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
