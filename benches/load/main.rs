//! Benchmark of the server under load, compared with the MongoDB driver alone and with an Express server: `cargo bench --bench
//! load`.
//!
//! Everything runs on this machine and shares its processors, so only ratios within one execution are meaningful. Most are the
//! median of five alternating runs; processor times and memory are measured once. The benchmark ends with the machine, the date
//! and a table of the ratios beside their bounds and the baseline in `benches/baseline.json`, and warns of ratios that became worse
//! by a tenth; with `BENCH_BASELINE=write` it replaces the measured ratios in that file.
//! `BENCH_SECONDS` (default 2) is the length of one run in seconds. `PEER_EXPRESS` names the folder of an Express server
//! (`server.mjs`, its packages installed) to compare with, if node is installed. An argument selects one part: `gallery`
//! only reads pages, `slow-store` confirms and sweeps with a slow store, `soak` a long run, `due` starts with many due images:
//! `cargo bench --bench load -- due`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod batch;
mod client;
mod data;
mod due;
mod metrics;
mod open_uploads;
mod report;
mod servers;
mod slow_store;
mod soak;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use valet::state::AppState;

use self::{
    client::{CREATED, Connection, Load, OK, Requests, repeat, run_load, send_each},
    data::{DriverGalleryRead, DriverUploadWrite, User, declaration},
    report::{Bound, Report},
    servers::{DATABASE, Dependencies, Server},
};

/// Number of runs whose median is a ratio.
pub const RUNS: usize = 5;
/// Number of connections under load.
const CONNECTIONS: usize = 16;
/// Number of users whose uploads are opened, so that no user's limit of open uploads ends a run.
const UPLOADERS: usize = 32;

#[tokio::main]
async fn main() {
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    let mut report = Report::default();
    let is_selected = |part: &str| std::env::args().any(|argument| argument == part);
    if is_selected("slow-store") {
        slow_store::measure(&mut report).await;
        return report.end();
    }
    if is_selected("soak") {
        soak::measure(&mut report).await;
        return report.end();
    }
    if is_selected("due") {
        due::measure(&mut report).await;
        return report.end();
    }
    let dependencies = Dependencies::start().await;
    let driver = data::driver(&dependencies.mongod.uri()).await;

    let report = &mut report;
    if !is_selected("gallery") {
        measure_starts(report, &dependencies).await;
    }

    let valet = Server::valet(&dependencies).await;
    let ada = User::sign_up(valet.address).await;
    data::fill(&driver.database(DATABASE).collection("images"), &ada.id, data::IMAGES).await;
    let express = Server::express(&dependencies).await;
    let eve = match &express {
        Some(server) => Some(User::sign_up_at_express(server).await),
        None => None,
    };
    if let Some(eve) = &eve {
        data::fill_express(&driver, &eve.id).await;
    }
    let peer = express.as_ref().zip(eve.as_ref());

    measure_galleries(report, time, &valet, &ada, &driver, peer).await;
    measure_first_readings(report, time, &valet, &driver).await;
    if is_selected("gallery") {
        drop((valet, express));
        dependencies.stop().await;
        return std::mem::take(report).end();
    }
    measure_upload_openings(report, time, &valet, &driver, peer).await;
    measure_confirms(&valet, dependencies.s3).await;
    measure_logins(time, &valet, &ada).await;
    batch::measure(report, &valet, dependencies.s3).await;
    open_uploads::measure(report, &valet, &driver.database(DATABASE)).await;
    slow_store::measure(report).await;
    measure_session_check(report, &dependencies, &valet, &ada).await;
    println!("after all this: {:.1} MiB", valet.memory().unwrap_or(f64::NAN));
    drop((valet, express));
    measure_crowd(report, time, &Server::valet(&dependencies).await, &ada).await;
    dependencies.stop().await;
    std::mem::take(report).end();
}

/// Measures the start of a server, and its memory when it is idle.
async fn measure_starts(report: &mut Report, dependencies: &Dependencies) {
    // The first start creates the indexes.
    drop(Server::valet(dependencies).await);
    let mut starts = Vec::new();
    let mut idle = Vec::new();
    for _ in 0..RUNS {
        let server = Server::valet(dependencies).await;
        starts.push(server.started_in.as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(300)).await;
        idle.push(server.memory().unwrap_or(f64::NAN));
    }
    println!("start to /readyz: {:.0} ms (bound 300)", median(starts));
    report.ratio("memory when idle, in MiB", median(idle), Bound::AtMost(40.0));
}

/// The Express server and its user, if there is one to compare with.
type Peer<'a> = Option<(&'a Server, &'a User)>;

/// Returns the request for the first page of a gallery.
fn gallery(user: &User, limit: u32) -> Vec<u8> {
    user.request("GET", &format!("/api/images/gallery?limit={limit}"), None)
}

/// Measures pages of a gallery, compared with the driver alone and with the Express server.
async fn measure_galleries(
    report: &mut Report,
    time: Duration,
    valet: &Server,
    ada: &User,
    driver: &mongodb::Client,
    peer: Peer<'_>,
) {
    let (mut by_driver, mut by_valet, mut by_express, mut p99_to_p50) = (vec![], vec![], vec![], vec![]);
    for _ in 0..RUNS {
        by_driver.push(run_load(CONNECTIONS, time, |_| DriverGalleryRead::new(driver, &ada.id)).await);
        let page = repeat(valet.address, CONNECTIONS, time, gallery(ada, 50)).await;
        p99_to_p50.push(page.p99 / page.p50);
        by_valet.push(page);
        if let Some((server, eve)) = peer {
            by_express.push(repeat(server.address, CONNECTIONS, time, gallery(eve, 50)).await);
        }
    }
    print_medians("driver only: find(50)", &by_driver, None);
    print_medians("gallery(50)", &by_valet, None);
    report.ratio("gallery(50), to the driver alone", ratio(&by_valet, &by_driver), Bound::AtLeast(0.6));
    report.ratio("gallery(50): p99, to p50", median(p99_to_p50), Bound::AtMost(15.0));
    if peer.is_some() {
        print_medians("Express: gallery(50)", &by_express, None);
        report.ratio("gallery(50), to Express", ratio(&by_valet, &by_express), Bound::AtLeast(55.0));
    }
    let plain_request = gallery(ada, 50);
    let end = plain_request.len() - 2;
    let gzip_request = [&plain_request[..end], b"accept-encoding: gzip\r\n\r\n"].concat();
    measure_cost(time, valet, "gallery(50), gzip", gzip_request.clone()).await;
    let mut api = Connection::open(valet.address).await;
    let (plain, packed) = (api.send(&plain_request).await.1.len(), api.send(&gzip_request).await.1.len());
    println!("  {plain} bytes, {packed} compressed");
    measure_processor_time(report, time, valet, ada).await;
}

/// Number of users whose first pages have more images than the server remembers.
const SELDOM_READERS: usize = 400;

/// Measures pages of images whose texts the server does not keep: each is read again only after the pages of all other users.
async fn measure_first_readings(report: &mut Report, time: Duration, valet: &Server, driver: &mongodb::Client) {
    let images = driver.database(DATABASE).collection("images");
    let mut users = Vec::new();
    for _ in 0..SELDOM_READERS {
        let user = User::sign_up(valet.address).await;
        data::fill(&images, &user.id, 51).await;
        users.push(user);
    }
    let pages: Arc<[Arc<[u8]>]> = users.iter().map(|user| gallery(user, 50).into()).collect();
    let turn = Arc::new(AtomicUsize::new(0));
    let (mut by_driver, mut by_valet, mut cpu) = (vec![], vec![], None);
    for _ in 0..RUNS {
        by_driver.push(run_load(CONNECTIONS, time, |worker| DriverGalleryRead::new(driver, &users[worker].id)).await);
        let before = valet.cpu();
        let page = run_load(CONNECTIONS, time, |_| {
            let (pages, turn) = (pages.clone(), turn.clone());
            Requests::new(valet.address, OK, move || Some(pages[turn.fetch_add(1, Ordering::Relaxed) % pages.len()].clone()))
        })
        .await;
        cpu = cpu_since(before, valet, page.rate * time.as_secs_f64());
        by_valet.push(page);
    }
    print_medians("gallery(50), read for the first time", &by_valet, cpu);
    let name = "gallery(50) read for the first time, to the driver alone";
    report.ratio(name, ratio(&by_valet, &by_driver), Bound::AtLeast(0.4));
}

/// Measures the server's processor time of gallery requests, as multiples of that of a `/livez` request.
async fn measure_processor_time(report: &mut Report, time: Duration, valet: &Server, ada: &User) {
    let livez = measure_cost(time, valet, "livez", client::request("GET", "/livez", None, None)).await;
    let mut costs = Vec::new();
    for limit in [1, 50, 100] {
        costs.push(measure_cost(time, valet, &format!("gallery({limit})"), gallery(ada, limit)).await / livez);
    }
    report.ratio("processor time of gallery(1), to /livez", costs[0], Bound::AtMost(4.0));
    report.ratio("processor time of gallery(50), to /livez", costs[1], Bound::AtMost(7.0));
}

/// Returns the server's processor time of one request, in seconds.
async fn measure_cost(time: Duration, valet: &Server, label: &str, request: Vec<u8>) -> f64 {
    let before = valet.cpu();
    let page = repeat(valet.address, CONNECTIONS, time, request).await;
    let cost = cpu_since(before, valet, page.rate * time.as_secs_f64()).unwrap_or(f64::NAN);
    print_medians(label, &[page], Some(cost));
    cost
}

/// Returns the server's mean processor time of one request, in seconds; `before` is its total before these requests.
fn cpu_since(before: Option<f64>, valet: &Server, requests: f64) -> Option<f64> {
    valet.cpu().zip(before).map(|(after, before)| (after - before) / requests)
}

/// Measures the opening of uploads, compared with the driver's same writes and with the Express server.
async fn measure_upload_openings(report: &mut Report, time: Duration, valet: &Server, driver: &mongodb::Client, peer: Peer<'_>) {
    let mut users = Vec::new();
    for _ in 0..UPLOADERS {
        users.push(User::sign_up(valet.address).await);
    }
    let users: Arc<[User]> = users.into();
    let database = driver.database(DATABASE);
    let (mut by_driver, mut by_valet, mut by_express) = (vec![], vec![], vec![]);
    let mut cpu = None;
    for _ in 0..RUNS {
        by_driver.push(run_load(CONNECTIONS, time, |worker| DriverUploadWrite::new(driver, &users, worker)).await);
        data::delete_open_uploads(&database).await;
        let before = valet.cpu();
        let opened = run_load(CONNECTIONS, time, |worker| {
            let (users, mut turn) = (users.clone(), worker);
            Requests::new(valet.address, CREATED, move || {
                turn += 1;
                let id = uuid::Uuid::new_v4();
                let body = declaration(id.as_bytes());
                Some(users[turn % users.len()].request("POST", "/api/images/upload", Some(&body)).into())
            })
        })
        .await;
        cpu = cpu_since(before, valet, opened.rate * time.as_secs_f64());
        by_valet.push(opened);
        data::delete_open_uploads(&database).await;
        if let Some((server, eve)) = peer {
            let body = declaration(b"x");
            let request: Arc<[u8]> = eve.request("POST", "/api/images/presign", Some(&body)).into();
            by_express.push(
                run_load(CONNECTIONS, time, |_| {
                    let request = request.clone();
                    Requests::new(server.address, CREATED, move || Some(request.clone()))
                })
                .await,
            );
        }
    }
    print_medians("driver only: the writes of opening an upload", &by_driver, None);
    print_medians("opening an upload", &by_valet, cpu);
    report.ratio("opening an upload, to the driver's same writes", ratio(&by_valet, &by_driver), Bound::AtLeast(0.9));
    let last_to_first = by_valet.last().zip(by_valet.first()).map_or(f64::NAN, |(last, first)| last.rate / first.rate);
    report.ratio("opening an upload: the last run, to the first", last_to_first, Bound::AtLeast(0.9));
    if peer.is_some() {
        print_medians("Express: presign", &by_express, None);
        report.ratio("opening an upload, to Express", ratio(&by_valet, &by_express), Bound::AtLeast(3.0));
    }
}

/// Measures single confirms.
async fn measure_confirms(valet: &Server, s3: std::net::SocketAddr) {
    let user = User::sign_up(valet.address).await;
    let ids = batch::send_uploads(valet, s3, &user, 400).await;
    let before = valet.cpu();
    let requests: Vec<_> = ids.iter().map(|id| user.request("POST", &format!("/api/images/{id}/confirm"), None)).collect();
    let done = send_each(valet.address, CONNECTIONS, OK, requests).await;
    print_medians("confirm", &[done], cpu_since(before, valet, ids.len() as f64));
}

/// Measures the effect of password hashing on readers.
async fn measure_logins(time: Duration, valet: &Server, ada: &User) {
    let alone = repeat(valet.address, CONNECTIONS, time, gallery(ada, 50)).await;
    let (beside, logins) =
        tokio::join!(repeat(valet.address, CONNECTIONS, time, gallery(ada, 50)), repeat(valet.address, 4, time, ada.login()));
    print_medians("gallery(50) alone", &[alone], None);
    print_medians("gallery(50) beside logins", &[beside], None);
    print_medians("login beside gallery(50)", &[logins], None);
}

/// Measures the check of a request's token and session, as a share of a gallery request.
async fn measure_session_check(report: &mut Report, dependencies: &Dependencies, valet: &Server, ada: &User) {
    const CALLS: u32 = 5000;
    let app = AppState::connect(&dependencies.config()).await.unwrap();
    let now = OffsetDateTime::now_utc();
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(app.valet.sessions.authenticate(&ada.token, now).await.unwrap());
        }
        times.push(began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
    }
    let check = median(times);
    let request = measure_cost(Duration::from_secs(1), valet, "gallery(50)", gallery(ada, 50)).await;
    println!("check of token and session: {check:.0} ns");
    // `check` is in ns and `request` in s: 1e9 ns a second, and a hundredth for per cent.
    report.ratio("check of token and session, in % of gallery(50)'s processor time", check / request / 1e7, Bound::AtMost(1.0));
}

/// Measures memory during many concurrent reads.
async fn measure_crowd(report: &mut Report, time: Duration, valet: &Server, ada: &User) {
    let page = repeat(valet.address, 256, time * 2, gallery(ada, 50)).await;
    print_medians("gallery(50), 256 connections", &[page], None);
    report.ratio("memory at 256 connections, in MiB", valet.memory().unwrap_or(f64::NAN), Bound::AtMost(120.0));
    let status = Connection::open(valet.address).await.send(&client::request("GET", "/readyz", None, None)).await.0;
    assert_eq!(status, 200);
}

/// Returns the median of the values.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Returns the median of the ratios of two rates, run by run.
fn ratio(runs: &[Load], other_runs: &[Load]) -> f64 {
    median(runs.iter().zip(other_runs).map(|(run, other)| run.rate / other.rate).collect())
}

/// Prints the medians of runs, and the server's processor time of a request in seconds.
fn print_medians(label: &str, runs: &[Load], cpu: Option<f64>) {
    let median_of = |value: fn(&Load) -> f64| median(runs.iter().map(value).collect());
    let cpu = cpu.map_or_else(String::new, |seconds| format!("  server {:.0} µs of processor time each", seconds * 1e6));
    println!(
        "{label:32} {:8.0}/s  p50 {:7.2} ms  p99 {:7.2} ms{cpu}",
        median_of(|l| l.rate),
        median_of(|l| l.p50),
        median_of(|l| l.p99)
    );
}
