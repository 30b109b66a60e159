//! Covers tokens for the app's own users: the accounts that they create, their permissions, and their end.
//!
//! Routes: POST /api/admin/tokens.

use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use valet::model::Scope;

use super::app::{Answer, Caller, PASSWORD, TestApp, unique_png};

/// Number of repetitions of a race.
const ROUNDS: usize = 30;

/// Requests a token for a user of the app.
async fn create(key: &Caller<'_>, body: Value) -> Answer {
    key.post("/api/admin/tokens", body).await
}

/// Signs in the app's user of this subject.
async fn sign_in<'a>(app: &'a TestApp, subject: &str) -> Caller<'a> {
    let answer = create(&app.create_service_key(&[Scope::TokensCreate]).await, json!({ "subject": subject })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Caller { token: Some(text(&answer.json["token"])), id: text(&answer.json["user"]["id"]), ..app.anonymous() }
}

#[tokio::test]
async fn subject_is_a_user_with_the_whole_api() {
    let app = TestApp::start().await;
    let key = app.create_service_key(&[Scope::TokensCreate]).await;
    let first = create(&key, json!({ "subject": "7", "expiresIn": 600, "email": "Ada@example.com" })).await;
    assert_eq!(
        (first.status, first.json["expiresIn"].as_u64(), first.json["tokenType"].as_str()),
        (200, Some(600), Some("Bearer"))
    );
    assert!(first.json.get("refreshToken").is_none() && first.json["user"]["email"] == "Ada@example.com", "{first:?}");
    let (ada, again, bob) = (sign_in(&app, "7").await, sign_in(&app, "7").await, sign_in(&app, "07").await);
    assert!(ada.id == again.id && ada.id == first.json["user"]["id"] && ada.id != bob.id);
    let image = ada.upload("sea.png", "image/png", &unique_png()).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    assert_eq!((again.get(&path).await.status, bob.get(&path).await.problem()), (200, (404, "not_found")));
    // The list has a session for each token; ending one does not end the others.
    let sessions = again.get("/api/auth/sessions").await;
    let listed = sessions.json["sessions"].as_array().unwrap();
    assert_eq!(listed.len(), 3, "{sessions:?}");
    let current = listed.iter().find(|session| session["current"] == true).unwrap();
    let ended = again.delete(&format!("/api/auth/sessions/{}", current["id"].as_str().unwrap())).await;
    assert_eq!((ended.status, again.get("/api/auth/me").await.problem()), (204, (401, "session_ended")));
    assert_eq!(ada.get("/api/auth/me").await.json["email"], "Ada@example.com", "a request without an address does not remove it");
    let stored = app.db.collection::<Document>("sessions").find_one(doc! { "user": &ada.id }).await.unwrap().unwrap();
    assert!(stored.get_str("issuedBy").is_ok() && !stored.contains_key("tokenKey"), "{stored:?}");
    // The account can only be deleted with a young token; after that the subject gets a new account.
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "seven green kites over the bay" });
    assert_eq!(ada.put("/api/auth/password", change).await.problem(), (403, "local_accounts_only"));
    let aged = doc! { "$set": { "createdAt": mongodb::bson::DateTime::from_millis(0) } };
    app.db.collection::<Document>("sessions").update_many(doc! { "user": &ada.id }, aged).await.unwrap();
    assert_eq!(ada.post("/api/auth/me/delete", json!({})).await.problem(), (401, "token_too_old"));
    let young = sign_in(&app, "7").await;
    assert_eq!(young.post("/api/auth/me/delete", json!({})).await.status, 204);
    assert_eq!(ada.get("/api/auth/me").await.problem(), (401, "session_ended"));
    let new = sign_in(&app, "7").await;
    assert!(new.id != ada.id && new.get("/api/images/gallery").await.json["images"] == json!([]));
}

#[tokio::test]
async fn address_of_an_app_user_is_a_label() {
    let app = TestApp::start().await;
    let (key, ada) = (app.create_service_key(&Scope::ALL).await, app.user().await);
    let taken = create(&key, json!({ "subject": "1", "email": ada.email })).await;
    assert!(taken.status == 200 && taken.json["user"]["id"] != ada.id, "another user of the same address: {taken:?}");
    let log_in = json!({ "email": ada.email, "password": PASSWORD });
    assert_eq!(app.anonymous().post("/api/auth/login", log_in).await.json["user"]["id"], ada.id);
    let body = json!({ "subject": "2", "email": "new@example.com" });
    assert_eq!(create(&key, body.clone()).await.status, 200);
    let sign_up = json!({ "email": "new@example.com", "password": PASSWORD });
    assert_eq!(app.anonymous().post("/api/auth/signup", sign_up).await.status, 201, "the address is free for a local account");
    let moved = create(&key, json!({ "subject": "2", "email": "other@example.com" })).await;
    assert_eq!(moved.json["user"]["email"], "other@example.com");
    let found = key.get("/api/admin/users?email=OTHER@example.com").await;
    assert_eq!(found.json["users"][0]["subject"], "2", "{found:?}");
    let answer = key.get(&format!("/api/admin/users?email={}", ada.email)).await;
    assert_eq!(answer.json["users"].as_array().unwrap().len(), 2, "{answer:?}");
}

#[tokio::test]
async fn unacceptable_values_are_rejected_and_create_nothing() {
    let app = TestApp::start().await;
    let key = app.create_service_key(&[Scope::TokensCreate]).await;
    for (body, code) in [
        (json!({ "subject": "" }), "invalid_subject"),
        (json!({ "subject": " 7" }), "invalid_subject"),
        (json!({ "subject": "a\u{0}" }), "invalid_subject"),
        (json!({ "subject": "a".repeat(256) }), "invalid_subject"),
        (json!({ "subject": "7", "expiresIn": 59 }), "invalid_lifetime"),
        (json!({ "subject": "7", "expiresIn": -60 }), "invalid_lifetime"),
        (json!({ "subject": "7", "expiresIn": 86_401 }), "invalid_lifetime"),
        (json!({ "subject": "7", "email": "ada" }), "invalid_email"),
    ] {
        assert_eq!(create(&key, body.clone()).await.problem(), (422, code), "{body}");
    }
    for body in [json!({}), json!({ "subject": 7 }), json!({ "subject": "7", "email": null }), json!({ "subject": "7", "x": 1 })]
    {
        assert_eq!(create(&key, body.clone()).await.problem(), (400, "invalid_request"), "{body}");
    }
    assert_eq!(app.db.collection::<Document>("users").count_documents(doc! {}).await.unwrap(), 0);
    for seconds in [60, 86_400] {
        assert_eq!(create(&key, json!({ "subject": "7", "expiresIn": seconds })).await.json["expiresIn"], seconds);
    }
}

/// Two servers sign in the same new user at the same time, many times, also while the account is being deleted.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_tokens_for_one_new_subject_create_one_user() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let key = app.create_service_key(&Scope::ALL).await;
    let on_other = Caller { app: &other, ..key.clone() };
    for round in 0..ROUNDS {
        let subject = format!("twin {round}");
        let calls = (0..6).map(|n| create(if n % 2 == 0 { &key } else { &on_other }, json!({ "subject": subject })));
        let answers = join_all(calls).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let id = answers[0].json["user"]["id"].as_str().unwrap();
        assert!(answers.iter().all(|answer| answer.json["user"]["id"] == id), "{answers:?}");
        let users = app.db.collection::<Document>("users");
        let identity = doc! { "identity.issuer": "app", "identity.subject": &subject };
        assert_eq!(users.count_documents(identity).await.unwrap(), 1);
        let path = format!("/api/admin/users/{id}");
        let (deleted, created) = tokio::join!(key.delete(&path), create(&on_other, json!({ "subject": subject })));
        assert_eq!((deleted.status, created.status), (204, 200), "{created:?}");
        // The token belongs to the deleted user and is rejected, or to a new user and is accepted.
        let token = created.json["token"].as_str().map(str::to_owned);
        let me = Caller { token, ..app.anonymous() }.get("/api/auth/me").await;
        assert_eq!(me.status == 200, created.json["user"]["id"] != id, "{me:?}");
    }
}

#[tokio::test]
async fn tokens_work_without_local_accounts_and_without_an_identity_provider() {
    let with_local = TestApp::start().await;
    let local = with_local.user().await;
    let app = TestApp::start_second_server(&with_local, |config| config.accounts.local = false).await;
    let ada = sign_in(&app, "7").await;
    assert_eq!(ada.get("/api/auth/me").await.status, 200);
    let uppy = format!("/uppy/{}/s3/params?filename=a.png&type=image/png", ada.uppy().await);
    assert_eq!(app.anonymous().get(&uppy).await.status, 200);
    let on_both = Caller { app: &with_local, ..ada.clone() };
    assert_eq!(on_both.get("/api/auth/me").await.json["id"], ada.id);
    let local_on_app = Caller { app: &app, ..local.clone() };
    assert_eq!(local_on_app.get("/api/auth/me").await.problem(), (401, "token_invalid"), "a local account's token");
    let key = app.create_service_key(&Scope::ALL).await;
    assert_eq!(key.delete(&format!("/api/admin/users/{}", ada.id)).await.status, 204);
    assert_eq!(ada.get("/api/auth/me").await.problem(), (401, "session_ended"));
    assert_eq!(app.anonymous().get(&uppy).await.problem(), (401, "session_ended"));
}
