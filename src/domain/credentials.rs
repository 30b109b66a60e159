//! Passwords and access tokens: the only file, with `foreign` under it, that names argon2 and jsonwebtoken.

pub mod foreign;
mod path;

use std::{borrow::Cow, fmt, num::NonZero, sync::Arc, thread::available_parallelism, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use aws_lc_rs::digest;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use self::foreign::KeyName;
use super::password_rules;
use crate::{
    config,
    model::{Email, SessionId, UserId},
};

/// The system gives no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system's source of random bytes failed")]
pub struct NoRandomness;

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
        let nobody = hasher().hash_password(Uuid::new_v4().as_bytes()).map_err(|_| NoRandomness)?;
        Ok(Self {
            running: Arc::new(Semaphore::new(permits)),
            queued: Arc::new(Semaphore::new(permits * (1 + QUEUE_PER_PERMIT))),
            min_chars,
            nobody: nobody.to_string().into(),
        })
    }

    /// A place in the queue. Taken before anything is read for a password, so that one too many costs next to nothing.
    ///
    /// # Errors
    /// [`Busy`] when there is none: at once.
    pub fn place(&self) -> Result<Place, Busy> {
        self.queued.clone().try_acquire_owned().map(|held| Place { _held: held }).map_err(|_| Busy)
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
        let permit = tokio::time::timeout(LONGEST_WAIT, self.running.clone().acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or(Busy)?;
        // The permit goes into the closure: a client that hangs up cancels the request, not the hash.
        let work = tokio::task::spawn_blocking(move || {
            let _held = (permit, place);
            work()
        });
        work.await.map_err(|_| Busy)
    }
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

/// Issues and verifies access tokens: JWTs, HS256 alone.
pub struct Tokens {
    signing: EncodingKey,
    kid: String,
    /// By `kid`: the current secret and those before it.
    verifying: Vec<(String, DecodingKey)>,
    validation: Validation,
    issuer: String,
    audience: String,
    ttl: Duration,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issuer", &self.issuer).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// Who calls, proved by a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// Whose word it is.
    pub proof: Proof,
}

/// Where a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A sign-in here.
    Session(SessionId),
    /// The identity provider, which made the token at this time.
    Provider(OffsetDateTime),
}

impl Caller {
    /// The sign-in the token came from; a provider's tokens have none here.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.proof {
            Proof::Session(session) => Some(session),
            Proof::Provider(_) => None,
        }
    }
}

/// Who can have made a token, by its header alone: proves nothing yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maker {
    /// This service.
    Us,
    /// The identity provider, with this key.
    Provider(KeyName),
}

impl Maker {
    /// Reads the header. The algorithms of the two have nothing in common, and each verifier knows only its own: no token
    /// chooses how it is verified.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] for a token of neither.
    pub fn of(token: &str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // RFC 7515 section 4.1.11: what is critical and not understood makes a token invalid; nothing is understood here.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(TokenError::Invalid);
        }
        match header.alg {
            ALGORITHM => Ok(Self::Us),
            _ => KeyName::of(&header).map(Self::Provider).ok_or(TokenError::Invalid),
        }
    }
}

/// Why a token proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this service: malformed, forged, or for somebody else.
    #[error("the access token is not valid")]
    Invalid,
    /// It was one.
    #[error("the access token has expired")]
    Expired,
}

/// Every claim but `nbf` is required, and of this type. Ours have no `nbf`; it is for tools that make tokens with our key.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    sid: String,
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    jti: String,
}

fn not_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}

/// RFC 9068: keeps other JWTs of the same key from passing as access tokens.
const TYP: &str = "at+jwt";
const ALGORITHM: jsonwebtoken::Algorithm = jsonwebtoken::Algorithm::HS256;
/// Seconds: none of ours was ever made to live longer.
const MAX_LIFE: i64 = config::Tokens::MAX_ACCESS_TTL.as_secs().cast_signed();
/// Bytes; a provider's token with many groups has a few thousand.
const MAX_TOKEN: usize = 16 * 1024;

impl Tokens {
    /// Keys from the settings.
    #[must_use]
    pub fn new(config: &config::Tokens) -> Self {
        let mut validation = Validation::new(ALGORITHM);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        // Compared here, with the caller's clock and no leeway.
        validation.validate_exp = false;
        let secrets = std::iter::once(&config.secret).chain(&config.previous);
        let verifying = |secret: &SecretString| (kid(secret), DecodingKey::from_secret(secret.expose_secret().as_bytes()));
        Self {
            signing: EncodingKey::from_secret(config.secret.expose_secret().as_bytes()),
            kid: kid(&config.secret),
            verifying: secrets.map(verifying).collect(),
            validation,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            ttl: config.access_ttl,
        }
    }

    /// How long a token lives.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A token for a sign-in. `None` when the library cannot sign, which its key's kind excludes.
    #[must_use]
    pub fn issue(&self, user: UserId, session: SessionId, now: OffsetDateTime) -> Option<SecretString> {
        let header = header(&self.kid);
        let claims = Claims {
            sub: user.to_string(),
            sid: session.to_string(),
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            iat: now.unix_timestamp(),
            exp: (now + self.ttl).unix_timestamp(),
            nbf: None,
            jti: Uuid::new_v4().to_string(),
        };
        jsonwebtoken::encode(&header, &claims, &self.signing).ok().map(SecretString::from)
    }

    /// Who holds this token.
    ///
    /// # Errors
    /// [`TokenError`]; nothing else of the token is told.
    pub fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Caller, TokenError> {
        let given = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // All of the header is ours, or none of the token is.
        let key = self.verifying.iter().find(|(kid, _)| header(kid) == given).ok_or(TokenError::Invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.1, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?
            .claims;
        let caller = UserId::parse(&claims.sub).zip(SessionId::parse(&claims.sid));
        let (user, session) = caller.ok_or(TokenError::Invalid)?;
        let now = now.unix_timestamp();
        // Made by another of our servers, whose clock may be ahead.
        let begins = claims.iat.max(claims.nbf.unwrap_or(claims.iat));
        let life = claims.exp.saturating_sub(claims.iat);
        if begins > now.saturating_add(foreign::LEEWAY) || !(0..=MAX_LIFE).contains(&life) {
            return Err(TokenError::Invalid);
        }
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        Ok(Caller { user, proof: Proof::Session(session) })
    }
}

/// The header of our tokens: this and nothing else.
fn header(kid: &str) -> Header {
    let mut header = Header::new(ALGORITHM);
    header.typ = Some(TYP.to_owned());
    header.kid = Some(kid.to_owned());
    header
}

/// Names a secret without telling anything of it: eight hex digits of its hash.
fn kid(secret: &SecretString) -> String {
    let hash = digest::digest(&digest::SHA256, secret.expose_secret().as_bytes());
    hash.as_ref()[..4].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
