//! Covers unresponsive MongoDB and S3: every call is answered in time, nothing accumulates, and everything works again within
//! seconds after MongoDB and S3 answer again.

mod mongodb;
mod s3;
pub mod stalling_relay;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    app::{PASSWORD, TestApp, declaration, unique_png},
    hostile_clients::memory,
    process_client::{Client, Process},
    serve::Settings,
};

/// Limit for every answer, and for recovery: the server's longest deadline is ten seconds, and the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Time after which the readiness probe checks again: it caches a result for a second.
const PROBE_CACHE: Duration = Duration::from_millis(1200);
/// Number of runtime tasks by which a server may grow from the first measurement to the last: those of calls and connections
/// in progress.
const SPARE_TASKS: u64 = 40;
/// Memory in KiB by which a server may grow from the first measurement to the last: buffers, and pages that the allocator keeps.
const SPARE_MEMORY: u64 = 32 * 1024;

/// Method, path and body of a call.
type Call = (Method, String, Option<Value>);

/// Returns a GET.
fn get(path: impl Into<String>) -> Call {
    (Method::GET, path.into(), None)
}

/// Returns a POST with a body.
fn post(path: impl Into<String>, body: Value) -> Call {
    (Method::POST, path.into(), Some(body))
}

/// Returns a POST without a body.
fn post_empty(path: impl Into<String>) -> Call {
    (Method::POST, path.into(), None)
}

/// Sends all calls at once, and asserts that each is answered within [`LIMIT`]; returns the answers.
async fn make_calls(client: &Client, calls: &[Call]) -> Vec<(u16, Value)> {
    join_all(calls.iter().map(async |(method, path, body)| {
        let began = Instant::now();
        let (status, answer) = client.call(method.clone(), path, body.as_ref()).await;
        assert!(began.elapsed() < LIMIT, "{method} {path}: {status} after {:?}", began.elapsed());
        (status.as_u16(), answer)
    }))
    .await
}

/// Asserts that every call is answered as unavailable.
async fn assert_unavailable(client: &Client, calls: &[Call]) {
    for ((method, path, _), (status, problem)) in calls.iter().zip(make_calls(client, calls).await) {
        assert!(is_unavailable(status, &problem), "{method} {path}: {status} {problem}");
    }
}

/// Returns whether the answer is the problem of an outage.
fn is_unavailable(status: u16, problem: &Value) -> bool {
    matches!((status, problem["code"].as_str()), (503, Some("unavailable")) | (504, Some("timeout")))
}

/// Repeats a call until it succeeds, for at most [`LIMIT`].
async fn assert_recovers(client: &Client, process: &Process, call: Call) {
    let began = Instant::now();
    loop {
        let (status, answer) = client.call(call.0.clone(), &call.1, call.2.as_ref()).await;
        if status.is_success() {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{} {}: {status} {answer} {}", call.0, call.1, process.err());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Returns the number of a server's runtime tasks and its memory in KiB.
async fn tasks_and_memory(process: &Process, admin: &Client) -> (u64, u64) {
    let text = admin.http.get(format!("{}/metrics", admin.base)).send().await.unwrap().text().await.unwrap();
    let tasks = text.lines().find_map(|line| line.strip_prefix("valet_tokio_alive_tasks ")).unwrap().parse().unwrap();
    (tasks, memory(process.id(), "VmRSS"))
}

/// Asserts that tasks and memory in KiB are about the same in the last measurement as in the first one.
fn assert_nothing_accumulates(sizes: &[(u64, u64)]) {
    let [(tasks, memory), .., (tasks_later, memory_later)] = sizes else { panic!("one measurement: {sizes:?}") };
    assert!(*tasks_later <= tasks + SPARE_TASKS, "tasks and KiB: {sizes:?}");
    assert!(*memory_later <= memory + SPARE_MEMORY, "tasks and KiB: {sizes:?}");
}

/// Starts a server with an admin address; returns its process, and clients for its address and for the admin address.
async fn start_with_admin(settings: Settings) -> (Process, Client, Client) {
    let (process, client) = settings.with("ADMIN_BIND", "127.0.0.1:0").with("RATE_LIMIT", "off").start_listening().await;
    let address = process.wait_for(|process| {
        process.err().lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "metrics are at /metrics").then(|| line["address"].as_str().map(str::to_owned))?
        })
    });
    let admin = Client::at(format!("http://{}", address.await));
    (process, client, admin)
}

/// Opens uploads for these files and sends their bytes; returns the images' ids.
async fn upload_all(client: &Client, files: &[Vec<u8>]) -> Vec<String> {
    let items: Vec<_> = files.iter().map(|bytes| declaration("sea.png", "image/png", bytes)).collect();
    let (status, answer) = client.post("/api/images/upload/batch", &json!({ "items": items })).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    join_all(results.iter().zip(files).map(async |(result, bytes)| {
        let upload = &result["ticket"]["upload"];
        let mut put = client.http.put(upload["url"].as_str().unwrap());
        for (name, value) in upload["headers"].as_object().unwrap() {
            put = put.header(name, value.as_str().unwrap());
        }
        assert_eq!(put.body(bytes.clone()).send().await.unwrap().status(), 200);
        result["ticket"]["id"].as_str().unwrap().to_owned()
    }))
    .await
}
