//! Covers paths, methods, tokens, request ids, and the headers of every answer.

use reqwest::{Method, header::HeaderValue};
use serde_json::{Value, json};

use super::{CANARY, assert_no_canary, assert_refused};
use crate::{
    app::{Answer, TestApp},
    openapi::{document, operations},
};

#[tokio::test]
async fn a5_unknown_paths_are_problems() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for caller in [&ada, &app.anonymous()] {
        for path in [
            "/canary",
            "/api",
            "/api/canary",
            "/api/auth/canary",
            "/api/images/canary/canary",
            "/API/auth/me",
            "/api//auth/me",
            "/api/auth/me/",
            "/api/images/gallery%2f",
            "/api/images/..%2fcanary%2fauth",
            "/docs/canary.js",
            "/docs/..%2f..%2fcanary",
            "/%ff%fecanary",
            "/.env",
            "/api/images/%ff%fecanary",
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let answer = caller.send(method.clone(), path, |request| request).await;
                // A path of one segment under /api/images is an image's id.
                if answer.status == 401 || answer.status == 405 {
                    assert!(path.starts_with("/api/images/"), "{method} {path}: {answer:?}");
                    assert_no_canary(&answer, path);
                } else {
                    assert_refused(&answer, (404, "not_found"), &format!("{method} {path}"));
                }
            }
        }
    }
}

#[tokio::test]
async fn unsupported_methods_get_405_with_allow() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "CANARY"];
    let mut rejected_requests = 0;
    for (path, described) in document()["paths"].as_object().unwrap() {
        let known: Vec<_> = described.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
        let concrete = path.replace("{id}", &uuid::Uuid::now_v7().to_string());
        for name in methods {
            // HEAD is GET without the body.
            if known.iter().any(|known| known == name) || (name == "HEAD" && known.iter().any(|known| known == "GET")) {
                continue;
            }
            let method: Method = name.parse().unwrap();
            let (allow, status) = if name == "HEAD" {
                let answer = app.http.head(format!("{}{concrete}", app.base)).send().await.unwrap();
                (answer.headers()["allow"].to_str().unwrap().to_owned(), answer.status().as_u16())
            } else if name == "OPTIONS" {
                // Answered 204 with the `allow` of a 405.
                let answer = ada.send(method, &concrete, |request| request).await;
                assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{path}");
                (answer.header("allow").to_owned(), 405)
            } else {
                let answer = ada.send(method, &concrete, |request| request).await;
                assert_refused(&answer, (405, "method_not_allowed"), &format!("{name} {path}"));
                (answer.header("allow").to_owned(), answer.status)
            };
            let allows_head = allow.split(", ").any(|name| name == "HEAD");
            let has_get = known.iter().any(|name| name == "GET");
            assert!(allows_head == has_get && allow.ends_with("OPTIONS"), "{name} {path}: {allow}");
            let mut allowed: Vec<_> = allow.split(", ").filter(|method| !matches!(*method, "HEAD" | "OPTIONS")).collect();
            let mut known: Vec<_> = known.iter().map(String::as_str).collect();
            allowed.sort_unstable();
            known.sort_unstable();
            assert_eq!((status, allowed), (405, known), "{name} {path}");
            rejected_requests += 1;
        }
    }
    assert!(rejected_requests > 80, "{rejected_requests}");
}

#[tokio::test]
async fn head_equals_get_without_the_body() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let head = async |path: &str| {
        let answer = app.http.head(format!("{}{path}", app.base)).bearer_auth(ada.token.as_ref().unwrap()).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().len())
    };
    assert_eq!(head("/api/auth/me").await, (200, 0));
    assert_eq!(head("/livez").await, (200, 0));
    assert_eq!(head("/api/images/01980a3c-5b7e-7c11-9f3a-2d4e6b8c0a1f").await, (404, 0));
}

#[tokio::test]
async fn every_protected_operation_requires_a_token() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let token = ada.token.clone().unwrap();
    let mut protected = 0;
    for operation in operations().iter().filter(|operation| operation.is_protected()) {
        protected += 1;
        let path = operation.path_of(&uuid::Uuid::now_v7().to_string());
        let call = async |authorization: Option<String>, query: &str| {
            app.anonymous()
                .send(operation.method.clone(), &format!("{path}{query}"), |request| {
                    let request = match operation.body() {
                        Some(body) => request.json(body),
                        None => request,
                    };
                    match authorization {
                        Some(value) => request.header("authorization", HeaderValue::from_bytes(value.as_bytes()).unwrap()),
                        None => request,
                    }
                })
                .await
        };
        for query in ["", &format!("?access_token={token}"), &format!("?token={token}")] {
            let answer = call(None, query).await;
            assert_refused(&answer, (401, "token_missing"), &format!("{path}{query}"));
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        for empty in ["", "Bearer", "Bearer "] {
            let answer = call(Some(empty.to_owned()), "").await;
            assert_refused(&answer, (401, "token_missing"), &format!("{path} {empty:?}"));
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        for wrong in [
            CANARY,
            &token,
            &format!("Basic {token}"),
            "Basic Y2FuYXJ5OmNhbmFyeQ==",
            "Digest username=\"canary\"",
            "Negotiate canary",
            "AWS4-HMAC-SHA256 Credential=canary",
            &format!("Bearer{token}"),
            &format!("Bearer {CANARY}"),
            &format!("Bearer {token}, Bearer {token}"),
            &format!("Bearer \"{token}\""),
            &format!("Bearer {token} {CANARY}"),
            "Bearer \u{e9}canary",
            &format!("Bearer {}", CANARY.repeat(300)),
        ] {
            let answer = call(Some(wrong.to_owned()), "").await;
            assert_refused(&answer, (401, "token_invalid"), &format!("{path} {wrong:?}"));
            assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"");
            assert!(!answer.text.contains(&token), "{answer:?}");
        }
    }
    assert!(protected >= 10, "{protected}");
    // RFC 9110 section 11.1: a scheme is case-insensitive.
    let answer =
        app.anonymous().send(Method::GET, "/api/auth/me", |r| r.header("authorization", format!("bearer {token}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn valid_request_id_is_kept_and_an_invalid_one_is_replaced() {
    let app = TestApp::start().await;
    let get_with_id = async |path: &str, id: &[u8]| {
        let id = HeaderValue::from_bytes(id).unwrap();
        app.anonymous().send(Method::GET, path, |request| request.header("x-request-id", id)).await
    };
    // `Caller::send` compares the header with the problem's member `requestId`.
    for path in ["/livez", "/api/auth/me", "/api/unknown"] {
        for plain in ["a", "0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44", "trace_1.2-B", &"x".repeat(64)] {
            assert_eq!(get_with_id(path, plain.as_bytes()).await.header("x-request-id"), plain, "{path}");
        }
        let long = CANARY.repeat(6);
        for odd in [
            "",
            " ",
            "canary 1",
            "canary\"",
            "canary\tcanary",
            "{canary}",
            "canary;a=b",
            "canary/..",
            "<canary>",
            "$canary",
            "canary\u{e9}",
            "canary%0a",
            "canary:1",
            &long,
        ] {
            let answer = get_with_id(path, odd.as_bytes()).await;
            assert_no_canary(&answer, odd);
            assert!(uuid::Uuid::parse_str(answer.header("x-request-id")).is_ok(), "{odd:?}: {answer:?}");
        }
    }
    let (first, second) = (get_with_id("/livez", b"").await, get_with_id("/livez", b"").await);
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

/// Asserts that an answer has the security headers and reveals no software.
fn assert_security_headers(answer: &Answer, label: &str) {
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{label}: {answer:?}");
    assert_eq!(answer.header("referrer-policy"), "no-referrer", "{label}: {answer:?}");
    assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{label}: {answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store", "{label}: {answer:?}");
    assert!(!answer.headers.contains_key("server") && !answer.headers.contains_key("x-powered-by"), "{label}: {answer:?}");
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let upload = "/api/images/upload";
    let declaration = crate::app::declaration("a.png", "image/png", &[1]);
    for (label, answer, status) in [
        ("success", ada.get("/api/auth/me").await, 200),
        ("created", ada.post(upload, declaration.clone()).await, 201),
        ("health", app.anonymous().get("/readyz").await, 200),
        ("400", ada.post(upload, json!({ "canary": CANARY })).await, 400),
        ("401", app.anonymous().get("/api/auth/me").await, 401),
        ("404", ada.get("/canary").await, 404),
        ("an image's 404", ada.get("/api/images/canary").await, 404),
        ("405", ada.delete(upload).await, 405),
        (
            "409",
            app.anonymous().post("/api/auth/signup", json!({ "email": ada.email, "password": "three small blue boats" })).await,
            409,
        ),
        ("413", ada.post(upload, Value::String("x".repeat(20_000))).await, 413),
        ("415", ada.send(Method::POST, upload, |request| request.body("canary")).await, 415),
        ("422", ada.post(upload, json!({ "fileName": "a", "contentType": "canary", "size": 1, "sha256": CANARY })).await, 422),
    ] {
        assert_eq!(answer.status, status, "{label}: {answer:?}");
        assert_security_headers(&answer, label);
        assert_no_canary(&answer, label);
    }
    let deleted = ada.delete(&format!("/api/images/{}", ada.post(upload, declaration).await.id())).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    assert_security_headers(&deleted, "204");
    // The policy of the page permits only scripts of this server: none inline, and none of other origins.
    let docs = app.anonymous().get("/docs").await;
    let policy = docs.header("content-security-policy");
    let scripts = policy.split("; ").map(str::trim).find(|directive| directive.starts_with("script-src"));
    assert_eq!((docs.status, scripts), (200, Some("script-src 'self'")), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"), "{policy}");
    assert_eq!(docs.header("x-content-type-options"), "nosniff");
}
