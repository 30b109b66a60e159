//! F13: kills the program after each of its calls to MongoDB and S3, one after the other, and asserts that everything converges.
//!
//! A server that was started with `VALET_ABORT_AT` aborts after as many calls as a file contains (src/store/failpoint.rs), so
//! each operation is made with 1, 2, 3 and so on until it is answered: no call is named here, and none is left out. After each
//! crash a sweep follows, with a clock three minutes ahead, and the data is audited: quotas are exact, no object lacks a document
//! and no ready document lacks its object. Then the client repeats its call and gets the same answer as without the crash.
//!
//! Routes: POST /api/images/upload, POST /api/images/upload/batch, POST /api/images/{id}/confirm, POST /api/images/confirm,
//! DELETE /api/images/{id}, POST /api/images/delete, POST /api/images/multipart.

mod sweep_command;

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mongodb::bson::{DateTime, Document, doc};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use super::{
    app::{Answer, Caller, TestApp, declaration, unique_png},
    serve::Settings,
};
use crate::process_client::Ended;

/// Time after which every lease and every request of a killed server has ended.
const CONVERGED: Duration = Duration::from_secs(180);
/// Number of SIGABRT, the signal with which the failpoint ends the process.
pub const ABORTED: i32 = 6;

/// File with the number of calls after which the server aborts; removed with the test.
pub struct Fuse(PathBuf);

impl Fuse {
    /// Returns a fuse without a file: servers make all calls.
    pub fn new() -> Self {
        Self(std::env::temp_dir().join(format!("valet-fuse-{}", uuid::Uuid::new_v4().simple())))
    }

    /// Makes servers abort after `calls` calls. Replaces the file in one step: a call that found an empty file would not be
    /// counted.
    pub fn set(&self, calls: u32) {
        let written = self.0.with_extension("written");
        std::fs::write(&written, calls.to_string()).unwrap();
        std::fs::rename(written, &self.0).unwrap();
    }

    /// Removes the file, so that servers make all calls.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.0);
    }

    /// Returns the settings of a server that aborts after the number of calls in the file.
    pub fn settings(&self, app: &TestApp) -> Settings {
        // The setting avoids a probe of the store, whose calls would be counted.
        let finalize = if super::store_rules::in_place() { "in-place" } else { "copy" };
        let settings = Settings::for_app(app).with("SWEEP_INTERVAL", "1h").with("S3_FINALIZE", finalize);
        settings.with("VALET_ABORT_AT", self.0.to_str().unwrap())
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A request as a client makes it, and its expected status without a crash.
struct ClientRequest {
    method: Method,
    path: String,
    body: Option<Value>,
    /// Value of `Idempotency-Key`.
    key: Option<String>,
    expected: Vec<u16>,
    /// Body of a request that the server answers before the fuse is set.
    first: Option<Value>,
}

impl ClientRequest {
    fn new(method: Method, path: impl Into<String>, expected: &[u16]) -> Self {
        Self { method, path: path.into(), body: None, key: None, expected: expected.to_vec(), first: None }
    }

    /// Sets the body.
    fn with(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Adds body and idempotency key to a request.
    fn change(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let request = match &self.body {
            Some(body) => request.json(body),
            None => request,
        };
        match &self.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    }

    /// Asserts that an answer, and each item of a batch, has an expected status.
    fn check(&self, status: u16, text: &str) {
        assert!(self.expected.contains(&status), "{} {}: {status} {text}", self.method, self.path);
        // In a batch, the status of each item.
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        for result in body["results"].as_array().into_iter().flatten() {
            assert!(matches!(result["status"].as_u64(), Some(200 | 201 | 204)), "{} {}: {text}", self.method, self.path);
        }
    }
}

/// Number of lanes that share the calls of an operation, because a crash is mostly waiting. Each has a database and a bucket of its
/// own, as its sweeps have a clock that is ahead.
pub const LANES: u32 = 2;

/// Permits for crashes at the same time, in all tests: more would exceed the deadlines of their servers on two cores.
pub static CRASHES: Semaphore = Semaphore::const_new(4);

/// Sends the request to servers that abort after 1, 2, 3 … calls to MongoDB and S3, until it is answered, which must take more than
/// `min_calls` of them. `prepare` creates what the request is about. Returns the servers that were not killed.
async fn kill_at_every_call(min_calls: u32, prepare: impl AsyncFn(&Caller<'_>) -> ClientRequest) -> Vec<TestApp> {
    let lanes = join_all((1..=LANES).map(|first| kill_in_lane(first, &prepare))).await;
    let calls = lanes.iter().map(|(calls, _)| *calls).min().unwrap();
    assert!(calls > min_calls, "{calls} calls: the failpoint was never reached");
    lanes.into_iter().map(|(_, app)| app).collect()
}

/// Kills the server after `first`, `first + LANES`, `first + 2 * LANES` … calls. Returns the number after which the request was
/// answered.
async fn kill_in_lane(first: u32, prepare: impl AsyncFn(&Caller<'_>) -> ClientRequest) -> (u32, TestApp) {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut calls = first;
    while !killed_after(calls, &ada, &prepare).await {
        calls += LANES;
        assert!(calls < 100, "the request ends after a bounded number of calls to MongoDB and S3");
    }
    app.sweep_to_the_end().await;
    app.audit().await;
    (calls, app)
}

/// Sends the call to a server that aborts after `calls` calls, and again, to another server, after sweeps. Returns whether the
/// first server answered it.
async fn killed_after(calls: u32, ada: &Caller<'_>, prepare: impl AsyncFn(&Caller<'_>) -> ClientRequest) -> bool {
    let _permit = CRASHES.acquire().await.unwrap();
    let (app, fuse) = (ada.app, Fuse::new());
    let settings = fuse.settings(app);
    for _ in 0..10 {
        let (process, client) = settings.start_listening().await;
        let call = prepare(ada).await;
        let (url, token) = (format!("{}{}", client.base, call.path), ada.token.as_deref().unwrap());
        if let Some(first) = &call.first {
            let first = client.http.post(&url).json(first).bearer_auth(token).send().await.unwrap();
            assert_eq!(first.status(), 201);
        }
        fuse.set(calls);
        let request = client.http.request(call.method.clone(), url);
        let request = call.change(request).bearer_auth(token).timeout(Duration::from_secs(30));
        let answer = request.send().await;
        fuse.remove();
        let is_answered = answer.is_ok();
        match answer {
            // The machine is too busy: try again.
            Ok(answer) if matches!(answer.status().as_u16(), 503 | 504) => continue,
            Ok(answer) => {
                call.check(answer.status().as_u16(), &answer.text().await.unwrap());
                // The process's own sweep may be in progress, and would interfere with the sweeps and audits below.
                drop(process);
            }
            Err(_) => {
                let Ended { status, err: log, .. } = process.wait_for_end(Duration::from_secs(30)).await;
                assert_eq!(status.signal(), Some(ABORTED), "{log}");
            }
        }
        converge(app, CONVERGED).await;
        app.audit().await;
        let again = repeated(ada, &call).await;
        call.check(again.status, &again.text);
        app.audit().await;
        return is_answered;
    }
    panic!("503 or 504 ten times, with a kill after {calls} calls");
}

/// Time within which a user's uploads work again after a crash, also on a busy machine. It is half the time after which mongod drops
/// an abandoned transaction's locks, so that a server that leaves locks fails the test.
const UNLOCKED: Duration = Duration::from_secs(30);

/// Sends the call; repeats it after 503 and 504, as clients do, for at most [`UNLOCKED`].
async fn repeated(ada: &Caller<'_>, call: &ClientRequest) -> Answer {
    let began = Instant::now();
    loop {
        let answer = ada.send(call.method.clone(), &call.path, |request| call.change(request)).await;
        if !matches!(answer.status, 503 | 504) || began.elapsed() > UNLOCKED {
            return answer;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Runs the sweeps that another server would run within this time.
async fn converge(app: &TestApp, within: Duration) {
    // Ends the claims of servers that died during the completion of a multipart upload, as time would.
    let images = app.db.collection::<Document>("images");
    let ended = doc! { "$set": { "completingUntil": DateTime::from_millis(0) } };
    images.update_many(doc! { "completingUntil": { "$exists": true } }, ended).await.unwrap();
    let began = Instant::now();
    loop {
        let round = app.app.valet.sweeper.sweep_once(OffsetDateTime::now_utc() + within).await;
        if round.as_ref().is_ok_and(|round| round.swept.failed == 0 && !round.may_have_more) {
            return;
        }
        assert!(began.elapsed() < UNLOCKED, "the sweep does not end: {round:?}");
    }
}

/// Opens an upload and sends its bytes without a confirm; returns the ticket.
pub async fn put_upload(ada: &Caller<'_>, bytes: Vec<u8>) -> Answer {
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    assert_eq!(ada.app.put(&ticket.json["upload"], bytes).await, 200);
    ticket
}

/// Uploads a unique image; returns its id.
async fn upload_image(ada: &Caller<'_>) -> String {
    ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned()
}

/// Opens a multipart upload with one part and sends the part to S3; returns the image's id.
async fn put_parts(ada: &Caller<'_>) -> String {
    let bytes = unique_png();
    let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": bytes.len() });
    let ticket = ada.post("/api/images/multipart", body).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    let path = format!("/api/images/{}/parts", ticket.id());
    let signed = ada.post(&path, json!({ "parts": [{ "partNumber": 1 }] })).await;
    assert_eq!(ada.app.put(&signed.json["parts"][0]["request"], bytes).await, 200);
    ticket.id().to_owned()
}

/// Returns the call that confirms an upload.
fn confirm(id: &str, expected: u16) -> ClientRequest {
    ClientRequest::new(Method::POST, format!("/api/images/{id}/confirm"), &[expected])
}

/// Returns the call that deletes an image.
fn delete(id: &str) -> ClientRequest {
    ClientRequest::new(Method::DELETE, format!("/api/images/{id}"), &[204])
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_f13_killed_at_every_call_of_a_confirm() {
    kill_at_every_call(4, async |ada| confirm(put_upload(ada, unique_png()).await.id(), 200)).await;
    let html = || [b"<html>", &uuid::Uuid::new_v4().as_bytes()[..]].concat();
    kill_at_every_call(4, async |ada| confirm(put_upload(ada, html()).await.id(), 422)).await;
    let confirm_two = async |ada: &Caller<'_>| {
        let ids = [put_upload(ada, unique_png()).await.id().to_owned(), put_upload(ada, unique_png()).await.id().to_owned()];
        ClientRequest::new(Method::POST, "/api/images/confirm", &[200]).with(json!({ "ids": ids }))
    };
    kill_at_every_call(6, confirm_two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_f13_killed_at_every_call_of_a_delete() {
    let mut apps = kill_at_every_call(4, async |ada| delete(&upload_image(ada).await)).await;
    apps.extend(kill_at_every_call(5, async |ada| delete(put_upload(ada, unique_png()).await.id())).await);
    let delete_two = async |ada: &Caller<'_>| {
        let ids = [upload_image(ada).await, put_upload(ada, unique_png()).await.id().to_owned()];
        ClientRequest::new(Method::POST, "/api/images/delete", &[200]).with(json!({ "ids": ids }))
    };
    apps.extend(kill_at_every_call(8, delete_two).await);
    // The last sweep has released the reservation of every tombstone.
    for app in apps {
        let users = app.db_all("users").await;
        assert!(users.len() == 1 && users[0].get_i64("usedBytes").unwrap() == 0, "{users:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u10_f13_killed_at_every_call_of_opening_an_upload() {
    let fresh = async |_: &Caller<'_>| {
        ClientRequest::new(Method::POST, "/api/images/upload", &[200, 201]).with(declaration("a.png", "image/png", &unique_png()))
    };
    kill_at_every_call(2, fresh).await;
    // One item is known, two are new; the first one's reservation is released, the others' are kept.
    let batch = async |ada: &Caller<'_>| {
        let known_bytes = unique_png();
        ada.open_upload("a.png", "image/png", &known_bytes).await;
        let items = [known_bytes, unique_png(), unique_png()].map(|bytes| declaration("a.png", "image/png", &bytes));
        ClientRequest::new(Method::POST, "/api/images/upload/batch", &[200]).with(json!({ "items": items }))
    };
    kill_at_every_call(4, batch).await;
    // The same bytes under another key are found before a reservation.
    let same_bytes = async |ada: &Caller<'_>| {
        let bytes = unique_png();
        ada.open_upload("a.png", "image/png", &bytes).await;
        let mut call =
            ClientRequest::new(Method::POST, "/api/images/upload", &[200]).with(declaration("b.png", "image/png", &bytes));
        call.key = Some(uuid::Uuid::new_v4().to_string());
        call
    };
    kill_at_every_call(2, same_bytes).await;
    // After an upload of new bytes the server expects new bytes again: it reserves quota, and then the unique index rejects them.
    let unexpectedly_known = async |ada: &Caller<'_>| {
        let first = declaration("a.png", "image/png", &unique_png());
        ClientRequest { first: Some(first), ..same_bytes(ada).await }
    };
    kill_at_every_call(5, unexpectedly_known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_killed_at_every_call_of_an_upload_in_parts() {
    let open = async |_: &Caller<'_>| {
        let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": 1000 });
        let mut call = ClientRequest::new(Method::POST, "/api/images/multipart", &[200, 201]).with(body);
        call.key = Some(uuid::Uuid::new_v4().to_string());
        call
    };
    kill_at_every_call(4, open).await;
    kill_at_every_call(8, async |ada| confirm(&put_parts(ada).await, 200)).await;
    kill_at_every_call(6, async |ada| delete(&put_parts(ada).await)).await;
}
