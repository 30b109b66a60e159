//! The owner's way in while strangers guess: networks that an account was signed in to from are not held to the account's limit of
//! wrong passwords, only to their own, and addresses that it was signed in to from not to those of their networks (OWASP, "Slow Down Online Guessing Attacks with Device Cookies", without a cookie, since
//! clients of other origins and native apps keep none; NIST SP 800-63B section 5.2.2).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::{
    Valet,
    accounts::LogInError,
    recent::Recent,
    throttle::{self, Client, Guess, Standing, names},
};
use crate::{
    model::{Email, NetworkPrefix, UserId},
    store::StoreError,
};

/// How long a server does not record the same address of the same user again.
const RECORDED: Duration = Duration::from_secs(24 * 60 * 60);
/// Addresses that a server remembers to have recorded.
const CAPACITY: usize = 50_000;

/// Networks that this server has recorded lately: most sign-ins come from a known network, and need no write.
#[derive(Debug)]
pub struct Recorded(Mutex<Recent<(UserId, NetworkPrefix), Instant>>);

impl Default for Recorded {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(CAPACITY)))
    }
}

impl Recorded {
    fn is_fresh(&self, key: (UserId, NetworkPrefix), now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).is_some_and(|at| now.saturating_duration_since(at) < RECORDED)
    }

    fn insert(&self, key: (UserId, NetworkPrefix), now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, now);
    }
}

impl Valet {
    /// Counts a try of an account's password, by what is known of the client's address.
    pub(super) async fn guess(&self, email: &Email, client: &Client, now: OffsetDateTime) -> Result<Guess<'_>, LogInError> {
        let refused = match self.throttle.guess(email, client, Standing::Stranger) {
            Ok(guess) => return Ok(guess),
            Err(refused) => refused,
        };
        // Other addresses do not use up the tries of this one: without one left, there is nothing to look up.
        let guess = self.throttle.guess(email, client, Standing::KnownHost).inspect_err(throttle::report)?;
        let guess = match self.standing(email, client, now).await.inspect_err(|_| guess.unknown())? {
            Standing::KnownHost => return Ok(guess),
            Standing::KnownSite if refused.limit == names::ACCOUNT_FAILURES => {
                guess.unknown();
                self.throttle.guess(email, client, Standing::KnownSite)
            }
            Standing::KnownSite | Standing::Stranger => {
                guess.unknown();
                Err(refused)
            }
        };
        Ok(guess.inspect_err(throttle::report)?)
    }

    /// Looks up where the account of this address was signed in to from lately. Asks the database as often where there is no such
    /// account: the time must not tell.
    async fn standing(&self, email: &Email, client: &Client, now: OffsetDateTime) -> Result<Standing, StoreError> {
        let account = self.store.users.find_by_email(email).await?;
        let user = account.map_or_else(UserId::new, |account| account.user.id);
        let [host, site] =
            [NetworkPrefix::host(client.address), NetworkPrefix::site(client.address)].map(|network| network.to_string());
        let known = self.store.known_networks.find_known(user, [&host, &site], now).await?;
        Ok(match (known.contains(&host), known.contains(&site)) {
            (true, _) => Standing::KnownHost,
            (false, true) => Standing::KnownSite,
            (false, false) => Standing::Stranger,
        })
    }

    /// Records the network of a sign-in. A failure does not fail the sign-in: the next one records it.
    pub(super) async fn record_network(&self, user: UserId, client: &Client, now: OffsetDateTime) {
        let (host, asked) = (NetworkPrefix::host(client.address), Instant::now());
        if self.recorded.is_fresh((user, host), asked) {
            return;
        }
        let networks = [host, NetworkPrefix::site(client.address)].map(|network| network.to_string());
        match self.store.known_networks.record(user, &networks, now).await {
            Ok(()) => self.recorded.insert((user, host), asked),
            Err(error) => tracing::warn!(%user, %error, "failed to record the network of a sign-in"),
        }
    }
}
