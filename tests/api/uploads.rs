//! Covers POST /api/images/upload: signed headers, quota, duplicate bytes, renewal, and the list of open uploads.
//!
//! Routes: POST /api/images/upload, POST /api/images/{id}/renew, GET /api/images/pending.

use std::time::Duration;

use futures_util::{TryStreamExt, future::join_all};
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use valet::model::cors::BUCKET_REQUEST_HEADERS;

use super::{
    app::{Caller, TestApp, declaration, fixture, sha256, unique_png},
    store_rules::{CHECKSUM, COPY_SOURCE},
    targeting,
};

#[tokio::test]
async fn file_becomes_an_image_in_the_gallery() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = fixture("orientation-6.jpg");
    let mut body = declaration("beach.jpg", "image/jpeg", &bytes);
    body["caption"] = json!("$sea, finally");
    let ticket = ada.post("/api/images/upload", body).await;
    assert_eq!((ticket.status, ticket.json["state"].as_str()), (201, Some("pending")));
    assert!(ticket.json["image"].is_null());
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, app.second_put_status().await, "U6: once");
    let image = ada.confirm(ticket.id()).await;
    assert_eq!(image.status, 200, "{image:?}");
    let expected = json!({ "id": ticket.id(), "fileName": "beach.jpg", "contentType": "image/jpeg", "size": bytes.len(),
        "sha256": sha256(&bytes), "width": 80, "height": 120, "caption": "$sea, finally" });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&image.json[member], value, "{member}");
    }
    let read = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(read.status(), 200);
    assert_eq!(read.headers()["content-type"], "image/jpeg");
    assert_eq!(read.headers()["cache-control"], "private, max-age=604800, immutable", "the lifetime of the URL");
    assert_eq!(read.bytes().await.unwrap(), bytes);
    let gallery = ada.get("/api/images/gallery").await;
    assert_eq!(gallery.json["images"], json!([image.json]));
    assert_eq!(ada.get(&format!("/api/images/{}", ticket.id())).await.json, image.json, "the same URL within a window");
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], bytes.len());
    // If uploads are copied at confirm, removes the object that was copied.
    app.sweep(time::OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
    let key = app.db_key(ticket.id()).await;
    assert_eq!(app.bucket_keys().await, [key.as_str()]);
    assert!(key.starts_with(&format!("u/{}/{}", ada.id, ticket.id())), "U1: no byte of the caller in the key: {key}");
}

#[tokio::test]
async fn u2_u14_signature_covers_type_length_digest_and_if_none_match() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "IMAGE/PNG", &bytes).await;
    let upload = &ticket.json["upload"];
    let url = upload["url"].as_str().unwrap();
    assert!(
        url.contains("X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost%3Bif-none-match%3Bx-amz-checksum-sha256"),
        "{url}"
    );
    assert_eq!(
        upload["headers"],
        json!({ "content-type": "image/png", "if-none-match": "*", "x-amz-checksum-sha256": sha256(&bytes) })
    );
    let sent = upload["headers"].as_object().unwrap();
    assert!(sent.keys().all(|name| BUCKET_REQUEST_HEADERS.contains(&name.as_str())), "CORS of the bucket allows them: {sent:?}");
    assert_eq!(upload["expiresIn"], 3600);
    assert_eq!(ticket.header("cache-control"), "no-store", "U14");
}

/// Returns requests that differ from this presigned PUT in one header, the method or the URL.
fn deviating_requests(upload: &Value, owner: &str) -> Vec<Value> {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut request = upload.clone();
        change(&mut request);
        request
    };
    let header = |name: &'static str, value: Option<&'static str>| {
        changed(&|request| match value {
            Some(value) => request["headers"][name] = json!(value),
            None => drop(request["headers"].as_object_mut().unwrap().remove(name)),
        })
    };
    let url =
        |from: &str, to: &str| changed(&|request| request["url"] = json!(request["url"].as_str().unwrap().replace(from, to)));
    let mut requests = vec![
        header("content-type", Some("text/html")),
        header("content-type", None),
        header("if-none-match", None),
        header("if-none-match", Some("\"x\"")),
        header("x-amz-checksum-sha256", None),
        changed(&|request| request["headers"]["x-amz-checksum-sha256"] = json!(sha256(b"other"))),
        header("x-amz-acl", Some("public-read")),
        header("x-amz-tagging", Some("a=b")),
        header("x-amz-meta-a", Some("b")),
        header("x-amz-storage-class", Some("GLACIER")),
        header("x-amz-website-redirect-location", Some("/evil")),
        changed(&|request| request["method"] = json!("DELETE")),
        changed(&|request| request["method"] = json!("POST")),
        url(owner, "other"),
        url("X-Amz-Expires=3600", "X-Amz-Expires=36000"),
        url("X-Amz-Signature=", "X-Amz-Signature=0"),
    ];
    if super::app::s3_is_local() {
        // LocalStack looks for the source of the copy before it verifies the signature.
        requests.push(header("x-amz-copy-source", Some("bucket/key")));
    }
    requests
}

#[tokio::test]
async fn u3_u4_u5_u8_deviating_puts_are_rejected_and_nothing_is_stored() {
    let app = TestApp::start().await;
    if app.skip_unless_store_satisfies(&[COPY_SOURCE, CHECKSUM]).await {
        return;
    }
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    let upload = ticket.json["upload"].clone();
    for request in deviating_requests(&upload, &ada.id) {
        let status = app.put(&request, bytes.clone()).await.as_u16();
        assert!((400..500).contains(&status), "{status} for {request}");
    }
    let mut wrong = bytes.clone();
    wrong[40] ^= 1;
    assert_eq!(app.put(&upload, wrong).await, 400, "U4: other bytes of the same length");
    for length in [bytes.len() - 1, bytes.len() + 1] {
        let mut body = bytes.clone();
        body.resize(length, 0);
        assert!(TestApp::is_signature_rejection(app.put(&upload, body).await), "the length is signed");
    }
    let url = upload["url"].as_str().unwrap();
    assert!(TestApp::is_signature_rejection(app.http.get(url).send().await.unwrap().status()), "U8: a PUT URL cannot read");
    assert_eq!(app.bucket_keys().await, Vec::<String>::new());
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (409, "object_missing"));
    assert_eq!(app.put(&upload, bytes).await, 200, "a request without a deviation succeeds");
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
}

#[tokio::test]
async fn u9_u10_u12_u13_invalid_uploads_are_rejected_with_the_field() {
    let app = TestApp::start_with(|config| config.uploads.max_bytes = 1000).await;
    let ada = app.user().await;
    let good = json!({ "fileName": "a.png", "contentType": "image/png", "size": 10, "sha256": sha256(b"x") });
    let problem_with = async |member: &str, value: Value| {
        let mut body = good.clone();
        body[member] = value;
        let answer = ada.post("/api/images/upload", body).await;
        let field = answer.json["errors"][0]["field"].as_str().unwrap_or_default().to_owned();
        (answer.status, answer.code().to_owned(), field)
    };
    let cases = [
        (
            "contentType",
            "type_not_allowed",
            vec![json!("image/svg+xml"), json!("text/html"), json!("image/png; a=b"), json!("image/png,text/html"), json!("")],
        ),
        ("size", "invalid_size", vec![json!(0), json!(-1), json!(-9e30)]),
        ("size", "file_too_large", vec![json!(1001), json!(9_223_372_036_854_775_808_u64), json!(1e30)]),
        ("sha256", "invalid_sha256", vec![json!(""), json!("e3b0c442"), json!("A".repeat(43))]),
        ("fileName", "invalid_file_name", vec![json!(""), json!(".."), json!("photos/"), json!("\u{0}"), json!("\u{202e}")]),
        ("caption", "invalid_caption", vec![json!("x".repeat(1001))]),
    ];
    for (member, code, values) in cases {
        for value in values {
            assert_eq!(problem_with(member, value.clone()).await, (422, code.to_owned(), member.to_owned()), "{member}: {value}");
        }
    }
    for value in [json!(1.5), json!("1"), Value::Null, json!({ "$gt": 0 })] {
        assert_eq!(problem_with("size", value).await.0, 400);
    }
    let all = ada.post("/api/images/upload", json!({ "fileName": "", "contentType": "x", "size": 0, "sha256": "" })).await;
    assert_eq!(all.json["errors"].as_array().unwrap().len(), 4, "one answer names all four: {all:?}");
    for server_field in ["state", "user", "key", "width"] {
        assert_eq!(problem_with(server_field, json!("x")).await.0, 400, "U12: {server_field}");
    }
    assert_eq!(app.db.collection::<Document>("images").count_documents(doc! {}).await.unwrap(), 0);
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["pending"], 0);
}

#[tokio::test]
async fn u7_expired_url_is_rejected_and_can_be_renewed() {
    let app = TestApp::start_with(|config| config.uploads.url_ttl = Duration::from_secs(4)).await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    // The URL is valid for four seconds; S3 counts whole seconds.
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert!(TestApp::is_signature_rejection(app.put(&ticket.json["upload"], bytes.clone()).await));
    let before = app.db_image(ticket.id()).await.unwrap();
    // On a server whose URLs live long enough for a busy machine to use them.
    let second_server = TestApp::start_second_server(&app, |_| {}).await;
    let ada_on_second_server = Caller { app: &second_server, ..ada.clone() };
    let renewed = ada_on_second_server.post_empty(&format!("/api/images/{}/renew", ticket.id())).await;
    assert_eq!((renewed.status, renewed.id(), renewed.json["state"].as_str()), (200, ticket.id(), Some("pending")));
    assert_eq!(renewed.json["expiresAt"], ticket.json["expiresAt"], "the upload's end is not the URL's");
    assert!(
        app.db_image(ticket.id()).await.unwrap().get_datetime("urlsDieAt").unwrap() > before.get_datetime("urlsDieAt").unwrap()
    );
    assert_eq!(app.put(&renewed.json["upload"], bytes).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    let ready = ada.post_empty(&format!("/api/images/{}/renew", ticket.id())).await;
    assert_eq!(
        (ready.status, ready.json["state"].as_str(), ready.json["image"]["id"].as_str()),
        (200, Some("ready"), Some(ticket.id()))
    );
    assert!(ready.json["upload"].is_null() && ready.json["expiresAt"].is_null());
}

/// Another device declares the bytes of an upload that has expired, while a URL of the upload is still valid: the upload
/// continues.
#[tokio::test]
async fn expired_upload_with_a_valid_url_is_prolonged() {
    let app = TestApp::start_with(|config| config.uploads.ttl = Duration::from_secs(3)).await;
    let ada = app.user().await;
    let bytes = unique_png();
    let first = ada.open_upload("a.png", "image/png", &bytes).await;
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert_eq!(ada.post_empty(&format!("/api/images/{}/renew", first.id())).await.problem(), (410, "upload_expired"));
    let second = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!((second.status, second.id()), (200, first.id()));
    assert!(second.json["expiresAt"].as_str() > first.json["expiresAt"].as_str());
    assert_eq!(app.put(&first.json["upload"], bytes).await, 200, "the first device's URL");
    assert_eq!(ada.confirm(first.id()).await.status, 200);
    app.audit().await;
}

#[tokio::test]
async fn same_bytes_are_uploaded_once() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let bytes = unique_png();
    let first = ada.open_upload("first.png", "image/png", &bytes).await;
    let again = ada.open_upload("again.png", "image/png", &bytes).await;
    assert_eq!((again.status, again.id(), again.json["state"].as_str()), (200, first.id(), Some("pending")));
    assert_eq!(app.put(&again.json["upload"], bytes.clone()).await, 200);
    assert_eq!(ada.confirm(first.id()).await.json["fileName"], "again.png", "the later name counts while nothing is served");
    let ready = ada.open_upload("third.png", "image/png", &bytes).await;
    assert_eq!(
        (ready.status, ready.json["state"].as_str(), ready.json["image"]["id"].as_str()),
        (200, Some("ready"), Some(first.id()))
    );
    assert_eq!(ready.json["image"]["fileName"], "again.png", "an image stays as it is");
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!(
        (&usage["bytes"], &usage["images"], &usage["pending"]),
        (&json!(bytes.len()), &json!(1), &json!(0)),
        "the bytes are counted once"
    );
    let other = bob.open_upload("first.png", "image/png", &bytes).await;
    assert_eq!(other.status, 201, "another user's bytes are another upload");
    assert_ne!(other.id(), first.id());
    assert_eq!(ada.delete(&format!("/api/images/{}", first.id())).await.status, 204);
    let fresh = ada.open_upload("fresh.png", "image/png", &bytes).await;
    assert_eq!(fresh.status, 201, "deleted bytes can be uploaded again");
    assert_ne!(fresh.id(), first.id());
}

/// Known bytes reserve nothing: a repeat for an image takes only reads, one for an open upload reads and the update that renews
/// its URL. This is so on the server that opened the uploads, and on one that has nothing of the user in its caches.
#[tokio::test]
async fn upload_of_known_bytes_takes_reads_and_a_renewal() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (ready, open) = (unique_png(), unique_png());
    ada.upload("a.png", "image/png", &ready).await;
    assert_eq!(ada.open_upload("b.png", "image/png", &open).await.status, 201);
    // If uploads are copied at confirm, the next sweep removes the object that was copied.
    app.sweep(time::OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
    let second_server = TestApp::start_second_server(&app, |_| {}).await;
    targeting::record_all(&app.db).await;
    let writes = async || {
        let profile = app.db.client().database(app.db.name()).collection::<Document>("system.profile");
        // The sweepers' commands at the start of a server name no user.
        let fields = ["q.user", "q._id", "query.user", "query._id"].map(|field| format!("command.{field}"));
        let mut user_filters: Vec<_> = fields.iter().map(|field| doc! { field: &ada.id }).collect();
        user_filters.push(doc! { "op": "insert" });
        let filter = doc! { "appName": "valet", "$or": user_filters };
        let found: Vec<Document> = profile.find(filter).await.unwrap().try_collect().await.unwrap();
        let operation_and_namespace =
            |command: &Document| (command.get_str("op").unwrap().to_owned(), command.get_str("ns").unwrap().to_owned());
        found
            .iter()
            .map(operation_and_namespace)
            .filter(|(_, ns)| ns.ends_with(".images") || ns.ends_with(".users"))
            .collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for server in [&app, &second_server] {
        let ada = Caller { app: server, ..ada.clone() };
        let repeated = ada.open_upload("a.png", "image/png", &ready).await;
        assert_eq!((repeated.status, repeated.json["state"].as_str()), (200, Some("ready")));
        assert_eq!(writes().await, expected, "the same image");
        let repeated = ada.open_upload("b.png", "image/png", &open).await;
        assert_eq!((repeated.status, repeated.json["state"].as_str()), (200, Some("pending")));
        expected.push(("update".to_owned(), format!("{}.images", app.db.name())));
        assert_eq!(writes().await, expected, "a repeat for an open upload takes one update");
    }
    app.audit().await;
}

#[tokio::test]
async fn concurrent_uploads_of_the_same_bytes_end_as_one() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let answers = join_all((0..30).map(|_| ada.open_upload("a.png", "image/png", &bytes))).await;
    assert!(answers.iter().all(|answer| answer.id() == answers[0].id()), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["bytes"], &usage["pending"]), (&json!(bytes.len()), &json!(1)));
}

#[tokio::test]
async fn u10_fifty_requests_at_the_limit_open_exactly_as_many_uploads_as_fit() {
    let app = TestApp::start_with(|config| config.uploads.quota_bytes = 1000).await;
    let ada = app.user().await;
    let open_upload = |n: usize| {
        let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": 300, "sha256": sha256(&n.to_be_bytes()) });
        let ada = &ada;
        async move { ada.post("/api/images/upload", body).await }
    };
    let answers = join_all((0..50).map(open_upload)).await;
    let opened: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(opened.len(), 3, "3 × 300 of 1000 bytes");
    assert!(answers.iter().all(|answer| answer.status == 201 || answer.problem() == (409, "quota_exceeded")));
    let usage = async || ada.get("/api/auth/me").await.json["usage"].clone();
    assert_eq!(usage().await, json!({ "bytes": 900, "quotaBytes": 1000, "images": 0, "pending": 3 }));
    assert_eq!(ada.delete(&format!("/api/images/{}", opened[0].id())).await.status, 204);
    assert_eq!(ada.delete(&format!("/api/images/{}", opened[0].id())).await.status, 204);
    assert_eq!((usage().await["bytes"].as_u64(), usage().await["pending"].as_u64()), (Some(900), Some(2)), "the URL is valid");
    assert_eq!(open_upload(99).await.problem(), (409, "quota_exceeded"));
    // The tombstone's times are moved into the past, as if the URL had expired.
    let past = mongodb::bson::DateTime::from_millis(mongodb::bson::DateTime::now().timestamp_millis() - 3_600_000);
    let images = app.db.collection::<Document>("images");
    images.update_one(doc! { "_id": opened[0].id() }, doc! { "$set": { "urlsDieAt": past, "due": past } }).await.unwrap();
    assert_eq!(app.sweep(time::OffsetDateTime::now_utc()).await.purged, 1);
    assert_eq!(usage().await["bytes"], 600, "released once");
    assert_eq!(open_upload(99).await.status, 201);
}

#[tokio::test]
async fn number_of_open_uploads_is_limited() {
    let app = TestApp::start_with(|config| config.uploads.max_pending = 2).await;
    let ada = app.user().await;
    let (first, _second) =
        (ada.open_upload("a.png", "image/png", &unique_png()).await, ada.open_upload("a.png", "image/png", &unique_png()).await);
    assert_eq!(ada.open_upload("a.png", "image/png", &unique_png()).await.problem(), (409, "too_many_pending"));
    ada.delete(&format!("/api/images/{}", first.id())).await;
    assert_eq!(ada.open_upload("a.png", "image/png", &unique_png()).await.status, 201);
}

#[tokio::test]
async fn restarted_client_finds_its_uploads_on_a_restarted_server() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let files: Vec<_> = (0..5).map(|_| unique_png()).collect();
    for bytes in &files {
        ada.open_upload("a.png", "image/png", bytes).await;
    }
    let restarted = TestApp::start_second_server(&app, |_| {}).await;
    let ada = super::app::Caller { app: &restarted, ..ada };
    let (mut found, mut path) = (Vec::new(), "/api/images/pending?limit=2".to_owned());
    loop {
        let page = ada.get(&path).await;
        found.extend(page.json["uploads"].as_array().unwrap().clone());
        let Some(cursor) = page.json["nextCursor"].as_str() else { break };
        path = format!("/api/images/pending?limit=2&cursor={cursor}");
    }
    let digests: Vec<_> = found.iter().map(|upload| upload["sha256"].as_str().unwrap().to_owned()).collect();
    let newest_first: Vec<_> = files.iter().rev().map(|bytes| sha256(bytes)).collect();
    assert_eq!(digests, newest_first);
    assert_eq!((&found[0]["kind"], &found[0]["size"]), (&json!("single"), &json!(files[4].len())));
    let id = found[0]["id"].as_str().unwrap();
    let renewed = ada.post_empty(&format!("/api/images/{id}/renew")).await;
    assert_eq!(restarted.put(&renewed.json["upload"], files[4].clone()).await, 200);
    assert_eq!(ada.confirm(id).await.status, 200);
    assert_eq!(ada.get("/api/images/pending").await.json["uploads"].as_array().unwrap().len(), 4);
}
