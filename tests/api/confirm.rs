//! Covers POST /api/images/{id}/confirm: only uploads whose object matches the declaration become ready, however often and
//! concurrently they are confirmed.
//!
//! Routes: POST /api/images/{id}/confirm.

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use super::{
    app::{Caller, TestApp, fixture, unique_png},
    store_rules::in_place,
};

/// Files as phones and programs write them: name, media type, and displayed width and height in pixels. tests/fixtures/README.md
/// describes each.
const FILES: [(&str, &str, u32, u32); 14] = [
    ("plain.jpg", "image/jpeg", 120, 80),
    ("orientation-6.jpg", "image/jpeg", 80, 120),
    ("orientation-8.jpg", "image/jpeg", 80, 120),
    ("progressive.jpg", "image/jpeg", 120, 80),
    ("ultra-hdr.jpg", "image/jpeg", 80, 120),
    ("motion-photo.jpg", "image/jpeg", 120, 80),
    ("deep.jpg", "image/jpeg", 80, 120),
    ("plain.png", "image/png", 90, 50),
    ("animated.gif", "image/gif", 64, 48),
    ("lossy.webp", "image/webp", 75, 45),
    ("plain.avif", "image/avif", 120, 80),
    ("iphone.heic", "image/heic", 100, 180),
    ("mif1.heic", "image/heif", 120, 80),
    ("mif1.heic", "image/heic", 120, 80),
];

#[tokio::test]
async fn files_of_phones_and_programs_are_confirmed_with_their_size() {
    let app = TestApp::start().await;
    for (name, content_type, width, height) in FILES {
        // A separate user for each file: the same bytes under two types would be one upload.
        let ada = app.user().await;
        let bytes = fixture(name);
        let image = ada.upload(name, content_type, &bytes).await;
        assert_eq!((&image["width"], &image["height"]), (&json!(width), &json!(height)), "{name}");
        let read = app.http.get(image["url"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(read.headers()["content-type"], content_type);
        assert_eq!(read.bytes().await.unwrap(), bytes, "{name}");
    }
}

#[tokio::test]
async fn c4_content_of_another_type_is_rejected_and_removed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let html = b"<!doctype html><script>alert(1)</script>".to_vec();
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>".to_vec();
    let mut gif_in_png = b"GIF89a".to_vec();
    gif_in_png.extend(unique_png());
    let cases = [
        ("image/png", html.clone()),
        ("image/jpeg", html),
        ("image/webp", svg),
        ("image/png", fixture("plain.jpg")),
        ("image/jpeg", fixture("plain.png")),
        ("image/avif", fixture("plain.heic")),
        ("image/png", gif_in_png),
        ("image/png", b"\x89".to_vec()),
        ("image/jpeg", fixture("plain.jpg")[..30].to_vec()),
    ];
    for (content_type, bytes) in cases {
        let ticket = ada.open_upload("a", content_type, &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
        for _ in 0..2 {
            assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "content_mismatch"), "{content_type}");
        }
        assert_eq!(ada.get(&format!("/api/images/{}", ticket.id())).await.status, 404, "a rejected upload is not an image");
        assert_eq!(ada.post_empty(&format!("/api/images/{}/renew", ticket.id())).await.problem(), (422, "content_mismatch"));
        app.sweep(time::OffsetDateTime::now_utc()).await;
        assert!(app.bucket_keys().await.is_empty(), "removed by the next sweep");
        assert_eq!(
            ada.confirm(ticket.id()).await.problem(),
            (422, "content_mismatch"),
            "the same answer until the tombstone expires"
        );
    }
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["pending"], 0);
    app.sweep_after_url_expiry().await;
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0);
}

#[tokio::test]
async fn c3_object_that_differs_from_the_declaration_is_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let (mut same_length, mut longer) = (bytes.clone(), bytes.clone());
    *same_length.last_mut().unwrap() ^= 1;
    longer.push(0);
    for (content_type, written) in [("image/png", same_length), ("image/png", longer), ("text/html", bytes.clone())] {
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        app.bucket_put(&app.db_key(ticket.id()).await, content_type, written).await;
        assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "object_mismatch"));
        assert_eq!(app.db_state(ticket.id()).await, "rejected");
    }
}

/// A store without checksums has not compared the bytes with the declared digest, so the server hashes them.
#[tokio::test]
async fn c3_bytes_are_hashed_if_the_store_has_no_checksum() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let put = async |id: &str, bytes: Vec<u8>| {
        let put = app.s3.put_object().bucket(&app.config.s3.bucket).key(app.db_key(id).await).content_type("image/png");
        put.checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Crc32).body(bytes.into()).send().await.unwrap();
    };
    let (right, wrong) = (unique_png(), unique_png());
    let ticket = ada.open_upload("a.png", "image/png", &right).await;
    put(ticket.id(), right).await;
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    let declared = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &declared).await;
    put(ticket.id(), wrong).await;
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "object_mismatch"));
}

#[tokio::test]
async fn c2_early_confirm_is_answered_object_missing_and_changes_nothing() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (409, "object_missing"));
    assert_eq!(app.db_state(ticket.id()).await, "pending");
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
}

#[tokio::test]
async fn c6_replayed_put_changes_nothing() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    let image = ada.confirm(ticket.id()).await;
    for _ in 0..3 {
        assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, app.second_put_status().await);
    }
    let read = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), bytes);
}

/// The document has the verified values, and the fields that other programs may read.
#[tokio::test]
async fn ready_image_has_the_documented_fields_in_the_database() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = fixture("orientation-6.jpg");
    let image = ada.upload("$a.jpg", "image/jpeg", &bytes).await;
    let id = image["id"].as_str().unwrap();
    let document = app.db_image(id).await.unwrap();
    let text = |field: &str| document.get_str(field).unwrap().to_owned();
    assert_eq!((text("user"), text("state")), (ada.id.clone(), "ready".into()));
    assert!(text("key").starts_with(&format!("u/{}/{id}", ada.id)) && (!in_place() || text("key").ends_with(id)));
    assert_eq!(
        (text("fileName"), text("contentType"), text("sha256")),
        ("$a.jpg".into(), "image/jpeg".into(), image["sha256"].as_str().unwrap().into())
    );
    assert_eq!((document.get_i64("width").unwrap(), document.get_i64("height").unwrap()), (80, 120));
    assert_eq!(document.get_i64("size").unwrap(), i64::try_from(bytes.len()).unwrap());
    assert!(document.get_bool("live").unwrap() && document.contains_key("due") != in_place());
    let head = app.s3.head_object().bucket(&app.config.s3.bucket).key(text("key")).send().await.unwrap();
    assert_eq!(text("etag"), head.e_tag().unwrap());
}

/// A confirm whose server died before the user's counters were updated is completed by the client's repeat.
#[tokio::test]
async fn f13_reservation_of_a_dead_server_is_completed_by_the_repeat() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let id = ada.upload("a.png", "image/png", &bytes).await["id"].as_str().unwrap().to_owned();
    // The state after a server was killed between the two writes of a confirm.
    let reservation =
        doc! { "bytes": i64::try_from(bytes.len()).unwrap(), "place": "pending", "due": mongodb::bson::DateTime::now() };
    let images = app.db.collection::<Document>("images");
    images.update_one(doc! { "_id": &id }, doc! { "$set": { "reservation": reservation } }).await.unwrap();
    let users = app.db.collection::<Document>("users");
    let uncounted = doc! { "$inc": { "images": -1_i64, "pending": 1_i64 } };
    users.update_one(doc! { "_id": &ada.id }, uncounted).await.unwrap();
    let usage = async |ada: &Caller<'_>| -> (Value, Value, Value) {
        let usage = ada.get("/api/auth/me").await.json["usage"].clone();
        (usage["bytes"].clone(), usage["images"].clone(), usage["pending"].clone())
    };
    assert_eq!(usage(&ada).await, (json!(bytes.len()), json!(0), json!(1)));
    assert_eq!(ada.confirm(&id).await.status, 200);
    assert_eq!(usage(&ada).await, (json!(bytes.len()), json!(1), json!(0)));
}
