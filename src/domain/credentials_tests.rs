//! Tests of access tokens: those that this service issued are accepted until they end, all others are rejected.
#![allow(clippy::unwrap_used)]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;
use crate::model::text_strategies::{any_text, mutated};

const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Returns settings with this secret and these previous ones.
fn config(secret: &str, previous: &[&str]) -> config::Tokens {
    config::Tokens {
        secret: secret.into(),
        previous: previous.iter().map(|text| SecretString::from(*text)).collect(),
        issuer: "valet".into(),
        audience: "valet".into(),
        access_ttl: Duration::from_secs(7200),
        refresh_ttl: Duration::from_secs(1),
    }
}

/// Returns a caller with a new session.
fn caller() -> Caller {
    Caller { user: UserId::new(), origin: TokenOrigin::Session(SessionId::new()) }
}

/// Returns valid claims for a caller.
fn claims(caller: Caller) -> Value {
    let iat = NOW.unix_timestamp();
    json!({ "sub": caller.user.to_string(), "sid": caller.session().unwrap().to_string(), "iss": "valet", "aud": "valet", "iat": iat, "exp": iat + 60, "jti": "x" })
}

/// Returns a token with this header and these claims, signed with this secret by HMAC-SHA256.
fn forge(header: &Value, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, message.as_bytes())))
}

/// Returns a valid header.
fn header() -> Value {
    json!({ "alg": "HS256", "typ": TYP, "kid": kid(&SECRET.into()) })
}

/// Issues a token whose session ends at this time.
fn issue(tokens: &Tokens, caller: Caller, ends_at: OffsetDateTime) -> SecretString {
    tokens.issue(caller.user, SessionEnd { id: caller.session().unwrap(), at: ends_at }, NOW).unwrap().0
}

/// The lifetime of a token is at most the rest of its session.
#[test]
fn no_token_outlives_its_session() {
    let tokens = Tokens::new(&config(SECRET, &[]));
    let caller = caller();
    // Seconds until the session ends, and the lifetime of the token in seconds.
    for (left, lives) in [(86_400, 7200), (7200, 7200), (7199, 7199), (1, 1), (0, 0), (-5, 0)] {
        let session = SessionEnd { id: caller.session().unwrap(), at: NOW + time::Duration::seconds(left) };
        let (token, ttl) = tokens.issue(caller.user, session, NOW).unwrap();
        assert_eq!(ttl, Duration::from_secs(lives), "{left}");
        let end = NOW + ttl;
        assert_eq!(tokens.verify(token.expose_secret(), end), Err(TokenError::Expired), "{left}");
        if lives > 0 {
            assert_eq!(tokens.verify(token.expose_secret(), end - Duration::from_secs(1)), Ok(caller), "{left}");
        }
    }
}

#[test]
fn issued_tokens_verify_until_they_expire() {
    let tokens = Tokens::new(&config(SECRET, &[]));
    let caller = caller();
    let token = issue(&tokens, caller, NOW + Duration::from_secs(86_400));
    let token = token.expose_secret();
    assert_eq!(tokens.verify(token, NOW), Ok(caller));
    assert_eq!(tokens.verify(token, NOW + Duration::from_secs(7199)), Ok(caller));
    assert_eq!(tokens.verify(token, NOW + Duration::from_secs(7200)), Err(TokenError::Expired));
    assert_eq!(
        tokens.verify(&forge(&header(), &claims(caller), SECRET), NOW),
        Ok(caller),
        "the other tests forge tokens with valid signatures"
    );
}

#[test]
fn a_recalled_token_expires_and_no_other_is_recalled() {
    let tokens = Tokens::new(&config(SECRET, &[]));
    let caller = caller();
    let token = issue(&tokens, caller, NOW + Duration::from_secs(86_400));
    let token = token.expose_secret();
    assert!(tokens.recall(token).is_none(), "a token that was never verified");
    assert_eq!(tokens.verify(token, NOW + Duration::from_secs(7200)), Err(TokenError::Expired));
    assert!(tokens.recall(token).is_none(), "a token that was refused");
    assert_eq!(tokens.verify(token, NOW), Ok(caller));
    let recalled = tokens.recall(token).unwrap();
    for seconds in [-3600, -61, -60, -31, -30, 0, 7199, 7200, 10_000] {
        let now = NOW + time::Duration::seconds(seconds);
        assert_eq!(recalled.at(now), tokens.verify(token, now), "{seconds} s after the token was issued");
    }
    for at in 0..token.len() {
        let mut other = token.as_bytes().to_vec();
        other[at] ^= 1;
        assert!(tokens.recall(&String::from_utf8(other).unwrap()).is_none(), "{at}");
    }
    assert!(Tokens::new(&config(SECRET, &[])).recall(token).is_none(), "another server verifies it itself");
}

#[test]
fn t1_t3_no_other_token_passes() {
    let tokens = Tokens::new(&config(SECRET, &[]));
    let good = claims(caller());
    let refused = |header: &Value, claims: &Value, secret: &str| {
        let token = forge(header, claims, secret);
        assert_eq!(tokens.verify(&token, NOW), Err(TokenError::Invalid), "{header} {claims}");
    };
    refused(&header(), &good, "another secret of thirty-two bytes");
    for alg in ["none", "None", "NONE", "HS384", "HS512", "RS256", "ES256", "EdDSA", ""] {
        let mut header = header();
        header["alg"] = json!(alg);
        refused(&header, &good, SECRET);
    }
    for typ in [json!("JWT"), json!("at+jwt2"), json!(""), Value::Null, json!(1)] {
        let mut header = header();
        header["typ"] = typ;
        refused(&header, &good, SECRET);
    }
    for kid in [json!("../../dev/null"), json!(""), Value::Null] {
        let mut header = header();
        header["kid"] = kid;
        refused(&header, &good, SECRET);
    }
    for claim in ["sub", "sid", "iss", "aud", "iat", "exp", "jti"] {
        let mut incomplete = good.clone();
        incomplete.as_object_mut().unwrap().remove(claim);
        refused(&header(), &incomplete, SECRET);
        for value in [Value::Null, json!({}), json!([]), json!(true), json!("other"), json!(1.5)] {
            let mut wrong = good.clone();
            if claim == "jti" && value == json!("other") {
                continue;
            }
            wrong[claim] = value;
            refused(&header(), &wrong, SECRET);
        }
    }
    let in_time = |claim: &str, at: i64| {
        let mut claims = claims(caller());
        claims["exp"] = json!(NOW.unix_timestamp() + 600);
        claims[claim] = json!(NOW.unix_timestamp() + at);
        tokens.verify(&forge(&header(), &claims, SECRET), NOW).is_ok()
    };
    for claim in ["iat", "nbf"] {
        assert!(in_time(claim, 30), "{claim}: the clock of the server that issued the token may be 30 s ahead");
        assert!(!in_time(claim, 31) && !in_time(claim, i64::from(u32::MAX)), "{claim} in the future");
    }
    let mut with_null = claims(caller());
    with_null["nbf"] = Value::Null;
    refused(&header(), &with_null, SECRET);
    for extra in ["crit", "jku", "jwk", "x5u", "x5c", "cty", "b64"] {
        let mut header = header();
        header[extra] = if extra == "crit" || extra == "x5c" { json!(["exp"]) } else { json!("x") };
        refused(&header, &good, SECRET);
    }
    for garbage in ["", ".", "..", "a.b.c", "eyJ.eyJ.", &"x".repeat(4000)] {
        assert_eq!(tokens.verify(garbage, NOW), Err(TokenError::Invalid));
    }
}

/// Checks that `verify` rejects a text, and that reading its issuer does not panic.
fn assert_refused(tokens: &Tokens, text: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(tokens.verify(text, NOW), Err(TokenError::Invalid), "{}", text);
    let _ = TokenIssuer::read(text);
    Ok(())
}

proptest! {
    #[test]
    fn t1_no_text_is_a_token(text in any_text(), parts in proptest::collection::vec(any::<Vec<u8>>(), 1..5)) {
        let tokens = Tokens::new(&config(SECRET, &[]));
        assert_refused(&tokens, &text)?;
        let parts: Vec<_> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        assert_refused(&tokens, &parts.join("."))?;
    }

    /// Every character counts, those of the signature to their last bit.
    #[test]
    fn t1_a_changed_token_is_refused(
        (_, text) in any::<([u8; 16], [u8; 16])>().prop_flat_map(|(user, session)| {
            let tokens = Tokens::new(&config(SECRET, &[]));
            let session = SessionEnd { id: SessionId::from_bytes(session), at: NOW + Duration::from_secs(86_400) };
            let (token, _) = tokens.issue(UserId::from_bytes(user), session, NOW).unwrap();
            assert!(tokens.verify(token.expose_secret(), NOW).is_ok());
            (Just(()), mutated(token.expose_secret().to_owned()))
        })
    ) {
        assert_refused(&Tokens::new(&config(SECRET, &[])), &text)?;
    }

    /// With claims of any content under a valid signature, nothing panics, and an accepted token belongs to the user in its claims.
    #[test]
    fn t1_signed_claims_of_any_content_are_read_without_panic(
        sub in any_text(), times in any::<(i64, i64, Option<i64>)>(), near in any::<(i8, i8)>(), is_near in any::<bool>()
    ) {
        let tokens = Tokens::new(&config(SECRET, &[]));
        let mut claims = claims(caller());
        let (iat, exp) = if is_near {
            (NOW.unix_timestamp() + i64::from(near.0), NOW.unix_timestamp() + i64::from(near.1))
        } else {
            (times.0, times.1)
        };
        claims["iat"] = json!(iat);
        claims["exp"] = json!(exp);
        if let Some(nbf) = times.2 {
            claims["nbf"] = json!(nbf);
        }
        if let Ok(read) = tokens.verify(&forge(&header(), &claims, SECRET), NOW) {
            prop_assert_eq!(&claims["sub"], &json!(read.user.to_string()));
            prop_assert!(iat <= NOW.unix_timestamp() + 30 && exp > NOW.unix_timestamp());
        }
        claims["sub"] = json!(sub);
        if let Ok(read) = tokens.verify(&forge(&header(), &claims, SECRET), NOW) {
            prop_assert_eq!(read.user.to_string(), sub);
        }
    }
}

#[test]
fn t10_a_rotated_secret_verifies_until_it_is_dropped() {
    let caller = caller();
    let old = Tokens::new(&config(SECRET, &[]));
    let token = issue(&old, caller, NOW + Duration::from_secs(86_400));
    let rotated = Tokens::new(&config("fedcba9876543210fedcba9876543210", &[SECRET]));
    assert_eq!(rotated.verify(token.expose_secret(), NOW), Ok(caller));
    let dropped = Tokens::new(&config("fedcba9876543210fedcba9876543210", &[]));
    assert_eq!(dropped.verify(token.expose_secret(), NOW), Err(TokenError::Invalid));
}
