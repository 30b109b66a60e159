//! Throttling: how often one account, address or user may do a thing. Each server counts for itself, in bounded memory.
//!
//! No stranger locks an owner out: wrong passwords are counted by account and address together, so that they cost their
//! sender alone.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;

use super::{audit::audit, recent::Recent};
use crate::{
    config::{self, Rate},
    model::{Email, UserId},
};

/// Keys that each limit remembers: a few megabytes when full.
const CAPACITY: usize = 100_000;

/// Who asks, as far as a request tells.
#[derive(Debug, Clone)]
pub struct Client {
    /// The address of the client, or of the last proxy that is not ours.
    pub address: IpAddr,
    /// What the client calls itself.
    pub device: Option<String>,
}

/// Too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests: {limit}")]
pub struct Throttled {
    /// Which limit.
    pub limit: &'static str,
    /// What it allows.
    pub rate: Rate,
    /// How long to wait.
    pub retry_after: Duration,
}

/// A limit: the generic cell rate algorithm (ITU-T I.371), a leaky bucket that keeps one time per key: when the bucket
/// will be empty.
#[derive(Debug)]
struct Limit<K> {
    name: &'static str,
    rate: Rate,
    empty_at: Mutex<Recent<K, Instant>>,
}

impl<K: Eq + Hash + Copy> Limit<K> {
    fn new(name: &'static str, rate: Rate) -> Self {
        Self { name, rate, empty_at: Mutex::new(Recent::new(CAPACITY)) }
    }

    /// Counts `n` times at once, or none of them.
    fn take(&self, key: K, n: u32, now: Instant) -> Result<(), Throttled> {
        let mut all = self.lock();
        let empty_at = all.get(key).map_or(now, |at| at.max(now)) + self.cost(n);
        let ahead = empty_at.saturating_duration_since(now);
        if ahead > self.rate.window {
            return Err(Throttled { limit: self.name, rate: self.rate, retry_after: ahead.saturating_sub(self.rate.window) });
        }
        all.insert(key, empty_at);
        Ok(())
    }

    /// Takes back what was counted once.
    fn give_back(&self, key: K) {
        let mut all = self.lock();
        if let Some(before) = all.get(key).and_then(|at| at.checked_sub(self.cost(1))) {
            all.insert(key, before);
        }
    }

    /// Forgets what was counted.
    fn forget(&self, key: K) {
        self.lock().remove(key);
    }

    /// What `n` times put into the bucket, in time; more than fits at once is as much as fits.
    fn cost(&self, n: u32) -> Duration {
        self.rate.window * n.min(self.rate.count) / self.rate.count
    }

    fn lock(&self) -> MutexGuard<'_, Recent<K, Instant>> {
        self.empty_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An account by what names it, whether it exists or not, and where its password is tried from.
type Guesser = ([u8; 16], IpAddr);

/// All limits; `None` where they are off.
#[derive(Debug)]
pub struct Throttle(Option<Limits>);

#[derive(Debug)]
struct Limits {
    signup: Limit<IpAddr>,
    login: Limit<IpAddr>,
    login_failures: Limit<Guesser>,
    refresh: Limit<IpAddr>,
    upload: Limit<UserId>,
}

impl Throttle {
    /// From the settings.
    #[must_use]
    pub fn new(config: &config::Limits) -> Self {
        Self(config.on.then(|| Limits {
            signup: Limit::new("signup", config.signup),
            login: Limit::new("login", config.login),
            login_failures: Limit::new("login-failures", config.login_failures),
            refresh: Limit::new("refresh", config.refresh),
            upload: Limit::new("upload", config.upload),
        }))
    }

    /// A sign-up.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn sign_up(&self, client: &Client) -> Result<(), Throttled> {
        self.check(|limits, now| limits.signup.take(network(client.address), 1, now))
    }

    /// A login.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn log_in(&self, client: &Client) -> Result<(), Throttled> {
        self.check(|limits, now| limits.login.take(network(client.address), 1, now))
    }

    /// A try of an account's password: counted as wrong until it is known, so that a thousand at once are counted, too.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn guess(&self, email: &Email, client: &Client) -> Result<Guess<'_>, Throttled> {
        let key = guesser(email, client);
        self.check(|limits, now| limits.login_failures.take(key, 1, now))?;
        Ok(Guess { failures: self.0.as_ref().map(|limits| &limits.login_failures), key })
    }

    /// A refresh.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn refresh(&self, client: &Client) -> Result<(), Throttled> {
        self.check(|limits, now| limits.refresh.take(network(client.address), 1, now))
    }

    /// Uploads issued at once.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn uploads(&self, user: UserId, count: u32) -> Result<(), Throttled> {
        self.check(|limits, now| limits.upload.take(user, count, now))
    }

    fn check(&self, take: impl FnOnce(&Limits, Instant) -> Result<(), Throttled>) -> Result<(), Throttled> {
        let Some(limits) = &self.0 else { return Ok(()) };
        take(limits, Instant::now())
            .inspect_err(|throttled| audit!("throttled", limit = throttled.limit, rate = %throttled.rate, "too many requests"))
    }
}

/// A try of a password that is counted as wrong unless it is said what came of it.
#[must_use]
#[derive(Debug)]
pub struct Guess<'a> {
    failures: Option<&'a Limit<Guesser>>,
    key: Guesser,
}

impl Guess<'_> {
    /// One that is not counted.
    pub fn uncounted() -> Self {
        Self { failures: None, key: ([0; 16], IpAddr::V6(Ipv6Addr::UNSPECIFIED)) }
    }

    /// It was right: the count starts anew.
    pub fn right(self) {
        if let Some(failures) = self.failures {
            failures.forget(self.key);
        }
    }

    /// It was not looked at.
    pub fn unknown(&self) {
        if let Some(failures) = self.failures {
            failures.give_back(self.key);
        }
    }
}

fn guesser(email: &Email, client: &Client) -> Guesser {
    let mut account = [0; 16];
    account.copy_from_slice(&digest::digest(&digest::SHA256, email.key().as_bytes()).as_ref()[..16]);
    (account, network(client.address))
}

/// One customer of a provider has a whole /64 of IPv6: its addresses are one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_steady_pace() {
        let limit = Limit::new("x", Rate::new(10, 60));
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(limit.take("a", 1, start), Ok(()));
        }
        let refused = limit.take("a", 1, start);
        assert_eq!(refused.map_err(|refused| refused.retry_after), Err(Duration::from_secs(6)));
        assert_eq!(limit.take("b", 1, start), Ok(()), "keys are apart");
        let later = start + Duration::from_secs(6);
        assert_eq!(limit.take("a", 1, later), Ok(()));
        assert!(limit.take("a", 1, later).is_err(), "one in six seconds");
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| limit.take("a", 1, much_later).is_ok()).count(), 10, "no more is saved than the burst");
    }

    #[test]
    fn many_at_once_are_all_or_none_and_never_impossible() {
        let limit = Limit::new("x", Rate::new(10, 60));
        let start = Instant::now();
        assert!(limit.take("a", 6, start).is_ok());
        assert!(limit.take("a", 6, start).is_err());
        assert!(limit.take("a", 4, start).is_ok(), "the refused six were not counted");
        assert!(limit.take("b", 1000, start).is_ok(), "as much as fits");
        assert!(limit.take("b", 1, start).is_err());
    }

    #[test]
    fn a6_what_was_not_wrong_is_not_held_against_anybody() {
        let limit = Limit::new("x", Rate::new(2, 60));
        let start = Instant::now();
        for _ in 0..5 {
            assert!(limit.take("a", 1, start).is_ok());
            limit.give_back("a");
        }
        assert!(limit.take("a", 2, start).is_ok());
        assert!(limit.take("a", 1, start).is_err());
        limit.forget("a");
        assert!(limit.take("a", 2, start).is_ok());
    }

    #[test]
    fn addresses_of_one_customer_are_one() {
        let of = |text: &str| text.parse().map(network);
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
