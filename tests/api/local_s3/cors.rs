//! Covers CORS: preflights, and the headers of answers, as on AWS with the rule that `valet check --fix` sets.

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};
use reqwest::{Response, header::HeaderMap};

use super::{BUCKET, Method, Server, expect};

/// Value of `Vary` in answers with CORS headers.
const VARY: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";

/// Sends a preflight with these values of `Access-Control-Request-Method` and `-Headers`.
async fn send_preflight(server: &Server, origin: &str, method: &str, headers: &str) -> Response {
    let request = server.http.request(Method::OPTIONS, format!("{}/{BUCKET}/k?X-Amz-Signature=abc", server.base));
    let request = request.header("origin", origin).header("access-control-request-method", method);
    request.header("access-control-request-headers", headers).send().await.unwrap()
}

/// Returns whether the answer has neither CORS headers nor `vary`.
fn has_no_cors_headers(headers: &HeaderMap) -> bool {
    !headers.keys().any(|name| name.as_str().starts_with("access-control-") || name == "vary")
}

#[tokio::test]
async fn preflights_are_answered_like_aws() {
    let server = Server::start().await;
    for origin in ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:3000", "https://app.example"] {
        for method in ["GET", "PUT", "POST", "HEAD", "DELETE"] {
            let allowed = send_preflight(&server, origin, method, "content-type, If-None-Match,x-amz-checksum-sha256").await;
            let headers = allowed.headers().clone();
            assert_eq!(headers["access-control-allow-origin"], origin);
            assert_eq!(headers["vary"], VARY);
            assert_eq!(headers["access-control-allow-credentials"], "true");
            assert_eq!(headers["access-control-max-age"], "3000");
            assert!(headers["access-control-allow-methods"].to_str().unwrap().contains(method));
            assert_eq!(headers["access-control-allow-headers"], "content-type, if-none-match, x-amz-checksum-sha256");
            expect(allowed, 200, "").await;
        }
    }
    for (origin, method, headers) in [
        ("http://evil.example", "PUT", "content-type"),
        ("http://localhost.evil.example", "PUT", ""),
        ("null", "GET", ""),
        ("http://localhost:5173", "PATCH", ""),
        ("http://localhost:5173", "PUT", "x-evil"),
        // Headers that interceptors, tracing and other uploaders add: AWS rejects them.
        ("http://localhost:5173", "PUT", "authorization"),
        ("http://localhost:5173", "PUT", "traceparent"),
        ("http://localhost:5173", "PUT", "x-requested-with"),
        ("http://localhost:5173", "PUT", "cache-control"),
        ("http://localhost:5173", "PUT", "x-amz-meta-any"),
        ("http://localhost:5173", "PUT", "x-amz-checksum-crc32"),
    ] {
        let rejected = send_preflight(&server, origin, method, headers).await;
        assert!(has_no_cors_headers(rejected.headers()), "{rejected:?}");
        let text = expect(rejected, 403, "AccessForbidden").await;
        assert!(text.contains(&format!("<Method>{method}</Method><ResourceType>OBJECT</ResourceType>")), "{text}");
    }
    let preflight = |path: &str| server.http.request(Method::OPTIONS, format!("{}/{path}", server.base));
    let from_app = |path: &str| preflight(path).header("origin", "https://app.example");
    for (request, status, code, message) in [
        (preflight("photos/k"), 400, "BadRequest", "Origin request header needed."),
        (from_app("photos/k"), 400, "BadRequest", "Invalid Access-Control-Request-Method: null"),
        (
            from_app("no-such-bucket/k").header("access-control-request-method", "GET"),
            403,
            "AccessForbidden",
            "CORSResponse: Bucket not found",
        ),
    ] {
        let text = expect(request.send().await.unwrap(), status, code).await;
        assert!(text.contains(message), "{text}");
    }
    server.end().await;
}

#[tokio::test]
async fn only_allowed_pages_can_read_answers() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let valid = server.sign_get("k").await;
    // The signature covers the lifetime, so a URL with another lifetime is rejected.
    let invalid = valid.replace("X-Amz-Expires=600", "X-Amz-Expires=601");
    for (url, status) in [(&valid, 200), (&invalid, 403)] {
        let response = server.http.get(url).header("origin", "https://app.example").send().await.unwrap();
        assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
        assert_eq!(response.headers()["vary"], VARY);
        assert_eq!(
            response.headers()["access-control-expose-headers"],
            "ETag, Location, x-amz-checksum-sha256, x-amz-checksum-crc64nvme, x-amz-request-id, x-amz-version-id"
        );
        expect(response, status, "").await;
        // If a request has `access-control-request-method`, the rule must allow that method, even without a preflight.
        let response =
            server.http.get(url).header("origin", "https://app.example").header("access-control-request-method", "PATCH");
        let response = response.send().await.unwrap();
        assert!(has_no_cors_headers(response.headers()), "{response:?}");
        let hidden = server.http.get(url).header("origin", "https://evil.example").send().await.unwrap();
        assert!(has_no_cors_headers(hidden.headers()), "{hidden:?}");
        // AWS omits `Vary`, so a page that shows an image and then reads its bytes gets its own cached response.
        let plain = server.http.get(url).send().await.unwrap();
        assert!(has_no_cors_headers(plain.headers()), "{plain:?}");
    }
    server.end().await;
}

#[tokio::test]
async fn cors_rules_of_the_bucket_are_obeyed() {
    let server = Server::start().await;
    let rule = |origin: &str, method: &str| {
        let rule = CorsRule::builder().allowed_origins(origin).allowed_methods(method).allowed_headers("X-Amz-*");
        rule.expose_headers("ETag").build().unwrap()
    };
    let rules = [rule("https://*.example.com", "GET"), rule("*", "PUT")];
    let configuration = CorsConfiguration::builder().set_cors_rules(Some(rules.to_vec())).build().unwrap();
    server.s3.put_bucket_cors().bucket(BUCKET).cors_configuration(configuration).send().await.unwrap();
    for (origin, method, headers, allowed) in [
        ("https://a.example.com", "GET", "x-amz-meta-any", Some("https://a.example.com")),
        ("https://a.example.com", "PUT", "", Some("*")),
        ("https://a.example.com", "GET", "content-type", None),
        ("https://a.example.org", "GET", "", None),
        ("http://localhost:5173", "GET", "", None),
        ("https://app.example", "DELETE", "", None),
    ] {
        let answer = send_preflight(&server, origin, method, headers).await;
        let granted = answer.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(granted.as_deref(), allowed, "{origin} {method} {headers}");
        // Credentials are allowed to origins that a rule names, not to `*`.
        let credentials = answer.headers().contains_key("access-control-allow-credentials");
        assert_eq!(credentials, allowed.is_some_and(|origin| origin != "*"));
        assert_eq!(answer.status(), if allowed.is_some() { 200 } else { 403 });
    }
    server.s3.delete_bucket_cors().bucket(BUCKET).send().await.unwrap();
    expect(send_preflight(&server, "https://app.example", "DELETE", "").await, 200, "").await;
    server.end().await;
}
