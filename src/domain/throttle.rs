//! Rate limits of accounts, networks, users, sessions and service keys. Each server counts for itself, in bounded memory.
//!
//! Networks are counted at every prefix length that one customer may have, so that switching between addresses gains little.
//! Wrong passwords are counted by account and network together, so that they use up their sender's limit first, and by account;
//! `known_networks` keeps the account accessible to its owner. `limit` has the algorithm of one limit.

mod limit;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use self::limit::{Limit, UserLimit};
use super::{audit::audit, credentials::Caller};
use crate::{
    config::{self, Rate},
    model::{Email, NetworkPrefix, RequestOrigin, ServiceKeyId, SessionId, Sha256, UserId},
    store::request_origin,
};

/// Rate of calls that end sessions, by one session from one network or with one refresh token, allowed in addition to
/// `RATE_LIMIT_CALLS` and `RATE_LIMIT_REFRESH`: ten per 60 seconds.
const SESSION_ENDING: Rate = Rate::new(10, 60);

/// Names of the limits in [`Throttled`].
pub mod names {
    /// `RATE_LIMIT_SIGNUP`
    pub const SIGNUP: &str = "signup";
    /// `RATE_LIMIT_LOGIN`
    pub const LOGIN: &str = "login";
    /// `RATE_LIMIT_LOGIN_FAILURES`
    pub const LOGIN_FAILURES: &str = "login-failures";
    /// `RATE_LIMIT_ACCOUNT_FAILURES`
    pub const ACCOUNT_FAILURES: &str = "account-failures";
    /// `RATE_LIMIT_PASSWORD`
    pub const PASSWORD: &str = "password";
    /// `RATE_LIMIT_REFRESH`
    pub const REFRESH: &str = "refresh";
    /// `RATE_LIMIT_CALLS`
    pub const CALLS: &str = "calls";
    /// `RATE_LIMIT_UPLOAD`
    pub const UPLOAD: &str = "upload";
    /// `RATE_LIMIT_URLS`
    pub const URLS: &str = "urls";
    /// `RATE_LIMIT_S3`
    pub const S3: &str = "s3";
    /// `RATE_LIMIT_SERVICE_KEY`
    pub const SERVICE_KEY: &str = "service-key";
}

/// Client of a request.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// Address of the client, or of the last proxy that is not trusted.
    pub address: IpAddr,
    /// `User-Agent` of the client.
    pub device: Option<String>,
}

impl ClientInfo {
    /// Returns the origin of the client's requests, for permits.
    #[must_use]
    pub fn request_origin(&self, user: Option<UserId>) -> RequestOrigin {
        RequestOrigin { site: NetworkPrefix::site(self.address), user }
    }
}

/// A rate limit is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests: {limit}")]
pub struct Throttled {
    /// Name of the limit, one of [`names`].
    pub limit: &'static str,
    /// Rate of the limit.
    pub rate: Rate,
    /// Time until the call is allowed.
    pub retry_after: Duration,
}

/// Digest of an account's address, whether the account exists or not.
type AccountKey = [u8; 16];
/// SHA-256 of a refresh token.
type TokenDigest = [u8; 32];

/// All limits; `None` if they are off.
#[derive(Debug)]
pub struct Throttle(Option<Limits>);

/// The limits, each with its key. The `()` stands for limits whose only key is the network.
#[derive(Debug)]
struct Limits {
    signup: Limit<((), NetworkPrefix)>,
    login: Limit<((), NetworkPrefix)>,
    login_failures: Limit<(AccountKey, NetworkPrefix)>,
    /// Wrong passwords of callers who are signed in.
    session_failures: Limit<SessionId>,
    account_failures: Limit<AccountKey>,
    password: Limit<SessionId>,
    refresh: Limit<((), NetworkPrefix)>,
    logout: Limit<((), NetworkPrefix)>,
    /// Logouts beyond `logout`, by refresh token.
    logout_with: Limit<TokenDigest>,
    calls: UserLimit,
    /// Calls beyond `calls` that end sessions.
    session_ending: Limit<(UserId, Option<SessionId>, Option<NetworkPrefix>)>,
    upload: UserLimit,
    urls: UserLimit,
    s3: UserLimit,
    service_key: Limit<ServiceKeyId>,
}

/// History of the address that an attempt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressHistory {
    /// No sign-in is known: counted for the address, its networks, and the account.
    Unknown,
    /// The account was signed in to from the same /24 or /48: not counted for the account.
    KnownSite,
    /// The account was signed in to from the same address or /64: counted for that only, so that neighbours do not use up its
    /// attempts.
    KnownHost,
}

impl Throttle {
    /// Creates the limits from the settings.
    #[must_use]
    pub fn new(config: &config::RateLimits) -> Self {
        Self(config.on.then(|| Limits {
            signup: Limit::new(names::SIGNUP, config.signup),
            login: Limit::new(names::LOGIN, config.login),
            login_failures: Limit::new(names::LOGIN_FAILURES, config.login_failures),
            session_failures: Limit::new(names::LOGIN_FAILURES, config.login_failures),
            account_failures: Limit::new(names::ACCOUNT_FAILURES, config.account_failures),
            password: Limit::new(names::PASSWORD, config.password),
            refresh: Limit::new(names::REFRESH, config.refresh),
            logout: Limit::new(names::REFRESH, config.refresh),
            logout_with: Limit::new(names::REFRESH, SESSION_ENDING),
            calls: UserLimit::new(names::CALLS, config.calls),
            session_ending: Limit::new(names::CALLS, SESSION_ENDING),
            upload: UserLimit::new(names::UPLOAD, config.upload),
            urls: UserLimit::new(names::URLS, config.urls),
            s3: UserLimit::new(names::S3, config.s3),
            service_key: Limit::new(names::SERVICE_KEY, config.service_key),
        }))
    }

    /// Counts a sign-up.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_sign_up(&self, client: &ClientInfo) -> Result<(), Throttled> {
        self.check(|limits, now| limits.signup.take_from((), client.address, now))
    }

    /// Counts a login, or another call with a password.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_login(&self, client: &ClientInfo) -> Result<(), Throttled> {
        self.check(|limits, now| limits.login.take_from((), client.address, now))
    }

    /// Counts an attempt at an account's password as wrong until the result is known, so that concurrent attempts are counted
    /// too.
    ///
    /// # Errors
    /// [`Throttled`]; not audited, because the caller may count the attempt with another history.
    pub fn count_attempt(
        &self,
        email: &Email,
        client: &ClientInfo,
        history: AddressHistory,
    ) -> Result<LoginAttempt<'_>, Throttled> {
        let Some(limits) = &self.0 else { return Ok(LoginAttempt::untracked()) };
        let (account, now) = (account_key(email), Instant::now());
        match history {
            AddressHistory::KnownHost => limits.login_failures.take((account, NetworkPrefix::host(client.address)), 1, now)?,
            AddressHistory::KnownSite => limits.login_failures.take_from(account, client.address, now)?,
            AddressHistory::Unknown => {
                limits.login_failures.take_from(account, client.address, now)?;
                let taken = limits.account_failures.take(account, 1, now);
                taken.inspect_err(|_| limits.login_failures.give_back_from(account, client.address))?;
            }
        }
        Ok(LoginAttempt(Some((limits, AttemptKey::Address { account, address: client.address, history }))))
    }

    /// Counts an attempt at the password by a caller who is signed in. A thief of a session uses up only that session's attempts.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_attempt_in_session(&self, session: SessionId) -> Result<LoginAttempt<'_>, Throttled> {
        self.check(|limits, now| limits.session_failures.take(session, 1, now))?;
        Ok(LoginAttempt(self.0.as_ref().map(|limits| (limits, AttemptKey::Session(session)))))
    }

    /// Counts a call with the user's password other than a login: changing it, or deleting the account. Counted by session like
    /// wrong passwords, so that a stolen session uses up no calls of other sessions.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_password_check(&self, session: SessionId) -> Result<(), Throttled> {
        self.check(|limits, now| limits.password.take(session, 1, now))
    }

    /// Counts a logout. Logouts are counted separately from refreshes, so that a flood of refreshes does not block them. Beyond
    /// the limit of its network, a logout is counted by its token, so that a flood of logouts with other tokens does not block
    /// it. Whether the token is valid is not known yet: finding out costs one read by `_id`, which waits its turn among those of
    /// the same network.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_logout(&self, client: &ClientInfo, token: Option<TokenDigest>) -> Result<(), Throttled> {
        self.check(|limits, now| {
            limits.logout.take_from((), client.address, now).or_else(|throttled| {
                let taken = token.is_some_and(|token| limits.logout_with.take(token, 1, now).is_ok());
                if taken { Ok(()) } else { Err(throttled) }
            })
        })
    }

    /// Counts a call that ends sessions and that a limit of its user has rejected, by session and network. Neither a flood in the
    /// user's name nor a stolen session used elsewhere keeps the owner from ending it.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_session_ending(&self, caller: Caller) -> Result<(), Throttled> {
        let site = request_origin::current().map(|origin| origin.site);
        self.check(|limits, now| limits.session_ending.take((caller.user, caller.session(), site), 1, now))
    }

    /// Counts a call that exchanges a refresh token.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_refresh(&self, client: &ClientInfo) -> Result<(), Throttled> {
        self.check(|limits, now| limits.refresh.take_from((), client.address, now))
    }

    /// Counts a call by a user.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_call(&self, user: UserId) -> Result<(), Throttled> {
        self.check(|limits, now| limits.calls.take(user, 1, now))
    }

    /// Counts uploads that one call opens.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_uploads(&self, user: UserId, count: u32) -> Result<(), Throttled> {
        self.check(|limits, now| limits.upload.take(user, count, now))
    }

    /// Counts URLs that one call signs.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_urls(&self, user: UserId, count: u32) -> Result<(), Throttled> {
        self.check(|limits, now| limits.urls.take(user, count, now))
    }

    /// Counts calls to S3 that one request makes.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_s3_calls(&self, user: UserId, count: u32) -> Result<(), Throttled> {
        self.check(|limits, now| limits.s3.take(user, count, now))
    }

    /// Counts a call with a service key.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn count_key_call(&self, key: ServiceKeyId) -> Result<(), Throttled> {
        self.check(|limits, now| limits.service_key.take(key, 1, now))
    }

    /// Counts a call in limits, and audits a rejection. If the limits are off, every call is allowed.
    fn check(&self, take: impl FnOnce(&Limits, Instant) -> Result<(), Throttled>) -> Result<(), Throttled> {
        let Some(limits) = &self.0 else { return Ok(()) };
        take(limits, Instant::now()).inspect_err(audit_refusal)
    }
}

/// Audits the rejection of a call.
pub(super) fn audit_refusal(throttled: &Throttled) {
    audit!("throttled", limit = throttled.limit, rate = %throttled.rate, "refused a call beyond a rate limit");
}

/// The limits in which an attempt was counted.
#[derive(Debug, Clone, Copy)]
enum AttemptKey {
    /// Counted for an account and the networks of an address.
    Address { account: AccountKey, address: IpAddr, history: AddressHistory },
    /// Counted for a session.
    Session(SessionId),
}

/// An attempt at a password, counted as wrong unless [`LoginAttempt::succeeded`] or [`LoginAttempt::cancel`] is called.
#[must_use]
#[derive(Debug)]
pub struct LoginAttempt<'a>(Option<(&'a Limits, AttemptKey)>);

impl LoginAttempt<'_> {
    /// Returns an attempt that is not counted.
    pub fn untracked() -> Self {
        Self(None)
    }

    /// Resets the counts of the host or session, and the account's if the attempt was counted for it. Other attempts from the
    /// wider network stay counted.
    pub fn succeeded(self) {
        let Some((limits, counted)) = self.0 else { return };
        match counted {
            AttemptKey::Address { account, address, history } => {
                if history != AddressHistory::KnownHost {
                    limits.login_failures.give_back_from(account, address);
                }
                limits.login_failures.forget((account, NetworkPrefix::host(address)));
                if history == AddressHistory::Unknown {
                    limits.account_failures.forget(account);
                }
            }
            AttemptKey::Session(session) => limits.session_failures.forget(session),
        }
    }

    /// Takes the count back: the password was not verified.
    pub fn cancel(&self) {
        let Some((limits, counted)) = self.0 else { return };
        match counted {
            AttemptKey::Address { account, address, history } => {
                match history {
                    AddressHistory::KnownHost => limits.login_failures.give_back((account, NetworkPrefix::host(address)), 1),
                    AddressHistory::KnownSite | AddressHistory::Unknown => limits.login_failures.give_back_from(account, address),
                }
                if history == AddressHistory::Unknown {
                    limits.account_failures.give_back(account, 1);
                }
            }
            AttemptKey::Session(session) => limits.session_failures.give_back(session, 1),
        }
    }
}

/// Returns the key of an account in the limits.
fn account_key(email: &Email) -> AccountKey {
    let mut account = [0; 16];
    account.copy_from_slice(&Sha256::of([email.key()]).to_bytes()[..16]);
    account
}

#[cfg(test)]
#[path = "throttle_tests.rs"]
mod tests;
