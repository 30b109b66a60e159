//! Refresh tokens: one exchange for the next token, and signing out. The secret decides, never the session's id alone.
//!
//! A spent token that comes again may be a thief's, or a client's that lost the answer or has two tabs. For [`GRACE`] after its
//! exchange a session bears with it: while the child is unused, the client that made the exchange is given the same child
//! again; else the token is refused and nothing more. After that a spent token ends the session (RFC 9700 section 4.14.2). A
//! session remembers [`MOST_REMEMBERED`] exchanges; one that it forgot counts as made within the time while those are.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use time::OffsetDateTime;

use super::{RefreshError, SignedIn, lives, no_randomness};
use crate::{
    domain::{
        Valet,
        audit::audit,
        refresh_token::{self, RefreshToken},
        throttle::Client,
    },
    model::User,
    store::{Exchange, Rotation, Session, StoreError},
};

/// How long a session bears with a spent token.
const GRACE: Duration = Duration::from_secs(5 * 60);
/// Exchanges that a session remembers: an app that refreshes once an access token's life has one within [`GRACE`].
const MOST_REMEMBERED: usize = 32;

/// Client that sent a token, by its request.
pub(super) struct Asker {
    /// SHA-256 of the `User-Agent`; one that is missing is as good as an empty one.
    pub(super) agent: [u8; 32],
    /// The network it comes from: the /24 or /48 of its address.
    network: String,
}

impl Asker {
    pub(super) fn of(client: &Client) -> Self {
        let mut agent = [0; 32];
        let name = client.device.as_deref().unwrap_or_default();
        agent.copy_from_slice(digest::digest(&digest::SHA256, name.as_bytes()).as_ref());
        let network = match client.address.to_canonical() {
            IpAddr::V4(address) => format!("{}/24", Ipv4Addr::from(u32::from(address) >> 8 << 8)),
            IpAddr::V6(address) => format!("{}/48", Ipv6Addr::from(u128::from(address) >> 80 << 80)),
        };
        Self { agent, network }
    }
}

/// Where a refresh token stands in the session that it names.
enum Place<'a> {
    /// The one to be exchanged next.
    Living,
    /// Exchanged for the living one.
    Parent(&'a Exchange),
    /// Exchanged, and so was its child; the session remembers it.
    Earlier(&'a Exchange),
    /// Exchanged before all that the session remembers: before this time, where its memory was full.
    Old(Option<OffsetDateTime>),
    /// Not one of the session's.
    Unknown,
}

impl<'a> Place<'a> {
    fn of(token: &RefreshToken, session: &'a Session) -> Self {
        let hash = token.hash();
        if session.token_hash == hash {
            return Self::Living;
        }
        if let Some(parent) = session.parent.as_ref().filter(|parent| parent.hash == hash) {
            return Self::Parent(parent);
        }
        match session.earlier.iter().find(|exchange| exchange.hash == hash) {
            Some(exchange) => Self::Earlier(exchange),
            None if session.token_key.is_some_and(|key| token.is_of(&key)) => {
                let is_full = session.earlier.len() >= MOST_REMEMBERED;
                Self::Old(session.earlier.iter().map(|exchange| exchange.at).min().filter(|_| is_full))
            }
            None => Self::Unknown,
        }
    }
}

/// How a spent token is handled.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The same child again.
    Again,
    /// Nothing; the session goes on.
    Refused,
    /// The session ends.
    Reused,
}

impl Answer {
    /// Of a token that comes again at `now`. The newcomer rule: where a `User-Agent` exchanged a token that another had been
    /// given, the other one may be the owner, and the newcomer a thief who was faster. It holds while the child is unused: later
    /// copies are those of an app that was updated and went on.
    fn to(place: &Place<'_>, asker: &Asker, now: OffsetDateTime) -> Self {
        let (exchange, is_child_used) = match place {
            Place::Parent(exchange) => (exchange, false),
            Place::Earlier(exchange) => (exchange, true),
            Place::Living | Place::Unknown => return Self::Refused,
            // It may be of a moment ago: so many exchanges came after it.
            Place::Old(Some(before)) if now - *before <= GRACE => return Self::Refused,
            Place::Old(_) => return Self::Reused,
        };
        let is_same_agent = exchange.agent.is_none_or(|agent| agent == asker.agent);
        let is_newcomers = exchange.by_newcomer && !is_same_agent && !is_child_used;
        if now - exchange.at > GRACE || is_newcomers {
            Self::Reused
        } else if is_same_agent && !is_child_used {
            Self::Again
        } else {
            Self::Refused
        }
    }
}

impl Valet {
    /// Exchanges a refresh token for a fresh sign-in. A token is good for one exchange; the module says what a spent one does.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn refresh(&self, token: &str, client: &Client, now: OffsetDateTime) -> Result<SignedIn, RefreshError> {
        self.local_accounts()?;
        self.throttle.refresh(client)?;
        let Some(token) = RefreshToken::parse(token) else {
            audit!("refresh_refused", reason = "malformed", "a text that is no refresh token was refused");
            return Err(RefreshError::Invalid);
        };
        let (id, asker) = (token.session(), Asker::of(client));
        // In the second round a request that lost the exchange to its twin finds its token to be the parent.
        for _ in 0..2 {
            let Some(session) = self.store.sessions.find(id, now).await? else { break };
            let place = Place::of(&token, &session);
            if matches!(place, Place::Unknown) {
                audit!("refresh_refused", session = %id, reason = "unknown secret", "a token that its session does not know");
                return Err(RefreshError::Invalid);
            }
            let account = self.store.users.find(session.user).await?;
            let Some(account) = account.filter(|account| lives(&session, &account.password)) else { break };
            if !matches!(place, Place::Living) {
                return self.answer_spent(&token, &session, &place, account.user, &asker, now).await;
            }
            if let Some(signed_in) = self.exchange(&token, &session, account.user, &asker, now).await? {
                self.record_network(session.user, client, now).await;
                return Ok(signed_in);
            }
        }
        audit!("refresh_refused", session = %id, reason = "session ended", "a token of a session that is over was refused");
        Err(RefreshError::Ended)
    }

    /// Exchanges the living token. `None` when another request has exchanged it since the session was read.
    async fn exchange(
        &self,
        token: &RefreshToken,
        session: &Session,
        user: User,
        asker: &Asker,
        now: OffsetDateTime,
    ) -> Result<Option<SignedIn>, StoreError> {
        let exchange = Exchange {
            hash: token.hash(),
            salt: refresh_token::random().map_err(no_randomness)?,
            at: now,
            agent: Some(asker.agent),
            network: Some(asker.network.clone()),
            by_newcomer: session.agent.is_some_and(|agent| agent != asker.agent),
        };
        let token_key = session.token_key.map_or_else(refresh_token::random, Ok).map_err(no_randomness)?;
        let child = token.child(&exchange.salt, &token_key);
        let before = session.parent.iter().chain(&session.earlier);
        let earlier = before.filter(|exchange| now - exchange.at <= GRACE).take(MOST_REMEMBERED).cloned().collect();
        let expires_at = session.ends_at.min(now + self.session_ttl);
        let rotation = Rotation { exchange, earlier, child: child.hash(), token_key, expires_at };
        if !self.store.sessions.rotate(session.id, &rotation).await? {
            return Ok(None);
        }
        tracing::info!(user = %session.user, session = %session.id, "session refreshed");
        Ok(Some(self.signed_in(user, &child, expires_at, now)?))
    }

    async fn answer_spent(
        &self,
        token: &RefreshToken,
        session: &Session,
        place: &Place<'_>,
        user: User,
        asker: &Asker,
        now: OffsetDateTime,
    ) -> Result<SignedIn, RefreshError> {
        let exchange = match place {
            Place::Parent(exchange) | Place::Earlier(exchange) => Some(*exchange),
            _ => None,
        };
        let first_network = exchange.and_then(|exchange| exchange.network.as_deref());
        let network = asker.network.as_str();
        let answer = Answer::to(place, asker, now);
        if answer == Answer::Reused {
            audit!(
                "refresh_reused",
                user = %session.user,
                session = %session.id,
                first_network,
                network,
                "a refresh token was used twice: the session ends"
            );
            self.end(session).await?;
            return Err(RefreshError::Ended);
        }
        let child = exchange.filter(|_| answer == Answer::Again).and_then(|exchange| child_of(token, exchange, session));
        let Some(child) = child else {
            audit!(
                "refresh_refused",
                user = %session.user,
                session = %session.id,
                reason = "spent",
                first_network,
                network,
                "a refresh token that was exchanged a moment ago was refused"
            );
            return Err(RefreshError::Spent);
        };
        audit!(
            "refresh_repeated",
            user = %session.user,
            session = %session.id,
            first_network,
            network,
            "the answer to a refresh was given again"
        );
        Ok(self.signed_in(user, &child, session.expires_at, now)?)
    }

    /// Ends the session of a refresh token, spent ones included. Does nothing when it is over already.
    ///
    /// # Errors
    /// [`RefreshError`], but neither [`RefreshError::Spent`] nor [`RefreshError::Ended`].
    pub async fn log_out(&self, token: &str, client: &Client, now: OffsetDateTime) -> Result<(), RefreshError> {
        self.local_accounts()?;
        self.throttle.log_out(client)?;
        let Some(token) = RefreshToken::parse(token) else {
            audit!("logout_refused", reason = "malformed", "a text that is no refresh token was refused");
            return Err(RefreshError::Invalid);
        };
        let id = token.session();
        let Some(session) = self.store.sessions.find(id, now).await? else {
            audit!("session_not_found", session = %id, "asked to log out of a session that is over");
            return Ok(());
        };
        if matches!(Place::of(&token, &session), Place::Unknown) {
            audit!("logout_refused", session = %id, reason = "unknown secret", "a token that its session does not know");
            return Err(RefreshError::Invalid);
        }
        if self.end(&session).await? {
            audit!("session_ended", user = %session.user, session = %id, "logged out");
        }
        Ok(())
    }

    /// Ends a session, in the database first: what another request reads meanwhile does not outlive it here.
    async fn end(&self, session: &Session) -> Result<bool, StoreError> {
        let ended = self.store.sessions.delete_owned(session.user, session.id).await?;
        self.session_cache.mark_ended(session.user, session.id, Instant::now());
        Ok(ended)
    }
}

/// The living token, as the child of its parent.
fn child_of(parent: &RefreshToken, exchange: &Exchange, session: &Session) -> Option<RefreshToken> {
    let tagged = session.token_key.map(|key| parent.child(&exchange.salt, &key));
    // A server of a former version that runs beside this one may have made the exchange.
    let untagged = parent.untagged_child(&exchange.salt);
    tagged.into_iter().chain([untagged]).find(|child| child.hash() == session.token_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(agent: u8) -> Asker {
        Asker { agent: [agent; 32], network: String::new() }
    }

    /// Every answer, by who exchanged the token, who shows it, whether the child was used, and when.
    #[test]
    fn a_spent_token_is_answered_by_client_child_and_time() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let after = |ago: Duration, by_newcomer: bool| Exchange {
            hash: [0; 32],
            salt: [0; 32],
            at: now - ago,
            agent: Some([1; 32]),
            network: None,
            by_newcomer,
        };
        let (same, other) = (asker(1), asker(2));
        let within = after(GRACE, false);
        for (place, asker, answer) in [
            (Place::Parent(&within), &same, Answer::Again),
            (Place::Parent(&within), &other, Answer::Refused),
            (Place::Earlier(&within), &same, Answer::Refused),
            (Place::Earlier(&within), &other, Answer::Refused),
        ] {
            assert_eq!(Answer::to(&place, asker, now), answer);
        }
        let newcomers = after(GRACE, true);
        for (place, asker, answer) in [
            (Place::Parent(&newcomers), &same, Answer::Again),
            (Place::Parent(&newcomers), &other, Answer::Reused),
            (Place::Earlier(&newcomers), &same, Answer::Refused),
            (Place::Earlier(&newcomers), &other, Answer::Refused),
        ] {
            assert_eq!(Answer::to(&place, asker, now), answer);
        }
        let late = after(GRACE + Duration::from_millis(1), false);
        for asker in [&same, &other] {
            for place in [Place::Parent(&late), Place::Earlier(&late), Place::Old(None), Place::Old(Some(late.at))] {
                assert_eq!(Answer::to(&place, asker, now), Answer::Reused);
            }
            assert_eq!(Answer::to(&Place::Old(Some(within.at)), asker, now), Answer::Refused, "forgotten for their number");
        }
        let of_before = Exchange { agent: None, ..within };
        assert_eq!(Answer::to(&Place::Parent(&of_before), &other, now), Answer::Again);
    }

    #[test]
    fn a_network_is_a_24_or_a_48() {
        let of = |address: &str| {
            Asker::of(&Client { address: address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), device: None }).network
        };
        assert_eq!(of("198.51.100.77"), "198.51.100.0/24");
        assert_eq!(of("::ffff:198.51.100.77"), "198.51.100.0/24");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1::/48");
    }
}
