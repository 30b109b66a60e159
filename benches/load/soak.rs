//! A long run at half of the server's rate, in which memory, tasks, connections, rate and latency should stay flat: `cargo bench
//! --bench load -- soak`. `SOAK_SECONDS` is its length (default 300). It prints a line for each tenth of it, and compares the
//! median of the second half with that of the first.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until};

use super::{
    CONNECTIONS, batch,
    client::{AsyncWork, Connection, Load, run_load},
    data::{self, User},
    gallery, median,
    metrics::metric,
    report::{Bound, Report},
    servers::{DATABASE, Dependencies, Server, free_port},
};

/// Number of intervals; the benchmark prints a line for each.
const INTERVALS: u32 = 10;
/// Length of the run that measures the server's rate.
const FULL_RATE_TIME: Duration = Duration::from_secs(5);
/// Share of an interval after which the server's resources are measured, while all connections are open.
const SAMPLE_AT: f64 = 0.9;
/// Pause between two images that are uploaded and deleted.
const UPLOAD_PAUSE: Duration = Duration::from_secs(1);

/// Measurements of an interval, which are compared with those of others.
struct Interval {
    load: Load,
    resources: Resources,
}

/// Resources of the server at a time.
struct Resources {
    /// Resident memory in MiB.
    memory: f64,
    /// Number of the server's tasks.
    tasks: f64,
    /// Number of open client connections.
    connections: f64,
    /// Number of open connections to MongoDB.
    pool: f64,
}

impl Resources {
    /// Measures the server with this administration address.
    async fn of(valet: &Server, admin_address: SocketAddr) -> Self {
        Self {
            memory: valet.memory().unwrap_or(f64::NAN),
            tasks: metric(admin_address, "valet_tokio_alive_tasks").await,
            connections: metric(admin_address, "valet_http_connections").await,
            pool: metric(admin_address, "valet_mongodb_connections").await,
        }
    }
}

/// Requests of one connection, at a pace.
struct Paced {
    address: SocketAddr,
    connection: Option<Connection>,
    requests: Arc<[Vec<u8>]>,
    /// Number of requests so far, plus the number of the worker.
    turn: usize,
    /// Time from one request to the next.
    pause: Duration,
    /// Time of the next request.
    next: Instant,
}

impl AsyncWork for Paced {
    async fn begin(&mut self) {
        sleep_until(self.next.into()).await;
        // After a slow response the pace stays the same: missed requests are not sent.
        self.next = self.next.max(Instant::now()) + self.pause;
    }

    async fn once(&mut self) -> bool {
        let connection = match &mut self.connection {
            Some(open) => open,
            none => none.insert(Connection::open(self.address).await),
        };
        self.turn += 1;
        let (status, body) = connection.send(&self.requests[self.turn % self.requests.len()]).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        true
    }
}

/// Runs the load of pages of 50 images, pages of one image, and the user's account, from [`CONNECTIONS`] connections, each with a
/// `pause` from one request to the next.
async fn run_requests_for(time: Duration, address: SocketAddr, requests: &Arc<[Vec<u8>]>, pause: Duration) -> Load {
    let began = Instant::now();
    run_load(CONNECTIONS, time, |worker| Paced {
        address,
        connection: None,
        requests: requests.clone(),
        turn: worker,
        pause,
        next: began + pause.mul_f64(worker as f64 / CONNECTIONS as f64),
    })
    .await
}

/// Uploads, confirms and deletes an image, again and again, for this time.
async fn upload_for(time: Duration, valet: &Server, s3: SocketAddr, user: &User) {
    let began = Instant::now();
    while began.elapsed() < time {
        let ids = batch::send_uploads(valet, s3, user, 1).await;
        let mut api = Connection::open(valet.address).await;
        api.expect(&user.request("POST", &format!("/api/images/{}/confirm", ids[0]), None), 200).await;
        api.expect(&user.request("DELETE", &format!("/api/images/{}", ids[0]), None), 204).await;
        sleep(UPLOAD_PAUSE.min(time.saturating_sub(began.elapsed()))).await;
    }
}

/// Measures reads at half of the server's rate, beside an upload a second.
pub async fn measure(report: &mut Report) {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300.0);
    let time = Duration::from_secs_f64(seconds) / INTERVALS;
    let dependencies = Dependencies::start().await;
    let admin_address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // The sweeper works as in production.
    let settings = [("ADMIN_BIND", admin_address.to_string()), ("SWEEP_INTERVAL", "30s".to_owned())];
    let valet = Server::valet_with(&dependencies, settings).await;
    let (ada, uploader) = (User::sign_up(valet.address).await, User::sign_up(valet.address).await);
    let driver = data::driver(&dependencies.mongod.uri()).await;
    data::fill(&driver.database(DATABASE).collection("images"), &ada.id, data::IMAGES).await;
    let requests: Arc<[_]> = [gallery(&ada, 50), gallery(&ada, 1), ada.request("GET", "/api/auth/me", None)].into();
    let full = run_requests_for(FULL_RATE_TIME, valet.address, &requests, Duration::ZERO).await.rate;
    let pause = Duration::from_secs_f64(CONNECTIONS as f64 / (full / 2.0));
    println!("soak: {:.0} s at {:.0} requests a second, half of {full:.0}", seconds, full / 2.0);
    let mut intervals = Vec::new();
    for _ in 0..INTERVALS {
        let sample = async {
            sleep(time.mul_f64(SAMPLE_AT)).await;
            Resources::of(&valet, admin_address).await
        };
        let (load, resources, ()) = tokio::join!(
            run_requests_for(time, valet.address, &requests, pause),
            sample,
            upload_for(time, &valet, dependencies.s3, &uploader)
        );
        println!(
            "{:5.0}/s  p50 {:5.2} ms  p99 {:6.2} ms  {:5.1} MiB  {:.0} tasks  {:.0} connections, {:.0} to MongoDB",
            load.rate, load.p50, load.p99, resources.memory, resources.tasks, resources.connections, resources.pool
        );
        intervals.push(Interval { load, resources });
    }
    judge(report, &intervals);
    drop(valet);
    dependencies.stop().await;
}

/// Reports the medians of the second half of the intervals as multiples of those of the first half.
fn judge(report: &mut Report, intervals: &[Interval]) {
    // The first interval warms up.
    let (early, late) = intervals[1..].split_at(intervals.len() / 2 - 1);
    let mut compare = |label, value: fn(&Interval) -> f64, bound| {
        let median_of = |half: &[Interval]| median(half.iter().map(value).collect());
        report.ratio(&format!("soak: {label} of the second half, to the first"), median_of(late) / median_of(early), bound);
    };
    compare("memory", |interval| interval.resources.memory, Bound::AtMost(1.05));
    compare("tasks", |interval| interval.resources.tasks, Bound::AtMost(1.05));
    compare("connections", |interval| interval.resources.connections, Bound::AtMost(1.05));
    compare("connections to MongoDB", |interval| interval.resources.pool, Bound::AtMost(1.05));
    compare("p50", |interval| interval.load.p50, Bound::AtMost(1.2));
    compare("p99", |interval| interval.load.p99, Bound::AtMost(1.5));
    // Requests that are late are not sent, so slow responses also lower the rate.
    compare("rate", |interval| interval.load.rate, Bound::AtLeast(0.95));
}
