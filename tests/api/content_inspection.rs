//! Covers the inspection of a file's content at confirm: how many requests to S3 it takes, why files are rejected, and the
//! aliases of media types.
//!
//! Routes: POST /api/images/{id}/confirm.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::config::Finalize;

use super::{
    app::{TestApp, declaration, fixture, skip_unless_local_s3, unique_png},
    doctor::store_defects::{Defect, Proxy},
    relay::relay_s3,
};

/// Returns plain.heic with its index (`meta`) behind the pixels and `filler` bytes, as Samsung's cameras write it.
fn index_behind_pixels(filler: usize) -> Vec<u8> {
    let plain = fixture("plain.heic");
    let length = |at: usize| u32::from_be_bytes(plain[at..at + 4].try_into().unwrap()) as usize;
    let (meta, data) = (length(0), length(0) + length(length(0)));
    assert_eq!((&plain[meta + 4..meta + 8], &plain[data + 4..data + 8]), (&b"meta"[..], &b"mdat"[..]));
    let pixels = [vec![0; filler], plain[data + 8..].to_vec()].concat();
    let mut index = plain[meta..data].to_vec();
    let bytes_of = |value: usize| u32::try_from(value).unwrap().to_be_bytes();
    let (old, new) = (bytes_of(data + 8), bytes_of(meta + 8 + filler));
    let iloc = index.windows(4).position(|window| window == b"iloc").unwrap();
    let offset = iloc + index[iloc..].windows(4).position(|window| window == old).unwrap();
    index[offset..offset + 4].copy_from_slice(&new);
    [&plain[..meta], &bytes_of(pixels.len() + 8), b"mdat", &pixels, &index].concat()
}

/// Returns a JPEG of 80x120 whose orientation comes after `count` segments of 64 KiB.
fn orientation_behind(count: usize) -> Vec<u8> {
    let (plain, turned) = (fixture("plain.jpg"), fixture("orientation-6.jpg"));
    let exif = turned.windows(4).position(|window| window == b"Exif").unwrap() - 4;
    let length = 2 + usize::from(u16::from_be_bytes([turned[exif + 2], turned[exif + 3]]));
    let segment = [&[0xFF, 0xED, 0xFF, 0xFF], &[b'A'; 0xFFFD][..]].concat();
    [&plain[..2], &segment.repeat(count), &turned[exif..exif + length], &plain[2..]].concat()
}

/// Starts a second server on `store`. Counts the server's own requests for objects by method, and under `bytes` the bytes of its
/// ranges. Its presigned URLs point to the store itself, so that requests of clients are not counted.
async fn start_with_counted_requests(store: &TestApp) -> (TestApp, Arc<Mutex<BTreeMap<String, u64>>>) {
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let counted = counts.clone();
    let endpoint = relay_s3(store, move |request| {
        if request.path().contains("/u/") {
            let method = request.parts.method.as_str();
            *counted.lock().unwrap().entry(method.to_owned()).or_default() += 1;
            if method == "GET" {
                let range = request.parts.headers["range"].to_str().unwrap().strip_prefix("bytes=").unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let bytes = to.parse::<u64>().unwrap() + 1 - from.parse::<u64>().unwrap();
                *counted.lock().unwrap().entry("bytes".to_owned()).or_default() += bytes;
            }
        }
        request.forward()
    })
    .await;
    let app = TestApp::start_second_server(store, |config| {
        config.s3.finalize = Finalize::InPlace;
        config.s3.public_endpoint = config.s3.endpoint.replace(endpoint.parse().unwrap());
    })
    .await;
    (app, counts)
}

#[tokio::test]
async fn ordinary_file_takes_one_head_and_one_range_request() {
    if skip_unless_local_s3() {
        return;
    }
    let store = TestApp::start().await;
    let (app, counts) = start_with_counted_requests(&store).await;
    let ada = app.user().await;
    // Each case: name, media type, bytes, maximum number of GETs, and maximum number of bytes in their ranges.
    let ordinary = [
        ("plain.jpg", "image/jpeg"),
        ("ultra-hdr.jpg", "image/jpeg"),
        ("palette.png", "image/png"),
        ("animated.gif", "image/gif"),
        ("lossy.webp", "image/webp"),
        ("alpha.webp", "image/webp"),
        ("animated.webp", "image/webp"),
        ("plain.avif", "image/avif"),
        ("animated.avif", "image/avif"),
        ("iphone.heic", "image/heic"),
    ];
    let ordinary = ordinary.map(|(name, content_type)| (name, content_type, fixture(name), 1, 1 << 16));
    let others = [
        ("index behind 3 MB of pixels", "image/heic", index_behind_pixels(3_000_000), 2, 1 << 17),
        ("orientation behind 2 MB of segments", "image/jpeg", orientation_behind(32), 5, 3 << 20),
        ("orientation behind 14 MB of segments", "image/jpeg", orientation_behind(220), 16, 16 << 20),
    ];
    for (name, content_type, bytes, max_gets, max_bytes) in ordinary.into_iter().chain(others) {
        let ticket = ada.open_upload("a", content_type, &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200, "{name}");
        counts.lock().unwrap().clear();
        let image = ada.confirm(ticket.id()).await;
        assert_eq!(image.status, 200, "{name}: {image:?}");
        let counts = counts.lock().unwrap().clone();
        assert_eq!(counts["HEAD"], 1, "{name}: {counts:?}");
        assert!(counts["GET"] <= max_gets && counts["bytes"] <= max_bytes, "{name}: {counts:?}");
        if name.starts_with("orientation behind") {
            assert_eq!((&image.json["width"], &image.json["height"]), (&json!(80), &json!(120)), "{name}");
        }
    }
}

#[tokio::test]
async fn store_without_ranges_is_read_from_the_beginning() {
    if skip_unless_local_s3() {
        return;
    }
    let store = TestApp::start().await;
    let proxy = Proxy::start(&store, Defect::IgnoresRanges).await;
    let app = TestApp::start_second_server(&store, |config| {
        config.s3.finalize = Finalize::InPlace;
        config.s3.endpoint = Some(proxy.endpoint.parse().unwrap());
        config.s3.public_endpoint = Some(proxy.endpoint.parse().unwrap());
    })
    .await;
    let image = app.user().await.upload("a.heic", "image/heic", &index_behind_pixels(1_500_000)).await;
    assert_eq!((&image["width"], &image["height"]), (&json!(120), &json!(80)));
}

/// Returns a PNG that declares 60000 by 60000 pixels.
fn too_many_pixels() -> Vec<u8> {
    let mut png = fixture("plain.png");
    png[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let crc = crc32(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&crc);
    png
}

/// Returns a PNG with a wrong CRC.
fn damaged_png() -> Vec<u8> {
    let mut png = unique_png();
    png[30] ^= 1;
    png
}

/// Returns a JPEG in the hierarchical mode.
fn hierarchical_jpeg() -> Vec<u8> {
    let mut jpeg = fixture("plain.jpg");
    let frame = jpeg.windows(2).position(|window| window == b"\xFF\xC0").unwrap();
    jpeg[frame + 1] = 0xC5;
    jpeg
}

/// A file that is rejected, and a part of the reason.
struct RejectedFile {
    content_type: &'static str,
    bytes: Vec<u8>,
    reason: &'static str,
}

/// Returns files that are rejected, each with its declared type and the reason.
fn rejected_files() -> Vec<RejectedFile> {
    let file = |content_type, bytes, reason| RejectedFile { content_type, bytes, reason };
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec();
    vec![
        file("image/jpeg", fixture("lossy.webp"), "it is a WebP image (image/webp)"),
        file("image/webp", fixture("plain.jpg"), "it is a JPEG image (image/jpeg)"),
        file("image/jpeg", unique_png(), "it is a PNG image (image/png)"),
        file("image/jpeg", fixture("plain.gif"), "it is a GIF image (image/gif)"),
        file("image/heic", fixture("plain.avif"), "it is an AVIF image (image/avif)"),
        file("image/avif", fixture("plain.heic"), "it is a HEIC or HEIF image (image/heic or image/heif)"),
        file("image/png", svg, "it is not a JPEG, PNG, WebP, GIF, AVIF or HEIF image"),
        file("image/png", too_many_pixels(), "too many pixels"),
        file("image/png", damaged_png(), "headers are damaged"),
        file("image/jpeg", fixture("plain.jpg")[..200].to_vec(), "cut short"),
        file("image/jpeg", hierarchical_jpeg(), "no decoder reads"),
        file("image/gif", b"GIF89a\x01\0\x01\0\0\0\0\x3B".to_vec(), "contains no picture"),
        file("image/gif", b"GIF89a\0\0\0\0\0\0\0\x2C\0\0\0\0\0\0\0\0\0".to_vec(), "a width or height of zero"),
    ]
}

#[tokio::test]
async fn rejection_names_the_reason_without_the_callers_values() {
    let app = TestApp::start().await;
    for (at, RejectedFile { content_type, bytes, reason }) in rejected_files().into_iter().enumerate() {
        let ada = app.user().await;
        let ticket = ada.open_upload("private-name", content_type, &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        // The sweeper rejects every other file, and the first confirm the others.
        if at % 2 == 1 {
            let swept = app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(3 * 3600)).await;
            assert_eq!(swept.rejected, 1, "{reason}");
        }
        for answer in [ada.confirm(ticket.id()).await, ada.post_empty(&format!("/api/images/{}/renew", ticket.id())).await] {
            assert_eq!(answer.problem(), (422, "content_mismatch"), "{reason}: {answer:?}");
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.contains(reason) && !detail.contains("private-name"), "{reason}: {detail}");
        }
        let batch = ada.post("/api/images/confirm", json!({ "ids": [ticket.id()] })).await;
        let detail = batch.json["results"][0]["problem"]["detail"].as_str().unwrap();
        assert!(detail.contains(reason), "{reason}: {detail}");
    }
}

/// An earlier version of the program recorded no reason, and a later one may record others.
#[tokio::test]
async fn rejection_without_a_known_reason_has_a_general_detail() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = ada.open_upload("a.png", "image/png", b"<svg/>").await;
    assert_eq!(app.put(&ticket.json["upload"], b"<svg/>".to_vec()).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.status, 422);
    let images = app.db.collection::<mongodb::bson::Document>("images");
    let id = mongodb::bson::doc! { "_id": ticket.id() };
    for change in [
        mongodb::bson::doc! { "$set": { "rejectionCause": "of a later version" } },
        mongodb::bson::doc! { "$unset": { "rejectionCause": "" } },
    ] {
        images.update_one(id.clone(), change).await.unwrap();
        let answer = ada.confirm(ticket.id()).await;
        assert_eq!(answer.problem(), (422, "content_mismatch"));
        assert!(answer.json["detail"].as_str().unwrap().contains("is not an image of the declared type"), "{answer:?}");
    }
}

/// Returns the CRC-32 of PNG, bit by bit (PNG 3rd ed., annex D).
fn crc32(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)));
    !bytes.iter().fold(u32::MAX, byte)
}

/// Media types as clients send them, and the registered type.
const ALIASES: [(&str, &str); 11] = [
    ("image/jpg", "image/jpeg"),
    ("IMAGE/JPG", "image/jpeg"),
    ("image/pjpeg", "image/jpeg"),
    ("image/jfif", "image/jpeg"),
    ("image/x-png", "image/png"),
    ("image/apng", "image/png"),
    ("image/vnd.mozilla.apng", "image/png"),
    ("image/x-webp", "image/webp"),
    ("image/avif-sequence", "image/avif"),
    ("image/heic-sequence", "image/heic"),
    ("image/heif-sequence", "image/heif"),
];

#[tokio::test]
async fn aliases_of_media_types_are_accepted_by_every_operation() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (at, (name, registered)) in ALIASES.into_iter().enumerate() {
        let bytes = format!("{at} {name}").into_bytes();
        let single = ada.open_upload("a", name, &bytes).await;
        assert_eq!(single.json["upload"]["headers"]["content-type"], registered, "{name}: {single:?}");
        let batch = ada
            .post("/api/images/upload/batch", json!({ "items": [declaration("a", name, &[&bytes[..], b"2"].concat())] }))
            .await;
        let headers = &batch.json["results"][0]["ticket"]["upload"]["headers"];
        assert_eq!(headers["content-type"], registered, "{name}: {batch:?}");
        let parts = ada.post("/api/images/multipart", json!({ "fileName": "a", "contentType": name, "size": 6 << 20 })).await;
        assert_eq!(parts.status, 201, "{name}: {parts:?}");
        let form = app.anonymous().get(&format!("/uppy/{}/s3/params?filename=a&type={name}", ada.uppy().await)).await;
        assert_eq!(form.json["fields"]["content-type"], registered, "{name}: {form:?}");
        let path = format!("/uppy/{}/s3/multipart", ada.uppy().await);
        let opened = app.anonymous().post(&path, json!({ "filename": "a", "type": name, "metadata": {} })).await;
        assert_eq!(opened.status, 200, "{name}: {opened:?}");
        let open = ada.get("/api/images/pending?limit=100").await;
        let types: Vec<&Value> = open.json["uploads"].as_array().unwrap().iter().map(|upload| &upload["contentType"]).collect();
        assert_eq!(types.len(), 5 * (at + 1));
        assert!(types[..5].iter().all(|media_type| **media_type == registered), "{name}: {types:?}");
    }
    // The aliases apply to a preview's type too.
    let mut with_preview = declaration("a", "image/png", b"with a preview");
    with_preview["preview"] = json!({ "contentType": "image/jpg", "size": 7, "sha256": with_preview["sha256"] });
    let ticket = ada.post("/api/images/upload", with_preview).await;
    assert_eq!(ticket.json["previewUpload"]["headers"]["content-type"], "image/jpeg", "{ticket:?}");
    // Extensions of file names, for clients that send no type.
    for (extension, registered) in [
        ("HIF", "image/heif"),
        ("jfif", "image/jpeg"),
        ("jpe", "image/jpeg"),
        ("apng", "image/png"),
        ("avifs", "image/avif"),
        ("heics", "image/heic"),
    ] {
        let form = app.anonymous().get(&format!("/uppy/{}/s3/params?filename=a.{extension}", ada.uppy().await)).await;
        assert_eq!(form.json["fields"]["content-type"], registered, "{extension}: {form:?}");
    }
    // An image that was declared with an alias has the registered type.
    let image = app.user().await.upload("a.jpg", "image/jpg", &fixture("plain.jpg")).await;
    assert_eq!(image["contentType"], "image/jpeg");
}

/// The GET of the first bytes, which is sent together with the HEAD, fails too if there is no object.
#[tokio::test]
async fn missing_object_takes_one_head_and_one_range_request() {
    if skip_unless_local_s3() {
        return;
    }
    let store = TestApp::start().await;
    let (app, counts) = start_with_counted_requests(&store).await;
    let ada = app.user().await;
    let bytes = fixture("plain.jpg");
    let ticket = ada.open_upload("a", "image/jpeg", &bytes).await;
    let batch = async || {
        let answer = ada.post("/api/images/confirm", json!({ "ids": [ticket.id()] })).await;
        answer.json["results"][0]["problem"]["code"].as_str().unwrap().to_owned()
    };
    for is_batch in [false, true] {
        counts.lock().unwrap().clear();
        let code = if is_batch { batch().await } else { ada.confirm(ticket.id()).await.code().to_owned() };
        assert_eq!(code, "object_missing");
        let counts = counts.lock().unwrap().clone();
        assert_eq!((counts["HEAD"], counts["GET"]), (1, 1), "{counts:?}");
    }
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
}
