//! Covers bodies with ambiguous lengths, without an end, or unexpected; and many requests in one write.

use super::{AsyncReadExt, AsyncWriteExt, Instant, SOON, TestApp, answers, connect, send_raw};

/// Head of a login, without the length of its body and without the empty line.
const LOGIN: &str = "POST /api/auth/login HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n";
/// A second request on the same connection.
const NEXT: &str = "GET /api/auth/me HTTP/1.1\r\nhost: h\r\n\r\n";

/// The first request has two lengths, and one of them makes the second request a part of its body. The second request must not be
/// answered.
#[tokio::test]
async fn conflicting_lengths_do_not_smuggle_a_second_request() {
    let app = TestApp::start().await;
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "content-length: 300\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let received = send_raw(&app, format!("{LOGIN}{lengths}\r\n2\r\n{{}}\r\n0\r\n\r\n{NEXT}")).await;
        assert_eq!(received.len(), 1, "{lengths:?}: {received:?}");
        assert_eq!(received[0].problem(), (400, "invalid_request".to_owned()), "{lengths:?}");
    }
}

#[tokio::test]
async fn malformed_chunks_end_the_connection() {
    let app = TestApp::start().await;
    for chunks in [
        "g\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2 2\r\n{}\r\n0\r\n\r\n",
        "\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}xx0\r\n\r\n",
        "2\n{}\n0\n\n",
    ] {
        let received = send_raw(&app, format!("{LOGIN}transfer-encoding: chunked\r\n\r\n{chunks}{NEXT}")).await;
        assert_eq!(received.len(), 1, "{chunks:?}: {received:?}");
        assert_eq!(received[0].problem(), (400, "invalid_request".to_owned()), "{chunks:?}");
    }
    // Extensions and trailers are legal and ignored, up to a limit.
    let received = send_raw(
        &app,
        format!("{LOGIN}connection: close\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\n{{}}\r\n0\r\nx: y\r\n\r\n"),
    )
    .await;
    assert_eq!(received[0].problem(), (400, "invalid_request".to_owned()));
    for endless in [format!("2;{}", "a".repeat(1 << 20)), format!("2\r\n{{}}\r\n0\r\nx: {}", "y".repeat(1 << 20))] {
        let received = send_raw(&app, format!("{LOGIN}transfer-encoding: chunked\r\n\r\n{endless}")).await;
        assert!(received.len() <= 1 && received.iter().all(|answer| answer.problem().0 == 400), "{received:?}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = TestApp::start().await;
    let mut text = String::new();
    for at in 0..50 {
        let path = ["/livez", "/api/auth/me", "/nothing"][at % 3];
        text += &format!("GET {path} HTTP/1.1\r\nhost: h\r\nx-request-id: r{at}\r\n\r\n");
    }
    text += "GET /livez HTTP/1.1\r\nhost: h\r\nx-request-id: r50\r\nconnection: close\r\n\r\n";
    let received = send_raw(&app, text).await;
    assert_eq!(received.len(), 51);
    for (at, answer) in received.iter().enumerate() {
        assert_eq!(answer.header("x-request-id"), format!("r{at}"));
        assert_eq!(answer.status, if at == 50 { 200 } else { [200, 401, 404][at % 3] });
    }
}

#[tokio::test]
async fn twenty_megabytes_of_json_are_rejected_unread() {
    let app = TestApp::start().await;
    for path in ["/api/auth/login", "/api/images/upload", "/api/images/upload/batch", "/uppy/t/s3/multipart/i/complete"] {
        let head = |framing: &str| {
            format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\nconnection: close\r\n{framing}\r\n\r\n")
        };
        let bulk = vec![b' '; 20 << 20];
        let sized = [head(&format!("content-length: {}", bulk.len())).as_bytes(), &bulk].concat();
        assert_eq!(send_raw(&app, sized).await[0].problem(), (413, "payload_too_large".to_owned()), "{path}");
        // A body without an end.
        let mut stream = connect(&app.base).await;
        stream.write_all(head("transfer-encoding: chunked").as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let chunk = [b"10000\r\n", &bulk[..0x10000], b"\r\n"].concat();
        let began = Instant::now();
        let mut received_text = Vec::new();
        let endless = async { while write.write_all(&chunk).await.is_ok() {} };
        let (_, received) = tokio::join!(endless, async { read.read_to_end(&mut received_text).await });
        assert!(began.elapsed() < SOON, "{path}: {:?} {received:?}", began.elapsed());
        let received_text = String::from_utf8(received_text).unwrap();
        assert!(received_text.is_empty() || answers(&received_text)[0].problem().0 == 413, "{path}: {received_text}");
    }
}

#[tokio::test]
async fn unexpected_body_delays_no_answer() {
    let app = TestApp::start().await;
    for head in [
        "GET /livez HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n",
        "DELETE /nothing HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n",
    ] {
        let received = send_raw(&app, head).await;
        assert!(received.len() == 1 && matches!(received[0].status, 200 | 404), "{head:?}: {received:?}");
    }
    // A request with `Expect: 100-continue` is rejected before the client sends the body.
    let request = format!("{LOGIN}expect: 100-continue\r\ncontent-length: 20000000\r\n\r\n");
    let received = send_raw(&app, request).await;
    assert_eq!(received[0].problem(), (413, "payload_too_large".to_owned()), "no 100 precedes the answer");
}
