//! Covers POST /api/auth/me/delete: nothing of the account is left, whichever server dies during the deletion.
//!
//! Routes: POST /api/auth/me/delete.

mod crashes;
mod leftovers;

use std::time::Duration;

use futures_util::{TryStreamExt, future::join_all};
use mongodb::bson::{Bson, DateTime, Document, doc};
use reqwest::StatusCode;
use serde_json::json;
use time::OffsetDateTime;
use valet::config::{Rate, SweepSchedule};

use super::app::{Answer, Caller, PASSWORD, TestApp, eventually, unique_png};

/// Requests the deletion of the caller's account.
async fn delete_account(caller: &Caller<'_>, password: &str) -> Answer {
    caller.post("/api/auth/me/delete", json!({ "password": password })).await
}

/// Returns the user's record unless it is marked for deletion, the sessions, and the pending and ready images. Tombstones stay
/// until no URL can write their objects.
async fn live_documents(app: &TestApp, user: &str) -> Vec<Document> {
    let mut all = Vec::new();
    for (collection, filter) in [
        // A deleted account's record stays without personal data until its tombstones have expired.
        ("users", doc! { "_id": user, "deletedAt": { "$exists": false } }),
        ("sessions", doc! { "user": user }),
        ("images", doc! { "user": user, "state": { "$in": ["pending", "ready"] } }),
    ] {
        let found = app.db.collection::<Document>(collection).find(filter).await.unwrap();
        all.extend(found.try_collect::<Vec<_>>().await.unwrap());
    }
    all
}

/// Returns the keys of the user's objects in the bucket.
async fn keys_of(app: &TestApp, user: &str) -> Vec<String> {
    app.bucket_keys().await.into_iter().filter(|key| key.contains(user)).collect()
}

/// Returns the number of the user's open multipart uploads in the bucket.
async fn multiparts_of(app: &TestApp, user: &str) -> usize {
    let listed = app.s3.list_multipart_uploads().bucket(&app.config.s3.bucket).send().await.unwrap();
    listed.uploads().iter().filter(|upload| upload.key().unwrap_or_default().contains(user)).count()
}

/// Sweeps at `now` until there is nothing to do.
async fn sweep_all(app: &TestApp, now: OffsetDateTime) {
    let began = std::time::Instant::now();
    for _ in 0..100 {
        // A step of a deletion makes the next one due at its own end.
        if !app.app.valet.sweeper.sweep_once(now + began.elapsed()).await.unwrap().may_have_more {
            return;
        }
    }
    panic!("the sweep does not end");
}

/// Returns a time at which every current URL, reservation and lease has expired.
fn later() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(26 * 60 * 60)
}

/// Asserts that the account's own record was deleted too, as it is after its tombstones have expired.
async fn assert_forgotten(app: &TestApp, user: &str) {
    assert_nothing_is_left(app, user).await;
    assert_eq!(app.db.collection::<Document>("users").find_one(doc! { "_id": user }).await.unwrap(), None);
}

/// Asserts that the database has no live document of the user, and the bucket no object and no open multipart upload.
async fn assert_nothing_is_left(app: &TestApp, user: &str) {
    assert_eq!(live_documents(app, user).await, Vec::<Document>::new());
    assert_eq!(keys_of(app, user).await, Vec::<String>::new());
    assert_eq!(multiparts_of(app, user).await, 0);
}

/// Creates everything that an account can have: images, uploads in every state, a second session.
async fn fill(app: &TestApp, ada: &Caller<'_>) {
    for _ in 0..3 {
        ada.upload("mine.png", "image/png", &unique_png()).await;
    }
    ada.open_upload("mine.png", "image/png", &unique_png()).await;
    let sent = unique_png();
    let ticket = ada.open_upload("mine.png", "image/png", &sent).await;
    assert_eq!(app.put(&ticket.json["upload"], sent).await, 200);
    let declaration = json!({ "fileName": "mine.png", "contentType": "image/png", "size": 12 << 20, "partSize": 6 << 20 });
    let parts = ada.post("/api/images/multipart", declaration).await;
    let first_part = json!({ "parts": [{ "partNumber": 1 }] });
    let signed = ada.post(&format!("/api/images/{}/parts", parts.id()), first_part).await;
    assert_eq!(app.put(&signed.json["parts"][0]["request"], vec![1; 6 << 20]).await, 200);
    let login = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await;
    assert_eq!(login.status, 200);
}

/// More deletions than a round takes are due at a time that cannot be read. Each is postponed, and then finished like any other.
#[tokio::test]
async fn deletions_whose_due_time_cannot_be_read_delay_no_other() {
    let app = TestApp::start().await;
    let users = app.db.collection::<Document>("users");
    let damaged = (0..12).map(|_| {
        let id = uuid::Uuid::now_v7().to_string();
        doc! { "_id": id, "deletedAt": DateTime::now(), "due": DateTime::MIN, "usedBytes": 0, "images": 0, "holds": [] }
    });
    users.insert_many(damaged.collect::<Vec<_>>()).await.unwrap();
    let ada = app.user().await;
    assert_eq!(delete_account(&ada, PASSWORD).await.status, 204);
    sweep_all(&app, OffsetDateTime::now_utc()).await;
    assert_forgotten(&app, &ada.id).await;
    assert_eq!(users.count_documents(doc! {}).await.unwrap(), 12);
    sweep_all(&app, later()).await;
    assert_eq!(users.count_documents(doc! {}).await.unwrap(), 0);
}

#[tokio::test]
async fn d9_everything_is_removed_and_the_address_is_free_at_once() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    fill(&app, &ada).await;
    // If uploads are copied at confirm, removes the objects that were copied.
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
    let eves_image = eve.upload("hers.png", "image/png", &unique_png()).await;
    let refresh = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await;
    let refresh = json!({ "refreshToken": refresh.json["refreshToken"] });
    // Open uploads are under another prefix if they are copied at confirm.
    assert!(
        !super::store_rules::in_place() || (multiparts_of(&app, &ada.id).await == 1 && keys_of(&app, &ada.id).await.len() == 4)
    );

    assert_eq!(delete_account(&ada, PASSWORD).await.status, 204);
    for (method, path) in [("GET", "/api/auth/me"), ("GET", "/api/images/gallery"), ("POST", "/api/auth/me/delete")] {
        let body = json!({ "password": PASSWORD });
        let with_body = |request: reqwest::RequestBuilder| if method == "POST" { request.json(&body) } else { request };
        let answer = ada.send(method.parse().unwrap(), path, with_body).await;
        assert_eq!(answer.problem(), (401, "session_ended"), "{path}");
    }
    assert_eq!(app.anonymous().post("/api/auth/refresh", refresh).await.problem(), (401, "session_ended"));
    let login = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await;
    assert_eq!(login.problem(), (401, "invalid_credentials"));
    // The same address can sign up again, before a sweep and after it.
    let again = app.anonymous().post("/api/auth/signup", json!({ "email": ada.email, "password": PASSWORD })).await;
    assert_eq!(again.status, 201);
    let again = Caller {
        app: &app,
        token: again.json["token"].as_str().map(str::to_owned),
        id: again.json["user"]["id"].as_str().unwrap().to_owned(),
        email: ada.email.clone(),
        address: None,
    };
    assert_ne!(again.id, ada.id);
    sweep_all(&app, OffsetDateTime::now_utc()).await;
    assert_nothing_is_left(&app, &ada.id).await;
    for path in ["/api/images/gallery", "/api/images/pending"] {
        let page = again.get(path).await;
        assert!(page.json.as_object().unwrap().values().all(|list| list == &json!([])), "{page:?}");
    }
    assert_eq!(again.get("/api/auth/me").await.json["usage"]["bytes"], 0);
    assert_eq!(
        eve.get(&format!("/api/images/{}", eves_image["id"].as_str().unwrap())).await.status,
        200,
        "images of other users stay"
    );
    // Tombstones expire without the account.
    sweep_all(&app, later()).await;
    let images = app.db.collection::<Document>("images").find(doc! { "user": &ada.id }).await.unwrap();
    let images: Vec<_> = images.try_collect().await.unwrap();
    assert!(
        images.len() == 6 && images.iter().all(|image| image.get_str("state").is_ok_and(|state| state == "gone")),
        "{images:#?}"
    );
    assert_forgotten(&app, &ada.id).await;
}

#[tokio::test]
async fn only_the_owner_can_delete_the_account() {
    let app = TestApp::start_with(|config| {
        config.limits = valet::config::RateLimits::default();
        config.limits.login_failures = Rate::new(3, 600);
    })
    .await;
    let ada = app.user().await;
    let missing = ada.post("/api/auth/me/delete", json!({})).await;
    assert_eq!((missing.problem(), missing.json["errors"][0]["field"].as_str()), ((400, "invalid_request"), Some("password")));
    for body in [json!({ "password": null }), json!({ "password": 1 }), json!({ "password": PASSWORD, "email": ada.email })] {
        assert_eq!(ada.post("/api/auth/me/delete", body).await.problem(), (400, "invalid_request"));
    }
    assert_eq!(
        app.anonymous().post("/api/auth/me/delete", json!({ "password": PASSWORD })).await.problem(),
        (401, "token_missing")
    );
    for _ in 0..3 {
        assert_eq!(delete_account(&ada, "seven green kites").await.problem(), (401, "invalid_credentials"));
    }
    assert_eq!(
        delete_account(&ada, PASSWORD).await.problem(),
        (429, "rate_limited"),
        "password attempts are limited as at login"
    );
    assert_eq!(ada.get("/api/auth/me").await.status, 200);
}

#[tokio::test]
async fn deletion_takes_effect_on_other_servers_within_thirty_seconds() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let ada = app.user().await;
    let ada_on_other = Caller { app: &other, ..ada.clone() };
    assert_eq!(ada_on_other.get("/api/auth/me").await.status, 200);
    assert_eq!(delete_account(&ada, PASSWORD).await.status, 204);
    // The account is deleted for this server too, whatever its session cache contains: no uploads are accepted.
    assert_eq!(ada_on_other.get("/api/auth/me").await.problem(), (401, "session_ended"));
    assert_eq!(ada_on_other.open_upload("late.png", "image/png", &unique_png()).await.problem(), (401, "session_ended"));
    let began = std::time::Instant::now();
    while ada_on_other.get("/api/images/gallery").await.status == 200 {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_nothing_is_left_after(&app, &ada.id).await;
}

/// Sweeps now and at three later times, since what uploads in progress leave becomes due at different times: the last is their
/// reservations, within 26 hours. Asserts that nothing of the account is left.
async fn assert_nothing_is_left_after(app: &TestApp, user: &str) {
    for minutes in [0, 11, 25, 60 * 26] {
        sweep_all(app, OffsetDateTime::now_utc() + Duration::from_secs(60 * minutes)).await;
    }
    assert_forgotten(app, user).await;
}

#[tokio::test]
async fn uploads_in_progress_during_the_deletion_leave_nothing() {
    for round in 0..4 {
        let app = TestApp::start().await;
        let ada = app.user().await;
        let login = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await;
        let sent = unique_png();
        let ticket = ada.open_upload("mine.png", "image/png", &sent).await;
        assert_eq!(app.put(&ticket.json["upload"], sent).await, 200);
        let late = ada.open_upload("late.png", "image/png", &unique_png()).await;
        let uploads = join_all((0..8).map(|_| async { ada.open_upload("racing.png", "image/png", &unique_png()).await.status }));
        let confirms = join_all((0..3).map(|_| async { ada.confirm(ticket.id()).await.status }));
        let refreshes = join_all((0..3).map(|_| async {
            app.anonymous().post("/api/auth/refresh", json!({ "refreshToken": login.json["refreshToken"] })).await.status
        }));
        let logins =
            async { app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await.status };
        let multipart = async {
            let declaration = json!({ "fileName": "mine.png", "contentType": "image/png", "size": 12 << 20 });
            ada.post("/api/images/multipart", declaration).await.status
        };
        let deletion = async {
            tokio::time::sleep(Duration::from_millis(20 * round)).await;
            delete_account(&ada, PASSWORD).await.status
        };
        let sweeps = async {
            for _ in 0..10 {
                let _ = app.app.valet.sweeper.sweep_once(OffsetDateTime::now_utc()).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (uploads, confirms, refreshes, login, multipart, deletion, ()) =
            tokio::join!(uploads, confirms, refreshes, logins, multipart, deletion, sweeps);
        assert_eq!(deletion, 204);
        let all = uploads.iter().chain(&confirms).chain(&refreshes).chain([&login, &multipart]);
        assert!(all.clone().all(|status| matches!(status, 200 | 201 | 401 | 404)), "{:?}", all.collect::<Vec<_>>());
        // A PUT with a URL from before the deletion still reaches the store.
        let arrived = app.put(&late.json["upload"], vec![1]).await;
        assert_ne!(arrived, StatusCode::OK, "other bytes than declared");
        assert_nothing_is_left_after(&app, &ada.id).await;
    }
}

/// A PUT whose URL outlives the account stores its bytes again; they are removed once the URL has expired.
#[tokio::test]
async fn late_bytes_are_removed_with_their_tombstone() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("late.png", "image/png", &bytes).await;
    assert_eq!(delete_account(&ada, PASSWORD).await.status, 204);
    sweep_all(&app, OffsetDateTime::now_utc()).await;
    assert_nothing_is_left(&app, &ada.id).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(keys_of(&app, &ada.id).await.len(), 1);
    let users = app.db.collection::<Document>("users");
    let record =
        users.find_one(doc! { "_id": &ada.id }).await.unwrap().expect("the account record stays until its bytes are deleted");
    assert!(record.contains_key("deletedAt") && !record.contains_key("email"), "{record}");
    sweep_all(&app, later()).await;
    assert_forgotten(&app, &ada.id).await;
}

/// Covers deleted accounts and tombstones whose time in the sweeper's queue is unreadable.
#[tokio::test]
async fn damaged_time_in_the_queue_does_not_stop_account_deletion() {
    let app = TestApp::start().await;
    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    let times = [Bson::Null, "damaged".into(), 7.into(), 7.5.into(), true.into(), Bson::MinKey, Bson::MaxKey, doc! {}.into()];
    let mut deleted = Vec::new();
    for due in times.into_iter().map(|due| doc! { "$set": { "due": due } }).chain([doc! { "$unset": { "due": "" } }]) {
        let ada = app.user().await;
        let image = ada.upload("mine.png", "image/png", &unique_png()).await;
        assert_eq!(delete_account(&ada, PASSWORD).await.status, 204);
        sweep_all(&app, OffsetDateTime::now_utc()).await;
        users.update_one(doc! { "_id": &ada.id }, due.clone()).await.unwrap();
        images.update_one(doc! { "_id": image["id"].as_str().unwrap() }, due).await.unwrap();
        deleted.push(ada);
    }
    // The sweeper of a second server finds the damaged records and gives them a time.
    let second_server = TestApp::start_second_server(&app, |config| config.sweep.schedule = SweepSchedule::Prompt).await;
    let is_undated = doc! { "$not": { "$type": "date" } };
    let undated_images = doc! { "state": "deleting", "due": is_undated.clone() };
    let undated_users = doc! { "deletedAt": { "$exists": true }, "due": is_undated };
    eventually("all records have a time", async || {
        let images = images.count_documents(undated_images.clone()).await.unwrap();
        images + users.count_documents(undated_users.clone()).await.unwrap() == 0
    })
    .await;
    drop(second_server);
    sweep_all(&app, later()).await;
    sweep_all(&app, later() + Duration::from_secs(60 * 60)).await;
    for ada in &deleted {
        assert_forgotten(&app, &ada.id).await;
    }
}

/// Covers unreadable records: of the account's own images, and of another account that is being deleted.
#[tokio::test]
async fn damaged_records_do_not_stop_account_deletion() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    for n in 0..12 {
        users
            .insert_one(doc! { "_id": n, "due": mongodb::bson::DateTime::from_millis(0), "deletedAt": "damaged" })
            .await
            .unwrap();
    }
    let (ready, open) =
        (ada.upload("mine.png", "image/png", &unique_png()).await, ada.open_upload("b.png", "image/png", &unique_png()).await);
    for (id, damage) in [(ready["id"].as_str().unwrap(), doc! { "sha256": "damaged" }), (open.id(), doc! { "size": "damaged" })] {
        images.update_one(doc! { "_id": id }, doc! { "$set": damage }).await.unwrap();
    }
    for caller in [&ada, &eve] {
        assert_eq!(delete_account(caller, PASSWORD).await.status, 204);
    }
    sweep_all(&app, OffsetDateTime::now_utc()).await;
    sweep_all(&app, OffsetDateTime::now_utc() + Duration::from_secs(60)).await;
    assert_forgotten(&app, &eve.id).await;
    assert_nothing_is_left(&app, &ada.id).await;
    sweep_all(&app, later()).await;
    sweep_all(&app, later() + Duration::from_secs(60 * 60)).await;
    assert_forgotten(&app, &ada.id).await;
}
