//! The owner's way in while strangers guess: networks that an account was signed in to from are not held to the account's limit of
//! wrong passwords, only to their own (OWASP, "Slow Down Online Guessing Attacks with Device Cookies", without a cookie, since
//! clients of other origins and native apps keep none; NIST SP 800-63B section 5.2.2).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::{
    Valet,
    accounts::LogInError,
    prefix::Prefix,
    recent::Recent,
    throttle::{self, Client, Guess, Standing, names},
};
use crate::{
    model::{Email, UserId},
    store::StoreError,
};

/// How long a server does not record the same network of the same user again.
const RECORDED: Duration = Duration::from_secs(24 * 60 * 60);
/// Networks that a server remembers to have recorded.
const CAPACITY: usize = 50_000;

/// What this server has recorded lately: most sign-ins come from where the last one came from, and need no write.
#[derive(Debug)]
pub struct Recorded(Mutex<Recent<(UserId, Prefix), Instant>>);

impl Default for Recorded {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(CAPACITY)))
    }
}

impl Recorded {
    fn is_fresh(&self, key: (UserId, Prefix), now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).is_some_and(|at| now.saturating_duration_since(at) < RECORDED)
    }

    fn insert(&self, key: (UserId, Prefix), now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, now);
    }
}

impl Valet {
    /// Counts a try of an account's password. A network that is strange to the account is held to the account's limit, too.
    pub(super) async fn guess(&self, email: &Email, client: &Client, now: OffsetDateTime) -> Result<Guess<'_>, LogInError> {
        let guess = match self.throttle.guess(email, client, Standing::Stranger) {
            Err(refused) if refused.limit == names::ACCOUNT_FAILURES => {
                if self.has_signed_in_from(email, client, now).await? {
                    self.throttle.guess(email, client, Standing::Known)
                } else {
                    Err(refused)
                }
            }
            guess => guess,
        };
        Ok(guess.inspect_err(throttle::report)?)
    }

    /// Whether the account of this address was signed in to from the client's network lately. Asks the database as often where
    /// there is no such account: the time must not tell.
    async fn has_signed_in_from(&self, email: &Email, client: &Client, now: OffsetDateTime) -> Result<bool, StoreError> {
        let account = self.store.users.find_by_email(email).await?;
        let user = account.map_or_else(UserId::new, |account| account.user.id);
        self.store.known_networks.is_known(user, &Prefix::site(client.address).to_string(), now).await
    }

    /// Remembers where a sign-in came from. What fails here costs nobody their sign-in: the next one records it.
    pub(super) async fn record_network(&self, user: UserId, client: &Client, now: OffsetDateTime) {
        let (site, asked) = (Prefix::site(client.address), Instant::now());
        if self.recorded.is_fresh((user, site), asked) {
            return;
        }
        match self.store.known_networks.record(user, &site.to_string(), now).await {
            Ok(()) => self.recorded.insert((user, site), asked),
            Err(error) => tracing::warn!(%user, %error, "failed to record the network of a sign-in"),
        }
    }
}
