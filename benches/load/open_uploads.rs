//! Benchmark of opening an upload for a user with many open uploads.

use std::time::Instant;

use mongodb::{
    Database,
    bson::{DateTime, doc},
};

use super::{
    RUNS,
    client::Connection,
    data::{User, declaration, unique_png},
    median,
    report::{Bound, Report},
    servers::Server,
};

/// Number of open uploads that `busy_user` has at the start. `new_user` has only those that the benchmark opens.
const OPEN_AT_START: i64 = 9_000;
/// Number of uploads that one run opens.
const OPENED_PER_RUN: u32 = 100;

/// Measures the time to open an upload for a user with [`OPEN_AT_START`] open uploads, relative to a user without open uploads.
pub async fn measure(report: &mut Report, valet: &Server, database: &Database) {
    let (new_user, busy_user) = (User::sign_up(valet.address).await, User::sign_up(valet.address).await);
    fill(database, &busy_user.id).await;
    let mut ratios = Vec::new();
    for _ in 0..RUNS {
        let seconds_without = open_uploads(valet, &new_user).await;
        ratios.push(open_uploads(valet, &busy_user).await / seconds_without);
    }
    report.ratio("opening an upload beside 9,000 open ones, to none", median(ratios), Bound::AtMost(1.1));
}

/// Inserts [`OPEN_AT_START`] pending images of a user, with the fields that the opening of an upload leaves.
async fn fill(database: &Database, user: &str) {
    let now = DateTime::now();
    let later = DateTime::from_millis(now.timestamp_millis() + 86_400_000);
    let image = |_| {
        let id = uuid::Uuid::now_v7().to_string();
        doc! { "_id": &id, "user": user, "key": format!("u/{user}/{id}"), "state": "pending", "live": true, "fileName": "IMG_0042.png",
        "contentType": "image/png", "size": 100_i64, "kind": "single", "sha256": &id, "createdAt": now, "expiresAt": later,
        "urlsDieAt": later, "reservation": { "bytes": 100_i64, "place": "pending", "due": later }, "due": later }
    };
    database.collection("images").insert_many((0..OPEN_AT_START).map(image)).ordered(false).await.unwrap();
    let counts = doc! { "$set": { "pending": OPEN_AT_START, "usedBytes": OPEN_AT_START * 100 } };
    database.collection::<mongodb::bson::Document>("users").update_one(doc! { "_id": user }, counts).await.unwrap();
}

/// Opens uploads, as many as one run has; returns the time in seconds.
async fn open_uploads(valet: &Server, user: &User) -> f64 {
    let mut api = Connection::open(valet.address).await;
    let began = Instant::now();
    for _ in 0..OPENED_PER_RUN {
        api.expect(&user.request("POST", "/api/images/upload", Some(&declaration(&unique_png()))), 201).await;
    }
    began.elapsed().as_secs_f64()
}
