//! A database or a store that says nothing: every call is answered in time, nothing piles up meanwhile, and all works again soon
//! after it has come back.

pub mod black_hole;
mod mongodb;
mod s3;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    app::{PASSWORD, TestApp, declared, unique_png},
    hostile_clients::memory,
    process_client::{Client, Process},
    serve::Settings,
};

/// In which every call is answered, and everything works again.
const LIMIT: Duration = Duration::from_secs(10);

/// A call, and what it is sent with.
type Call = (Method, String, Option<Value>);

fn get(path: impl Into<String>) -> Call {
    (Method::GET, path.into(), None)
}

fn post(path: impl Into<String>, body: Value) -> Call {
    (Method::POST, path.into(), Some(body))
}

fn act(path: impl Into<String>) -> Call {
    (Method::POST, path.into(), None)
}

/// Makes all of them at once; what came of each, in time.
async fn make(client: &Client, calls: &[Call]) -> Vec<(u16, Value)> {
    join_all(calls.iter().map(async |(method, path, body)| {
        let began = Instant::now();
        let (status, answer) = client.call(method.clone(), path, body.as_ref()).await;
        assert!(began.elapsed() < LIMIT, "{method} {path}: {status} after {:?}", began.elapsed());
        (status.as_u16(), answer)
    }))
    .await
}

/// All of them, and none gets anything else.
async fn assert_unavailable(client: &Client, calls: &[Call]) {
    for ((method, path, _), (status, problem)) in calls.iter().zip(make(client, calls).await) {
        assert!(is_unavailable(status, &problem), "{method} {path}: {status} {problem}");
    }
}

fn is_unavailable(status: u16, problem: &Value) -> bool {
    matches!((status, problem["code"].as_str()), (503, Some("unavailable")) | (504, Some("timeout")))
}

/// Asks until it goes well, which it does in time.
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

/// The runtime's tasks and the memory in KiB of a server.
async fn size(process: &Process, admin: &Client) -> (u64, u64) {
    let text = admin.http.get(format!("{}/metrics", admin.base)).send().await.unwrap().text().await.unwrap();
    let tasks = text.lines().find_map(|line| line.strip_prefix("valet_tokio_alive_tasks ")).unwrap().parse().unwrap();
    (tasks, memory(process.id(), "VmRSS"))
}

/// A server that operators can look at.
async fn watched(settings: Settings) -> (Process, Client, Client) {
    let (process, client) = settings.but("ADMIN_BIND", "127.0.0.1:0").but("RATE_LIMIT", "off").listening().await;
    let address = process.find(|process| {
        process.err().lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "metrics are at /metrics").then(|| line["address"].as_str().map(str::to_owned))?
        })
    });
    let admin = Client::of(format!("http://{}", address.await));
    (process, client, admin)
}

/// Opens uploads for these files, and puts them.
async fn put_all(client: &Client, files: &[Vec<u8>]) -> Vec<String> {
    let items: Vec<_> = files.iter().map(|bytes| declared("sea.png", "image/png", bytes)).collect();
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
