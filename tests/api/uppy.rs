//! Covers Uppy's calls as `@uppy/aws-s3` makes them; the real packages run in tests/browser. This file covers forms, `parts`
//! multipart uploads, `signing` signatures for Uppy's own S3 client, `tokens` the token in the path, `quota` reservations of
//! undeclared sizes, and `races` uploads that change while their parts are counted. Other modules post
//! forms and wait for an image's state with the functions of this file.
//!
//! Routes: POST /api/uppy/session, GET /uppy/{token}/s3/params.

mod parts;
mod quota;
mod races;
mod signing;
mod tokens;

use std::time::Duration;

use mongodb::bson::{Document, doc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::app::{Answer, Caller, TestApp, fixture, skip_unless_local_s3, unique_png};

const MIB: u64 = 1 << 20;

/// Returns the time in this duration.
fn after(duration: Duration) -> OffsetDateTime {
    OffsetDateTime::now_utc() + duration
}

/// Time in which a form expires (an hour) and the grace period for its largest file ends.
const QUIET: Duration = Duration::from_secs(3600 + 2000);

impl Caller<'_> {
    /// Returns a token for the path of Uppy's calls.
    pub async fn uppy(&self) -> String {
        let session = self.post_empty("/api/uppy/session").await;
        assert_eq!(session.status, 200, "{session:?}");
        assert_eq!(session.json["path"], format!("/uppy/{}", session.json["token"].as_str().unwrap()));
        session.json["token"].as_str().unwrap().to_owned()
    }

    /// Requests a form as Uppy does, without additional headers.
    async fn form(&self, query: &str) -> Answer {
        let path = format!("/uppy/{}/s3/params?{query}", self.uppy().await);
        self.app.anonymous().get(&path).await
    }

    /// Sweeps at times when everything has expired, until this many bytes are counted: the server's own sweeper may have claimed a
    /// record.
    async fn until_used(&self, bytes: u64) {
        let began = std::time::Instant::now();
        while self.used().await["bytes"] != bytes {
            assert!(began.elapsed() < Duration::from_secs(30), "{}", self.used().await);
            self.app.sweep_to_the_end().await;
        }
    }

    /// Returns the user's usage.
    async fn used(&self) -> Value {
        self.get("/api/auth/me").await.json["usage"].clone()
    }
}

impl TestApp {
    /// Posts a form as a browser does, with the file last.
    pub async fn post_form(&self, form: &Value, bytes: &[u8]) -> StatusCode {
        let mut body = Vec::new();
        for (name, value) in form["fields"].as_object().unwrap() {
            let value = value.as_str().unwrap();
            body.extend(format!("--BB\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
        }
        body.extend(
            b"--BB\r\nContent-Disposition: form-data; name=\"file\"; filename=\"blob\"\r\nContent-Type: image/png\r\n\r\n",
        );
        body.extend_from_slice(bytes);
        body.extend(b"\r\n--BB--\r\n");
        let post = self.http.post(form["url"].as_str().unwrap()).header("content-type", "multipart/form-data; boundary=BB");
        post.body(body).send().await.unwrap().status()
    }

    /// Waits until the server has brought the image to this state by itself.
    pub async fn until_state(&self, id: &str, state: &str) {
        let began = std::time::Instant::now();
        while self.db_state(id).await != state || !self.is_settled(id).await {
            assert!(began.elapsed() < Duration::from_secs(30), "{} and not {state}, or not settled", self.db_state(id).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns whether the owner's counters match the image's state; they are updated in a separate step after the transition.
    async fn is_settled(&self, id: &str) -> bool {
        let Some(image) = self.db_image(id).await else { return true };
        let is_pending = image.get_str("state").unwrap() == "pending";
        let counted_in = image.get_document("reservation").ok().and_then(|reservation| reservation.get_str("place").ok());
        let counts_as_pending = counted_in == Some("pending");
        let under_way = doc! { "_id": image.get_str("user").unwrap(), "settling.image": id };
        is_pending == counts_as_pending && self.db.collection::<Document>("users").find_one(under_way).await.unwrap().is_none()
    }
}

/// Returns the image id in a form's key.
fn id_of(form: &Answer) -> String {
    let key = form.json["fields"]["key"].as_str().unwrap();
    key.rsplit('/').next().unwrap().to_owned()
}

/// Fetches the image's URL.
async fn read(app: &TestApp, image: &Value) -> Vec<u8> {
    app.http.get(image["url"].as_str().unwrap()).send().await.unwrap().bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn uploaded_form_is_confirmed_by_the_server_alone() {
    let app = TestApp::start_sweeping().await;
    let ada = app.user().await;
    // As Uppy writes it: all metadata, `+` for a space, "null" for null.
    let query = "filename=day+at+the+sea.png&type=image%2Fpng&metadata%5Bname%5D=day+at+the+sea.png&metadata%5BrelativePath%5D=null\
                 &metadata%5Bcaption%5D=Finally";
    let form = ada.form(query).await;
    assert_eq!(form.status, 200, "{form:?}");
    assert_eq!((form.json["method"].as_str(), form.json["expires"].as_u64()), (Some("POST"), Some(3600)));
    assert_eq!(form.header("cache-control"), "no-store");
    let id = id_of(&form);
    assert_eq!(
        ada.used().await,
        json!({ "bytes": 50 * MIB, "quotaBytes": 10_i64 << 30, "images": 0, "pending": 1 }),
        "the largest file"
    );
    let bytes = unique_png();
    // The file is late: the first poll finds nothing.
    assert_eq!(app.sweep(after(Duration::from_secs(3))).await.confirmed, 0);
    assert!(app.post_form(&form.json, &bytes).await.is_success());
    app.until_state(&id, "ready").await;
    let image = ada.get(&format!("/api/images/{id}")).await.json;
    assert_eq!(
        (image["fileName"].as_str(), image["caption"].as_str(), image["size"].as_u64()),
        (Some("day at the sea.png"), Some("Finally"), Some(bytes.len() as u64))
    );
    assert_eq!(read(&app, &image).await, bytes);
    assert!(image.get("sha256").is_none(), "no client confirmed it");
    assert_eq!(ada.get("/api/images/gallery").await.json["images"][0]["id"], id.as_str());
    assert!(app.db_key(&id).await.starts_with(&format!("u/{}/{id}-", ada.id)), "a key that no URL was signed for");
    let used = |bytes: u64| json!({ "bytes": bytes, "quotaBytes": 10_i64 << 30, "images": 1, "pending": 0 });
    assert_eq!(ada.used().await, used(50 * MIB), "the form can be sent again while it is valid");
    ada.until_used(bytes.len() as u64).await;
    app.audit().await;
}

/// Uppy sends no request after a form's file; a page that cannot wait confirms the upload by the id in the key.
#[tokio::test]
async fn i6_repeated_form_changes_no_image() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let form = ada.form("filename=a.png&type=image/png").await;
    let (id, bytes) = (id_of(&form), unique_png());
    assert_eq!(ada.confirm(&id).await.problem(), (409, "object_missing"));
    assert!(app.post_form(&form.json, &bytes).await.is_success());
    let image = ada.confirm(&id).await;
    assert_eq!(image.status, 200, "{image:?}");
    // The form is sent again with another image, and with an HTML file.
    for other in [unique_png(), b"<script>".to_vec()] {
        assert!(app.post_form(&form.json, &other).await.is_success(), "S3 accepts a form repeatedly");
        assert_eq!(ada.confirm(&id).await.json["size"], bytes.len());
        assert_eq!(read(&app, &image.json).await, bytes);
    }
    app.sweep(after(QUIET)).await;
    app.sweep(after(QUIET + Duration::from_secs(300))).await;
    assert_eq!(app.bucket_keys().await, [app.db_key(&id).await], "later objects are removed");
    app.audit().await;
}

#[tokio::test]
async fn form_accepts_only_what_its_policy_allows() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start_with(|config| config.uploads.max_bytes = 1000).await;
    let ada = app.user().await;
    let form = ada.form("filename=a.png&type=image/png").await.json;
    let form_with = |name: &str, value: &str| {
        let mut form = form.clone();
        form["fields"][name] = value.into();
        form
    };
    let bytes = fixture("plain.png");
    let other = format!("in/{}/{}", ada.id, uuid::Uuid::now_v7());
    for (name, value) in [
        ("key", other.as_str()),
        ("content-type", "text/html"),
        ("content-type", "image/jpeg"),
        ("x-amz-meta-a", "b"),
        ("acl", "public-read"),
        ("policy", "e30="),
        ("x-amz-signature", &"0".repeat(64)),
    ] {
        let status = app.post_form(&form_with(name, value), &bytes).await;
        // The signature covers the policy, and is verified first.
        assert_eq!(status, 403, "{name}: {value}");
    }
    assert_eq!(app.post_form(&form, &[0; 1001]).await, 400, "the file is too large");
    assert_eq!(app.post_form(&form, &[]).await, 400, "the file is empty");
    assert!(app.bucket_keys().await.is_empty());
    assert_eq!(app.post_form(&form, &bytes).await, 201);
    // With a declared size, one more byte is too many.
    let query = format!("filename=a.png&type=image/png&metadata[size]={}", bytes.len());
    let exact = ada.form(&query).await.json;
    assert_eq!(app.post_form(&exact, &[bytes.clone(), vec![0]].concat()).await, 400);
    assert_eq!(app.post_form(&exact, &bytes).await, 201);
}

#[tokio::test]
async fn form_expires() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start_with(|config| config.uploads.url_ttl = Duration::from_secs(1)).await;
    let form = app.user().await.form("filename=a.png&type=image/png").await;
    // The form is valid for a second; policies count whole seconds.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(app.post_form(&form.json, &unique_png()).await, 403);
}

#[tokio::test]
async fn file_that_is_not_an_image_is_rejected_and_not_counted() {
    let app = TestApp::start_sweeping().await;
    let ada = app.user().await;
    for bytes in [fixture("plain.jpg"), b"<svg/>".to_vec()] {
        let form = ada.form("filename=a.png&type=image/png").await;
        assert!(app.post_form(&form.json, &bytes).await.is_success());
        app.until_state(&id_of(&form), "rejected").await;
        assert_eq!(ada.confirm(&id_of(&form)).await.problem(), (422, "content_mismatch"));
    }
    assert_eq!((ada.used().await["bytes"].as_u64(), ada.used().await["pending"].as_u64()), (Some(100 * MIB), Some(0)));
    app.sweep_to_the_end().await;
    ada.until_used(0).await;
    app.audit().await;
}

/// The file is larger than declared, on a store that does not enforce the policy.
#[tokio::test]
async fn file_larger_than_its_bound_is_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let form = ada.form("filename=a.png&type=image/png&metadata[size]=10").await;
    app.bucket_put(form.json["fields"]["key"].as_str().unwrap(), "image/png", unique_png()).await;
    assert_eq!(ada.confirm(&id_of(&form)).await.problem(), (422, "object_mismatch"));
    assert_eq!((&ada.used().await["bytes"], &ada.used().await["pending"]), (&json!(10), &json!(0)), "the form is valid");
    ada.until_used(0).await;
}

#[tokio::test]
async fn unused_form_expires_with_its_reservation() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let form = ada.form("filename=a.png&type=image/png").await;
    let id = id_of(&form);
    for early in [5, 60, 600, 3600, 4000] {
        assert_eq!(app.sweep(after(Duration::from_secs(early))).await.expired, 0, "after {early} s");
        assert_eq!(app.db_state(&id).await, "pending");
    }
    let listed = ada.get("/api/images/pending").await.json["uploads"][0].clone();
    assert_eq!((listed["id"].as_str(), listed["kind"].as_str()), (Some(id.as_str()), Some("single")));
    assert_eq!(
        ada.post_empty(&format!("/api/images/{id}/renew")).await.problem(),
        (409, "not_single_part"),
        "a form cannot be renewed"
    );
    let mut expired = 0;
    for round in 0..3 {
        expired += app.sweep(after(QUIET + Duration::from_secs(400 * round))).await.expired;
    }
    assert_eq!(expired, 1);
    assert_eq!(ada.used().await["bytes"], 0);
    assert_eq!(ada.confirm(&id).await.problem(), (410, "upload_expired"));
    app.sweep_to_the_end().await;
    app.audit().await;
}

#[tokio::test]
async fn quota_is_enforced_and_uploaded_files_release_the_rest() {
    let app = TestApp::start_with(|config| {
        config.uploads.quota_bytes = 120 * MIB;
        config.uploads.max_pending = 4;
    })
    .await;
    let ada = app.user().await;
    let (first, second) = (ada.form("filename=a.png&type=image/png").await, ada.form("filename=b.png&type=image/png").await);
    let third = ada.form("filename=c.png&type=image/png").await;
    assert_eq!(third.problem(), (409, "quota_exceeded"));
    assert_eq!(third.json["message"], third.json["detail"], "`message` is the member that Uppy 5 shows");
    // A declared size reserves no more than that.
    assert_eq!(ada.form("filename=c.png&type=image/png&metadata[size]=1000").await.status, 200);
    for form in [&first, &second] {
        assert!(app.post_form(&form.json, &unique_png()).await.is_success());
    }
    let third = ada.form("filename=c.png&type=image/png").await;
    assert_eq!(third.problem(), (409, "quota_exceeded"), "a form can be sent again while it is valid");
    let usage = ada.used().await;
    assert_eq!((&usage["bytes"], &usage["images"], &usage["pending"]), (&json!(100 * MIB + 1000), &json!(2), &json!(1)));
    // An uploaded file releases the unused part of its reservation when its form has expired.
    ada.until_used(2 * unique_png().len() as u64).await;
    let third = ada.form("filename=c.png&type=image/png").await;
    assert_eq!(third.status, 200, "{third:?}");
    let usage = ada.used().await;
    assert!(usage["bytes"].as_u64().unwrap() < 51 * MIB && usage["images"] == 2, "{usage}");
    // The limit of open uploads applies too.
    for _ in 0..3 {
        assert_eq!(ada.form("filename=c.png&type=image/png&metadata[size]=1").await.status, 200);
    }
    assert_eq!(ada.form("filename=c.png&type=image/png&metadata[size]=1").await.problem(), (409, "too_many_pending"));
}

#[tokio::test]
async fn invalid_file_gets_no_form() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (query, status, code) in [
        ("type=image/png", 400, "invalid_request"),
        ("filename=&type=image/png", 422, "invalid_file_name"),
        ("filename=%00&type=image/png", 422, "invalid_file_name"),
        ("filename=a.svg&type=image/svg%2Bxml", 422, "type_not_allowed"),
        ("filename=a.png&type=text/html", 422, "type_not_allowed"),
        ("filename=a.exe", 422, "type_not_allowed"),
        ("filename=a.png&type=image/png&metadata[size]=0", 422, "invalid_size"),
        ("filename=a.png&type=image/png&metadata[size]=52428801", 422, "file_too_large"),
    ] {
        assert_eq!(ada.form(query).await.problem(), (status, code), "{query}");
    }
    let long = format!("filename=a.png&type=image/png&metadata[caption]={}", "x".repeat(1001));
    assert_eq!(ada.form(&long).await.problem(), (422, "invalid_caption"));
    assert_eq!(ada.used().await["pending"], 0);
    // Uppy does not know every type, and a page may put anything into the metadata.
    for query in
        ["filename=a.heic&type=", "filename=a.HEIC&type=application/octet-stream", "filename=a.heic", "filename=a.heic&type=null"]
    {
        let form = ada.form(query).await;
        assert_eq!(form.json["fields"]["content-type"], "image/heic", "{query}: {form:?}");
    }
    assert_eq!(ada.form("filename=a.png&type=image/png&metadata[size]=large&metadata[x]=1").await.status, 200);
}

#[tokio::test]
async fn deleting_images_and_accounts_removes_uppy_uploads() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (sent, open) = (ada.form("filename=a.png&type=image/png").await, ada.form("filename=b.png&type=image/png").await);
    assert!(app.post_form(&sent.json, &unique_png()).await.is_success());
    assert_eq!(ada.delete(&format!("/api/images/{}", id_of(&open))).await.status, 204);
    assert_eq!(ada.post("/api/auth/me/delete", json!({ "password": super::app::PASSWORD })).await.status, 204);
    let late = app.post_form(&open.json, &unique_png()).await;
    assert!(late.is_success(), "S3 has no record of the deletion");
    app.sweep_to_the_end().await;
    assert!(app.bucket_keys().await.is_empty());
    app.audit().await;
}
