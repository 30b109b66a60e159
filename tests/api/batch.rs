//! Covers the batch calls of /api/images: each item has its own result, and a bad item does not affect the others.
//!
//! Routes: POST /api/images/upload/batch, POST /api/images/renew, POST /api/images/confirm, POST /api/images/read, POST
//! /api/images/delete.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    app::{Caller, TestApp, declaration, eventually, unique_png},
    mongodb_relay::{command, start_server_behind_relay},
};

/// Returns the status of each item's result.
fn statuses(answer: &super::app::Answer) -> Vec<u64> {
    answer.json["results"].as_array().unwrap().iter().map(|result| result["status"].as_u64().unwrap()).collect()
}

/// Opens uploads of these items with one request.
async fn open_upload(caller: &Caller<'_>, items: Vec<Value>) -> super::app::Answer {
    caller.post("/api/images/upload/batch", json!({ "items": items })).await
}

#[tokio::test]
async fn hundred_files_are_uploaded_confirmed_and_deleted_in_batches() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let files: Vec<_> = (0..100).map(|_| unique_png()).collect();
    let answer = open_upload(&ada, files.iter().map(|bytes| declaration("a.png", "image/png", bytes)).collect()).await;
    assert_eq!((answer.status, statuses(&answer)), (200, vec![201; 100]));
    let tickets: Vec<_> = answer.json["results"].as_array().unwrap().iter().map(|result| result["ticket"].clone()).collect();
    let ids: Vec<_> = tickets.iter().map(|ticket| ticket["id"].clone()).collect();
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["pending"], 100);
    let renewed = ada.post("/api/images/renew", json!({ "ids": ids })).await;
    assert_eq!(statuses(&renewed), vec![200; 100]);
    assert_eq!(renewed.json["results"][42]["ticket"]["id"], ids[42]);
    // All files but the first are sent.
    for (n, bytes) in files.iter().enumerate().skip(1) {
        assert_eq!(app.put(&renewed.json["results"][n]["ticket"]["upload"], bytes.clone()).await, 200);
    }
    let confirmed = ada.post("/api/images/confirm", json!({ "ids": ids })).await;
    assert_eq!(statuses(&confirmed), [vec![409], vec![200; 99]].concat());
    assert_eq!(confirmed.json["results"][0]["problem"]["code"], "object_missing");
    assert_eq!(confirmed.json["results"][7]["image"]["id"], ids[7]);
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["images"], &usage["pending"]), (&json!(99), &json!(1)));
    let again = ada.post("/api/images/confirm", json!({ "ids": ids })).await;
    assert_eq!(statuses(&again), statuses(&confirmed));
    let read = ada.post("/api/images/read", json!({ "ids": ids })).await;
    assert_eq!(statuses(&read), [vec![404], vec![200; 99]].concat());
    assert_eq!(read.json["results"][7]["image"]["sha256"], super::app::sha256(&files[7]));
    let gallery = ada.get("/api/images/gallery?limit=100").await;
    assert_eq!(gallery.json["images"].as_array().unwrap().len(), 99);
    let existing = open_upload(&ada, files.iter().map(|bytes| declaration("b.png", "image/png", bytes)).collect()).await;
    assert_eq!(statuses(&existing), vec![200; 100], "all files are known");
    assert_eq!(existing.json["results"][0]["ticket"]["state"], "pending");
    assert_eq!(existing.json["results"][9]["ticket"]["image"]["fileName"], "a.png");
    let deleted = ada.post("/api/images/delete", json!({ "ids": ids })).await;
    assert_eq!(statuses(&deleted), vec![204; 100]);
    assert_eq!(statuses(&ada.post("/api/images/delete", json!({ "ids": ids })).await), vec![204; 100], "a repeat succeeds");
    let usage = ada.get("/api/auth/me").await.json["usage"].clone();
    let bytes: usize = files.iter().map(Vec::len).sum();
    assert_eq!((&usage["bytes"], &usage["images"], &usage["pending"]), (&json!(bytes), &json!(0), &json!(0)));
    assert!(app.bucket_keys().await.len() < 99, "the request itself deletes objects");
    // A slow store has deleted a part of them when the request's time ends; the tombstones of the others are due.
    eventually("the objects are deleted", async || {
        app.sweep(OffsetDateTime::now_utc()).await;
        app.bucket_keys().await.is_empty()
    })
    .await;
    app.sweep_after_url_expiry().await;
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0);
    app.audit().await;
}

#[tokio::test]
async fn bad_item_does_not_affect_the_others() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let same = unique_png();
    let mut keyed = declaration("k.png", "image/png", &unique_png());
    keyed["idempotencyKey"] = json!("k");
    let mut reused = declaration("k.png", "image/png", &unique_png());
    reused["idempotencyKey"] = json!("k");
    let answer = open_upload(
        &ada,
        vec![
            declaration("a.png", "image/png", &same),
            declaration("a.svg", "image/svg+xml", b"<svg/>"),
            declaration("again.png", "image/png", &same),
            keyed.clone(),
            reused,
            keyed.clone(),
            json!({ "fileName": "a.png", "contentType": "image/png", "size": 0, "sha256": "x" }),
        ],
    )
    .await;
    let is_opened = |status: u64| matches!(status, 200 | 201);
    let item_statuses = statuses(&answer);
    assert!(
        is_opened(item_statuses[0]) && is_opened(item_statuses[2]) && item_statuses[0] != item_statuses[2],
        "equal items in one batch are one upload: {item_statuses:?}"
    );
    assert_eq!(answer.json["results"][0]["ticket"]["id"], answer.json["results"][2]["ticket"]["id"]);
    assert_eq!((item_statuses[1], item_statuses[6]), (422, 422));
    let problem = &answer.json["results"][6]["problem"];
    assert_eq!(
        (problem["code"].as_str(), problem["requestId"].as_str()),
        (Some("invalid_size"), Some(answer.header("x-request-id")))
    );
    // The database decides which of the three items with one key comes first; an item with another body is rejected.
    let codes: Vec<_> =
        [3, 4, 5].iter().map(|n| answer.json["results"][*n]["problem"]["code"].as_str().unwrap_or("ok")).collect();
    assert!(
        codes == ["ok", "idempotency_key_reused", "ok"] || codes == ["idempotency_key_reused", "ok", "idempotency_key_reused"],
        "{codes:?}"
    );
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["pending"], 2, "failed items reserve nothing");

    let adas = ada.upload("m.png", "image/png", &unique_png()).await["id"].clone();
    let bobs = bob.upload("t.png", "image/png", &unique_png()).await["id"].clone();
    let unknown = json!(uuid::Uuid::now_v7().to_string());
    let ids = json!({ "ids": [bobs, adas, unknown, "no id", adas] });
    for (path, good) in [("read", 200), ("confirm", 200), ("renew", 200), ("delete", 204)] {
        let answer = ada.post(&format!("/api/images/{path}"), ids.clone()).await;
        assert_eq!(statuses(&answer), vec![404, good, 404, 404, good], "{path}: {answer:?}");
    }
    assert_eq!(bob.get(&format!("/api/images/{}", bobs.as_str().unwrap())).await.status, 200);
}

#[tokio::test]
async fn at_the_quota_only_items_that_fit_are_opened() {
    let app = TestApp::start_with(|config| {
        config.uploads.quota_bytes = 1000;
        config.uploads.max_pending = 3;
    })
    .await;
    let ada = app.user().await;
    let item = |n: u64, size: u64| json!({ "fileName": "a.png", "contentType": "image/png", "size": size, "sha256": super::app::sha256(&n.to_be_bytes()) });
    let answer = open_upload(&ada, vec![item(1, 900), item(2, 200), item(3, 50), item(4, 50), item(5, 1)]).await;
    assert_eq!(statuses(&answer), [201, 409, 201, 201, 409]);
    let code = |n: usize| answer.json["results"][n]["problem"]["code"].as_str().unwrap().to_owned();
    assert_eq!(code(1), "quota_exceeded");
    assert_eq!(
        ada.get("/api/auth/me").await.json["usage"],
        json!({ "bytes": 1000, "quotaBytes": 1000, "images": 0, "pending": 3 })
    );
}

#[tokio::test]
async fn batch_of_the_wrong_shape_is_rejected_as_a_whole() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let item = declaration("a.png", "image/png", &unique_png());
    let many: Vec<_> = (0..101).map(|_| item.clone()).collect();
    for items in [
        json!([]),
        json!(many),
        json!([{ "fileName": "a.png" }]),
        json!("x"),
        json!([null]),
        json!([["a.png", "image/png", 5, item["sha256"]]]),
    ] {
        assert_eq!(ada.post("/api/images/upload/batch", json!({ "items": items })).await.problem(), (400, "invalid_request"));
    }
    for ids in [json!([]), json!(vec!["x"; 101]), json!([1]), json!(null)] {
        for path in ["renew", "confirm", "read", "delete"] {
            assert_eq!(
                ada.post(&format!("/api/images/{path}"), json!({ "ids": ids })).await.problem(),
                (400, "invalid_request"),
                "{path}"
            );
        }
    }
    let mut bad_key = item.clone();
    bad_key["idempotencyKey"] = json!("");
    let rejected = open_upload(&ada, vec![item, bad_key]).await;
    assert_eq!(
        (rejected.problem(), rejected.json["errors"][0]["field"].as_str()),
        ((400, "invalid_request"), Some("items[1].idempotencyKey"))
    );
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["pending"], 0);
    let large = json!({ "ids": vec!["x".repeat(4000); 60] });
    assert_eq!(ada.post("/api/images/read", large).await.status, 200, "240 KB of ids are within the limit");
    assert_eq!(
        ada.post("/api/images/read", json!({ "ids": vec!["x".repeat(4000); 70] })).await.problem(),
        (413, "payload_too_large")
    );
}

/// Another request prolongs an expired upload between the two reads of a renewal: the upload exists, and the renewal may be
/// repeated.
#[tokio::test(flavor = "multi_thread")]
async fn upload_that_is_prolonged_during_its_renewal_is_not_reported_as_missing() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let id = ada.open_upload("a.png", "image/png", &unique_png()).await.id().to_owned();
    let (paused, mut pauses) = tokio::sync::mpsc::unbounded_channel::<std::sync::mpsc::Sender<()>>();
    let (read_id, reads) = (id.clone(), AtomicU32::new(0));
    let pause = move |message: &mut [u8]| {
        let reads_image =
            command(message).is_some_and(|command| command.contains_key("find") && command.to_string().contains(&read_id));
        if reads_image && reads.fetch_add(1, Relaxed) == 1 {
            let (resume, resumed) = std::sync::mpsc::channel();
            paused.send(resume).unwrap();
            tokio::task::block_in_place(|| resumed.recv().unwrap());
        }
    };
    let slow = start_server_behind_relay(&app, Arc::new(pause), Arc::new(|_| {})).await;
    let images = app.db.collection::<Document>("images");
    let expire_at = async |milliseconds: i64| {
        let at = DateTime::from_millis(DateTime::now().timestamp_millis() + milliseconds);
        images.update_one(doc! { "_id": &id }, doc! { "$set": { "expiresAt": at } }).await.unwrap();
    };
    expire_at(-60_000).await;
    let prolong = async {
        let resume = pauses.recv().await.unwrap();
        expire_at(3_600_000).await;
        resume.send(()).unwrap();
    };
    let beside = Caller { token: ada.token.clone(), ..slow.anonymous() };
    let (answer, ()) = tokio::join!(beside.post("/api/images/renew", json!({ "ids": [&id] })), prolong);
    assert_eq!(statuses(&answer), [503], "{answer:?}");
    assert_eq!(statuses(&ada.post("/api/images/renew", json!({ "ids": [&id] })).await), [200]);
}
