//! Covers signatures for Uppy's own S3 client: it makes every S3 call itself, and none of them can change a confirmed image.
//!
//! Routes: POST /api/uppy/presign.

use super::{Answer, Caller, Duration, QUIET, TestApp, Value, after, fixture, json, read, unique_png};
use reqwest::{Method, Response};

/// Sends a signed request as a browser does.
async fn send_signed(app: &TestApp, method: Method, signed: &Value, body: impl Into<reqwest::Body>) -> Response {
    app.http.request(method, signed["url"].as_str().unwrap()).header("content-type", "image/png").body(body).send().await.unwrap()
}

/// Returns the text of an XML element.
fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{name} in {xml}"));
    rest.split_once('<').unwrap().0.to_owned()
}

/// Returns the body of a completion with one part.
fn completion(etag: &str) -> String {
    format!("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>")
}

impl Caller<'_> {
    /// Requests a signature as Uppy does.
    async fn presign(&self, body: Value) -> Answer {
        self.post("/api/uppy/presign", body).await
    }

    /// Opens an upload as Uppy does; returns the answer, the key and S3's upload id.
    async fn open_at_s3(&self) -> (Answer, String, String) {
        let key = format!("{}-wide.png", uuid::Uuid::new_v4());
        let signed = self.presign(json!({ "method": "POST", "key": key })).await;
        assert_eq!(signed.status, 200, "{signed:?}");
        let opened = send_signed(self.app, Method::POST, &signed.json, "").await;
        assert_eq!(opened.status(), 200);
        let upload_id = element(&opened.text().await.unwrap(), "UploadId");
        let key = signed.json["key"].as_str().unwrap().to_owned();
        (signed, key, upload_id)
    }

    /// Sends a part and completes the upload as Uppy's client does; returns the signed call of the completion.
    async fn fill(&self, key: &str, upload_id: &str, bytes: Vec<u8>) -> Value {
        let part = self.presign(json!({ "method": "PUT", "key": key, "uploadId": upload_id, "partNumber": 1 })).await;
        assert_eq!(part.status, 200, "{part:?}");
        let put = self.app.http.put(part.json["url"].as_str().unwrap()).body(bytes).send().await.unwrap();
        assert_eq!(put.status(), 200);
        let etag = put.headers()["etag"].to_str().unwrap().to_owned();
        let complete = self.presign(json!({ "method": "POST", "key": key, "uploadId": upload_id })).await;
        let done = send_signed(self.app, Method::POST, &complete.json, completion(&etag)).await;
        assert_eq!(done.status(), 200);
        complete.json
    }
}

#[tokio::test]
async fn single_put_request_gets_a_form() {
    let app = TestApp::start_sweeping().await;
    let ada = app.user().await;
    // The request of Uppy 6.3.
    let request = json!({ "method": "PUT", "key": format!("{}-sea.png", uuid::Uuid::new_v4()), "contentType": "image/png", "expiresIn": 900 });
    let form = ada.presign(request).await;
    assert_eq!(form.json["key"], form.json["fields"]["key"]);
    let bytes = unique_png();
    assert!(app.post_form(&form.json, &bytes).await.is_success());
    let id = form.json["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    app.until_state(&id, "ready").await;
    let image = ada.get(&format!("/api/images/{id}")).await.json;
    assert_eq!((image["fileName"].as_str(), image["size"].as_u64()), (Some("sea.png"), Some(bytes.len() as u64)));
    // Members that the page adds.
    let request =
        json!({ "method": "PUT", "key": "x", "fileName": "a.png", "size": 1000, "caption": "Mine", "contentType": "image/png" });
    assert_eq!(ada.presign(request).await.status, 200);
    let bound = app.config.uploads.max_bytes;
    assert_eq!(ada.used().await["bytes"], bound + 1000, "the first form can be sent again while it is valid");
    ada.until_used(bytes.len() as u64).await;
}

#[tokio::test]
async fn multipart_upload_becomes_an_image_that_no_url_can_change() {
    let app = TestApp::start_sweeping().await;
    let ada = app.user().await;
    let (opening, key, upload_id) = ada.open_at_s3().await;
    assert!(key.starts_with(&format!("in/{}/", ada.id)), "{key}");
    let list = ada.presign(json!({ "method": "GET", "key": key, "uploadId": upload_id })).await;
    assert!(send_signed(&app, Method::GET, &list.json, "").await.text().await.unwrap().contains("ListPartsResult"));
    let bytes = unique_png();
    ada.fill(&key, &upload_id, bytes.clone()).await;
    let id = key.rsplit('/').next().unwrap().to_owned();
    app.until_state(&id, "ready").await;
    let image = ada.get(&format!("/api/images/{id}")).await.json;
    assert_eq!((image["fileName"].as_str(), read(&app, &image).await), (Some("wide.png"), bytes.clone()));
    // The URL that opened the upload opens another one under the same key; the server signs no calls for the other one.
    let second_upload_id = element(&send_signed(&app, Method::POST, &opening.json, "").await.text().await.unwrap(), "UploadId");
    for call in [
        json!({ "method": "PUT", "key": key, "uploadId": second_upload_id, "partNumber": 1 }),
        json!({ "method": "POST", "key": key, "uploadId": second_upload_id }),
        json!({ "method": "DELETE", "key": key, "uploadId": second_upload_id }),
    ] {
        assert_eq!(ada.presign(call).await.problem(), (409, "upload_complete"));
    }
    app.bucket_put(&key, "image/png", fixture("animated.png")).await;
    assert_eq!(read(&app, &image).await, bytes);
    ada.until_used(bytes.len() as u64).await;
    assert_eq!(app.bucket_keys().await.len(), 1);
    app.audit().await;
}

#[tokio::test]
async fn abandoned_upload_releases_its_reservation() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (_, key, upload_id) = ada.open_at_s3().await;
    let abort = ada.presign(json!({ "method": "DELETE", "key": key, "uploadId": upload_id })).await;
    assert_eq!(abort.status, 200, "{abort:?}");
    assert_eq!(ada.used().await["pending"], 0);
    // The browser makes this call itself; the sweeper may have aborted the upload before.
    assert!(matches!(send_signed(&app, Method::DELETE, &abort.json, "").await.status().as_u16(), 204 | 404));
    // The client abandons an upload after it has opened it.
    ada.open_at_s3().await;
    app.sweep_to_the_end().await;
    app.audit().await;
}

#[tokio::test]
async fn c1_another_users_upload_is_answered_like_an_unknown_one() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let (_, key, upload_id) = ada.open_at_s3().await;
    let form = ada.form("filename=a.png&type=image/png").await.json["fields"]["key"].as_str().unwrap().to_owned();
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let image = app.db_key(image["id"].as_str().unwrap()).await;
    let unknown = format!("in/{}/{}", ada.id, uuid::Uuid::now_v7());
    let calls = |key: &str| {
        [
            json!({ "method": "PUT", "key": key, "uploadId": upload_id, "partNumber": 1 }),
            json!({ "method": "GET", "key": key, "uploadId": upload_id }),
            json!({ "method": "POST", "key": key, "uploadId": upload_id }),
            json!({ "method": "DELETE", "key": key, "uploadId": upload_id }),
        ]
    };
    let before = app.db_all("images").await.len();
    for key in [key.as_str(), form.as_str(), image.as_str(), unknown.as_str(), "x", ""] {
        for call in calls(key) {
            assert_eq!(eve.presign(call.clone()).await.problem(), (404, "not_found"), "{call}");
        }
    }
    // For the owner, too, the server signs only calls of multipart uploads.
    for key in [form.as_str(), image.as_str(), unknown.as_str()] {
        for call in calls(key) {
            assert_eq!(ada.presign(call.clone()).await.problem(), (404, "not_found"), "{call}");
        }
    }
    assert_eq!(app.db_all("images").await.len(), before, "nothing was opened");
    let document = app.db_image(key.rsplit('/').next().unwrap()).await.unwrap();
    assert!(!document.contains_key("uploadId"), "not recorded: {document}");
    assert_eq!(app.db_state(key.rsplit('/').next().unwrap()).await, "pending");
}

#[tokio::test]
async fn requests_outside_an_upload_are_not_signed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (body, status, code) in [
        (json!({ "method": "DELETE", "key": "a.png" }), 422, "invalid_uppy_request"),
        (json!({ "method": "GET", "key": "a.png" }), 422, "invalid_uppy_request"),
        (json!({ "method": "PUT", "key": "a.png", "uploadId": "x" }), 422, "invalid_uppy_request"),
        (json!({ "method": "PUT", "key": "a.png", "partNumber": 1 }), 422, "invalid_uppy_request"),
        (json!({ "method": "POST", "key": "a.png", "uploadId": "x", "partNumber": 1 }), 422, "invalid_uppy_request"),
        (json!({ "method": "HEAD", "key": "a.png" }), 400, "invalid_request"),
        (json!({ "method": "PUT" }), 400, "invalid_request"),
        (json!({ "method": "PUT", "key": "a.png", "canary": 1 }), 400, "invalid_request"),
        (json!({ "method": "PUT", "key": "a.svg", "contentType": "image/svg+xml" }), 422, "type_not_allowed"),
        (json!({ "method": "POST", "key": "a.txt" }), 422, "type_not_allowed"),
        (json!({ "method": "POST", "key": "a.png", "size": 6_i64 << 30 }), 422, "file_too_large"),
        (json!({ "method": "PUT", "key": "a.png", "size": 51 << 20 }), 422, "file_too_large"),
    ] {
        assert_eq!(ada.presign(body.clone()).await.problem(), (status, code), "{body}");
    }
    let (_, key, upload_id) = ada.open_at_s3().await;
    let part = json!({ "method": "PUT", "key": key, "uploadId": upload_id, "partNumber": 10_001 });
    assert_eq!(ada.presign(part).await.problem(), (422, "invalid_parts"));
    assert_eq!(ada.used().await["pending"], 1);
    // A URL's lifetime is at most the requested one.
    let short = json!({ "method": "GET", "key": key, "uploadId": upload_id, "expiresIn": 7 });
    assert!(ada.presign(short).await.json["url"].as_str().unwrap().contains("X-Amz-Expires=7&"));
}

/// An upload id that S3 did not issue is not signed or stored: aborting it would not abort the real upload.
#[tokio::test]
async fn upload_unknown_to_s3_is_not_found() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let signed = ada.presign(json!({ "method": "POST", "key": "a.png" })).await;
    let key = signed.json["key"].as_str().unwrap().to_owned();
    for unknown in [
        "garbage",
        "../../x?y#z%00",
        "\u{0}",
        "a\nb",
        &"ü".repeat(500),
        &"x".repeat(1024),
        "' \" <>",
        "00000000-0000-0000-0000-000000000000",
    ] {
        for (method, number) in [("PUT", json!(1)), ("GET", Value::Null), ("POST", Value::Null)] {
            let mut call = json!({ "method": method, "key": key, "uploadId": unknown });
            if !number.is_null() {
                call["partNumber"] = number;
            }
            assert_eq!(ada.presign(call).await.problem(), (404, "not_found"), "{unknown:?}");
        }
    }
    let id = key.rsplit('/').next().unwrap();
    assert!(!app.db_image(id).await.unwrap().contains_key("uploadId"));
    assert_eq!(app.db_state(id).await, "pending");
}

/// Each use of the URL that opens an upload opens another one: their parts are summed, and a delete removes all of them.
#[tokio::test]
async fn parts_of_every_upload_of_a_key_are_summed_and_removed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let open = ada.presign(json!({ "method": "POST", "key": "a.png", "size": 10 << 20 })).await;
    let key = open.json["key"].as_str().unwrap().to_owned();
    let mut rejected = 0;
    for _ in 0..4 {
        let upload_id = element(&send_signed(&app, Method::POST, &open.json, "").await.text().await.unwrap(), "UploadId");
        let part = ada.presign(json!({ "method": "PUT", "key": key, "uploadId": upload_id, "partNumber": 1 })).await;
        if part.status == 200 {
            let put = app.http.put(part.json["url"].as_str().unwrap()).body(vec![7; 5 << 20]).send().await.unwrap();
            assert_eq!(put.status(), 200);
        } else {
            rejected += 1;
        }
    }
    // The parts are summed when a URL is signed, and in the sweep: the first that finds them too large rejects the upload.
    assert_eq!(app.sweep(after(Duration::from_secs(61))).await.rejected, 1 - rejected.min(1));
    let id = key.rsplit('/').next().unwrap();
    assert_eq!(app.db_state(id).await, "rejected");
    app.sweep_to_the_end().await;
    let open_uploads = app.s3.list_multipart_uploads().bucket(&app.config.s3.bucket).send().await.unwrap();
    assert!(open_uploads.uploads().is_empty(), "{open_uploads:?}");
    app.audit().await;
}

/// The key has more uploads than a page of S3's listing, and more than one sweep aborts.
#[tokio::test]
async fn thousands_of_uploads_of_one_key_are_removed() {
    if crate::store_rules::skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (_, key, _) = ada.open_at_s3().await;
    let create = || async { app.s3.create_multipart_upload().bucket(&app.config.s3.bucket).key(&key).send().await.unwrap() };
    for _ in 0..21 {
        futures_util::future::join_all((0..100).map(|_| create())).await;
    }
    let id = key.rsplit('/').next().unwrap();
    assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    for round in 1..=4 {
        app.sweep(after(QUIET * 10 + Duration::from_secs(round * 300))).await;
    }
    assert_eq!(app.db_state(id).await, "gone");
    let open_uploads = app.s3.list_multipart_uploads().bucket(&app.config.s3.bucket).send().await.unwrap();
    assert!(open_uploads.uploads().is_empty(), "{}", open_uploads.uploads().len());
}
