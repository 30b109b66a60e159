//! A flood of logins on a server process: its memory, the refusal of excess logins, and the latency of another user's gallery.
//!
//! The flood's clients are plain sockets, so that they take little CPU time on the measured machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::available_parallelism,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::{
    app::unique_png,
    process_client::{Client, Process},
    serve::Settings,
};

const PARALLEL: usize = 500;
const ABORTED: usize = 1000;
/// Number of floods of each kind, so that enough gallery requests are made during them for a 99th percentile.
const FLOODS: usize = 8;
/// Number of gallery requests for the percentile without load.
pub(super) const IDLE: usize = 1500;
/// MiB per hash, from argon2's parameters.
const HASH: u64 = 19;
/// MiB for everything else that 500 connections take.
const SLACK: u64 = 64;
/// More than the longest wait for a permit (2 s) plus the time to hash.
const LONGEST: Duration = Duration::from_secs(4);

/// Returns the KiB in a line of /proc/PID/status.
fn memory(process: &Process, name: &str) -> u64 {
    crate::hostile_clients::memory(process.id(), name)
}

/// Returns a login request as it goes over the wire.
fn login(address: &str, email: &str, password: &str) -> Vec<u8> {
    let body = json!({ "email": email, "password": password }).to_string();
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

async fn send(address: &str, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

/// Returns status, `Retry-After`, and the time since the request's last byte.
async fn read_answer(mut stream: TcpStream) -> (u16, Option<u64>, Duration) {
    let began = Instant::now();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
    let retry = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
    (status, retry.map(|seconds| seconds.parse().unwrap()), began.elapsed())
}

/// Requests the gallery continuously from a separate thread and records the times.
pub(super) struct Owner {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Duration>>,
}

impl Owner {
    /// Requests until stopped, or this many times.
    fn start_requests(base: &str, token: &str, times: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (url, token, stopped) = (format!("{base}/api/images/gallery"), token.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let http = reqwest::Client::new();
                let mut took = Vec::new();
                while took.len() < times && !stopped.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = http.get(&url).bearer_auth(&token).send().await.unwrap();
                    assert_eq!(answer.status(), 200);
                    answer.bytes().await.unwrap();
                    took.push(began.elapsed());
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                took
            })
        });
        Self { stop, thread }
    }

    pub(super) async fn done(self) -> Vec<Duration> {
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap()
    }

    pub(super) async fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.done().await
    }
}

pub(super) fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

pub(super) struct Server {
    pub(super) process: Process,
    pub(super) client: Client,
    address: String,
    email: String,
}

impl Server {
    /// Starts a server with one user, who has a few images, and warms up every path.
    pub(super) async fn start(app: &TestApp) -> Self {
        let (process, mut client) =
            Settings::for_app(app).with("RATE_LIMIT", "off").with("SWEEP_INTERVAL", "1h").start_listening().await;
        let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
        client.sign_in("signup", &email).await;
        for _ in 0..3 {
            client.upload(&unique_png()).await;
        }
        client.sign_in("login", &email).await;
        let address = client.base.trim_start_matches("http://").to_owned();
        Self { process, client, address, email }
    }

    pub(super) fn owner(&self, times: usize) -> Owner {
        Owner::start_requests(&self.client.base, self.client.token.as_ref().unwrap(), times)
    }

    /// Sends all logins at once, half of them with the right password; returns the answers.
    async fn flood(&self) -> Vec<(u16, Option<u64>, Duration)> {
        let requests = ["another three boats", PASSWORD].map(|password| login(&self.address, &self.email, password));
        let logins = (0..PARALLEL).map(|at| {
            let (address, request) = (self.address.clone(), requests[at % 2].clone());
            tokio::spawn(async move { read_answer(send(&address, &request).await).await })
        });
        join_all(logins).await.into_iter().map(Result::unwrap).collect()
    }

    /// Sends logins, half of them with the right password; each refused one is repeated after its Retry-After until it is
    /// answered.
    async fn log_in_until_answered(&self) -> usize {
        let requests = ["another three boats", PASSWORD].map(|password| login(&self.address, &self.email, password));
        let logins = (0..PARALLEL).map(|at| {
            let (address, request) = (self.address.clone(), requests[at % 2].clone());
            tokio::spawn(async move {
                let mut tries = 1;
                loop {
                    match read_answer(send(&address, &request).await).await {
                        (503, Some(wait), _) => tokio::time::sleep(Duration::from_secs(wait)).await,
                        (200 | 401, None, _) => return tries,
                        other => panic!("{other:?}"),
                    }
                    tries += 1;
                }
            })
        });
        join_all(logins).await.into_iter().map(Result::unwrap).sum()
    }

    /// Hangs up each connection while its request is sent, waits, or is being worked on.
    async fn hang_up(&self, request: &[u8]) {
        let logins = (0..ABORTED).map(|at| {
            let (address, request) = (self.address.clone(), request.to_vec());
            tokio::spawn(async move {
                let stream = send(&address, &request).await;
                tokio::time::sleep(Duration::from_millis(at as u64 % 97)).await;
                drop(stream);
            })
        });
        for login in join_all(logins).await {
            login.unwrap();
        }
    }

    fn assert_bounded(&self, base: u64, when: &str) {
        let permits = available_parallelism().unwrap().get() as u64;
        let bound = base + (permits * HASH + SLACK) * 1024;
        let (peak, now) = (memory(&self.process, "VmHWM"), memory(&self.process, "VmRSS"));
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!("{when}: peak {:.1} MiB, now {:.1}, base {:.1}, bound {:.1}", mib(peak), mib(now), mib(base), mib(bound));
        assert!(peak <= bound, "{when}");
    }

    async fn assert_answers(&mut self) {
        let email = self.email.clone();
        self.client.sign_in("login", &email).await;
        let (status, gallery) = self.client.get("/api/images/gallery").await;
        assert_eq!((status.as_u16(), gallery["images"].as_array().unwrap().len()), (200, 3));
        assert_eq!(self.client.get("/readyz").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "compares times and memory: needs an idle machine"]
async fn a7_flood_of_logins_is_bounded_and_galleries_stay_fast() {
    let app = TestApp::start().await;
    let mut server = Server::start(&app).await;
    let idle = p99(server.owner(IDLE).done().await);
    let base = memory(&server.process, "VmRSS");

    let owner = server.owner(usize::MAX);
    let mut answers = Vec::new();
    for _ in 0..FLOODS {
        let of_one = server.flood().await;
        assert!(of_one.iter().any(|(status, ..)| *status == 200), "some logins succeed");
        answers.extend(of_one);
    }
    let flooded = owner.stop().await;
    let asked = flooded.len();
    let flooded = p99(flooded);

    let began = Instant::now();
    let owner = server.owner(usize::MAX);
    let tries = server.log_in_until_answered().await;
    let crowded = owner.stop().await;
    let among = crowded.len();
    let crowded = p99(crowded);
    println!(
        "{PARALLEL} logins, each until answered: {tries} tries in {:?}; gallery p99 {crowded:?} of {among}",
        began.elapsed()
    );
    let mut refused = Vec::new();
    for (status, retry, took) in &answers {
        assert!(*took < LONGEST, "{status} after {took:?}");
        match (status, retry) {
            (200 | 401, None) => {}
            (503, Some(1..)) => refused.push(*took),
            other => panic!("{other:?}"),
        }
    }
    println!(
        "{FLOODS} × {PARALLEL} logins: {} done, {} refused, those in {:?} (median), {:?} (99 %)",
        answers.len() - refused.len(),
        refused.len(),
        median(&mut refused.clone()),
        p99(refused.clone())
    );
    println!("gallery p99: idle {idle:?} of {IDLE}, flooded {flooded:?} of {asked}");
    server.assert_bounded(base, "after the parallel ones");
    server.assert_answers().await;

    // The queue of hashes does not limit the cost of so many connections on the machine that also makes them.
    let aborted = login(&server.address, &server.email, PASSWORD);
    let nothing = format!("GET /livez HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.address).into_bytes();
    let mut beside = Vec::new();
    for (request, what) in [(&aborted, "logins"), (&nothing, "questions that cost nothing")] {
        let owner = server.owner(usize::MAX);
        for _ in 0..FLOODS {
            server.hang_up(request).await;
        }
        let times = owner.stop().await;
        println!("gallery p99 beside {FLOODS} × {ABORTED} aborted {what}: {:?} of {}", p99(times.clone()), times.len());
        beside.push(p99(times));
    }
    server.assert_bounded(base, "after the aborted ones");
    tokio::time::sleep(LONGEST).await;
    server.assert_answers().await;

    assert!(crowded <= 2 * idle && beside[0] <= 2 * beside[1], "the gallery suffers");
}
