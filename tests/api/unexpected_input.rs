//! Covers input that would change a request's meaning if it were read: every operation rejects it. Also covers answers to requests
//! that the server rejects before it parses them, which allowed pages can read, and the count of cancelled requests.
//!
//! Routes: all.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    app::{Answer, TestApp},
    hostile_clients::{connect, send_raw},
    openapi::{Operation, operations},
};

/// An origin in the tests' `CORS_ORIGINS`.
const ORIGIN: &str = "https://app.example";

/// Sends an operation's request, with a body if one is documented.
async fn send(
    app: &TestApp,
    operation: &Operation,
    query: &str,
    change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
) -> Answer {
    let path = format!("{}{query}", operation.path_of(&uuid::Uuid::now_v7().to_string()));
    let body = operation.body();
    app.anonymous()
        .send(operation.method.clone(), &path, |request| {
            let request = request.header("origin", ORIGIN);
            change(if let Some(body) = body { request.json(body) } else { request })
        })
        .await
}

#[tokio::test]
async fn repeated_parameters_and_content_codings_are_rejected_by_every_operation() {
    let app = TestApp::start().await;
    for operation in operations() {
        let case = format!("{} {}", operation.method, operation.path);
        for coding in ["gzip", "br", "zstd", "deflate", "x-unknown", "identity, gzip"] {
            let answer = send(&app, &operation, "", |request| request.header("content-encoding", coding)).await;
            assert_eq!(answer.problem(), (415, "unsupported_media_type"), "{case} {coding}");
            assert_eq!(answer.header("accept-encoding"), "identity", "{case} {coding}");
        }
        let name = "idempotency-key";
        let answer = send(&app, &operation, "", |request| request.header(name, "a").header(name, "b")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{case} {name}");
        assert_eq!(answer.json["errors"][0]["field"], name, "{case}");
        for query in ["?limit=5&limit=6", "?cursor=a&%63ursor=a", "?key=a&key=b"] {
            let query = if operation.path_of("x").contains('?') { query.replacen('?', "&", 1) } else { query.to_owned() };
            let answer = send(&app, &operation, &query, |request| request).await;
            assert_eq!(answer.problem(), (400, "invalid_request"), "{case} {query}");
        }
        let read = send(&app, &operation, "", |request| request.header("content-encoding", "identity")).await;
        assert_ne!(read.status, 415, "{case}: identity is a known coding");
    }
}

#[tokio::test]
async fn undocumented_body_is_rejected() {
    let app = TestApp::start().await;
    let mut bodiless = 0;
    for operation in operations().into_iter().filter(|operation| operation.body().is_none()) {
        let case = format!("{} {}", operation.method, operation.path);
        let rejected = send(&app, &operation, "", |request| request.json(&json!({ "a": 1 }))).await;
        assert!(
            rejected.problem() == (400, "invalid_request") && rejected.text.contains("takes no request body"),
            "{case}: {rejected:?}"
        );
        for nothing in ["{}", " {} ", "null", ""] {
            let sent =
                send(&app, &operation, "", |request| request.header("content-type", "application/json").body(nothing)).await;
            assert!(!sent.text.contains("takes no request body"), "{case} {nothing:?}: {sent:?}");
        }
        bodiless += 1;
    }
    assert!(bodiless > 15, "{bodiless}");
}

#[tokio::test]
async fn rejections_of_unparsed_requests_can_be_read_by_allowed_pages() {
    let app = TestApp::start().await;
    let long = "a".repeat(40_000);
    let heads = [
        (431, format!("GET /livez HTTP/1.1\r\nhost: h\r\norigin: ORIGIN\r\nx: {long}\r\n\r\n")),
        // Chromium sends the page's headers first.
        (431, format!("GET /livez HTTP/1.1\r\nhost: h\r\nx: {long}\r\norigin: ORIGIN\r\n\r\n")),
        (431, format!("GET /livez HTTP/1.1\r\nhost: h\r\nx: {long}{long}{long}\r\norigin: ORIGIN\r\n\r\n")),
        (431, format!("GET /livez?{long} HTTP/1.1\r\nhost: h\r\norigin: ORIGIN\r\n\r\n")),
        (431, format!("GET /livez HTTP/1.1\r\nhost: h\r\n{}origin: ORIGIN\r\n\r\n", "x: y\r\n".repeat(101))),
        // A request that is cut off is answered too.
        (431, format!("GET /livez HTTP/1.1\r\nhost: h\r\norigin: ORIGIN\r\nx: {long}")),
        (400, "GET /livez HTTP/1.1\r\nhost: h\r\norigin: ORIGIN\r\nno colon\r\n\r\n".to_owned()),
        (400, "GET /livez HTTP/1.1\r\norigin: ORIGIN\r\nconnection: close\r\n\r\n".to_owned()),
    ];
    for (status, head) in heads {
        for (origin, allowed) in
            [(ORIGIN, ORIGIN), ("capacitor://localhost", "capacitor://localhost"), ("https://evil.example", "")]
        {
            let received = send_raw(&app, head.replace("ORIGIN", origin)).await;
            assert_eq!(received.len(), 1, "{received:?}");
            assert_eq!(received[0].problem().0, status, "{received:?}");
            assert_eq!(received[0].header("access-control-allow-origin"), allowed, "{status} {origin}");
            assert!(
                received[0].head.to_ascii_lowercase().contains("vary: origin"),
                "{status}: shared caches distinguish origins: {received:?}"
            );
            assert!(
                allowed.is_empty() || received[0].header("access-control-expose-headers").contains("retry-after"),
                "{received:?}"
            );
        }
    }
    // The Origin of an earlier request on the same connection does not apply to the next one.
    let first = format!("GET /livez HTTP/1.1\r\nhost: h\r\norigin: {ORIGIN}\r\n\r\n");
    let mut stream = connect(&app.base).await;
    stream.write_all(first.as_bytes()).await.unwrap();
    // The server has answered the first request before the second one arrives.
    let mut beginning = vec![0; 4096];
    let length = stream.read(&mut beginning).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n").await.unwrap();
    let rest = super::hostile_clients::read_until_closed(&mut stream, Duration::from_secs(20)).await;
    let answers = (String::from_utf8_lossy(&beginning[..length]).into_owned() + &rest).to_ascii_lowercase();
    assert_eq!(answers.matches("access-control-allow-origin").count(), 1, "{answers}");
}

#[tokio::test]
async fn rejection_of_an_excess_connection_can_be_read_by_its_page() {
    let app = TestApp::start_with(|config| config.load.max_connections = 1).await;
    let mut open_connection = connect(&app.base).await;
    open_connection.write_all(b"GET /livez").await.unwrap();
    // By then the server has accepted this connection.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let received = send_raw(&app, format!("GET /livez HTTP/1.1\r\nhost: h\r\norigin: {ORIGIN}\r\n\r\n")).await;
    assert_eq!((received[0].problem().0, received[0].header("access-control-allow-origin")), (503, ORIGIN), "{received:?}");
}

/// The client hangs up while the server hashes the password.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_request_is_counted() {
    let app = TestApp::start().await;
    let counted = || {
        let text = app.app.metrics();
        // Requests of other tests in this process are cut off on other routes.
        let login_counter = "duration_seconds_count{route=\"/api/auth/login\",method=\"POST\",status=\"499\"}";
        let line = text.lines().find(|line| line.contains(login_counter));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    let before = counted();
    let body = json!({ "email": "nobody@example.com", "password": super::app::PASSWORD }).to_string();
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..200 {
        let mut stream = connect(&app.base).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server begins to handle the request, and its client hangs up; the server counts it soon after.
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(stream);
        tokio::time::sleep(Duration::from_millis(100)).await;
        if counted() > before {
            return;
        }
    }
    panic!("no request was cut off: {}", app.app.metrics());
}
