//! Covers resumption after failures of clients, servers, connections and S3.
//!
//! Routes: POST /api/images/{id}/parts, GET /api/images/{id}/parts.

use futures_util::future::join_all;

use super::{
    Caller, DAY, Document, Duration, MIB, OffsetDateTime, QUIET, Rfc3339, TestApp, after, declaration, doc, file, json, part,
    unique_png,
};

/// After a lost connection, a restart of the client and a restart of the server, only missing parts are sent.
#[tokio::test]
async fn interrupted_upload_resumes_with_the_missing_parts() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = file();
    let opened = ada.open(declaration(&bytes, "none")).await;
    let id = opened.id();
    assert_eq!(ada.confirm(id).await.problem(), (409, "parts_missing"));
    ada.send_parts(id, &bytes, &[2]).await;
    let early = ada.confirm(id).await;
    assert_eq!(early.problem(), (409, "parts_missing"));
    assert!(early.json["detail"].as_str().unwrap().contains(": 1, 3."), "{early:?}");
    // The connection is lost in the middle of a part.
    let request = ada.part_url(id, json!({ "partNumber": 1 })).await;
    let half: Vec<Result<Vec<u8>, std::io::Error>> =
        vec![Ok(part(&bytes, 1)[..MIB].to_vec()), Err(std::io::ErrorKind::BrokenPipe.into())];
    let cut = app.http.put(request["url"].as_str().unwrap()).header("content-length", 5 * MIB);
    let cut = cut.body(reqwest::Body::wrap_stream(futures_util::stream::iter(half))).send().await;
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(ada.parts_of(id).await, [2]);

    let restarted = TestApp::start_second_server(&app, |_| {}).await;
    let ada = Caller { app: &restarted, ..ada };
    let pending = ada.get("/api/images/pending").await;
    let mut found = pending.json["uploads"][0].clone();
    assert_eq!(found["id"], id);
    let times = ["createdAt", "expiresAt"].map(|time| found.as_object_mut().unwrap().remove(time).unwrap());
    assert_eq!(times[1], opened.json["expiresAt"]);
    let expected = json!({ "id": id, "kind": "multipart", "fileName": "big.png", "contentType": "image/png", "size": bytes.len(),
        "partSize": 5 * MIB, "partCount": 3 });
    assert_eq!(found, expected, "a multipart upload has no member sha256");
    let sent = ada.parts_of(id).await;
    let missing: Vec<_> = (1..=3_usize).filter(|n| !sent.contains(&(*n as u64))).collect();
    assert_eq!(missing, [1, 3]);
    ada.send_parts(id, &bytes, &missing).await;
    let image = ada.confirm(id).await;
    assert_eq!(image.status, 200, "{image:?}");
    let read = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
    assert!(read.bytes().await.unwrap() == bytes, "the URL returns the uploaded bytes");
}

/// The server died after S3 had created the object, or S3's answer was lost.
#[tokio::test]
async fn completion_with_a_lost_answer_is_found() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = file();
    for is_swept in [false, true] {
        let ticket = ada.open(declaration(&bytes, "none")).await;
        ada.send_parts(ticket.id(), &bytes, &[1, 2, 3]).await;
        app.bucket_complete(ticket.id()).await;
        assert_eq!(ada.parts_of(ticket.id()).await, [1, 2, 3], "no part must be sent again");
        if is_swept {
            assert_eq!(app.sweep(after(QUIET)).await.confirmed, 1);
        }
        assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    }
}

/// The client died after its last part: the sweeper completes the upload.
#[tokio::test]
async fn complete_upload_of_a_dead_client_is_confirmed_by_the_sweeper() {
    let app = TestApp::start().await;
    let others = [TestApp::start_second_server(&app, |_| {}).await, TestApp::start_second_server(&app, |_| {}).await];
    let ada = app.user().await;
    let bytes = file();
    let ticket = ada.open(declaration(&bytes, "none")).await;
    ada.send_parts(ticket.id(), &bytes, &[1, 2, 3]).await;
    // The upload is made older, not the sweepers' clocks later: a sweeper with a later clock would take the writes that the others
    // have begun for those of dead servers.
    let past = mongodb::bson::DateTime::from_millis(mongodb::bson::DateTime::now().timestamp_millis() - 2 * 3_600_000);
    app.db_set(ticket.id(), doc! { "$set": { "due": past, "urlsDieAt": past } }).await;
    let now = OffsetDateTime::now_utc();
    let swept = futures_util::future::join3(app.sweep(now), others[0].sweep(now), others[1].sweep(now)).await;
    assert_eq!((swept.0.confirmed + swept.1.confirmed + swept.2.confirmed, swept.0.failed), (1, 0), "{swept:?}");
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    assert_eq!(ada.usage().await["images"], 1);
    assert!(app.bucket_uploads().await.is_empty());
}

/// A server died after S3 had opened the upload and before its id was recorded; the client finds the image in the pending list.
#[tokio::test]
async fn upload_without_a_recorded_id_is_opened_again() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = file();
    let ticket = ada.open(declaration(&bytes, "none")).await;
    app.db_set(ticket.id(), doc! { "$unset": { "uploadId": "" } }).await;
    assert_eq!(ada.parts_of(ticket.id()).await, [0_u64; 0]);
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (409, "parts_missing"));
    let answers = join_all((0..10).map(|_| ada.sign(ticket.id(), json!([{ "partNumber": 1 }])))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(app.bucket_uploads().await.len(), 2, "one of ten concurrent calls opens it; the unrecorded upload is still open");
    assert_eq!(app.put(&answers[9].json["parts"][0]["request"], part(&bytes, 1)).await, 200);
    ada.send_parts(ticket.id(), &bytes, &[2, 3]).await;
    assert_eq!(ada.parts_of(ticket.id()).await, [1, 2, 3]);
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    assert!(app.bucket_uploads().await.is_empty(), "the unrecorded upload is aborted");
}

/// The upload was aborted outside of Valet, for example by a lifecycle rule of the bucket.
#[tokio::test]
async fn upload_aborted_in_s3_is_opened_again_under_its_id() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open(declaration(&bytes, "none")).await;
    ada.send_parts(ticket.id(), &bytes, &[1]).await;
    app.bucket_abort(ticket.id()).await;
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (409, "parts_missing"));
    assert_eq!(ada.parts_of(ticket.id()).await, [0_u64; 0]);
    ada.send_parts(ticket.id(), &bytes, &[1]).await;
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
}

/// If S3 does not open an upload, no quota stays reserved: the client has no id to delete it by.
#[tokio::test]
async fn upload_that_s3_does_not_open_reserves_nothing() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    app.s3.delete_bucket().bucket(&app.config.s3.bucket).send().await.unwrap();
    for _ in 0..3 {
        assert_eq!(ada.post("/api/images/multipart", declaration(&[0; 100], "none")).await.status, 503);
    }
    let usage = ada.usage().await;
    assert_eq!((&usage["bytes"], &usage["pending"]), (&json!(0), &json!(0)));
    assert_eq!(ada.get("/api/images/pending").await.json["uploads"], json!([]));
}

/// A server died while it completed the upload: its claim ends, and the waiting confirm continues.
#[tokio::test]
async fn completion_of_a_dead_server_is_taken_over() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open(declaration(&bytes, "none")).await;
    ada.send_parts(ticket.id(), &bytes, &[1]).await;
    let began = std::time::Instant::now();
    let until = mongodb::bson::DateTime::from_millis(mongodb::bson::DateTime::now().timestamp_millis() + 2000);
    app.db_set(ticket.id(), doc! { "$set": { "completingUntil": until } }).await;
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    assert!(began.elapsed() > Duration::from_millis(1500), "the confirm waits for the claim to end: {:?}", began.elapsed());
    assert!(!app.db_image(ticket.id()).await.unwrap().contains_key("completingUntil"));
}

/// The record of an opening is removed from `opening` of the user; the upload stays counted.
#[tokio::test]
async fn open_upload_stays_counted() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    ada.open(declaration(&[0; 100], "none")).await;
    let opening = async || {
        let user = app.db.collection::<Document>("users").find_one(doc! { "_id": &ada.id }).await.unwrap().unwrap();
        user.get_array("opening").unwrap().len()
    };
    assert_eq!(opening().await, 1);
    // After 30 hours.
    assert_eq!(app.sweep(after(30 * DAY / 24)).await.reservations, 0);
    assert_eq!(opening().await, 0);
    assert_eq!((&ada.usage().await["bytes"], &ada.usage().await["pending"]), (&json!(100), &json!(1)));
    // The opening of an upload removes the records of earlier openings, too.
    ada.open(declaration(&[0; 100], "none")).await;
    ada.open(declaration(&[0; 100], "none")).await;
    assert_eq!(opening().await, 1);
}

/// Covers more than one page of S3's listing, and parts of another length than was signed, which a lenient store may accept.
#[tokio::test]
async fn all_parts_are_listed_and_only_parts_of_the_signed_length_count() {
    let app = TestApp::start_with(|config| config.uploads.multipart_max_bytes = 8 << 30).await;
    let ada = app.user().await;
    let mut body = declaration(&[0; 100], "none");
    body["size"] = json!(1005 * 5 * MIB);
    let ticket = ada.open(body).await;
    let image = app.db_image(ticket.id()).await.unwrap();
    let (key, upload_id) = (image.get_str("key").unwrap(), image.get_str("uploadId").unwrap());
    for number in 1..=1005 {
        let part = app.s3.upload_part().bucket(&app.config.s3.bucket).key(key).upload_id(upload_id).part_number(number);
        part.body(vec![7].into()).send().await.unwrap();
    }
    assert_eq!(ada.parts_of(ticket.id()).await, (1..=1005).collect::<Vec<_>>());
    let answer = ada.confirm(ticket.id()).await;
    assert_eq!(answer.problem(), (409, "parts_missing"));
    assert!(answer.json["detail"].as_str().unwrap().contains(": 1-1005."), "{answer:?}");
}

/// Covers clients that hang up while S3 opens their upload, for each way to open one: no id was sent, so the reservation ends
/// within minutes. A repeat with the same key opens an ordinary upload.
#[tokio::test(flavor = "multi_thread")]
async fn client_that_hangs_up_while_its_upload_is_opened_holds_no_quota() {
    if crate::store_rules::skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let endpoint = crate::relay::relay_s3(&app, move |request| {
        let arrived = arrived.clone();
        async move {
            let opens = request.parts.method == reqwest::Method::POST && request.query().contains("uploads");
            // The probe of the store opens multipart uploads, too, under other keys.
            if opens && request.path().contains("/u/") {
                let _ = arrived.send(());
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
            request.forward().await
        }
    })
    .await;
    let server_on_slow_store =
        TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await;
    let declaration = declaration(&file(), "none");
    let in_uppys_parts = json!({ "filename": "d.png", "type": "image/png", "metadata": {} });
    let path = format!("/uppy/{}/s3/multipart", ada.uppy().await);
    for (path, body, key) in [("/api/images/multipart", &declaration, "one"), (path.as_str(), &in_uppys_parts, "two")] {
        let request = app.http.post(format!("{}{path}", server_on_slow_store.base)).bearer_auth(ada.token.as_ref().unwrap());
        let request = tokio::spawn(request.header("idempotency-key", key).json(body).send());
        arrivals.recv().await.unwrap();
        request.abort();
    }
    let open = ada.usage().await;
    assert!(open["bytes"].as_u64().unwrap() > 0 && open["pending"] == 2, "{open}");
    // The first client repeats its request: another server opens the upload.
    let again = |request: reqwest::RequestBuilder| request.header("idempotency-key", "one").json(&declaration);
    let ticket = ada.send(reqwest::Method::POST, "/api/images/multipart", again).await;
    assert_eq!(ticket.status, 200, "{ticket:?}");
    let upload = ada.open(declaration.clone()).await;
    let in_minutes = after(Duration::from_secs(180));
    for _ in 0..3 {
        app.sweep(in_minutes).await;
    }
    let usage = ada.usage().await;
    assert_eq!((&usage["bytes"], &usage["pending"]), (&json!(2 * file().len()), &json!(2)), "{usage}");
    let pending = ada.get("/api/images/pending").await;
    for upload in pending.json["uploads"].as_array().unwrap() {
        let ends = OffsetDateTime::parse(upload["expiresAt"].as_str().unwrap(), &Rfc3339).unwrap();
        assert!(ends > after(6 * DAY), "an upload that S3 has opened has the full lifetime: {upload}");
    }
    assert_eq!(
        ticket.json["expiresAt"],
        pending.json["uploads"].as_array().unwrap().iter().find(|one| one["id"] == ticket.id()).unwrap()["expiresAt"]
    );
    for id in [ticket.id(), upload.id()] {
        assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    }
    app.sweep_to_the_end().await;
    assert_eq!(app.bucket_uploads().await, Vec::<String>::new());
}
