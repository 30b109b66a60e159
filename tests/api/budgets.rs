//! Covers the table of rate limits: it lists every operation of the OpenAPI document, and each operation is rejected by each of its
//! limits.
//!
//! Routes: all.

use std::{collections::BTreeSet, time::Instant};

use reqwest::Method;
use serde_json::{Value, json};
use valet::{
    config::{Rate, RateLimits},
    http::operations::all,
};

use super::{
    app::{Answer, Caller, PASSWORD, TestApp},
    example_requests::{Operation, operations},
};

/// Limit of one request a day.
const ONCE: Rate = Rate::new(1, 24 * 60 * 60);
/// Limit that no test reaches.
const OFTEN: Rate = Rate::new(1_000_000, 1);

/// Returns limits that no test reaches, except one, which permits one request.
fn limits_with_only(name: &str) -> RateLimits {
    let rate = |limit: &str| if limit == name { ONCE } else { OFTEN };
    RateLimits {
        on: true,
        signup: rate("signup"),
        login: rate("login"),
        login_failures: rate("login-failures"),
        account_failures: rate("account-failures"),
        password: rate("password"),
        refresh: rate("refresh"),
        calls: rate("calls"),
        upload: rate("upload"),
        urls: rate("urls"),
        s3: rate("s3"),
        service_key: rate("service-key"),
    }
}

#[test]
fn l3_table_lists_every_operation_of_the_document_once() {
    let documented: Vec<_> = operations().into_iter().map(|operation| operation.id).collect();
    let mut listed: Vec<_> = all().map(|metadata| metadata.id.to_owned()).collect();
    listed.sort();
    let mut sorted = documented;
    sorted.sort();
    assert_eq!(listed, sorted);
    // The calls of orchestrators and load balancers must never be rejected.
    let unlimited: Vec<_> = all().filter(|metadata| metadata.rate_limits.is_empty()).map(|metadata| metadata.id).collect();
    assert_eq!(unlimited, ["get_liveness", "get_readiness"]);
}

/// Returns a body with which the operation counts against the limit.
fn body(operation: &Operation, limit: &str, email: &str) -> Option<Value> {
    let password = if limit.ends_with("failures") { "another password of hers" } else { PASSWORD };
    Some(match (operation.id.as_str(), limit) {
        ("log_in", _) => json!({ "email": email, "password": password }),
        // Counted before the body is read. Each hash of a password takes a good part of the pause after which one more call is allowed.
        ("change_password" | "delete_account", "calls") => json!({}),
        // The weak new password changes nothing; the current password is verified and counted all the same.
        ("change_password", _) => json!({ "currentPassword": password, "newPassword": "passwordpassword" }),
        ("delete_account", _) => json!({ "password": "another password of hers" }),
        ("sign_uppy_request", "upload") => json!({ "method": "PUT", "key": "a.png", "contentType": "image/png", "size": 9 }),
        ("sign_uppy_request", "urls") => json!({ "method": "GET", "key": "in/u/1", "uploadId": "x" }),
        _ => return operation.body.clone(),
    })
}

/// Opens an upload for Uppy's calls that make requests to S3 for an open upload, and puts it into their path or body.
async fn prepare(caller: &Caller<'_>, operation: &mut Operation, body: &mut Option<Value>) {
    match operation.id.as_str() {
        // The first form reserves the whole quota, so the next one asks S3 whether the first one's file was uploaded.
        "uppy_form" => {
            let path = operation.path.split('?').next().unwrap();
            operation.path = format!("{path}?filename=a.png&type=image/png");
            assert_eq!(caller.get(&operation.path).await.status, 200);
        }
        "uppy_sign_part" | "uppy_sign_parts" => {
            let (path, rest) = operation.path.split_once("/s3/multipart/").unwrap();
            let file = json!({ "filename": "a.png", "type": "image/png", "metadata": { "size": 9 } });
            let opened = caller.post(&format!("{path}/s3/multipart"), file).await;
            let rest = rest.split_once('/').unwrap().1.split('?').next().unwrap();
            let key = opened.json["key"].as_str().unwrap().replace('/', "%2F");
            let upload_id = opened.json["uploadId"].as_str().unwrap();
            let numbers = if rest == "batch" { "&partNumbers=1" } else { "" };
            operation.path = format!("{path}/s3/multipart/{upload_id}/{rest}?key={key}{numbers}");
        }
        "sign_uppy_request" => {
            let file = json!({ "method": "POST", "key": "a.png", "contentType": "image/png", "size": 9 });
            let opened = caller.post("/api/uppy/presign", file).await;
            *body = Some(json!({ "method": "PUT", "key": opened.json["key"], "uploadId": "ab1", "partNumber": 1 }));
        }
        _ => {}
    }
}

/// Operations with which users end sessions: beyond the user's limit, each session has ten more of these calls per minute.
const ENDS_SESSIONS: [&str; 4] = ["list_sessions", "end_session", "change_password", "delete_account"];

/// Sends requests as a new user from a separate network, up to the limit and one more; returns the last answer.
async fn exceed_limit(app: &TestApp, operation: &Operation, limit: &str, host: usize) -> Answer {
    let mut caller = app.anonymous();
    // The limit is one request; see `ENDS_SESSIONS`.
    let requests = if limit == "calls" && ENDS_SESSIONS.contains(&operation.id.as_str()) { 12 } else { 2 };
    let mut operation = operation.clone();
    let is_by_path = operation.path.contains("{token}");
    if operation.is_signed || is_by_path || operation.id == "log_in" {
        caller = app.user().await;
    }
    if operation.is_admin() {
        caller = app.create_service_key(&valet::model::Scope::ALL).await;
    }
    caller = caller.with_address(&format!("10.9.{host}.1"));
    if is_by_path {
        // This call does not count against the limit under test.
        let session = caller.post_empty("/api/uppy/session").await;
        operation.path = operation.path.replace("{token}", session.json["token"].as_str().unwrap());
    }
    let mut body = body(&operation, limit, &caller.email);
    if limit == "s3" {
        prepare(&caller, &mut operation, &mut body).await;
    }
    let began = Instant::now();
    for at in 0.. {
        // Account limits count attempts from all addresses.
        if limit == "account-failures" {
            caller = caller.with_address(&format!("10.{at}.{host}.1"));
        }
        let answer = caller.send(operation.method.clone(), &operation.path, |request| match &body {
            Some(body) => request.json(body),
            None => request,
        });
        let (answer, sent) = (answer.await, at + 1);
        if requests > 2 && sent < requests {
            assert_ne!(answer.status, 429, "{} after {at}", operation.id);
        }
        // Every six seconds one more call that ends sessions is allowed. A busy machine may take longer for all of them.
        let regained = if requests > 2 { began.elapsed().as_secs() / 6 } else { 0 };
        if sent >= requests && (answer.status == 429 || sent >= requests + regained) {
            return answer;
        }
    }
    unreachable!()
}

/// A network that signs up a user for each request gets four times the limit of one user, for each limit that is counted by user.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_users_apply_to_their_network_too() {
    let ids = json!({ "ids": ["01a22135-2cd3-7000-8000-000000000001"] });
    let file = super::app::declaration("a.png", "image/png", &super::app::unique_png());
    for (name, method, path, body) in [
        ("calls", Method::GET, "/api/auth/me", None),
        ("upload", Method::POST, "/api/images/upload", Some(file)),
        ("urls", Method::POST, "/api/images/renew", Some(ids.clone())),
        ("s3", Method::POST, "/api/images/confirm", Some(ids)),
    ] {
        let app = TestApp::start_with(|config| {
            config.limits = limits_with_only(name);
            config.proxies.0.push("127.0.0.1".parse().unwrap());
        })
        .await;
        let send_as = async |caller: &Caller<'_>| {
            let send = |request: reqwest::RequestBuilder| match &body {
                Some(body) => request.json(body),
                None => request,
            };
            caller.send(method.clone(), path, send).await
        };
        for host in 1..=4 {
            let answer = send_as(&app.user().await.with_address(&format!("198.51.100.{host}"))).await;
            assert!(answer.status < 300, "{name}: {answer:?}");
        }
        let fifth = app.user().await;
        let rejected = send_as(&fifth.with_address("198.51.100.5")).await;
        assert_eq!(rejected.problem(), (429, "rate_limited"), "{name}: {rejected:?}");
        assert_eq!(rejected.header("ratelimit-policy"), format!("\"{name}\";q=4;w=86400"));
        assert!(send_as(&fifth.with_address("198.51.101.5")).await.status < 300, "{name}: nothing was counted for the user");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_every_operation_is_rejected_by_each_of_its_limits() {
    let names: BTreeSet<_> = all().flat_map(|metadata| metadata.rate_limits).copied().collect();
    assert_eq!(names.len(), 11, "`limits_with_only` lists every limit: {names:?}");
    let operations = operations();
    for name in names {
        let app = TestApp::start_with(|config| {
            config.limits = limits_with_only(name);
            config.proxies.0.push("127.0.0.1".parse().unwrap());
            if name == "s3" {
                config.uploads.quota_bytes = config.uploads.max_bytes;
            }
        })
        .await;
        let limited = all().filter(|metadata| metadata.rate_limits.contains(&name));
        for (host, metadata) in limited.enumerate() {
            let id = metadata.id;
            let operation = operations.iter().find(|operation| operation.id == id).unwrap();
            let answer = exceed_limit(&app, operation, name, host).await;
            assert_eq!(answer.problem(), (429, "rate_limited"), "{id} by {name}: {answer:?}");
            let ratelimit = answer.header("ratelimit");
            assert!(ratelimit.starts_with(&format!("\"{name}\";r=0;t=")), "{id} by {name}: {ratelimit}");
        }
    }
}
