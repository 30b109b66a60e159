//! Covers forged access tokens: each is answered 401 with a challenge, and none causes a 500.
//!
//! The tokens are signed with the server's own key where that makes them more dangerous. Each is a valid token except for one
//! deviation.
//!
//! Routes: all.

mod all_operations;
mod claims;
mod encodings;
mod headers;

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use super::{
    app::{Answer, Caller, JWT_SECRET, TestApp},
    openapi::operations,
};

/// Encodes bytes as JWTs do.
fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the name of the server's signing key: the first four bytes of its SHA-256.
fn kid() -> String {
    let hash = digest::digest(&digest::SHA256, JWT_SECRET.as_bytes());
    hash.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a signed token with this header and these claims, which need not be valid JSON.
fn signed(header: &str, claims: &str, algorithm: hmac::Algorithm, secret: &[u8]) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    format!("{message}.{}", base64(hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes())))
}

/// Returns a token with this header and these claims, signed with the server's key.
fn forge(header: &Value, claims: &Value) -> String {
    signed(&header.to_string(), &claims.to_string(), hmac::HMAC_SHA256, JWT_SECRET.as_bytes())
}

/// Returns the header of a token that the server issues.
fn header() -> Value {
    json!({ "typ": "at+jwt", "alg": "HS256", "kid": kid() })
}

/// Returns the claims of the caller's own token, whose session is active.
fn claims_of(caller: &Caller<'_>) -> Value {
    let token = caller.token.as_ref().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// Returns the object with one member replaced.
fn with(value: &Value, member: &str, to: Value) -> Value {
    let mut changed = value.clone();
    changed[member] = to;
    changed
}

/// Returns the object without one member.
fn without(value: &Value, member: &str) -> Value {
    let mut changed = value.clone();
    changed.as_object_mut().unwrap().remove(member);
    changed
}

/// Reads the account with these `authorization` headers.
async fn read_account(app: &TestApp, authorization: &[&str]) -> Answer {
    let send = |request: reqwest::RequestBuilder| {
        authorization
            .iter()
            .fold(request, |request, value| request.header("authorization", HeaderValue::from_bytes(value.as_bytes()).unwrap()))
    };
    app.anonymous().send(reqwest::Method::GET, "/api/auth/me", send).await
}

/// Asserts the answer to a forged token; `send` itself compares the problem with the OpenAPI document.
fn assert_rejected(answer: &Answer, case: &str) {
    assert_eq!(answer.problem(), (401, "token_invalid"), "{case}: {answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{case}");
    assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"", "{case}");
}

/// Covers every protected operation of the OpenAPI document.
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
    let mut operations_checked = 0;
    for operation in operations().into_iter().filter(|operation| operation.is_protected()) {
        operations_checked += 1;
        let path = operation.path_of(&uuid::Uuid::now_v7().to_string());
        for token in &forged {
            let answer = app
                .anonymous()
                .send(operation.method.clone(), &path, |request| match operation.body() {
                    Some(body) => request.bearer_auth(token).json(body),
                    None => request.bearer_auth(token),
                })
                .await;
            assert_rejected(&answer, &format!("{} {path}", operation.method));
        }
    }
    assert!(operations_checked > 15, "{operations_checked}");
}
