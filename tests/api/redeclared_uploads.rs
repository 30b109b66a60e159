//! Covers a repeated declaration of the same pending bytes: the later name, type, caption, preview, ThumbHash and time
//! taken replace the earlier ones.
//!
//! Routes: POST /api/images/upload, POST /api/images/multipart.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::config::Finalize;

use super::{
    app::{Caller, TestApp, declaration, fixture, sha256, unique_png},
    relay::relay_s3,
};

/// Returns the bytes that count against the user's quota.
async fn used(ada: &Caller<'_>) -> u64 {
    ada.get("/api/auth/me").await.json["usage"]["bytes"].as_u64().unwrap()
}

/// Returns the declaration of a preview.
fn preview(bytes: &[u8]) -> Value {
    json!({ "contentType": "image/jpeg", "size": bytes.len(), "sha256": sha256(bytes) })
}

/// Returns the body with these members replaced or added.
fn merged(mut body: Value, members: &Value) -> Value {
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn each_member_of_the_later_declaration_replaces_the_earlier_one() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let hash = "1QcSHQRnh493V4dIh4eXh1h4kJUI";
    let rows = [
        (json!({}), json!({ "caption": "$typed before the retry" })),
        (json!({ "caption": "first" }), json!({ "caption": "second" })),
        (json!({ "caption": "first" }), json!({})),
        (json!({}), json!({ "fileName": "$other.png" })),
        (json!({}), json!({ "thumbHash": hash })),
        (json!({ "thumbHash": hash }), json!({})),
        (json!({}), json!({ "takenAt": "2024-12-21T23:39:24" })),
        (json!({ "takenAt": "2024-12-21T23:39:24" }), json!({})),
        (json!({ "contentType": "image/jpeg" }), json!({})),
        (
            json!({ "contentType": "image/webp", "caption": "a" }),
            json!({ "fileName": "b.png", "caption": "b", "thumbHash": hash }),
        ),
    ];
    for (first, later) in rows {
        for is_batch in [false, true] {
            let bytes = unique_png();
            let [first, later] = [&first, &later].map(|members| merged(declaration("a.png", "image/png", &bytes), members));
            let opened = ada.post("/api/images/upload", first.clone()).await;
            assert_eq!(opened.status, 201, "{first}");
            let ticket = if is_batch {
                ada.post("/api/images/upload/batch", json!({ "items": [later] })).await.json["results"][0]["ticket"].clone()
            } else {
                ada.post("/api/images/upload", later.clone()).await.json
            };
            assert_eq!(ticket["id"], opened.json["id"]);
            let pending = ada.get("/api/images/pending").await.json["uploads"][0].clone();
            assert_eq!(app.put(&ticket["upload"], bytes).await, 200);
            let image = ada.confirm(opened.id()).await;
            assert_eq!(image.status, 200, "{first} {later} {image:?}");
            for member in ["fileName", "contentType", "caption"] {
                assert_eq!((&pending[member], &image.json[member]), (&later[member], &later[member]), "{first} {later}");
            }
            assert_eq!(image.json["thumbHash"], later["thumbHash"], "{first} {later}");
            assert_eq!(image.json["takenAt"], later["takenAt"], "{first} {later}");
        }
    }
}

#[tokio::test]
async fn bytes_sent_with_the_earlier_url_are_checked_against_the_later_type() {
    for finalize in [Finalize::Auto, Finalize::Copy] {
        assert_later_type_is_checked(finalize).await;
    }
}

/// Declares the same bytes with two types, in both orders, and asserts that the later type counts.
async fn assert_later_type_is_checked(finalize: Finalize) {
    let app = TestApp::start_with(|config| config.s3.finalize = finalize).await;
    let ada = app.user().await;
    let bytes = unique_png();
    let first = ada.open_upload("a.jpg", "image/jpeg", &bytes).await;
    assert_eq!(app.put(&first.json["upload"], bytes.clone()).await, 200);
    assert_eq!(ada.open_upload("a.png", "image/png", &bytes).await.id(), first.id());
    let image = ada.confirm(first.id()).await;
    assert_eq!((image.status, &image.json["contentType"]), (200, &json!("image/png")), "{image:?}");
    let shown = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(shown.headers()["content-type"], "image/png");
    // In the reverse order the later declaration is the wrong one.
    let bytes = unique_png();
    let first = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&first.json["upload"], bytes.clone()).await, 200);
    ada.open_upload("a.jpg", "image/jpeg", &bytes).await;
    assert_eq!(ada.confirm(first.id()).await.problem(), (422, "content_mismatch"));
}

#[tokio::test]
async fn repeat_with_its_key_does_not_undo_a_later_declaration() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let send = async |caption: &str, key: &str| {
        let body = merged(declaration("a.png", "image/png", &bytes), &json!({ "caption": caption, "idempotencyKey": key }));
        ada.post("/api/images/upload/batch", json!({ "items": [body] })).await.json["results"][0]["ticket"].clone()
    };
    let first = send("first", "key-1").await;
    send("second", "key-2").await;
    let repeated = send("first", "key-1").await;
    assert_eq!(repeated["id"], first["id"]);
    assert_eq!(app.put(&repeated["upload"], bytes.clone()).await, 200);
    assert_eq!(ada.confirm(first["id"].as_str().unwrap()).await.json["caption"], "second");
}

#[tokio::test]
async fn last_of_equal_items_in_a_batch_counts() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    ada.open_upload("a.png", "image/png", &bytes).await;
    let item = |caption: &str| merged(declaration("a.png", "image/png", &bytes), &json!({ "caption": caption }));
    let answer = ada.post("/api/images/upload/batch", json!({ "items": [item("one"), item("two"), item("three")] })).await;
    let ticket = &answer.json["results"][2]["ticket"];
    assert_eq!(app.put(&ticket["upload"], bytes).await, 200);
    assert_eq!(ada.confirm(ticket["id"].as_str().unwrap()).await.json["caption"], "three");
}

#[tokio::test]
async fn larger_preview_is_reserved_or_rejected() {
    let app = TestApp::start_with(|config| config.uploads.quota_bytes = 10_000).await;
    let ada = app.user().await;
    let (bytes, small) = (unique_png(), fixture("plain.jpg"));
    let plain = declaration("a.png", "image/png", &bytes);
    let first = ada.post("/api/images/upload", plain.clone()).await;
    let later = merged(plain.clone(), &json!({ "preview": preview(&small), "caption": "later" }));
    let answers = join_all((0..6).map(|_| ada.post("/api/images/upload", later.clone()))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(used(&ada).await, (bytes.len() + small.len()) as u64, "the preview is reserved once");
    let size = 10_000 - bytes.len();
    let larger =
        merged(plain, &json!({ "preview": { "contentType": "image/jpeg", "size": size + 1, "sha256": sha256(&small) } }));
    assert_eq!(ada.post("/api/images/upload", larger).await.problem(), (409, "quota_exceeded"));
    assert_eq!(app.put(&answers[0].json["previewUpload"], small.clone()).await, 200);
    assert_eq!(app.put(&answers[0].json["upload"], bytes.clone()).await, 200);
    let image = ada.confirm(first.id()).await;
    assert_eq!(image.json["caption"], "later", "a rejected declaration changes nothing");
    let shown = app.http.get(image.json["previewUrl"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(shown.bytes().await.unwrap(), small);
    app.sweep_after_url_expiry().await;
    assert_eq!((used(&ada).await, app.bucket_keys().await.len()), ((bytes.len() + small.len()) as u64, 2));
}

/// Twelve uploads are declared again at the same time on two servers, and six more are opened. The quota has room for five previews.
#[tokio::test(flavor = "multi_thread")]
async fn larger_previews_that_are_declared_at_the_same_time_never_exceed_the_quota() {
    const PREVIEW_BYTES: u64 = 200_000;
    let files: Vec<_> = (0..12).map(|_| unique_png()).collect();
    let declared_bytes = files.iter().map(|file| file.len() as u64).sum::<u64>();
    let quota = declared_bytes + 5 * PREVIEW_BYTES + PREVIEW_BYTES / 2;
    let app = TestApp::start_with(|config| config.uploads.quota_bytes = quota).await;
    let other = TestApp::start_second_server(&app, |config| config.uploads.quota_bytes = quota).await;
    let ada = app.user().await;
    let callers = [ada.clone(), Caller { app: &other, ..ada.clone() }];
    for file in &files {
        assert_eq!(ada.open_upload("a.png", "image/png", file).await.status, 201);
    }
    let larger = json!({ "contentType": "image/jpeg", "size": PREVIEW_BYTES, "sha256": sha256(b"a preview") });
    let redeclare = files.iter().zip(callers.iter().cycle()).map(|(file, caller)| {
        let body = merged(declaration("a.png", "image/png", file), &json!({ "preview": larger }));
        async move { caller.post("/api/images/upload", body).await }
    });
    let open = (0..6).zip(callers.iter().cycle()).map(|(n, caller)| {
        let sha256 = sha256(format!("file {n}").as_bytes());
        let body = json!({ "fileName": "b.png", "contentType": "image/png", "size": PREVIEW_BYTES, "sha256": sha256 });
        async move { caller.post("/api/images/upload", body).await }
    });
    let (redeclared, opened) = futures_util::future::join(join_all(redeclare), join_all(open)).await;
    let accepted = redeclared.iter().filter(|answer| answer.status == 200).count();
    let rejected = redeclared.iter().filter(|answer| answer.status != 200);
    assert!(rejected.map(|answer| answer.problem()).all(|problem| problem == (409, "quota_exceeded")), "{redeclared:?}");
    let accepted = (accepted + opened.iter().filter(|answer| answer.status == 201).count()) as u64;
    assert_eq!((used(&ada).await, accepted), (declared_bytes + 5 * PREVIEW_BYTES, 5), "of {quota}");
    app.audit().await;
}

#[tokio::test]
async fn preview_that_is_no_longer_declared_is_counted_and_removed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (bytes, small) = (unique_png(), fixture("plain.jpg"));
    let plain = declaration("a.png", "image/png", &bytes);
    let first = ada.post("/api/images/upload", merged(plain.clone(), &json!({ "preview": preview(&small) }))).await;
    let later = ada.post("/api/images/upload", plain).await;
    assert!(later.json["previewUpload"].is_null());
    assert_eq!(app.put(&later.json["upload"], bytes.clone()).await, 200);
    let image = ada.confirm(first.id()).await;
    assert!(image.json["previewUrl"].is_null(), "{image:?}");
    assert_eq!(app.put(&first.json["previewUpload"], small.clone()).await, 200, "the first preview's URL is valid");
    assert_eq!(used(&ada).await, (bytes.len() + small.len()) as u64, "and its bytes are counted");
    // The URLs (an hour) and the grace period (a quarter of an hour) are over, with a minute of slack.
    let after_url_expiry = OffsetDateTime::now_utc() + Duration::from_secs(3600 + 900 + 60);
    for later in [0, 600, 1200] {
        app.sweep(after_url_expiry + Duration::from_secs(later)).await;
    }
    assert_eq!((used(&ada).await, app.bucket_keys().await.len()), (bytes.len() as u64, 1));
}

/// The image is served with the type that its bytes were verified to have, whichever call is first.
#[tokio::test]
async fn declaration_during_a_confirm_never_changes_the_verified_type() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for _ in 0..8 {
        let bytes = unique_png();
        let first = ada.open_upload("a.png", "image/png", &bytes).await;
        assert_eq!(app.put(&first.json["upload"], bytes.clone()).await, 200);
        let other = declaration("a.jpg", "image/jpeg", &bytes);
        let (image, _) = tokio::join!(ada.confirm(first.id()), ada.post("/api/images/upload", other));
        match image.status {
            200 => assert_eq!(image.json["contentType"], "image/png"),
            _ => assert_eq!(image.problem(), (422, "content_mismatch")),
        }
    }
}

/// While confirm reads a preview, a client declares the same bytes with another type.
#[tokio::test(flavor = "multi_thread")]
async fn declaration_during_a_confirm_never_changes_the_verified_type_of_a_preview() {
    if super::store_rules::skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (bytes, small) = (unique_png(), fixture("plain.jpg"));
    let with_preview = |content_type: &str| {
        let preview = merged(preview(&small), &json!({ "contentType": content_type }));
        merged(declaration("a.png", "image/png", &bytes), &json!({ "preview": preview }))
    };
    let first = ada.post("/api/images/upload", with_preview("image/jpeg")).await;
    assert_eq!(app.put(&first.json["previewUpload"], small.clone()).await, 200);
    assert_eq!(app.put(&first.json["upload"], bytes.clone()).await, 200);
    let (http, url, token) = (app.http.clone(), format!("{}/api/images/upload", app.base), ada.token.clone().unwrap());
    let (later, is_declared) = (with_preview("image/webp"), Arc::<AtomicBool>::default());
    let (declared, id) = (is_declared.clone(), first.id().to_owned());
    let endpoint = relay_s3(&app, move |request| {
        let is_read = request.path().contains(&format!("{id}-")) && matches!(request.parts.method.as_str(), "GET" | "HEAD");
        let declares = is_read && !declared.swap(true, SeqCst);
        let declare = http.post(&url).bearer_auth(&token).json(&later);
        async move {
            let answer = request.forward().await;
            if declares {
                assert_eq!(declare.send().await.unwrap().status(), 200);
            }
            answer
        }
    })
    .await;
    let second_server = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await;
    let image = Caller { app: &second_server, ..ada.clone() }.confirm(first.id()).await;
    assert!(image.status == 200 && is_declared.load(SeqCst), "{image:?}");
    let record = app.db_image(first.id()).await.unwrap();
    assert!(!record.contains_key("preview") && image.json["previewUrl"].is_null(), "the preview is not a WebP: {record}");
}
