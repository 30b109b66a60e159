//! Covers the guarantees that the recipes of docs/mobile.md rely on: a phone's HTTP client adds its own headers, its network
//! fails in the middle of a file, and answers get lost. Renewal is covered by uploads.rs, resuming by multipart/resumption.rs and
//! `restarted_client_finds_its_uploads_on_a_restarted_server`, confirms by the server itself by sweeper.rs.
//!
//! Routes: POST /api/images/upload, GET /api/images/{id}/parts.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    app::{TestApp, unique_png},
    store_rules::ONCE,
};

/// Returns the store's address, and the head of a PUT as a client sends it: the ticket's headers, whose names `spelling` changes,
/// and the client's own header lines.
fn head(upload: &Value, length: usize, extra_lines: &[&str], spelling: fn(&str) -> String) -> (String, String) {
    let url = reqwest::Url::parse(upload["url"].as_str().unwrap()).unwrap();
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut head = format!("PUT {}?{} HTTP/1.1\r\n{}: {address}\r\n", url.path(), url.query().unwrap(), spelling("host"));
    for (name, value) in upload["headers"].as_object().unwrap() {
        head.push_str(&format!("{}: {}\r\n", spelling(name), value.as_str().unwrap()));
    }
    extra_lines.iter().for_each(|line| head.push_str(&format!("{line}\r\n")));
    (address, format!("{head}{}: {length}\r\n\r\n", spelling("content-length")))
}

/// Sends a PUT and returns the status. With `cut`, closes the connection after so many bytes of the body, and returns `None`.
async fn send(
    upload: &Value,
    body: &[u8],
    extra_lines: &[&str],
    spelling: fn(&str) -> String,
    cut: Option<usize>,
) -> Option<u16> {
    let (address, head) = head(upload, body.len(), extra_lines, spelling);
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&body[..cut.unwrap_or(body.len())]).await.unwrap();
    connection.flush().await.unwrap();
    if cut.is_some() {
        return None;
    }
    let mut answer = Vec::new();
    // Phones send `connection: keep-alive`, so the answer does not end with the connection.
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") || answer.starts_with(b"HTTP/1.1 100") {
        let mut piece = [0; 4096];
        let read = connection.read(&mut piece).await.unwrap();
        assert!(read > 0, "no answer: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
        if let Some(rest) = answer.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n") {
            answer = rest.to_vec();
        }
    }
    // The status follows `HTTP/1.1 `.
    std::str::from_utf8(&answer[9..12]).unwrap().parse().ok()
}

/// Returns a header's name as Apple's frameworks write it, such as `Content-Type`.
fn capitalized(name: &str) -> String {
    let word = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

/// Header lines that Apple's `URLSession` adds.
const URL_SESSION: &[&str] = &[
    "Accept: */*",
    "Accept-Encoding: gzip, deflate",
    "Accept-Language: en-GB,en;q=0.9",
    "Connection: keep-alive",
    "User-Agent: Photos/1 CFNetwork/3860.100.1 Darwin/25.0.0",
];
/// Header lines that `OkHttp` adds.
const OK_HTTP: &[&str] = &["Connection: Keep-Alive", "Accept-Encoding: gzip", "User-Agent: okhttp/5.1.0"];
/// Header lines of a client that sends the body only after `100 Continue`.
const EXPECTS_CONTINUE: &[&str] = &["Expect: 100-continue", "Accept: */*"];

#[tokio::test]
async fn put_with_the_headers_of_phones_is_accepted() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (case, extra_lines, spelling) in [
        ("URLSession", URL_SESSION, capitalized as fn(&str) -> String),
        ("OkHttp", OK_HTTP, str::to_owned as fn(&str) -> String),
        ("a client that waits for 100", EXPECTS_CONTINUE, capitalized),
    ] {
        let bytes = unique_png();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        assert_eq!(send(&ticket.json["upload"], &bytes, extra_lines, spelling, None).await, Some(200), "{case}");
        assert_eq!(ada.confirm(ticket.id()).await.status, 200, "{case}");
    }
}

#[tokio::test]
async fn interrupted_transfer_leaves_nothing_and_can_be_repeated() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut bytes = unique_png();
    bytes.resize(300_000, 0);
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    let upload = &ticket.json["upload"];
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(send(upload, &bytes, URL_SESSION, capitalized, Some(cut)).await, None);
        assert_eq!(ada.confirm(ticket.id()).await.problem(), (409, "object_missing"), "{cut} bytes were sent");
    }
    assert_eq!(send(upload, &bytes, URL_SESSION, capitalized, None).await, Some(200), "the same URL, the whole file");
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
}

#[tokio::test]
async fn lost_answer_to_put_or_confirm_is_recovered_by_a_repeat() {
    let app = TestApp::start().await;
    if app.skip_unless_store_satisfies(&[ONCE]).await {
        return;
    }
    let ada = app.user().await;
    let bytes = unique_png();
    let first = ada.open_upload("a.png", "image/png", &bytes).await;
    let upload = &first.json["upload"];
    // The phone loses the network when the store has the bytes and has sent the answer.
    let (address, head) = head(upload, bytes.len(), OK_HTTP, str::to_owned);
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(&[head.as_bytes(), &bytes].concat()).await.unwrap();
    assert!(connection.read_u8().await.is_ok(), "the server begins an answer");
    drop(connection);
    assert_eq!(send(upload, &bytes, OK_HTTP, str::to_owned, None).await, Some(412));
    // A restarted app opens the same file again, and gets the same upload.
    let again = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!((again.status, again.id(), again.json["state"].as_str()), (200, first.id(), Some("pending")));
    assert_eq!(send(&again.json["upload"], &bytes, OK_HTTP, str::to_owned, None).await, Some(412), "a fresh URL, the same bytes");
    let image = ada.confirm(first.id()).await;
    assert_eq!(
        (image.status, ada.confirm(first.id()).await.json),
        (200, image.json),
        "a repeat of the confirm, as if its answer was lost too"
    );
    let existing = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(
        (existing.status, existing.json["state"].as_str(), existing.json["image"]["id"].as_str()),
        (200, Some("ready"), Some(first.id()))
    );
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["images"], 1);
}
