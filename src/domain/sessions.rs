//! Sessions: begun by a sign-in, carried on by refresh tokens, ended by whoever holds them or owns them.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use secrecy::SecretString;
use time::OffsetDateTime;

use super::{
    Valet,
    audit::{self, audit},
    credentials::{Caller, Maker, NoRandomness, Proof, TokenError},
    provider::LocalOnly,
    recent::Recent,
    refresh_token::{self, RefreshToken},
    throttle::{Client, Throttled},
};
use crate::{
    model::{SessionId, User, UserId},
    store::{Parent, Session, StoreError},
};

/// How long a parent gets its child again while the child is unused: for the phone that lost the answer, and for two
/// tabs that refresh at once.
const RETRY_WINDOW: Duration = Duration::from_secs(60);
/// A session ends after this however much it is used.
const LONGEST_SESSION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// What is kept of a client's name for itself, in characters.
const DEVICE_CHARS: usize = 200;

/// A sign-in: what a client keeps.
#[derive(Debug)]
pub struct SignedIn {
    /// Who signed in.
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
    /// Not a refresh token of this service.
    #[error("the refresh token is not valid")]
    Invalid,
    /// Its session is over: signed out, expired, or ended because a token was used twice.
    #[error("the session has ended")]
    Ended,
    /// There are no accounts here.
    #[error(transparent)]
    LocalOnly(#[from] LocalOnly),
    /// Too many from there.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// Not known whether it happened; the same token can be tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an access token lets nobody in.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The token itself.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Its session is over.
    #[error("the session has ended")]
    Ended,
    /// The identity provider's keys are not known, or not known to be all.
    #[error("the identity provider's keys could not be fetched")]
    NoKeys,
    /// Whether the session is over could not be found out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Valet {
    /// Begins a session.
    pub(super) async fn start_session(
        &self,
        user: User,
        client: &Client,
        now: OffsetDateTime,
    ) -> Result<(SignedIn, SessionId), StoreError> {
        let id = SessionId::new();
        let token = RefreshToken::new(id).map_err(no_randomness)?;
        let session = Session {
            id,
            user: user.id,
            device: client.device.as_deref().and_then(device_name),
            created_at: now,
            last_used_at: now,
            expires_at: now + self.session_ttl.min(LONGEST_SESSION),
            ends_at: now + LONGEST_SESSION,
            token_hash: token.hash(),
            parent: None,
        };
        self.store.sessions.insert(&session).await?;
        Ok((self.signed_in(user, &token, session.expires_at, now)?, id))
    }

    /// Exchanges a refresh token for a fresh sign-in. A token is good for one exchange; using it again ends the session,
    /// except that within a minute, and while its child is unused, it gives that child again.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn refresh(&self, token: &str, client: &Client, now: OffsetDateTime) -> Result<SignedIn, RefreshError> {
        self.local_accounts()?;
        self.throttle.refresh(client)?;
        let token = RefreshToken::parse(token).ok_or_else(refused)?;
        // The second round is for those who lost the exchange to a twin: they find themselves to be the parent.
        for _ in 0..2 {
            let session = self.store.sessions.find(token.session(), now).await?.ok_or(RefreshError::Ended)?;
            let account = self.store.users.find(session.user).await?.ok_or(RefreshError::Ended)?;
            if session.token_hash == token.hash() {
                let parent = Parent { hash: token.hash(), salt: refresh_token::random().map_err(no_randomness)?, at: now };
                let child = token.child(&parent.salt);
                let expires_at = session.ends_at.min(now + self.session_ttl);
                if self.store.sessions.rotate(session.id, &parent, &child.hash(), expires_at).await? {
                    tracing::info!(user = %session.user, session = %session.id, "session refreshed");
                    self.record_network(session.user, client, now).await;
                    return Ok(self.signed_in(account.user, &child, expires_at, now)?);
                }
                continue;
            }
            let parent = session.parent.filter(|parent| parent.hash == token.hash() && now - parent.at <= RETRY_WINDOW);
            if let Some(parent) = parent {
                return Ok(self.signed_in(account.user, &token.child(&parent.salt), session.expires_at, now)?);
            }
            audit!("refresh_reused", user = %session.user, session = %session.id, "a refresh token was used twice: the session ends");
            self.end(session.id).await?;
            return Err(RefreshError::Ended);
        }
        // Child and grandchild were used between two reads: this token is neither.
        Err(RefreshError::Ended)
    }

    /// Ends the session of a refresh token, spent ones too. Does nothing when it is over already.
    ///
    /// # Errors
    /// [`RefreshError`], but never [`RefreshError::Ended`].
    pub async fn log_out(&self, token: &str, client: &Client) -> Result<(), RefreshError> {
        self.local_accounts()?;
        self.throttle.refresh(client)?;
        let token = RefreshToken::parse(token).ok_or_else(refused)?;
        if self.end(token.session()).await? {
            audit!("session_ended", session = %token.session(), "logged out");
        }
        Ok(())
    }

    /// Who holds this access token, if its session goes on. A session that ended elsewhere is noticed within
    /// [`Liveness::KEPT`], one that ended here at once.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    pub async fn authenticate(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthenticateError> {
        self.holder(token, now).await.inspect_err(|error| match error {
            AuthenticateError::Token(TokenError::Invalid) => audit::token_refused("invalid"),
            AuthenticateError::Ended => audit::token_refused("session ended"),
            AuthenticateError::Token(TokenError::Expired) | AuthenticateError::NoKeys | AuthenticateError::Store(_) => {}
        })
    }

    async fn holder(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthenticateError> {
        match Maker::of(token)? {
            Maker::Us if self.local_accounts => {}
            Maker::Us => return Err(TokenError::Invalid.into()),
            Maker::Provider(key) => return self.authenticate_foreign(token, &key, now).await,
        }
        let caller = self.tokens.verify(token, now)?;
        // Ours come from a session.
        let Proof::Session(session) = caller.proof else { return Err(TokenError::Invalid.into()) };
        if self.goes_on(session, now).await? { Ok(caller) } else { Err(AuthenticateError::Ended) }
    }

    /// Whether a session is not over.
    pub(super) async fn goes_on(&self, session: SessionId, now: OffsetDateTime) -> Result<bool, StoreError> {
        if let Some(alive) = self.liveness.known(session, Instant::now()) {
            return Ok(alive);
        }
        let asked = Instant::now();
        let alive = self.store.sessions.is_alive(session, now).await?;
        Ok(self.liveness.learn(session, alive, asked))
    }

    /// A user's sessions, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions(&self, user: UserId, now: OffsetDateTime) -> Result<Vec<Session>, StoreError> {
        self.store.sessions.list_owned(user, now).await
    }

    /// Ends a session of this user. `false` when there is none of this id.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn end_session(&self, user: UserId, id: SessionId) -> Result<bool, StoreError> {
        let ended = self.store.sessions.delete_owned(user, id).await?;
        if ended {
            self.liveness.end(id, Instant::now());
            audit!("session_ended", %user, session = %id, "session ended by its owner");
        } else {
            audit!("session_not_found", %user, session = %id, "asked to end a session that is not there, or another's");
        }
        Ok(ended)
    }

    /// Ends all sessions of a user but one.
    pub(super) async fn end_sessions(&self, user: UserId, but: Option<SessionId>) -> Result<(), StoreError> {
        let ended = self.store.sessions.delete_all(user, but).await?;
        audit!("sessions_ended", %user, count = ended.len(), "sessions ended");
        ended.into_iter().for_each(|id| self.liveness.end(id, Instant::now()));
        Ok(())
    }

    /// Ends a session, in the database first: what another request reads meanwhile does not outlive it here.
    pub(super) async fn end(&self, id: SessionId) -> Result<bool, StoreError> {
        let ended = self.store.sessions.delete(id).await?;
        self.liveness.end(id, Instant::now());
        Ok(ended)
    }

    fn signed_in(
        &self,
        user: User,
        token: &RefreshToken,
        expires_at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<SignedIn, StoreError> {
        let access = self.tokens.issue(user.id, token.session(), now);
        let access = access.ok_or(StoreError::Credentials { reason: "no token could be signed".to_owned() })?;
        Ok(SignedIn {
            user,
            token: access,
            expires_in: self.tokens.ttl(),
            refresh_token: token.expose(),
            refresh_expires_in: (expires_at - now).try_into().unwrap_or_default(),
        })
    }
}

fn refused() -> RefreshError {
    audit!("refresh_refused", "what was sent is no refresh token");
    RefreshError::Invalid
}

fn no_randomness(error: NoRandomness) -> StoreError {
    StoreError::Credentials { reason: error.to_string() }
}

/// A client's name for itself, fit to be shown: no control characters, and no more than a line of it.
fn device_name(user_agent: &str) -> Option<String> {
    let plain: String = user_agent.chars().map(|c| if c.is_control() || c == '\u{fffd}' { ' ' } else { c }).collect();
    let name: String = plain.trim().chars().take(DEVICE_CHARS).collect();
    (!name.is_empty()).then_some(name)
}

/// Which sessions go on, as far as this server knows: what a request costs beside its token's signature is one lookup.
#[derive(Debug)]
pub struct Liveness(Mutex<Recent<SessionId, Seen>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    alive: bool,
    /// When the database was asked.
    at: Instant,
}

impl Default for Liveness {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(Self::CAPACITY)))
    }
}

impl Liveness {
    /// How long an answer of the database is relied on. A token dies within 30 s of its session, on every server.
    pub const KEPT: Duration = Duration::from_secs(10);
    /// Sessions that are remembered: about 10 MB.
    const CAPACITY: usize = 100_000;

    /// Whether the session goes on, where the answer is fresh.
    fn known(&self, id: SessionId, now: Instant) -> Option<bool> {
        let seen = self.lock().get(id)?;
        (now.saturating_duration_since(seen.at) < Self::KEPT).then_some(seen.alive)
    }

    /// Remembers an answer of the database. An end that became known while the database was asked stands.
    fn learn(&self, id: SessionId, alive: bool, asked: Instant) -> bool {
        let mut all = self.lock();
        let ended = all.get(id).is_some_and(|seen| !seen.alive && asked.saturating_duration_since(seen.at) < Self::KEPT);
        let alive = alive && !ended;
        all.insert(id, Seen { alive, at: asked });
        alive
    }

    fn end(&self, id: SessionId, now: Instant) {
        self.lock().insert(id, Seen { alive: false, at: now });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent<SessionId, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t9_an_end_is_known_at_once_and_an_answer_grows_old() {
        let liveness = Liveness::default();
        let (id, start) = (SessionId::new(), Instant::now());
        assert_eq!(liveness.known(id, start), None);
        assert!(liveness.learn(id, true, start));
        assert_eq!(liveness.known(id, start + Liveness::KEPT.saturating_sub(Duration::from_millis(1))), Some(true));
        assert_eq!(liveness.known(id, start + Liveness::KEPT), None);
        liveness.end(id, start);
        assert_eq!(liveness.known(id, start), Some(false));
        assert!(!liveness.learn(id, true, start), "an answer that was on its way does not bring it back");
        assert_eq!(liveness.known(id, start), Some(false));
    }

    #[test]
    fn a_device_is_named_in_one_clean_line() {
        assert_eq!(device_name(" Valet\u{0}iOS/1.0\r\n").as_deref(), Some("Valet iOS/1.0"));
        assert_eq!(device_name(&"é".repeat(300)).map(|name| name.chars().count()), Some(DEVICE_CHARS));
        assert_eq!(device_name(" \t"), None);
    }
}
