//! Access tokens here, passwords in `passwords`, a provider's tokens in `oidc_tokens`: the only place that names argon2 and
//! jsonwebtoken.

pub mod oidc_tokens;
pub mod passwords;
mod uppy_token;

use std::{fmt, time::Duration};

use aws_lc_rs::digest;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

use self::oidc_tokens::KeyId;
use crate::{
    config,
    model::{SessionId, UserId},
};

/// The system gives no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system's source of random bytes failed")]
pub struct NoRandomness;

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

/// A session, and when it ends unless it is refreshed.
#[derive(Debug, Clone, Copy)]
pub struct SessionEnd {
    /// The session.
    pub id: SessionId,
    /// Its end.
    pub at: OffsetDateTime,
}

/// The caller, authenticated by a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// Issuer of the token.
    pub origin: TokenOrigin,
}

/// Where a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenOrigin {
    /// A sign-in here.
    Session(SessionId),
    /// The identity provider.
    Provider {
        /// When it made the token.
        issued_at: OffsetDateTime,
        /// From when on the token is refused here.
        expires_at: OffsetDateTime,
    },
}

impl Caller {
    /// The sign-in the token came from; a provider's tokens have none here.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.origin {
            TokenOrigin::Session(session) => Some(session),
            TokenOrigin::Provider { .. } => None,
        }
    }
}

/// Possible issuer of a token, by its unverified header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenIssuer {
    /// This service.
    Local,
    /// The identity provider, with this key.
    Provider(KeyId),
}

impl TokenIssuer {
    /// Reads the header. The algorithms of the two have nothing in common, and each verifier knows only its own: no token
    /// chooses how it is verified.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] for a token of neither.
    pub fn read(token: &str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // RFC 7515 section 4.1.11: what is critical and not understood makes a token invalid; nothing is understood here.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(TokenError::Invalid);
        }
        match header.alg {
            ALGORITHM => Ok(Self::Local),
            _ => KeyId::from_header(&header).map(Self::Provider).ok_or(TokenError::Invalid),
        }
    }
}

/// Why a token proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this service: malformed, forged, or for another audience.
    #[error("the access token is not valid")]
    Invalid,
    /// It was one.
    #[error("the access token has expired")]
    Expired,
}

/// Every claim but `nbf` is required, and of this type. Ours have no `nbf`; it is for tools that make tokens with our key.
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

    /// A token for a sign-in, and how long it lives: no longer than its session does. `None` when the library cannot sign, which
    /// its key's kind excludes.
    #[must_use]
    pub fn issue(&self, user: UserId, session: SessionEnd, now: OffsetDateTime) -> Option<(SecretString, Duration)> {
        let ttl = self.ttl.min((session.at - now).try_into().unwrap_or_default());
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
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).ok()?;
        Some((SecretString::from(token), ttl))
    }

    /// Returns the user of this token.
    ///
    /// # Errors
    /// [`TokenError`], without details of the token.
    pub fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Caller, TokenError> {
        let claims: AccessClaims = self.decode_own(token, header)?;
        let caller = UserId::parse(&claims.sub).zip(SessionId::parse(&claims.sid));
        let (user, session) = caller.ok_or(TokenError::Invalid)?;
        check_life((claims.nbf, claims.iat, claims.exp), now)?;
        Ok(Caller { user, origin: TokenOrigin::Session(session) })
    }

    /// The claims of a token that one of our keys signed, under this header.
    fn decode_own<C: DeserializeOwned>(&self, token: &str, header: fn(&str) -> Header) -> Result<C, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Invalid);
        }
        let given = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // All of the header is ours, or none of the token is.
        let key = self.verifying.iter().find(|(kid, _)| header(kid) == given).ok_or(TokenError::Invalid)?;
        let opened = jsonwebtoken::decode::<C>(token, &key.1, &self.validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            _ => TokenError::Invalid,
        })?;
        Ok(opened.claims)
    }
}

/// Whether a token of ours that says `nbf`, `iat` and `exp` lives at `now`.
fn check_life((nbf, iat, exp): (Option<i64>, i64, i64), now: OffsetDateTime) -> Result<(), TokenError> {
    let now = now.unix_timestamp();
    // Made by another of our servers, whose clock may be ahead.
    let begins = iat.max(nbf.unwrap_or(iat));
    if begins > now.saturating_add(oidc_tokens::LEEWAY) || !(0..=MAX_LIFE).contains(&exp.saturating_sub(iat)) {
        return Err(TokenError::Invalid);
    }
    if exp <= now { Err(TokenError::Expired) } else { Ok(()) }
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
