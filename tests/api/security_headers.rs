//! Covers the security headers of every operation, page and error: no sniffing, framing, embedding, storing or referrer, and HSTS
//! for browsers that use TLS.
//!
//! Routes: all.

use reqwest::{Method, header::HeaderMap};
use serde_json::json;
use valet::config::{Rate, TrustedProxies};

use super::{
    app::TestApp,
    openapi::{Operation, operations},
};

/// Value of `strict-transport-security`.
const HSTS: &str = "max-age=31536000; includeSubDomains";

/// Returns the value of a header; empty if the answer has none.
fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Asserts the headers that every answer has, and those that none has.
fn assert_headers(headers: &HeaderMap, case: &str) {
    for (name, wanted) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(value(headers, name), wanted, "{case}: {headers:?}");
    }
    let policy = value(headers, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{case}: {headers:?}");
    assert!(!value(headers, "cache-control").is_empty(), "{case}: {headers:?}");
    for name in ["server", "x-powered-by", "via", "x-aspnet-version"] {
        assert!(!headers.contains_key(name), "{case}: {headers:?}");
    }
}

/// Starts a server that trusts this test as its proxy, and that allows one refresh an hour, so that further ones are answered 429.
async fn app() -> TestApp {
    let proxies = TrustedProxies(vec!["127.0.0.1".parse().unwrap()]);
    TestApp::start_with(|config| {
        config.proxies = proxies;
        config.limits.on = true;
        config.limits.refresh = Rate::new(1, 3600);
    })
    .await
}

#[tokio::test]
async fn h5_every_answer_of_every_operation_has_security_headers() {
    let app = app().await;
    let ada = app.user().await;
    let mut statuses = std::collections::BTreeSet::new();
    for Operation { method, path, described } in operations() {
        let operation = Operation { method: method.clone(), path: path.clone(), described };
        let concrete = operation.path_of(&uuid::Uuid::now_v7().to_string()).replace("{token}", "x").replace("{key}", "x");
        // With the documented body, the call would delete the account and end the session of the other calls.
        let bodies =
            if path.ends_with("/me/delete") { vec![None] } else { vec![None, operation.body().cloned(), Some(json!([]))] };
        for (body, token) in bodies.iter().flat_map(|body| [(body, None), (body, ada.token.as_ref())]) {
            let mut request = app.http.request(method.clone(), format!("{}{concrete}", app.base));
            request = request.header("x-forwarded-proto", "https");
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status().as_u16(), answer.headers());
            let case = format!("{method} {concrete}: {status}");
            assert_headers(headers, &case);
            // The owner's browser may store a gallery page, to revalidate it.
            let cache_control = if concrete == "/api/images/gallery" && status == 200 { "private, no-cache" } else { "no-store" };
            assert_eq!(value(headers, "cache-control"), cache_control, "{case}");
            assert_eq!(value(headers, "strict-transport-security"), HSTS, "{case}");
            statuses.insert(status);
        }
    }
    for status in [200, 400, 401, 404, 429] {
        assert!(statuses.contains(&status), "{status} is not among {statuses:?}");
    }
}

#[tokio::test]
async fn h5_pages_and_framework_errors_have_security_headers() {
    let app = app().await;
    let page = app.http.get(&app.base).send().await.unwrap();
    let etag = value(page.headers(), "etag").to_owned();
    let text = page.text().await.unwrap();
    let mut pages: Vec<_> = text.split('"').filter(|text| text.starts_with("/assets/")).map(str::to_owned).collect();
    pages.extend(
        ["/", "/docs", "/docs/swagger-ui.css", "/docs/swagger-ui.js", "/docs/start.js", "/openapi.json", "/livez"]
            .map(str::to_owned),
    );
    for path in &pages {
        let answer = app.http.get(format!("{}{path}", app.base)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_headers(answer.headers(), path);
        let is_page = value(answer.headers(), "content-type").starts_with("text/html");
        assert_eq!(value(answer.headers(), "permissions-policy").contains("camera=()"), is_page, "{path}");
    }
    let json = "application/json";
    for (status, method, path, content_type, body) in [
        (404, Method::GET, "/nothing", "", String::new()),
        (404, Method::GET, "/assets/0/app.js", "", String::new()),
        (404, Method::GET, "/%ff", "", String::new()),
        (405, Method::DELETE, "/", "", String::new()),
        (405, Method::POST, "/docs", "", String::new()),
        (405, Method::from_bytes(b"PURGE").unwrap(), "/openapi.json", "", String::new()),
        (413, Method::POST, "/api/images/upload", json, " ".repeat(20_000)),
        (415, Method::POST, "/api/images/upload", "text/plain", "x".to_owned()),
        (415, Method::POST, "/docs", "text/plain", "x".to_owned()),
        (304, Method::GET, "/", "", String::new()),
        (308, Method::GET, "/docs/", "", String::new()),
        (204, Method::OPTIONS, "/api/auth/me", "", String::new()),
    ] {
        let direct = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut request = direct.request(method.clone(), format!("{}{path}", app.base)).body(body);
        for (name, value) in [("content-type", content_type), ("if-none-match", if status == 304 { &etag } else { "" })] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        if status == 204 {
            request = request.header("origin", "https://app.example").header("access-control-request-method", "GET");
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_headers(answer.headers(), &format!("{method} {path}: {status}"));
    }
}

#[tokio::test]
async fn h5_hsts_is_sent_only_over_tls() {
    let behind_proxy = app().await;
    let without_proxy = TestApp::start().await;
    for (app, forwarded, expects_hsts) in [
        (&behind_proxy, vec!["https"], true),
        (&behind_proxy, vec!["HTTPS"], true),
        (&behind_proxy, vec!["https, https"], true),
        (&behind_proxy, vec![], false),
        (&behind_proxy, vec!["http"], false),
        (&behind_proxy, vec!["https, http"], false),
        (&behind_proxy, vec!["http", "https"], false),
        (&behind_proxy, vec!["httpsx"], false),
        (&behind_proxy, vec![""], false),
        // This server trusts no proxy.
        (&without_proxy, vec!["https"], false),
    ] {
        for path in ["/", "/livez", "/api/auth/me", "/nothing"] {
            let mut request = app.http.get(format!("{}{path}", app.base));
            for protocol in &forwarded {
                request = request.header("x-forwarded-proto", *protocol);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(
                value(answer.headers(), "strict-transport-security"),
                if expects_hsts { HSTS } else { "" },
                "{forwarded:?} {path}"
            );
            let opener_policy = if expects_hsts && path == "/" { "same-origin" } else { "" };
            assert_eq!(value(answer.headers(), "cross-origin-opener-policy"), opener_policy, "{forwarded:?} {path}");
        }
    }
}
