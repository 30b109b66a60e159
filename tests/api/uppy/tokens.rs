//! Covers the token in the path of Uppy's calls: its scope, its expiry, and its absence from the logs.
//!
//! Routes: POST /api/uppy/session.

use super::{Answer, Caller, Duration, TestApp, json};
use crate::{
    app::PASSWORD,
    process_client::{Client, Process},
};
use reqwest::Method;
use valet::config::Rate;

/// Query of a valid request for a form.
const QUERY: &str = "filename=a.png&type=image/png";

/// Requests a form with this token.
async fn request_form(app: &TestApp, token: &str) -> Answer {
    app.anonymous().get(&format!("/uppy/{token}/s3/params?{QUERY}")).await
}

#[tokio::test]
async fn token_authorizes_only_uppys_calls() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let token = ada.uppy().await;
    assert_eq!(request_form(&app, &token).await.status, 200);
    // An access token is not accepted here, and this token is not an access token.
    assert_eq!(request_form(&app, ada.token.as_ref().unwrap()).await.problem(), (401, "token_invalid"));
    let as_bearer = Caller { token: Some(token.clone()), ..ada.clone() };
    for path in ["/api/auth/me", "/api/images/gallery"] {
        assert_eq!(as_bearer.get(path).await.problem(), (401, "token_invalid"), "{path}");
    }
    assert_eq!(as_bearer.post_empty("/api/uppy/session").await.problem(), (401, "token_invalid"), "it cannot prolong itself");
    for token in ["x", "a.b.c", &token[..token.len() - 1], &format!("{token}x"), "%00", &"x".repeat(2000)] {
        let answer = request_form(&app, token).await;
        assert_eq!(answer.problem(), (401, "token_invalid"), "{token}");
        assert!(answer.json["message"].as_str().unwrap().contains("/api/uppy/session"));
    }
    // Without an access token, no session is opened.
    let session = app.anonymous().post_empty("/api/uppy/session").await;
    assert_eq!(session.problem(), (401, "token_missing"));
}

#[tokio::test]
async fn token_expires() {
    let app = TestApp::start_with(|config| config.tokens.access_ttl = Duration::from_secs(4)).await;
    let mut token = String::new();
    // A busy machine may take longer than the access token or the session is valid.
    crate::app::eventually("a session is used while it is valid", async || {
        let session = app.user().await.post_empty("/api/uppy/session").await;
        let (Some(lifetime), Some(made)) = (session.json["expiresIn"].as_i64(), session.json["token"].as_str()) else {
            assert_eq!(session.problem(), (401, "token_expired"));
            return false;
        };
        assert!(lifetime <= 4, "the session lasts no longer than an access token: {lifetime}");
        token = made.to_owned();
        lifetime == 4 && request_form(&app, &token).await.status == 200
    })
    .await;
    // The token is valid for four seconds.
    tokio::time::sleep(Duration::from_millis(4100)).await;
    assert_eq!(request_form(&app, &token).await.problem(), (401, "token_expired"));
    let app = TestApp::start_with(|config| config.uploads.url_ttl = Duration::from_secs(60)).await;
    assert_eq!(
        app.user().await.post_empty("/api/uppy/session").await.json["expiresIn"],
        60,
        "the session lasts no longer than an upload's URL"
    );
}

#[tokio::test]
async fn token_ends_with_its_session_password_and_account() {
    let app = TestApp::start().await;
    let second_server = TestApp::start_second_server(&app, |_| {}).await;
    let ada = app.user().await;
    let login = json!({ "email": ada.email, "password": PASSWORD });
    let log_in = async || {
        let session = app.anonymous().post("/api/auth/login", login.clone()).await;
        let caller = Caller { token: Some(session.json["token"].as_str().unwrap().to_owned()), ..ada.clone() };
        (caller.uppy().await, session.json["refreshToken"].clone())
    };
    let without_local_accounts = TestApp::start_second_server(&app, |config| config.accounts.local = false).await;
    assert_eq!(
        request_form(&without_local_accounts, &ada.uppy().await).await.problem(),
        (401, "session_ended"),
        "with provider accounts only"
    );
    let ((first, refresh), (second, _)) = (log_in().await, log_in().await);
    let own = ada.uppy().await;
    // The other server has cached the session as active.
    assert_eq!(request_form(&second_server, &first).await.status, 200);
    assert_eq!(app.anonymous().post("/api/auth/logout", json!({ "refreshToken": refresh })).await.status, 204);
    assert_eq!(request_form(&app, &first).await.problem(), (401, "session_ended"));
    assert_eq!(request_form(&app, &second).await.status, 200);
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "seven green kites over the bay" });
    assert_eq!(ada.put("/api/auth/password", change).await.status, 204);
    assert_eq!(request_form(&app, &second).await.problem(), (401, "session_ended"), "every other session ended");
    assert_eq!(request_form(&app, &own).await.status, 200);
    let delete = json!({ "password": "seven green kites over the bay" });
    assert_eq!(ada.post("/api/auth/me/delete", delete).await.status, 204);
    assert_eq!(request_form(&app, &own).await.problem(), (401, "session_ended"));
    let began = std::time::Instant::now();
    while request_form(&second_server, &first).await.problem() != (401, "session_ended") {
        assert!(began.elapsed() < Duration::from_secs(30), "the token is rejected on every server within 30 s");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn uppy_calls_that_open_uploads_share_the_upload_limit() {
    let app = TestApp::start_with(|config| {
        config.limits = valet::config::RateLimits::default();
        config.limits.upload = Rate::new(3, 3600);
    })
    .await;
    let ada = app.user().await;
    let token = ada.uppy().await;
    assert_eq!(request_form(&app, &token).await.status, 200);
    let body = json!({ "filename": "a.png", "type": "image/png", "metadata": {} });
    let path = format!("/uppy/{token}/s3/multipart");
    assert_eq!(app.anonymous().post(&path, body.clone()).await.status, 200);
    let request = json!({ "method": "POST", "key": "a.png" });
    assert_eq!(ada.post("/api/uppy/presign", request.clone()).await.status, 200);
    for answer in
        [request_form(&app, &token).await, app.anonymous().post(&path, body).await, ada.post("/api/uppy/presign", request).await]
    {
        assert_eq!(answer.problem(), (429, "rate_limited"));
        assert!(!answer.header("retry-after").is_empty());
    }
    assert_eq!(request_form(&app, &app.user().await.uppy().await).await.status, 200, "other users are not limited");
}

/// Covers Uppy's calls from pages of other origins: forms need no preflight, and credentials are not allowed.
#[tokio::test]
async fn page_of_another_origin_can_read_the_answers() {
    let app = TestApp::start().await;
    let path = format!("/uppy/{}/s3/params?{QUERY}", app.user().await.uppy().await);
    for (origin, allowed) in [("https://app.example", true), ("https://evil.example", false)] {
        let answer = app.anonymous().send(Method::GET, &path, |request| request.header("origin", origin)).await;
        assert_eq!(answer.header("access-control-allow-origin"), if allowed { origin } else { "" });
        assert!(answer.headers.get("access-control-allow-credentials").is_none());
        let preflight = app.http.request(Method::OPTIONS, format!("{}{path}", app.base)).header("origin", origin);
        let preflight = preflight
            .header("access-control-request-method", "DELETE")
            .header("access-control-request-headers", "content-type")
            .send()
            .await
            .unwrap();
        let methods = preflight.headers().get("access-control-allow-methods").map_or("", |value| value.to_str().unwrap());
        assert_eq!(methods.contains("DELETE"), allowed);
    }
}

#[tokio::test]
async fn token_is_not_logged_in_any_spelling() {
    let app = TestApp::start().await;
    let settings = crate::serve::Settings::for_app(&app).with("RUST_LOG", "trace");
    let (process, mut client): (Process, Client) = settings.start_listening().await;
    let (_, session) = client.post("/api/auth/signup", &json!({ "email": "log@example.com", "password": PASSWORD })).await;
    client.token = session["token"].as_str().map(str::to_owned);
    let (_, uppy) = client.post("/api/uppy/session", &json!({})).await;
    let token = uppy["token"].as_str().unwrap().to_owned();
    let encoded: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let before = process.err().len();
    for (path, status) in [
        (format!("/uppy/{token}/s3/params?{QUERY}"), 200),
        (format!("/uppy/{encoded}/s3/params?{QUERY}"), 200),
        (format!("/uppy/{token}/s3/nothing"), 404),
        (format!("/uppy/{token}//s3/params"), 404),
        (format!("/{token}"), 404),
        (format!("/uppy/{token}x/s3/params?{QUERY}"), 401),
    ] {
        let answer = client.http.get(format!("{}{path}", client.base)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    // The log is written by another thread.
    let log =
        process.wait_for(|process| Some(process.err()).filter(|log| log[before..].matches("request completed").count() >= 6));
    let log = log.await;
    assert!(log[before..].contains("/s3/params"), "the calls are logged");
    // A log that shortens the token must not have a usable part of it either: 90 characters encode 30 bytes.
    let signature = token.rsplit('.').next().unwrap();
    for secret in [signature, &encoded[encoded.len() - 90..], &token[..token.len() - 5]] {
        assert!(!log.contains(secret) && !process.out().contains(secret), "{secret} in {log}");
    }
}
