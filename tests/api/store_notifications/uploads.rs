//! Covers the effects of notifications on uploads: late, early, repeated and false notifications, previews, and Uppy's forms.

use std::time::Duration;

use mongodb::bson::DateTime;
use serde_json::json;
use time::OffsetDateTime;

use super::{Abandoned, Notifier, records};
use crate::app::{TestApp, declaration, eventually, fixture, sha256, unique_png};

/// A function that returns a notification about a key.
type Format<'a> = &'a dyn Fn(&str) -> serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn upload_whose_client_died_is_confirmed_when_its_object_is_announced() {
    let notifier = Notifier::start().await;
    let (app, bucket) = (&notifier.app, notifier.app.config.s3.bucket.to_string());
    let ada = app.user().await;
    let event_bridge = |key: &str| json!({ "detail-type": "Object Created", "source": "aws.s3", "detail": { "bucket": { "name": bucket }, "object": { "key": key } } });
    let formats: [(&str, Format<'_>); 6] = [
        ("S3", &|key| records(&bucket, &[key])),
        ("MinIO", &|key| records(&bucket, &[&key.replace('/', "%2F")])),
        ("SNS", &|key| json!({ "Type": "Notification", "Message": records(&bucket, &[key]).to_string() })),
        ("EventBridge", &event_bridge),
        ("CloudEvents", &|key| json!({ "specversion": "1.0", "data": records(&bucket, &[key]) })),
        ("R2", &|key| json!({ "action": "PutObject", "bucket": bucket, "object": { "key": key } })),
    ];
    for (name, notification_of) in formats {
        let upload = Abandoned::sent(&ada).await;
        assert_eq!(notifier.send(notification_of(&upload.key).to_string()).await, 204, "{name}");
        app.until_state(&upload.id, "ready").await;
        let image = ada.get(&format!("/api/images/{}", upload.id)).await;
        assert_eq!((image.status, image.json["size"].as_u64()), (200, Some(upload.bytes.len() as u64)), "{name}");
        assert_eq!(ada.confirm(&upload.id).await.status, 200, "{name}: a late confirm is answered as usual");
    }
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn announcement_of_an_object_that_is_not_there_changes_nothing() {
    let notifier = Notifier::start().await;
    let upload = Abandoned::open(&notifier.app.user().await).await;
    notifier.notify(&[&upload.key]).await;
    eventually("the check has ended: the upload is due when its URL has expired", async || {
        let due = *notifier.app.db_image(&upload.id).await.unwrap().get_datetime("due").unwrap();
        due > DateTime::from_millis(DateTime::now().timestamp_millis() + 10 * 60_000)
    })
    .await;
    assert_eq!(notifier.app.db_state(&upload.id).await, "pending");
    upload.put(&notifier.app).await;
    notifier.notify(&[&upload.key]).await;
    notifier.app.until_state(&upload.id, "ready").await;
    notifier.app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_in_any_order_confirm_each_upload_once() {
    let notifier = Notifier::start().await;
    let ada = notifier.app.user().await;
    let mut uploads = Vec::new();
    for _ in 0..5 {
        uploads.push(Abandoned::sent(&ada).await);
    }
    let order = [3, 0, 4, 4, 1, 2, 0, 3, 3, 1, 0, 2, 4, 1, 2, 0, 1, 3, 2, 4, 0, 1, 2, 3, 4];
    let sends = order.map(async |at: usize| notifier.notify(&[&uploads[at].key]).await);
    let confirms =
        [0, 2].map(async |at: usize| assert_eq!(ada.confirm(&uploads[at].id).await.status, 200, "a client confirms too"));
    futures_util::join!(futures_util::future::join_all(sends), futures_util::future::join_all(confirms));
    for upload in &uploads {
        notifier.app.until_state(&upload.id, "ready").await;
    }
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["images"], 5);
    notifier.app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_an_announcement_is_not_trusted() {
    let notifier = Notifier::start().await;
    let ada = notifier.app.user().await;
    let upload = Abandoned::open(&ada).await;
    // The object has the declared size, as the announcement says, but other bytes.
    let mut other = upload.bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    notifier.app.bucket_put(&upload.key, "image/png", other).await;
    let mut announced = notifier.records(&[&upload.key]);
    announced["Records"][0]["s3"]["object"]["size"] = upload.bytes.len().into();
    announced["Records"][0]["s3"]["object"]["sha256"] = sha256(&upload.bytes).into();
    assert_eq!(notifier.send(announced.to_string()).await, 204);
    eventually("the upload is rejected", async || notifier.app.db_state(&upload.id).await != "pending").await;
    assert_eq!(ada.confirm(&upload.id).await.problem(), (422, "object_mismatch"));
}

#[tokio::test(flavor = "multi_thread")]
async fn announcement_of_a_deleted_upload_does_not_bring_it_back() {
    let notifier = Notifier::start().await;
    let ada = notifier.app.user().await;
    let upload = Abandoned::sent(&ada).await;
    assert_eq!(ada.delete(&format!("/api/images/{}", upload.id)).await.status, 204);
    let before = notifier.app.db_image(&upload.id).await;
    notifier.notify(&[&upload.key]).await;
    assert_eq!(notifier.app.db_image(&upload.id).await, before);
    assert_eq!(ada.confirm(&upload.id).await.status, 404);
}

/// Opens an upload with a declared preview; returns it and the bytes of the preview. Neither is sent.
async fn with_preview(ada: &crate::app::Caller<'_>) -> (Abandoned, Vec<u8>) {
    let (bytes, preview) = (unique_png(), fixture("plain.jpg"));
    let mut body = declaration("a.png", "image/png", &bytes);
    body["preview"] = json!({ "contentType": "image/jpeg", "size": preview.len(), "sha256": sha256(&preview) });
    let ticket = ada.post("/api/images/upload", body).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    let id = ticket.id().to_owned();
    let key = ada.app.db_key(&id).await;
    (Abandoned { id, key, ticket, bytes }, preview)
}

/// Returns whether the image is pending because its declared preview is missing.
async fn awaits_preview(app: &TestApp, id: &str) -> bool {
    let image = app.db_image(id).await.unwrap();
    image.get_datetime("previewAwaitedUntil").is_ok() && image.get_str("state").unwrap() == "pending"
}

#[tokio::test(flavor = "multi_thread")]
async fn image_waits_for_its_declared_preview() {
    let notifier = Notifier::start().await;
    let ada = notifier.app.user().await;
    let (upload, preview) = with_preview(&ada).await;
    upload.put(&notifier.app).await;
    for _ in 0..3 {
        notifier.notify(&[&upload.key]).await;
    }
    eventually("the preview is waited for", async || awaits_preview(&notifier.app, &upload.id).await).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(awaits_preview(&notifier.app, &upload.id).await, "duplicates do not shorten the wait");
    let strays = notifier.app.db_image(&upload.id).await.unwrap().get_array("strays").map_or(0, Vec::len);
    assert_eq!(strays, 0, "waiting copies nothing");
    assert_eq!(notifier.app.put(&upload.ticket.json["previewUpload"], preview).await, 200);
    notifier.notify(&[&format!("{}-preview", upload.key)]).await;
    notifier.app.until_state(&upload.id, "ready").await;
    let image = ada.get(&format!("/api/images/{}", upload.id)).await;
    assert!(image.json["previewUrl"].is_string(), "{image:?}");
    notifier.app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_preview_delays_an_image_by_two_checks_of_thirty_seconds() {
    let notifier = Notifier::start().await;
    let ada = notifier.app.user().await;
    let (upload, _) = with_preview(&ada).await;
    upload.put(&notifier.app).await;
    let start = OffsetDateTime::now_utc();
    notifier.notify(&[&upload.key]).await;
    eventually("the preview is waited for", async || awaits_preview(&notifier.app, &upload.id).await).await;
    // The times count from the first check, which a busy machine makes late.
    let until = notifier.app.db_image(&upload.id).await.unwrap().get_datetime("previewAwaitedUntil").unwrap().timestamp_millis();
    let until = OffsetDateTime::from_unix_timestamp_nanos(i128::from(until) * 1_000_000).unwrap();
    let first_check = until - Duration::from_secs(60);
    // The database stores times with less precision.
    assert!(first_check > start - Duration::from_secs(1), "{first_check} {start}");
    let after = |seconds: u64| first_check + Duration::from_secs(seconds);
    assert_eq!(notifier.app.sweep(after(20)).await.confirmed, 0);
    assert_eq!(notifier.app.sweep(after(35)).await.confirmed, 0, "a second sweep confirms nothing");
    assert!(awaits_preview(&notifier.app, &upload.id).await);
    assert_eq!(notifier.app.sweep(after(70)).await.confirmed, 1);
    let image = ada.get(&format!("/api/images/{}", upload.id)).await;
    assert_eq!((image.status, image.json.get("previewUrl")), (200, None), "{image:?}");

    let (confirmed, _) = with_preview(&ada).await;
    confirmed.put(&notifier.app).await;
    assert_eq!(ada.confirm(&confirmed.id).await.status, 200, "a client that confirms does not wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn preview_that_comes_first_confirms_nothing() {
    let notifier = Notifier::start().await;
    let ada = notifier.app.user().await;
    let (upload, preview) = with_preview(&ada).await;
    assert_eq!(notifier.app.put(&upload.ticket.json["previewUpload"], preview).await, 200);
    notifier.notify(&[&format!("{}-preview", upload.key)]).await;
    upload.put(&notifier.app).await;
    notifier.notify(&[&upload.key]).await;
    notifier.app.until_state(&upload.id, "ready").await;
    let image = ada.get(&format!("/api/images/{}", upload.id)).await;
    assert!(image.json["previewUrl"].is_string(), "{image:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_of_an_uppy_form_is_confirmed_when_it_is_announced() {
    let notifier = Notifier::start().await;
    let ada = notifier.app.user().await;
    let form =
        notifier.app.anonymous().get(&format!("/uppy/{}/s3/params?filename=a.png&type=image%2Fpng", ada.uppy().await)).await;
    assert_eq!(form.status, 200, "{form:?}");
    let key = form.json["fields"]["key"].as_str().unwrap();
    let id = key.rsplit('/').next().unwrap();
    assert!(notifier.app.post_form(&form.json, &unique_png()).await.is_success());
    assert_eq!(notifier.app.db_state(id).await, "pending");
    let mut posted = notifier.records(&[key]);
    posted["Records"][0]["eventName"] = "ObjectCreated:Post".into();
    assert_eq!(notifier.send(posted.to_string()).await, 204);
    notifier.app.until_state(id, "ready").await;
    let copy = notifier.app.db_key(id).await;
    assert!(copy.starts_with(&format!("u/{}/{id}-", ada.id)), "{copy}");
    // The copy is announced as well.
    notifier.notify(&[&copy]).await;
    assert_eq!(notifier.app.db_key(id).await, copy);
    notifier.app.audit().await;
}
