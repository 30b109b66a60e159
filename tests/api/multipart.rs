//! Covers multipart uploads (POST /api/images/multipart, /parts, confirm): permitted parts, resumption, completion and clean-up.
//!
//! Routes: POST /api/images/multipart, POST /api/images/{id}/parts, POST /api/images/{id}/confirm.

mod ending;
mod limits;
mod resumption;

use std::time::Duration;

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::app::{Answer, Caller, TestApp, sha256, unique_png};

/// Bytes of a mebibyte.
const MIB: usize = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Time after which no URL can write: with the default settings URLs live an hour, and the grace period is a quarter of an hour.
const QUIET: Duration = Duration::from_secs(3600 + 900 + 60);

/// Returns the time after this duration from now.
fn after(duration: Duration) -> OffsetDateTime {
    OffsetDateTime::now_utc() + duration
}

/// Returns an image of three parts, of 5 MiB, 5 MiB and 4321 bytes; bytes after the end of a PNG are legal.
fn file() -> Vec<u8> {
    let mut bytes = unique_png();
    let salt = *uuid::Uuid::new_v4().as_bytes();
    bytes.extend((bytes.len()..10 * MIB + 4321).map(|n| salt[n % 16].wrapping_add(n.to_le_bytes()[0])));
    bytes
}

/// Returns the body of a multipart upload request with parts of 5 MiB.
fn declaration(bytes: &[u8], checksums: &str) -> Value {
    json!({ "fileName": "big.png", "contentType": "image/png", "size": bytes.len(), "partSize": 5 * MIB, "partChecksums": checksums })
}

/// Returns the bytes of a part of 5 MiB or the rest.
fn part(bytes: &[u8], number: usize) -> Vec<u8> {
    bytes[(number - 1) * 5 * MIB..].iter().take(5 * MIB).copied().collect()
}

impl Caller<'_> {
    /// Opens a multipart upload, which must succeed; returns the ticket.
    async fn open(&self, body: Value) -> Answer {
        let answer = self.post("/api/images/multipart", body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer
    }

    /// Returns the numbers of the parts that have arrived.
    async fn parts_of(&self, id: &str) -> Vec<u64> {
        let answer = self.get(&format!("/api/images/{id}/parts")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["parts"].as_array().unwrap().iter().map(|part| part["partNumber"].as_u64().unwrap()).collect()
    }

    /// Requests URLs for parts.
    async fn sign(&self, id: &str, parts: Value) -> Answer {
        self.post(&format!("/api/images/{id}/parts"), json!({ "parts": parts })).await
    }

    /// Returns the presigned request of one part.
    async fn part_url(&self, id: &str, part: Value) -> Value {
        let answer = self.sign(id, json!([part])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json["parts"][0]["partNumber"], part["partNumber"]);
        answer.json["parts"][0]["request"].clone()
    }

    /// Sends the parts of these numbers.
    async fn send_parts(&self, id: &str, bytes: &[u8], numbers: &[usize]) {
        for number in numbers {
            let request = self.part_url(id, json!({ "partNumber": number })).await;
            assert_eq!(self.app.put(&request, part(bytes, *number)).await, 200);
        }
    }

    /// Returns the user's usage.
    async fn usage(&self) -> Value {
        self.get("/api/auth/me").await.json["usage"].clone()
    }
}

impl TestApp {
    /// Returns the multipart uploads that are open in S3.
    async fn bucket_uploads(&self) -> Vec<String> {
        let listed = self.s3.list_multipart_uploads().bucket(&self.config.s3.bucket).send().await.unwrap();
        listed.uploads().iter().map(|upload| upload.upload_id().unwrap().to_owned()).collect()
    }

    /// Completes an upload in the bucket, like a server that does not get the answer.
    async fn bucket_complete(&self, id: &str) {
        let image = self.db_image(id).await.unwrap();
        let (key, upload_id) = (image.get_str("key").unwrap(), image.get_str("uploadId").unwrap());
        let listed = self.s3.list_parts().bucket(&self.config.s3.bucket).key(key).upload_id(upload_id).send().await.unwrap();
        let parts = listed.parts().iter().map(|part| {
            CompletedPart::builder().set_part_number(part.part_number()).set_e_tag(part.e_tag().map(str::to_owned)).build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let complete = self.s3.complete_multipart_upload().bucket(&self.config.s3.bucket).key(key).upload_id(upload_id);
        complete.multipart_upload(parts).send().await.unwrap();
    }

    /// Aborts an upload in the bucket without going through the server.
    async fn bucket_abort(&self, id: &str) {
        let image = self.db_image(id).await.unwrap();
        let (key, upload_id) = (image.get_str("key").unwrap(), image.get_str("uploadId").unwrap());
        let abort = self.s3.abort_multipart_upload().bucket(&self.config.s3.bucket).key(key).upload_id(upload_id);
        abort.send().await.unwrap();
    }

    /// Updates an image's document without going through the server.
    async fn db_set(&self, id: &str, update: Document) {
        self.db.collection::<Document>("images").update_one(doc! { "_id": id }, update).await.unwrap();
    }
}

#[tokio::test]
async fn parts_become_an_image_in_the_gallery() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = file();
    let mut body = declaration(&bytes, "none");
    body["caption"] = json!("wide");
    let ticket = ada.open(body).await;
    let (id, size) = (ticket.id(), bytes.len());
    assert_eq!((&ticket.json["partSize"], &ticket.json["partCount"]), (&json!(5 * MIB), &json!(3)));
    let expected = json!({ "bytes": size, "quotaBytes": 10_737_418_240_u64, "images": 0, "pending": 1 });
    assert_eq!(ada.usage().await, expected, "the upload is counted from its opening");
    let signed = ada.sign(id, json!([{ "partNumber": 3 }, { "partNumber": 1 }, { "partNumber": 2 }])).await;
    assert_eq!(signed.status, 200, "{signed:?}");
    for (at, number) in [3, 1, 2].into_iter().enumerate() {
        let signed = &signed.json["parts"][at];
        assert_eq!(signed["partNumber"], number, "in the order of the request");
        assert_eq!((&signed["request"]["headers"], &signed["request"]["expiresIn"]), (&json!({}), &json!(3600)));
        let url = signed["request"]["url"].as_str().unwrap();
        assert!(url.contains("X-Amz-SignedHeaders=content-length%3Bhost&partNumber="), "{url}");
        assert_eq!(app.put(&signed["request"], part(&bytes, number)).await, 200);
    }
    let stored = ada.get(&format!("/api/images/{id}/parts")).await;
    let part = |number: u32, size: usize| json!({ "partNumber": number, "size": size });
    assert_eq!(stored.json["parts"], json!([part(1, 5 * MIB), part(2, 5 * MIB), part(3, 4321)]));
    let image = ada.confirm(id).await;
    assert_eq!(image.status, 200, "{image:?}");
    assert!(image.json["sha256"].is_null(), "a digest of parts is not the digest of the file");
    let expected = json!({ "id": id, "fileName": "big.png", "contentType": "image/png", "size": size, "width": 90, "height": 50,
        "caption": "wide" });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&image.json[member], value, "{member}");
    }
    let read = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(read.headers()["content-type"], "image/png");
    assert!(read.bytes().await.unwrap() == bytes, "the URL returns the uploaded bytes");
    assert_eq!(ada.get("/api/images/gallery").await.json["images"], json!([image.json]));
    assert_eq!(ada.confirm(id).await.json, image.json, "a repeated confirm returns the same image");
    assert!(TestApp::is_signature_rejection(app.put(&signed.json["parts"][0]["request"], b"late".to_vec()).await));
    let late = app.put(&signed.json["parts"][0]["request"], bytes[10 * MIB..].to_vec()).await;
    assert_eq!(late, 404, "no part is accepted afterwards");
    assert_eq!(ada.sign(id, json!([{ "partNumber": 1 }])).await.problem(), (409, "upload_complete"));
    assert_eq!(ada.parts_of(id).await, [1, 2, 3]);
    let ready = ada.post_empty(&format!("/api/images/{id}/renew")).await;
    assert_eq!((ready.status, ready.json["state"].as_str()), (200, Some("ready")));
    assert_eq!(ada.usage().await, json!({ "bytes": size, "quotaBytes": 10_737_418_240_u64, "images": 1, "pending": 0 }));
    let document = app.db_image(id).await.unwrap();
    assert_eq!((document.get_str("kind").unwrap(), document.get_i64("partSize").unwrap()), ("multipart", 5 << 20));
    assert!(!document.contains_key("sha256") && document.get_str("partChecksums").unwrap() == "none");
    assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    assert!(app.bucket_keys().await.is_empty());
    assert_eq!(
        (&ada.usage().await["bytes"], &ada.usage().await["images"]),
        (&json!(size), &json!(0)),
        "URLs can still write the bytes"
    );
    app.sweep_after_url_expiry().await;
    assert_eq!(ada.usage().await["bytes"], 0);
}

#[tokio::test]
async fn url_of_a_part_accepts_exactly_its_bytes() {
    let app = TestApp::start().await;
    if app.skip_unless_store_satisfies(&[super::store_rules::PART_CHECKSUM]).await {
        return;
    }
    let ada = app.user().await;
    let bytes = file();
    let ticket = ada.open(declaration(&bytes, "sha256")).await;
    let digest = |number: usize| sha256(&part(&bytes, number));
    let request = ada.part_url(ticket.id(), json!({ "partNumber": 3, "sha256": digest(3) })).await;
    assert_eq!(request["headers"], json!({ "x-amz-checksum-sha256": digest(3) }));
    let right = part(&bytes, 3);
    for length in [right.len() - 1, right.len() + 1, 0] {
        let mut wrong = right.clone();
        wrong.resize(length, 0);
        assert!(TestApp::is_signature_rejection(app.put(&request, wrong).await), "the length is signed");
    }
    let mut wrong = right.clone();
    wrong[7] ^= 1;
    assert_eq!(app.put(&request, wrong).await, 400, "other bytes of the same length");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut request = request.clone();
        change(&mut request);
        request
    };
    let replaced = |from: &'static str, to: &'static str| {
        changed(&|request| request["url"] = json!(request["url"].as_str().unwrap().replace(from, to)))
    };
    for request in [
        changed(&|request| drop(request["headers"].as_object_mut().unwrap().remove("x-amz-checksum-sha256"))),
        changed(&|request| request["headers"]["x-amz-checksum-sha256"] = json!(digest(1))),
        changed(&|request| request["method"] = json!("DELETE")),
        replaced("partNumber=3", "partNumber=2"),
        replaced("uploadId=", "uploadId=x"),
        replaced(&ticket.id().to_owned().leak()[30..], "000000"),
    ] {
        let status = app.put(&request, right.clone()).await;
        assert!(status == 404 || TestApp::is_signature_rejection(status), "{status} for {request}");
    }
    assert_eq!(ada.parts_of(ticket.id()).await, [0_u64; 0]);
    assert_eq!(app.put(&request, right).await, 200, "the right request still works");
    for number in [1, 2] {
        let request = ada.part_url(ticket.id(), json!({ "partNumber": number, "sha256": digest(number) })).await;
        assert_eq!(app.put(&request, part(&bytes, number)).await, 200);
    }
    let image = ada.confirm(ticket.id()).await;
    assert_eq!((image.status, &image.json["sha256"]), (200, &Value::Null), "{image:?}");
    let key = format!("u/{}/{}", ada.id, ticket.id());
    let head = app.s3.head_object().bucket(&app.config.s3.bucket).key(key);
    let head = head.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled).send().await.unwrap();
    if app.store_satisfies(&[super::store_rules::PARTS_SUMMED]).await {
        assert!(head.checksum_sha256().unwrap().ends_with("-3"), "S3 proved every part: {head:?}");
    }
}

#[tokio::test]
async fn content_of_multipart_uploads_is_inspected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let html = b"<!doctype html><script>alert(1)</script>".repeat(10);
    let ticket = ada.open(declaration(&html, "none")).await;
    ada.send_parts(ticket.id(), &html, &[1]).await;
    for _ in 0..2 {
        assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "content_mismatch"));
    }
    assert_eq!(ada.sign(ticket.id(), json!([{ "partNumber": 1 }])).await.problem(), (422, "content_mismatch"));
    assert_eq!(ada.get(&format!("/api/images/{}/parts", ticket.id())).await.problem(), (422, "content_mismatch"));
    app.sweep(after(Duration::ZERO)).await;
    assert!(app.bucket_keys().await.is_empty() && app.bucket_uploads().await.is_empty());
    assert_eq!(ada.usage().await["pending"], 0);
    app.sweep_after_url_expiry().await;
    assert_eq!(ada.usage().await["bytes"], 0);
}

#[tokio::test]
async fn same_bytes_in_parts_are_another_image() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let single = ada.upload("a.png", "image/png", &bytes).await;
    let mut ids = vec![single["id"].clone()];
    for _ in 0..2 {
        let ticket = ada.open(declaration(&bytes, "none")).await;
        ada.send_parts(ticket.id(), &bytes, &[1]).await;
        let image = ada.confirm(ticket.id()).await;
        assert_eq!(image.status, 200, "{image:?}");
        assert!(!ids.contains(&image.json["id"]));
        ids.push(image.json["id"].clone());
    }
    assert_eq!(
        ada.open_upload("a.png", "image/png", &bytes).await.json["image"]["id"],
        ids[0],
        "the single PUT's image is found for the same bytes"
    );
    assert_eq!(ada.usage().await["images"], 3);
}

#[tokio::test]
async fn renew_and_parts_reject_the_other_kind_of_upload() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let multipart = ada.open(declaration(&[0; 100], "none")).await;
    assert_eq!(ada.post_empty(&format!("/api/images/{}/renew", multipart.id())).await.problem(), (409, "not_single_part"));
    let single = ada.open_upload("a.png", "image/png", &unique_png()).await;
    assert_eq!(ada.sign(single.id(), json!([{ "partNumber": 1 }])).await.problem(), (409, "not_multipart"));
    assert_eq!(ada.get(&format!("/api/images/{}/parts", single.id())).await.problem(), (409, "not_multipart"));
    assert_eq!(ada.confirm(single.id()).await.problem(), (409, "object_missing"));
}

#[tokio::test]
async fn another_users_upload_is_not_found() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let bytes = unique_png();
    let ticket = ada.open(declaration(&bytes, "none")).await;
    ada.send_parts(ticket.id(), &bytes, &[1]).await;
    let unknown = uuid::Uuid::now_v7().to_string();
    for id in [ticket.id(), &unknown, "x"] {
        let path = |rest: &str| format!("/api/images/{id}{rest}");
        let answers = [
            bob.sign(id, json!([{ "partNumber": 1 }])).await,
            bob.sign(id, json!([])).await,
            bob.get(&path("/parts")).await,
            bob.confirm(id).await,
            bob.post_empty(&path("/renew")).await,
            bob.delete(&path("")).await,
        ];
        for answer in answers {
            assert_eq!(answer.problem(), (404, "not_found"), "{answer:?}");
        }
    }
    assert_eq!(bob.get("/api/images/pending").await.json["uploads"], json!([]));
    let anonymous = app.anonymous();
    assert_eq!(anonymous.post("/api/images/multipart", declaration(&bytes, "none")).await.status, 401);
    assert_eq!(anonymous.get(&format!("/api/images/{}/parts", ticket.id())).await.status, 401);
    assert_eq!(anonymous.sign(ticket.id(), json!([{ "partNumber": 1 }])).await.status, 401);
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
}
