//! Covers races that start at a barrier: states, objects and quota agree whichever call wins, and no call is answered 5xx.
//!
//! `VALET_TEST_ROUNDS` (200) is the number of rounds; use 1000 for the long form.
//!
//! Routes: POST /api/images/upload, POST /api/images/{id}/renew, POST /api/images/{id}/confirm, DELETE /api/images/{id}.

use std::{future::Future, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::Barrier;

use super::{
    app::{Answer, Caller, TestApp, unique_png},
    store_rules::{ONCE, OVERLAP},
};

/// Returns the number of rounds: `VALET_TEST_ROUNDS`, or 200.
fn rounds() -> usize {
    std::env::var("VALET_TEST_ROUNDS").ok().map_or(200, |rounds| rounds.parse().expect("VALET_TEST_ROUNDS is a number"))
}

/// Starts all calls at the same moment, on connections that are already open.
async fn run_concurrently<F: Future>(app: &TestApp, calls: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let calls: Vec<_> = calls.into_iter().collect();
    let barrier = Barrier::new(calls.len());
    let begun = calls.into_iter().map(|call| {
        let barrier = &barrier;
        async move {
            app.http.get(format!("{}/livez", app.base)).send().await.unwrap().bytes().await.unwrap();
            barrier.wait().await;
            call.await
        }
    });
    join_all(begun).await
}

/// Waits up to 8 ms, so that the order of the calls differs from round to round.
async fn jitter() {
    let random = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
    tokio::time::sleep(Duration::from_micros(random * 32)).await;
}

/// Opens an upload and sends its bytes.
async fn send_upload(caller: &Caller<'_>) -> Answer {
    let bytes = unique_png();
    let ticket = caller.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    assert_eq!(caller.app.put(&ticket.json["upload"], bytes).await, 200);
    ticket
}

/// Makes an upload so old that its URL and the grace period are over: a pending image is due, and a tombstone ends.
async fn make_old(app: &TestApp, ticket: &Answer) {
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 2 * 3_600_000);
    let over = doc! { "$set": { "due": past, "urlsDieAt": past } };
    app.db.collection::<Document>("images").update_one(doc! { "_id": ticket.id() }, over).await.unwrap();
}

/// Returns the path of a ticket's image.
fn path(ticket: &Answer) -> String {
    format!("/api/images/{}", ticket.id())
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_hundred_concurrent_confirms_give_one_image_and_one_answer() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = send_upload(&ada).await;
    let answers = run_concurrently(&app, (0..100).map(|_| ada.confirm(ticket.id()))).await;
    assert!(answers.iter().all(|answer| (answer.status, &answer.json) == (200, &answers[0].json)), "{answers:?}");
    let images = app.db.collection::<Document>("images");
    assert_eq!(images.count_documents(doc! {}).await.unwrap(), 1);
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((&usage["images"], &usage["pending"]), (&json!(1), &json!(0)));
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u6_second_put_is_rejected_and_one_of_fifty_concurrent_puts_wins() {
    let app = TestApp::start().await;
    if app.skip_unless_store_satisfies(&[ONCE, OVERLAP]).await {
        return;
    }
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    let upload = &ticket.json["upload"];
    let answers = run_concurrently(&app, (0..50).map(|_| app.put(upload, bytes.clone()))).await;
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|status| matches!(status.as_u16(), 200 | 409 | 412)), "{answers:?}");
    assert_eq!(app.put(upload, bytes.clone()).await, 412);
    let image = ada.confirm(ticket.id()).await;
    let read = app.http.get(image.json["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), bytes);
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u10_fifty_concurrent_uploads_at_the_limit_open_exactly_what_fits() {
    let app = TestApp::start_with(|config| {
        config.uploads.quota_bytes = 1000;
        config.uploads.max_pending = 4;
    })
    .await;
    let ada = app.user().await;
    let open_upload = |n: usize, size: u64| {
        let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": size, "sha256": super::app::sha256(&n.to_be_bytes()) });
        let ada = &ada;
        async move { ada.post("/api/images/upload", body).await }
    };
    let opened = |answers: &[Answer]| answers.iter().filter(|answer| answer.status == 201).count();
    let answers = run_concurrently(&app, (0..50).map(|n| open_upload(n, 300))).await;
    assert_eq!(opened(&answers), 3, "3 × 300 of 1000 bytes");
    assert!(answers.iter().all(|answer| answer.status == 201 || answer.problem() == (409, "quota_exceeded")), "{answers:?}");
    let answers = run_concurrently(&app, (50..100).map(|n| open_upload(n, 100))).await;
    assert_eq!(opened(&answers), 1, "one byte more would be too many");
    let usage = ada.get("/api/auth/me").await.json["usage"].clone();
    assert_eq!(usage, json!({ "bytes": 1000, "quotaBytes": 1000, "images": 0, "pending": 4 }));
    app.audit().await;

    // The limit of open uploads, with quota to spare.
    let bob = app.user().await;
    let open_upload = |n: usize| {
        let body =
            json!({ "fileName": "a.png", "contentType": "image/png", "size": 1, "sha256": super::app::sha256(&n.to_be_bytes()) });
        let bob = &bob;
        async move { bob.post("/api/images/upload", body).await }
    };
    let answers = run_concurrently(&app, (0..50).map(open_upload)).await;
    assert_eq!(opened(&answers), 4, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.status == 201 || answer.problem() == (409, "too_many_pending")), "{answers:?}");
    app.audit().await;
}

/// Confirm, delete and the sweeper handle one upload at the same time. With a delete, the upload ends as a tombstone without an
/// object; without a delete, it becomes a ready image with its object. A third of the rounds has no delete, another third no
/// sweeper. The uploads are old, and the sweeper's clock is not ahead: a sweeper with a later clock would take the writes that
/// other rounds have begun for those of dead servers.
#[tokio::test(flavor = "multi_thread")]
async fn d4_f16_confirm_delete_and_sweeper_race_consistently() {
    let app = TestApp::start().await;
    let users = [app.user().await, app.user().await, app.user().await];
    let round = |n: usize| {
        let (app, ada) = (&app, &users[n % users.len()]);
        async move {
            let ticket = send_upload(ada).await;
            make_old(app, &ticket).await;
            let barrier = Barrier::new(3);
            let meet = async || {
                barrier.wait().await;
                jitter().await;
            };
            let confirm = async {
                meet().await;
                ada.confirm(ticket.id()).await
            };
            let delete = async {
                meet().await;
                if n.is_multiple_of(3) { None } else { Some(ada.delete(&path(&ticket)).await) }
            };
            let sweep = async {
                meet().await;
                if n % 3 != 1 {
                    app.sweep(OffsetDateTime::now_utc()).await;
                }
            };
            let (confirmed, deleted, ()) = tokio::join!(confirm, delete, sweep);
            match &deleted {
                None => assert_eq!(confirmed.status, 200, "{confirmed:?}"),
                Some(deleted) => {
                    assert_eq!(deleted.status, 204, "{deleted:?}");
                    assert!(confirmed.status == 200 || confirmed.problem() == (404, "not_found"), "{confirmed:?}");
                    assert_eq!(ada.get(&path(&ticket)).await.status, 404, "the deletion is final at once");
                    assert_eq!(ada.confirm(ticket.id()).await.status, 404);
                }
            }
            (ticket.id().to_owned(), deleted.is_some())
        }
    };
    let ended: Vec<_> = stream::iter(0..rounds()).map(round).buffer_unordered(4).collect().await;
    app.sweep_to_the_end().await;
    app.audit().await;
    for (id, deleted) in &ended {
        assert_eq!(app.db_state(id).await, if *deleted { "gone" } else { "ready" });
    }
    let kept_images = ended.iter().filter(|(_, deleted)| !deleted).count();
    let images = app.db.collection::<Document>("images");
    assert_eq!(images.count_documents(doc! { "state": "ready" }).await.unwrap(), kept_images as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn renew_confirm_and_delete_race_consistently() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let round = |n: usize| {
        let ada = &ada;
        async move {
            let ticket = send_upload(ada).await;
            let barrier = Barrier::new(3);
            let meet = async || {
                barrier.wait().await;
                jitter().await;
            };
            let renew = async {
                meet().await;
                ada.post_empty(&format!("{}/renew", path(&ticket))).await
            };
            let confirm = async {
                meet().await;
                if n.is_multiple_of(2) { Some(ada.confirm(ticket.id()).await) } else { None }
            };
            let delete = async {
                meet().await;
                ada.delete(&path(&ticket)).await
            };
            let (renewed, confirmed, deleted) = tokio::join!(renew, confirm, delete);
            assert_eq!(deleted.status, 204, "{deleted:?}");
            assert!(matches!(renewed.problem(), (200, "") | (404, "not_found")), "{renewed:?}");
            assert!(confirmed.is_none_or(|answer| matches!(answer.problem(), (200, "") | (404, "not_found"))));
            if renewed.status == 200 && renewed.json["state"] == "pending" {
                // The tombstone outlives the renewed URL, so an object that this URL stores is deleted again.
                let url_ends = renewed.json["upload"]["expiresAt"].as_str().unwrap();
                let url_ends = OffsetDateTime::parse(url_ends, &time::format_description::well_known::Rfc3339).unwrap();
                let recorded = ada.app.db_image(ticket.id()).await.unwrap().get_datetime("urlsDieAt").unwrap().timestamp_millis();
                assert!(recorded / 1000 >= url_ends.unix_timestamp(), "{recorded} {url_ends}");
            }
        }
    };
    stream::iter(0..rounds() / 4).map(round).buffer_unordered(4).collect::<Vec<_>>().await;
    app.sweep_to_the_end().await;
    app.audit().await;
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0);
}

/// Runs one client while two servers sweep by the real clock. It opens an upload, renews it in some rounds, sends it, confirms it
/// in most rounds and deletes it in some, with pauses of up to 2.5 s; its URLs live a second.
async fn run_client(ada: &Caller<'_>, n: usize) {
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    let pause = async |most: u64| {
        let random = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
        tokio::time::sleep(Duration::from_millis(most * random / 256)).await;
    };
    pause(2500).await;
    let mut upload = ticket.json["upload"].clone();
    if n.is_multiple_of(3) {
        let renewed = ada.post_empty(&format!("{}/renew", path(&ticket))).await;
        assert!(matches!(renewed.problem(), (200, "") | (410, "upload_expired")), "{renewed:?}");
        upload = if renewed.json["upload"].is_object() { renewed.json["upload"].clone() } else { upload };
    }
    let put = ada.app.put(&upload, bytes).await;
    assert!(put == 200 || TestApp::is_signature_rejection(put), "{put}");
    pause(2500).await;
    let mut acknowledged = false;
    if !n.is_multiple_of(4) {
        let confirmed = ada.confirm(ticket.id()).await;
        acknowledged = confirmed.status == 200;
        let legal = [(200, ""), (409, "object_missing"), (410, "upload_expired")];
        assert!(legal.contains(&confirmed.problem()), "{confirmed:?}");
    }
    if n.is_multiple_of(5) {
        let deleted = ada.delete(&path(&ticket)).await;
        assert!(deleted.status == 204 || (deleted.status == 404 && !acknowledged), "{deleted:?}");
        assert_eq!(ada.get(&path(&ticket)).await.status, 404);
    } else if acknowledged {
        pause(2500).await;
        assert_eq!(ada.get(&path(&ticket)).await.status, 200, "acknowledged images stay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_two_sweepers_and_clients_race_on_the_real_clock() {
    let second = Duration::from_secs(1);
    let short = move |config: &mut valet::config::Config| {
        config.uploads.url_ttl = second;
        config.uploads.ttl = 2 * second;
        config.sweep.grace = second;
    };
    let app = TestApp::start_with(short).await;
    let other = TestApp::start_second_server(&app, short).await;
    let ada = app.user().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let sweeping = async |app: &TestApp| {
        while !stop.is_cancelled() {
            app.app.valet.sweeper.sweep().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let clients = async {
        stream::iter(0..rounds() / 4).map(|n| run_client(&ada, n)).buffer_unordered(20).collect::<Vec<_>>().await;
        stop.cancel();
    };
    tokio::join!(sweeping(&app), sweeping(&other), clients);
    app.sweep_to_the_end().await;
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_confirms_of_a_multipart_upload_race_with_its_deletion() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for round in 0..(rounds() / 25).max(4) {
        let bytes = unique_png();
        let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": bytes.len() });
        let ticket = ada.post("/api/images/multipart", body).await;
        assert_eq!(ticket.status, 201, "{ticket:?}");
        let signed = ada.post(&format!("{}/parts", path(&ticket)), json!({ "parts": [{ "partNumber": 1 }] })).await;
        assert_eq!(app.put(&signed.json["parts"][0]["request"], bytes).await, 200);
        let delete = round % 4 != 0;
        let answers = run_concurrently(
            &app,
            (0..21).map(|n| {
                let (ada, ticket) = (&ada, &ticket);
                async move {
                    jitter().await;
                    if n < 20 {
                        Some(ada.confirm(ticket.id()).await)
                    } else if delete {
                        assert_eq!(ada.delete(&path(ticket)).await.status, 204);
                        None
                    } else {
                        None
                    }
                }
            }),
        )
        .await;
        for answer in answers.iter().flatten() {
            assert!(answer.status == 200 || (delete && answer.status == 404), "{answer:?}");
        }
        assert_eq!(ada.confirm(ticket.id()).await.status, if delete { 404 } else { 200 });
    }
    app.sweep_to_the_end().await;
    app.audit().await;
    let usage: Value = ada.get("/api/auth/me").await.json["usage"].clone();
    assert_eq!(usage["pending"], 0);
}

/// A write to the owner's record aborts the transaction of a delete, which then starts again: the delete must end however busy the
/// owner is.
#[tokio::test(flavor = "multi_thread")]
async fn deletion_ends_while_its_owner_sends_requests() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned());
    }
    let users = app.db.collection::<Document>("users");
    let stop = tokio_util::sync::CancellationToken::new();
    let busy = (0..24).map(|_| async {
        while !stop.is_cancelled() {
            users.update_one(doc! { "_id": &ada.id }, doc! { "$inc": { "noise": 1_i64 } }).await.unwrap();
        }
    });
    let deletes = async {
        // By then the updates of the user's record are under way.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let paths: Vec<_> = ids.iter().map(|id| format!("/api/images/{id}")).collect();
        let answers = join_all(paths.iter().map(|path| ada.delete(path))).await;
        stop.cancel();
        answers
    };
    let (_, answers) = tokio::join!(join_all(busy), deletes);
    assert!(answers.iter().all(|answer| answer.status == 204), "{answers:?}");
    app.sweep_to_the_end().await;
    app.audit().await;
}
