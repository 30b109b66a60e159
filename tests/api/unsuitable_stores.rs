//! Covers a store that obeys unsigned headers, as Ceph RGW does: its URLs let no client read, copy or publish another user's
//! data, and calls that cannot be made safe are rejected.
//!
//! Routes: POST /api/images/upload, POST /api/images/multipart, POST /api/uppy/session.

mod header_obeying_store;
mod probe_outage;

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::{
    config::Finalize,
    domain::doctor::{self, Answer as Found, Options},
};

use self::header_obeying_store::{HeaderObeyingStore, Seals};
use super::{
    app::{Answer, Caller, TestApp, declaration, skip_unless_local_s3, unique_png},
    serve::Settings,
};

/// Problem of a call that cannot be made safe on this store.
const REFUSED: (u16, &str) = (409, "not_supported_by_store");
/// Unsigned headers with which RGW publishes an object.
const PUBLISH: [(&str, &str); 2] =
    [("x-amz-acl", "public-read"), ("x-amz-grant-read", "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"")];

/// Starts a server on the store itself and one behind the relay; `None` if the run's store is not the local one.
async fn start_servers(seals: Seals) -> Option<(TestApp, TestApp, HeaderObeyingStore)> {
    if skip_unless_local_s3() {
        return None;
    }
    let store = TestApp::start().await;
    let relay = HeaderObeyingStore::start(&store, seals).await;
    let app = start_behind(&store, &relay).await;
    Some((store, app, relay))
}

/// Starts a second server behind this relay, which probes the store itself.
async fn start_behind(store: &TestApp, relay: &HeaderObeyingStore) -> TestApp {
    at_endpoint(store, &relay.endpoint, Finalize::Auto).await
}

/// Starts a second server whose store is at this endpoint.
async fn at_endpoint(store: &TestApp, endpoint: &str, finalize: Finalize) -> TestApp {
    TestApp::start_second_server(store, |config| {
        config.s3.finalize = finalize;
        config.s3.endpoint = Some(endpoint.parse().unwrap());
        config.s3.public_endpoint = Some(endpoint.parse().unwrap());
    })
    .await
}

/// Returns this user as a caller of another server.
fn at<'a>(app: &'a TestApp, caller: &Caller<'_>) -> Caller<'a> {
    Caller { app, token: caller.token.clone(), id: caller.id.clone(), email: caller.email.clone(), address: None }
}

/// Sends a presigned PUT with one more header; returns the status.
async fn put_with(app: &TestApp, request: &Value, bytes: &[u8], header: (&str, &str)) -> u16 {
    let mut request = request.clone();
    request["headers"][header.0] = json!(header.1);
    app.put(&request, bytes.to_vec()).await.as_u16()
}

/// Fetches an object without a signature; returns the status.
async fn read_unsigned(app: &TestApp, url: &str) -> u16 {
    app.http.get(url.split('?').next().unwrap()).send().await.unwrap().status().as_u16()
}

/// Makes every call that would sign a request for bytes without a declared digest, or add such bytes to the gallery.
async fn make_undeclared_calls(ada: &Caller<'_>, opened: &Opened) -> Vec<(&'static str, Answer)> {
    let anonymous = ada.app.anonymous();
    let presign = async |body: Value| ada.post("/api/uppy/presign", body).await;
    let without_checksums = json!({ "fileName": "a.png", "contentType": "image/png", "size": 6 << 20 });
    let with_checksums = json!({ "fileName": "a.png", "contentType": "image/png", "size": 6 << 20, "partChecksums": "sha256" });
    let Opened { uppy_path, uppy_upload: (upload_id, upload_key), multipart, confirmable } = opened;
    let upload_path = format!("{uppy_path}/s3/multipart/{upload_id}");
    let key = format!("key={upload_key}");
    vec![
        ("multipart", ada.post("/api/images/multipart", without_checksums).await),
        ("multipart with checksums", ada.post("/api/images/multipart", with_checksums).await),
        ("parts", ada.post(&format!("/api/images/{multipart}/parts"), json!({ "parts": [{ "partNumber": 1 }] })).await),
        ("confirm", ada.confirm(confirmable).await),
        ("session", ada.post_empty("/api/uppy/session").await),
        ("presigned form", presign(json!({ "method": "PUT", "key": "a.png", "contentType": "image/png" })).await),
        ("presigned create", presign(json!({ "method": "POST", "key": "a.png", "contentType": "image/png" })).await),
        ("form", anonymous.get(&format!("{uppy_path}/s3/params?filename=a.png&type=image/png")).await),
        (
            "create",
            anonymous.post(&format!("{uppy_path}/s3/multipart"), json!({ "filename": "a.png", "type": "image/png" })).await,
        ),
        ("part", anonymous.get(&format!("{upload_path}/1?{key}")).await),
        ("parts of Uppy", anonymous.get(&format!("{upload_path}/batch?{key}&partNumbers=1")).await),
        (
            "complete",
            anonymous
                .post(&format!("{upload_path}/complete?{key}"), json!({ "parts": [{ "PartNumber": 1, "ETag": "x" }] }))
                .await,
        ),
    ]
}

/// Uploads that were opened before the server had probed the store.
struct Opened {
    /// Path of Uppy's calls.
    uppy_path: String,
    /// Id and object key of a multipart upload of Uppy.
    uppy_upload: (String, String),
    /// Id of a multipart upload.
    multipart: String,
    /// Id of an upload to confirm.
    confirmable: String,
}

impl Opened {
    /// Opens the uploads for this user.
    async fn by(ada: &Caller<'_>, anonymous: &Caller<'_>) -> Self {
        let uppy_path = ada.post_empty("/api/uppy/session").await.json["path"].as_str().unwrap().to_owned();
        let file = json!({ "filename": "a.png", "type": "image/png" });
        let uppy_upload = anonymous.post(&format!("{uppy_path}/s3/multipart"), file).await.json;
        let text = |name: &str| uppy_upload[name].as_str().unwrap().to_owned();
        let open = json!({ "fileName": "b.png", "contentType": "image/png", "size": 6 << 20 });
        let multipart = ada.post("/api/images/multipart", open).await.id().to_owned();
        Self { uppy_upload: (text("uploadId"), text("key")), uppy_path, confirmable: multipart.clone(), multipart }
    }
}

#[tokio::test]
async fn uploads_without_a_digest_are_rejected_and_puts_are_sealed() {
    let Some((store, app, relay)) = start_servers(Seals::Yes).await else { return };
    let ada = store.user().await;
    let opened = Opened::by(&ada, &store.anonymous()).await;
    for (call, answer) in make_undeclared_calls(&at(&app, &ada), &opened).await {
        assert_eq!(answer.problem(), REFUSED, "{call}");
    }

    // Uploads with a digest are possible: no header publishes them, or replaces their bytes by another user's.
    let (eve, bytes) = (app.user().await, unique_png());
    let victim = at(&app, &ada).upload("victim.png", "image/png", &bytes).await;
    let source = victim["url"].as_str().unwrap().split('?').next().unwrap().strip_prefix(&relay.endpoint).unwrap().to_owned();
    for header in PUBLISH.into_iter().chain([("x-amz-copy-source", source.as_str()), ("x-amz-tagging", "a=b")]) {
        let mine = unique_png();
        let ticket = eve.open_upload("a.png", "image/png", &mine).await;
        assert_eq!(put_with(&app, &ticket.json["upload"], &mine, header).await, 403, "{header:?}");
        assert_eq!(read_unsigned(&app, ticket.json["upload"]["url"].as_str().unwrap()).await, 403, "{header:?}");
        assert_eq!(app.put(&ticket.json["upload"], mine).await, 200, "the URL is valid");
        assert_eq!(eve.confirm(ticket.id()).await.status, 200);
    }

    let report = doctor::run(&app.config, Options::default()).await;
    println!("{report}");
    for name in ["upload: unsigned copy source refused", "upload: unsigned ACL without effect"] {
        assert!(matches!(report.answer(name), Some(Found::No(_))), "{name}");
    }
    let Some(Found::No(seen)) = report.answer("upload: unsigned copy source refused") else { unreachable!() };
    assert!(seen.contains("PUT") && seen.contains("part of any length"), "each kind: {seen}");
    assert!(matches!(report.answer("upload: sealed PUT refuses unsigned headers"), Some(Found::Yes(_))));
    assert!(!report.is_sound());
    assert!(app.bucket_keys().await.iter().all(|key| !key.starts_with("check/")), "no object of the check is left");
}

/// Parts that were copied from another user before the probe are not confirmed.
#[tokio::test]
async fn copied_part_is_not_confirmed() {
    let Some((store, app, relay)) = start_servers(Seals::Yes).await else { return };
    let (ada, eve) = (store.user().await, store.user().await);
    let victim = ada.upload("victim.png", "image/png", &unique_png()).await;
    let source = url::Url::parse(victim["url"].as_str().unwrap()).unwrap().path().to_owned();
    let opened = Opened::by(&eve, &store.anonymous()).await;
    let (id, key) = &opened.uppy_upload;
    let part = store.anonymous().get(&format!("{}/s3/multipart/{id}/1?key={key}", opened.uppy_path)).await;
    let (signed, origin) = (part.json["url"].as_str().unwrap(), store.config.s3.endpoint.as_deref().unwrap());
    // The first server signed for the store's own address, so the request has that address in its Host header.
    let copy_request =
        store.http.put(signed.replace(origin, &relay.endpoint)).header("host", origin.trim_start_matches("http://"));
    let copied = copy_request.header("x-amz-copy-source", &source).body("").send().await.unwrap();
    assert_eq!(copied.status(), 200);
    let complete = format!("{}/s3/multipart/{id}/complete?key={key}", opened.uppy_path);
    let listed = store.anonymous().get(&format!("{}/s3/multipart/{id}?key={key}", opened.uppy_path)).await.json;
    let parts = json!({ "parts": [{ "PartNumber": 1, "ETag": listed[0]["ETag"] }] });
    let answer = app.anonymous().post(&complete, parts).await;
    assert_eq!(answer.problem(), REFUSED);
    assert_eq!(at(&app, &eve).confirm(id).await.problem(), REFUSED);
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(60)).await;
    assert_eq!(at(&app, &eve).get("/api/images/gallery").await.json["images"], json!([]));
}

/// If the store does not ignore signed headers that are missing, PUTs cannot be sealed, and a PUT can publish its object: nothing
/// is signed until the bucket ignores ACLs.
#[tokio::test]
async fn without_sealed_puts_nothing_is_signed_until_acls_are_ignored() {
    let Some((store, app, relay)) = start_servers(Seals::No).await else { return };
    let ada = store.user().await;
    let bytes = unique_png();
    let open = ada.open_upload("a.png", "image/png", &bytes).await;
    let caller = at(&app, &ada);
    assert_eq!(caller.open_upload("b.png", "image/png", &unique_png()).await.problem(), REFUSED);
    assert_eq!(caller.post_empty(&format!("/api/images/{}/renew", open.id())).await.problem(), REFUSED);
    let items = json!({ "items": [declaration("c.png", "image/png", &unique_png())] });
    let batch = caller.post("/api/images/upload/batch", items).await;
    assert!(batch.text.contains("not_supported_by_store"), "{batch:?}");
    let report = doctor::run(&app.config, Options::default()).await;
    assert!(matches!(report.answer("upload: sealed PUT refuses unsigned headers"), Some(Found::No(_))), "{report}");

    let fixed = doctor::run(&app.config, Options { fix: true, loopback: false }).await;
    assert!(matches!(fixed.answer("upload: unsigned ACL without effect"), Some(Found::Yes(_))), "{fixed}");
    let later = start_behind(&store, &relay).await;
    let caller = at(&later, &ada);
    // A copy of another user's bytes does not match the declaration, and cannot be read.
    let victim = store.user().await.upload("victim.png", "image/png", &unique_png()).await;
    let source = url::Url::parse(victim["url"].as_str().unwrap()).unwrap().path().to_owned();
    let ticket = caller.open_upload("d.png", "image/png", &bytes).await;
    let mut request = ticket.json["upload"].clone();
    request["headers"]["x-amz-acl"] = json!("public-read");
    assert_eq!(put_with(&later, &request, &bytes, ("x-amz-copy-source", &source)).await, 200);
    assert_eq!(read_unsigned(&later, request["url"].as_str().unwrap()).await, 403);
    assert_eq!(caller.confirm(ticket.id()).await.problem(), (422, "object_mismatch"));
    caller.upload("e.png", "image/png", &unique_png()).await;
    assert_eq!(caller.post_empty("/api/uppy/session").await.problem(), REFUSED, "parts and forms are still rejected");
}

/// With `S3_FINALIZE=in-place`, a PUT with the upload's URL could replace a confirmed image by a copy of another one.
#[tokio::test]
async fn in_place_is_rejected_if_a_url_can_make_a_copy() {
    let Some((store, app, relay)) = start_servers(Seals::No).await else { return };
    doctor::run(&app.config, Options { fix: true, loopback: false }).await;
    let ada = store.user().await;
    let in_place = at_endpoint(&store, &relay.endpoint, Finalize::InPlace).await;
    assert_eq!(at(&in_place, &ada).open_upload("a.png", "image/png", &unique_png()).await.problem(), REFUSED);
    for finalize in [Finalize::Auto, Finalize::Copy] {
        let copying_server = at_endpoint(&store, &relay.endpoint, finalize).await;
        at(&copying_server, &ada).upload("b.png", "image/png", &unique_png()).await;
    }
}

/// Probed capabilities end when the store is replaced.
#[tokio::test]
async fn replaced_store_is_probed_again() {
    let Some((store, app, relay)) = start_servers(Seals::Yes).await else { return };
    let ada = at(&app, &store.user().await);
    assert_eq!(ada.post_empty("/api/uppy/session").await.problem(), REFUSED);
    relay.repair();
    let bytes = unique_png();
    let sealed = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(
        app.put(&sealed.json["upload"], bytes.clone()).await,
        403,
        "a store that verifies all signed headers rejects a sealed PUT"
    );
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(2 * 60 * 60)).await;
    ada.upload("b.png", "image/png", &unique_png()).await;
    assert_eq!(ada.post_empty("/api/uppy/session").await.status, 200);
}

#[tokio::test]
async fn serve_reports_an_unsuitable_store_in_one_line() {
    let Some((store, _app, relay)) = start_servers(Seals::Yes).await else { return };
    let settings = Settings::for_app(&store).with("S3_ENDPOINT", &relay.endpoint).with("S3_FINALIZE", "in-place");
    let (process, _client) = settings.start_listening().await;
    let lines = process
        .wait_for(|process| {
            let log = process.err();
            let lines: Vec<_> = log.lines().filter(|line| line.contains("not_supported_by_store")).map(str::to_owned).collect();
            (!lines.is_empty()).then_some(lines)
        })
        .await;
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "WARN", "{line}");
    assert!(line.to_string().contains("part of any length") && line.to_string().contains("Uppy"), "{line}");
}
