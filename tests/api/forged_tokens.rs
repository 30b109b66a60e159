//! Covers forged access tokens: each is answered 401 with a challenge, and none causes a 500.
//!
//! They are signed with the service's own key wherever that makes them more dangerous, and except for their one deviation each is
//! a valid token.
//!
//! Routes: all.

mod all_operations;

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use super::{
    app::{Answer, Caller, JWT_SECRET, TestApp},
    openapi::operations,
};

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn kid() -> String {
    let hash = digest::digest(&digest::SHA256, JWT_SECRET.as_bytes());
    hash.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Signs header and claims, valid JSON or not.
fn signed(header: &str, claims: &str, algorithm: hmac::Algorithm, secret: &[u8]) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    format!("{message}.{}", base64(hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes())))
}

fn forge(header: &Value, claims: &Value) -> String {
    signed(&header.to_string(), &claims.to_string(), hmac::HMAC_SHA256, JWT_SECRET.as_bytes())
}

fn header() -> Value {
    json!({ "typ": "at+jwt", "alg": "HS256", "kid": kid() })
}

/// Returns the claims of the caller's own token, whose session is active.
fn claims_of(caller: &Caller<'_>) -> Value {
    let token = caller.token.as_ref().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn with(value: &Value, member: &str, to: Value) -> Value {
    let mut changed = value.clone();
    changed[member] = to;
    changed
}

fn without(value: &Value, member: &str) -> Value {
    let mut changed = value.clone();
    changed.as_object_mut().unwrap().remove(member);
    changed
}

async fn me(app: &TestApp, authorization: &[&str]) -> Answer {
    let send = |request: reqwest::RequestBuilder| {
        authorization
            .iter()
            .fold(request, |request, value| request.header("authorization", HeaderValue::from_bytes(value.as_bytes()).unwrap()))
    };
    app.anonymous().send(reqwest::Method::GET, "/api/auth/me", send).await
}

/// Asserts the answer to a forged token; `send` itself checks the problem's shape.
fn assert_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.problem(), (401, "token_invalid"), "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"", "{what}");
}

#[tokio::test]
async fn t1_tampered_token_headers_are_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let claims = claims_of(&ada);
    assert_eq!(
        me(&app, &[&format!("Bearer {}", forge(&header(), &claims))]).await.status,
        200,
        "an unaltered forged token is accepted"
    );
    let mut forged = Vec::new();
    for algorithm in [
        "none", "None", "NONE", "nOnE", "none ", "", "HS384", "HS512", "hs256", "HS256 ", "RS256", "RS384", "RS512", "PS256",
        "ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "dir", "A128KW", "RSA-OAEP", "../HS256", "\u{0}",
    ] {
        let header = with(&header(), "alg", json!(algorithm));
        forged.push(forge(&header, &claims));
        for hash in [hmac::HMAC_SHA384, hmac::HMAC_SHA512] {
            forged.push(signed(&header.to_string(), &claims.to_string(), hash, JWT_SECRET.as_bytes()));
        }
        // Without a signature, and with an empty one.
        let unsigned = forge(&header, &claims).rsplit_once('.').unwrap().0.to_owned();
        forged.extend([format!("{unsigned}."), unsigned.clone(), format!("{unsigned}.{}", base64([0; 32]))]);
    }
    let huge = "k".repeat(10_000);
    for name in [
        "",
        "../../../../dev/null",
        "/dev/null",
        "..\\..\\windows",
        "\u{0}",
        &format!("{}\u{0}", kid()),
        &huge,
        "' OR '1'='1",
        "x' UNION SELECT 'AA';--",
        "{\"$ne\":null}",
        "$(id)",
        "http://127.0.0.1:1/key",
        &kid().to_uppercase(),
        &format!(" {}", kid()),
        "00000000",
    ] {
        let header = with(&header(), "kid", json!(name));
        forged.push(forge(&header, &claims));
        for secret in [&b""[..], b"AA", name.as_bytes()] {
            forged.push(signed(&header.to_string(), &claims.to_string(), hmac::HMAC_SHA256, secret));
        }
    }
    for odd in [Value::Null, json!(1), json!(true), json!([]), json!([kid()]), json!({}), json!({ "$ne": null })] {
        for member in ["kid", "alg", "typ"] {
            forged.push(forge(&with(&header(), member, odd.clone()), &claims));
        }
    }
    for member in ["kid", "alg", "typ"] {
        forged.push(forge(&without(&header(), member), &claims));
    }
    for typ in ["JWT", "at+JWT", "application/at+jwt", "jwt", "refresh+jwt", "", "at+jwt "] {
        forged.push(forge(&with(&header(), "typ", json!(typ)), &claims));
    }
    let own = json!({ "kty": "oct", "k": base64([7; 32]), "kid": kid(), "alg": "HS256" });
    for (member, value) in [
        ("jku", json!("http://127.0.0.1:1/jwks")),
        ("x5u", json!("http://127.0.0.1:1/certificate")),
        ("x5c", json!([base64("certificate")])),
        ("x5t", json!("x")),
        ("jwk", own),
        ("jwk", json!("x")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!("exp")),
        ("b64", json!(false)),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("nonce", json!("x")),
    ] {
        let header = with(&header(), member, value);
        forged.push(forge(&header, &claims));
        forged.push(signed(&header.to_string(), &claims.to_string(), hmac::HMAC_SHA256, &[7; 32]));
    }
    let kid = kid();
    for text in [
        format!("{{\"alg\":\"none\",\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"{kid}\"}}"),
        format!("{{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"x\",\"kid\":\"{kid}\"}}"),
        format!("{{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"{kid}\"}} trailing"),
        "[]".to_owned(),
        "null".to_owned(),
        "{".to_owned(),
        "\u{feff}{}".to_owned(),
        String::new(),
    ] {
        forged.push(signed(&text, &claims.to_string(), hmac::HMAC_SHA256, JWT_SECRET.as_bytes()));
    }
    forged.push(signed(&header().to_string(), &claims.to_string(), hmac::HMAC_SHA256, b"another secret of thirty-two bytes"));
    for token in forged {
        assert_refused(&me(&app, &[&format!("Bearer {token}")]).await, &token);
    }
}

#[tokio::test]
async fn t3_missing_wrong_or_expired_claims_are_rejected() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let claims = claims_of(&ada);
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let mut forged = Vec::new();
    for claim in ["sub", "sid", "iss", "aud", "iat", "exp", "jti"] {
        forged.push(without(&claims, claim));
        for value in [
            Value::Null,
            json!({}),
            json!([]),
            json!(true),
            json!(""),
            json!("other"),
            json!(1.5),
            json!([claims[claim]]),
            json!({ "$gt": "" }),
        ] {
            if claim != "jti" || !value.is_string() {
                forged.push(with(&claims, claim, value));
            }
        }
    }
    for claim in ["iat", "exp", "nbf"] {
        for value in [
            json!(now.to_string()),
            json!(now as f64 + 0.5),
            json!(-1),
            json!(i64::MIN),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1e300),
            json!(-0.0),
            Value::Null,
        ] {
            // A time long past is valid for `nbf`.
            if claim != "nbf" || value.as_i64().is_none_or(|at| at >= 0) {
                forged.push(with(&claims, claim, value));
            }
        }
    }
    for (claim, value) in [
        ("iat", json!(now + 60)),
        ("nbf", json!(now + 60)),
        ("iat", json!(0)),
        ("exp", json!(now + 8 * 24 * 3600)),
        ("aud", json!(["valet", "other"])),
        ("aud", json!(["valet"])),
        ("aud", json!("VALET")),
        ("iss", json!("valet ")),
        ("iss", json!("https://valet")),
        ("sub", json!(ada.id.to_uppercase())),
        ("sub", json!(format!("{{{}}}", ada.id))),
        ("sub", json!("x".repeat(10_000))),
        ("sid", json!("00000000-0000-0000-0000-00000000000g")),
    ] {
        forged.push(with(&claims, claim, value));
    }
    for claims in &forged {
        assert_refused(&me(&app, &[&format!("Bearer {}", forge(&header(), claims))]).await, &claims.to_string());
    }
    let text = claims.to_string();
    let twice = |claim: &str, value: &str| format!("{{\"{claim}\":{value},{}", &text[1..]);
    for claims in [
        twice("sub", &json!(eve.id).to_string()),
        twice("exp", &(now + 60).to_string()),
        twice("aud", "\"valet\""),
        text.replace("\"exp\":", "\"exp\":1e400,\"x\":"),
        text.replace("\"exp\":", "\"exp\":00"),
        format!("{text} {{}}"),
        format!("[{text}]"),
        "null".to_owned(),
        String::new(),
    ] {
        let token = signed(&header().to_string(), &claims, hmac::HMAC_SHA256, JWT_SECRET.as_bytes());
        assert_refused(&me(&app, &[&format!("Bearer {token}")]).await, &claims);
    }
    for (exp, iat) in [(now - 31, now - 600), (now - 1, now - 2), (0, 0)] {
        let expired = with(&with(&claims, "exp", json!(exp)), "iat", json!(iat));
        let answer = me(&app, &[&format!("Bearer {}", forge(&header(), &expired))]).await;
        assert_eq!(answer.problem(), (401, "token_expired"), "{expired}");
    }
    // A session that never existed.
    let ended = with(&claims, "sid", json!(uuid::Uuid::now_v7().to_string()));
    assert_eq!(me(&app, &[&format!("Bearer {}", forge(&header(), &ended))]).await.problem(), (401, "session_ended"));
}

#[tokio::test]
async fn t2_other_encodings_places_and_kinds_of_token_are_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let token = ada.token.clone().unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let signature = parts[2];
    // 32 bytes are 43 base64 letters, whose last two bits are unused: a lenient decoder accepts four different last letters.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.iter().position(|letter| *letter == signature.as_bytes()[42]).unwrap();
    let twin = format!("{}{}", &signature[..42], char::from(alphabet[last + 1]));
    let joined = |parts: [&str; 3]| parts.join(".");
    let mut flipped = signature.to_owned().into_bytes();
    flipped[0] = if flipped[0] == b'A' { b'B' } else { b'A' };
    let mut forged = vec![
        joined([parts[0], parts[1], &twin]),
        joined([parts[0], parts[1], &format!("{signature}=")]),
        joined([&format!("{}=", parts[0]), parts[1], signature]),
        joined([parts[0], &format!("{}==", parts[1]), signature]),
        joined([parts[0], parts[1], &String::from_utf8(flipped).unwrap()]),
        joined([parts[0], parts[1], &signature[..42]]),
        joined([parts[0], parts[1], &format!("{signature}A")]),
        joined([parts[0], parts[1], ""]),
        joined([parts[0], "", signature]),
        joined(["", parts[1], signature]),
        joined([parts[1], parts[0], signature]),
        joined([parts[0], parts[1], &signature.replace(['-', '_'], "+")]) + "/",
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{}", parts[2]),
        format!("{token}.{}.{}", parts[1], parts[2]),
        token.replace('.', ".."),
        token.replace('.', ","),
        format!("{token},{token}"),
        format!("{token} {token}"),
        format!("\"{token}\""),
        token.replacen('e', "e ", 1),
        token.to_uppercase(),
        "x".repeat(20_000),
        format!("{}.{}.{}", "x".repeat(7000), "y".repeat(7000), "z".repeat(6000)),
        ".".repeat(20_000),
        "é".repeat(50),
        "null".to_owned(),
        "{}".to_owned(),
    ];
    let signed_in =
        app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": super::app::PASSWORD })).await;
    let refresh = signed_in.json["refreshToken"].as_str().unwrap().to_owned();
    forged.push(refresh.clone());
    for token in &forged {
        assert_refused(&me(&app, &[&format!("Bearer {token}")]).await, token);
    }
    for other in [format!("Basic {token}"), format!("DPoP {token}"), token.clone(), format!("Bearer{token}")] {
        assert_refused(&me(&app, &[&other]).await, &other);
    }
    // The reverse: an access token, and the forged ones, in place of a refresh token.
    for path in ["/api/auth/refresh", "/api/auth/logout"] {
        for wrong in forged.iter().filter(|text| **text != refresh && text.len() < 3000).chain([&token]) {
            let answer = app.anonymous().post(path, json!({ "refreshToken": wrong })).await;
            assert_refused(&answer, wrong);
        }
    }
    let good = format!("Bearer {token}");
    for two in [[&good[..], "Bearer x"], ["Bearer x", &good], [&good, &good], [&good, ""]] {
        assert_refused(&me(&app, &two).await, "two headers");
    }
    for query in ["access_token", "token", "authorization", "bearer"] {
        let answer = app.anonymous().get(&format!("/api/auth/me?{query}={token}")).await;
        assert_eq!(answer.problem(), (401, "token_missing"), "{query}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(me(&app, &[&good]).await.status, 200, "the session is still active");
}

/// Every protected operation of the OpenAPI document uses the same check.
#[tokio::test]
async fn every_protected_operation_rejects_forged_tokens() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let claims = claims_of(&ada);
    let forged = [
        forge(&with(&header(), "alg", json!("none")), &claims),
        forge(&with(&header(), "alg", json!("HS512")), &claims),
        forge(&header(), &with(&claims, "aud", json!("other"))),
        "x".to_owned(),
    ];
    let mut seen = 0;
    for operation in operations().into_iter().filter(|operation| operation.is_protected()) {
        seen += 1;
        let path = operation.path_of(&uuid::Uuid::now_v7().to_string());
        for token in &forged {
            let answer = app
                .anonymous()
                .send(operation.method.clone(), &path, |request| match operation.body() {
                    Some(body) => request.bearer_auth(token).json(body),
                    None => request.bearer_auth(token),
                })
                .await;
            assert_refused(&answer, &format!("{} {path}", operation.method));
        }
    }
    assert!(seen > 15, "{seen}");
}
