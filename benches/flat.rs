//! Benchmark of pages and sweeps with a million images: `cargo bench --bench flat`.
//!
//! A user with 1,000 images and one with 1,000,000 (`FLAT_IMAGES`) share a collection. The benchmark measures the first, the
//! hundredth and the last page of each through the API, a sweep that finds nothing due before and after the million images were
//! inserted, and an image's size in MongoDB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]
// The future of a whole sweep is a deeply nested type.
#![recursion_limit = "256"]

#[allow(dead_code)]
#[path = "load/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "load/data.rs"]
mod data;
#[allow(dead_code)]
#[path = "load/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "load/servers.rs"]
mod servers;

use std::time::Instant;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
};
use time::OffsetDateTime;
use valet::state::AppState;

use self::{
    client::Connection,
    data::User,
    report::{Bound, Report},
    servers::{DATABASE, Dependencies, Server},
};

/// Number of alternating runs whose median is a ratio.
const RUNS: usize = 5;
/// Number of sweeps whose median time counts.
const SWEEPS: usize = 50;
/// Number of requests in one run of one page.
const PAGES: u32 = 60;
/// Number of images on a page.
const LIMIT: u64 = 10;
/// Number of images of the user with few.
const FEW: i64 = 1000;
/// Number of images of the user with many, if `FLAT_IMAGES` does not set it.
const MANY: i64 = 1_000_000;

/// Mean times of a page in one run, in seconds.
struct Times {
    /// Time of a page of the user with few images.
    few: f64,
    /// Time of a page of the user with many images.
    many: f64,
}

#[tokio::main]
async fn main() {
    let many = std::env::var("FLAT_IMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(MANY);
    let dependencies = Dependencies::start().await;
    let valet = Server::valet(&dependencies).await;
    let driver = data::driver(&dependencies.mongod.uri()).await;
    let images = driver.database(DATABASE).collection::<Document>("images");
    let (few_user, many_user) = (User::sign_up(valet.address).await, User::sign_up(valet.address).await);
    let app = AppState::connect(&dependencies.config()).await.unwrap();

    data::fill(&images, &few_user.id, FEW).await;
    let sweep_before = median_sweep_time(&app).await;
    let began = Instant::now();
    data::fill(&images, &many_user.id, many).await;
    println!("{many} images made in {:.0} s", began.elapsed().as_secs_f64());
    print_sizes(&driver).await;
    let sweep_after = median_sweep_time(&app).await;
    println!(
        "a sweep with nothing to do: {:.2} ms beside {FEW} images, {:.2} ms beside {many}",
        sweep_before * 1e3,
        sweep_after * 1e3
    );
    let mut report = Report::default();
    // A ratio has its baseline under its label: another number of images makes another label, without a baseline.
    let beside = if many == MANY { "a million images".to_owned() } else { format!("{many} images") };
    report.ratio(&format!("empty sweep beside {beside}, to a thousand"), sweep_after / sweep_before, Bound::AtMost(1.2));

    let mut api = Connection::open(valet.address).await;
    let (few_requests, many_requests) = (
        page_requests(&mut api, &images, &few_user, FEW as u64).await,
        page_requests(&mut api, &images, &many_user, many as u64).await,
    );
    for (at, name) in ["first page", "page 100", "last page"].into_iter().enumerate() {
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let few = mean_time(&mut api, &few_requests[at]).await;
            times.push(Times { few, many: mean_time(&mut api, &many_requests[at]).await });
        }
        let median = |value: fn(&Times) -> f64| {
            let mut all: Vec<_> = times.iter().map(value).collect();
            all.sort_by(f64::total_cmp);
            all[RUNS / 2]
        };
        println!(
            "{name:10} of {LIMIT}: {:.2} ms and {:.2} ms",
            median(|times| times.few) * 1e3,
            median(|times| times.many) * 1e3
        );
        report.ratio(
            &format!("{name} beside {beside}, to a thousand"),
            median(|times| times.many / times.few),
            Bound::AtMost(1.2),
        );
    }
    drop((app, valet));
    dependencies.stop().await;
    report.end();
}

/// Prints the bytes of an image's document, on disk and in memory, and of its index entries.
async fn print_sizes(driver: &mongodb::Client) {
    let database = driver.database(DATABASE);
    // The last writes are on disk after a checkpoint.
    driver.database("admin").run_command(doc! { "fsync": 1 }).await.unwrap();
    let stats = database.run_command(doc! { "collStats": "images" }).await.unwrap();
    let number = |document: &Document, name: &str| match document.get(name) {
        Some(Bson::Int32(n)) => f64::from(*n),
        Some(Bson::Int64(n)) => *n as f64,
        Some(Bson::Double(n)) => *n,
        other => panic!("{name}: {other:?}"),
    };
    let count = number(&stats, "count");
    let per_image = |bytes: f64| bytes / count;
    println!(
        "per image: document {:.0} bytes, {:.0} on disk; indexes {:.0}",
        number(&stats, "avgObjSize"),
        per_image(number(&stats, "storageSize")),
        per_image(number(&stats, "totalIndexSize")),
    );
    for (name, bytes) in stats.get_document("indexSizes").unwrap() {
        let bytes = Document::from_iter([(name.clone(), bytes.clone())]);
        println!("  {name:10} {:.0}", per_image(number(&bytes, name)));
    }
}

/// Returns the requests for the first page, page 100 and the last, after asserting their answers.
async fn page_requests(api: &mut Connection, images: &Collection<Document>, user: &User, count: u64) -> [Vec<u8>; 3] {
    let first = format!("/api/images/gallery?limit={LIMIT}");
    let mut all = vec![user.request("GET", &first, None)];
    for skipped in [99 * LIMIT, count - LIMIT] {
        let find = images.find_one(doc! { "user": &user.id, "state": "ready" }).sort(doc! { "uploadedAt": -1, "_id": -1 });
        let cursor = cursor(user, &find.skip(skipped - 1).await.unwrap().unwrap());
        all.push(user.request("GET", &format!("{first}&cursor={cursor}"), None));
    }
    for (request, more) in all.iter().zip([true, count > 100 * LIMIT, false]) {
        let answer = api.expect(request, 200).await;
        assert_eq!(answer["images"].as_array().unwrap().len() as u64, LIMIT);
        assert_eq!(answer.get("nextCursor").is_some(), more);
    }
    all.try_into().unwrap()
}

/// Returns the `nextCursor` of a page that ends with this image, as the server writes it (`src/http/pagination.rs`): reading all
/// pages before it would take 100,000 requests.
fn cursor(user: &User, last: &Document) -> String {
    let id: uuid::Uuid = last.get_str("_id").unwrap().parse().unwrap();
    let at = last.get_datetime("uploadedAt").unwrap().timestamp_millis();
    let position_bytes = [&at.to_be_bytes()[..], id.as_bytes()].concat();
    let owner: uuid::Uuid = user.id.parse().unwrap();
    let check = digest::digest(&digest::SHA256, &[b"gallery 1", &owner.as_bytes()[..], &position_bytes].concat());
    URL_SAFE_NO_PAD.encode([&position_bytes[..], &check.as_ref()[..8]].concat())
}

/// Returns the mean time of a request in seconds.
async fn mean_time(api: &mut Connection, request: &[u8]) -> f64 {
    let began = Instant::now();
    for _ in 0..PAGES {
        assert_eq!(api.send(request).await.0, 200);
    }
    began.elapsed().as_secs_f64() / f64::from(PAGES)
}

/// Returns the median time, in seconds, of sweeps that find nothing due.
async fn median_sweep_time(app: &AppState) -> f64 {
    let mut all = Vec::new();
    for _ in 0..SWEEPS {
        let began = Instant::now();
        app.valet.sweeper.sweep_once(OffsetDateTime::now_utc()).await.unwrap();
        all.push(began.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
