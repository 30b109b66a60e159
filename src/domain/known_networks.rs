//! Networks and addresses from which users signed in. They keep an account accessible to its owner while others guess
//! passwords: a known network is exempt from the account's limit of wrong passwords, a known address also from its networks'
//! limits (OWASP, "Slow Down Online Guessing Attacks with Device Cookies", without a cookie, because clients of other origins and
//! native apps store none; NIST SP 800-63B section 5.2.2).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::{
    generational_cache::GenerationalCache,
    password_checks::LogInError,
    throttle::{self, AddressHistory, ClientInfo, LoginAttempt, Throttle, names},
};
use crate::{
    model::{Email, NetworkPrefix, UserId},
    store::{Store, StoreError},
};

/// Time for which a server does not record the same address of a user again.
const RECORD_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Recorded addresses that a server remembers.
const CAPACITY: usize = 50_000;

/// Addresses (IPv4) or /64 networks (IPv6) that this server has recorded recently: most sign-ins come from one of them, and need
/// no write.
#[derive(Debug)]
pub struct RecentlyRecorded(Mutex<GenerationalCache<(UserId, NetworkPrefix), Instant>>);

impl Default for RecentlyRecorded {
    fn default() -> Self {
        Self(Mutex::new(GenerationalCache::new(CAPACITY)))
    }
}

impl RecentlyRecorded {
    /// Returns whether the address was recorded recently.
    fn is_fresh(&self, key: (UserId, NetworkPrefix), now: Instant) -> bool {
        let mut recorded = self.0.lock();
        recorded.get(&key).is_some_and(|at| now.saturating_duration_since(at) < RECORD_INTERVAL)
    }

    /// Stores the time at which the address was recorded.
    fn insert(&self, key: (UserId, NetworkPrefix), now: Instant) {
        self.0.lock().insert(key, now);
    }
}

/// Records the networks from which users signed in, and counts attempts by the limits that depend on them.
#[derive(Debug)]
pub(super) struct KnownNetworks {
    pub(super) store: Arc<Store>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) recent_networks: RecentlyRecorded,
}

impl KnownNetworks {
    /// Builds the service from its parts, with an empty memory of recorded networks.
    pub(super) fn new(store: Arc<Store>, throttle: Arc<Throttle>) -> Self {
        Self { store, throttle, recent_networks: RecentlyRecorded::default() }
    }

    /// Counts an attempt at an account's password, with the limits for the address's history.
    pub(super) async fn count_attempt(
        &self,
        email: &Email,
        client: &ClientInfo,
        now: OffsetDateTime,
    ) -> Result<LoginAttempt<'_>, LogInError> {
        let throttled = match self.throttle.count_attempt(email, client, AddressHistory::Unknown) {
            Ok(attempt) => return Ok(attempt),
            Err(throttled) => throttled,
        };
        // Counted as from a known address, which shares its attempts with no other address. If it has none left, the lookup is not
        // needed.
        let attempt =
            self.throttle.count_attempt(email, client, AddressHistory::KnownHost).inspect_err(throttle::audit_refusal)?;
        let attempt = match self.address_history(email, client, now).await.inspect_err(|_| attempt.cancel())? {
            AddressHistory::KnownHost => return Ok(attempt),
            AddressHistory::KnownSite if throttled.limit == names::ACCOUNT_FAILURES => {
                attempt.cancel();
                self.throttle.count_attempt(email, client, AddressHistory::KnownSite)
            }
            AddressHistory::KnownSite | AddressHistory::Unknown => {
                attempt.cancel();
                Err(throttled)
            }
        };
        Ok(attempt.inspect_err(throttle::audit_refusal)?)
    }

    /// Looks up whether the account was signed in to recently from the client's address. Queries the database even if the account
    /// does not exist, so that the time does not reveal it.
    async fn address_history(
        &self,
        email: &Email,
        client: &ClientInfo,
        now: OffsetDateTime,
    ) -> Result<AddressHistory, StoreError> {
        let account = self.store.users.find_by_email(email).await?;
        let user = account.map_or_else(UserId::new, |account| account.user.id);
        let [host, site] =
            [NetworkPrefix::host(client.address), NetworkPrefix::site(client.address)].map(|network| network.to_string());
        let known_networks = self.store.known_networks.find_known(user, [&host, &site], now).await?;
        Ok(match (known_networks.contains(&host), known_networks.contains(&site)) {
            (true, _) => AddressHistory::KnownHost,
            (false, true) => AddressHistory::KnownSite,
            (false, false) => AddressHistory::Unknown,
        })
    }

    /// Records the network of a sign-in. If that fails, the sign-in still succeeds, and the next one records it.
    pub(super) async fn record_network(&self, user: UserId, client: &ClientInfo, now: OffsetDateTime) {
        let (host, checked_at) = (NetworkPrefix::host(client.address), Instant::now());
        if self.recent_networks.is_fresh((user, host), checked_at) {
            return;
        }
        let networks = [host, NetworkPrefix::site(client.address)].map(|network| network.to_string());
        match self.store.known_networks.record(user, &networks, now).await {
            Ok(()) => self.recent_networks.insert((user, host), checked_at),
            Err(error) => tracing::warn!(%user, %error, "failed to record the network of a sign-in"),
        }
    }
}
