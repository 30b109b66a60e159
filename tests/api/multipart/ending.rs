//! Covers the end of multipart uploads: completion, concurrent confirms, deletion, expiry.
//!
//! Routes: POST /api/images/{id}/confirm, DELETE /api/images/{id}.

use futures_util::future::join_all;
use reqwest::Method;

use super::{Caller, DAY, Duration, QUIET, TestApp, after, declaration, file, json, part, sha256, unique_png};

#[tokio::test]
async fn c5_fifty_confirms_give_one_image_and_one_answer() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let ada = app.user().await;
    let ada_on_other = Caller { app: &other, ..ada.clone() };
    let bytes = file();
    let ticket = ada.open(declaration(&bytes, "sha256")).await;
    for number in 1..=3 {
        let sum = sha256(&part(&bytes, number));
        let request = ada.part_url(ticket.id(), json!({ "partNumber": number, "sha256": sum })).await;
        assert_eq!(app.put(&request, part(&bytes, number)).await, 200);
    }
    let answers =
        join_all((0..50).map(|n| if n % 2 == 0 { &ada } else { &ada_on_other }).map(|ada| ada.confirm(ticket.id()))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.json), (200, &answers[0].json));
    }
    assert_eq!(app.bucket_keys().await.len(), 1);
    assert!(app.bucket_uploads().await.is_empty());
    let expected = json!({ "bytes": bytes.len(), "quotaBytes": 10_737_418_240_u64, "images": 1, "pending": 0 });
    assert_eq!(ada.usage().await, expected);
}

#[tokio::test]
async fn delete_aborts_the_upload_and_later_parts_are_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = file();
    let ticket = ada.open(declaration(&bytes, "none")).await;
    ada.send_parts(ticket.id(), &bytes, &[1]).await;
    let part_url = ada.part_url(ticket.id(), json!({ "partNumber": 2 })).await;
    assert_eq!(app.bucket_uploads().await.len(), 1);
    assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
    assert!(app.bucket_uploads().await.is_empty());
    assert_eq!(
        (&ada.usage().await["bytes"], &ada.usage().await["pending"]),
        (&json!(bytes.len()), &json!(0)),
        "URLs can still write the bytes"
    );
    assert_eq!(app.put(&part_url, part(&bytes, 2)).await, 404);
    assert_eq!(ada.sign(ticket.id(), json!([{ "partNumber": 2 }])).await.status, 404);
    assert_eq!(ada.get(&format!("/api/images/{}/parts", ticket.id())).await.status, 404);
    assert_eq!(ada.confirm(ticket.id()).await.status, 404);
    // The last sweep of a tombstone also aborts an upload that a server opened before it died without recording it.
    let key = format!("u/{}/{}", ada.id, ticket.id());
    let create =
        async |key: String| app.s3.create_multipart_upload().bucket(&app.config.s3.bucket).key(key).send().await.unwrap();
    create(key.clone()).await;
    let longer = create(format!("{key}0")).await;
    assert_eq!(app.sweep(after(QUIET)).await.purged, 1);
    assert_eq!(ada.usage().await["bytes"], 0);
    assert_eq!(app.bucket_uploads().await, [longer.upload_id().unwrap()], "the longer key belongs to another image");
}

#[tokio::test]
async fn incomplete_upload_expires_and_is_aborted() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = file();
    let ticket = ada.open(declaration(&bytes, "none")).await;
    ada.send_parts(ticket.id(), &bytes, &[1]).await;
    for early in [QUIET, DAY, 6 * DAY] {
        app.sweep(after(early)).await;
        assert_eq!(app.db_state(ticket.id()).await, "pending");
    }
    assert_eq!(ada.parts_of(ticket.id()).await, [1]);
    assert_eq!(app.sweep(after(7 * DAY + QUIET)).await.expired, 1);
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (410, "upload_expired"));
    assert_eq!(ada.sign(ticket.id(), json!([{ "partNumber": 2 }])).await.problem(), (410, "upload_expired"));
    assert_eq!(ada.get(&format!("/api/images/{}/parts", ticket.id())).await.problem(), (410, "upload_expired"));
    assert_eq!(ada.usage().await["bytes"], 0);
    assert_eq!(app.sweep(after(7 * DAY + QUIET)).await.purged, 1);
    assert!(app.bucket_uploads().await.is_empty() && app.bucket_keys().await.is_empty());
}

#[tokio::test]
async fn expired_upload_issues_no_urls() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open(declaration(&bytes, "none")).await;
    ada.send_parts(ticket.id(), &bytes, &[1]).await;
    app.db_set(ticket.id(), mongodb::bson::doc! { "$set": { "expiresAt": mongodb::bson::DateTime::now() } }).await;
    assert_eq!(ada.sign(ticket.id(), json!([{ "partNumber": 1 }])).await.problem(), (410, "upload_expired"));
    assert_eq!(ada.confirm(ticket.id()).await.status, 200, "an upload that has all its parts is completed after its expiry");
}

/// The idempotency key of an expired upload opens another one at once, as with single PUTs.
#[tokio::test]
async fn idempotency_key_of_an_expired_upload_is_released() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let declaration = declaration(&unique_png(), "none");
    let open = async || {
        let with_key = |request: reqwest::RequestBuilder| request.header("idempotency-key", "k").json(&declaration);
        ada.send(reqwest::Method::POST, "/api/images/multipart", with_key).await
    };
    let (first, repeated) = (open().await, open().await);
    assert_eq!((first.status, repeated.status, repeated.id()), (201, 200, first.id()));
    // After a day the key still finds the upload, so that an app that is opened again continues with the parts that it sent.
    let long_ago = mongodb::bson::DateTime::from_millis(mongodb::bson::DateTime::now().timestamp_millis() - 26 * 3_600_000);
    let images = app.db.collection::<mongodb::bson::Document>("images");
    let set = mongodb::bson::doc! { "$set": { "createdAt": long_ago } };
    images.update_one(mongodb::bson::doc! { "_id": first.id() }, set).await.unwrap();
    assert_eq!(open().await.id(), first.id());
    let set = mongodb::bson::doc! { "$set": { "expiresAt": mongodb::bson::DateTime::now() } };
    images.update_one(mongodb::bson::doc! { "_id": first.id() }, set).await.unwrap();
    let other = open().await;
    assert_eq!(other.status, 201, "{other:?}");
    assert_ne!(other.id(), first.id());
    app.sweep_to_the_end().await;
    app.audit().await;
}

/// A URL is recorded before it is issued, so that no sweeper removes the upload before the URL's expiry.
#[tokio::test]
async fn valid_part_url_delays_the_sweeper() {
    let app = TestApp::start_with(|config| config.uploads.multipart_ttl = Duration::from_secs(60)).await;
    let ada = app.user().await;
    let ticket = ada.open(declaration(&[0; 100], "none")).await;
    let urls_expire_at = async || app.db_image(ticket.id()).await.unwrap().get_datetime("urlsDieAt").unwrap().timestamp_millis();
    let before = urls_expire_at().await;
    ada.part_url(ticket.id(), json!({ "partNumber": 1 })).await;
    // An hour, less ten seconds for a busy machine.
    assert!(urls_expire_at().await - before > 3_590_000);
    app.sweep(after(Duration::from_secs(1200))).await;
    assert_eq!(app.db_state(ticket.id()).await, "pending");
    assert_eq!(app.sweep(after(QUIET)).await.expired, 1);
}

/// A confirm and a delete at the same time: counters are right and nothing is left, whichever comes first.
#[tokio::test]
async fn f16_confirm_against_delete_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    for round in 0..20 {
        let ticket = ada.open(declaration(&bytes, "none")).await;
        ada.send_parts(ticket.id(), &bytes, &[1]).await;
        let path = format!("/api/images/{}", ticket.id());
        let delete = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            ada.send(Method::DELETE, &path, |request| request).await
        };
        let (confirmed, deleted) = tokio::join!(ada.confirm(ticket.id()), delete);
        assert_eq!(deleted.status, 204);
        assert!(matches!(confirmed.status, 200 | 404), "{confirmed:?}");
        assert_eq!(ada.confirm(ticket.id()).await.status, 404);
    }
    assert_eq!((&ada.usage().await["images"], &ada.usage().await["pending"]), (&json!(0), &json!(0)));
    while app.sweep(after(2 * QUIET)).await != valet::domain::sweeper::Swept::default() {}
    assert_eq!(ada.usage().await, json!({ "bytes": 0, "quotaBytes": 10_737_418_240_u64, "images": 0, "pending": 0 }));
    assert!(app.bucket_uploads().await.is_empty() && app.bucket_keys().await.is_empty());
}
