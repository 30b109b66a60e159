//! Covers previews that workers make: in answers and event streams, for images that are older than the setting, and in turn for
//! several owners. The modules below cover failures, the process, deletions, HEIF and waiting images.
//!
//! Routes: GET /api/images/gallery, GET /api/images/{id}, DELETE /api/images/{id}.
//! Commands: valet worker.

mod attempts;
mod command;
mod deletions;
mod heif;
mod waiting;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::StreamExt;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use valet::{
    config::{Config, PreviewWorker, Previews},
    domain::rendering::Renderer,
};

use super::{
    app::{Caller, TestApp, declaration, fixture, unique_png},
    event_streams::Events,
    mongodb_relay::{Tap, command, start_server_behind_relay},
};

/// Configures a server whose previews are made by workers.
pub fn use_workers(config: &mut Config) {
    config.previews = Previews::Worker(PreviewWorker::default());
}

/// Starts a server whose previews are made by workers.
pub async fn start() -> TestApp {
    TestApp::start_with(use_workers).await
}

/// Returns a renderer that starts the program under test.
pub fn renderer() -> Renderer {
    Renderer::new(PathBuf::from(env!("CARGO_BIN_EXE_valet")))
}

/// Makes the previews that are due; returns the number of images with a result.
pub async fn render(app: &TestApp) -> u32 {
    app.app.valet.preview_worker.render_all_due(&renderer()).await.unwrap()
}

/// Makes the previews that are due in `after`; returns the number of images with a result.
pub async fn render_after(app: &TestApp, renderer: &Renderer, after: Duration) -> u32 {
    app.app.valet.preview_worker.render_due(renderer, OffsetDateTime::now_utc() + after).await.unwrap()
}

/// Returns a unique JPEG of this size.
pub fn unique_jpeg(width: u16, height: u16) -> Vec<u8> {
    let unique = uuid::Uuid::new_v4().into_bytes();
    let pixels = usize::from(width) * usize::from(height);
    let rgb: Vec<u8> = (0..pixels).flat_map(|at| [unique[at % 16], (at / 97) as u8, (at / 1999) as u8]).collect();
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 80);
    encoder.encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    jpeg
}

/// Reads an image.
pub async fn read(ada: &Caller<'_>, id: &str) -> Value {
    ada.get(&format!("/api/images/{id}")).await.json
}

/// Returns the field `rendering` of an image's document.
pub async fn rendering_of(app: &TestApp, id: &str) -> Document {
    app.db_image(id).await.unwrap().get_document("rendering").unwrap().clone()
}

/// Returns the id of an image.
fn id(image: &Value) -> &str {
    image["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_image_gets_previews_in_every_answer() {
    let app = start().await;
    let ada = app.user().await;
    let image = ada.upload("a.jpg", "image/jpeg", &unique_jpeg(2000, 1500)).await;
    assert!(image.get("previews").is_none() && image.get("previewUrl").is_none(), "{image}");
    assert!(rendering_of(&app, id(&image)).await.get_datetime("due").is_ok());
    assert_eq!(render(&app).await, 1);

    let found = read(&ada, id(&image)).await;
    let sizes: Vec<_> = found["previews"].as_array().unwrap().iter().map(|one| (&one["width"], &one["height"])).collect();
    assert_eq!(sizes, [(&json!(640), &json!(480)), (&json!(1600), &json!(1200))]);
    assert_eq!(found["previewUrl"], found["previews"][0]["url"]);
    assert!(found["thumbHash"].is_string(), "{found}");
    for preview in found["previews"].as_array().unwrap() {
        let loaded = app.http.get(preview["url"].as_str().unwrap()).send().await.unwrap();
        assert_eq!((loaded.status().as_u16(), loaded.headers()["content-type"].to_str().unwrap()), (200, "image/jpeg"));
        let bytes = loaded.bytes().await.unwrap();
        let mut decoder = zune_jpeg::JpegDecoder::new(zune_core::bytestream::ZCursor::new(&bytes[..]));
        decoder.decode_headers().unwrap();
        let (width, height) = decoder.dimensions().unwrap();
        assert_eq!((&preview["width"], &preview["height"]), (&json!(width), &json!(height)));
    }
    let page = ada.get("/api/images/gallery").await.json;
    let batch = ada.post("/api/images/read", json!({ "ids": [id(&image)] })).await.json;
    let confirmed = ada.confirm(id(&image)).await.json;
    for other in [&page["images"][0], &batch["results"][0]["image"], &confirmed] {
        // URLs repeat only within a signing window.
        let same_window = other["urlExpiresAt"] == found["urlExpiresAt"];
        assert!(!same_window || *other == found, "{other} {found}");
    }
    assert_eq!(rendering_of(&app, id(&image)).await, doc! { "written": true }, "there is nothing left to do");
    assert_eq!(render(&app).await, 0);
    let usage = ada.get("/api/auth/me").await.json["usage"].clone();
    assert_eq!(usage["bytes"], image["size"], "previews do not count against the quota");
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preview_and_placeholder_of_the_client_take_precedence() {
    let app = start().await;
    let ada = app.user().await;
    let (bytes, preview) = (unique_png(), fixture("plain.jpg"));
    let mut body = declaration("a.png", "image/png", &bytes);
    body["thumbHash"] = json!("1QcSHQRnh493V4dIh4eXh1h4kJUI");
    body["preview"] = declaration("x", "image/jpeg", &preview);
    body["preview"].as_object_mut().unwrap().remove("fileName");
    let ticket = ada.post("/api/images/upload", body).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(app.put(&ticket.json["previewUpload"], preview).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    assert_eq!(render(&app).await, 1);
    let page = ada.get("/api/images/gallery").await.json;
    for image in [&read(&ada, ticket.id()).await, &page["images"][0]] {
        assert!(image["previewUrl"].as_str().unwrap().contains("-preview?"), "{image}");
        assert!(image["previews"][0]["url"].as_str().unwrap().contains("-w640?"), "{image}");
        assert_eq!(image["previews"].as_array().unwrap().len(), 1, "a small image is not enlarged: {image}");
        assert_eq!(image["thumbHash"], "1QcSHQRnh493V4dIh4eXh1h4kJUI");
    }
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_makes_previews_of_earlier_images() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut images = Vec::new();
    for _ in 0..3 {
        images.push(ada.upload("a.png", "image/png", &unique_png()).await);
    }
    let deleted = ada.upload("b.png", "image/png", &unique_png()).await;
    assert_eq!(ada.delete(&format!("/api/images/{}", id(&deleted))).await.status, 204);
    assert!(app.db_image(id(&images[0])).await.unwrap().get("rendering").is_none(), "no rendering is requested");
    assert_eq!(render(&app).await, 0);
    let worker = &app.app.valet.preview_worker;
    assert_eq!(worker.backfill(100_u32.try_into().unwrap()).await.unwrap(), 3);
    assert_eq!(render(&app).await, 3);
    for image in &images {
        assert!(read(&ada, id(image)).await["previewUrl"].is_string());
    }
    assert_eq!(worker.backfill(100_u32.try_into().unwrap()).await.unwrap(), 0);
    app.audit().await;
}

/// The database rejects a request to queue images, as during an election.
#[tokio::test(flavor = "multi_thread")]
async fn backfill_continues_after_a_failure_of_the_database() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for _ in 0..3 {
        ada.upload("a.png", "image/png", &unique_png()).await;
    }
    let requests_seen = Arc::new(AtomicU32::new(0));
    let seen = requests_seen.clone();
    let requests: Tap = Arc::new(move |message| {
        let is_request = command(message).is_some_and(|command| command.contains_key("update"))
            && message.windows(9).any(|bytes| bytes == b"rendering");
        if is_request && seen.fetch_add(1, Relaxed) == 0 {
            // Renames the command to one that the database does not have.
            let at = message.windows(7).position(|bytes| bytes == b"update\0").unwrap();
            message[at] = b'x';
        }
    });
    let relayed = start_server_behind_relay(&app, requests, Arc::new(|_| {})).await;
    assert_eq!(relayed.app.valet.preview_worker.backfill(100_u32.try_into().unwrap()).await.unwrap(), 3);
    assert!(requests_seen.load(Relaxed) > 1, "the rejected request was repeated");
    assert_eq!(render(&app).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_of_many_images_does_not_delay_an_owner_of_one() {
    let app = start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    for _ in 0..40 {
        ada.upload("a.png", "image/png", &unique_png()).await;
    }
    let image = bob.upload("b.png", "image/png", &unique_png()).await;
    let images = app.db.collection::<Document>("images");
    let mut changes = images.watch().await.unwrap();
    let stop = CancellationToken::new();
    let (valet, until) = (app.app.valet.clone(), stop.clone());
    let worker = tokio::spawn(async move { valet.preview_worker.run_until(&renderer(), until).await });
    let made_before = async {
        let mut others = 0;
        loop {
            let change = changes.next().await.unwrap().unwrap();
            let is_bobs = change.document_key.unwrap().get_str("_id").ok() == Some(id(&image));
            match change.update_description {
                Some(update) if update.updated_fields.contains_key("pictures") && is_bobs => break others,
                Some(update) if update.updated_fields.contains_key("pictures") => others += 1,
                _ => {}
            }
        }
    };
    let made_before = tokio::time::timeout(Duration::from_secs(60), made_before).await.expect("the preview of the single image");
    assert!(made_before < 20, "one of each owner in turn");
    assert!(read(&bob, id(&image)).await["previewUrl"].is_string());
    stop.cancel();
    worker.await.unwrap();
    let under_way = doc! { "rendering.due": { "$gt": mongodb::bson::DateTime::now() } };
    assert_eq!(images.count_documents(under_way).await.unwrap(), 0, "a stop finishes what is under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_announce_previews_and_not_the_work_on_them() {
    let app = start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let (mut events, _) = Events::open(&ada, None).await;
    assert_eq!(render(&app).await, 1);
    let updated = events.event().await;
    assert_eq!((updated.event.as_str(), updated.data), ("image.updated", json!({ "id": id(&image) }).to_string()));
    assert_eq!(ada.delete(&format!("/api/images/{}", id(&image))).await.status, 204);
    assert_eq!(events.event().await.event, "image.deleted", "one event for the previews");
}
