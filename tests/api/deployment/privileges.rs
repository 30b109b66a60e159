//! Compares the policies of deploy/aws with the program in both directions: they allow every S3 request that the program makes,
//! and nothing else. `VALET_TEST_S3_REQUESTS` names a file for the recorded requests, which `.ci/deploy` passes to a policy
//! engine.

use std::{collections::BTreeSet, path::Path, time::Duration};

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::{
    config::{Finalize, PreviewWorker, Previews, SweepSchedule},
    domain::{
        doctor::{self, Options},
        orphans::Consent,
    },
    model::{ImageId, ObjectKey, UserId},
};

use super::{
    file,
    s3_recorder::{RecordedRequest, S3Recorder},
};
use crate::{
    app::{Caller, PASSWORD, TestApp, declaration, eventually, fixture, s3_is_local, sha256, unique_png},
    store_notifications::local_queue::LocalQueue,
};

/// Starts a server that reaches S3 through this recorder, as do its clients.
async fn through(recorder: &S3Recorder, store: &TestApp) -> TestApp {
    TestApp::start_second_server(store, |config| {
        config.s3.endpoint = Some(recorder.endpoint.parse().unwrap());
        config.s3.public_endpoint = Some(recorder.endpoint.parse().unwrap());
        config.s3.finalize = Finalize::Auto;
        config.previews = Previews::Worker(PreviewWorker::default());
        config.cors.exact = vec!["https://app.example".to_owned()];
        config.sweep.schedule = SweepSchedule::Prompt;
    })
    .await
}

/// Sweeps at times after the end of URLs, reservations and grace periods, as often as the deletions need.
async fn sweep_late(app: &TestApp) {
    // After `UPLOAD_TTL` (24 h) with its grace, after another day for tombstones, and after `MULTIPART_TTL` (168 h) with its grace.
    for hours in [26, 52, 200] {
        app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(hours * 3600)).await;
    }
}

/// Fetches a presigned URL.
async fn fetch(app: &TestApp, url: &Value) {
    assert_eq!(app.http.get(url.as_str().unwrap()).send().await.unwrap().status(), 200);
}

/// Uploads an image with a preview by single PUTs, and fetches both and the download; returns the image's id.
async fn upload_with_preview(ada: &Caller<'_>) -> String {
    let (app, bytes, preview) = (ada.app, unique_png(), fixture("plain.jpg"));
    let mut body = declaration("a.png", "image/png", &bytes);
    body["preview"] = json!({ "contentType": "image/jpeg", "size": preview.len(), "sha256": sha256(&preview) });
    let ticket = ada.post("/api/images/upload", body).await;
    assert_eq!(ada.confirm(ticket.id()).await.status, 409, "the object was not uploaded yet");
    assert_eq!(app.put(&ticket.json["previewUpload"], preview).await, 200);
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    let image = ada.confirm(ticket.id()).await.json;
    fetch(app, &image["url"]).await;
    fetch(app, &image["previewUrl"]).await;
    fetch(app, &ada.get(&format!("/api/images/{}/download", ticket.id())).await.json["url"]).await;
    ticket.id().to_owned()
}

/// Uploads an image in parts, and deletes another multipart upload that is not complete.
async fn in_parts(ada: &Caller<'_>) {
    let mut bytes = unique_png();
    bytes.resize((5 << 20) + 1000, 7);
    let body = json!({ "fileName": "b.png", "contentType": "image/png", "size": bytes.len(), "partSize": 5 << 20 });
    let opened = ada.post("/api/images/multipart", body.clone()).await;
    let id = opened.id();
    let numbers = json!({ "parts": [{ "partNumber": 1 }, { "partNumber": 2 }] });
    let signed = ada.post(&format!("/api/images/{id}/parts"), numbers).await;
    for (part, chunk) in signed.json["parts"].as_array().unwrap().iter().zip(bytes.chunks(5 << 20)) {
        assert_eq!(ada.app.put(&part["request"], chunk.to_vec()).await, 200);
    }
    assert_eq!(ada.get(&format!("/api/images/{id}/parts")).await.json["parts"].as_array().unwrap().len(), 2);
    assert_eq!(ada.confirm(id).await.status, 200);
    let unfinished = ada.post("/api/images/multipart", body).await;
    assert_eq!(ada.delete(&format!("/api/images/{}", unfinished.id())).await.status, 204);
}

/// Uploads with Uppy's form, whose file is copied, and makes the calls of Uppy's own S3 client.
async fn with_uppy(ada: &Caller<'_>) {
    let app = ada.app;
    let form = app.anonymous().get(&format!("/uppy/{}/s3/params?filename=c.png&type=image/png", ada.uppy().await)).await;
    let bytes = unique_png();
    assert!(app.post_form(&form.json, &bytes).await.is_success());
    app.until_state(form.json["fields"]["key"].as_str().unwrap().rsplit('/').next().unwrap(), "ready").await;

    let signed = async |body: Value, method: &str| {
        let signed = ada.post("/api/uppy/presign", body).await;
        assert_eq!(signed.status, 200, "{signed:?}");
        let call = app.http.request(method.parse().unwrap(), signed.json["url"].as_str().unwrap());
        let answer = call.header("content-type", "image/png").send().await.unwrap();
        (signed.json["key"].clone(), answer.text().await.unwrap())
    };
    let (key, opened) = signed(json!({ "method": "POST", "key": format!("{}-d.png", uuid::Uuid::new_v4()) }), "POST").await;
    let upload_id = opened.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap();
    for method in ["GET", "DELETE"] {
        signed(json!({ "method": method, "key": key, "uploadId": upload_id }), method).await;
    }
}

/// Makes every kind of call that a server and its clients make to S3.
async fn make_all_calls(app: &TestApp, store: &TestApp) {
    app.app.readiness().await.unwrap();
    app.app.valet.deployment.verify_pair().await.unwrap();
    let ada = app.user().await;
    let deleted = upload_with_preview(&ada).await;
    ada.upload("kept.png", "image/png", &unique_png()).await;
    in_parts(&ada).await;
    with_uppy(&ada).await;
    #[cfg(feature = "worker")]
    assert_eq!(crate::preview_worker::render(app).await, 4, "the pictures of every upload");
    assert_eq!(ada.delete(&format!("/api/images/{deleted}")).await.status, 204);
    sweep_late(app).await;
    let orphan = ObjectKey::final_for(UserId::new(), ImageId::new());
    store.bucket_put(orphan.as_str(), "image/png", vec![1]).await;
    // The orphan must be older than the time below, and S3 counts whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before = OffsetDateTime::now_utc() - Duration::from_millis(50);
    let found = app.app.valet.orphans.find(before, &mut |_| {}).await.unwrap();
    assert_eq!(app.app.valet.orphans.delete(before, &found, Consent::Number(1)).await.unwrap().deleted, 1);
    assert_eq!(ada.post("/api/auth/me/delete", json!({ "password": PASSWORD })).await.status, 204);
    // The server's own sweeper may have claimed a record that the late sweeps leave out.
    eventually("no object is left", async || {
        sweep_late(app).await;
        app.bucket_keys().await.is_empty()
    })
    .await;
}

/// Returns the actions that a policy allows, and all of its resources.
fn granted(policy: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let policy: Value = serde_json::from_str(&file(policy)).unwrap();
    let list = |value: &Value| match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    };
    let statements = policy["Statement"].as_array().unwrap();
    assert!(statements.iter().all(|statement| statement["Effect"] == "Allow"));
    let all = |member: &str| statements.iter().flat_map(|statement| list(&statement[member])).collect();
    (all("Action"), all("Resource"))
}

/// Returns the permissions that requests need.
fn actions(requests: &[RecordedRequest]) -> BTreeSet<String> {
    requests.iter().map(|request| request.action.to_owned()).collect()
}

/// Returns the SDK calls in the source by the SDK's method names, such as `client.head_object()`.
fn calls_of_the_source() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/objects");
    let texts = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let code: String = texts.map(|text| text.split_whitespace().collect::<String>()).collect();
    let calls = code.split("client.").skip(1).filter_map(|rest| rest.split_once("().").map(|(name, _)| name.to_owned()));
    calls.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')).collect()
}

/// Converts `HeadObject` to `head_object`.
fn snake(operation: &str) -> String {
    let mut name = String::new();
    for letter in operation.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// Sets the bucket's settings as `valet check --fix` does, with a queue of notifications.
async fn fix_settings(operator: &S3Recorder, store: &TestApp) {
    let queue = LocalQueue::default().serve(([127, 0, 0, 1], 0).into()).await;
    let mut config = through(operator, store).await.config.clone();
    config.store_events.queue = Some(queue.url());
    doctor::run(&config, Options { fix: true, loopback: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_policies_allow_exactly_the_requests_that_are_made() {
    let store = TestApp::start().await;
    let (role, operator) = (S3Recorder::start(&store).await, S3Recorder::start(&store).await);
    // AWS and LocalStack create a public access block with each bucket; here `--fix` sets it.
    let _ = store.s3.delete_public_access_block().bucket(&store.config.s3.bucket).send().await;
    let app = through(&role, &store).await;
    make_all_calls(&app, &store).await;
    doctor::run(&app.config, Options::default()).await;
    if !s3_is_local() {
        let versions = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let put = store.s3.put_bucket_versioning().bucket(&store.config.s3.bucket);
        put.versioning_configuration(versions).send().await.unwrap();
        make_all_calls(&app, &store).await;
        doctor::run(&app.config, Options::default()).await;
    }
    fix_settings(&operator, &store).await;

    let (mut by_role, mut by_operator) = (role.requests(), operator.requests());
    if s3_is_local() {
        // The local S3 keeps no versions, so none is deleted here; the run on LocalStack covers that request.
        let version = |prefix: &str| RecordedRequest {
            operation: "DeleteObject",
            action: "s3:DeleteObjectVersion",
            key: format!("{prefix}/x"),
            auth_type: "REST-HEADER",
        };
        by_role.extend(["u", "in", "check"].map(version));
        // The local S3 sends no notifications, so `--fix` does not write that setting.
        by_operator.push(RecordedRequest {
            operation: "PutBucketNotificationConfiguration",
            action: "s3:PutBucketNotification",
            key: String::new(),
            auth_type: "REST-HEADER",
        });
    }
    let made: BTreeSet<_> = by_role.iter().chain(&by_operator).filter(|request| request.auth_type == "REST-HEADER").collect();
    let made: BTreeSet<_> = made.into_iter().map(|request| snake(request.operation)).collect();
    assert_eq!(made, calls_of_the_source(), "the test makes every SDK call of the source");

    let (role_actions, role_resources) = granted("aws/iam-policy.json");
    let (operator_actions, operator_resources) = granted("aws/operator-policy.json");
    // `valet check` reads the bucket's settings too, and reports the ones that it may not read.
    let needed: BTreeSet<_> = actions(&by_role).difference(&operator_actions).cloned().collect();
    assert_eq!(needed, role_actions);
    let needed: BTreeSet<_> = actions(&by_operator).difference(&role_actions).cloned().collect();
    assert_eq!(needed, operator_actions);
    let resources = by_role.iter().map(|request| match request.key.split_once('/') {
        Some(("valet", _)) => format!("arn:aws:s3:::BUCKET/{}", request.key),
        Some((prefix, _)) => format!("arn:aws:s3:::BUCKET/{prefix}/*"),
        None => "arn:aws:s3:::BUCKET".to_owned(),
    });
    assert_eq!(resources.collect::<BTreeSet<_>>(), role_resources, "requests are made under every prefix");
    assert_eq!(operator_resources.len(), 1, "the operator's policy is for the bucket alone");

    if let Ok(path) = std::env::var("VALET_TEST_S3_REQUESTS") {
        let requests = json!({ "role": by_role, "operator": by_operator });
        std::fs::write(path, serde_json::to_vec_pretty(&requests).unwrap()).unwrap();
    }
}
