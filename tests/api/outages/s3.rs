//! Covers an unresponsive S3.

use super::{
    Call, Client, Duration, Method, PROBE_CACHE, Process, Settings, TestApp, Value, assert_nothing_accumulates, assert_recovers,
    assert_unavailable, get, is_unavailable, join_all, json, make_calls, post, post_empty, stalling_relay::StallingRelay,
    start_with_admin, tasks_and_memory, unique_png, upload_all,
};
use crate::app::finalize;

/// Time that a server gives S3 to complete a multipart upload (40 s), and a second more.
const COMPLETING: Duration = Duration::from_secs(41);

/// Starts a server whose calls to S3 pass the relay. Returns its process, a signed-in client, and a client for its admin address.
async fn start_behind_relay(app: &TestApp, relay: &StallingRelay, finalize: &str) -> (Process, Client, Client) {
    let real = app.config.s3.endpoint.as_deref().unwrap().to_owned();
    // Clients reach the store without the relay.
    let settings = Settings::for_app(app).with("S3_ENDPOINT", &relay.endpoint()).with("S3_PUBLIC_ENDPOINT", &real);
    let (process, mut client, admin) =
        start_with_admin(settings.with("S3_FINALIZE", finalize).with("SWEEP_INTERVAL", "1s")).await;
    client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
    (process, client, admin)
}

/// Returns a value that must be a string.
fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Opens a multipart upload of two parts and sends both; returns the image's path.
async fn send_parts(client: &Client) -> String {
    let mut file = unique_png();
    file.resize(6 << 20, 7);
    let body = json!({ "fileName": "big.png", "contentType": "image/png", "size": file.len(), "partSize": 5 << 20 });
    let (status, opened) = client.post("/api/images/multipart", &body).await;
    assert_eq!(status, 201, "{opened}");
    let path = format!("/api/images/{}", text(&opened["id"]));
    let both_parts = json!({ "parts": [{ "partNumber": 1 }, { "partNumber": 2 }] });
    let (_, signed) = client.post(&format!("{path}/parts"), &both_parts).await;
    for (part, bytes) in signed["parts"].as_array().unwrap().iter().zip(file.chunks(5 << 20)) {
        let put = client.http.put(text(&part["request"]["url"])).body(bytes.to_vec());
        assert_eq!(put.send().await.unwrap().status(), 200);
    }
    path
}

/// Work in progress whose calls need S3.
struct Work {
    /// Ids of images whose bytes are stored but not confirmed.
    pending: Vec<String>,
    /// Ids of confirmed images.
    ready: Vec<String>,
    /// Path of the image of a multipart upload whose parts are all in S3.
    multipart_path: String,
    /// Path of an Uppy session.
    uppy: String,
    /// Upload id and key of a multipart upload that Uppy has opened.
    uppy_upload: Value,
}

/// Returns the body with which Uppy opens a multipart upload.
fn uppy_file() -> Value {
    json!({ "filename": "big.png", "type": "image/png", "metadata": { "size": 6 << 20 } })
}

impl Work {
    /// Uploads the images that the calls are about.
    async fn begin(client: &Client) -> Self {
        let files: Vec<_> = (0..150).map(|_| unique_png()).collect();
        let pending = upload_all(client, &files[..100]).await;
        let ready = upload_all(client, &files[100..]).await;
        let (_, confirmed) = client.post("/api/images/confirm", &json!({ "ids": ready })).await;
        assert!(confirmed["results"].as_array().unwrap().iter().all(|one| one["status"] == 200), "{confirmed}");
        let multipart_path = send_parts(client).await;
        let (_, session) = client.call(Method::POST, "/api/uppy/session", None).await;
        let uppy = text(&session["path"]);
        let (_, uppy_upload) = client.post(&format!("{uppy}/s3/multipart"), &uppy_file()).await;
        Self { pending, ready, multipart_path, uppy, uppy_upload }
    }

    /// Returns a call of every kind that needs S3 and concerns one upload.
    fn calls(&self) -> [Call; 8] {
        let (multipart_path, uppy) = (&self.multipart_path, &self.uppy);
        let uppy_path = |rest: &str| {
            let (id, key) = (text(&self.uppy_upload["uploadId"]), text(&self.uppy_upload["key"]).replace('/', "%2F"));
            format!("{uppy}/s3/multipart/{id}{rest}?key={key}")
        };
        let multipart = json!({ "fileName": "big.png", "contentType": "image/png", "size": 6 << 20 });
        [
            get("/readyz"),
            post_empty(format!("/api/images/{}/confirm", self.pending[0])),
            post("/api/images/multipart", multipart),
            get(format!("{multipart_path}/parts")),
            post_empty(format!("{multipart_path}/confirm")),
            post(format!("{uppy}/s3/multipart"), uppy_file()),
            get(uppy_path("")),
            post(uppy_path("/complete"), json!({ "parts": [{ "PartNumber": 1, "ETag": "x" }] })),
        ]
    }

    /// Returns a confirm of all pending images.
    fn confirm_all(&self) -> [Call; 1] {
        [post("/api/images/confirm", json!({ "ids": self.pending }))]
    }

    /// Asserts that deletes succeed while S3 does not answer: the objects are removed later.
    async fn assert_deletes_succeed(&self, client: &Client) {
        let deletes = [
            (Method::DELETE, format!("/api/images/{}", self.ready[0]), None),
            post("/api/images/delete", json!({ "ids": self.ready[1..] })),
        ];
        let statuses: Vec<_> = make_calls(client, &deletes).await.into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, [204, 200]);
        let (_, gallery) = client.get("/api/images/gallery").await;
        assert_eq!(gallery["images"].as_array().unwrap().len(), 0);
    }
}

/// Asserts that every item of a confirm is answered as unavailable.
fn assert_all_unavailable((status, answer): &(u16, Value), items: usize) {
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{status} {answer}"));
    assert_eq!(results.len(), items);
    for result in results {
        let status = u16::try_from(result["status"].as_u64().unwrap()).unwrap();
        assert!(is_unavailable(status, &result["problem"]), "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f8_unresponsive_store_is_noticed_in_time_and_nothing_accumulates() {
    let app = TestApp::start().await;
    let relay = StallingRelay::before_s3(&app).await;
    let (process, client, admin) = start_behind_relay(&app, &relay, &finalize()).await;
    let work = Work::begin(&client).await;

    relay.stall();
    tokio::time::sleep(PROBE_CACHE).await;
    let (calls, confirm_all) = (work.calls(), work.confirm_all());
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let ((), answers) = tokio::join!(assert_unavailable(&client, &calls), make_calls(&client, &confirm_all));
        assert_all_unavailable(&answers[0], work.pending.len());
        sizes.push(tasks_and_memory(&process, &admin).await);
    }
    assert_nothing_accumulates(&sizes);
    work.assert_deletes_succeed(&client).await;

    relay.resume();
    assert_recovers(&client, &process, get("/readyz")).await;
    let (status, confirmed) = make_calls(&client, &confirm_all).await.remove(0);
    assert!(confirmed["results"].as_array().unwrap().iter().all(|one| one["status"] == 200), "{status} {confirmed}");
    assert_recovers(&client, &process, post_empty(format!("{}/confirm", work.multipart_path))).await;
    client.upload(&unique_png()).await;
}

/// Calls that may take S3 a long time are given up like any other if S3 does not answer at all.
#[tokio::test(flavor = "multi_thread")]
async fn f8_store_that_stops_answering_during_long_calls_is_noticed_in_time() {
    let app = TestApp::start().await;
    for (finalize, stops_at) in [("copy", "x-amz-copy-source"), ("in-place", "<CompleteMultipartUpload")] {
        let relay = StallingRelay::before_s3(&app).await;
        let (process, client, _) = start_behind_relay(&app, &relay, finalize).await;
        let path = match finalize {
            "copy" => format!("/api/images/{}", upload_all(&client, &[unique_png()]).await[0]),
            _ => send_parts(&client).await,
        };
        relay.stall_at(stops_at);
        assert_unavailable(&client, &[post_empty(format!("{path}/confirm"))]).await;
        assert!(relay.is_stalled(), "the confirm reached {stops_at}");
        relay.resume();
        client.upload(&unique_png()).await;
        if finalize == "in-place" {
            // S3 may still be completing the upload: no other attempt starts before the first one's time is over.
            tokio::time::sleep(COMPLETING).await;
        }
        assert_recovers(&client, &process, post_empty(format!("{path}/confirm"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f8_lost_store_connections_are_replaced() {
    let app = TestApp::start().await;
    let relay = StallingRelay::before_s3(&app).await;
    let (process, client, _) = start_behind_relay(&app, &relay, &finalize()).await;
    let files: Vec<_> = (0..60).map(|_| unique_png()).collect();
    let pending = upload_all(&client, &files).await;
    let confirms: Vec<_> = pending[..40].iter().map(|id| post_empty(format!("/api/images/{id}/confirm"))).collect();
    assert!(make_calls(&client, &confirms).await.iter().all(|(status, _)| *status == 200));
    relay.drop_open_connections();
    assert_unavailable(&client, &[post_empty(format!("/api/images/{}/confirm", pending[40]))]).await;
    relay.accept_again();
    assert_recovers(&client, &process, get("/readyz")).await;
    let confirms: Vec<_> = pending[40..]
        .iter()
        .map(|id| assert_recovers(&client, &process, post_empty(format!("/api/images/{id}/confirm"))))
        .collect();
    join_all(confirms).await;
    client.upload(&unique_png()).await;
}
