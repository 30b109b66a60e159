//! Covers overload: too many connections, requests in progress, or bodies in memory are rejected at once.

use futures_util::future::join_all;

use super::{
    AsyncReadExt, AsyncWriteExt, Duration, Instant, RawAnswer, SOON, TcpStream, TestApp, answers, connect, memory,
    read_until_closed, send_raw,
};
use crate::{
    outages::{LIMIT, stalling_relay::StallingRelay},
    process_client::Client,
    serve::Settings,
};

/// Asserts a Retry-After (RFC 9110 section 10.2.3) between 1 and 10 s: the jitter keeps rejected clients from returning at the same
/// time.
fn assert_retry_after(received: &RawAnswer) {
    assert_eq!(received.problem(), (503, "unavailable".to_owned()));
    let wait: u32 = received.header("retry-after").parse().unwrap();
    assert!((1..=10).contains(&wait), "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_connection_is_answered_503_and_closed() {
    let app = TestApp::start_with(|config| config.load.max_connections = 10).await;
    let livez = "GET /livez HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut connections = Vec::new();
    for _ in 0..10 {
        let mut stream = connect(&app.base).await;
        stream.write_all(livez.as_bytes()).await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        connections.push(stream);
    }
    for _ in 0..20 {
        let received = send_raw(&app, livez).await;
        assert_eq!((received.len(), received[0].header("connection")), (1, "close"), "{received:?}");
        assert_retry_after(&received[0]);
    }
    // Open connections keep working, and a closed one frees its permit.
    connections[0].write_all(livez.as_bytes()).await.unwrap();
    assert!(connections[0].read(&mut [0; 4096]).await.unwrap() > 0);
    drop(connections);
    let began = Instant::now();
    while send_raw(&app, "GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await[0].status != 200 {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_request_is_answered_503_at_once() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let relay = StallingRelay::before_mongodb(&app).await;
    let settings = Settings::for_app(&app).with("MONGODB_URI", &relay.uri(&app)).with("MAX_REQUESTS", "8");
    let (process, client) = settings.with("TRUSTED_PROXIES", "127.0.0.1").start_listening().await;
    let account_request = |connection: &str| {
        let token = ada.token.as_ref().unwrap();
        format!("GET /api/auth/me HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\nconnection: {connection}\r\n\r\n")
    };
    let page = |from: &str| format!("GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: {from}\r\nconnection: close\r\n\r\n");
    let send = async |text: String| {
        let mut stream = connect(&client.base).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        let began = Instant::now();
        let received = read_until_closed(&mut stream, Duration::from_secs(30)).await;
        (answers(&received).remove(0), began.elapsed())
    };
    assert_eq!(send(account_request("close")).await.0.status, 200);
    relay.stall();
    // Sixteen requests of one user: three wait for the database, a user's third of the 8 permits; the others are rejected. Another
    // user of the same network gets permits until the network has half of them.
    let (ada_answers, (same_network, other_network)) =
        tokio::join!(join_all((0..16).map(|_| send(account_request("close")))), async {
            // The requests above hold their permits by then.
            tokio::time::sleep(Duration::from_millis(300)).await;
            (send(page("127.0.0.2")).await.0, send(page("198.51.100.1")).await.0)
        });
    assert_eq!((same_network.status, other_network.status), (200, 200), "{same_network:?} {other_network:?}");
    let is_rejected = |received: &RawAnswer| received.body.contains("Too many requests are under way.");
    let (rejected, waited): (Vec<_>, Vec<_>) = ada_answers.into_iter().partition(|(received, _)| is_rejected(received));
    assert_eq!((rejected.len(), waited.len()), (13, 3), "{rejected:?} {waited:?}");
    rejected.iter().for_each(|(received, _)| assert_retry_after(received));
    let shortest = waited.iter().map(|(_, took)| *took).min().unwrap();
    assert!(rejected.iter().all(|(_, took)| *took < shortest), "at once: {rejected:?} {waited:?}");
    assert!(waited.iter().all(|(received, took)| matches!(received.status, 503 | 504) && *took < LIMIT), "{waited:?}");
    let (ada_answers, (livez, _)) = tokio::join!(join_all((0..3).map(|_| send(account_request("close")))), async {
        // The requests above hold their permits by then.
        tokio::time::sleep(Duration::from_millis(300)).await;
        send("GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".to_owned()).await
    });
    assert!(ada_answers.len() == 3 && livez.status == 200, "health checks are always answered: {livez:?}");
    relay.resume();
    let began = Instant::now();
    while send(account_request("close")).await.0.status != 200 {
        assert!(began.elapsed() < LIMIT, "{}", process.err());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Large bodies may take 64 MiB together. A small body is accepted even then.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_share_a_memory_limit_and_small_ones_always_fit() {
    // Number of bodies of 1 MiB; 64 of them reach the limit.
    const LARGE: usize = 80;
    let app = TestApp::start().await;
    let (process, client) = Settings::for_app(&app).start_listening().await;
    let before = memory(process.id(), "VmRSS");
    let head =
        "POST /api/images/i/parts HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 1048576\r\n\r\n";
    let body = vec![b' '; (1 << 20) - 1];
    let mut connections = Vec::new();
    for _ in 0..LARGE {
        let mut stream = connect(&client.base).await;
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&body).await;
        connections.push(stream);
    }
    let log_in = serde_json::json!({ "email": "nobody@example.com", "password": crate::app::PASSWORD });
    assert_eq!(client.post("/api/auth/login", &log_in).await.0, 401, "small bodies are still accepted");
    let peak = memory(process.id(), "VmHWM");
    // Bodies may take 64 MiB; the rest is buffers of the sockets and of the allocator.
    assert!(peak < before + 200 * 1024, "{before} KiB before, {peak} KiB at most");
    // A body that does not fit is rejected before its end; one that fits is answered after its end.
    let status = async |stream: &mut TcpStream, limit| {
        let mut text = vec![0; 4096];
        let length = tokio::time::timeout(limit, stream.read(&mut text)).await.ok()?.unwrap_or(0);
        let mut received = answers(&String::from_utf8_lossy(&text[..length]));
        received.iter().filter(|answer| answer.status == 503).for_each(assert_retry_after);
        received.pop().map(|answer| answer.status)
    };
    let early = join_all(connections.iter_mut().map(|stream| status(stream, SOON))).await;
    let rejected = early.iter().flatten().filter(|status| **status == 503).count();
    assert!((1..LARGE).contains(&rejected), "{early:?}");
    for (stream, early) in connections.iter_mut().zip(early) {
        if early.is_none() {
            let _ = stream.write_all(b" ").await;
            let late = status(stream, Duration::from_secs(30)).await;
            // 401, because the call has no token; 408, if the deadline of the body has passed meanwhile.
            assert!(matches!(late, Some(401 | 408)), "{late:?}");
        }
    }
}

/// Returns the processor time of all threads of a process, in hundredths of a second.
fn cpu_time(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // `utime` and `stime`.
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Open connections are served, no thread spins, and later clients are accepted when descriptors are free again.
#[tokio::test(flavor = "multi_thread")]
async fn server_survives_running_out_of_file_descriptors() {
    let app = TestApp::start().await;
    let (process, client) = Settings::for_app(&app).with("SWEEP_INTERVAL", "1h").start_listening().await;
    assert_eq!(client.get("/readyz").await.0, 200);
    // Ten more than are open: the connections below exhaust them.
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count() + 10;
    let arguments = ["--pid".to_owned(), process.id().to_string(), format!("--nofile={files}:")];
    assert!(std::process::Command::new("prlimit").args(arguments).status().unwrap().success());
    let excess_connections = join_all((0..60).map(|_| connect(&client.base))).await;
    let began = Instant::now();
    while !process.err().contains("failed to accept a connection") {
        assert!(began.elapsed() < SOON, "{}", process.err());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = cpu_time(process.id());
    // The processor time is measured over 2 s. A spinning thread would take 200 hundredths.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cpu_time(process.id()) - before < 100, "no thread spins");
    assert_eq!(client.get("/livez").await.0, 200, "served on the connection that was open before");
    drop(excess_connections);
    let later_client = Client::at(client.base.clone());
    assert_eq!(later_client.get("/livez").await.0, 200);
}
