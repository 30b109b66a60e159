//! Covers the time that a client declares: it is used for files without a time of their own.
//!
//! Routes: POST /api/images/upload, POST /api/images/upload/batch, POST /api/images/multipart.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{ORIGINAL, id, list_all_pages, photograph};
use crate::app::{Answer, Caller, TestApp, declaration, unique_png};

const ZONED: &str = "2024-12-21T23:39:24+01:00";
const LOCAL: &str = "2024-12-21T23:39:24";

/// Returns the body of an upload request with a declared time.
fn with_time(bytes: &[u8], content_type: &str, taken_at: &str) -> Value {
    let mut body = declaration("a.img", content_type, bytes);
    body["takenAt"] = json!(taken_at);
    body
}

/// Returns the body of a multipart upload request with a declared time.
fn in_parts(bytes: &[u8], taken_at: &str) -> Value {
    json!({ "fileName": "a.png", "contentType": "image/png", "size": bytes.len(), "partChecksums": "none", "takenAt": taken_at })
}

/// Uploads bytes to an opened upload and confirms it; returns the image.
async fn finish(app: &TestApp, caller: &Caller<'_>, ticket: &Value, bytes: Vec<u8>) -> Value {
    assert_eq!(app.put(&ticket["upload"], bytes).await, 200, "{ticket}");
    let image = caller.confirm(ticket["id"].as_str().unwrap()).await;
    assert_eq!(image.status, 200, "{image:?}");
    image.json
}

/// Returns the months of the user's timeline.
async fn months(caller: &Caller<'_>) -> Value {
    caller.get("/api/images/timeline").await.json["months"].clone()
}

#[tokio::test]
async fn declared_time_is_used_for_a_file_without_one_in_every_kind_of_upload() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let single = ada.post("/api/images/upload", with_time(&bytes, "image/png", ZONED)).await;
    let image = finish(&app, &ada, &single.json, bytes).await;
    assert_eq!(image["takenAt"], ZONED);
    assert_eq!(ada.get(&format!("/api/images/{}", id(&image))).await.json["takenAt"], ZONED);

    let bytes = unique_png();
    let batch = ada.post("/api/images/upload/batch", json!({ "items": [with_time(&bytes, "image/png", LOCAL)] })).await;
    let in_batch = finish(&app, &ada, &batch.json["results"][0]["ticket"], bytes).await;
    assert_eq!(in_batch["takenAt"], LOCAL);

    let bytes = unique_png();
    let opened = ada.post("/api/images/multipart", in_parts(&bytes, "1999-12-31T23:59:59Z")).await;
    let signed = ada.post(&format!("/api/images/{}/parts", opened.id()), json!({ "parts": [{ "partNumber": 1 }] })).await;
    assert_eq!(app.put(&signed.json["parts"][0]["request"], bytes).await, 200, "{signed:?}");
    let multipart = ada.confirm(opened.id()).await;
    assert_eq!((multipart.status, &multipart.json["takenAt"]), (200, &json!("1999-12-31T23:59:59Z")), "{multipart:?}");

    // The first two have the same local time: the later id is first.
    assert_eq!(list_all_pages(&ada, 2).await, [id(&in_batch), id(&image), opened.id().to_owned()]);
    assert_eq!(months(&ada).await, json!([{ "month": "2024-12", "count": 2 }, { "month": "1999-12", "count": 1 }]));
    ada.delete(&format!("/api/images/{}", id(&image))).await;
    assert_eq!(months(&ada).await, json!([{ "month": "2024-12", "count": 1 }, { "month": "1999-12", "count": 1 }]));
    app.audit().await;
}

#[tokio::test]
async fn declared_time_with_an_unknown_offset_is_a_local_time() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.post("/api/images/upload", with_time(&bytes, "image/png", &format!("{LOCAL}-00:00"))).await;
    assert_eq!(finish(&app, &ada, &ticket.json, bytes).await["takenAt"], LOCAL);
    app.audit().await;
}

#[tokio::test]
async fn time_in_the_file_is_used_instead_of_the_declared_one() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (original, expected) in [("2003:01:31 23:59:59", "2003-01-31T23:59:59"), ("2099:01:01 00:00:00", ZONED)] {
        let bytes = photograph(&[(ORIGINAL, original)]);
        let ticket = ada.post("/api/images/upload", with_time(&bytes, "image/jpeg", ZONED)).await;
        let image = finish(&app, &ada, &ticket.json, bytes).await;
        assert_eq!(image["takenAt"], expected, "{original}");
    }
    assert_eq!(months(&ada).await, json!([{ "month": "2024-12", "count": 1 }, { "month": "2003-01", "count": 1 }]));
    app.audit().await;
}

/// A confirm that has read the earlier declaration must not count the image in the month of that declaration.
#[tokio::test]
async fn time_that_is_declared_again_decides_the_month() {
    let this_month = super::this_month().await;
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (first, later) in [(Some(ZONED), Some("2001-01-01T00:00:00")), (Some(ZONED), None), (None, Some("2001-01-01T00:00:00"))] {
        let bytes = unique_png();
        let body = |taken_at: Option<&str>| {
            taken_at.map_or_else(|| declaration("a.img", "image/png", &bytes), |at| with_time(&bytes, "image/png", at))
        };
        let opened = ada.post("/api/images/upload", body(first)).await;
        let again = ada.post("/api/images/upload", body(later)).await;
        assert_eq!((again.status, again.id()), (200, opened.id()));
        let image = finish(&app, &ada, &again.json, bytes.clone()).await;
        assert_eq!(image.get("takenAt").and_then(Value::as_str), later);
    }
    assert_eq!(months(&ada).await, json!([{ "month": this_month, "count": 1 }, { "month": "2001-01", "count": 2 }]));
    app.audit().await;
}

#[tokio::test]
async fn invalid_time_is_rejected_with_its_field() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let date = time::macros::format_description!("[year]-[month]-[day]T12:00:00");
    let in_days = |days| (OffsetDateTime::now_utc() + Duration::days(days)).format(date).unwrap();
    let texts = [
        "",
        "2023-12-20",
        "2024-12-21 23:39:24",
        "2024-12-21T23:39:24.123Z",
        "2023-02-29T00:00:00",
        "0001-01-01T00:00:00",
        "yesterday",
    ];
    let field = |answer: &Answer| answer.json["errors"][0]["field"].clone();
    for (text, message) in texts.into_iter().map(|text| (text.to_owned(), "local date and time")).chain([(in_days(4), "future")])
    {
        let single = ada.post("/api/images/upload", with_time(&bytes, "image/png", &text)).await;
        let multipart = ada.post("/api/images/multipart", in_parts(&bytes, &text)).await;
        for answer in [&single, &multipart] {
            assert_eq!(answer.problem(), (422, "invalid_taken_at"), "{text}: {answer:?}");
            assert_eq!(field(answer), "takenAt");
            let message_sent = answer.json["errors"][0]["message"].as_str().unwrap();
            assert!(
                message_sent.contains(message) && (text.is_empty() || !message_sent.contains(&text)),
                "{text}: {message_sent}"
            );
        }
        let batch = ada.post("/api/images/upload/batch", json!({ "items": [with_time(&bytes, "image/png", &text)] })).await;
        assert_eq!(batch.json["results"][0]["problem"]["code"], "invalid_taken_at", "{text}: {batch:?}");
    }
    assert_eq!(
        ada.post("/api/images/upload", with_time(&bytes, "image/png", &in_days(1))).await.status,
        201,
        "it is tomorrow in another time zone"
    );
    let mut numeric = declaration("a.img", "image/png", &bytes);
    numeric["takenAt"] = json!(1_734_820_764);
    assert_eq!(ada.post("/api/images/upload", numeric).await.status, 400);
}

#[tokio::test]
async fn idempotency_key_covers_the_time() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let mut item = with_time(&bytes, "image/png", LOCAL);
    item["idempotencyKey"] = json!("a key");
    let open =
        async |item: &Value| ada.post("/api/images/upload/batch", json!({ "items": [item] })).await.json["results"][0].clone();
    let first = open(&item).await;
    assert_eq!(open(&item).await["ticket"]["id"], first["ticket"]["id"]);
    item["takenAt"] = json!(ZONED);
    assert_eq!(open(&item).await["problem"]["code"], "idempotency_key_reused");
}
