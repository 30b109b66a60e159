//! Verifies access tokens of an identity provider, and parses its keys (OpenID Connect). The key determines the algorithm, never
//! the token, and a token selects a key only by its `kid`.

use std::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{
        AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, Jwk, KeyOperations, OctetKeyPairParameters, PublicKeyUse,
        RSAKeyParameters,
    },
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Number, Value};
use time::OffsetDateTime;

use super::TokenError;
use crate::{config, model::Email};

/// Tolerated difference between the provider's clock and the server's, in seconds.
pub const LEEWAY_SECONDS: i64 = 30;
/// Time for which the deletion of a provider's user is remembered. Older tokens are rejected, so when this time ends, no token from
/// before the deletion is valid.
pub const DELETION_MEMORY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Maximum age of a token in seconds, whatever its `exp`. The deletion of a user is remembered for this time and [`LEEWAY_SECONDS`]: a
/// token that is accepted after that would create the user again.
const MAX_AGE_SECONDS: i64 = DELETION_MEMORY.as_secs().cast_signed() - LEEWAY_SECONDS;
/// Maximum number of a provider's keys that are used.
const MAX_KEYS: usize = 100;
/// Maximum length of a subject in bytes (OpenID Connect Core section 2).
const MAX_SUBJECT_BYTES: usize = 255;

/// Identifier of a key in a token's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId {
    kid: String,
    algorithm: Algorithm,
}

impl KeyId {
    /// Returns the identifier of the key that a token's header names. `None` without a `kid`, or for an algorithm that is not
    /// accepted from providers.
    pub(super) fn from_header(header: &jsonwebtoken::Header) -> Option<Self> {
        let is_supported = matches!(header.alg, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA);
        is_supported.then(|| header.kid.clone().map(|kid| Self { kid, algorithm: header.alg })).flatten()
    }
}

/// User of a provider's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's identifier of the user.
    pub subject: String,
    /// Email address, if the provider has verified it.
    pub email: Option<Email>,
    /// When the token was issued.
    pub issued_at: OffsetDateTime,
    /// When the token begins to be rejected: its expiry and [`LEEWAY_SECONDS`], or the end of the maximum age.
    pub expires_at: OffsetDateTime,
}

/// A provider's public keys.
pub struct ProviderKeys(Vec<(KeyId, DecodingKey)>);

impl fmt::Debug for ProviderKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The document contains no usable key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the provider's key set (jwks_uri) contains no RS256, ES256 or EdDSA key with a kid")]
pub struct NoUsableKeys;

/// JSON Web Key Set (RFC 7517 section 5). Keys that are not understood are skipped.
#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

/// Returns the verifying key of a JSON Web Key (RFC 7517, RFC 7518 section 6, RFC 8037 section 2). `None` for another purpose or
/// kind of key, or a malformed one.
fn verifying_key(key: Value) -> Option<(KeyId, DecodingKey)> {
    // The library's type does not know the newer name of EdDSA.
    let declared = key.get("alg").and_then(Value::as_str).map(str::to_owned);
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let verifies = jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !verifies || jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let decode = |member: &str| URL_SAFE_NO_PAD.decode(member).unwrap_or_default();
    let (algorithm, names, is_sound) = match &jwk.algorithm {
        AlgorithmParameters::RSA(RSAKeyParameters { n, e, .. }) => {
            // RFC 7518 section 3.3 requires at least 2048 bits (256 bytes); more than 8192 (1024 bytes) only cost time.
            let size = decode(n).iter().skip_while(|byte| **byte == 0).count();
            let is_sound = (256..=1024).contains(&size) && (1..=8).contains(&decode(e).len());
            (Algorithm::RS256, ["RS256", "RS256"], is_sound)
        }
        AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters { curve: EllipticCurve::P256, x, y, .. }) => {
            (Algorithm::ES256, ["ES256", "ES256"], [x, y].iter().all(|part| decode(part).len() == 32))
        }
        AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters { curve: EllipticCurve::Ed25519, x, .. }) => {
            (Algorithm::EdDSA, ["EdDSA", "Ed25519"], decode(x).len() == 32)
        }
        _ => return None,
    };
    let fits = declared.is_none_or(|declared| names.contains(&declared.as_str()));
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| is_sound && fits)?;
    Some((KeyId { kid: jwk.common.key_id?, algorithm }, key))
}

/// Claims of a provider's token that are read; others are ignored.
#[derive(Deserialize)]
struct ProviderClaims {
    iss: String,
    sub: String,
    exp: Number,
    iat: Number,
    nbf: Option<Number>,
    aud: Option<Audience>,
    client_id: Option<String>,
    token_use: Option<String>,
    email: Option<Value>,
    email_verified: Option<Value>,
    events: Option<IgnoredAny>,
    cnf: Option<IgnoredAny>,
}

/// The claim `aud`: one text or a list (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl ProviderKeys {
    /// Parses a key set, and keeps the usable keys.
    ///
    /// # Errors
    /// [`NoUsableKeys`] if it contains none.
    pub fn parse(document: &[u8]) -> Result<Self, NoUsableKeys> {
        let set: JwkSet = serde_json::from_slice(document).map_err(|_| NoUsableKeys)?;
        let keys: Vec<_> = set.keys.into_iter().filter_map(verifying_key).take(MAX_KEYS).collect();
        if keys.is_empty() { Err(NoUsableKeys) } else { Ok(Self(keys)) }
    }

    /// Returns the number of keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the set contains the key.
    #[must_use]
    pub fn has(&self, id: &KeyId) -> bool {
        self.0.iter().any(|(known, _)| known == id)
    }

    /// Returns the user of this token, if this provider issued it for this service and it has not expired.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(
        &self,
        token: &str,
        id: &KeyId,
        provider: &config::OidcProvider,
        now: OffsetDateTime,
    ) -> Result<Identity, TokenError> {
        let (_, key) = self.0.iter().find(|(known, _)| known == id).ok_or(TokenError::Invalid)?;
        let mut validation = Validation::new(id.algorithm);
        // `ProviderClaims::verify` checks the claims by the caller's clock.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<ProviderClaims>(token, key, &validation).map_err(|_| TokenError::Invalid)?;
        if !is_for_access(decoded.header.typ.as_deref()) {
            return Err(TokenError::Invalid);
        }
        decoded.claims.verify(provider, now.unix_timestamp())
    }
}

/// Returns whether a token of this type is an access token. Providers use `at+jwt` (RFC 9068), `JWT`, or no type. Another type is
/// another kind of token, such as a logout token.
fn is_for_access(typ: Option<&str>) -> bool {
    let Some(typ) = typ.map(str::to_ascii_lowercase) else { return true };
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

impl ProviderClaims {
    /// Verifies the claims of a token whose signature is valid.
    fn verify(self, provider: &config::OidcProvider, now: i64) -> Result<Identity, TokenError> {
        let (exp, iat) = (seconds(&self.exp), seconds(&self.iat));
        let (exp, iat) = exp.zip(iat).ok_or(TokenError::Invalid)?;
        let nbf = self.nbf.as_ref().map(|nbf| seconds(nbf).ok_or(TokenError::Invalid)).transpose()?;
        let is_ours = match (&self.aud, self.token_use.as_deref()) {
            (Some(Audience::One(aud)), _) => provider.audiences.contains(aud),
            (Some(Audience::Many(all)), _) => all.iter().any(|aud| provider.audiences.contains(aud)),
            // Access tokens of Amazon Cognito have no `aud`, but name the client that they were issued for.
            (None, Some("access")) => self.client_id.as_ref().is_some_and(|client| provider.audiences.contains(client)),
            (None, _) => false,
        };
        let is_named = !self.sub.is_empty() && self.sub.len() <= MAX_SUBJECT_BYTES;
        let is_early = iat > now + LEEWAY_SECONDS || nbf.is_some_and(|nbf| nbf > now + LEEWAY_SECONDS);
        // `events` marks a logout token or another security event (RFC 8417). `cnf` requires a proof of possession of a key (RFC
        // 7800), which this service does not request.
        let is_plain = self.events.is_none() && self.cnf.is_none();
        if self.iss != provider.issuer || !is_ours || !is_named || is_early || !is_plain || iat > exp {
            return Err(TokenError::Invalid);
        }
        let end = exp.saturating_add(LEEWAY_SECONDS).min(iat.saturating_add(MAX_AGE_SECONDS));
        if end <= now {
            return Err(TokenError::Expired);
        }
        let moment = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| TokenError::Invalid);
        let is_verified = self.email_verified.is_some_and(|value| value == true || value == "true");
        let email = self.email.as_ref().and_then(Value::as_str).filter(|_| is_verified);
        Ok(Identity {
            subject: self.sub,
            email: email.and_then(|text| Email::parse(text).ok()),
            issued_at: moment(iat)?,
            expires_at: moment(end)?,
        })
    }
}

/// The last second of the year 9999, in seconds since 1970.
const LAST_SECOND: i64 = 253_402_300_799;

/// Returns the whole seconds of a `NumericDate` (RFC 7519 section 2). `None` before 1970 and after the year 9999.
fn seconds(number: &Number) -> Option<i64> {
    // Above 2^53, which is about 9e15, a float does not represent every second. The year 9999 ends far below.
    #[allow(clippy::cast_possible_truncation)]
    let whole = number.as_i64().or_else(|| number.as_f64().filter(|value| value.abs() < 9e15).map(|value| value as i64))?;
    (0..=LAST_SECOND).contains(&whole).then_some(whole)
}
