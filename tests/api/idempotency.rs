//! U11: covers Idempotency-Key: a repeat with the same key finds the first request's upload.
//!
//! Routes: POST /api/images/upload.

use std::time::Duration;

use futures_util::future::join_all;
use mongodb::bson::{DateTime, Document, doc};
use reqwest::Method;
use serde_json::{Value, json};

use super::app::{Answer, Caller, TestApp, declaration, sha256, unique_png};

/// Opens an upload with an idempotency key.
async fn open_upload(caller: &Caller<'_>, key: &str, body: &Value) -> Answer {
    caller.send(Method::POST, "/api/images/upload", |request| request.header("idempotency-key", key).json(body)).await
}

#[tokio::test]
async fn u11_repeat_gets_the_same_upload_and_another_body_is_rejected() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let bytes = unique_png();
    let body = declaration("a.png", "image/png", &bytes);
    let first = open_upload(&ada, "\"k-1\"", &body).await;
    assert_eq!(first.status, 201);
    let again = open_upload(&ada, "k-1", &body).await;
    assert_eq!(
        (again.status, again.id(), again.json["state"].as_str()),
        (200, first.id(), Some("pending")),
        "the key may be quoted"
    );
    for (member, value) in
        [("fileName", json!("b.png")), ("size", json!(5)), ("sha256", json!(sha256(b"other"))), ("caption", json!("c"))]
    {
        let mut other = body.clone();
        other[member] = value;
        assert_eq!(open_upload(&ada, "k-1", &other).await.problem(), (422, "idempotency_key_reused"), "{member}");
    }
    let other_user = open_upload(&bob, "k-1", &declaration("b.png", "image/png", &unique_png())).await;
    assert_eq!(other_user.status, 201, "each user has keys of their own");
    assert_eq!(app.put(&again.json["upload"], bytes).await, 200);
    assert_eq!(ada.confirm(first.id()).await.status, 200);
    let ready = open_upload(&ada, "k-1", &body).await;
    assert_eq!((ready.status, ready.json["image"]["id"].as_str()), (200, Some(first.id())));
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["images"], &usage["pending"]), (&json!(1), &json!(0)));
    for bad in ["\"\"", &"x".repeat(256), "k-é"] {
        let with_invalid_key = open_upload(&ada, bad, &body).await;
        assert_eq!(
            (with_invalid_key.problem(), with_invalid_key.json["errors"][0]["field"].as_str()),
            ((400, "invalid_request"), Some("Idempotency-Key"))
        );
    }
}

#[tokio::test]
async fn u11_fifty_concurrent_repeats_open_one_upload() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let body = declaration("a.png", "image/png", &unique_png());
    let answers = join_all((0..50).map(|_| open_upload(&ada, "twins", &body))).await;
    assert!(answers.iter().all(|answer| answer.id() == answers[0].id()));
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    let other = declaration("b.png", "image/png", &unique_png());
    let bodies = [&body, &other];
    let answers = join_all((0..20).map(|n| open_upload(&ada, "rivals", bodies[n % 2]))).await;
    let ids: std::collections::BTreeSet<_> = answers.iter().filter(|answer| answer.status < 300).map(Answer::id).collect();
    // The first body's bytes already have an upload, which is returned; the key then belongs to the second body.
    assert!(
        answers.iter().all(|answer| answer.status < 300 || answer.problem() == (422, "idempotency_key_reused")),
        "{answers:?}"
    );
    assert!(ids.len() <= 2, "{ids:?}");
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["pending"], 2);
}

#[tokio::test]
async fn u11_key_is_released_by_failure_deletion_and_expiry() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let html = b"<html>".to_vec();
    let rejected = open_upload(&ada, "k", &declaration("a.png", "image/png", &html)).await;
    assert_eq!(app.put(&rejected.json["upload"], html).await, 200);
    assert_eq!(ada.confirm(rejected.id()).await.status, 422);
    let deleted = open_upload(&ada, "k", &declaration("a.png", "image/png", &unique_png())).await;
    assert_eq!(deleted.status, 201, "the rejection released the key");
    assert_eq!(ada.delete(&format!("/api/images/{}", deleted.id())).await.status, 204);
    let expired = open_upload(&ada, "k", &declaration("a.png", "image/png", &unique_png())).await;
    assert_eq!(expired.status, 201, "the deletion released the key");
    app.sweep(time::OffsetDateTime::now_utc() + Duration::from_secs(25 * 3600)).await;
    let body = declaration("a.png", "image/png", &unique_png());
    let first = open_upload(&ada, "k", &body).await;
    assert_eq!(first.status, 201, "the expiry released the key");
    let yesterday = DateTime::from_millis(DateTime::now().timestamp_millis() - 24 * 3600 * 1000);
    let images = app.db.collection::<Document>("images");
    images.update_one(doc! { "_id": first.id() }, doc! { "$set": { "createdAt": yesterday } }).await.unwrap();
    let next_day = open_upload(&ada, "k", &declaration("a.png", "image/png", &unique_png())).await;
    assert_eq!(next_day.status, 201, "the key was released after 24 hours");
    assert_ne!(next_day.id(), first.id());
}

#[tokio::test]
async fn known_key_is_answered_at_the_limit_of_pending_uploads() {
    let app = TestApp::start_with(|config| config.uploads.max_pending = 1).await;
    let ada = app.user().await;
    let body = declaration("a.png", "image/png", &unique_png());
    let first = open_upload(&ada, "k", &body).await;
    assert_eq!((open_upload(&ada, "k", &body).await.status, open_upload(&ada, "k", &body).await.id()), (200, first.id()));
    assert_eq!(
        open_upload(&ada, "k2", &declaration("b.png", "image/png", &unique_png())).await.problem(),
        (409, "too_many_pending")
    );
}
