//! Passwords: hashing and verifying, how many at once, and who must wait.

use std::{borrow::Cow, fmt, num::NonZero, sync::Arc, thread::available_parallelism, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{
        PasswordHasher, PasswordVerifier,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::NoRandomness;
use crate::{domain::password_rules, metrics::METRICS, model::Email, telemetry::spans};

/// More passwords wait to be hashed than can be hashed soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at once")]
pub struct Busy;

/// A password as a person typed it: NFKC, so that two keyboards that compose letters differently type the same one
/// (NIST SP 800-63B section 5.1.1.2).
#[derive(Clone)]
pub struct Password(SecretString);

impl Password {
    /// Normalises what was typed.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.nfkc().collect::<String>().into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What a password is to a stored hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not the one.
    Wrong,
    /// The one.
    Right,
    /// The one, hashed with other parameters than today's: hash it again.
    Outdated,
}

/// Hashes and verifies on the blocking pool, a bounded number at a time.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Hashes under way: each takes 19 MiB and a core.
    running: Arc<Semaphore>,
    permits: usize,
    /// Hashes under way and waiting.
    queued: Arc<Semaphore>,
    /// Code points of the shortest new password.
    min_chars: usize,
    /// Verified against when there is no account, at the same cost.
    nobody: Arc<str>,
}

/// A place among those that wait, or are worked on; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _held: OwnedSemaphorePermit,
}

/// How many may wait for each that is under way.
const QUEUE_PER_PERMIT: usize = 16;
/// How long one may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

impl Passwords {
    /// As many at a time as there are cores but one; new passwords have at least `min_chars` code points.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(min_chars: usize) -> Result<Self, NoRandomness> {
        // A core stays free: who reads the gallery must not wait for who logs in.
        let permits = available_parallelism().map_or(1, NonZero::get).saturating_sub(1).max(1);
        // Of today's parameters, and of no password: nothing need be hashed for it, and nothing is known to hash to it.
        let random = || [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes).concat();
        let nobody = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(hasher().params()).map_err(|_| NoRandomness)?,
            salt: Some(Salt::new(&random()[..16]).map_err(|_| NoRandomness)?),
            hash: Some(Output::new(&random()).map_err(|_| NoRandomness)?),
        };
        Ok(Self {
            running: Arc::new(Semaphore::new(permits)),
            permits,
            queued: Arc::new(Semaphore::new(permits * (1 + QUEUE_PER_PERMIT))),
            min_chars,
            nobody: nobody.to_string().into(),
        })
    }

    /// How many are being hashed, and how many wait.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let running = self.permits.saturating_sub(self.running.available_permits());
        let queued = (self.permits * (1 + QUEUE_PER_PERMIT)).saturating_sub(self.queued.available_permits());
        (running, queued.saturating_sub(running))
    }

    /// A place in the queue. Taken before anything is read for a password, so that one too many costs next to nothing.
    ///
    /// # Errors
    /// [`Busy`] when there is none: at once.
    pub fn place(&self) -> Result<Place, Busy> {
        self.queued.clone().try_acquire_owned().map(|held| Place { _held: held }).map_err(|_| refused())
    }

    /// Why a password may not become that of this address's account, by [`password_rules`]: work for a core, too.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn weakness(&self, password: Password, email: &Email) -> Result<Option<Cow<'static, str>>, Busy> {
        let (email, min_chars) = (email.clone(), self.min_chars);
        self.run(self.place()?, move || password_rules::weakness(password.0.expose_secret(), &email, min_chars)).await
    }

    /// The PHC string of a password, with a fresh salt.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn hash(&self, password: Password) -> Result<String, Busy> {
        let hash = move || hasher().hash_password(password.0.expose_secret().as_bytes()).map(|hash| hash.to_string());
        self.run(self.place()?, hash).await?.map_err(|error| {
            tracing::error!(%error, "a password could not be hashed");
            Busy
        })
    }

    /// Whether the password is the hash's. Without a hash the answer is [`Verdict::Wrong`], after the same work.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn verify(&self, place: Place, password: Password, hash: Option<SecretString>) -> Result<Verdict, Busy> {
        let nobody = self.nobody.clone();
        self.run(place, move || {
            let text = hash.as_ref().map_or(&*nobody, |hash| hash.expose_secret());
            let parsed =
                PasswordHash::new(text).inspect_err(|error| tracing::error!(%error, "a stored password hash cannot be read"));
            let parsed = parsed.ok().filter(|parsed| {
                // The work is done whether there is an account or not.
                hasher().verify_password(password.0.expose_secret().as_bytes(), parsed).is_ok() && hash.is_some()
            });
            match parsed {
                None => Verdict::Wrong,
                Some(parsed) if is_current(&parsed) => Verdict::Right,
                Some(_) => Verdict::Outdated,
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, place: Place, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        self.wait_and_run(place, work).instrument(spans::internal("hash password")).await
    }

    async fn wait_and_run<T: Send + 'static>(&self, place: Place, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let permit = tokio::time::timeout(LONGEST_WAIT, self.running.clone().acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(refused)?;
        // The permit goes into the closure: a client that hangs up cancels the request, not the hash.
        let work = tokio::task::spawn_blocking(move || {
            let _held = (permit, place);
            work()
        });
        work.await.map_err(|_| Busy)
    }
}

fn refused() -> Busy {
    METRICS.hashes_refused.inc();
    Busy
}

/// Argon2id at OWASP's first choice for servers with little memory to spare: 19 MiB, two passes, one lane.
fn hasher() -> Argon2<'static> {
    // The constants are within argon2's bounds; its default is these same values.
    let params = Params::new(19_456, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Whether a hash was made as [`hasher`] makes them now.
fn is_current(hash: &PasswordHash) -> bool {
    let params = Params::try_from(hash).ok();
    let current = params.is_some_and(|params| {
        let now = hasher();
        let now = now.params();
        (params.m_cost(), params.t_cost(), params.p_cost()) == (now.m_cost(), now.t_cost(), now.p_cost())
    });
    current && hash.algorithm == Algorithm::Argon2id.ident()
}

#[cfg(test)]
#[path = "passwords_tests.rs"]
mod tests;
