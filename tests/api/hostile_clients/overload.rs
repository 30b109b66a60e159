//! Covers overload: too many connections, requests in progress, or bodies in memory are refused at once.

use futures_util::future::join_all;

use super::*;
use crate::{outages::black_hole::Hole, process_client::Client, serve::Settings};

/// Asserts a Retry-After (RFC 9110 section 10.2.3) with jitter, so that refused clients do not return at the same time.
fn assert_retry_after(received: &RawAnswer) {
    assert_eq!(received.problem(), (503, "unavailable".to_owned()));
    let wait: u32 = received.header("retry-after").parse().unwrap();
    assert!((1..=10).contains(&wait), "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_connection_is_answered_503_and_closed() {
    let app = TestApp::start_with(|config| config.load.max_connections = 10).await;
    let livez = "GET /livez HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut stream = connect(&app.base).await;
        stream.write_all(livez.as_bytes()).await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        held.push(stream);
    }
    for _ in 0..20 {
        let received = send_raw(&app, livez).await;
        assert_eq!((received.len(), received[0].header("connection")), (1, "close"), "{received:?}");
        assert_retry_after(&received[0]);
    }
    // Open connections keep working, and a closed one makes room.
    held[0].write_all(livez.as_bytes()).await.unwrap();
    assert!(held[0].read(&mut [0; 4096]).await.unwrap() > 0);
    drop(held);
    let began = Instant::now();
    while send_raw(&app, "GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await[0].status != 200 {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_request_is_answered_503_at_once() {
    let app = TestApp::start().await;
    let mut ada = app.user().await;
    let hole = Hole::before_mongodb(&app).await;
    let settings = Settings::for_app(&app).with("MONGODB_URI", &hole.uri(&app)).with("MAX_REQUESTS", "8");
    let (process, client) = settings.with("TRUSTED_PROXIES", "127.0.0.1").start_listening().await;
    let me = |connection: &str| {
        let token = ada.token.as_ref().unwrap();
        format!("GET /api/auth/me HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\nconnection: {connection}\r\n\r\n")
    };
    let page = |from: &str| format!("GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: {from}\r\nconnection: close\r\n\r\n");
    let ask = async |text: String| {
        let mut stream = connect(&client.base).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        let began = Instant::now();
        let received = read_until_closed(&mut stream, Duration::from_secs(20)).await;
        (answers(&received).remove(0), began.elapsed())
    };
    assert_eq!(ask(me("close")).await.0.status, 200);
    hole.stall();
    // Sixteen requests of one user: three wait for the database, which is a user's third of the permits, the others are refused.
    // Another user of the same network gets permits until the network has its half.
    let (crowd, (near, far)) = tokio::join!(join_all((0..16).map(|_| ask(me("close")))), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        (ask(page("127.0.0.2")).await.0, ask(page("198.51.100.1")).await.0)
    });
    assert_eq!((near.status, far.status), (200, 200), "{near:?} {far:?}");
    let (refused, waited): (Vec<_>, Vec<_>) = crowd.into_iter().partition(|(_, took)| *took < Duration::from_secs(2));
    assert_eq!((refused.len(), waited.len()), (13, 3), "{refused:?} {waited:?}");
    refused.iter().for_each(|(received, _)| assert_retry_after(received));
    assert!(
        waited.iter().all(|(received, took)| matches!(received.status, 503 | 504) && *took < Duration::from_secs(10)),
        "{waited:?}"
    );
    let (crowd, livez) = tokio::join!(join_all((0..3).map(|_| ask(me("close")))), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        ask("GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".to_owned()).await
    });
    assert!(crowd.len() == 3 && livez.0.status == 200, "whether it lives is always answered: {livez:?}");
    hole.resume();
    let began = Instant::now();
    while ask(me("close")).await.0.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", process.err());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ada.token = None;
}

/// 64 MiB for large bodies; a small body is accepted all the same.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_share_a_memory_limit_and_small_ones_always_fit() {
    const LARGE: usize = 80;
    let app = TestApp::start().await;
    let (process, client) = Settings::for_app(&app).start_listening().await;
    let before = memory(process.id(), "VmRSS");
    let head =
        "POST /api/images/i/parts HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 1048576\r\n\r\n";
    let body = vec![b' '; (1 << 20) - 1];
    let mut held = Vec::new();
    for _ in 0..LARGE {
        let mut stream = connect(&client.base).await;
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&body).await;
        held.push(stream);
    }
    let log_in = serde_json::json!({ "email": "nobody@example.com", "password": crate::app::PASSWORD });
    assert_eq!(client.post("/api/auth/login", &log_in).await.0, 401, "a small body");
    let peak = memory(process.id(), "VmHWM");
    assert!(peak < before + 200 * 1024, "{before} KiB before, {peak} KiB at most");
    // A body that does not fit is refused before its end; one that fits is answered after it.
    let status = async |stream: &mut TcpStream, limit| {
        let mut said = vec![0; 4096];
        let length = tokio::time::timeout(limit, stream.read(&mut said)).await.ok()?.unwrap_or(0);
        let mut received = answers(&String::from_utf8_lossy(&said[..length]));
        received.iter().filter(|answer| answer.status == 503).for_each(assert_retry_after);
        received.pop().map(|answer| answer.status)
    };
    let early = join_all(held.iter_mut().map(|stream| status(stream, SOON))).await;
    let refused = early.iter().flatten().filter(|status| **status == 503).count();
    assert!((1..LARGE).contains(&refused), "{early:?}");
    for (stream, early) in held.iter_mut().zip(early) {
        if early.is_none() {
            let _ = stream.write_all(b" ").await;
            let late = status(stream, Duration::from_secs(30)).await;
            assert!(matches!(late, Some(401 | 408)), "{late:?}");
        }
    }
}

/// Returns the CPU time of all threads, in hundredths of a second.
fn cpu_time(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Open connections are served, no thread spins, and later clients are accepted once there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn server_survives_running_out_of_file_descriptors() {
    let app = TestApp::start().await;
    let (process, client) = Settings::for_app(&app).with("SWEEP_INTERVAL", "1h").start_listening().await;
    assert_eq!(client.get("/readyz").await.0, 200);
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count() + 10;
    let arguments = ["--pid".to_owned(), process.id().to_string(), format!("--nofile={files}:")];
    assert!(std::process::Command::new("prlimit").args(arguments).status().unwrap().success());
    let crowd = join_all((0..60).map(|_| connect(&client.base))).await;
    let began = Instant::now();
    while !process.err().contains("failed to accept a connection") {
        assert!(began.elapsed() < SOON, "{}", process.err());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = cpu_time(process.id());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cpu_time(process.id()) - before < 100, "it spins");
    assert_eq!(client.get("/livez").await.0, 200, "on the connection of before");
    drop(crowd);
    let newcomer = Client::at(client.base.clone());
    assert_eq!(newcomer.get("/livez").await.0, 200);
}
