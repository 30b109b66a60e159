//! Covers password changes: one write ends the other sessions, even if their records are not deleted.
//!
//! Routes: PUT /api/auth/password.

use futures_util::future::join_all;

use super::{
    Answer, Caller, DateTime, Document, OTHER_PASSWORD, PASSWORD, TestApp, doc, documents, json, log_in, read_account, refresh,
    refreshed, session_ended, sid, signed_in,
};

/// Returns the body of a password change.
fn body(current: &str, new: &str) -> serde_json::Value {
    json!({ "currentPassword": current, "newPassword": new })
}

/// Records of ended sessions are restored, as if their deletion had failed: the sessions stay ended.
#[tokio::test]
async fn a10_sessions_end_by_the_password_change_not_by_deleting_their_records() {
    let app = TestApp::start().await;
    let (ada, own_token) = signed_in(&app).await;
    let (other, other_token, _) = log_in(&app, &ada.email, PASSWORD).await;
    let (old, old_token, _) = log_in(&app, &ada.email, PASSWORD).await;
    let without_version = doc! { "$unset": { "passwordVersion": "" } };
    documents(&app).update_one(doc! { "_id": sid(&old) }, without_version).await.unwrap();
    assert_eq!(
        (read_account(&other).await.0, read_account(&old).await.0),
        (200, 200),
        "a session without a password version is active"
    );
    let mut records = Vec::new();
    for caller in [&other, &old] {
        records.push(documents(&app).find_one(doc! { "_id": sid(caller) }).await.unwrap().unwrap());
    }
    assert_eq!(ada.put("/api/auth/password", body(PASSWORD, OTHER_PASSWORD)).await.status, 204);
    documents(&app).insert_many(records).await.unwrap();
    let second_server = TestApp::start_second_server(&app, |_| {}).await;
    for (caller, token) in [(&other, &other_token), (&old, &old_token)] {
        let on_other = Caller { app: &second_server, ..caller.clone() };
        assert_eq!((read_account(caller).await, read_account(&on_other).await), (session_ended(), session_ended()));
        assert_eq!(refresh(&app, token).await.problem(), (401, "session_ended"));
    }
    let listed = ada.get("/api/auth/sessions").await;
    let ids: Vec<_> = listed.json["sessions"].as_array().unwrap().iter().map(|session| session["id"].clone()).collect();
    assert_eq!(ids, [sid(&ada)], "ended sessions are not listed");
    // The calling session stays active on the other server too, and through a second change of its own; another session's change
    // ends it.
    let ada_on_other = Caller { app: &second_server, ..ada.clone() };
    assert_eq!((read_account(&ada).await.0, read_account(&ada_on_other).await.0), (200, 200));
    let own_token = refreshed(&app, &own_token).await;
    assert_eq!(ada.put("/api/auth/password", body(OTHER_PASSWORD, PASSWORD)).await.status, 204);
    assert_eq!(read_account(&ada).await.0, 200);
    let (third, _, _) = log_in(&app, &ada.email, PASSWORD).await;
    let record = documents(&app).find_one(doc! { "_id": sid(&ada) }).await.unwrap().unwrap();
    assert_eq!(third.put("/api/auth/password", body(PASSWORD, OTHER_PASSWORD)).await.status, 204);
    documents(&app).insert_one(record).await.unwrap();
    assert_eq!((read_account(&third).await.0, read_account(&ada).await), (200, session_ended()));
    assert_eq!(refresh(&app, &own_token).await.problem(), (401, "session_ended"));
}

#[tokio::test]
async fn repeated_password_change_is_answered_like_the_first() {
    let app = TestApp::start().await;
    let (ada, _) = signed_in(&app).await;
    let change = body(PASSWORD, OTHER_PASSWORD);
    for _ in 0..3 {
        assert_eq!(ada.put("/api/auth/password", change.clone()).await.status, 204);
    }
    let user = app.db.collection::<Document>("users").find_one(doc! { "_id": &ada.id }).await.unwrap().unwrap();
    assert_eq!(user.get_i64("passwordVersion").unwrap(), 1, "the password was changed once");
    // The repeat reveals the password to no other session, and accepts no wrong one from this session.
    let (other, _, _) = log_in(&app, &ada.email, OTHER_PASSWORD).await;
    assert_eq!(other.put("/api/auth/password", change.clone()).await.problem(), (401, "invalid_credentials"));
    let guess = ada.put("/api/auth/password", body(PASSWORD, "another seven green kites")).await;
    assert_eq!(guess.problem(), (401, "invalid_credentials"));
    // The repeat is rejected after another session has changed the password.
    assert_eq!(other.put("/api/auth/password", body(OTHER_PASSWORD, "nine brown owls in a tree")).await.status, 204);
    let (third, _, _) = log_in(&app, &ada.email, "nine brown owls in a tree").await;
    assert_eq!(third.put("/api/auth/password", change).await.problem(), (401, "invalid_credentials"));
}

/// The server verifies both passwords of a request, because it may be a repeat, and counts both as attempts: three requests use up
/// a limit of six.
#[tokio::test]
async fn repeat_counts_as_a_password_attempt() {
    let app = TestApp::start_with(|config| {
        config.limits = valet::config::RateLimits::default();
        config.limits.login_failures = valet::config::Rate::new(6, 600);
    })
    .await;
    let ada = app.user().await;
    assert_eq!(ada.put("/api/auth/password", body(PASSWORD, OTHER_PASSWORD)).await.status, 204);
    let mut guesses = 0;
    while ada.put("/api/auth/password", body("no such password at all", &format!("guess number {guesses} of many"))).await.status
        == 401
    {
        guesses += 1;
        assert!(guesses < 6, "two passwords were verified for one counted attempt");
    }
    assert_eq!(guesses, 3);
}

/// Changes the password to [`OTHER_PASSWORD`]. Repeats this while the server rejects it because other passwords are checked: a busy
/// machine takes longer for them than a change waits for a permit.
async fn change(ada: &Caller<'_>) -> Answer {
    let began = std::time::Instant::now();
    loop {
        let answer = ada.put("/api/auth/password", body(PASSWORD, OTHER_PASSWORD)).await;
        let is_busy = answer.status == 503 && answer.text.contains("Too many passwords");
        if !is_busy || began.elapsed() > std::time::Duration::from_secs(60) {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Equal changes at the same time, as from a client that stopped waiting and repeats the change.
#[tokio::test]
async fn concurrent_equal_password_changes_both_succeed() {
    let app = TestApp::start().await;
    for _ in 0..3 {
        let (ada, _) = signed_in(&app).await;
        let answers = join_all((0..3).map(|_| change(&ada))).await;
        assert!(answers.iter().all(|answer| answer.status == 204), "{answers:?}");
        assert_eq!(read_account(&ada).await.0, 200);
    }
}

/// A login with the old password during the change leaves no active session, whichever is first.
#[tokio::test]
async fn a10_login_with_the_old_password_during_the_change_leaves_no_session() {
    let app = TestApp::start().await;
    for _ in 0..5 {
        let (ada, token) = signed_in(&app).await;
        let log_ins = join_all((0..4).map(|_| log_in(&app, &ada.email, PASSWORD)));
        let (changed, log_ins) = tokio::join!(change(&ada), log_ins);
        assert_eq!(changed.status, 204);
        for (caller, token, answer) in log_ins {
            if answer.status == 200 {
                assert_eq!((read_account(&caller).await, refresh(&app, &token).await.status), (session_ended(), 401));
            }
        }
        let listed = ada.get("/api/auth/sessions").await;
        assert_eq!(
            listed.json["sessions"].as_array().unwrap().len(),
            1,
            "only the session that changed the password: {listed:?}"
        );
        refreshed(&app, &token).await;
    }
}

/// The clean-up after a change does not remove a session that began with the new password.
#[tokio::test]
async fn session_of_the_new_password_survives_the_clean_up() {
    let app = TestApp::start().await;
    let (ada, _) = signed_in(&app).await;
    assert_eq!(ada.put("/api/auth/password", body(PASSWORD, OTHER_PASSWORD)).await.status, 204);
    let (new, token, _) = log_in(&app, &ada.email, OTHER_PASSWORD).await;
    // The repeated change cleans up once more.
    assert_eq!(ada.put("/api/auth/password", body(PASSWORD, OTHER_PASSWORD)).await.status, 204);
    assert_eq!(read_account(&new).await.0, 200);
    refreshed(&app, &token).await;
}

/// Beyond the limit the least recently used sessions are removed, however old the others are.
#[tokio::test]
async fn account_has_at_most_a_thousand_sessions() {
    let app = TestApp::start().await;
    let (ada, token) = signed_in(&app).await;
    let pattern = documents(&app).find_one(doc! { "_id": sid(&ada) }).await.unwrap().unwrap();
    let begun = DateTime::now().timestamp_millis();
    let crowd = (0..1200_i64).map(|n| {
        let mut record = pattern.clone();
        record.insert("_id", uuid::Uuid::now_v7().to_string());
        // Seven at a time have equal times, which must not remove more sessions than the excess.
        record.insert("lastUsedAt", DateTime::from_millis(begun - 3_600_000 + n / 7));
        record
    });
    let crowd: Vec<_> = crowd.collect();
    let ids: Vec<_> = crowd.iter().map(|record| record.get_str("_id").unwrap().to_owned()).collect();
    documents(&app).insert_many(crowd).await.unwrap();
    let token = refreshed(&app, &token).await;
    let (newest, _, _) = log_in(&app, &ada.email, PASSWORD).await;
    let count = async || documents(&app).count_documents(doc! { "user": &ada.id }).await.unwrap();
    assert_eq!(count().await, 1000);
    let records_left = documents(&app).count_documents(doc! { "_id": { "$in": &ids[..200] } }).await.unwrap();
    assert_eq!(records_left, 0, "the least recently used sessions are removed");
    assert_eq!((read_account(&ada).await.0, read_account(&newest).await.0), (200, 200));
    refreshed(&app, &token).await;
    assert_eq!(ada.get("/api/auth/sessions").await.json["sessions"].as_array().unwrap().len(), 1000);
}
