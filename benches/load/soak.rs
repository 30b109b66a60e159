//! A long run at half of the server's rate, in which memory, tasks, connections and latency should stay flat: `cargo bench --bench
//! load -- soak`. `SOAK_SECONDS` is its length (default 300); it prints a line for each tenth of it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use super::{
    CONNECTIONS,
    client::{AsyncWork, Connection, load, repeat, request},
    data::{self, User},
    gallery, median,
    report::{Bar, Report},
    servers::{DATABASE, Dependencies, Server, free_port},
};

/// Number of intervals; the benchmark prints a line for each.
const INTERVALS: u32 = 10;

/// Measurements of an interval, which are compared with those of others.
struct Interval {
    /// Resident memory in MiB.
    memory: f64,
    /// Number of the server's tasks.
    tasks: f64,
    /// Median latency in milliseconds.
    p50: f64,
    /// 99th percentile of the latency in milliseconds.
    p99: f64,
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

/// Measures pages of 50 images, pages of one image, and the user's account, from [`CONNECTIONS`] connections.
pub async fn measure(report: &mut Report) {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300.0);
    let time = Duration::from_secs_f64(seconds) / INTERVALS;
    let dependencies = Dependencies::start().await;
    let admin_address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let valet = Server::valet_with(&dependencies, [("ADMIN_BIND", admin_address.to_string())]).await;
    let ada = User::of_valet(valet.address).await;
    let driver = data::driver(&dependencies.mongod.uri()).await;
    data::fill(&driver.database(DATABASE).collection("images"), &ada.id, data::IMAGES).await;
    let full = repeat(valet.address, CONNECTIONS, Duration::from_secs(5), gallery(&ada, 50)).await.rate;
    let pause = Duration::from_secs_f64(CONNECTIONS as f64 / (full / 2.0));
    println!("soak: {:.0} s at {:.0} requests a second, half of {full:.0}", seconds, full / 2.0);
    let requests: Arc<[_]> = [gallery(&ada, 50), gallery(&ada, 1), ada.request("GET", "/api/auth/me", None)].into();
    let mut intervals = Vec::new();
    for _ in 0..INTERVALS {
        let began = Instant::now();
        let done = load(CONNECTIONS, time, |worker| Paced {
            address: valet.address,
            connection: None,
            requests: requests.clone(),
            turn: worker,
            pause,
            next: began + pause.mul_f64(worker as f64 / CONNECTIONS as f64),
        })
        .await;
        let (memory, tasks) = (valet.memory().unwrap_or(f64::NAN), metric(admin_address, "valet_tokio_alive_tasks").await);
        let connections = metric(admin_address, "valet_http_connections").await;
        let pool = metric(admin_address, "valet_mongodb_connections").await;
        println!(
            "{:5.0}/s  p50 {:5.2} ms  p99 {:6.2} ms  {memory:5.1} MiB  {tasks:.0} tasks  {connections:.0} connections, {pool:.0} to MongoDB",
            done.rate, done.p50, done.p99
        );
        intervals.push(Interval { memory, tasks, p50: done.p50, p99: done.p99 });
    }
    // The first interval warms up.
    let (early, late) = intervals[1..].split_at(intervals.len() / 2 - 1);
    let mut compare = |name, value: fn(&Interval) -> f64, bar| {
        let median_of = |half: &[Interval]| median(half.iter().map(value).collect());
        report.ratio(name, median_of(late) / median_of(early), Bar::AtMost(bar));
    };
    // The bounds leave room for noise, which is greater in percentiles.
    compare("soak: memory of the second half, to the first", |interval| interval.memory, 1.05);
    compare("soak: tasks of the second half, to the first", |interval| interval.tasks, 1.05);
    compare("soak: p50 of the second half, to the first", |interval| interval.p50, 1.2);
    compare("soak: p99 of the second half, to the first", |interval| interval.p99, 1.5);
    drop(valet);
    dependencies.stop().await;
}

/// Returns the value of a metric without labels.
async fn metric(admin_address: SocketAddr, name: &str) -> f64 {
    let mut connection = Connection::open(admin_address).await;
    let (status, body) = connection.send(&request("GET", "/metrics", None, None)).await;
    assert_eq!(status, 200);
    let text = String::from_utf8_lossy(body);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
}
