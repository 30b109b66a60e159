//! Covers CORS of the API: allowed origins can read answers, other origins get no CORS headers.

use reqwest::{Method, Response, header::HeaderMap};
use serde_json::{Value, json};

use super::{
    app::{PASSWORD, TestApp},
    openapi::operations,
};

/// Origins in the `CORS_ORIGINS` of the test application.
const ALLOWED: [&str; 2] = ["https://app.example", "capacitor://localhost"];
/// Origins that the test application does not allow.
const FOREIGN: [&str; 10] = [
    "https://evil.example",
    "null",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.evil.example",
    "https://sub.app.example",
    "https://APP.example",
    "capacitor://localhost.evil",
    "http://localhost",
    "file://",
];
/// Value of `access-control-expose-headers`.
const EXPOSED: &str = "retry-after, ratelimit, ratelimit-policy, www-authenticate, etag, x-request-id, date";

/// Returns the CORS headers (`access-control-*`), sorted.
fn cors(headers: &HeaderMap) -> Vec<(String, String)> {
    let is_cors = |name: &str| name.starts_with("access-control-");
    let mut found: Vec<_> = headers
        .iter()
        .filter(|(name, _)| is_cors(name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
        .collect();
    found.sort();
    found
}

/// Returns the header names in `vary`, in lower case.
fn varies(headers: &HeaderMap) -> Vec<String> {
    let all = headers.get_all("vary").iter().flat_map(|value| value.to_str().unwrap().split(','));
    all.map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// Sends a preflight request, with this origin if there is one.
async fn preflight(app: &TestApp, path: &str, method: &str, origin: Option<&str>) -> Response {
    let request = app
        .http
        .request(Method::OPTIONS, format!("{}{path}", app.base))
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization,content-type");
    let request = if let Some(origin) = origin { request.header("origin", origin) } else { request };
    request.send().await.unwrap()
}

#[tokio::test]
async fn preflights_of_allowed_origins_succeed_for_every_operation() {
    let app = TestApp::start().await;
    for operation in operations().into_iter().filter(|operation| !operation.is_admin()) {
        let path = operation.path_of(&uuid::Uuid::now_v7().to_string());
        for origin in ALLOWED {
            let answer = preflight(&app, &path, operation.method.as_str(), Some(origin)).await;
            assert!(answer.status().is_success(), "{path}: {answer:?}");
            assert!(varies(answer.headers()).contains(&"origin".to_owned()), "{path}: {answer:?}");
            let headers = cors(answer.headers());
            let text = |name: &str| headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
            let names: Vec<_> = headers.iter().map(|(name, _)| name.trim_start_matches("access-control-")).collect();
            assert_eq!(names, ["allow-headers", "allow-methods", "allow-origin", "max-age"], "no credentials, nothing twice");
            assert_eq!(text("access-control-allow-origin"), origin);
            assert_eq!(
                text("access-control-allow-headers"),
                "authorization, content-type, idempotency-key, if-none-match, last-event-id, traceparent, tracestate, baggage, sentry-trace"
            );
            assert_eq!(text("access-control-max-age"), "7200");
            let methods: Vec<_> = text("access-control-allow-methods").split(", ").collect();
            assert!(methods.contains(&operation.method.as_str()), "{} {path}: {methods:?}", operation.method);
        }
    }
}

#[tokio::test]
async fn preflights_of_other_origins_get_no_cors_headers() {
    let app = TestApp::start().await;
    for path in ["/api/auth/login", "/api/images/gallery", "/api/unknown", "/docs"] {
        for origin in FOREIGN.map(Some).into_iter().chain([None]) {
            let answer = preflight(&app, path, "POST", origin).await;
            assert_eq!(cors(answer.headers()), [], "{path} {origin:?}");
            assert!(varies(answer.headers()).contains(&"origin".to_owned()), "shared caches distinguish origins: {answer:?}");
        }
    }
}

#[tokio::test]
async fn only_allowed_origins_can_read_answers_and_errors() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let log_in = json!({ "email": ada.email, "password": PASSWORD });
    let long = Value::String("x".repeat(20_000));
    let calls: [(&str, Method, &str, Option<&Value>, u16); 9] = [
        ("success", Method::GET, "/api/auth/me", None, 200),
        ("login", Method::POST, "/api/auth/login", Some(&log_in), 200),
        ("400", Method::GET, "/api/images/gallery?limit=0", None, 400),
        ("404", Method::GET, "/api/unknown", None, 404),
        ("405", Method::DELETE, "/api/auth/me", None, 405),
        ("413", Method::POST, "/api/auth/login", Some(&long), 413),
        ("409", Method::POST, "/api/auth/signup", Some(&log_in), 409),
        ("422", Method::POST, "/api/auth/signup", Some(&json!({ "email": "", "password": "" })), 422),
        ("health", Method::GET, "/livez", None, 200),
    ];
    for (label, method, path, body, status) in &calls {
        for origin in ALLOWED.into_iter().chain(FOREIGN).map(Some).chain([None]) {
            let answer = ada
                .send(method.clone(), path, |request| {
                    let request = if let Some(body) = body { request.json(body) } else { request };
                    if let Some(origin) = origin { request.header("origin", origin) } else { request }
                })
                .await;
            // The server answers pages of other origins too; browsers hide the answer from them.
            assert_eq!(answer.status, *status, "{label} {origin:?}: {answer:?}");
            assert_cors(&answer.headers, origin, label);
            let vary = varies(&answer.headers);
            assert_eq!(vary.contains(&"authorization".to_owned()), path.starts_with("/api/"), "{label}: {vary:?}");
        }
    }
    for (label, body, content_type, status) in [("401", None, None, 401), ("415", Some("x"), Some("text/plain"), 415)] {
        for origin in [ALLOWED[0], FOREIGN[0]] {
            let answer = app
                .anonymous()
                .send(Method::POST, "/api/images/upload", |request| {
                    let request = request.header("origin", origin);
                    match (body, content_type) {
                        (Some(body), Some(content_type)) => request.header("content-type", content_type).body(body),
                        _ => request.json(&json!({})),
                    }
                })
                .await;
            assert_eq!(answer.status, status, "{label}: {answer:?}");
            assert_cors(&answer.headers, Some(origin), label);
        }
    }
}

/// Asserts that the CORS headers are exactly those for this origin.
fn assert_cors(headers: &HeaderMap, origin: Option<&str>, label: &str) {
    let header = |name: &str, value: &str| (format!("access-control-{name}"), value.to_owned());
    let expected = match origin.filter(|origin| ALLOWED.contains(origin)) {
        Some(origin) => vec![header("allow-origin", origin), header("expose-headers", EXPOSED)],
        None => vec![],
    };
    assert_eq!(cors(headers), expected, "{label} from {origin:?}");
    assert!(varies(headers).contains(&"origin".to_owned()), "{label} from {origin:?}");
}

/// Browsers send an Origin with a page's POST to its own host too.
#[tokio::test]
async fn pages_of_this_server_may_post() {
    let app = TestApp::start().await;
    let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
    let answer = app
        .anonymous()
        .send(Method::POST, "/api/auth/signup", |request| {
            request
                .header("origin", &app.base)
                .header("sec-fetch-site", "same-origin")
                .json(&json!({ "email": email, "password": PASSWORD }))
        })
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(cors(&answer.headers), [], "a same-origin response needs no CORS headers");
}

/// An OPTIONS request that is not a preflight is handled like any other method.
#[tokio::test]
async fn plain_options_request_is_not_a_preflight() {
    let app = TestApp::start().await;
    let answer = app.anonymous().send(Method::OPTIONS, "/api/auth/login", |request| request.header("origin", ALLOWED[0])).await;
    assert_eq!(answer.problem(), (204, ""));
    assert_cors(&answer.headers, Some(ALLOWED[0]), "options");
}
