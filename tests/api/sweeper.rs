//! Covers the sweeper, step by step at chosen times.
//!
//! Commands: valet sweep.

mod attempts;
mod queue;
mod slow_lane;
mod store_failures;
mod undated;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use mongodb::bson::{DateTime, Document, doc};
use serde_json::json;
use time::OffsetDateTime;
use valet::domain::sweeper::Swept;

use super::{
    app::{TestApp, eventually, unique_png},
    relay::relay_s3,
    store_rules::in_place,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns the time in this duration.
fn after(duration: Duration) -> OffsetDateTime {
    OffsetDateTime::now_utc() + duration
}

/// Time in which all current URLs expire (an hour by default) and the grace period ends (a quarter of an hour), with a minute of
/// slack. Uploads live a day.
const QUIET: Duration = Duration::from_secs(3600 + 900 + 60);

#[tokio::test]
async fn c9_upload_without_an_object_expires_and_is_never_revived() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    for early in [Duration::ZERO, HOUR, QUIET, 20 * HOUR] {
        assert_eq!(app.sweep(after(early)).await, Swept::default(), "after {early:?}");
        assert_eq!(app.db_state(ticket.id()).await, "pending");
    }
    assert_eq!(
        ada.post_empty(&format!("/api/images/{}/renew", ticket.id())).await.status,
        200,
        "an upload can be renewed after a night"
    );
    let swept = app.sweep(after(24 * HOUR + Duration::from_secs(1))).await;
    assert_eq!(swept.expired, 1, "{swept:?}");
    for _ in 0..2 {
        assert_eq!(ada.confirm(ticket.id()).await.problem(), (410, "upload_expired"));
        assert_eq!(ada.post_empty(&format!("/api/images/{}/renew", ticket.id())).await.problem(), (410, "upload_expired"));
    }
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0, "the reservation has ended");
    assert_eq!(ada.open_upload("a.png", "image/png", &bytes).await.status, 201, "the same bytes may be uploaded again");
    // C9: a late PUT does not revive the upload, and its object is removed.
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (410, "upload_expired"));
    app.sweep(after(26 * HOUR)).await;
    assert_eq!(app.db_state(ticket.id()).await, "gone");
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (410, "upload_expired"), "answered as long as the record exists");
    assert!(app.bucket_keys().await.is_empty());
}

#[tokio::test]
async fn renewed_url_delays_the_sweeper() {
    let app = TestApp::start_with(|config| config.uploads.ttl = Duration::from_secs(60)).await;
    let ada = app.user().await;
    let ticket = ada.open_upload("a.png", "image/png", &unique_png()).await;
    // The upload's time is over, but its URL is still valid.
    assert_eq!(app.sweep(after(Duration::from_secs(120))).await, Swept::default());
    assert_eq!(app.db_state(ticket.id()).await, "pending");
    assert_eq!(app.sweep(after(QUIET)).await.expired, 1);
}

#[tokio::test]
async fn uploaded_object_of_a_dead_client_is_confirmed_by_the_sweeper() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    assert_eq!(app.sweep(after(HOUR)).await, Swept::default(), "the upload's URL may still be in use");
    assert_eq!(app.sweep(after(QUIET)).await.confirmed, 1);
    let image = ada.confirm(ticket.id()).await;
    assert_eq!((image.status, image.json["size"].as_u64()), (200, Some(bytes.len() as u64)));
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["images"], &usage["pending"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn wrong_object_is_rejected_and_removed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let html = b"<html>".to_vec();
    let ticket = ada.open_upload("a.png", "image/png", &html).await;
    assert_eq!(app.put(&ticket.json["upload"], html).await, 200);
    assert_eq!(app.sweep(after(QUIET)).await.rejected, 1);
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "content_mismatch"));
    // If uploads are copied at confirm, a copy in progress could still appear.
    let swept = app.sweep(after(if in_place() { QUIET } else { QUIET + HOUR })).await;
    assert_eq!((swept.removals, swept.purged), (1, 1), "no URL is valid that could store it again");
    assert!(app.bucket_keys().await.is_empty());
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "content_mismatch"), "answered as long as the record exists");
    assert_eq!(ada.post_empty(&format!("/api/images/{}/renew", ticket.id())).await.problem(), (422, "content_mismatch"));
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0);
}

/// D3: a delete frees the key for a PUT URL that is still valid.
#[tokio::test]
async fn d3_replay_after_a_delete_stays_hidden_and_is_deleted_again() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
    assert!(app.bucket_keys().await.is_empty());
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200, "S3 sees no current object");
    assert_eq!(ada.confirm(ticket.id()).await.status, 404);
    assert_eq!(ada.get("/api/images/gallery").await.json["images"], json!([]));
    assert_eq!(app.sweep(after(HOUR)).await.purged, 0, "the tombstone outlives the URL");
    assert_eq!(app.bucket_keys().await.len(), 1);
    let swept = app.sweep(after(QUIET)).await;
    assert_eq!((swept.removals, swept.purged), (1, 1));
    assert!(app.bucket_keys().await.is_empty());
    assert_eq!(app.db_state(ticket.id()).await, "gone");
}

#[tokio::test]
async fn d6_one_of_many_sweepers_handles_each_image() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut images = Vec::new();
    for n in 0..20 {
        let bytes = unique_png();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        if n % 2 == 0 {
            assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        }
        images.push(ticket.id().to_owned());
    }
    // The numbers of the servers, with the paths that each has requested from the store.
    let requested = Arc::new(Mutex::new(BTreeSet::new()));
    let mut servers = Vec::new();
    for number in 0..3 {
        let requested = requested.clone();
        let endpoint = relay_s3(&app, move |request| {
            requested.lock().unwrap().insert((number, request.path().to_owned()));
            async move { request.forward().await }
        })
        .await;
        servers.push(TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await);
    }
    // The test makes the images older, not the sweepers' clocks later: a sweeper with a later clock would finish the steps of the
    // others as those of a dead server, and the images would wait for the ends of their leases.
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 25 * 3_600_000);
    let over = doc! { "$set": { "due": past, "expiresAt": past, "urlsDieAt": past } };
    app.db.collection::<Document>("images").update_many(doc! {}, over).await.unwrap();
    let now = OffsetDateTime::now_utc();
    let swept = join_all(servers.iter().map(|server| server.sweep(now))).await;
    let total = |count: fn(&Swept) -> u32| swept.iter().map(count).sum::<u32>();
    assert_eq!((total(|s| s.confirmed), total(|s| s.expired), total(|s| s.failed)), (10, 10, 0), "{swept:?}");
    let requested = requested.lock().unwrap().clone();
    for image in &images {
        let handlers: BTreeSet<_> = requested.iter().filter(|(_, path)| path.contains(image)).map(|(number, _)| number).collect();
        assert_eq!(handlers.len(), 1, "{image} was handled by {handlers:?}");
    }
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["images"], &usage["pending"]), (&json!(10), &json!(0)));
}

/// A dead sweeper's claim ends with its lease.
#[tokio::test]
async fn lease_of_a_dead_sweeper_ends() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = ada.open_upload("a.png", "image/png", &unique_png()).await;
    let now = after(25 * HOUR);
    let images = app.db.collection::<Document>("images");
    let lease = mongodb::bson::DateTime::from_millis(
        i64::try_from((now + Duration::from_secs(120)).unix_timestamp_nanos() / 1_000_000).unwrap(),
    );
    images.update_one(doc! { "_id": ticket.id() }, doc! { "$set": { "due": lease } }).await.unwrap();
    assert_eq!(app.sweep(now).await, Swept::default());
    assert_eq!(app.sweep(now + Duration::from_secs(121)).await.expired, 1);
}

/// A delete whose server was killed right after the state changed is completed by the sweeper.
#[tokio::test]
async fn d2_interrupted_delete_is_finished() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let bytes_len = bytes.len();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    let images = app.db.collection::<Document>("images");
    let interrupted = doc! { "$set": { "state": "deleting", "due": mongodb::bson::DateTime::now() }, "$unset": { "live": "" } };
    images.update_one(doc! { "_id": ticket.id() }, interrupted).await.unwrap();
    assert_eq!(app.sweep(after(Duration::from_secs(1))).await.removals, 1);
    assert!(app.bucket_keys().await.is_empty());
    let usage = async || ada.get("/api/auth/me").await.json["usage"].clone();
    assert_eq!((&usage().await["bytes"], &usage().await["pending"]), (&json!(bytes_len), &json!(0)), "the upload's URL is valid");
    assert_eq!(app.sweep(after(QUIET)).await.purged, 1);
    assert_eq!(usage().await, json!({ "bytes": 0, "quotaBytes": 10_737_418_240_u64, "images": 0, "pending": 0 }));
}

/// A reservation whose server was killed before it inserted the image is released soon, in whichever field it was recorded. If the
/// insert still reaches the database, it fails.
#[tokio::test]
async fn reservation_without_an_image_is_released() {
    assert_reservation_is_released("opening", doc! { "usedBytes": 500_i64, "pending": 1_i64 }).await;
    assert_reservation_is_released("holds", doc! { "usedBytes": 500_i64 }).await;
}

/// Asserts that the sweeper releases a reservation in this field of the user's record whose image was never inserted.
async fn assert_reservation_is_released(field: &str, counted: Document) {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let id = uuid::Uuid::now_v7().to_string();
    let entry = doc! { "image": &id, "bytes": 500_i64, "at": mongodb::bson::DateTime::now() };
    let users = app.db.collection::<Document>("users");
    users.update_one(doc! { "_id": &ada.id }, doc! { "$push": { field: entry }, "$inc": counted }).await.unwrap();
    let usage = ada.get("/api/auth/me").await.json["usage"].clone();
    assert_eq!((&usage["bytes"], &usage["pending"]), (&json!(500), &json!(1)));
    assert_eq!(app.sweep(after(HOUR / 60)).await.reservations, 0, "the server's request may still run");
    assert_eq!(app.sweep(after(HOUR / 20)).await.reservations, 1);
    let late = app.db.collection::<Document>("images").insert_one(doc! { "_id": &id, "state": "pending" }).await;
    assert!(late.is_err(), "{late:?}");
    assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 404, "the tombstone can be read");
    assert_eq!(app.sweep(after(HOUR)).await, Swept::default());
    app.audit().await;
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["bytes"], &usage["pending"]), (&json!(0), &json!(0)));
}

/// A server sweeps in its own loop, by the database's clock.
#[tokio::test]
async fn server_sweeps_by_itself() {
    let app = TestApp::start_with(|config| config.sweep.interval = Duration::from_secs(1)).await;
    let ada = app.user().await;
    let bytes = unique_png();
    let (missing, sent) =
        (ada.open_upload("a.png", "image/png", &unique_png()).await, ada.open_upload("b.png", "image/png", &bytes).await);
    assert_eq!(app.put(&sent.json["upload"], bytes).await, 200);
    // Made older, because URLs that live for seconds may expire before a busy machine uses them.
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 48 * 3_600_000);
    let over = doc! { "$set": { "due": past, "expiresAt": past, "urlsDieAt": past } };
    app.db.collection::<Document>("images").update_many(doc! {}, over).await.unwrap();
    eventually("one upload has ended, and the other is an image", async || {
        (app.db_state(missing.id()).await.as_str(), app.db_state(sent.id()).await.as_str()) == ("gone", "ready")
    })
    .await;
}

/// The sweeps that other tests run at chosen times would race with one of the server itself.
#[tokio::test]
async fn server_of_a_test_does_not_sweep_by_itself() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = ada.open_upload("a.png", "image/png", &unique_png()).await;
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 48 * 3_600_000);
    let over = doc! { "due": past, "expiresAt": past, "urlsDieAt": past };
    let images = app.db.collection::<Document>("images");
    images.update_one(doc! { "_id": ticket.id() }, doc! { "$set": over }).await.unwrap();
    let second = TestApp::start_second_server(&app, |_| {}).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(app.db_state(ticket.id()).await, "pending");
    assert_eq!(second.sweep(OffsetDateTime::now_utc()).await.expired, 1);
}

/// A damaged document is reported, and does not stop others from being swept.
#[tokio::test]
async fn damaged_document_does_not_stop_the_sweep() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = ada.open_upload("a.png", "image/png", &unique_png()).await;
    let damaged = doc! { "_id": "damaged", "user": &ada.id, "state": "pending", "due": mongodb::bson::DateTime::now(), "key": "k", "fileName": "",
    "contentType": "?", "size": 1_i64, "createdAt": mongodb::bson::DateTime::now(), "expiresAt": mongodb::bson::DateTime::now(),
    "urlsDieAt": mongodb::bson::DateTime::now() };
    app.db.collection::<Document>("images").insert_one(damaged).await.unwrap();
    assert_eq!(app.sweep(after(25 * HOUR)).await.expired, 1);
    assert_eq!(app.db_state(ticket.id()).await, "expired");
}
