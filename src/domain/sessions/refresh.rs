//! Refresh tokens: exchanging one for its successor, and logging out. The token's secret authenticates, never the session's id
//! alone.
//!
//! A token that is sent again after its exchange may come from a thief, from a client that lost the answer, or from a second tab.
//! The first row that fits decides (RFC 9700 section 4.14.2):
//!
//! | the exchange | the repeated token |
//! |---|---|
//! | is older than [`REUSE_GRACE`] | ends the session |
//! | was made by a `User-Agent` B, but A had received the token; another than B repeats it, and its successor is unused | ends the session: B may be a thief, and A the owner |
//! | was made by the `User-Agent` that repeats it, and its successor is unused | gets the same successor again |
//! | any other | is rejected; the session stays active |
//!
//! A session remembers [`MAX_REMEMBERED_EXCHANGES`] exchanges. A token whose exchange it does not remember ends the session, too;
//! but if the memory is full of exchanges younger than [`REUSE_GRACE`], the token may be as young, and is rejected.

use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::{RefreshError, Sessions, SignedIn, is_active, no_randomness};
use crate::{
    domain::{
        audit::audit,
        refresh_token::{self, RefreshToken},
        throttle::ClientInfo,
    },
    model::{NetworkPrefix, Sha256, User},
    store::{Exchange, Rotation, Session, StoreError},
};

/// Time after its exchange in which a repeated token does not end the session.
const REUSE_GRACE: Duration = Duration::from_secs(5 * 60);
/// Exchanges that a session remembers, besides the last one. An app that refreshes once in an access token's lifetime makes one
/// within [`REUSE_GRACE`]; 32 leave room for many tabs, and keep the session's record small.
const MAX_REMEMBERED_EXCHANGES: usize = 32;

/// Properties of a request by which clients are distinguished.
pub(super) struct ClientFingerprint {
    /// SHA-256 of the `User-Agent`; a missing one counts as empty.
    pub(super) agent: [u8; 32],
    /// Network of the client: the /24 or /48 of its address.
    network: String,
}

impl ClientFingerprint {
    /// Returns the fingerprint of the client that sends a request.
    pub(super) fn of(client: &ClientInfo) -> Self {
        let agent = Sha256::of([client.device.as_deref().unwrap_or_default()]).to_bytes();
        Self { agent, network: NetworkPrefix::site(client.address).to_string() }
    }
}

/// Position of a refresh token in its session's chain of exchanges.
enum TokenPosition<'a> {
    /// Not exchanged yet.
    Current,
    /// Exchanged for the current token.
    Parent(&'a Exchange),
    /// Exchanged, as was its successor; the session remembers the exchange.
    Earlier(&'a Exchange),
    /// Exchanged before all remembered exchanges.
    Forgotten {
        /// Time of the oldest remembered exchange if the memory is full; without it, the exchange is older than [`REUSE_GRACE`].
        before: Option<OffsetDateTime>,
    },
    /// Not issued by the session.
    Unknown,
}

impl<'a> TokenPosition<'a> {
    /// Returns the position of a token in its session.
    fn of(token: &RefreshToken, session: &'a Session) -> Self {
        let hash = token.hash();
        if session.token_hash == hash {
            return Self::Current;
        }
        if let Some(parent) = session.parent.as_ref().filter(|parent| parent.hash == hash) {
            return Self::Parent(parent);
        }
        match session.earlier.iter().find(|exchange| exchange.hash == hash) {
            Some(exchange) => Self::Earlier(exchange),
            None if session.token_key.is_some_and(|key| token.was_issued_with(&key)) => {
                let is_full = session.earlier.len() >= MAX_REMEMBERED_EXCHANGES;
                Self::Forgotten { before: session.earlier.iter().map(|exchange| exchange.at).min().filter(|_| is_full) }
            }
            None => Self::Unknown,
        }
    }
}

/// Response to a token that was exchanged before.
#[derive(Debug, PartialEq, Eq)]
enum ReuseDecision {
    /// Sends the same successor again.
    Repeat,
    /// Rejects the token; the session stays active.
    Reject,
    /// Ends the session.
    EndSession,
}

impl ReuseDecision {
    /// Decides about a token sent again at `now`, by the module's table. The row about A and B applies while the successor is
    /// unused: an app that was updated changes from A to B, and uses the successor.
    fn decide(position: &TokenPosition<'_>, fingerprint: &ClientFingerprint, now: OffsetDateTime) -> Self {
        let (exchange, is_successor_used) = match position {
            TokenPosition::Parent(exchange) => (exchange, false),
            TokenPosition::Earlier(exchange) => (exchange, true),
            TokenPosition::Current | TokenPosition::Unknown => return Self::Reject,
            // The memory is full of recent exchanges, so the forgotten one may be recent, too.
            TokenPosition::Forgotten { before: Some(before) } if now - *before <= REUSE_GRACE => return Self::Reject,
            TokenPosition::Forgotten { .. } => return Self::EndSession,
        };
        // Earlier versions did not record the agent of an exchange.
        let is_same_agent = exchange.agent.is_none_or(|agent| agent == fingerprint.agent);
        let may_be_thiefs_exchange = exchange.by_other_agent && !is_same_agent && !is_successor_used;
        if now - exchange.at > REUSE_GRACE || may_be_thiefs_exchange {
            Self::EndSession
        } else if is_same_agent && !is_successor_used {
            Self::Repeat
        } else {
            Self::Reject
        }
    }
}

impl Sessions {
    /// Exchanges a refresh token for new tokens. The module's documentation describes how a repeated token is handled.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn refresh(&self, token: &str, client: &ClientInfo, now: OffsetDateTime) -> Result<SignedIn, RefreshError> {
        self.identities.require_local_accounts()?;
        self.throttle.count_refresh(client)?;
        let Some(token) = RefreshToken::parse(token) else {
            audit!("refresh_refused", reason = "malformed", "refused a malformed refresh token");
            return Err(RefreshError::Invalid);
        };
        let (id, fingerprint) = (token.session(), ClientFingerprint::of(client));
        // A request that lost the exchange to a concurrent one finds its token to be the parent in the second round.
        for _ in 0..2 {
            let Some(session) = self.store.sessions.find(id, now).await? else { break };
            let position = TokenPosition::of(&token, &session);
            if matches!(position, TokenPosition::Unknown) {
                audit!("refresh_refused", session = %id, reason = "unknown secret", "refused a token that its session did not issue");
                return Err(RefreshError::Invalid);
            }
            let account = self.store.users.find(session.user).await?;
            let Some(account) = account.filter(|account| is_active(&session, &account.password)) else { break };
            if account.suspended_at.is_some() {
                audit!("refresh_refused", user = %session.user, session = %id, reason = "account suspended", "refused a token of a suspended account");
                return Err(RefreshError::Suspended);
            }
            if !matches!(position, TokenPosition::Current) {
                return self.handle_exchanged_token(&token, &session, &position, account.user, &fingerprint, now).await;
            }
            if let Some(signed_in) = self.exchange(&token, &session, account.user, &fingerprint, now).await? {
                self.known_networks.record_network(session.user, client, now).await;
                return Ok(signed_in);
            }
        }
        audit!("refresh_refused", session = %id, reason = "session ended", "refused a token of an ended session");
        Err(RefreshError::Ended)
    }

    /// Exchanges the current token. Returns `None` if another request has exchanged it meanwhile.
    async fn exchange(
        &self,
        token: &RefreshToken,
        session: &Session,
        user: User,
        fingerprint: &ClientFingerprint,
        now: OffsetDateTime,
    ) -> Result<Option<SignedIn>, StoreError> {
        let exchange = Exchange {
            hash: token.hash(),
            salt: refresh_token::random().map_err(no_randomness)?,
            at: now,
            agent: Some(fingerprint.agent),
            network: Some(fingerprint.network.clone()),
            by_other_agent: session.agent.is_some_and(|agent| agent != fingerprint.agent),
        };
        let token_key = session.token_key.map_or_else(refresh_token::random, Ok).map_err(no_randomness)?;
        let successor = token.successor(&exchange.salt, &token_key);
        let remembered = session.parent.iter().chain(&session.earlier);
        let earlier =
            remembered.filter(|exchange| now - exchange.at <= REUSE_GRACE).take(MAX_REMEMBERED_EXCHANGES).cloned().collect();
        let expires_at = session.ends_at.min(now + self.session_ttl);
        let rotation = Rotation { exchange, earlier, successor_hash: successor.hash(), token_key, expires_at };
        if !self.store.sessions.rotate(session.id, &rotation).await? {
            return Ok(None);
        }
        tracing::info!(user = %session.user, session = %session.id, "refreshed a session");
        Ok(Some(self.issue_tokens(user, &successor, expires_at, now)?))
    }

    /// Handles a token that was exchanged before: repeats the answer of its exchange (audit event `refresh_repeated`), rejects it
    /// and changes nothing (`refresh_refused`), or ends the session (`refresh_reused`).
    async fn handle_exchanged_token(
        &self,
        token: &RefreshToken,
        session: &Session,
        position: &TokenPosition<'_>,
        user: User,
        fingerprint: &ClientFingerprint,
        now: OffsetDateTime,
    ) -> Result<SignedIn, RefreshError> {
        let exchange = match position {
            TokenPosition::Parent(exchange) | TokenPosition::Earlier(exchange) => Some(*exchange),
            _ => None,
        };
        let first_network = exchange.and_then(|exchange| exchange.network.as_deref());
        let network = fingerprint.network.as_str();
        let decision = ReuseDecision::decide(position, fingerprint, now);
        if decision == ReuseDecision::EndSession {
            audit!(
                "refresh_reused",
                user = %session.user,
                session = %session.id,
                first_network,
                network,
                "a refresh token was used twice; ending the session"
            );
            self.end(session).await?;
            return Err(RefreshError::Ended);
        }
        let successor =
            exchange.filter(|_| decision == ReuseDecision::Repeat).and_then(|exchange| find_successor(token, exchange, session));
        let Some(successor) = successor else {
            audit!(
                "refresh_refused",
                user = %session.user,
                session = %session.id,
                reason = "spent",
                first_network,
                network,
                "refused a refresh token that was exchanged a moment ago"
            );
            return Err(RefreshError::AlreadyExchanged);
        };
        audit!(
            "refresh_repeated",
            user = %session.user,
            session = %session.id,
            first_network,
            network,
            "repeated the answer to a refresh"
        );
        Ok(self.issue_tokens(user, &successor, session.expires_at, now)?)
    }

    /// Ends the session of a refresh token, even of one that was exchanged. Does nothing if the session has ended.
    ///
    /// # Errors
    /// [`RefreshError`], but none of [`RefreshError::AlreadyExchanged`], [`RefreshError::Ended`] and [`RefreshError::Suspended`].
    pub async fn log_out(&self, token: &str, client: &ClientInfo, now: OffsetDateTime) -> Result<(), RefreshError> {
        self.identities.require_local_accounts()?;
        let token = RefreshToken::parse(token);
        self.throttle.count_logout(client, token.as_ref().map(RefreshToken::hash))?;
        let Some(token) = token else {
            audit!("logout_refused", reason = "malformed", "refused a malformed refresh token");
            return Err(RefreshError::Invalid);
        };
        let id = token.session();
        let Some(session) = self.store.sessions.find(id, now).await? else {
            audit!("session_not_found", session = %id, "request to log out of an ended session");
            return Ok(());
        };
        if matches!(TokenPosition::of(&token, &session), TokenPosition::Unknown) {
            audit!("logout_refused", session = %id, reason = "unknown secret", "refused a token that its session did not issue");
            return Err(RefreshError::Invalid);
        }
        if self.end(&session).await? {
            audit!("session_ended", user = %session.user, session = %id, "logged out");
        }
        Ok(())
    }

    /// Ends a session: in the database first, so that no concurrent request caches it as active afterwards.
    async fn end(&self, session: &Session) -> Result<bool, StoreError> {
        let ended = self.store.sessions.delete_owned(session.user, session.id).await?;
        self.session_cache.mark_ended(session.user, session.id, Instant::now());
        Ok(ended)
    }
}

/// Returns the session's current token, computed from its parent.
fn find_successor(parent: &RefreshToken, exchange: &Exchange, session: &Session) -> Option<RefreshToken> {
    let successor = session.token_key.map(|key| parent.successor(&exchange.salt, &key));
    // A server of an earlier version that runs beside this one may have made the exchange; its tokens have no tag.
    let untagged_successor = parent.untagged_successor(&exchange.salt);
    successor.into_iter().chain([untagged_successor]).find(|successor| successor.hash() == session.token_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a fingerprint with this user agent.
    fn fingerprint(agent: u8) -> ClientFingerprint {
        ClientFingerprint { agent: [agent; 32], network: String::new() }
    }

    /// Covers every decision by client, use of the successor, and time.
    #[test]
    fn reused_token_is_repeated_or_rejected_or_ends_the_session() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let exchange = |ago: Duration| Exchange {
            hash: [0; 32],
            salt: [0; 32],
            at: now - ago,
            agent: Some([1; 32]),
            network: None,
            by_other_agent: false,
        };
        let (same, other) = (fingerprint(1), fingerprint(2));
        let within = exchange(REUSE_GRACE);
        for (position, fingerprint, expected) in [
            (TokenPosition::Parent(&within), &same, ReuseDecision::Repeat),
            (TokenPosition::Parent(&within), &other, ReuseDecision::Reject),
            (TokenPosition::Earlier(&within), &same, ReuseDecision::Reject),
            (TokenPosition::Earlier(&within), &other, ReuseDecision::Reject),
        ] {
            assert_eq!(ReuseDecision::decide(&position, fingerprint, now), expected);
        }
        let by_other_agent = Exchange { by_other_agent: true, ..exchange(REUSE_GRACE) };
        for (position, fingerprint, expected) in [
            (TokenPosition::Parent(&by_other_agent), &same, ReuseDecision::Repeat),
            (TokenPosition::Parent(&by_other_agent), &other, ReuseDecision::EndSession),
            (TokenPosition::Earlier(&by_other_agent), &same, ReuseDecision::Reject),
            (TokenPosition::Earlier(&by_other_agent), &other, ReuseDecision::Reject),
        ] {
            assert_eq!(ReuseDecision::decide(&position, fingerprint, now), expected);
        }
        let late = exchange(REUSE_GRACE + Duration::from_millis(1));
        for fingerprint in [&same, &other] {
            for position in [
                TokenPosition::Parent(&late),
                TokenPosition::Earlier(&late),
                TokenPosition::Forgotten { before: None },
                TokenPosition::Forgotten { before: Some(late.at) },
            ] {
                assert_eq!(ReuseDecision::decide(&position, fingerprint, now), ReuseDecision::EndSession);
            }
            assert_eq!(
                ReuseDecision::decide(&TokenPosition::Forgotten { before: Some(within.at) }, fingerprint, now),
                ReuseDecision::Reject,
                "an exchange that many others have replaced in the memory"
            );
        }
        let without_agent = Exchange { agent: None, ..within };
        assert_eq!(
            ReuseDecision::decide(&TokenPosition::Parent(&without_agent), &other, now),
            ReuseDecision::Repeat,
            "an exchange by an earlier version"
        );
    }

    #[test]
    fn client_network_is_ipv4_24_or_ipv6_48() {
        let network = |address: &str| {
            ClientFingerprint::of(&ClientInfo {
                address: address.parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()),
                device: None,
            })
            .network
        };
        assert_eq!(network("198.51.100.77"), "198.51.100.0/24");
        assert_eq!(network("::ffff:198.51.100.77"), "198.51.100.0/24");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1::/48");
    }
}
