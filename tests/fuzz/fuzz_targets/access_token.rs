//! Fuzzes the JWTs that the server issues: access tokens, and tokens in the path of Uppy's calls. The input begins with a letter:
//! - `r`: the rest is a token.
//! - `s`, `p`, `o`: a line with a header (empty: that of issued tokens) and one with claims, signed with the current secret, the
//!   previous one, or an unknown one.
//! - `m`: a position in two bytes, and a byte, which replaces the byte at that position of valid tokens.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;
use serde_json::Value;
use time::{OffsetDateTime, macros::datetime};
use valet::{
    config,
    domain::credentials::{Caller, SessionEnd, TokenError, TokenIssuer, TokenOrigin, Tokens},
    model::{SessionId, UserId},
};

/// Time of the verification.
const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);
/// Current secret.
const SECRET: &str = "the secret of the tokens under test";
/// Previous secret, whose tokens are valid too.
const PREVIOUS: &str = "the secret of the tokens before that";
/// Secret that the server does not know.
const OTHER: &str = "a secret of another, unrelated server";
/// Documented tolerance between the servers' clocks, in seconds; it does not make a token valid for longer.
const LEEWAY: i64 = 30;
/// Longest lifetime of a token, in seconds.
const MAX_LIFETIME: i64 = 7 * 24 * 60 * 60;

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    Tokens::new(&config::Tokens {
        secret: SECRET.into(),
        previous: vec![PREVIOUS.into()],
        issuer: "valet".to_owned(),
        audience: "valet".to_owned(),
        access_ttl: Duration::from_secs(7200),
        refresh_ttl: Duration::from_secs(7200),
    })
});

/// Headers of both kinds of tokens as they are issued, and a token of each.
static GOOD: LazyLock<[(String, String); 2]> = LazyLock::new(|| {
    let caller = Caller { user: UserId::from_bytes([1; 16]), origin: TokenOrigin::Session(SessionId::from_bytes([2; 16])) };
    let session = SessionEnd { id: SessionId::from_bytes([2; 16]), at: NOW + Duration::from_secs(7200) };
    let (access, _) = TOKENS.issue(caller.user, session, NOW).expect("signs");
    let path = TOKENS.issue_uppy_token(caller, NOW, NOW + Duration::from_secs(60)).expect("signs");
    [access, path].map(|token| {
        let token = token.expose_secret().to_owned();
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header")).expect("base64url");
        (String::from_utf8(header).expect("JSON"), token)
    })
});

/// Returns a token with this header and these claims, signed by HMAC with SHA-256.
fn sign(header: &str, claims: &str, secret: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Verifies a token as both kinds, and asserts that at most one accepts it; returns the caller.
fn verify(token: &str) -> Option<Caller> {
    let issuer = TokenIssuer::read(token);
    let access = TOKENS.verify(token, NOW);
    let path = TOKENS.verify_uppy_token(token, NOW);
    assert!(access.is_err() || path.is_err(), "a token is accepted as two kinds");
    if access.is_ok() || access == Err(TokenError::Expired) {
        assert_eq!(issuer, Ok(TokenIssuer::Local));
    }
    let to_caller = |(user, session): (UserId, Option<SessionId>)| Caller {
        user,
        origin: session.map_or(TokenOrigin::Provider { issued_at: NOW, expires_at: NOW }, TokenOrigin::Session),
    };
    access.ok().or(path.ok().map(to_caller))
}

/// Asserts with an independent implementation that a token of these parts may be accepted.
fn assert_acceptable(caller: Caller, header: &str, claims: &str) {
    let header: Value = serde_json::from_str(header).expect("JSON");
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    let is_path_token = header["typ"] == "uppy+jwt";
    assert!(is_path_token || header["typ"] == "at+jwt");
    assert_eq!(header["alg"], "HS256");
    assert!(header["kid"].as_str().is_some_and(|kid| kid.len() == 8) && header.get("crit").is_none());
    assert_eq!((claims["iss"].as_str(), claims["aud"].as_str()), (Some("valet"), Some("valet")));
    assert_eq!(claims["sub"], caller.user.to_string());
    match caller.session() {
        Some(session) => assert_eq!(claims["sid"], session.to_string()),
        None => assert!(is_path_token && claims.get("sid").is_none_or(Value::is_null)),
    }
    let (now, iat, exp) = (NOW.unix_timestamp(), claims["iat"].as_i64().expect("iat"), claims["exp"].as_i64().expect("exp"));
    assert!(now < exp && iat <= now + LEEWAY && iat <= exp && i128::from(exp) - i128::from(iat) <= i128::from(MAX_LIFETIME));
    assert!(is_path_token || claims.get("nbf").is_none_or(|nbf| nbf.as_i64().is_some_and(|nbf| nbf <= now + LEEWAY)));
    assert!(is_path_token || claims["jti"].is_string());
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let secret = match kind {
        b's' => SECRET,
        b'p' => PREVIOUS,
        b'o' => OTHER,
        b'm' => {
            let Some(&[high, low, new_byte]) = rest.first_chunk() else { return };
            for (_, good) in GOOD.iter() {
                assert!(verify(good).is_some());
                let mut changed = good.clone().into_bytes();
                let at = usize::from(u16::from_be_bytes([high, low])) % changed.len();
                changed[at] = new_byte;
                let changed = String::from_utf8_lossy(&changed);
                assert!(*changed == **good || verify(&changed).is_none(), "a changed token is rejected");
                assert_eq!(verify(&good[..at]), None, "a shortened token is rejected");
            }
            return;
        }
        _ => return assert_eq!(verify(&text), None, "a token that was not issued is rejected"),
    };
    let (header, claims) = text.split_once('\n').unwrap_or(("", &text));
    let issued = GOOD.iter().map(|(header, _)| header.as_str());
    let headers: Vec<&str> = if header.is_empty() { issued.collect() } else { vec![header] };
    for header in headers {
        if let Some(caller) = verify(&sign(header, claims, secret)) {
            assert_ne!(secret, OTHER, "a token of an unknown secret is rejected");
            assert_acceptable(caller, header, claims);
        }
    }
});
