//! Covers spent refresh tokens: when the answer is repeated, when they are rejected, and when they end the session.
//!
//! Routes: POST /api/auth/refresh.

use super::{
    Answer, Caller, DateTime, Duration, PASSWORD, TestApp, db_age_rotation, doc, documents, json, read_account, refresh,
    refreshed, session_ended, sid, signed_in,
};
use crate::{
    process_client::{Client, Process},
    serve::Settings,
};

/// Refreshes with this User-Agent.
async fn refresh_as(app: &TestApp, agent: &str, token: &str) -> Answer {
    let body = json!({ "refreshToken": token });
    let send = |request: reqwest::RequestBuilder| request.json(&body).header("user-agent", agent);
    app.anonymous().send(reqwest::Method::POST, "/api/auth/refresh", send).await
}

/// Exchanges a refresh token with this user agent; returns the next one.
async fn refreshed_as(app: &TestApp, agent: &str, token: &str) -> String {
    let answer = refresh_as(app, agent, token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["refreshToken"].as_str().unwrap().to_owned()
}

/// Signs in with this User-Agent; returns the caller and the refresh token.
async fn signed_in_as<'a>(app: &'a TestApp, agent: &str) -> (Caller<'a>, String) {
    let user = app.user().await;
    let body = json!({ "email": user.email, "password": PASSWORD });
    let send = |request: reqwest::RequestBuilder| request.json(&body).header("user-agent", agent);
    let answer = app.anonymous().send(reqwest::Method::POST, "/api/auth/login", send).await;
    let token = answer.json["token"].as_str().map(str::to_owned);
    (Caller { token, ..user }, answer.json["refreshToken"].as_str().unwrap().to_owned())
}

/// Moves the exchange before the last one `ago` into the past.
async fn db_age_earlier(app: &TestApp, id: &str, ago: Duration) {
    let at = DateTime::from_system_time(std::time::SystemTime::now() - ago);
    let done = documents(app).update_one(doc! { "_id": id }, doc! { "$set": { "earlier.0.at": at } }).await.unwrap();
    assert_eq!(done.modified_count, 1);
}

#[tokio::test]
async fn t7_lost_answer_is_repeated_while_its_token_is_unused() {
    let app = TestApp::start().await;
    let (ada, first) = signed_in(&app).await;
    let second = refreshed(&app, &first).await;
    db_age_rotation(&app, &sid(&ada), Duration::from_secs(290)).await;
    assert_eq!(refreshed(&app, &first).await, second, "the same child, not a second one");
    let third = refreshed(&app, &second).await;
    assert_eq!(refreshed(&app, &second).await, third);
    db_age_rotation(&app, &sid(&ada), Duration::from_secs(301)).await;
    assert_eq!(refresh(&app, &second).await.problem(), (401, "session_ended"), "after the grace period the repeat is rejected");
    assert_eq!(refresh(&app, &third).await.problem(), (401, "session_ended"));
}

#[tokio::test]
async fn spent_token_whose_child_was_used_is_rejected_and_after_the_grace_period_ends_the_session() {
    let app = TestApp::start().await;
    let (ada, first) = signed_in(&app).await;
    let second = refreshed(&app, &first).await;
    let third = refreshed(&app, &second).await;
    assert_eq!(refresh(&app, &first).await.problem(), (401, "token_invalid"), "the token of a late tab is rejected");
    assert_eq!(read_account(&ada).await.0, 200, "the rejected token ends no session");
    // The time of this token's own exchange counts, not that of a later one.
    db_age_earlier(&app, &sid(&ada), Duration::from_secs(290)).await;
    assert_eq!(refresh(&app, &first).await.problem(), (401, "token_invalid"));
    let fourth = refreshed(&app, &third).await;
    assert_eq!(refresh(&app, &first).await.problem(), (401, "token_invalid"), "tokens of earlier generations are rejected too");
    let documents = documents(&app);
    let update = doc! { "$set": { "earlier.1.at": DateTime::from_millis(0) } };
    assert_eq!(documents.update_one(doc! { "_id": sid(&ada) }, update).await.unwrap().modified_count, 1);
    assert_eq!(refresh(&app, &first).await.problem(), (401, "session_ended"));
    assert_eq!(refresh(&app, &fourth).await.problem(), (401, "session_ended"));
    assert_eq!(read_account(&ada).await, session_ended());
}

#[tokio::test]
async fn more_exchanges_than_are_recorded_end_no_session_within_the_grace_period() {
    let app = TestApp::start().await;
    let (ada, first) = signed_in(&app).await;
    let mut newest = first.clone();
    for _ in 0..36 {
        newest = refreshed(&app, &newest).await;
    }
    assert_eq!(refresh(&app, &first).await.problem(), (401, "token_invalid"));
    assert_eq!(read_account(&ada).await.0, 200);
    // Of 36 exchanges the last 32 are recorded. Once the oldest of them is old, every exchange before it is old too.
    let long_ago = doc! { "$set": { "earlier.31.at": DateTime::from_millis(0) } };
    assert_eq!(documents(&app).update_one(doc! { "_id": sid(&ada) }, long_ago).await.unwrap().modified_count, 1);
    assert_eq!(refresh(&app, &first).await.problem(), (401, "session_ended"));
    assert_eq!(read_account(&ada).await, session_ended());
}

/// Old exchanges are removed from the record: a token that is no longer in it was spent long ago.
#[tokio::test]
async fn token_spent_long_ago_is_recognised_by_its_tag() {
    let app = TestApp::start().await;
    let (ada, first) = signed_in(&app).await;
    let mut newest = first.clone();
    for _ in 0..3 {
        db_age_rotation_if_any(&app, &sid(&ada)).await;
        newest = refreshed(&app, &newest).await;
    }
    let stored = documents(&app).find_one(doc! { "_id": sid(&ada) }).await.unwrap().unwrap();
    assert_eq!(stored.get_array("earlier").unwrap().len(), 0, "{stored}");
    let log_out = app.anonymous().post("/api/auth/logout", json!({ "refreshToken": forged(&first) })).await;
    assert_eq!(log_out.problem(), (401, "token_invalid"), "a forged token matches no session");
    assert_eq!(refresh(&app, &first).await.problem(), (401, "session_ended"), "an exchanged token was used again");
    assert_eq!(read_account(&ada).await, session_ended());

    let (ada, first) = signed_in(&app).await;
    let second = refreshed(&app, &first).await;
    refreshed(&app, &second).await;
    let log_out = app.anonymous().post("/api/auth/logout", json!({ "refreshToken": first })).await;
    assert_eq!((log_out.status, read_account(&ada).await), (204, session_ended()), "a spent token logs out too");
}

/// Moves the time of the session's last exchange into the past, if it had one.
async fn db_age_rotation_if_any(app: &TestApp, id: &str) {
    let long_ago = doc! { "$set": { "parent.at": DateTime::from_millis(0) } };
    documents(app).update_one(doc! { "_id": id, "parent": { "$exists": true } }, long_ago).await.unwrap();
}

/// Returns a token with this one's session id and another secret.
fn forged(token: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    bytes[17..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test]
async fn another_user_agent_gets_no_grace_period() {
    let app = TestApp::start().await;
    let (ada, mut token) = signed_in_as(&app, "Valet-iOS/1.0").await;
    // An attacker who sends the token after its owner gets no token, and ends no session.
    for _ in 0..3 {
        let next = refreshed_as(&app, "Valet-iOS/1.0", &token).await;
        assert_eq!(refresh_as(&app, "curl/thief", &token).await.problem(), (401, "token_invalid"));
        assert_eq!(refreshed_as(&app, "Valet-iOS/1.0", &token).await, next, "the owner still gets the repeated answer");
        token = next;
    }
    assert_eq!(read_account(&ada).await.0, 200);
    // An attacker who sends the token before its owner loses the session as soon as the owner refreshes.
    let stolen = refreshed_as(&app, "curl/thief", &token).await;
    assert_eq!(refresh_as(&app, "Valet-iOS/1.0", &token).await.problem(), (401, "session_ended"));
    assert_eq!(refresh_as(&app, "curl/thief", &stolen).await.problem(), (401, "session_ended"));
    assert_eq!(read_account(&ada).await, session_ended());
    // A copy of a token from before an update of the app ends no session after the updated app has refreshed twice.
    let (ada, token) = signed_in_as(&app, "Valet-iOS/1.0").await;
    let next = refreshed_as(&app, "Valet-iOS/1.1", &token).await;
    refreshed_as(&app, "Valet-iOS/1.1", &next).await;
    assert_eq!(refresh_as(&app, "Valet-iOS/1.0", &token).await.problem(), (401, "token_invalid"));
    assert_eq!(read_account(&ada).await.0, 200);
    // An updated app is the same client with another User-Agent.
    let (ada, token) = signed_in_as(&app, "Valet-iOS/1.0").await;
    let next = refreshed_as(&app, "Valet-iOS/1.1", &token).await;
    assert_eq!(refreshed_as(&app, "Valet-iOS/1.1", &token).await, next);
    refreshed_as(&app, "Valet-iOS/1.1", &next).await;
    assert_eq!(read_account(&ada).await.0, 200);
}

/// Records and tokens of an earlier version have no token key, no User-Agent and no password version.
#[tokio::test]
async fn sessions_of_an_earlier_version_continue_with_their_tokens() {
    let app = TestApp::start().await;
    let earlier_session = async || {
        let (ada, token) = signed_in(&app).await;
        let unset = doc! { "$unset": { "tokenKey": "", "agent": "", "passwordVersion": "", "earlier": "" } };
        documents(&app).update_one(doc! { "_id": sid(&ada) }, unset).await.unwrap();
        (ada, token)
    };
    let log_out = async |token: &str| app.anonymous().post("/api/auth/logout", json!({ "refreshToken": token })).await.status;
    let (ada, first) = earlier_session().await;
    assert_eq!(read_account(&ada).await.0, 200);
    assert_eq!((log_out(&forged(&first)).await, refresh(&app, &forged(&first)).await.status), (401, 401));
    let second = refreshed(&app, &first).await;
    assert_eq!(refreshed(&app, &first).await, second);
    let third = refreshed(&app, &second).await;
    assert_eq!(refreshed(&app, &second).await, third, "a session has a key from its first exchange on");
    assert_eq!(read_account(&ada).await.0, 200);
    assert_eq!((log_out(&second).await, read_account(&ada).await), (204, session_ended()));
    let (ada, token) = earlier_session().await;
    assert_eq!((log_out(&token).await, read_account(&ada).await), (204, session_ended()));
}

/// Each repeated answer is in the audit log with both networks; a different network does not prevent it.
#[tokio::test]
async fn repeated_answer_is_audited_with_both_networks() {
    let app = TestApp::start().await;
    let (process, client): (Process, Client) =
        Settings::for_app(&app).with("TRUSTED_PROXIES", "127.0.0.1").start_listening().await;
    let (ada, token) = signed_in(&app).await;
    let refresh_from = async |address: &str| {
        let request = client.http.post(format!("{}/api/auth/refresh", client.base)).header("x-forwarded-for", address);
        let answer = request.json(&json!({ "refreshToken": token })).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()["refreshToken"].clone()
    };
    let child = refresh_from("198.51.100.7").await;
    assert!(child.is_string(), "{child}");
    assert_eq!(refresh_from("2001:db8:7:8::9").await, child);
    let event = process
        .wait_for(|process| {
            let log = process.err();
            log.lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .find(|line| line["event"] == "refresh_repeated")
        })
        .await;
    assert_eq!((event["first_network"].as_str(), event["network"].as_str()), (Some("198.51.100.0/24"), Some("2001:db8:7::/48")));
    assert_eq!(event["session"], sid(&ada));
}
