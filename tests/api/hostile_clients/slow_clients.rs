//! Covers two thousand concurrent slow clients of four kinds: other clients are served, and every slow client is cut off.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;

use super::{AsyncReadExt, AsyncWriteExt, Duration, Instant, SOON, TestApp, answers, connect, memory};
use crate::{app::unique_png, serve::Settings};

/// Number of clients of each kind.
pub const SLOW: usize = 500;
/// Earliest and latest time at which the server cuts off a client with a slow head; the latest includes slack for a busy machine.
const HEAD: (Duration, Duration) = (Duration::from_secs(9), Duration::from_secs(30));
/// The same times for a client with a slow body.
const BODY: (Duration, Duration) = (Duration::from_secs(14), Duration::from_secs(40));
/// MiB that 2000 connections may take: their buffers, and bodies of 16 KiB.
const SLACK_MIB: u64 = 160;

/// A kind of slow client.
#[derive(Clone, Copy)]
pub struct Slow {
    /// First bytes that the client sends.
    sends: &'static str,
    /// Whether the client then sends a byte every 2 s.
    drips: bool,
    /// Earliest and latest time at which the server cuts the client off.
    limits: (Duration, Duration),
}

/// A client that sends nothing, one with a slow head, and two with slow bodies.
pub const KINDS: [Slow; 4] = [
    Slow { sends: "", drips: false, limits: HEAD },
    Slow { sends: "GET /livez HTTP/1.1\r\nhost: h\r\nx-half: ", drips: true, limits: HEAD },
    Slow {
        sends: "POST /api/auth/login HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 4000\r\n\r\n{",
        drips: true,
        limits: BODY,
    },
    Slow {
        sends: "POST /api/images/upload HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n3e80\r\n",
        drips: true,
        limits: BODY,
    },
];

impl Slow {
    /// Runs the client until it is cut off, and counts it in `open` once it has connected; returns the time until the end, and the
    /// answer.
    pub async fn run(self, base: &str, open: &AtomicUsize) -> (Duration, String) {
        let mut stream = connect(base).await;
        let began = Instant::now();
        let _ = stream.write_all(self.sends.as_bytes()).await;
        open.fetch_add(1, Ordering::Relaxed);
        let (mut read, mut write) = stream.split();
        let mut text = Vec::new();
        let drip = async {
            while self.drips && write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = read.read_to_end(&mut text) => {}
            () = drip => {}
            () = tokio::time::sleep(self.limits.1) => {}
        }
        (began.elapsed(), String::from_utf8_lossy(&text).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_off_and_others_are_served() {
    let app = TestApp::start().await;
    // Fewer requests than slow bodies: slow bodies hold no request permits.
    let settings = Settings::for_app(&app).with("RATE_LIMIT", "off").with("MAX_REQUESTS", "16");
    let (process, mut client) = settings.start_listening().await;
    client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
    client.upload(&unique_png()).await;
    let before = memory(process.id(), "VmRSS");

    let open = Arc::new(AtomicUsize::new(0));
    let mut crowd = Vec::new();
    for at in 0..SLOW * KINDS.len() {
        let (base, open) = (client.base.clone(), open.clone());
        crowd.push(tokio::spawn(async move { (at, KINDS[at % KINDS.len()].run(&base, &open).await) }));
        // Connections beyond the system's queue would not reach the server.
        if at % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    while open.load(Ordering::Relaxed) < crowd.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..20 {
        assert_eq!(client.get("/api/images/gallery").await.0, 200);
        client.upload(&unique_png()).await;
    }
    let peak = memory(process.id(), "VmHWM");
    assert!(peak < before + SLACK_MIB * 1024, "{before} KiB before, {peak} KiB at most");

    let crowd: Vec<_> = join_all(crowd).await.into_iter().map(Result::unwrap).collect();
    for kind in 0..KINDS.len() {
        let mut times: Vec<_> = crowd.iter().filter(|(at, _)| at % KINDS.len() == kind).map(|(_, (after, _))| *after).collect();
        times.sort_unstable();
        println!(
            "kind {kind}: cut off after {:?} to {:?} (median {:?})",
            times[0],
            times[times.len() - 1],
            times[times.len() / 2]
        );
    }
    for (at, (after, text)) in crowd {
        let (earliest, latest) = KINDS[at % KINDS.len()].limits;
        assert!((earliest..latest).contains(&after), "{}: cut off after {after:?}", at % KINDS.len());
        match at % KINDS.len() {
            // A client without a complete head gets no answer.
            0 | 1 => assert!(text.is_empty(), "{text}"),
            kind => {
                let Some(answer) = answers(&text).into_iter().next() else { continue };
                assert_eq!(answer.problem(), (408, "request_timeout".to_owned()), "{text}");
                let operation = if kind == 2 { "log_in" } else { "create_upload" };
                crate::response_validation::record(operation, &serde_json::from_str(&answer.body).unwrap());
            }
        }
    }
    client.upload(&unique_png()).await;
}

/// The client requests 60 files of more than a megabyte, and reads none of them.
#[tokio::test(flavor = "multi_thread")]
async fn client_that_reads_no_answer_is_cut_off_and_an_idle_one_is_not() {
    const REQUESTS: usize = 60;
    let app = TestApp::start().await;
    let mut reads_nothing = connect(&app.base).await;
    let request = "GET /docs/swagger-ui.js HTTP/1.1\r\nhost: h\r\n\r\n".repeat(REQUESTS);
    reads_nothing.write_all(request.as_bytes()).await.unwrap();
    let mut idle = connect(&app.base).await;
    let mut check_health = async || {
        idle.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let mut received = vec![0; 4096];
        let length = idle.read(&mut received).await.unwrap();
        assert!(received[..length].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&received[..length]));
    };
    check_health().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    // After a pause longer than the limit for a head, which does not apply between two requests.
    check_health().await;
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 20];
    let began = Instant::now();
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(SOON, reads_nothing.read(&mut buffer)).await {
        taken += length;
    }
    assert!(began.elapsed() < SOON && taken < REQUESTS << 20, "{taken} bytes in {:?}", began.elapsed());
}
