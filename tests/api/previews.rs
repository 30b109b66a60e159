//! Covers previews and ThumbHashes: made by the client, verified, counted and deleted with their image.
//!
//! Routes: POST /api/images/upload, POST /api/images/{id}/confirm, GET /api/images/gallery.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::app::{Answer, Caller, TestApp, declaration, fixture, sha256, unique_png};

/// A valid ThumbHash.
const THUMB_HASH: &str = "1QcSHQRnh493V4dIh4eXh1h4kJUI";
/// Time in which all current URLs expire (an hour) and the grace period ends (a quarter of an hour), with a minute of slack.
const QUIET: Duration = Duration::from_secs(3600 + 900 + 60);

/// Returns the body of an upload request with a preview.
fn with_preview(bytes: &[u8], preview: &[u8], content_type: &str) -> Value {
    let mut body = declaration("a.png", "image/png", bytes);
    body["preview"] = json!({ "contentType": content_type, "size": preview.len(), "sha256": sha256(preview) });
    body["thumbHash"] = json!(THUMB_HASH);
    body
}

/// Opens an upload with a preview.
async fn open_upload(ada: &Caller<'_>, bytes: &[u8], preview: &[u8]) -> Answer {
    let ticket = ada.post("/api/images/upload", with_preview(bytes, preview, "image/jpeg")).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    ticket
}

/// Returns the bytes that count against the user's quota.
async fn used(ada: &Caller<'_>) -> Value {
    ada.get("/api/auth/me").await.json["usage"]["bytes"].clone()
}

/// Sweeps at times when all URLs have expired; returns the keys that are left in the bucket.
async fn settled_keys(app: &TestApp) -> Vec<String> {
    let quiet = OffsetDateTime::now_utc() + QUIET;
    for later in [0, 1, 2] {
        app.sweep(quiet + Duration::from_secs(later * 600)).await;
    }
    app.bucket_keys().await
}

#[tokio::test]
async fn preview_is_uploaded_verified_served_counted_and_deleted_with_its_image() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (bytes, preview) = (unique_png(), fixture("plain.jpg"));
    let ticket = open_upload(&ada, &bytes, &preview).await;
    assert_eq!(used(&ada).await, json!(bytes.len() + preview.len()), "both are reserved");
    assert_eq!(app.put(&ticket.json["previewUpload"], preview.clone()).await, 200);
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    if super::app::s3_is_local() {
        assert_eq!(app.put(&ticket.json["previewUpload"], preview.clone()).await, 412, "a preview is written once");
        assert_eq!(app.put(&ticket.json["previewUpload"], fixture("grey.jpg")).await, 403, "the URL accepts no other bytes");
    }
    let image = ada.confirm(ticket.id()).await;
    assert_eq!(image.status, 200, "{image:?}");
    assert_eq!(image.json["thumbHash"], THUMB_HASH);
    let shown = app.http.get(image.json["previewUrl"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(shown.headers()["content-type"], "image/jpeg");
    assert!(shown.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert_eq!(shown.bytes().await.unwrap(), preview);
    let listed = ada.get("/api/images/gallery").await.json["images"][0].clone();
    assert_eq!(listed["previewUrl"], image.json["previewUrl"], "preview URLs repeat within a signing window");
    assert_eq!(used(&ada).await, json!(bytes.len() + preview.len()));
    assert_eq!(settled_keys(&app).await.len(), 2, "served previews stay");
    let orphans = app.app.valet.orphans.find(OffsetDateTime::now_utc() - Duration::from_secs(1), &mut |_| {}).await.unwrap();
    assert_eq!((orphans.orphans.count, orphans.young), (0, 0), "a preview is not an orphan");

    assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
    assert_eq!(app.bucket_keys().await, Vec::<String>::new());
    assert_eq!(used(&ada).await, json!(bytes.len() + preview.len()), "the bytes count while their URLs are valid");
    app.sweep_after_url_expiry().await;
    assert_eq!(used(&ada).await, 0);
}

#[tokio::test]
async fn missing_or_wrong_preview_is_left_out_and_not_counted() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (mut sizes, mut reserved) = (0, 0);
    for sent in ["nothing", "html", "huge"] {
        let bytes = unique_png();
        let preview = match sent {
            "html" => b"<!doctype html><script>alert(1)</script>".to_vec(),
            "huge" => huge_jpeg(),
            _ => fixture("plain.jpg"),
        };
        let ticket = open_upload(&ada, &bytes, &preview).await;
        if sent != "nothing" {
            assert_eq!(app.put(&ticket.json["previewUpload"], preview.clone()).await, 200, "S3 does not check the content");
        }
        assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
        let image = ada.confirm(ticket.id()).await;
        assert_eq!((image.status, image.json.get("previewUrl")), (200, None), "{sent}");
        assert_eq!(image.json["thumbHash"], THUMB_HASH, "the hash needs no preview");
        sizes += bytes.len();
        reserved += bytes.len() + preview.len();
        assert_eq!(used(&ada).await, json!(reserved), "{sent}: the preview's URL is valid");
        // An object that is written with this URL now is removed and never shown.
        app.put(&ticket.json["previewUpload"], preview).await;
        assert_eq!(ada.confirm(ticket.id()).await.json.get("previewUrl"), None, "{sent}");
    }
    assert_eq!(settled_keys(&app).await.len(), 3, "only the images have objects");
    assert_eq!(used(&ada).await, json!(sizes));
    let usage = ada.get("/api/auth/me").await.json["usage"].clone();
    assert_eq!((&usage["images"], &usage["pending"]), (&json!(3), &json!(0)));
    let mut repairs = Vec::new();
    app.app.valet.recount.run(None, |repair| repairs.push(repair)).await.unwrap();
    assert_eq!(repairs, [], "the counts need no repair");
    let ids: Vec<Value> =
        ada.get("/api/images/gallery").await.json["images"].as_array().unwrap().iter().map(|image| image["id"].clone()).collect();
    assert!(ada.post("/api/images/delete", json!({ "ids": ids })).await.text.contains("204"));
    assert_eq!(settled_keys(&app).await, Vec::<String>::new());
    assert_eq!(used(&ada).await, 0);
}

/// Returns a JPEG header of 60000 × 60000 pixels.
fn huge_jpeg() -> Vec<u8> {
    let mut bytes = fixture("plain.jpg");
    let frame = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    bytes
}

#[tokio::test]
async fn every_upload_operation_supports_previews() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (bytes, preview) = (unique_png(), fixture("plain.jpg"));
    let body = with_preview(&bytes, &preview, "image/jpeg");
    let batch = ada.post("/api/images/upload/batch", json!({ "items": [body] })).await;
    let ticket = batch.json["results"][0]["ticket"].clone();
    assert!(ticket["previewUpload"].is_object(), "{batch:?}");
    let id = ticket["id"].as_str().unwrap();
    let renewed = ada.post_empty(&format!("/api/images/{id}/renew")).await;
    assert!(renewed.json["previewUpload"].is_object(), "{renewed:?}");
    let again = ada.post("/api/images/upload", body).await;
    assert_eq!((again.status, again.json["id"].as_str()), (200, Some(id)));
    assert_eq!(app.put(&again.json["previewUpload"], preview.clone()).await, 200);
    assert_eq!(app.put(&again.json["upload"], bytes.clone()).await, 200);
    // The client dies here: the sweeper confirms the image with its preview.
    app.sweep(OffsetDateTime::now_utc() + QUIET).await;
    let image = ada.get(&format!("/api/images/{id}")).await;
    assert!(image.json["previewUrl"].is_string(), "{image:?}");
    assert_eq!(used(&ada).await, json!(bytes.len() + preview.len()));

    let ticket_without_preview = ada.open_upload("b.png", "image/png", &unique_png()).await;
    assert_eq!(ticket_without_preview.json.get("previewUpload"), None);
    let multipart = json!({ "fileName": "c.jpg", "contentType": "image/jpeg", "size": 6_000_000, "thumbHash": THUMB_HASH });
    assert_eq!(ada.post("/api/images/multipart", multipart).await.status, 201);
}

#[tokio::test]
async fn invalid_previews_are_rejected_with_the_field() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let small = fixture("plain.jpg");
    let cases = [
        (
            "preview",
            json!({ "contentType": "image/png", "size": 100, "sha256": sha256(&small) }),
            "invalid_preview",
            "preview.contentType",
        ),
        (
            "preview",
            json!({ "contentType": "image/jpeg", "size": 0, "sha256": sha256(&small) }),
            "invalid_preview",
            "preview.size",
        ),
        (
            "preview",
            json!({ "contentType": "image/webp", "size": 262_145, "sha256": sha256(&small) }),
            "invalid_preview",
            "preview.size",
        ),
        ("preview", json!({ "contentType": "image/jpeg", "size": 9, "sha256": "canary" }), "invalid_preview", "preview.sha256"),
        ("thumbHash", json!("canary!"), "invalid_thumb_hash", "thumbHash"),
        ("thumbHash", json!(""), "invalid_thumb_hash", "thumbHash"),
    ];
    for (member, value, code, field) in cases {
        let mut body = declaration("a.png", "image/png", &unique_png());
        body[member] = value;
        let answer = ada.post("/api/images/upload", body).await;
        assert_eq!(answer.problem(), (422, code), "{answer:?}");
        assert_eq!(answer.json["errors"][0]["field"], field);
        assert!(!answer.text.contains("canary"));
    }
    for preview in [json!(null), json!([]), json!(["image/jpeg", 1, "x"]), json!({ "contentType": "image/jpeg" }), json!("x")] {
        let mut body = declaration("a.png", "image/png", &unique_png());
        body["preview"] = preview;
        assert_eq!(ada.post("/api/images/upload", body).await.problem(), (400, "invalid_request"));
    }
    assert_eq!(used(&ada).await, 0);
}
