//! Covers pages of the gallery that are read again: an unchanged page is not sent again, and a changed one is shown as it is,
//! although the server keeps the texts of images that it showed.
//!
//! Routes: GET /api/images/gallery, GET /api/images/{id}.

use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};
use reqwest::Method;
use serde_json::json;

use crate::app::{TestApp, sha256, unique_png};

#[tokio::test]
async fn g7_unchanged_page_is_answered_304() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let path = "/api/images/gallery?limit=2";
    let read = async |tag: &str| ada.send(Method::GET, path, |request| request.header("if-none-match", tag)).await;
    let mut tags: Vec<String> = Vec::new();
    let mut known_tag = "\"none\"".to_owned();
    // After the first read, each change makes the page differ: the first image, a second one, a third one that does not fit on the
    // page, a caption, a delete.
    for change in ["nothing", "image", "image", "image", "caption", "delete"] {
        let images = ada.get(path).await.json["images"].clone();
        let first = format!("/api/images/{}", images[0]["id"].as_str().unwrap_or_default());
        match change {
            "image" => drop(ada.upload("a.png", "image/png", &unique_png()).await),
            "caption" => drop(ada.patch(&first, json!({ "caption": "The sea" })).await),
            "delete" => drop(ada.delete(&first).await),
            _ => {}
        }
        let page = read(&known_tag).await;
        assert_eq!(page.status, 200, "{change}: {page:?}");
        assert_eq!(page.header("cache-control"), "private, no-cache", "a page may be stored, to be revalidated");
        known_tag = page.header("etag").to_owned();
        assert!(change == "delete" || !tags.contains(&known_tag), "{change}: {known_tag}");
        tags.push(known_tag.clone());
        let again = read(&format!("\"other\", {}", known_tag.trim_start_matches("W/"))).await;
        assert_eq!((again.status, again.text.as_str()), (304, ""), "{change}");
        assert_eq!((again.header("etag"), again.header("cache-control")), (known_tag.as_str(), "private, no-cache"));
        assert!(again.headers.get_all("vary").iter().any(|field| field == "authorization"), "{again:?}");
    }
    assert_eq!(tags[5], tags[2], "without the third image, the page is the same as before it");
    let other = app.user().await;
    let page = other.send(Method::GET, path, |request| request.header("if-none-match", &known_tag)).await;
    assert_eq!(page.status, 200, "a tag does not match the page of another user");
}

/// At the end of a signing window the URLs change, and the page with them.
#[tokio::test]
async fn page_is_sent_again_when_its_urls_change() {
    let app = TestApp::start_with(|config| config.uploads.read_url_ttl = Duration::from_secs(4)).await;
    let ada = app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    let mut tags = std::collections::BTreeMap::new();
    let began = std::time::Instant::now();
    for _ in 0..12 {
        let page = ada.get("/api/images/gallery").await;
        tags.entry(page.header("etag").to_owned()).or_insert_with(std::collections::BTreeSet::new).insert(page.text.clone());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let most = began.elapsed().as_secs() as usize / 2 + 2;
    assert!((2..=most).contains(&tags.len()), "URLs that change every 2 s: {tags:?}");
    assert!(tags.values().all(|pages| pages.len() == 1), "a tag names one page: {tags:?}");
}

/// Returns a change of each field of a record that a page shows.
fn changes(user: &str, image: &str) -> Vec<Document> {
    let time = |millis| Bson::DateTime(DateTime::from_millis(millis));
    vec![
        doc! { "fileName": "other \"name\".png" },
        doc! { "contentType": "image/webp" },
        doc! { "size": 4711_i64 },
        doc! { "sha256": sha256(b"other bytes") },
        doc! { "caption": "The sea" },
        doc! { "caption": "The lake" },
        doc! { "preview": { "contentType": "image/jpeg", "size": 10_i64, "sha256": sha256(b"preview") } },
        doc! { "preview": { "contentType": "image/webp", "size": 10_i64, "sha256": sha256(b"preview") } },
        doc! { "thumbHash": "3OcRJYB4d3h/iIeHeEh3eIhw+j3A" },
        doc! { "width": 21_i64 },
        doc! { "height": 22_i64 },
        doc! { "takenAt": "2024-12-24T18:00:00" },
        doc! { "camera": "Example 7" },
        doc! { "location": { "latitude": 47.5, "longitude": -0.25 } },
        doc! { "rendering": {}, "pictures": [{ "width": 640_i64, "height": 480_i64 }] },
        doc! { "pictures": [{ "width": 640_i64, "height": 480_i64 }, { "width": 1600_i64, "height": 1200_i64 }] },
        doc! { "createdAt": time(1_700_000_000_000) },
        doc! { "uploadedAt": time(1_700_000_001_000) },
        doc! { "key": format!("u/{user}/{image}-0123456789ab4def8123456789abcdef") },
    ]
}

#[tokio::test]
async fn page_that_is_read_again_shows_each_change() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let id = image["id"].as_str().unwrap();
    // A second image, which does not change, and pages of both lengths.
    let other = ada.upload("b.png", "image/png", &unique_png()).await;
    let other = ada.get(&format!("/api/images/{}", other["id"].as_str().unwrap())).await.text;
    let images = app.db.collection::<Document>("images");
    let (mut texts, mut tags) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for change in changes(&ada.id, id) {
        images.update_one(doc! { "_id": id }, doc! { "$set": &change }).await.unwrap();
        let single = ada.get(&format!("/api/images/{id}")).await;
        assert_eq!(single.status, 200, "{change}: {single:?}");
        assert!(texts.insert(single.text.clone()), "{change}: the image shows it");
        for (limit, tag_is_new) in [(50, true), (50, false), (2, false)] {
            let page = ada.get(&format!("/api/images/gallery?limit={limit}")).await;
            assert_eq!(page.text, format!("{{\"images\":[{other},{}]}}", single.text), "{change}");
            assert_eq!(tags.insert(page.header("etag").to_owned()), tag_is_new, "{change}");
        }
    }
}

/// Fields that steps, events and workers record after a confirmation do not change the page.
#[tokio::test]
async fn page_is_unchanged_by_fields_that_it_does_not_show() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let id = ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    let images = app.db.collection::<Document>("images");
    let page = ada.get("/api/images/gallery").await;
    let is_unchanged = async || {
        let read =
            ada.send(Method::GET, "/api/images/gallery", |request| request.header("if-none-match", page.header("etag"))).await;
        assert_eq!(ada.get("/api/images/gallery").await.text, page.text);
        read.status == 304
    };
    let stored = images.find_one(doc! { "_id": &id }).await.unwrap().unwrap();
    let shown: Vec<_> = changes(&ada.id, &id).iter().flat_map(|change| change.keys().cloned().collect::<Vec<_>>()).collect();
    let is_hidden = |name: &String| !shown.contains(name) && !["_id", "user", "state", "takenSort"].contains(&name.as_str());
    for name in stored.keys().filter(|name| is_hidden(name)) {
        images.update_one(doc! { "_id": &id }, doc! { "$unset": { name: "" } }).await.unwrap();
        assert!(is_unchanged().await, "without {name}");
    }
    let now = DateTime::now();
    for change in [
        doc! { "rendering": { "since": now, "due": now, "attempts": 1_i64 } },
        doc! { "rendering": { "since": now, "failure": "broken" } },
        doc! { "captureRead": true },
        doc! { "step": "0123456789abcdef" },
        doc! { "ofALaterVersion": 7_i64 },
    ] {
        images.update_one(doc! { "_id": &id }, doc! { "$set": &change }).await.unwrap();
        assert!(is_unchanged().await, "{change}");
    }
}
