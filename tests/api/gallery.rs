//! Covers reading: gallery pages, read URLs, captions, downloads and deletes. `repeated_pages` covers pages that are read again.
//!
//! Routes: GET /api/images/gallery, GET /api/images/{id}, PATCH /api/images/{id}, DELETE /api/images/{id}, GET
//! /api/images/{id}/download.

mod repeated_pages;

use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::app::{Caller, TestApp, unique_png};

/// Returns the ids on all pages of the gallery, in order.
async fn list_all_pages(caller: &Caller<'_>, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut path = format!("/api/images/gallery?limit={limit}");
    loop {
        let page = caller.get(&path).await;
        assert_eq!(page.status, 200);
        let images = page.json["images"].as_array().unwrap();
        assert!(images.len() <= limit);
        ids.extend(images.iter().map(|image| image["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.json["nextCursor"].as_str() else { return ids };
        path = format!("/api/images/gallery?limit={limit}&cursor={cursor}");
    }
}

#[tokio::test]
async fn g1_pages_of_any_size_list_each_image_once_newest_first() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let mut uploaded = Vec::new();
    for _ in 0..7 {
        uploaded.push(ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned());
    }
    ada.open_upload("pending.png", "image/png", &unique_png()).await;
    bob.upload("b.png", "image/png", &unique_png()).await;
    uploaded.reverse();
    for limit in [1, 2, 3, 7, 100] {
        assert_eq!(list_all_pages(&ada, limit).await, uploaded, "limit {limit}");
    }
    let first = ada.get("/api/images/gallery?limit=3").await;
    let cursor = first.json["nextCursor"].as_str().unwrap().to_owned();
    // Between two pages one image is added and one of the previous page is deleted.
    ada.upload("new.png", "image/png", &unique_png()).await;
    ada.delete(&format!("/api/images/{}", uploaded[1])).await;
    let second = ada.get(&format!("/api/images/gallery?limit=3&cursor={cursor}")).await;
    let ids: Vec<_> = second.json["images"].as_array().unwrap().iter().map(|image| image["id"].as_str().unwrap()).collect();
    assert_eq!(ids, uploaded[3..6]);
    assert_eq!(ada.get("/api/images/gallery").await.json["images"].as_array().unwrap().len(), 7, "the default limit is 50");
}

/// Images of the same millisecond are ordered by id, and a page reads no more index entries than it returns.
#[tokio::test]
async fn g3_page_reads_no_more_entries_than_it_returns() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let at = mongodb::bson::DateTime::now();
    let documents = (0..300_i64).map(|n| {
        let id = uuid::Uuid::now_v7().to_string();
        let at = mongodb::bson::DateTime::from_millis(at.timestamp_millis() - n / 50);
        doc! { "_id": &id, "user": &ada.id, "key": format!("u/{}/{id}", ada.id), "state": "ready", "live": true, "fileName": "a.png",
            "contentType": "image/png", "size": n + 1, "sha256": super::app::sha256(id.as_bytes()), "etag": "\"x\"", "width": 1_i64, "height": 1_i64,
            "createdAt": at, "uploadedAt": at, "expiresAt": at, "urlsDieAt": at }
    });
    let images = app.db.collection::<Document>("images");
    images.insert_many(documents).await.unwrap();
    let ids = list_all_pages(&ada, 37).await;
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (300, 300));
    crate::targeting::record_all(&app.db).await;
    let page = ada.get("/api/images/gallery?limit=37").await;
    ada.get(&format!("/api/images/gallery?limit=37&cursor={}", page.json["nextCursor"].as_str().unwrap())).await;
    app.db.run_command(doc! { "profile": 0 }).await.unwrap();
    let profile = app.db.collection::<Document>("system.profile");
    let mut finds = profile.find(doc! { "command.find": "images" }).await.unwrap();
    let mut queries_seen = 0;
    while finds.advance().await.unwrap() {
        let found: Document = finds.deserialize_current().unwrap();
        queries_seen += 1;
        let count = |field: &str| found.get_i32(field).map(i64::from).or_else(|_| found.get_i64(field)).unwrap();
        // One record more than the limit shows whether another page follows.
        assert_eq!((count("docsExamined"), count("nreturned")), (38, 38), "{found}");
        assert!(count("keysExamined") <= 40, "{found}");
        assert!(!found.contains_key("hasSortStage"), "{found}");
    }
    assert_eq!(queries_seen, 2);
}

/// Damaged records, `_id` included, remove no other record from the lists; numbers may be 32-bit integers.
#[tokio::test]
async fn damaged_records_do_not_hide_others_in_lists() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let images = app.db.collection::<Document>("images");
    for state in ["ready", "pending"] {
        images.delete_many(doc! {}).await.unwrap();
        let mut readable = Vec::new();
        for n in 0..9_i64 {
            let id = uuid::Uuid::now_v7().to_string();
            let at = mongodb::bson::DateTime::from_millis(mongodb::bson::DateTime::now().timestamp_millis() + n);
            let hour = mongodb::bson::DateTime::from_millis(at.timestamp_millis() + 3_600_000);
            let mut record = doc! { "_id": &id, "user": &ada.id, "key": format!("u/{}/{id}", ada.id), "state": state, "live": true,
            "fileName": "a.png", "contentType": "image/png", "size": n + 1, "sha256": super::app::sha256(id.as_bytes()),
            "createdAt": at, "expiresAt": hour, "urlsDieAt": hour };
            if state == "ready" {
                record.extend(doc! { "etag": "\"x\"", "width": 1_i64, "height": 1_i64, "uploadedAt": at });
            }
            match n {
                // Two adjacent records, and the oldest.
                0 | 3 | 4 => drop(record.insert("_id", format!("damaged {n}"))),
                6 => drop(record.insert("contentType", 7)),
                7 => {
                    record.insert("size", 8_i32);
                    readable.insert(0, id);
                }
                _ => readable.insert(0, id),
            }
            images.insert_one(record).await.unwrap();
        }
        let path = if state == "ready" { "/api/images/gallery" } else { "/api/images/pending" };
        for limit in [1, 2, 3, 50] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = ada.get(&format!("{path}?limit={limit}{cursor}")).await;
                assert_eq!(page.status, 200, "{page:?}");
                let entries = |page: &super::app::Answer| {
                    page.json["images"].as_array().or(page.json["uploads"].as_array()).unwrap().clone()
                };
                seen.extend(entries(&page).iter().map(|image| image["id"].as_str().unwrap().to_owned()));
                let Some(next) = page.json["nextCursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(seen, readable, "{state} by {limit}");
        }
    }
}

/// The page's JSON is written separately; every member equals that of the single read.
#[tokio::test]
async fn page_and_single_read_return_the_same_image() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (name, caption) in [("a \"b\" \u{1F980}\\.png", "\u{1}\n\u{2028}</script> $x"), ("plain.png", "")] {
        let image = ada.upload(name, "image/png", &unique_png()).await;
        let changed = ada.patch(&format!("/api/images/{}", image["id"].as_str().unwrap()), json!({ "caption": caption })).await;
        assert_eq!(changed.status, 200, "{changed:?}");
    }
    let page = ada.get("/api/images/gallery").await;
    let images = page.json["images"].as_array().unwrap();
    assert_eq!(images.len(), 2, "{page:?}");
    for image in images {
        // Compare the texts, so that the order of members is equal too.
        let single = ada.get(&format!("/api/images/{}", image["id"].as_str().unwrap())).await;
        assert!(page.text.contains(&single.text), "{} not in {}", single.text, page.text);
    }
}

#[tokio::test]
async fn large_page_is_compressed_on_request() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let read = async |path: &str, accept: &'static str| {
        ada.send(reqwest::Method::GET, path, |request| request.header("accept-encoding", accept)).await
    };
    let empty = read("/api/images/gallery", "gzip").await;
    assert_eq!((empty.header("content-encoding"), empty.text.as_str()), ("", "{\"images\":[]}"), "too small to compress");
    ada.upload("a.png", "image/png", &unique_png()).await;
    ada.upload("b.png", "image/png", &unique_png()).await;
    let plain = read("/api/images/gallery", "br").await;
    assert_eq!(plain.header("content-encoding"), "");
    assert!(plain.headers.get_all("vary").iter().any(|field| field == "accept-encoding"), "{plain:?}");
    let request = app.http.get(format!("{}/api/images/gallery", app.base)).bearer_auth(ada.token.as_ref().unwrap());
    let packed = request.header("accept-encoding", "br, gzip").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert_eq!(packed.headers()["etag"], plain.header("etag"));
    let packed = packed.bytes().await.unwrap();
    assert!(packed.len() < plain.text.len() * 2 / 3, "{} of {}", packed.len(), plain.text.len());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut text).unwrap();
    assert_eq!(text, plain.text);
    let me = read("/api/auth/me", "gzip").await;
    assert_eq!(me.header("content-encoding"), "", "responses of /api/auth are not compressed");
}

#[tokio::test]
async fn g5_download_saves_under_the_file_name() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (name, disposition) in [
        ("cat.png", "attachment; filename=\"cat.png\"; filename*=UTF-8''cat.png"),
        ("holiday.hta", "attachment; filename=\"holiday.hta.png\"; filename*=UTF-8''holiday.hta.png"),
        (
            "Füße \"1\"; %0d%0a 漢🦀.png",
            "attachment; filename=\"F__e _1_; _0d_0a __.png\"; filename*=UTF-8''F%C3%BC%C3%9Fe%20%221%22%3B%20%250d%250a%20%E6%BC%A2%F0%9F%A6%80.png",
        ),
    ] {
        let bytes = unique_png();
        let image = ada.upload(name, "image/png", &bytes).await;
        assert_eq!(image["fileName"], name);
        let download = ada.get(&format!("/api/images/{}/download", image["id"].as_str().unwrap())).await;
        assert_eq!(download.status, 200);
        let saved = app.http.get(download.json["url"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(saved.headers()["content-disposition"], disposition);
        assert_eq!(saved.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn captions_are_set_changed_and_cleared() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    for caption in ["The sea", "$literal.$$NOW", &"🦀".repeat(1000), "a\nb"] {
        let changed = ada.patch(&path, json!({ "caption": caption })).await;
        assert_eq!((changed.status, changed.json["caption"].as_str()), (200, Some(caption)));
    }
    assert_eq!(ada.patch(&path, json!({ "caption": "x".repeat(1001) })).await.problem(), (422, "invalid_caption"));
    assert_eq!(ada.patch(&path, json!({ "caption": "a\u{0}" })).await.problem(), (422, "invalid_caption"));
    let cleared = ada.patch(&path, json!({ "caption": "" })).await;
    assert!(cleared.status == 200 && cleared.json.get("caption").is_none(), "left out, not null");
    assert_eq!(ada.get(&path).await.json, image);
    let pending = ada.open_upload("a.png", "image/png", &unique_png()).await;
    assert_eq!(
        ada.patch(&format!("/api/images/{}", pending.id()), json!({ "caption": "x" })).await.status,
        404,
        "only ready images have captions"
    );
}

#[tokio::test]
async fn d1_deleted_image_and_its_bytes_are_gone_at_once() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    assert_eq!(ada.delete(&path).await.status, 204);
    assert_eq!(ada.delete(&path).await.status, 204, "a repeat, while the tombstone exists");
    assert_eq!(ada.get(&path).await.status, 404);
    assert_eq!(ada.get(&format!("{path}/download")).await.status, 404);
    assert_eq!(ada.confirm(image["id"].as_str().unwrap()).await.status, 404);
    assert_eq!(ada.post_empty(&format!("{path}/renew")).await.status, 404);
    assert_eq!(ada.get("/api/images/gallery").await.json["images"], json!([]));
    assert!(app.bucket_keys().await.is_empty());
    assert_eq!(
        app.http.get(image["url"].as_str().unwrap()).send().await.unwrap().status(),
        404,
        "the object of an earlier read URL is deleted"
    );
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["bytes"], &usage["images"]), (&image["size"], &json!(0)), "its URL can still write the bytes");
    let after_tombstone = OffsetDateTime::now_utc() + Duration::from_secs(48 * 3600);
    app.sweep(after_tombstone).await;
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0);
    assert_eq!(ada.delete(&path).await.status, 404, "the tombstone has expired");
}

#[tokio::test]
async fn twenty_concurrent_deletes_free_the_bytes_once() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let kept_bytes = unique_png();
    ada.upload("kept.png", "image/png", &kept_bytes).await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    let answers = futures_util::future::join_all((0..20).map(|_| ada.delete(&path))).await;
    assert!(answers.iter().all(|answer| answer.status == 204), "{answers:?}");
    app.sweep_after_url_expiry().await;
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["bytes"], &usage["images"]), (&json!(kept_bytes.len()), &json!(1)));
}

#[tokio::test]
async fn read_urls_repeat_within_a_window_and_expire() {
    let app = TestApp::start_with(|config| config.uploads.read_url_ttl = Duration::from_secs(4)).await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    let mut urls = std::collections::BTreeSet::new();
    let began = std::time::Instant::now();
    for _ in 0..8 {
        let requested_at = OffsetDateTime::now_utc();
        let image = ada.get(&path).await.json;
        let url = image["url"].as_str().unwrap().to_owned();
        let expires =
            OffsetDateTime::parse(image["urlExpiresAt"].as_str().unwrap(), &time::format_description::well_known::Rfc3339)
                .unwrap();
        let answered_at = OffsetDateTime::now_utc();
        assert!((expires - requested_at).as_seconds_f64() > 0.9, "{}", expires - requested_at);
        assert!((expires - answered_at).as_seconds_f64() <= 4.0, "{}", expires - answered_at);
        let status = app.http.get(&url).send().await.unwrap().status();
        assert!(status == 200 || OffsetDateTime::now_utc() >= expires, "{status}");
        urls.insert(url);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    // Signing windows of 2 s; the first and the last may be partial.
    let max_urls = began.elapsed().as_secs() / 2 + 2;
    assert!((1..=max_urls).contains(&(urls.len() as u64)), "{} of {max_urls}", urls.len());
    // A URL is valid for four seconds at most; S3 counts whole seconds.
    tokio::time::sleep(Duration::from_millis(5500)).await;
    for url in urls {
        assert!(TestApp::is_signature_rejection(app.http.get(&url).send().await.unwrap().status()));
    }
}

#[tokio::test]
async fn i14_bucket_is_private() {
    if crate::store_rules::skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let url = image["url"].as_str().unwrap().split('?').next().unwrap().to_owned();
    let bucket = url.split("/u/").next().unwrap().to_owned();
    for (method, url) in [("GET", &url), ("HEAD", &url), ("PUT", &url), ("DELETE", &url), ("GET", &bucket)] {
        let answer = app.http.request(method.parse().unwrap(), url).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{method} {url}");
    }
    let image_read: Value = ada.get(&format!("/api/images/{}", image["id"].as_str().unwrap())).await.json;
    assert_eq!(image_read["id"], image["id"]);
}
