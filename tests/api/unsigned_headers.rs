//! Covers unsigned headers on a presigned PUT: AWS stores some of them with the object and serves them, so the upload is
//! rejected.
//!
//! Routes: POST /api/images/{id}/confirm, POST /api/uppy/presign.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::config::Finalize;

use super::app::{Answer, TestApp, declaration, fixture, s3_is_local, sha256, unique_png};

/// Headers that S3 stores with an object without a signature, because their names do not begin with `x-amz-`.
const KEPT: [(&str, &str); 6] = [
    ("content-encoding", "gzip"),
    ("content-disposition", "attachment; filename=\"invoice.exe\""),
    ("content-language", "de"),
    ("expires", "Thu, 01 Jan 2037 00:00:00 GMT"),
    ("cache-control", "public, max-age=31536000"),
    ("cache-control", "no-cache, public"),
];

/// Values of `cache-control` that browsers and phones send by themselves.
const DIRECTIVES: [&str; 3] = ["no-cache", "no-store", "max-age=0, no-cache"];

/// Every way in which a confirm makes an object final.
const FINALIZE: [Finalize; 2] = [Finalize::InPlace, Finalize::Copy];

/// Sends a ticket's request with one more header.
async fn put_with(app: &TestApp, request: &Value, bytes: &[u8], (name, value): (&str, &str)) -> StatusCode {
    let mut request = request.clone();
    request["headers"][name] = json!(value);
    let status = app.put(&request, bytes.to_vec()).await;
    // Other stores may reject unsigned headers.
    assert!(status == 200 || (!s3_is_local() && status.is_client_error()), "{name}: {status}");
    status
}

/// Returns a time at which all URLs have expired.
fn after_url_expiry() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(3 * 3600)
}

#[tokio::test]
async fn upload_with_an_unsigned_header_is_rejected() {
    for finalize in FINALIZE {
        let app = TestApp::start_with(|config| config.s3.finalize = finalize).await;
        let ada = app.user().await;
        for header in KEPT {
            let bytes = unique_png();
            let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
            if put_with(&app, &ticket.json["upload"], &bytes, header).await == 200 {
                for _ in 0..2 {
                    assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "object_mismatch"), "{header:?} {finalize:?}");
                }
            }
        }
        app.sweep(after_url_expiry()).await;
        assert_eq!(app.bucket_keys().await, Vec::<String>::new(), "{finalize:?}");
        assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0);
    }
}

#[tokio::test]
async fn cache_directives_of_clients_are_accepted_and_never_served() {
    for finalize in FINALIZE {
        let app = TestApp::start_with(|config| config.s3.finalize = finalize).await;
        let ada = app.user().await;
        for directive in DIRECTIVES {
            let bytes = unique_png();
            let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
            if put_with(&app, &ticket.json["upload"], &bytes, ("cache-control", directive)).await == 200 {
                let image = ada.confirm(ticket.id()).await;
                assert_eq!(image.status, 200, "{directive} {finalize:?}: {image:?}");
                let shown = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
                assert!(shown.headers()["cache-control"].to_str().unwrap().contains("immutable"));
            }
        }
    }
}

#[tokio::test]
async fn sweeper_rejects_uploads_with_unsigned_headers() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    if put_with(&app, &ticket.json["upload"], &bytes, KEPT[0]).await == 200 {
        assert_eq!(app.sweep(after_url_expiry()).await.rejected, 1);
        assert_eq!(app.db_state(ticket.id()).await, "rejected");
    }
}

#[tokio::test]
async fn preview_with_an_unsigned_header_is_left_out() {
    for finalize in FINALIZE {
        let app = TestApp::start_with(|config| config.s3.finalize = finalize).await;
        let ada = app.user().await;
        for header in KEPT {
            let (bytes, preview) = (unique_png(), fixture("plain.jpg"));
            let mut body = declaration("a.png", "image/png", &bytes);
            body["preview"] = json!({ "contentType": "image/jpeg", "size": preview.len(), "sha256": sha256(&preview) });
            let ticket = ada.post("/api/images/upload", body).await;
            put_with(&app, &ticket.json["previewUpload"], &preview, header).await;
            assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
            let image = ada.confirm(ticket.id()).await;
            assert_eq!((image.status, image.json.get("previewUrl")), (200, None), "{header:?} {finalize:?}");
        }
    }
}

/// Uppy's own client opens the upload at S3 with a URL that signs no header.
#[tokio::test]
async fn uppy_upload_with_an_unsigned_header_is_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (name, value) in KEPT {
        let presign = async |body: Value| -> Answer { ada.post("/api/uppy/presign", body).await };
        let send = async |method: Method, signed: &Answer, body: Vec<u8>, header: Option<(&str, &str)>| {
            let mut request = app.http.request(method, signed.json["url"].as_str().unwrap()).body(body);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            request.send().await.unwrap()
        };
        let create = presign(json!({ "method": "POST", "key": "a.png", "contentType": "image/png" })).await;
        let opened = send(Method::POST, &create, Vec::new(), Some((name, value))).await;
        if opened.status() != 200 {
            assert!(!s3_is_local(), "{name}: {}", opened.status());
            continue;
        }
        let text = opened.text().await.unwrap();
        let upload_id = text.split_once("<UploadId>").unwrap().1.split_once('<').unwrap().0;
        let key = create.json["key"].as_str().unwrap();
        let part = presign(json!({ "method": "PUT", "key": key, "uploadId": upload_id, "partNumber": 1 })).await;
        let etag = send(Method::PUT, &part, unique_png(), None).await.headers()["etag"].to_str().unwrap().to_owned();
        let complete = presign(json!({ "method": "POST", "key": key, "uploadId": upload_id })).await;
        let parts = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
        );
        assert_eq!(send(Method::POST, &complete, parts.into(), None).await.status(), 200);
        let id = key.rsplit('/').next().unwrap();
        assert_eq!(ada.confirm(id).await.problem(), (422, "object_mismatch"), "{name}");
    }
}
