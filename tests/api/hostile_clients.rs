//! Covers malicious clients: their requests are rejected or cut off, and other clients are not affected.
//!
//! The tests use plain sockets, because HTTP clients would not send most of these requests. Well-formed requests with wrong values
//! are in `problems`.
//!
//! Routes: all.

mod injected_values;
mod overload;
mod request_bodies;
mod request_heads;
pub mod slow_clients;

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::app::TestApp;

/// Limit for answers that the server sends at once, on a busy machine.
const SOON: Duration = Duration::from_secs(8);

/// An answer parsed from the wire.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl RawAnswer {
    /// Returns the value of a header; empty if the answer has none.
    pub fn header(&self, name: &str) -> &str {
        let has_name = |line: &str| line.split_once(": ").filter(|(known, _)| known.eq_ignore_ascii_case(name)).is_some();
        self.head.lines().find(|line| has_name(line)).and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value.trim())
    }

    /// Asserts that the answer is a problem with the headers that every problem has; returns status and code.
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{self:?}");
        assert_eq!(self.header("cache-control"), "no-store", "{self:?}");
        assert!(!self.header("date").is_empty() && self.header("server").is_empty(), "{self:?}");
        let json: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(
            (json["status"].as_u64(), json["requestId"].as_str()),
            (Some(self.status.into()), Some(self.header("x-request-id")))
        );
        (self.status, json["code"].as_str().unwrap().to_owned())
    }
}

/// Parses all answers in `text`.
pub fn answers(mut text: &str) -> Vec<RawAnswer> {
    let mut received = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest[2..5].parse().ok());
        let mut answer =
            RawAnswer { status: status.unwrap_or_else(|| panic!("{text}")), head: head.to_owned(), body: String::new() };
        let length: usize = answer.header("content-length").parse().unwrap_or(0);
        answer.body = rest[..length].to_owned();
        text = &rest[length..];
        received.push(answer);
    }
    assert!(text.is_empty(), "{text}");
    received
}

/// Opens a connection to the server.
pub async fn connect(base: &str) -> TcpStream {
    TcpStream::connect(base.trim_start_matches("http://")).await.unwrap()
}

/// Reads until the server closes the connection; fails if that takes longer than `limit`.
pub async fn read_until_closed(stream: &mut TcpStream, limit: Duration) -> String {
    let mut bytes = Vec::new();
    let began = Instant::now();
    match tokio::time::timeout(limit, stream.read_to_end(&mut bytes)).await {
        // A reset ends a connection too.
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => panic!("open after {:?}: {}", began.elapsed(), String::from_utf8_lossy(&bytes)),
    }
}

/// Sends these bytes on a new connection and returns all answers until the server closes it.
pub async fn send_raw(app: &TestApp, bytes: impl AsRef<[u8]>) -> Vec<RawAnswer> {
    let mut stream = connect(&app.base).await;
    // The server may close the connection before the last byte.
    let _ = stream.write_all(bytes.as_ref()).await;
    answers(&read_until_closed(&mut stream, SOON).await)
}

/// Returns a value of /proc/PID/status, such as `VmRSS`, in KiB.
pub fn memory(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
