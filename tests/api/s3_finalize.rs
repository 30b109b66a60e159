//! Covers `S3_FINALIZE`: confirmed images do not change on stores where a URL can write twice, or that store unverified bytes.
//!
//! Routes: POST /api/images/{id}/confirm.

use std::time::Duration;

use futures_util::future::join_all;
use mongodb::bson::Document;
use serde_json::json;
use time::OffsetDateTime;
use valet::config::Finalize;

use super::{
    app::{TestApp, fixture, sha256, skip_unless_local_s3, unique_png},
    doctor::store_defects::{Defect, Proxy},
    store_rules::{CHECKSUM, COPY_SOURCE, ONCE, OVERLAP},
};

/// Time in which all current URLs expire (an hour) and the grace period ends (a quarter of an hour), with a minute of slack.
const QUIET: Duration = Duration::from_secs(3600 + 900 + 60);

/// Starts a server that copies every object before it confirms it.
async fn start_copying_server() -> TestApp {
    TestApp::start_with(|config| config.s3.finalize = Finalize::Copy).await
}

/// Starts a second server, whose store has this defect.
async fn start_on_defective_store(app: &TestApp, defect: Defect) -> TestApp {
    let proxy = Proxy::start(app, defect).await;
    TestApp::start_second_server(app, |config| {
        config.s3.finalize = Finalize::Auto;
        config.s3.endpoint = Some(proxy.endpoint.parse().unwrap());
        config.s3.public_endpoint = Some(proxy.endpoint.parse().unwrap());
    })
    .await
}

/// Returns the object key in an image's document.
fn key(document: &Document) -> String {
    document.get_str("key").unwrap().to_owned()
}

#[tokio::test]
async fn store_that_enforces_signed_headers_needs_no_copy() {
    let app = TestApp::start_with(|config| config.s3.finalize = Finalize::Auto).await;
    if !app.store_satisfies(&[ONCE, OVERLAP, COPY_SOURCE, CHECKSUM]).await {
        let ticket = app.user().await.open_upload("a.png", "image/png", &unique_png()).await;
        assert!(ticket.json["upload"]["url"].as_str().unwrap().contains("/in/"), "weaker stores are detected");
        crate::skipping::skip("the rest needs a store that satisfies all rules");
        return;
    }
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let id = image["id"].as_str().unwrap();
    let document = app.db_image(id).await.unwrap();
    assert_eq!(key(&document), format!("u/{}/{id}", ada.id));
    assert!(!document.contains_key("due") && !document.contains_key("strays"));
    assert_eq!(app.bucket_keys().await, [key(&document)], "probe objects are removed");
}

#[tokio::test]
async fn u6_i6_confirmed_image_does_not_change_if_its_url_can_write_twice() {
    if skip_unless_local_s3() {
        return;
    }
    let store = TestApp::start().await;
    for defect in [Defect::ReplacesObjects, Defect::HasNoLocks, Defect::TakesUnsignedCopySource] {
        let app = start_on_defective_store(&store, defect).await;
        let ada = app.user().await;
        let bytes = unique_png();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        assert!(ticket.json["upload"]["url"].as_str().unwrap().contains("/in/"), "{defect:?}");
        assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
        let image = ada.confirm(ticket.id()).await;
        assert_eq!(image.status, 200, "{defect:?}: {image:?}");
        let document = app.db_image(ticket.id()).await.unwrap();
        assert!(key(&document).starts_with(&format!("u/{}/{}-", ada.id, ticket.id())), "{document}");

        // A client with the URL writes other bytes; they do not reach the image.
        app.bucket_put(&format!("in/{}/{}", ada.id, ticket.id()), "image/png", fixture("animated.png")).await;
        let mut copy_request = ticket.json["upload"].clone();
        copy_request["headers"]["x-amz-copy-source"] = json!(format!("{}/{}", app.config.s3.bucket, key(&document)));
        let is_accepted = app.put(&copy_request, bytes.clone()).await == 200;
        assert_eq!(is_accepted, defect == Defect::TakesUnsignedCopySource);
        let read = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(read.bytes().await.unwrap(), bytes, "{defect:?}");
        assert_eq!(ada.confirm(ticket.id()).await.json["sha256"], sha256(&bytes));
        app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
        let keys_left: Vec<_> = app.bucket_keys().await.into_iter().filter(|found| found.contains(ticket.id())).collect();
        assert_eq!(keys_left, [key(&document)], "{defect:?}: the source was deleted at once");
    }
}

#[tokio::test]
async fn c3_bytes_are_hashed_if_the_store_ignores_checksums() {
    if skip_unless_local_s3() {
        return;
    }
    let store = TestApp::start().await;
    let app = start_on_defective_store(&store, Defect::KnowsNoChecksums).await;
    let ada = app.user().await;
    let (bytes, mut other_bytes) = (unique_png(), unique_png());
    other_bytes.truncate(bytes.len());
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], other_bytes).await, 200, "this store accepts any bytes of this length");
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "object_mismatch"));
    let again = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(again.status, 201);
    assert_eq!(app.put(&again.json["upload"], bytes.clone()).await, 200);
    let image = ada.confirm(again.id()).await;
    assert_eq!(image.status, 200, "{image:?}");
    let read = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn store_that_cannot_be_probed_is_not_trusted() {
    let app = TestApp::start().await;
    let proxy = Proxy::start(&app, Defect::StripsIfNoneMatch).await;
    let app = TestApp::start_second_server(&app, |config| {
        config.s3.finalize = Finalize::Auto;
        config.s3.endpoint = Some(proxy.endpoint.parse().unwrap());
    })
    .await;
    let ada = app.user().await;
    assert_eq!(ada.open_upload("a.png", "image/png", &unique_png()).await.problem(), (503, "unavailable"));
}

#[tokio::test]
async fn c5_hundred_confirms_keep_one_copy() {
    let app = start_copying_server().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    let answers = join_all((0..100).map(|_| ada.confirm(ticket.id()))).await;
    let first = &answers[0];
    for answer in &answers {
        assert_eq!((answer.status, &answer.json["id"]), (200, &first.json["id"]), "{answer:?}");
    }
    let final_key = key(&app.db_image(ticket.id()).await.unwrap());
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(60)).await;
    assert_eq!(app.bucket_keys().await, std::slice::from_ref(&final_key), "the source and the other copies are deleted");
    app.sweep(OffsetDateTime::now_utc() + QUIET).await;
    app.sweep(OffsetDateTime::now_utc() + QUIET + Duration::from_secs(300)).await;
    let document = app.db_image(ticket.id()).await.unwrap();
    assert!(!document.contains_key("strays") && !document.contains_key("due"), "{document}");
    assert_eq!(app.bucket_keys().await, [final_key]);
    let usage = ada.get("/api/auth/me").await.json["usage"].clone();
    assert_eq!((&usage["bytes"], &usage["images"], &usage["pending"]), (&json!(bytes.len()), &json!(1), &json!(0)));
}

#[tokio::test]
async fn d3_put_after_the_confirm_is_removed() {
    let app = start_copying_server().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200, "the incoming key is free again");
    assert_eq!(app.bucket_keys().await.len(), 2);
    app.sweep(OffsetDateTime::now_utc() + QUIET).await;
    assert_eq!(app.bucket_keys().await.len(), 1);
    // An object that is written before the deletion of the image is deleted too.
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
    app.sweep(OffsetDateTime::now_utc() + QUIET + Duration::from_secs(600)).await;
    app.sweep(OffsetDateTime::now_utc() + QUIET + Duration::from_secs(1200)).await;
    assert_eq!(app.db_state(ticket.id()).await, "gone");
}

#[tokio::test]
async fn wrong_bytes_at_the_incoming_key_are_rejected_and_removed() {
    let app = start_copying_server().await;
    let ada = app.user().await;
    for (declared_as, bytes, problem) in
        [("image/png", fixture("plain.jpg"), "content_mismatch"), ("image/jpeg", b"<svg/>".to_vec(), "content_mismatch")]
    {
        let ticket = ada.open_upload("a", declared_as, &bytes).await;
        assert_eq!(ada.confirm(ticket.id()).await.problem(), (409, "object_missing"));
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        for _ in 0..2 {
            assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, problem));
        }
        // The next sweep deletes the object of a rejected upload.
        app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
        assert_eq!(app.bucket_keys().await, Vec::<String>::new());
    }
    // An object of another length, written with the operator's credentials.
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    app.bucket_put(&format!("in/{}/{}", ada.id, ticket.id()), "image/png", fixture("plain.png")).await;
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "object_mismatch"));
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["pending"], 0);
    app.sweep_after_url_expiry().await;
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0);
}

/// A server died after it had recorded and made a copy: the sweeper finds the copy by the record.
#[tokio::test]
async fn f13_copy_of_a_dead_server_is_removed() {
    let app = start_copying_server().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    let lost = format!("u/{}/{}-{}", ada.id, ticket.id(), uuid::Uuid::new_v4().simple());
    let images = app.db.collection::<Document>("images");
    let with_leftover = mongodb::bson::doc! { "$set": { "strays": [&lost] } };
    images.update_one(mongodb::bson::doc! { "_id": ticket.id() }, with_leftover).await.unwrap();
    app.bucket_put(&lost, "image/png", bytes.clone()).await;
    assert_eq!(app.sweep(OffsetDateTime::now_utc() + QUIET).await.confirmed, 1, "the sweeper confirms the upload");
    app.sweep(OffsetDateTime::now_utc() + QUIET + Duration::from_secs(200)).await;
    let final_key = key(&app.db_image(ticket.id()).await.unwrap());
    assert_ne!(final_key, lost);
    assert_eq!(app.bucket_keys().await, [final_key]);
}
