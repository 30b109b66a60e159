//! Issues and verifies access tokens of this service. `passwords` hashes passwords, `oidc_tokens` verifies an identity provider's
//! tokens, `uppy_token` has the token in the path of Uppy's calls. Only this file and these three name argon2 and jsonwebtoken.

pub mod oidc_tokens;
pub mod passwords;
mod uppy_token;

use std::{fmt, time::Duration};

use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

use self::oidc_tokens::KeyId;
use super::generational_cache::GenerationalCache;
use crate::{
    config,
    model::{SessionId, Sha256, UserId},
};

/// The operating system's source of random bytes failed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system's source of random bytes failed")]
pub struct NoRandomness;

/// Issues and verifies tokens of this service: JWTs signed with HS256.
pub struct Tokens {
    signing: EncodingKey,
    /// Identifier of the signing key in the header of tokens.
    kid: String,
    /// Keys by `kid`: those of the current secret and of the previous ones.
    verifying: Vec<(String, DecodingKey)>,
    validation: Validation,
    issuer: String,
    audience: String,
    /// Lifetime of an access token.
    ttl: Duration,
    /// Cache of verified tokens, by the token's hash.
    verified: Mutex<GenerationalCache<[u8; 32], VerifiedToken>>,
}

/// Claims of an access token whose signature, header, issuer and audience are verified. These stay valid; the times are compared on
/// every use.
#[derive(Debug, Clone, Copy)]
pub struct VerifiedToken {
    caller: Caller,
    times: TokenTimes,
}

impl VerifiedToken {
    /// Returns the caller if the token is valid at `now`.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn at(&self, now: OffsetDateTime) -> Result<Caller, TokenError> {
        check_times(self.times, now)?;
        Ok(self.caller)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issuer", &self.issuer).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// A session, and the time at which it ends unless it is refreshed.
#[derive(Debug, Clone, Copy)]
pub struct SessionEnd {
    /// The session.
    pub id: SessionId,
    /// Time at which the session ends.
    pub at: OffsetDateTime,
}

/// The caller, authenticated by a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// Issuer of the token, with its session or times.
    pub origin: TokenOrigin,
}

/// Origin of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenOrigin {
    /// A session of this service.
    Session(SessionId),
    /// The identity provider.
    Provider {
        /// When the provider issued the token.
        issued_at: OffsetDateTime,
        /// When this service begins to reject the token.
        expires_at: OffsetDateTime,
    },
}

impl Caller {
    /// Returns the session of the token; a provider's token has none.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.origin {
            TokenOrigin::Session(session) => Some(session),
            TokenOrigin::Provider { .. } => None,
        }
    }
}

/// Issuer of a token according to its unverified header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenIssuer {
    /// This service.
    Local,
    /// The identity provider, with this key.
    Provider(KeyId),
}

impl TokenIssuer {
    /// Reads the issuer from the token's header. The two issuers' algorithms differ, and each verifier accepts only its own, so a
    /// token cannot choose how it is verified.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] if the token can be of neither.
    pub fn read(token: &str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // RFC 7515 section 4.1.11: an unsupported critical header parameter makes a token invalid. No such parameter is
        // supported.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(TokenError::Invalid);
        }
        match header.alg {
            ALGORITHM => Ok(Self::Local),
            _ => KeyId::from_header(&header).map(Self::Provider).ok_or(TokenError::Invalid),
        }
    }
}

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is malformed, forged, or for another audience.
    #[error("the access token is not valid")]
    Invalid,
    /// The token has expired.
    #[error("the access token has expired")]
    Expired,
}

/// Claims of an access token. All except `nbf` are required, with these types. This service sets no `nbf`; other tools that issue
/// tokens with its key may.
#[derive(Serialize, Deserialize)]
struct AccessClaims {
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

/// Deserializes a member that may be absent but not null.
fn not_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}

/// Type in the header (RFC 9068): no other JWT signed with the same key is accepted as an access token.
const TYP: &str = "at+jwt";
/// The only algorithm with which this service signs.
const ALGORITHM: jsonwebtoken::Algorithm = jsonwebtoken::Algorithm::HS256;
/// Maximum lifetime in seconds, which no configuration exceeds.
const MAX_LIFETIME_SECONDS: i64 = config::Tokens::MAX_ACCESS_TTL.as_secs().cast_signed();
/// Verified tokens in the cache, at most: about 2 MB.
const VERIFIED_TOKENS: usize = 10_000;
/// Maximum length of a token in bytes; a provider's token with many groups has a few thousand.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

impl Tokens {
    /// Creates the keys from the settings.
    #[must_use]
    pub fn new(config: &config::Tokens) -> Self {
        let mut validation = Validation::new(ALGORITHM);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        // `check_times` compares it with the caller's clock and without leeway.
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
            verified: Mutex::new(GenerationalCache::new(VERIFIED_TOKENS)),
        }
    }

    /// Returns the lifetime of a token.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns a token for a session, and its lifetime, which does not exceed the session's. `None` if the library cannot sign,
    /// which the kind of key excludes.
    #[must_use]
    pub fn issue(&self, user: UserId, session: SessionEnd, now: OffsetDateTime) -> Option<(SecretString, Duration)> {
        let ttl = self.ttl.min((session.at - now).try_into().unwrap_or_default());
        Some((self.issue_for(user, session, ttl, now)?, ttl))
    }

    /// Returns a token for a session with a lifetime of its own. `None` if the library cannot sign.
    #[must_use]
    pub fn issue_for(&self, user: UserId, session: SessionEnd, ttl: Duration, now: OffsetDateTime) -> Option<SecretString> {
        let header = header(&self.kid);
        let claims = AccessClaims {
            sub: user.to_string(),
            sid: session.id.to_string(),
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            iat: now.unix_timestamp(),
            exp: (now + ttl).unix_timestamp(),
            nbf: None,
            jti: Uuid::new_v4().to_string(),
        };
        jsonwebtoken::encode(&header, &claims, &self.signing).ok().map(SecretString::from)
    }

    /// Returns the caller whom this token authenticates.
    ///
    /// # Errors
    /// [`TokenError`], without details of the token.
    pub fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Caller, TokenError> {
        let claims: AccessClaims = self.decode_own(token, header)?;
        let caller = UserId::parse(&claims.sub).zip(SessionId::parse(&claims.sid));
        let (user, session) = caller.ok_or(TokenError::Invalid)?;
        let times = TokenTimes { nbf: claims.nbf, iat: claims.iat, exp: claims.exp };
        let verified = VerifiedToken { caller: Caller { user, origin: TokenOrigin::Session(session) }, times };
        let caller = verified.at(now)?;
        self.verified.lock().insert(Sha256::of([token]).to_bytes(), verified);
        Ok(caller)
    }

    /// Returns the claims of exactly this token, if [`Tokens::verify`] accepted it lately. Most requests have a token that was
    /// verified before.
    #[must_use]
    pub fn recall(&self, token: &str) -> Option<VerifiedToken> {
        self.verified.lock().get(&Sha256::of([token]).to_bytes())
    }

    /// Verifies a token that this service signed with the given header, and returns its claims.
    fn decode_own<C: DeserializeOwned>(&self, token: &str, header: fn(&str) -> Header) -> Result<C, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let given = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // Accepts only tokens whose whole header equals one that this service issues.
        let key = self.verifying.iter().find(|(kid, _)| header(kid) == given).ok_or(TokenError::Invalid)?;
        let decoded = jsonwebtoken::decode::<C>(token, &key.1, &self.validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            _ => TokenError::Invalid,
        })?;
        Ok(decoded.claims)
    }
}

/// Times of a token, in seconds since the epoch.
#[derive(Debug, Clone, Copy)]
struct TokenTimes {
    nbf: Option<i64>,
    iat: i64,
    exp: i64,
}

/// Checks that a token with these times is valid at `now`.
fn check_times(TokenTimes { nbf, iat, exp }: TokenTimes, now: OffsetDateTime) -> Result<(), TokenError> {
    let now = now.unix_timestamp();
    // Another server with a clock ahead may have issued the token.
    let begins = iat.max(nbf.unwrap_or(iat));
    if begins > now.saturating_add(oidc_tokens::LEEWAY_SECONDS) || !(0..=MAX_LIFETIME_SECONDS).contains(&exp.saturating_sub(iat))
    {
        return Err(TokenError::Invalid);
    }
    if exp <= now { Err(TokenError::Expired) } else { Ok(()) }
}

/// Returns the whole header of an access token that is signed with the key `kid`.
fn header(kid: &str) -> Header {
    let mut header = Header::new(ALGORITHM);
    header.typ = Some(TYP.to_owned());
    header.kid = Some(kid.to_owned());
    header
}

/// Returns an identifier of a secret that does not reveal it: eight hex digits of its hash.
fn kid(secret: &SecretString) -> String {
    hex::encode(&Sha256::of([secret.expose_secret()]).to_bytes()[..4])
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
