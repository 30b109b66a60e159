//! Fuzzes tokens and keys of an identity provider. The input begins with a letter:
//! - `k`: the rest is a key set, as `jwks_uri` answers.
//! - `s`: a line with a header (empty: a valid one) and one with claims, signed with the provider's key.
//! - `r`: the rest is a token.
#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::datetime};
use valet::{
    config::OidcProvider,
    domain::credentials::{
        TokenIssuer,
        oidc_tokens::{Identity, ProviderKeys},
    },
};

/// Time of the verification.
const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);
/// Tolerance between the clocks of the server and the provider, in seconds.
const LEEWAY: f64 = 30.0;
/// Accepted algorithms.
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

/// Settings of the provider.
static PROVIDER: LazyLock<OidcProvider> =
    LazyLock::new(|| OidcProvider::new("https://id.example/".to_owned(), vec!["web".to_owned(), "ios".to_owned()]));
/// Key pair of the provider.
static PAIR: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes"));
/// Key set of the provider, with the public key of [`PAIR`].
static KEYS: LazyLock<ProviderKeys> = LazyLock::new(|| {
    let x = URL_SAFE_NO_PAD.encode(PAIR.public_key());
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x }] });
    ProviderKeys::parse(set.to_string().as_bytes()).expect("a good key")
});

/// Returns a token with this header and these claims.
fn token(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// Verifies a provider's token; asserts that a verified token names a known key.
fn verify(token: &str, keys: &ProviderKeys) -> Option<Identity> {
    let Ok(TokenIssuer::Provider(name)) = TokenIssuer::read(token) else { return None };
    let identity = keys.verify(token, &name, &PROVIDER, NOW).ok();
    assert!(identity.is_none() || keys.has(&name));
    identity
}

/// Asserts with an independent implementation that a token of these parts may be accepted.
fn assert_acceptable(identity: &Identity, header: &str, claims: &str) {
    let header: Value = serde_json::from_str(header).expect("JSON");
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    assert!(header["alg"] == "EdDSA" && header["kid"] == "1");
    assert!(["crit", "enc", "zip"].iter().all(|name| header.get(name).is_none_or(Value::is_null)));
    let typ = header["typ"].as_str().map(str::to_ascii_lowercase).unwrap_or_default();
    assert!(["", "jwt", "at+jwt", "application/jwt", "application/at+jwt"].contains(&typ.as_str()), "{typ}");
    assert_eq!(claims["iss"], PROVIDER.issuer);
    assert_eq!(claims["sub"], identity.subject);
    assert!((1..=255).contains(&identity.subject.len()));
    let is_our_audience = |value: &Value| value.as_str().is_some_and(|text| PROVIDER.audiences.iter().any(|one| one == text));
    let is_of_cognito = claims["aud"].is_null() && claims["token_use"] == "access" && is_our_audience(&claims["client_id"]);
    assert!(
        is_our_audience(&claims["aud"])
            || claims["aud"].as_array().is_some_and(|all| all.iter().any(is_our_audience))
            || is_of_cognito
    );
    let now = NOW.unix_timestamp() as f64;
    let (iat, exp) = (claims["iat"].as_f64().expect("iat"), claims["exp"].as_f64().expect("exp"));
    // Fractions of a second are truncated.
    assert!(iat < now + LEEWAY + 1.0 && exp >= now - LEEWAY && iat < exp + 1.0);
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf < now + LEEWAY + 1.0));
    assert!(claims["events"].is_null() && claims["cnf"].is_null());
    if let Some(email) = &identity.email {
        assert!(claims["email_verified"] == true || claims["email_verified"] == "true");
        assert_eq!(claims["email"].as_str().map(str::trim), Some(email.as_str()));
    }
}

/// Asserts that no key of a key set accepts an invalid signature.
fn assert_keys_reject_forgeries(document: &[u8]) {
    let Ok(keys) = ProviderKeys::parse(document) else { return };
    assert!((1..=100).contains(&keys.count()));
    let set: Value = serde_json::from_slice(document).expect("an accepted key set is JSON");
    let all = set["keys"].as_array().expect("a list of keys");
    assert!(keys.count() <= all.len());
    let mut known = 0;
    for kid in all.iter().filter_map(|key| key["kid"].as_str()) {
        for algorithm in ALGORITHMS {
            let header = json!({ "alg": algorithm, "kid": kid }).to_string();
            let claims = json!({ "iss": PROVIDER.issuer, "aud": "web", "sub": "1", "iat": NOW.unix_timestamp(), "exp": NOW.unix_timestamp() + 60 });
            let length = if algorithm == "RS256" { 256 } else { 64 };
            let token = token(&header, &claims.to_string(), |_| vec![0x55; length]);
            let Ok(TokenIssuer::Provider(name)) = TokenIssuer::read(&token) else { panic!("a provider's algorithm") };
            known += usize::from(keys.has(&name));
            assert_eq!(verify(&token, &keys), None, "a token that the provider did not sign is rejected");
        }
    }
    assert!(known > 0, "a parsed key has a name");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind {
        b'k' => assert_keys_reject_forgeries(rest),
        b's' => {
            let (header, claims) = text.split_once('\n').unwrap_or(("", &text));
            let header = if header.is_empty() { r#"{"alg":"EdDSA","kid":"1"}"# } else { header };
            let token = token(header, claims, |message| PAIR.sign(message).as_ref().to_vec());
            if let Some(identity) = verify(&token, &KEYS) {
                assert_acceptable(&identity, header, claims);
            }
        }
        _ => assert_eq!(verify(&text, &KEYS), None, "a token that the provider did not sign is rejected"),
    }
});
