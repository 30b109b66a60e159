//! Covers sessions: refresh, logout, password change, and the tokens that end with them.
//!
//! Routes: POST /api/auth/refresh, POST /api/auth/logout, GET /api/auth/sessions, DELETE /api/auth/sessions/{id}.

mod grace;
mod passwords;

use std::time::{Duration, Instant};

use mongodb::bson::{DateTime, Document, doc};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::app::{Answer, Caller, PASSWORD, TestApp};

/// Password after a change.
const OTHER_PASSWORD: &str = "seven green kites over the bay";

/// Signs in; returns the caller, the refresh token and the answer.
async fn log_in<'a>(app: &'a TestApp, email: &str, password: &str) -> (Caller<'a>, String, Answer) {
    let answer = app.anonymous().post("/api/auth/login", json!({ "email": email, "password": password })).await;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let caller = Caller {
        app,
        token: Some(text(&answer.json["token"])),
        id: text(&answer.json["user"]["id"]),
        email: email.to_owned(),
        address: None,
    };
    let refresh = text(&answer.json["refreshToken"]);
    (caller, refresh, answer)
}

/// Creates a user with a separate session; returns the caller and the refresh token.
async fn signed_in(app: &TestApp) -> (Caller<'_>, String) {
    let user = app.user().await;
    let (caller, refresh, answer) = log_in(app, &user.email, PASSWORD).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    (caller, refresh)
}

/// Sends a refresh token.
async fn refresh(app: &TestApp, token: &str) -> Answer {
    app.anonymous().post("/api/auth/refresh", json!({ "refreshToken": token })).await
}

/// Exchanges a refresh token; returns the next one.
async fn refreshed(app: &TestApp, token: &str) -> String {
    let answer = refresh(app, token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["refreshToken"].as_str().unwrap().to_owned()
}

/// Returns status and problem code of a read of the account.
async fn read_account(caller: &Caller<'_>) -> (u16, String) {
    let answer = caller.get("/api/auth/me").await;
    (answer.status, answer.code().to_owned())
}

/// Returns status and problem code of an ended session.
fn session_ended() -> (u16, String) {
    (401, "session_ended".to_owned())
}

/// Returns the session id in the caller's token.
fn sid(caller: &Caller<'_>) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = URL_SAFE_NO_PAD.decode(caller.token.as_ref().unwrap().split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<serde_json::Value>(&claims).unwrap()["sid"].as_str().unwrap().to_owned()
}

/// Returns the collection of sessions.
fn documents(app: &TestApp) -> mongodb::Collection<Document> {
    app.db.collection("sessions")
}

/// Moves the last exchange `ago` into the past.
async fn db_age_rotation(app: &TestApp, id: &str, ago: Duration) {
    let at = DateTime::from_system_time(std::time::SystemTime::now() - ago);
    let done = documents(app).update_one(doc! { "_id": id }, doc! { "$set": { "parent.at": at } }).await.unwrap();
    assert_eq!(done.matched_count, 1);
}

#[tokio::test]
async fn t5_refresh_token_is_random_and_only_its_hash_is_stored() {
    let app = TestApp::start().await;
    let (ada, first) = signed_in(&app).await;
    let answer = refresh(&app, &first).await;
    assert_eq!((answer.status, answer.json["tokenType"].as_str()), (200, Some("Bearer")));
    assert_eq!((answer.json["expiresIn"].as_u64(), answer.json["refreshExpiresIn"].as_u64()), (Some(7200), Some(2_592_000)));
    assert_eq!(answer.json["user"]["id"], ada.id.as_str());
    let second = answer.json["refreshToken"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(first.len(), 66, "a version byte, an id of 16 bytes and 32 random ones");
    let stored = documents(&app).find_one(doc! { "_id": sid(&ada) }).await.unwrap().unwrap();
    let dump = mongodb::bson::serialize_to_vec(&stored).unwrap();
    let has = |needle: &[u8]| dump.windows(needle.len()).any(|window| window == needle);
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    for token in [&first, &second] {
        let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
        assert!(!has(token.as_bytes()) && !has(&bytes[17..]), "the token is not in the database");
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        assert!(has(hash.as_ref()), "the token's hash is in the database");
    }
    let fresh = Caller { token: answer.json["token"].as_str().map(str::to_owned), ..ada.clone() };
    assert_eq!(read_account(&fresh).await.0, 200);
}

#[tokio::test]
async fn t6_token_spent_before_the_grace_period_ends_the_session() {
    let app = TestApp::start().await;
    let (ada, first) = signed_in(&app).await;
    let second = refreshed(&app, &first).await;
    // Longer than the grace period of 300 s.
    db_age_rotation(&app, &sid(&ada), Duration::from_secs(301)).await;
    assert_eq!(refresh(&app, &first).await.problem(), (401, "session_ended"));
    assert_eq!(refresh(&app, &second).await.problem(), (401, "session_ended"), "the newest token is rejected too");
    assert_eq!(read_account(&ada).await, session_ended(), "access tokens are rejected too");
    assert_eq!(documents(&app).count_documents(doc! { "_id": sid(&ada) }).await.unwrap(), 0);
}

#[tokio::test]
async fn t8_hundred_concurrent_refreshes_leave_one_valid_token() {
    let app = TestApp::start().await;
    let second_server = TestApp::start_second_server(&app, |_| {}).await;
    let (ada, first) = signed_in(&app).await;
    let answers =
        futures_util::future::join_all((0..100).map(|n| refresh(if n % 2 == 0 { &app } else { &second_server }, &first))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let children: std::collections::BTreeSet<_> = answers.iter().map(|answer| answer.json["refreshToken"].to_string()).collect();
    assert_eq!(children.len(), 1);
    let stored = documents(&app).find_one(doc! { "_id": sid(&ada) }).await.unwrap().unwrap();
    assert_eq!(stored.get_i64("generation").unwrap(), 1);
    refreshed(&app, answers[0].json["refreshToken"].as_str().unwrap()).await;
}

#[tokio::test]
async fn t9_sessions_end_by_idle_time_and_by_age() {
    let app = TestApp::start().await;
    let set_time = async |caller: &Caller<'_>, field: &str, from_now: i64| {
        let at = DateTime::from_millis(DateTime::now().timestamp_millis() + from_now * 1000);
        documents(&app).update_one(doc! { "_id": sid(caller) }, doc! { "$set": { field: at } }).await.unwrap();
    };
    let (idle, token) = signed_in(&app).await;
    set_time(&idle, "expiresAt", -1).await;
    assert_eq!(read_account(&idle).await, session_ended());
    assert_eq!(refresh(&app, &token).await.problem(), (401, "session_ended"));

    let (old, token) = signed_in(&app).await;
    set_time(&old, "endsAt", 100).await;
    let answer = refresh(&app, &token).await;
    let seconds_left = answer.json["refreshExpiresIn"].as_u64().unwrap();
    assert!((90..=100).contains(&seconds_left), "a refresh does not prolong the session past its end: {seconds_left}");
}

#[tokio::test]
async fn t9_logging_out_ends_the_session_and_can_be_repeated() {
    let app = TestApp::start().await;
    let (ada, first) = signed_in(&app).await;
    let (other, other_token, _) = log_in(&app, &ada.email, PASSWORD).await;
    let second = refreshed(&app, &first).await;
    assert_eq!(read_account(&ada).await.0, 200, "the session cache must not outlive the session");
    let log_out = async |token: &str| {
        let answer = app.anonymous().post("/api/auth/logout", json!({ "refreshToken": token })).await;
        (answer.status, answer.code().to_owned())
    };
    assert_eq!(log_out(&second).await.0, 204);
    assert_eq!(read_account(&ada).await, session_ended());
    assert_eq!(refresh(&app, &second).await.problem(), (401, "session_ended"));
    assert_eq!(log_out(&second).await.0, 204);
    assert_eq!(log_out(&first).await.0, 204);
    for garbage in ["", "x", &second[1..]] {
        assert_eq!(log_out(garbage).await, (401, "token_invalid".to_owned()));
    }
    assert_eq!(read_account(&other).await.0, 200, "the other session continues");
    refreshed(&app, &other_token).await;
}

#[tokio::test]
async fn t9_token_is_rejected_on_every_server_within_thirty_seconds() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let (ada, token) = signed_in(&app).await;
    let ada_on_other = Caller { app: &other, ..ada.clone() };
    assert_eq!((read_account(&ada).await.0, read_account(&ada_on_other).await.0), (200, 200));
    assert_eq!(app.anonymous().post("/api/auth/logout", json!({ "refreshToken": token })).await.status, 204);
    let began = Instant::now();
    assert_eq!(read_account(&ada).await, session_ended());
    // The other server caches the session for 10 s.
    while read_account(&ada_on_other).await.0 == 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "still alive after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(read_account(&ada_on_other).await, session_ended());
}

/// Inserts a TCP relay between the server and its database; cancelling the returned token closes the relay's connections.
fn insert_relay(config: &mut valet::config::Config) -> CancellationToken {
    let uri = config.mongo.uri.expose_secret().to_owned();
    let host = uri.trim_start_matches("mongodb://").split(['/', '?']).next().unwrap().rsplit('@').next().unwrap().to_owned();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    config.mongo.uri = uri.replace(&host, &listener.local_addr().unwrap().to_string()).into();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let cut = CancellationToken::new();
    let close = cut.clone();
    tokio::spawn(cut.clone().run_until_cancelled_owned(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(&host).await.unwrap();
            let copy = async move { tokio::io::copy_bidirectional(&mut near, &mut far).await };
            tokio::spawn(close.clone().run_until_cancelled_owned(copy));
        }
    }));
    cut
}

#[tokio::test]
async fn t9_session_that_cannot_be_read_is_not_reported_as_ended() {
    let mut cut = None;
    let app = TestApp::start_with(|config| cut = Some(insert_relay(config))).await;
    let (known, _) = signed_in(&app).await;
    let (unknown, _, _) = log_in(&app, &known.email, PASSWORD).await;
    assert_eq!(known.get("/api/auth/sessions").await.status, 200);
    cut.unwrap().cancel();
    let answer = unknown.get("/api/auth/sessions").await;
    assert_eq!(answer.problem(), (503, "unavailable"), "{answer:?}");
}

#[tokio::test]
async fn t12_tokens_of_one_kind_are_not_accepted_as_the_other() {
    let app = TestApp::start().await;
    let (ada, token) = signed_in(&app).await;
    let access = ada.token.clone().unwrap();
    assert_eq!(refresh(&app, &access).await.problem(), (401, "token_invalid"));
    let as_access = Caller { token: Some(token.clone()), ..ada.clone() };
    assert_eq!(read_account(&as_access).await, (401, "token_invalid".to_owned()));
    for garbage in ["", "a", "....", &token[..60], &format!("{token}A"), &"A".repeat(66)] {
        assert_eq!(refresh(&app, garbage).await.problem(), (401, "token_invalid"), "{garbage}");
    }
    assert_eq!(
        app.anonymous().post("/api/auth/refresh", json!({ "refreshToken": { "$ne": "" } })).await.status,
        400,
        "an object"
    );
    refreshed(&app, &token).await;
}

#[tokio::test]
async fn t9_owner_lists_sessions_and_ends_that_of_a_lost_phone() {
    let app = TestApp::start().await;
    let (ada, _) = signed_in(&app).await;
    let body = json!({ "email": ada.email, "password": PASSWORD });
    let send = |request: reqwest::RequestBuilder| request.json(&body).header("user-agent", "Phone/1.0 (lost)");
    let phone = app.anonymous().send(reqwest::Method::POST, "/api/auth/login", send).await;
    let phone = Caller { token: phone.json["token"].as_str().map(str::to_owned), ..ada.clone() };
    assert_eq!(read_account(&phone).await.0, 200);

    let listed = ada.get("/api/auth/sessions").await;
    assert_eq!(listed.status, 200);
    let sessions = listed.json["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 3, "signed up, logged in, and the phone: {listed:?}");
    let ids: Vec<_> = sessions.iter().map(|session| session["id"].as_str().unwrap()).collect();
    assert_eq!(ids[..2], [sid(&phone), sid(&ada)], "the newest first");
    let current: Vec<_> = sessions.iter().map(|session| session["current"].as_bool().unwrap()).collect();
    assert_eq!(current, [false, true, false]);
    assert_eq!(sessions[0]["device"], "Phone/1.0 (lost)");
    assert!(sessions[1].get("device").is_none(), "this client sends no User-Agent");
    for time in ["createdAt", "lastUsedAt", "expiresAt"] {
        assert_eq!(sessions[0][time].as_str().unwrap().len(), 20, "{time}");
    }

    let bob = app.user().await;
    let path = format!("/api/auth/sessions/{}", sid(&phone));
    assert_eq!(bob.delete(&path).await.problem(), (404, "not_found"));
    assert_eq!(bob.delete("/api/auth/sessions/x").await.problem(), (404, "not_found"));
    assert_eq!(read_account(&phone).await.0, 200);
    assert_eq!(ada.delete(&path).await.status, 204);
    assert_eq!(read_account(&phone).await, session_ended());
    assert_eq!(ada.delete(&path).await.problem(), (404, "not_found"));
    assert_eq!(ada.get("/api/auth/sessions").await.json["sessions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a10_changed_password_ends_the_other_sessions() {
    let app = TestApp::start().await;
    let (ada, token) = signed_in(&app).await;
    let (other, other_token, _) = log_in(&app, &ada.email, PASSWORD).await;
    assert_eq!((read_account(&ada).await.0, read_account(&other).await.0), (200, 200));
    let change = async |current: &str, new: &str| {
        let answer = ada.put("/api/auth/password", json!({ "currentPassword": current, "newPassword": new })).await;
        (answer.status, answer.code().to_owned(), answer.json["errors"][0]["field"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(change("another password", OTHER_PASSWORD).await, (401, "invalid_credentials".into(), String::new()));
    for weak in ["short", "passwordpassword", &format!("{}1", ada.email)] {
        assert_eq!(change(PASSWORD, weak).await, (422, "weak_password".into(), "newPassword".into()), "A4: {weak}");
    }
    assert_eq!(read_account(&other).await.0, 200, "a rejected change ends no session");
    assert_eq!(change(PASSWORD, OTHER_PASSWORD).await.0, 204);
    assert_eq!(read_account(&other).await, session_ended());
    assert_eq!(refresh(&app, &other_token).await.problem(), (401, "session_ended"));
    assert_eq!(read_account(&ada).await.0, 200, "the calling session stays active");
    refreshed(&app, &token).await;
    assert_eq!(log_in(&app, &ada.email, PASSWORD).await.2.problem(), (401, "invalid_credentials"));
    assert_eq!(log_in(&app, &ada.email, OTHER_PASSWORD).await.2.status, 200);
    assert_eq!(app.anonymous().put("/api/auth/password", json!({})).await.problem(), (401, "token_missing"));
}

#[tokio::test]
async fn a1_weak_hash_is_replaced_at_the_next_login() {
    use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher};
    let app = TestApp::start().await;
    let ada = app.user().await;
    let users = app.db.collection::<Document>("users");
    let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(4096, 1, 1, None).unwrap());
    let planted = weak.hash_password(PASSWORD.as_bytes()).unwrap().to_string();
    users.update_one(doc! { "_id": &ada.id }, doc! { "$set": { "passwordHash": &planted } }).await.unwrap();
    let hash = async || {
        let user = users.find_one(doc! { "_id": &ada.id }).await.unwrap().unwrap();
        user.get_str("passwordHash").unwrap().to_owned()
    };
    assert_eq!(log_in(&app, &ada.email, "another password").await.2.status, 401);
    assert_eq!(hash().await, planted, "only the right password can be hashed again");
    assert_eq!(log_in(&app, &ada.email, PASSWORD).await.2.status, 200);
    let replaced = hash().await;
    assert!(replaced.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{replaced}");
    assert_eq!(log_in(&app, &ada.email, PASSWORD).await.2.status, 200);
    assert_eq!(hash().await, replaced);
    assert_eq!(read_account(&ada).await.0, 200, "the replacement of the hash ends no session");
}

#[tokio::test]
async fn indexes_of_earlier_versions_are_dropped() {
    let app = TestApp::start().await;
    let sessions = app.db.collection::<mongodb::bson::Document>("sessions");
    let options = mongodb::options::IndexOptions::builder().name("user".to_owned()).build();
    let outdated = mongodb::IndexModel::builder().keys(mongodb::bson::doc! { "user": 1 }).options(options).build();
    sessions.create_index(outdated).await.unwrap();
    for _ in 0..2 {
        valet::state::AppState::connect(&app.config).await.unwrap();
        assert_eq!(sessions.list_index_names().await.unwrap(), ["_id_", "expiresAt", "userLastUsed"]);
    }
}
