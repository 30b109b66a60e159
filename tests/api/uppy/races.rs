//! Covers Uppy's multipart uploads that change, or that the store does not list, while the server reads their parts.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::{
    Caller, Duration, TestApp, after, json,
    parts::{chunk, file},
    skip_unless_local_s3,
};

/// With a part of an earlier attempt, which had another part size, the parts exceed the reservation. While the sweeper lists them,
/// the client completes the right ones and gets its image. The sweeper must not delete this image because of the parts that it
/// listed.
#[tokio::test(flavor = "multi_thread")]
async fn image_completed_while_its_parts_are_counted_keeps_its_bytes() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let (listing, mut listed) = mpsc::unbounded_channel();
    let resume = Arc::new(Notify::new());
    let resumed = Arc::clone(&resume);
    let endpoint = crate::relay::relay_s3(&app, move |request| {
        let (listing, resumed) = (listing.clone(), Arc::clone(&resumed));
        async move {
            let lists_parts = request.parts.method == reqwest::Method::GET && request.query().contains("uploadId=");
            let is_upload = request.path().contains("/u/");
            let answer = request.forward().await;
            if lists_parts && is_upload {
                listing.send(()).unwrap();
                resumed.notified().await;
            }
            answer
        }
    })
    .await;
    let slow = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await;
    let ada = app.user().await;
    let bytes = file();
    let upload = ada.open_for_uppy(json!({ "size": bytes.len() })).await;
    let mut parts = Vec::new();
    for number in 1..=3 {
        parts.push(upload.send(number, chunk(&bytes, number)).await);
    }
    upload.send(4, chunk(&bytes, 1)).await;
    let sweep = tokio::spawn(async move { slow.sweep(after(Duration::from_secs(61))).await });
    // The first listing decides whether the upload is complete, the last one counts its bytes.
    let confirmed = loop {
        tokio::select! {
            Some(()) = listed.recv() => {
                let completed = upload.complete(&parts).await;
                resume.notify_one();
                if completed.status == 200 {
                    break completed;
                }
            }
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("the sweeper listed no parts"),
        }
    };
    while !sweep.is_finished() {
        resume.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let swept = sweep.await.unwrap();
    assert_eq!((swept.rejected, app.db_state(&upload.id).await.as_str()), (0, "ready"), "{swept:?} {confirmed:?}");
    let image = ada.get(&format!("/api/images/{}", upload.id)).await;
    let read = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!((read.status(), read.bytes().await.unwrap().len()), (reqwest::StatusCode::OK, bytes.len()));
}

/// The store does not let this server list parts, so an upload id can be neither accepted nor rejected.
#[tokio::test(flavor = "multi_thread")]
async fn upload_whose_parts_may_not_be_listed_is_unavailable_and_not_unknown() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let endpoint = crate::relay::relay_s3(&app, |request| async move {
        let lists_parts = request.parts.method == reqwest::Method::GET && request.query().contains("uploadId=");
        if !lists_parts {
            return request.forward().await;
        }
        let mut answer = crate::relay::empty_answer(403);
        *answer.body_mut() = "<Error><Code>AccessDenied</Code></Error>".into();
        answer
    })
    .await;
    let misconfigured = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await;
    let ada = app.user().await;
    let opened = ada.post("/api/uppy/presign", json!({ "method": "POST", "key": "a.png" })).await;
    assert_eq!(opened.status, 200, "{opened:?}");
    let ada = Caller { app: &misconfigured, ..ada };
    let list = json!({ "method": "GET", "key": opened.json["key"], "uploadId": "2~unknown" });
    let answer = ada.post("/api/uppy/presign", list).await;
    assert_eq!(answer.problem(), (503, "unavailable"), "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
}
