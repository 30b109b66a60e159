//! Covers when and how images were taken: the time, camera and position that confirm reads from the file, the gallery in the
//! order of the time taken, and the timeline.
//!
//! Routes: GET /api/images/gallery, GET /api/images/timeline, POST /api/images/{id}/confirm.

mod declared;
mod earlier;
mod timeline;

use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::app::{Caller, TestApp, fixture, unique_png};

// Tags of Exif: the camera's maker and model, the time taken, and its offset from UTC.
const MAKE: u16 = 0x010F;
const MODEL: u16 = 0x0110;
const ORIGINAL: u16 = 0x9003;
const OFFSET: u16 = 0x9011;

// Types of TIFF: text, a number of four bytes, and fractions of two such numbers.
const TEXT: u16 = 2;
const LONG: u16 = 4;
const RATIONAL: u16 = 5;

/// Appends a directory of TIFF with these entries (tag, type, value), and returns its offset.
fn directory(tiff: &mut Vec<u8>, entries: &[(u16, u16, Vec<u8>)]) -> u32 {
    let number = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
    let start = tiff.len();
    tiff.extend(u16::try_from(entries.len()).unwrap().to_be_bytes());
    tiff.resize(start + 2 + 12 * entries.len() + 4, 0);
    for (at, (tag, kind, value)) in entries.iter().enumerate() {
        let count = if *kind == RATIONAL {
            value.len() / 8
        } else if *kind == LONG {
            1
        } else {
            value.len()
        };
        let mut field = [0; 4];
        if value.len() <= 4 {
            field[..value.len()].copy_from_slice(value);
        } else {
            field = number(tiff.len());
            tiff.extend(value);
        }
        let entry = [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &number(count), &field].concat();
        tiff[start + 2 + 12 * at..][..12].copy_from_slice(&entry);
    }
    u32::try_from(start).unwrap()
}

/// Returns a unique JPEG whose Exif block has these texts, and the position 33.5 degrees south, 18.25 degrees east.
pub fn photograph(texts: &[(u16, &str)]) -> Vec<u8> {
    let text = |(tag, text): &(u16, &str)| (*tag, TEXT, [text.as_bytes(), b"\0"].concat());
    // The texts of the main directory have tags below 0x8000, those of the Exif directory higher ones.
    let (of_camera, of_exif): (Vec<_>, Vec<_>) = texts.iter().map(text).partition(|(tag, ..)| *tag < 0x8000);
    let degrees = |whole: u32, minutes: u32| [whole, 1, minutes, 1, 0, 1].map(u32::to_be_bytes).concat();
    // The tags of GPS: the reference of the latitude, the latitude, and both of the longitude.
    let gps =
        [(1, TEXT, b"S\0".to_vec()), (2, RATIONAL, degrees(33, 30)), (3, TEXT, b"E\0".to_vec()), (4, RATIONAL, degrees(18, 15))];
    let mut tiff = b"MM\0*\0\0\0\0".to_vec();
    let (exif_at, gps_at) = (directory(&mut tiff, &of_exif), directory(&mut tiff, &gps));
    // The tags under which the main directory has the offsets of the other two.
    let pointers = [(0x8769, LONG, exif_at.to_be_bytes().to_vec()), (0x8825, LONG, gps_at.to_be_bytes().to_vec())];
    let main_at = directory(&mut tiff, &[of_camera, pointers.to_vec()].concat());
    tiff[4..8].copy_from_slice(&main_at.to_be_bytes());
    let segment = [b"Exif\0\0", &tiff[..]].concat();
    let length = u16::try_from(segment.len() + 2).unwrap().to_be_bytes();
    let plain = fixture("plain.jpg");
    let unique = uuid::Uuid::new_v4();
    [&plain[..2], &[0xFF, 0xE1], &length, &segment, &plain[2..], unique.as_bytes()].concat()
}

/// Uploads a photograph that was taken at this time; returns its id.
async fn upload_taken(caller: &Caller<'_>, at: &str) -> String {
    id(&caller.upload("a.jpg", "image/jpeg", &photograph(&[(ORIGINAL, at)])).await)
}

/// Returns the id of an image.
fn id(image: &Value) -> String {
    image["id"].as_str().unwrap().to_owned()
}

/// Returns the ids of all pages in the order of the time taken.
async fn list_all_pages(caller: &Caller<'_>, limit: usize) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = caller.get(&format!("/api/images/gallery?order=taken&limit={limit}{cursor}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        ids.extend(page.json["images"].as_array().unwrap().iter().map(id));
        let Some(next) = page.json["nextCursor"].as_str() else { return ids };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test]
async fn time_and_camera_are_read_from_the_file_and_the_position_is_not() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let zoned = [(MAKE, "Apple"), (MODEL, "iPhone 15 Pro"), (ORIGINAL, "2024:12:21 23:39:24"), (OFFSET, "-05:30")];
    for (name, texts, taken_at, camera) in [
        ("with an offset", &zoned[..], json!("2024-12-21T23:39:24-05:30"), json!("Apple iPhone 15 Pro")),
        ("without an offset", &zoned[1..3], json!("2024-12-21T23:39:24"), json!("iPhone 15 Pro")),
        ("without a time", &[], Value::Null, Value::Null),
        ("in the future", &[(ORIGINAL, "2099:01:01 00:00:00")], Value::Null, Value::Null),
    ] {
        let image = ada.upload("a.jpg", "image/jpeg", &photograph(texts)).await;
        assert_eq!((&image["takenAt"], &image["camera"]), (&taken_at, &camera), "{name}");
        let read = ada.get(&format!("/api/images/{}", id(&image))).await.json;
        let page = ada.get("/api/images/gallery?limit=1").await.json;
        assert_eq!((&read, &page["images"][0]), (&image, &image), "{name}");
        let record = app.db_image(&id(&image)).await.unwrap();
        assert!(!record.contains_key("location") && image.get("location").is_none(), "{name}: {record}");
    }
    app.audit().await;
}

#[tokio::test]
async fn position_is_recorded_if_the_operator_wants_it() {
    let app = TestApp::start_with(|config| config.uploads.keep_location = true).await;
    let ada = app.user().await;
    let image = ada.upload("a.jpg", "image/jpeg", &photograph(&[])).await;
    assert_eq!(image["location"], json!({ "latitude": -33.5, "longitude": 18.25 }));
    assert_eq!(ada.get("/api/images/gallery").await.json["images"][0], image);
    assert_eq!(ada.get(&format!("/api/images/{}", id(&image))).await.json, image);
}

/// The file of a copied upload, of a multipart upload and of one that is confirmed in a batch are read in the same way.
#[tokio::test]
async fn every_way_of_confirming_reads_the_time() {
    let app = TestApp::start_with(|config| config.s3.finalize = valet::config::Finalize::Copy).await;
    let ada = app.user().await;
    let copied = ada.upload("a.jpg", "image/jpeg", &photograph(&[(ORIGINAL, "2024:12:21 23:39:24")])).await;
    assert_eq!(copied["takenAt"], "2024-12-21T23:39:24");
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut ids = Vec::new();
    for year in ["2001", "2002"] {
        let bytes = photograph(&[(ORIGINAL, &format!("{year}:12:21 23:39:24"))]);
        let ticket = ada.open_upload("a.jpg", "image/jpeg", &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        ids.push(ticket.id().to_owned());
    }
    let confirmed = ada.post("/api/images/confirm", json!({ "ids": ids })).await;
    assert_eq!(confirmed.json["results"][1]["image"]["takenAt"], "2002-12-21T23:39:24", "{confirmed:?}");
    let months = json!({ "months": [{ "month": "2002-12", "count": 1 }, { "month": "2001-12", "count": 1 }] });
    assert_eq!(ada.get("/api/images/timeline").await.json, months);
    app.audit().await;
}

#[tokio::test]
async fn pages_in_the_order_of_the_time_taken_list_each_image_once() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let mut expected = Vec::new();
    // An image without a time is ordered by its upload, which is later than the times of all others.
    let screenshot = id(&ada.upload("a.png", "image/png", &unique_png()).await);
    for at in ["2003:01:01 00:00:00", "1999:12:31 23:59:59", "2003:01:01 00:00:00", "1969:07:20 20:17:40", "2003:01:01 00:00:00"]
    {
        expected.push((at, upload_taken(&ada, at).await));
    }
    upload_taken(&bob, "2003:01:01 00:00:00").await;
    ada.open_upload("pending.png", "image/png", &unique_png()).await;
    // Images of the same second are ordered by id.
    expected.sort_by(|a, b| b.cmp(a));
    let expected: Vec<_> = std::iter::once(screenshot).chain(expected.into_iter().map(|(_, id)| id)).collect();
    for limit in [1, 2, 3, 6, 100] {
        assert_eq!(list_all_pages(&ada, limit).await, expected, "limit {limit}");
    }
    let first = ada.get("/api/images/gallery?order=taken&limit=2").await;
    let cursor = first.json["nextCursor"].as_str().unwrap();
    // Between two pages, images are added before and behind the position, and one of the previous page is deleted.
    upload_taken(&ada, "2020:01:01 00:00:00").await;
    let added_behind = upload_taken(&ada, "1980:01:01 00:00:00").await;
    ada.delete(&format!("/api/images/{}", expected[1])).await;
    let second = ada.get(&format!("/api/images/gallery?order=taken&cursor={cursor}")).await;
    let ids: Vec<_> = second.json["images"].as_array().unwrap().iter().map(id).collect();
    let mut rest = expected[2..].to_vec();
    rest.insert(rest.len() - 1, added_behind);
    assert_eq!(ids, rest);
}

#[tokio::test]
async fn cursors_continue_in_their_own_order_only() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for _ in 0..2 {
        ada.upload("a.png", "image/png", &unique_png()).await;
    }
    for (order, other) in [("taken", "uploaded"), ("uploaded", "taken")] {
        let page = ada.get(&format!("/api/images/gallery?limit=1&order={order}")).await;
        let cursor = page.json["nextCursor"].as_str().unwrap();
        let answer = ada.get(&format!("/api/images/gallery?order={other}&cursor={cursor}")).await;
        assert_eq!(answer.problem(), (400, "invalid_cursor"));
        assert_eq!(ada.get(&format!("/api/images/gallery?order={order}&cursor={cursor}")).await.status, 200);
    }
    let unknown = ada.get("/api/images/gallery?order=size").await;
    assert_eq!(unknown.problem(), (400, "invalid_request"));
    assert_eq!(unknown.json["errors"], serde_json::json!([{ "field": "order", "message": "must be uploaded or taken" }]));
}

/// Inserts 300 ready images: 50 of each of four times, and a hundred without a time, as images of an earlier version. Returns the
/// ids in the order of the time taken.
async fn insert_images(app: &TestApp, ada: &Caller<'_>) -> Vec<String> {
    let now = DateTime::now();
    let mut ids = Vec::new();
    let documents: Vec<_> = (0..300_i64)
        .map(|n| {
            let id = uuid::Uuid::now_v7().to_string();
            ids.push(id.clone());
            let mut document = doc! { "_id": &id, "user": &ada.id, "key": format!("u/{}/{id}", ada.id), "state": "ready", "live": true, "fileName": "a.png",
                "contentType": "image/png", "size": n + 1, "sha256": super::app::sha256(id.as_bytes()), "etag": "\"x\"", "width": 1_i64, "height": 1_i64,
                "createdAt": now, "uploadedAt": now, "expiresAt": now, "urlsDieAt": now };
            if n < 200 {
                document.insert("takenSort", DateTime::from_millis(now.timestamp_millis() - n / 50 * 3_600_000));
            }
            document
        })
        .collect();
    app.db.collection::<Document>("images").insert_many(documents).await.unwrap();
    let mut expected: Vec<String> = ids[..200].chunks(50).flat_map(|chunk| chunk.iter().rev().cloned()).collect();
    expected.extend(ids[200..].iter().rev().cloned());
    expected
}

#[tokio::test]
async fn page_in_the_order_of_the_time_taken_reads_no_more_entries_than_it_returns() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let expected = insert_images(&app, &ada).await;
    assert_eq!(list_all_pages(&ada, 37).await, expected);
    crate::targeting::record_all(&app.db).await;
    assert_eq!(list_all_pages(&ada, 37).await.len(), 300);
    app.db.run_command(doc! { "profile": 0 }).await.unwrap();
    let mut finds = app.db.collection::<Document>("system.profile").find(doc! { "command.find": "images" }).await.unwrap();
    let mut queries_seen = 0;
    while finds.advance().await.unwrap() {
        let found: Document = finds.deserialize_current().unwrap();
        queries_seen += 1;
        let count = |field: &str| found.get_i32(field).map(i64::from).or_else(|_| found.get_i64(field)).unwrap();
        // MongoDB counts a record without a time twice: it is fetched to see that the time is absent, and then returned.
        assert!(count("docsExamined") <= 2 * count("nreturned") && count("nreturned") <= 38, "{found}");
        // A scan may examine a key behind each range of the index that it reads.
        assert!(count("keysExamined") <= count("nreturned") + 4, "{found}");
        assert!(!found.contains_key("hasSortStage"), "{found}");
    }
    assert_eq!(queries_seen, 9, "300 images in pages of 37");
}

/// Returns the current month, in which images without a time count that are uploaded now. Waits for the next month if this one ends
/// during the test.
async fn this_month() -> String {
    let month = |later: Duration| valet::model::TimelineMonth::of(OffsetDateTime::now_utc() + later).to_string();
    while month(Duration::ZERO) != month(Duration::from_secs(120)) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    month(Duration::ZERO)
}
