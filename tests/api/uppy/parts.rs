//! Covers Uppy's multipart uploads with Companion's protocol: any part size, resumption after any interruption, and files that
//! are not images.
//!
//! Routes: POST /uppy/{token}/s3/multipart, GET /uppy/{token}/s3/multipart/{uploadId}, DELETE
//! /uppy/{token}/s3/multipart/{uploadId}, GET /uppy/{token}/s3/multipart/{uploadId}/{partNumber}, GET
//! /uppy/{token}/s3/multipart/{uploadId}/batch, POST /uppy/{token}/s3/multipart/{uploadId}/complete.

use super::{Answer, Caller, Duration, MIB, StatusCode, TestApp, Value, after, json, unique_png};

/// Returns an image of three parts of 5 MiB, 5 MiB and a rest.
pub(super) fn file() -> Vec<u8> {
    let mut bytes = unique_png();
    bytes.resize(10 * MIB as usize + 4321, 7);
    bytes
}

/// Returns the bytes of a part; the numbers start at 1.
pub(super) fn chunk(bytes: &[u8], number: usize) -> Vec<u8> {
    bytes.chunks(5 * MIB as usize).nth(number - 1).unwrap().to_vec()
}

/// An open multipart upload, as Uppy's client knows it.
pub(super) struct Upload<'a> {
    app: &'a TestApp,
    pub(super) id: String,
    key: String,
    token: String,
}

impl Upload<'_> {
    /// Returns the path of a call about this upload.
    fn path(&self, rest: &str) -> String {
        format!("/uppy/{}/s3/multipart/{}{rest}?key={}", self.token, self.id, self.key.replace('/', "%2F"))
    }

    /// Lists the parts.
    async fn list(&self) -> Answer {
        self.app.anonymous().get(&self.path("")).await
    }

    /// Returns the numbers of the parts that the server lists.
    async fn numbers(&self) -> Vec<u64> {
        self.list().await.json.as_array().unwrap().iter().map(|part| part["PartNumber"].as_u64().unwrap()).collect()
    }

    /// Requests the URL of a part.
    async fn sign(&self, number: &str) -> Answer {
        self.app.anonymous().get(&self.path(&format!("/{number}"))).await
    }

    /// Sends a part as browsers do and returns its entity tag; without quotes for every second part, as Uppy mixes both forms.
    pub(super) async fn send(&self, number: usize, bytes: Vec<u8>) -> Value {
        let signed = self.sign(&number.to_string()).await;
        assert_eq!(
            (signed.status, signed.json["expires"].as_u64().map(|left| left > 890 && left <= 900)),
            (200, Some(true)),
            "{signed:?}"
        );
        let put = self.app.http.put(signed.json["url"].as_str().unwrap()).body(bytes).send().await.unwrap();
        assert_eq!(put.status(), 200);
        let etag = put.headers()["etag"].to_str().unwrap();
        json!({ "PartNumber": number, "ETag": if number.is_multiple_of(2) { etag.trim_matches('"') } else { etag } })
    }

    /// Completes the upload with these parts.
    pub(super) async fn complete(&self, parts: &[Value]) -> Answer {
        self.app.anonymous().post(&self.path("/complete"), json!({ "parts": parts })).await
    }

    /// Aborts the upload.
    pub(super) async fn abort(&self) -> Answer {
        self.app.anonymous().delete(&self.path("")).await
    }
}

impl<'a> Caller<'a> {
    /// Opens a multipart upload as Uppy does.
    pub(super) async fn open_for_uppy(&self, metadata: Value) -> Upload<'a> {
        let token = self.uppy().await;
        // `type` and `metadata` as Uppy 6 writes them.
        let body = json!({ "filename": "big.png", "type": "image/png", "metadata": metadata });
        let opened = self.app.anonymous().post(&format!("/uppy/{token}/s3/multipart"), body).await;
        assert_eq!(opened.status, 200, "{opened:?}");
        let text = |member: &str| opened.json[member].as_str().unwrap().to_owned();
        assert_eq!(text("key").rsplit('/').next(), Some(text("uploadId").as_str()));
        Upload { app: self.app, id: text("uploadId"), key: text("key"), token }
    }
}

#[tokio::test]
async fn parts_of_any_size_are_confirmed_when_complete() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = file();
    let meta = json!({ "name": "big.png", "relativePath": null, "nested": { "a": [1] }, "caption": "Wide", "size": bytes.len() });
    let upload = ada.open_for_uppy(meta).await;
    assert_eq!(ada.used().await["bytes"], bytes.len(), "exactly the declared size");
    let mut parts = Vec::new();
    for number in [2, 1, 3] {
        parts.push(upload.send(number, chunk(&bytes, number)).await);
    }
    let listed = upload.list().await;
    assert_eq!(listed.json[2]["Size"], 4321);
    assert_eq!(
        listed.json[0]["ETag"].as_str().map(|tag| tag.trim_matches('"')),
        parts[1]["ETag"].as_str().map(|tag| tag.trim_matches('"'))
    );
    let done = upload.complete(&parts).await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!((done.json["key"].as_str(), done.json["bucket"].as_str()), (Some(&*upload.key), Some(&*app.config.s3.bucket)));
    let image = ada.get(&format!("/api/images/{}", upload.id)).await.json;
    assert_eq!((image["caption"].as_str(), image["size"].as_u64()), (Some("Wide"), Some(bytes.len() as u64)));
    assert_eq!(app.http.get(done.json["location"].as_str().unwrap()).send().await.unwrap().bytes().await.unwrap(), bytes);
    assert_eq!(app.bucket_keys().await, std::slice::from_ref(&upload.key), "the object is not copied");
    // The answer was lost: complete again, and list the parts as a resuming client does.
    assert_eq!(upload.complete(&parts).await.json["key"], upload.key);
    assert_eq!(upload.numbers().await, [1, 2, 3]);
    assert_eq!(upload.sign("1").await.problem(), (409, "upload_complete"));
    assert_eq!(upload.abort().await.problem(), (409, "upload_complete"), "an image is deleted by its owner alone");
    assert_eq!(ada.used().await, json!({ "bytes": bytes.len(), "quotaBytes": 10_i64 << 30, "images": 1, "pending": 0 }));
    app.sweep_to_the_end().await;
    app.audit().await;
}

#[tokio::test]
async fn upload_continues_after_a_lost_connection() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (upload, bytes) = (ada.open_for_uppy(json!({})).await, file());
    assert_eq!(ada.used().await["bytes"], 640 * MIB, "a sixteenth of the quota");
    let listed = ada.get("/api/images/pending").await.json["uploads"][0].clone();
    assert_eq!((listed["kind"].as_str(), listed["size"].as_u64()), (Some("multipart"), Some(640 * MIB)));
    assert_eq!(upload.numbers().await, Vec::<u64>::new());
    let mut parts = vec![upload.send(1, chunk(&bytes, 1)).await, upload.send(3, chunk(&bytes, 3)).await];
    // A new session, as after a reload: the upload needs only its id and key.
    let upload = Upload { token: ada.uppy().await, ..upload };
    assert_eq!(upload.numbers().await, [1, 3]);
    let listed = upload.list().await;
    let all = [parts.clone(), vec![json!({ "PartNumber": 2, "ETag": "x" })]].concat();
    let early = upload.complete(&all).await;
    assert_eq!(early.problem(), (409, "parts_missing"));
    assert!(early.json["message"].as_str().unwrap().contains(": 2."), "{early:?}");
    // S3 has deleted the upload, as after a lifecycle rule: the client sends all parts again under the same id.
    let document = app.db_image(&upload.id).await.unwrap();
    let first_upload = document.get_str("uploadId").unwrap();
    app.s3.abort_multipart_upload().bucket(&app.config.s3.bucket).key(&upload.key).upload_id(first_upload).send().await.unwrap();
    assert_eq!(upload.complete(&parts).await.problem(), (409, "parts_missing"));
    assert_eq!(upload.numbers().await, Vec::<u64>::new());
    parts.clear();
    for number in 1..=3 {
        parts.push(upload.send(number, chunk(&bytes, number)).await);
    }
    // A part that was sent again has another tag: the old one is not a part of the file.
    let stale = [listed.json[0].clone(), parts[1].clone(), json!({ "PartNumber": 3, "ETag": "0".repeat(32) })];
    let stale = stale.map(|part| json!({ "PartNumber": part["PartNumber"], "ETag": part["ETag"] }));
    assert_eq!(upload.complete(&stale).await.problem(), (409, "parts_missing"));
    assert_eq!(upload.complete(&parts).await.status, 200);
    app.sweep_to_the_end().await;
    app.audit().await;
}

/// The server died after S3 had completed the upload: the next request finds the image.
#[tokio::test]
async fn completion_of_a_dead_server_is_finished() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for completes_again in [true, false] {
        let (upload, bytes) = (ada.open_for_uppy(json!({})).await, file());
        let part = upload.send(1, bytes.clone()).await;
        let document = app.db_image(&upload.id).await.unwrap();
        let completed = aws_sdk_s3::types::CompletedPart::builder().part_number(1).e_tag(part["ETag"].as_str().unwrap()).build();
        let parts = aws_sdk_s3::types::CompletedMultipartUpload::builder().parts(completed).build();
        let complete = app.s3.complete_multipart_upload().bucket(&app.config.s3.bucket).key(&upload.key);
        complete.upload_id(document.get_str("uploadId").unwrap()).multipart_upload(parts).send().await.unwrap();
        if completes_again {
            assert_eq!(upload.numbers().await, [1], "the part is known from the object");
            assert_eq!(upload.complete(&[part]).await.status, 200);
        } else {
            app.sweep(after(Duration::from_secs(30 * 24 * 3600))).await;
        }
        assert_eq!(app.db_state(&upload.id).await, "ready");
        assert_eq!(ada.get(&format!("/api/images/{}", upload.id)).await.json["size"], bytes.len());
    }
    app.sweep_to_the_end().await;
    app.audit().await;
}

#[tokio::test]
async fn abandoned_upload_releases_its_reservation() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (upload, bytes) = (ada.open_for_uppy(json!({})).await, file());
    upload.send(1, chunk(&bytes, 1)).await;
    for _ in 0..2 {
        let aborted = upload.abort().await;
        assert_eq!((aborted.status, aborted.text.as_str()), (200, "{}"), "Uppy 5 reads JSON");
    }
    assert_eq!(
        (ada.used().await["bytes"].as_u64(), ada.used().await["pending"].as_u64()),
        (Some(640 * MIB), Some(0)),
        "the parts' URLs are valid"
    );
    let open = app.s3.list_multipart_uploads().bucket(&app.config.s3.bucket).send().await.unwrap();
    assert!(open.uploads().is_empty(), "{open:?}");
    for answer in [upload.list().await, upload.sign("1").await, upload.complete(&[json!({ "PartNumber": 1, "ETag": "x" })]).await]
    {
        assert_eq!(answer.problem(), (404, "not_found"));
    }
    ada.until_used(0).await;
    // An abandoned upload expires.
    let abandoned = ada.open_for_uppy(json!({})).await;
    abandoned.send(1, chunk(&bytes, 1)).await;
    assert_eq!(app.sweep(after(Duration::from_secs(23 * 3600))).await.expired, 0);
    app.sweep(after(Duration::from_secs(25 * 3600))).await;
    assert_eq!(abandoned.list().await.problem(), (410, "upload_expired"));
    assert_eq!(ada.used().await["bytes"], 0);
    app.sweep_to_the_end().await;
    app.audit().await;
}

#[tokio::test]
async fn invalid_or_too_large_file_is_rejected_at_completion() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (metadata, bytes, code) in [
        (json!({ "size": 6 * MIB }), file(), "object_mismatch"),
        (json!({ "size": (6 * MIB).to_string() }), file(), "object_mismatch"),
        (json!({}), vec![b'x'; 6 * MIB as usize], "content_mismatch"),
    ] {
        let upload = ada.open_for_uppy(metadata).await;
        let part = upload.send(1, bytes).await;
        for _ in 0..2 {
            assert_eq!(upload.complete(std::slice::from_ref(&part)).await.problem(), (422, code));
        }
        assert_eq!(upload.list().await.problem(), (422, code));
    }
    assert_eq!(ada.used().await["pending"], 0);
    app.sweep_to_the_end().await;
    assert_eq!(ada.used().await["bytes"], 0);
    assert!(app.bucket_keys().await.is_empty());
    app.audit().await;
}

/// The problems name the members of Uppy's own request.
#[tokio::test]
async fn invalid_file_opens_no_upload() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let token = ada.uppy().await;
    for (filename, kind, metadata, code, field) in [
        (".", "image/png", json!({}), "invalid_file_name", "filename"),
        ("a.svg", "image/svg+xml", json!({}), "type_not_allowed", "type"),
        ("a.png", "image/png", json!({ "size": 0 }), "invalid_size", "metadata.size"),
        ("a.png", "image/png", json!({ "size": 6_i64 << 30 }), "file_too_large", "metadata.size"),
        ("a.png", "image/png", json!({ "caption": "x".repeat(1001) }), "invalid_caption", "metadata.caption"),
    ] {
        let body = json!({ "filename": filename, "type": kind, "metadata": metadata });
        let answer = app.anonymous().post(&format!("/uppy/{token}/s3/multipart"), body).await;
        assert_eq!((answer.problem(), answer.json["errors"][0]["field"].as_str()), ((422, code), Some(field)));
    }
    assert_eq!(ada.used().await["pending"], 0);
}

/// S3 assembles only parts of at least 5 MiB, except for the last one.
#[tokio::test]
async fn parts_below_the_minimum_size_are_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let upload = ada.open_for_uppy(json!({ "size": 2000 })).await;
    let parts = [upload.send(1, vec![7; 1000]).await, upload.send(2, vec![7; 1000]).await];
    assert_eq!(upload.complete(&parts).await.problem(), (422, "invalid_parts"));
}

#[tokio::test]
async fn c1_another_users_upload_is_answered_like_an_unknown_one() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let adas_upload = ada.open_for_uppy(json!({})).await;
    let part = adas_upload.send(1, chunk(&file(), 1)).await;
    let token = eve.uppy().await;
    let before = app.db_all("images").await;
    let foreign = Upload { app: &app, id: adas_upload.id.clone(), key: adas_upload.key.clone(), token: token.clone() };
    let unknown = Upload { app: &app, id: uuid::Uuid::now_v7().to_string(), key: adas_upload.key.clone(), token };
    // The owner cannot combine an upload with another key either.
    let other_key = Upload { app: &app, id: adas_upload.id.clone(), key: "u/x".to_owned(), token: adas_upload.token.clone() };
    for upload in [&foreign, &unknown, &other_key] {
        let answers = [
            upload.list().await,
            upload.sign("1").await,
            upload.sign("batch").await,
            upload.complete(std::slice::from_ref(&part)).await,
            upload.abort().await,
        ];
        for answer in answers {
            assert_eq!(answer.problem(), (404, "not_found"), "{answer:?}");
        }
    }
    assert_eq!(app.db_all("images").await, before);
    assert_eq!(adas_upload.numbers().await, [1]);
}

#[tokio::test]
async fn part_numbers_are_those_of_s3() {
    let app = TestApp::start().await;
    let upload = app.user().await.open_for_uppy(json!({})).await;
    for (number, problem) in [
        ("0", (422, "invalid_parts")),
        ("10001", (422, "invalid_parts")),
        ("-1", (422, "invalid_parts")),
        ("x", (404, "not_found")),
    ] {
        assert_eq!(upload.sign(number).await.problem(), problem, "{number}");
    }
    let batch = async |numbers: &str| app.anonymous().get(&format!("{}&partNumbers={numbers}", upload.path("/batch"))).await;
    let many = batch("1,2,10000").await;
    let urls = many.json["presignedUrls"].as_object().unwrap();
    assert_eq!(urls.keys().collect::<Vec<_>>(), ["1", "10000", "2"]);
    let put = app.http.put(urls["2"].as_str().unwrap()).body("a part").send().await.unwrap();
    assert_eq!((put.status(), upload.numbers().await), (StatusCode::OK, vec![2]));
    for numbers in ["", "1,x", "0", &vec!["1"; 1001].join(",")] {
        assert_eq!(batch(numbers).await.problem(), (422, "invalid_parts"), "{numbers}");
    }
    assert_eq!(upload.complete(&[]).await.problem(), (422, "invalid_parts"));
    for (part, code) in
        [(json!({ "PartNumber": 1, "ETag": "x" }), 409), (json!({ "PartNumber": 1 }), 400), (json!([1, "x"]), 400)]
    {
        assert_eq!(upload.complete(std::slice::from_ref(&part)).await.status, code, "{part}");
    }
    let parts = [1, 0, 10_001, -1, 1 << 32].map(|number: i64| json!({ "PartNumber": number, "ETag": "x" }));
    let answer = upload.complete(&parts).await;
    assert_eq!(answer.problem(), (422, "invalid_parts"), "a repeat cannot succeed with a number that S3 does not have");
    let fields: Vec<_> = answer.json["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
    assert_eq!(fields, ["parts[1].PartNumber", "parts[2].PartNumber", "parts[3].PartNumber", "parts[4].PartNumber"]);
    let unknown = json!({ "filename": "a.png", "type": "image/png", "metadata": {}, "canary": 1 });
    assert_eq!(app.anonymous().post(&format!("/uppy/{}/s3/multipart", upload.token), unknown).await.status, 400);
}

#[tokio::test]
async fn ten_thousand_parts_fit_into_a_completion() {
    let app = TestApp::start().await;
    let upload = app.user().await.open_for_uppy(json!({})).await;
    let part = |number: usize| json!({ "PartNumber": number, "ETag": format!("\"{}\"", "0".repeat(32)) });
    let all: Vec<_> = (1..=10_000).map(part).collect();
    let answer = upload.complete(&all).await;
    assert_eq!(answer.problem(), (409, "parts_missing"));
    let detail = answer.json["detail"].as_str().unwrap();
    assert!(detail.contains(": 1-10000.") && !detail.contains("/api/"), "Uppy calls no other operation: {detail}");
    assert_eq!(upload.complete(&(1..=10_001).map(part).collect::<Vec<_>>()).await.problem(), (422, "invalid_parts"));
}

/// The length of a part is not signed: parts above the reservation are removed, and the upload ends.
#[tokio::test]
async fn parts_above_the_reservation_end_the_upload() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    // The server finds the excess when it signs further URLs: at the seventeenth URL at the latest.
    let signing = ada.open_for_uppy(json!({ "size": 1 })).await;
    signing.send(1, vec![7; 6 * MIB as usize]).await;
    let mut signed = 0;
    let rejected = loop {
        let answer = signing.sign("2").await;
        if answer.status != 200 {
            break answer;
        }
        signed += 1;
        assert!(signed <= 16);
    };
    assert_eq!(rejected.problem(), (422, "object_mismatch"));
    // The sweeper finds the excess while the URLs are valid.
    let exceeding = ada.open_for_uppy(json!({ "size": 1 })).await;
    exceeding.send(1, vec![7; 6 * MIB as usize]).await;
    let fitting = ada.open_for_uppy(json!({ "size": 6 * MIB })).await;
    fitting.send(1, vec![7; 6 * MIB as usize]).await;
    assert_eq!(app.sweep(after(Duration::from_secs(61))).await.rejected, 1);
    assert_eq!(app.db_state(&exceeding.id).await, "rejected");
    assert_eq!(fitting.numbers().await, [1], "parts that fit stay");
    let open = app.s3.list_multipart_uploads().bucket(&app.config.s3.bucket).send().await.unwrap();
    assert_eq!(open.uploads().len(), 1, "{open:?}");
    // The sweeper checks again a minute later: the client that was within its reservation has sent more.
    fitting.send(2, vec![7; 1]).await;
    assert_eq!(app.sweep(after(Duration::from_secs(122))).await.rejected, 1);
    app.sweep_to_the_end().await;
    app.audit().await;
}
