//! Covers the unique keys of accounts (collections `emails` and `identities`): keys that a server took before it died without
//! inserting the account, and accounts of an earlier version, which have no key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::json;
use time::OffsetDateTime;
use valet::domain::sweeper::Swept;

use super::{
    app::{Answer, Caller, PASSWORD, TestApp, unique_png},
    mongodb_relay::{command, start_server_behind_relay},
    oidc::provider::{AUDIENCE, Key, Provider},
};

/// Seconds of a minute.
const MINUTE: u64 = 60;

/// Returns the time in `seconds` seconds.
fn after(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(seconds)
}

/// Signs up with [`PASSWORD`].
async fn sign_up(app: &TestApp, email: &str) -> Answer {
    app.anonymous().post("/api/auth/signup", json!({ "email": email, "password": PASSWORD })).await
}

/// Signs in with [`PASSWORD`].
async fn log_in(app: &TestApp, email: &str) -> Answer {
    app.anonymous().post("/api/auth/login", json!({ "email": email, "password": PASSWORD })).await
}

/// Returns the id of the account that has this address.
async fn holder(app: &TestApp, email: &str) -> Option<String> {
    let found = app.db.collection::<Document>("emails").find_one(doc! { "_id": email }).await.unwrap();
    found.map(|found| found.get_str("user").unwrap().to_owned())
}

/// Returns the user's document.
async fn record(app: &TestApp, user: &str) -> Option<Document> {
    app.db.collection::<Document>("users").find_one(doc! { "_id": user }).await.unwrap()
}

/// Takes an address like a server that died a minute ago, before it inserted the account; returns the account's id.
async fn take(app: &TestApp, email: &str) -> String {
    take_at(app, email, DateTime::from_millis(DateTime::now().timestamp_millis() - 60_000)).await
}

/// Inserts the key of an address, taken at `at`, without an account; returns the account's id.
async fn take_at(app: &TestApp, email: &str, at: DateTime) -> String {
    let user = uuid::Uuid::now_v7().to_string();
    let key = doc! { "_id": email, "user": &user, "at": at, "due": at };
    app.db.collection::<Document>("emails").insert_one(key).await.unwrap();
    user
}

/// Changes an account into one of an earlier version: without keys, and not registered.
async fn make_earlier(app: &TestApp, user: &str) {
    for keys in ["emails", "identities"] {
        app.db.collection::<Document>(keys).delete_many(doc! { "user": user }).await.unwrap();
    }
    let unregistered = doc! { "$unset": { "registered": "" } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": user }, unregistered).await.unwrap();
}

/// Sweeps until nothing is left to do.
async fn sweep_all(app: &TestApp, now: OffsetDateTime) {
    while app.sweep(now).await != Swept::default() {}
}

#[tokio::test]
async fn address_of_a_server_that_died_is_taken_over() {
    let app = TestApp::start().await;
    let lost = take(&app, "ada@example.com").await;
    let ada = sign_up(&app, "ada@example.com").await;
    assert_eq!(ada.status, 201, "{ada:?}");
    assert_eq!(holder(&app, "ada@example.com").await.as_deref(), ada.json["user"]["id"].as_str());
    assert_eq!(log_in(&app, "ada@example.com").await.status, 200);
    // The server that took the address first may be slow instead: it cannot insert its account any more.
    assert!(record(&app, &lost).await.unwrap().get_bool("neverInserted").unwrap());
    let late = doc! { "_id": &lost, "emailKey": "late@example.com" };
    assert!(app.db.collection::<Document>("users").insert_one(late).await.is_err());
    sweep_all(&app, after(10 * MINUTE)).await;
    assert_eq!(record(&app, &lost).await, None, "after the insertion must have ended");
    assert_eq!(log_in(&app, "ada@example.com").await.status, 200);
}

/// A sign-up waits while the account of an address may still be inserted.
#[tokio::test]
async fn address_is_not_taken_from_a_sign_up_in_progress() {
    let app = TestApp::start().await;
    // In the future, so that the key is not old on a busy machine before the account is inserted.
    let at = DateTime::from_millis(DateTime::now().timestamp_millis() + 60_000);
    let other = take_at(&app, "ada@example.com", at).await;
    let insert = async {
        // The sign-up finds the address taken, and no account yet.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let user = doc! { "_id": &other, "emailKey": "ada@example.com", "registered": true };
        app.db.collection::<Document>("users").insert_one(user).await.unwrap();
    };
    let (answer, ()) = tokio::join!(sign_up(&app, "ada@example.com"), insert);
    assert_eq!(answer.problem(), (409, "email_taken"));
    assert_eq!(holder(&app, "ada@example.com").await, Some(other));
}

/// Signs up at a server that pauses between taking the address and inserting the account, for so long that the address counts as
/// abandoned; `meanwhile` runs during the pause.
async fn sign_up_slowly(app: &TestApp, email: &str, meanwhile: impl Future<Output = ()>) -> Answer {
    let (paused, mut pauses) = tokio::sync::mpsc::unbounded_channel::<std::sync::mpsc::Sender<()>>();
    let has_paused = AtomicBool::new(false);
    let pause = move |message: &mut [u8]| {
        let inserts = command(message).is_some_and(|command| command.get_str("insert").is_ok_and(|name| name == "users"));
        if inserts && !has_paused.swap(true, Relaxed) {
            let (resume, resumed) = std::sync::mpsc::channel();
            paused.send(resume).unwrap();
            tokio::task::block_in_place(|| resumed.recv().unwrap());
        }
    };
    let slow = start_server_behind_relay(app, Arc::new(pause), Arc::new(|_| {})).await;
    let prevent = async {
        let resume = pauses.recv().await.unwrap();
        let old = DateTime::from_millis(DateTime::now().timestamp_millis() - 60_000);
        let aged = doc! { "$set": { "at": old, "due": old } };
        app.db.collection::<Document>("emails").update_one(doc! { "_id": email }, aged).await.unwrap();
        meanwhile.await;
        resume.send(()).unwrap();
    };
    tokio::join!(sign_up(&slow, email), prevent).0
}

/// The sweeper releases the address of a slow sign-up: no account has it, and the sign-up may be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn prevented_sign_up_is_not_refused_for_an_address_without_an_account() {
    let app = TestApp::start().await;
    let sweep = async {
        app.sweep(after(0)).await;
    };
    let answer = sign_up_slowly(&app, "ada@example.com", sweep).await;
    assert_eq!(answer.problem(), (503, "unavailable"), "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    assert_eq!(holder(&app, "ada@example.com").await, None);
    assert_eq!(sign_up(&app, "ada@example.com").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn prevented_sign_up_is_refused_if_another_account_has_the_address() {
    let app = TestApp::start().await;
    let take_over = async { assert_eq!(sign_up(&app, "ada@example.com").await.status, 201) };
    let answer = sign_up_slowly(&app, "ada@example.com", take_over).await;
    assert_eq!(answer.problem(), (409, "email_taken"), "{answer:?}");
    assert_eq!(log_in(&app, "ada@example.com").await.status, 200);
}

#[tokio::test]
async fn sweeper_releases_addresses_without_an_account() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    take(&app, "lost@example.com").await;
    // Bob's record was lost, but not his images.
    let bob = app.user().await;
    let image = bob.upload("b.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    app.db.collection::<Document>("users").delete_one(doc! { "_id": &bob.id }).await.unwrap();
    let aged = doc! { "$set": { "at": DateTime::from_millis(0) } };
    app.db.collection::<Document>("emails").update_one(doc! { "_id": &bob.email }, aged).await.unwrap();
    sweep_all(&app, after(3 * MINUTE)).await;
    sweep_all(&app, after(10 * MINUTE)).await;
    assert_eq!(holder(&app, "lost@example.com").await, None);
    assert_eq!(holder(&app, &bob.email).await, None);
    assert_eq!(holder(&app, &ada.email).await, Some(ada.id.clone()));
    assert_eq!(app.db.collection::<Document>("users").count_documents(doc! {}).await.unwrap(), 1, "no tombstone is left");
    assert_eq!(app.db_state(&image).await, "ready");
    assert_eq!(app.bucket_keys().await, [app.db_key(&image).await]);
    // The next examination is a month later.
    let key = app.db.collection::<Document>("emails").find_one(doc! { "_id": &ada.email }).await.unwrap().unwrap();
    let due = key.get_datetime("due").unwrap().timestamp_millis() - DateTime::now().timestamp_millis();
    assert!(due > 29 * 24 * 3_600_000, "{due}");
}

/// The database compares the times of keys that have another type, and those of the future.
#[tokio::test]
async fn addresses_with_a_damaged_time_are_released() {
    let app = TestApp::start().await;
    let late = DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000);
    let timestamp = mongodb::bson::Timestamp { time: 7, increment: 1 };
    for (email, at) in [("a@example.com", Bson::from(late)), ("b@example.com", timestamp.into()), ("c@example.com", Bson::Null)] {
        take(&app, email).await;
        let damage = doc! { "$set": { "at": at } };
        app.db.collection::<Document>("emails").update_one(doc! { "_id": email }, damage).await.unwrap();
    }
    sweep_all(&app, after(0)).await;
    for email in ["a@example.com", "b@example.com", "c@example.com"] {
        assert_eq!(holder(&app, email).await, None, "{email}");
    }
}

/// Servers of an earlier version insert and delete accounts without keys, and reject addresses by a unique index.
#[tokio::test]
async fn accounts_of_an_earlier_version_are_found_and_registered() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    make_earlier(&app, &ada.id).await;
    assert_eq!(log_in(&app, &ada.email).await.json["user"]["id"], ada.id.as_str());
    assert_eq!(sign_up(&app, &ada.email).await.problem(), (409, "email_taken"));
    assert_eq!(holder(&app, &ada.email).await, None, "released by the sign-up that the index rejected");
    assert_eq!(log_in(&app, &ada.email).await.status, 200);
    app.sweep(after(0)).await;
    assert_eq!(holder(&app, &ada.email).await, Some(ada.id.clone()));
    assert!(record(&app, &ada.id).await.unwrap().get_bool("registered").unwrap());
    assert_eq!(log_in(&app, &ada.email).await.json["user"]["id"], ada.id.as_str());

    // A server of an earlier version deletes an account, and another user signs up here with its address.
    let ended =
        doc! { "$set": { "deletedAt": DateTime::now(), "due": DateTime::now() }, "$unset": { "email": "", "emailKey": "" } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": &bob.id }, ended).await.unwrap();
    assert_eq!(log_in(&app, &bob.email).await.status, 401);
    assert_eq!(sign_up(&app, &bob.email).await.status, 201, "the address is free at once");
    let new_owner = holder(&app, &bob.email).await.unwrap();
    assert_ne!(new_owner, bob.id);
    sweep_all(&app, after(10 * MINUTE)).await;
    assert_eq!(record(&app, &bob.id).await, None);
    assert_eq!(holder(&app, &bob.email).await, Some(new_owner), "not released with the deleted account");
}

/// A key of an account that was never inserted is not old enough to be taken over.
#[tokio::test]
async fn account_whose_address_is_contended_delays_no_other() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    make_earlier(&app, &ada.id).await;
    make_earlier(&app, &bob.id).await;
    take_at(&app, &ada.email, DateTime::from_millis(DateTime::now().timestamp_millis() + 100_000)).await;
    assert_eq!(app.sweep(after(0)).await.failed, 1);
    let is_registered = async |user: &str| record(&app, user).await.unwrap().get_bool("registered").unwrap_or(false);
    assert!(is_registered(&bob.id).await && !is_registered(&ada.id).await);
    assert_eq!(holder(&app, &bob.email).await, Some(bob.id.clone()));
}

#[tokio::test]
async fn address_of_a_deleted_account_is_forgotten() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    assert_eq!(ada.post("/api/auth/me/delete", json!({ "password": PASSWORD })).await.status, 204);
    app.sweep(after(0)).await;
    assert_eq!(holder(&app, &ada.email).await, None);
}

#[tokio::test]
async fn identities_of_an_earlier_version_are_found_and_registered() {
    let key = Key::ed();
    let provider = Provider::start(&[("ed", &key)]).await;
    let settings = valet::config::OidcProvider::new(provider.issuer.clone(), vec![AUDIENCE.to_owned()]);
    let app = TestApp::start_with(|config| config.accounts.provider = Some(settings.clone())).await;
    let token = key.token("ed", &provider.claims("ada"));
    let account_of = async |app: &TestApp| {
        let ada = Caller { token: Some(token.clone()), ..app.anonymous() };
        ada.get("/api/auth/me").await.json["id"].as_str().unwrap().to_owned()
    };
    let ada = account_of(&app).await;
    let identities = app.db.collection::<Document>("identities");
    assert_eq!(identities.count_documents(doc! { "user": &ada }).await.unwrap(), 1);
    make_earlier(&app, &ada).await;
    // Starts servers that have not cached the account of the token.
    let start = async || TestApp::start_second_server(&app, |config| config.accounts.provider = Some(settings.clone())).await;
    assert_eq!(account_of(&start().await).await, ada);
    app.sweep(after(0)).await;
    assert_eq!(identities.count_documents(doc! { "user": &ada }).await.unwrap(), 1);
    assert_eq!(account_of(&start().await).await, ada);
    assert_eq!(app.db.collection::<Document>("users").count_documents(doc! {}).await.unwrap(), 1);
}
