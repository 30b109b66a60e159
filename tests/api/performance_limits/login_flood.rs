//! A flood of logins on a server process: its memory, the rejection of excess logins, and the latency of another user's gallery.
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

use super::{Duration, Instant, PASSWORD, TestApp, json, median};
use crate::{
    app::unique_png,
    process_client::{Client, Process},
    serve::Settings,
};

/// Number of logins of a flood, all at the same time.
const PARALLEL_LOGINS: usize = 500;
/// Number of requests that are sent at the same time, and whose connections are closed before an answer.
const ABORTED_REQUESTS: usize = 1000;
/// Number of floods of each kind, so that enough gallery requests are made during them for a 99th percentile.
const FLOODS: usize = 8;
/// Number of gallery requests for the percentile without load.
pub(super) const IDLE_REQUESTS: usize = 1500;
/// MiB per hash, from argon2's parameters.
const HASH_MIB: u64 = 19;
/// MiB for everything else that 500 connections take.
const SLACK_MIB: u64 = 64;
/// Bound of an answer's time: more than the longest wait for a permit (2 s) plus the time to hash.
const LONGEST_ANSWER: Duration = Duration::from_secs(4);

/// Returns a value of /proc/PID/status in KiB.
fn memory(process: &Process, name: &str) -> u64 {
    crate::hostile_clients::memory(process.id(), name)
}

/// Returns the bytes of a login request.
fn login(address: &str, email: &str, password: &str) -> Vec<u8> {
    let body = json!({ "email": email, "password": password }).to_string();
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Opens a connection and sends a request.
async fn send(address: &str, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

/// Answer to a login.
#[derive(Debug)]
struct LoginAnswer {
    status: u16,
    retry_after: Option<u64>,
    /// Time since the request's last byte.
    took: Duration,
}

/// Reads an answer to its end, and measures the time.
async fn read_answer(mut stream: TcpStream) -> LoginAnswer {
    let began = Instant::now();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
    let retry_after = answer.lines().find_map(|line| line.strip_prefix("retry-after: ")).map(|seconds| seconds.parse().unwrap());
    LoginAnswer { status, retry_after, took: began.elapsed() }
}

/// A thread that requests one user's gallery again and again, and records the time of each request.
pub(super) struct Owner {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Duration>>,
}

impl Owner {
    /// Starts requests until [`Self::stop`], or this many.
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

    /// Waits until all requests are answered; returns their times.
    pub(super) async fn done(self) -> Vec<Duration> {
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap()
    }

    /// Ends the requests; returns the times of those that were answered.
    pub(super) async fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.done().await
    }
}

/// Returns the 99th percentile.
pub(super) fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// A server process with one user, who has three images.
pub(super) struct Server {
    pub(super) process: Process,
    pub(super) client: Client,
    address: String,
    email: String,
}

impl Server {
    /// Starts a server with one user and three images, and logs in once, so that no first request is measured.
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

    /// Starts this many gallery requests of the owner, one after the other.
    pub(super) fn owner(&self, times: usize) -> Owner {
        Owner::start_requests(&self.client.base, self.client.token.as_ref().unwrap(), times)
    }

    /// Sends all logins at once, half of them with the right password; returns the answers.
    async fn flood(&self) -> Vec<LoginAnswer> {
        let requests = ["another three boats", PASSWORD].map(|password| login(&self.address, &self.email, password));
        let logins = (0..PARALLEL_LOGINS).map(|at| {
            let (address, request) = (self.address.clone(), requests[at % 2].clone());
            tokio::spawn(async move { read_answer(send(&address, &request).await).await })
        });
        join_all(logins).await.into_iter().map(Result::unwrap).collect()
    }

    /// Sends logins, half of them with the right password, and repeats each rejected one after its Retry-After until it is
    /// answered; returns the number of requests.
    async fn log_in_until_answered(&self) -> usize {
        let requests = ["another three boats", PASSWORD].map(|password| login(&self.address, &self.email, password));
        let logins = (0..PARALLEL_LOGINS).map(|at| {
            let (address, request) = (self.address.clone(), requests[at % 2].clone());
            tokio::spawn(async move {
                let mut tries = 1;
                loop {
                    match read_answer(send(&address, &request).await).await {
                        LoginAnswer { status: 503, retry_after: Some(wait), .. } => {
                            tokio::time::sleep(Duration::from_secs(wait)).await
                        }
                        LoginAnswer { status: 200 | 401, retry_after: None, .. } => return tries,
                        other => panic!("{other:?}"),
                    }
                    tries += 1;
                }
            })
        });
        join_all(logins).await.into_iter().map(Result::unwrap).sum()
    }

    /// Closes each connection within 97 ms: while its request is read, waits, or is answered.
    async fn hang_up(&self, request: &[u8]) {
        let logins = (0..ABORTED_REQUESTS).map(|at| {
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

    /// Asserts that the peak memory is at most `base` KiB, one hash per permit, and the slack.
    fn assert_bounded(&self, base: u64, when: &str) {
        let permits = available_parallelism().unwrap().get() as u64;
        let bound = base + (permits * HASH_MIB + SLACK_MIB) * 1024;
        let (peak, now) = (memory(&self.process, "VmHWM"), memory(&self.process, "VmRSS"));
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!("{when}: peak {:.1} MiB, now {:.1}, base {:.1}, bound {:.1}", mib(peak), mib(now), mib(base), mib(bound));
        assert!(peak <= bound, "{when}");
    }

    /// Asserts that the server is usable: sign-in, gallery and readiness.
    async fn assert_answers(&mut self) {
        let email = self.email.clone();
        self.client.sign_in("login", &email).await;
        let (status, gallery) = self.client.get("/api/images/gallery").await;
        assert_eq!((status.as_u16(), gallery["images"].as_array().unwrap().len()), (200, 3));
        assert_eq!(self.client.get("/readyz").await.0, 200);
    }
}

/// Times of gallery requests during other work.
struct GalleryTimes {
    p99: Duration,
    requests: usize,
}

impl GalleryTimes {
    /// Summarizes the times of requests.
    fn of(times: Vec<Duration>) -> Self {
        Self { requests: times.len(), p99: p99(times) }
    }
}

impl std::fmt::Display for GalleryTimes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "gallery p99 {:?} of {} requests", self.p99, self.requests)
    }
}

/// Floods the server with logins that are not repeated; returns their answers, and the gallery's times.
async fn measure_floods(server: &Server) -> (Vec<LoginAnswer>, GalleryTimes) {
    let owner = server.owner(usize::MAX);
    let mut answers = Vec::new();
    for _ in 0..FLOODS {
        let flood_answers = server.flood().await;
        assert!(flood_answers.iter().any(|answer| answer.status == 200), "some logins succeed");
        answers.extend(flood_answers);
    }
    (answers, GalleryTimes::of(owner.stop().await))
}

/// Asserts that every login was answered in time, and that each rejected one has a Retry-After.
fn assert_answered_in_time(answers: &[LoginAnswer]) {
    let mut rejected = Vec::new();
    for answer in answers {
        assert!(answer.took < LONGEST_ANSWER, "{answer:?}");
        match answer {
            LoginAnswer { status: 200 | 401, retry_after: None, .. } => {}
            LoginAnswer { status: 503, retry_after: Some(1..), .. } => rejected.push(answer.took),
            other => panic!("{other:?}"),
        }
    }
    println!(
        "{FLOODS} × {PARALLEL_LOGINS} logins: {} done, {} rejected, those in {:?} (median), {:?} (99 %)",
        answers.len() - rejected.len(),
        rejected.len(),
        median(&mut rejected.clone()),
        p99(rejected.clone())
    );
}

/// Sends logins until each is answered; returns the gallery's times meanwhile.
async fn log_in_repeatedly(server: &Server) -> GalleryTimes {
    let began = Instant::now();
    let owner = server.owner(usize::MAX);
    let tries = server.log_in_until_answered().await;
    let gallery = GalleryTimes::of(owner.stop().await);
    println!("{PARALLEL_LOGINS} logins, each until answered: {tries} tries in {:?}; {gallery}", began.elapsed());
    gallery
}

/// Sends requests whose connections are closed before they are answered; returns the gallery's times meanwhile.
async fn abort(server: &Server, request: &[u8], label: &str) -> GalleryTimes {
    let owner = server.owner(usize::MAX);
    for _ in 0..FLOODS {
        server.hang_up(request).await;
    }
    let gallery = GalleryTimes::of(owner.stop().await);
    println!("{FLOODS} × {ABORTED_REQUESTS} aborted {label}: {gallery}");
    gallery
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "compares times and memory: needs an idle machine"]
async fn a7_flood_of_logins_is_bounded_and_galleries_stay_fast() {
    let app = TestApp::start().await;
    let mut server = Server::start(&app).await;
    let idle = GalleryTimes::of(server.owner(IDLE_REQUESTS).done().await);
    let base = memory(&server.process, "VmRSS");

    let (answers, flooded) = measure_floods(&server).await;
    let beside_retries = log_in_repeatedly(&server).await;
    assert_answered_in_time(&answers);
    println!("idle: {idle}; flooded: {flooded}");
    server.assert_bounded(base, "after the parallel logins");
    server.assert_answers().await;

    // The clients run on the same machine, and their connections take time there that the queue of hashes does not limit. Aborted
    // logins are therefore compared with aborted health checks, which cost the server only their connections.
    let login = login(&server.address, &server.email, PASSWORD);
    let health_check = format!("GET /livez HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.address).into_bytes();
    let beside_logins = abort(&server, &login, "logins").await;
    let beside_health_checks = abort(&server, &health_check, "health checks").await;
    server.assert_bounded(base, "after the aborted requests");
    tokio::time::sleep(LONGEST_ANSWER).await;
    server.assert_answers().await;

    assert!(beside_retries.p99 <= 2 * idle.p99, "the gallery is slow beside logins");
    assert!(beside_logins.p99 <= 2 * beside_health_checks.p99, "the gallery is slow beside aborted logins");
}
