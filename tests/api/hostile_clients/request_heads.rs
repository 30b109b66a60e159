//! Covers request heads that are not HTTP, that two servers in a row could read differently, or that are too long.

use super::{AsyncWriteExt, RawAnswer, SOON, TestApp, connect, read_until_closed, send_raw};

/// Asserts that there is one answer, which closes the connection; returns its status and problem code in a list.
fn rejections(received: &[RawAnswer], case: &str) -> Vec<(u16, String)> {
    assert_eq!(received.len(), 1, "{case:?}: {received:?}");
    assert_eq!(received[0].header("connection"), "close", "{case:?}: {received:?}");
    received.iter().map(RawAnswer::problem).collect()
}

#[tokio::test]
async fn malformed_http_is_answered_400_and_the_connection_ends() {
    let app = TestApp::start().await;
    for head in [
        "GET /livez",
        "GET /livez HTTP/1.1 x",
        "GET /livez HTTP/3.0",
        "GET /livez HTTP/1.2",
        "GET /livez http/1.1",
        "GET /li vez HTTP/1.1",
        "G\u{0}T /livez HTTP/1.1",
        "G(T /livez HTTP/1.1",
        "GET /livez\u{0} HTTP/1.1",
        "GET /livez HTTP/1.1\r\nno colon",
        "GET /livez HTTP/1.1\r\nx-a : 1",
        "GET /livez HTTP/1.1\r\nx-a: 1\r\n folded",
        "GET /livez HTTP/1.1\r\n x-a: 1",
        "GET /livez HTTP/1.1\r\nx-a: 1\u{0}2",
        "GET /livez HTTP/1.1\r\nx-a: 1\r2",
        "GET /livez HTTP/1.1\r\nx\u{e9}: 1",
        "GET /livez HTTP/1.1\r\n: 1",
        // Two servers could find the request's end at different positions.
        "POST /api/auth/login HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6",
        "POST /api/auth/login HTTP/1.1\r\ncontent-length: 5, 6",
        "POST /api/auth/login HTTP/1.1\r\ncontent-length: +5",
        "POST /api/auth/login HTTP/1.1\r\ncontent-length: -1",
        "POST /api/auth/login HTTP/1.1\r\ncontent-length: 0x5",
        "POST /api/auth/login HTTP/1.1\r\ncontent-length: 5 5",
        "POST /api/auth/login HTTP/1.1\r\ncontent-length: 99999999999999999999",
        "POST /api/auth/login HTTP/1.1\r\ncontent-length:",
        "POST /api/auth/login HTTP/1.1\r\ntransfer-encoding: gzip",
        "POST /api/auth/login HTTP/1.1\r\ntransfer-encoding: chunked, identity",
        "POST /api/auth/login HTTP/1.1\r\ntransfer-encoding: xchunked",
        "POST /api/auth/login HTTP/1.1\r\ntransfer-encoding : chunked",
        "POST /api/auth/login HTTP/1.0\r\ntransfer-encoding: chunked",
    ] {
        let received = send_raw(&app, format!("{head}\r\nhost: h\r\n\r\nGET /livez HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        assert_eq!(rejections(&received, head), [(400, "invalid_request".to_owned())], "{head:?}");
    }
}

#[tokio::test]
async fn request_must_name_one_host() {
    let app = TestApp::start().await;
    for (head, status) in [
        ("GET /livez HTTP/1.1\r\nconnection: close", 400),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close", 400),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close", 200),
        ("GET /livez HTTP/1.0", 200),
        // RFC 9112 section 3.2.2: servers must accept the absolute form, whatever host it names.
        ("GET http://other.example/livez HTTP/1.1\r\nhost: a\r\nconnection: close", 200),
        ("OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close", 404),
        ("CONNECT other.example:443 HTTP/1.1\r\nhost: a\r\nconnection: close", 404),
        ("GET livez HTTP/1.1\r\nhost: a\r\nconnection: close", 400),
        ("GET //livez HTTP/1.1\r\nhost: a\r\nconnection: close", 404),
    ] {
        let received = send_raw(&app, format!("{head}\r\n\r\n")).await;
        assert_eq!(received.iter().map(|answer| answer.status).collect::<Vec<_>>(), [status], "{head:?}: {received:?}");
        assert!(status == 200 || received[0].problem().0 == status, "{head:?}");
    }
}

#[tokio::test]
async fn too_many_headers_are_rejected() {
    let app = TestApp::start().await;
    let fields =
        |count: usize, length: usize| -> String { (0..count).map(|at| format!("x-{at}: {}\r\n", "y".repeat(length))).collect() };
    let head = |more: &str| format!("GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{more}\r\n");
    assert_eq!(send_raw(&app, head(&fields(90, 300))).await[0].status, 200, "27 KiB in 92 fields");
    for (case, text) in [
        ("many", head(&fields(101, 1))),
        ("very many", head(&fields(100_000, 1))),
        ("a large one", head(&fields(1, 33 * 1024))),
        ("a huge one", head(&fields(1, 8 << 20))),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(40_000))),
        ("a longer path", format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(70_000))),
        ("a long query", format!("GET /livez?{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(40_000))),
        ("a long method", format!("{} / HTTP/1.1\r\nhost: h\r\n\r\n", "A".repeat(40_000))),
        ("one that never ends", format!("GET /livez HTTP/1.1\r\nx: {}", "y".repeat(1 << 20))),
    ] {
        assert_eq!(rejections(&send_raw(&app, text).await, case), [(431, "headers_too_large".to_owned())], "{case}");
    }
}

/// A proxy in front may speak HTTP/2; this server closes such a connection.
#[tokio::test]
async fn http_2_is_closed_at_once() {
    let app = TestApp::start().await;
    let mut stream = connect(&app.base).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let text = read_until_closed(&mut stream, SOON).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text}");
    let upgrade = "GET /livez HTTP/1.1\r\nhost: h\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n";
    assert_eq!(send_raw(&app, upgrade).await[0].status, 200, "the server ignores an offered upgrade");
}
