//! Covers SIGTERM: requests in progress are finished, within a deadline that no client can extend.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    Settings,
    metrics::{measured, scrape, value},
};
use crate::app::{PASSWORD, TestApp, eventually};
use crate::process_client::Ended;

/// Opens a connection and sends a text.
async fn connect(base: &str, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn idle_server_stops_at_once() {
    let app = TestApp::start().await;
    for signal in ["-TERM", "-INT"] {
        let (process, client) = Settings::for_app(&app).start_listening().await;
        // The client's connection stays open and idle.
        assert_eq!(client.get("/livez").await.0, 200);
        process.signal(signal);
        let Ended { status, out, err } = process.wait_for_end(Duration::from_secs(20)).await;
        assert!(status.success() && out.is_empty() && err.contains("stopped"), "{status} {err}");
    }
}

/// A connection with an incomplete request head, or without any request, does not delay the stop.
#[tokio::test]
async fn stop_does_not_wait_for_incomplete_requests() {
    let app = TestApp::start().await;
    let (process, client) = Settings::for_app(&app).start_listening().await;
    let incomplete = "GET /livez HTTP/1.1\r\nhost: valet\r\nx-half: ";
    let mut open =
        vec![connect(&client.base, "").await, connect(&client.base, incomplete).await, connect(&client.base, "\r\n").await];
    // An incomplete request after an answered one, on the same connection.
    let mut later = connect(&client.base, "GET /livez HTTP/1.1\r\nhost: valet\r\n\r\n").await;
    assert!(later.read(&mut [0; 4096]).await.unwrap() > 0);
    later.write_all(incomplete.as_bytes()).await.unwrap();
    open.push(later);
    assert_eq!(client.get("/livez").await.0, 200);
    process.signal("-TERM");
    let Ended { status, err, .. } = process.wait_for_end(Duration::from_secs(20)).await;
    assert!(status.success() && err.contains("stopped"), "{status} {err}");
    for mut stream in open {
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn first_signal_ends_every_command_that_waits_for_its_database() {
    let app = TestApp::start().await;
    let commands: [&[&str]; 10] = [
        &["serve"],
        &["worker"],
        &["worker", "--once"],
        &["taken"],
        &["check"],
        &["sweep"],
        &["recount"],
        &["key", "list"],
        &["webhook", "list"],
        &["webhook", "listen"],
    ];
    for arguments in commands {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("mongodb://{}/?directConnection=true&serverSelectionTimeoutMS=60000", silent.local_addr().unwrap());
        let settings = Settings::for_app(&app).with("MONGODB_URI", &uri).with("PREVIEWS", "worker");
        let process = settings.with("WEBHOOK_SECRET", "a secret of the tests, for webhooks alone").run(arguments);
        let connection = silent.accept().await.unwrap();
        process.signal("-TERM");
        let Ended { status, err, .. } = process.wait_for_end(Duration::from_secs(60)).await;
        // A command that ignored the signal would fail when it gives up the database.
        assert!(!err.contains("MONGODB_URI"), "{arguments:?}: {status} {err}");
        let is_server = matches!(arguments, ["serve"] | ["worker"]);
        assert!(status.success() == is_server, "{arguments:?}: {status} {err}");
        drop(connection);
    }
}

#[tokio::test]
async fn stop_finishes_requests_in_progress_until_the_deadline() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (process, client, admin) = measured(Settings::for_app(&app)).await;
    let login_head = |length: usize| {
        format!(
            "POST /api/auth/login HTTP/1.1\r\nhost: valet\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let never_ends = connect(&client.base, &format!("{}{{\"email", login_head(500))).await;
    let body = serde_json::json!({ "email": ada.email, "password": PASSWORD }).to_string();
    let (first_part, rest) = body.split_at(10);
    let mut slow = connect(&client.base, &format!("{}{first_part}", login_head(body.len()))).await;
    eventually("the server has read the beginning of both requests", async || {
        value(&scrape(&client, &admin).await, "valet_http_requests_in_flight", &[]) >= 2.0
    })
    .await;

    process.signal("-TERM");
    let began = Instant::now();
    // The server is stopping when the rest of the body arrives.
    tokio::time::sleep(Duration::from_millis(500)).await;
    slow.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"token\""), "{answer}");
    assert!(TcpStream::connect(client.base.trim_start_matches("http://")).await.is_err(), "no new connection is accepted");

    let Ended { status, err, .. } = process.wait_for_end(Duration::from_secs(30)).await;
    assert!(status.success() && err.contains("stopped"), "{status} {err}");
    // The deadline is 25 s.
    assert!(began.elapsed() < Duration::from_secs(28), "{:?}", began.elapsed());
    drop(never_ends);
}
