//! Benchmark of starts with many due images of many users: `cargo bench --bench load -- due`.
//!
//! The clients never uploaded the images, and their URLs have expired: the sweeper looks for each object and lets the upload
//! expire. [`FEW`] such images are compared with `DUE_IMAGES` (default 100,000), of 10,000 users. The starts do not alternate,
//! because inserting the images takes longer than the starts.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use mongodb::{
    Database,
    bson::{DateTime, Document, doc},
};

use super::{
    client::repeat,
    data::{self, User},
    gallery, median,
    metrics::metric,
    report::{Bound, Report},
    servers::{DATABASE, Dependencies, Server, free_port},
};

/// Number of due images that the many are compared with: more than the sweeper sweeps within [`WINDOW`].
const FEW: usize = 10_000;
/// Number of due images, if `DUE_IMAGES` does not set it.
const MANY: usize = 100_000;
/// Number of users. All have the same number of due images.
const USERS: usize = 10_000;
/// Number of starts with each number of due images; their medians are compared.
const STARTS: usize = 3;
/// Time after the start in which the sweeper and pages are measured.
const WINDOW: Duration = Duration::from_secs(3);
/// Size of each image in bytes.
const BYTES: i64 = 100;
/// Number of documents in one insertion.
const INSERTION: usize = 10_000;
/// Metric that counts the swept images.
const EXPIRED: &str = "valet_sweep_items_total{outcome=\"expired\"}";

/// Measurements of a start.
struct Start {
    /// Seconds to the first successful `/readyz`.
    ready: f64,
    /// Swept images a second.
    swept: f64,
    /// Median time of a page in milliseconds.
    page: f64,
    /// Resident memory at the end in MiB.
    memory: f64,
}

/// Measures starts without due images, with few and with many.
pub async fn measure(report: &mut Report) {
    let many = std::env::var("DUE_IMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(MANY);
    let dependencies = Dependencies::start().await;
    let driver = data::driver(&dependencies.mongod.uri()).await;
    let database = driver.database(DATABASE);
    // The first start creates the indexes.
    let valet = Server::valet(&dependencies).await;
    let ada = User::sign_up(valet.address).await;
    drop(valet);
    data::fill(&database.collection("images"), &ada.id, data::IMAGES).await;
    let users = insert_users(&database).await;

    let (mut without, mut with_few, mut with_many) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        fill(&database, &users, 0).await;
        without.push(measure_start(&dependencies, &ada).await);
        fill(&database, &users, FEW).await;
        with_few.push(measure_start(&dependencies, &ada).await);
    }
    let began = Instant::now();
    fill(&database, &users, many).await;
    println!("{many} due images made in {:.0} s", began.elapsed().as_secs_f64());
    for _ in 0..STARTS {
        with_many.push(measure_start(&dependencies, &ada).await);
    }
    show("no due images", &without);
    show(&format!("{FEW} due images"), &with_few);
    show(&format!("{many} due images"), &with_many);
    let mut compare = |label: &str, value: fn(&Start) -> f64, bound| {
        report.ratio(
            &format!("{label}: {many} due images, to {FEW}"),
            median_of(&with_many, value) / median_of(&with_few, value),
            bound,
        );
    };
    compare("start to /readyz", |start| start.ready, Bound::AtMost(1.2));
    compare("images swept in a second", |start| start.swept, Bound::AtLeast(0.8));
    compare("p50 of gallery(50) beside the sweep", |start| start.page, Bound::AtMost(1.2));
    compare("memory beside the sweep", |start| start.memory, Bound::AtMost(1.2));
    let page = |starts| median_of(starts, |start| start.page);
    report.ratio("p50 of gallery(50) beside a sweep, to without", page(&with_many) / page(&without), Bound::Low);
    dependencies.stop().await;
}

/// Returns the median of a value of the starts.
fn median_of(starts: &[Start], value: fn(&Start) -> f64) -> f64 {
    median(starts.iter().map(value).collect())
}

/// Prints the medians of starts.
fn show(label: &str, starts: &[Start]) {
    println!(
        "{label:20} /readyz after {:4.0} ms, {:4.0} swept a second, gallery(50) p50 {:6.2} ms, {:5.1} MiB",
        median_of(starts, |start| start.ready) * 1e3,
        median_of(starts, |start| start.swept),
        median_of(starts, |start| start.page),
        median_of(starts, |start| start.memory)
    );
}

/// Starts a server, which sweeps at once, and measures it while one connection reads pages.
async fn measure_start(dependencies: &Dependencies, ada: &User) -> Start {
    let admin_address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let valet = Server::valet_with(dependencies, [("ADMIN_BIND", admin_address.to_string())]).await;
    let (began, before) = (Instant::now(), metric(admin_address, EXPIRED).await);
    let page = repeat(valet.address, 1, WINDOW, gallery(ada, 50)).await;
    let swept = (metric(admin_address, EXPIRED).await - before) / began.elapsed().as_secs_f64();
    Start { ready: valet.started_in.as_secs_f64(), swept, page: page.p50, memory: valet.memory().unwrap_or(f64::NAN) }
}

/// Inserts [`USERS`] accounts without passwords; returns their ids.
async fn insert_users(database: &Database) -> Vec<String> {
    let ids: Vec<_> = (0..USERS).map(|_| uuid::Uuid::now_v7().to_string()).collect();
    let now = DateTime::now();
    let user = |id: &String| {
        doc! { "_id": id, "registered": true, "createdAt": now, "passwordVersion": 0_i64, "usedBytes": 0_i64, "images": 0_i64,
        "pending": 0_i64, "opening": [], "settling": [], "holds": [] }
    };
    database.collection("users").insert_many(ids.iter().map(user)).ordered(false).await.unwrap();
    ids
}

/// Replaces the due images by `count` pending ones whose URLs expired two hours ago, and counts them in the accounts of `users`.
async fn fill(database: &Database, users: &[String], count: usize) {
    let images = database.collection::<Document>("images");
    images.delete_many(doc! { "due": { "$exists": true } }).await.unwrap();
    let now = DateTime::now().timestamp_millis();
    let (expired, declared) = (DateTime::from_millis(now - 2 * 60 * 60 * 1000), DateTime::from_millis(now - 24 * 60 * 60 * 1000));
    let image = |n: usize| {
        let (id, user) = (uuid::Uuid::now_v7().to_string(), &users[n % users.len()]);
        let sha256 = STANDARD.encode(digest::digest(&digest::SHA256, id.as_bytes()));
        doc! { "_id": &id, "user": user, "key": format!("u/{user}/{id}"), "state": "pending", "live": true, "fileName": "IMG_0042.png",
        "contentType": "image/png", "size": BYTES, "kind": "single", "sha256": sha256, "createdAt": declared, "expiresAt": expired,
        "urlsDieAt": expired, "reservation": { "bytes": BYTES, "place": "pending", "due": expired }, "due": expired }
    };
    for first in (0..count).step_by(INSERTION) {
        images.insert_many((first..count.min(first + INSERTION)).map(image)).ordered(false).await.unwrap();
    }
    let each = count.div_ceil(users.len()) as i64;
    let counts = doc! { "$set": { "pending": each, "usedBytes": each * BYTES, "opening": [], "settling": [] } };
    database.collection::<Document>("users").update_many(doc! { "_id": { "$in": users } }, counts).await.unwrap();
}
