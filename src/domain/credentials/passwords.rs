//! Hashes and verifies passwords, and estimates their strength, on bounded pools of threads.

use std::{borrow::Cow, fmt, num::NonZero, sync::Arc, thread::available_parallelism};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{
        PasswordHasher, PasswordVerifier,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};
use secrecy::{ExposeSecret, SecretString};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::NoRandomness;
use crate::{
    domain::{
        hash_pool::{HashPermit, HashPool, Overloaded, PoolLoad},
        password_rules,
    },
    model::{Email, RequestOrigin},
};

/// A password in normalization form KC, so that keyboards that compose letters differently type the same password (NIST SP
/// 800-63B section 5.1.1.2).
#[derive(Clone)]
pub struct Password(SecretString);

impl Password {
    /// Normalizes a password.
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

/// Outcome of comparing a password with a stored hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordMatch {
    /// Another password.
    Mismatch,
    /// The same password.
    Match,
    /// The same password, hashed with other parameters than the current ones: hash it again.
    OutdatedHash,
}

/// Pools for hashing passwords and for estimating their strength.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Each hash takes 19 MiB and a core.
    hashing: HashPool,
    /// Separate from hashing, so that a password that is slow to estimate delays no sign-in.
    estimating: HashPool,
    /// Minimum length of a new password in code points.
    min_chars: usize,
    /// Hash that is verified if the account does not exist, at the same cost.
    dummy_hash: Arc<str>,
}

impl Passwords {
    /// Creates the pools: all cores except one hash passwords. New passwords must have at least `min_chars` code points.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(min_chars: usize) -> Result<Self, NoRandomness> {
        let cores = available_parallelism().map_or(1, NonZero::get);
        // A random output with the current parameters: no password is known to hash to it.
        let random = || [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes).concat();
        let dummy_hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(hasher().params()).map_err(|_| NoRandomness)?,
            salt: Some(Salt::new(&random()[..16]).map_err(|_| NoRandomness)?),
            hash: Some(Output::new(&random()).map_err(|_| NoRandomness)?),
        };
        Ok(Self {
            // One core stays free, so that reading the gallery does not wait for logins.
            hashing: HashPool::new("hash password", cores.saturating_sub(1).max(1)),
            estimating: HashPool::new("estimate password strength", (cores / 4).max(1)),
            min_chars,
            dummy_hash: dummy_hash.to_string().into(),
        })
    }

    /// Returns the numbers of passwords that are being hashed and that wait.
    #[must_use]
    pub fn load(&self) -> PoolLoad {
        self.hashing.load()
    }

    /// Acquires a permit for hashing. Callers acquire it before they read the database, so that a rejected call costs almost
    /// nothing.
    ///
    /// # Errors
    /// [`Overloaded`] at once if the holder has used up its share.
    pub fn acquire(&self, holder: RequestOrigin) -> Result<HashPermit, Overloaded> {
        self.hashing.acquire(holder)
    }

    /// Returns why a new password is too weak for this address's account, by [`password_rules`].
    ///
    /// # Errors
    /// [`Overloaded`].
    pub async fn find_weakness(
        &self,
        holder: RequestOrigin,
        password: Password,
        email: &Email,
    ) -> Result<Option<Cow<'static, str>>, Overloaded> {
        let (email, min_chars) = (email.clone(), self.min_chars);
        let judge = move || password_rules::find_weakness(password.0.expose_secret(), &email, min_chars);
        self.estimating.run(&self.estimating.acquire(holder)?, judge).await
    }

    /// Returns the PHC string of a password, with a new salt.
    ///
    /// # Errors
    /// [`Overloaded`].
    pub async fn hash(&self, permit: &HashPermit, password: Password) -> Result<String, Overloaded> {
        let hash = move || hasher().hash_password(password.0.expose_secret().as_bytes()).map(|hash| hash.to_string());
        self.hashing.run(permit, hash).await?.map_err(|error| {
            tracing::error!(%error, "failed to hash a password");
            Overloaded
        })
    }

    /// Compares a password with a hash. Without a hash the result is [`PasswordMatch::Mismatch`], after the same work.
    ///
    /// # Errors
    /// [`Overloaded`].
    pub async fn verify(
        &self,
        permit: &HashPermit,
        password: Password,
        hash: Option<SecretString>,
    ) -> Result<PasswordMatch, Overloaded> {
        let dummy_hash = self.dummy_hash.clone();
        let verify = move || {
            let text = hash.as_ref().map_or(&*dummy_hash, |hash| hash.expose_secret());
            let parsed =
                PasswordHash::new(text).inspect_err(|error| tracing::error!(%error, "failed to read a stored password hash"));
            let parsed = parsed.ok().filter(|parsed| {
                // Verified even without an account, so that the time does not reveal it.
                hasher().verify_password(password.0.expose_secret().as_bytes(), parsed).is_ok() && hash.is_some()
            });
            match parsed {
                None => PasswordMatch::Mismatch,
                Some(parsed) if is_current(&parsed) => PasswordMatch::Match,
                Some(_) => PasswordMatch::OutdatedHash,
            }
        };
        self.hashing.run(permit, verify).await
    }
}

/// Returns Argon2id with OWASP's parameters for servers with little memory: 19 MiB, two passes, one lane.
fn hasher() -> Argon2<'static> {
    // The constants are within argon2's bounds, so the default, which has the same values, is never used.
    let params = Params::new(19_456, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Returns whether a hash was made with the parameters of [`hasher`].
fn is_current(hash: &PasswordHash) -> bool {
    let params = Params::try_from(hash).ok();
    let has_current_params = params.is_some_and(|params| {
        let hasher = hasher();
        let wanted = hasher.params();
        (params.m_cost(), params.t_cost(), params.p_cost()) == (wanted.m_cost(), wanted.t_cost(), wanted.p_cost())
    });
    has_current_params && hash.algorithm == Algorithm::Argon2id.ident()
}

#[cfg(test)]
#[path = "passwords_tests.rs"]
mod tests;
