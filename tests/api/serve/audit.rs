//! Covers the audit log of a real process: each event with its user, network and request id, and without secrets.

use mongodb::bson::{DateTime, Document, doc};
use reqwest::Method;
use serde_json::{Value, json};

use super::Settings;
use crate::{
    app::{PASSWORD, TestApp},
    process_client::{Client, Process},
};

/// Password that `change_password` sets.
const NEW_PASSWORD: &str = "seven green kites over the bay";
/// Wrong password.
const CANARY_PASSWORD: &str = "canary canary canary";
/// Email of the second user.
const EVE: &str = "eve@example.com";

/// All events that the test causes.
const EVENTS: [&str; 16] = [
    "account_created",
    "login_succeeded",
    "password_refused",
    "throttled",
    "token_refused",
    "refresh_refused",
    "refresh_repeated",
    "refresh_reused",
    "logout_refused",
    "session_not_found",
    "session_ended",
    "sessions_ended",
    "password_changed",
    "password_change_repeated",
    "account_deletion_begun",
    "account_deleted",
];
/// Events that must name their user.
const EVENTS_WITH_USER: [&str; 6] =
    ["account_created", "login_succeeded", "password_changed", "refresh_reused", "account_deletion_begun", "account_deleted"];

/// Returns the audit lines in the log.
fn events(process: &Process) -> Vec<Value> {
    let log = process.err();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "audit" && line["event"].is_string()).collect()
}

/// A client of the audited server.
struct Audited<'a> {
    app: &'a TestApp,
    client: Client,
    /// Email of the first user.
    ada: String,
    /// Texts that must not appear in the log.
    secrets: Vec<String>,
}

impl Audited<'_> {
    /// Signs up or in, and stores the access token. Returns the status and the refresh token.
    async fn sign_in(&mut self, route: &str, email: &str, password: &str) -> (u16, String) {
        let body = json!({ "email": email, "password": password });
        let (status, session) = self.client.post(&format!("/api/auth/{route}"), &body).await;
        if status.is_success() {
            self.client.token = session["token"].as_str().map(str::to_owned);
        }
        (status.as_u16(), session["refreshToken"].as_str().unwrap_or_default().to_owned())
    }

    /// Returns the id of the newest session of the signed-in user.
    async fn session(&self) -> String {
        let (_, sessions) = self.client.get("/api/auth/sessions").await;
        sessions["sessions"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Exchanges a refresh token; returns the status and the new session.
    async fn refresh(&self, token: &str) -> (u16, Value) {
        let (status, session) = self.client.post("/api/auth/refresh", &json!({ "refreshToken": token })).await;
        (status.as_u16(), session)
    }

    /// Repeats a refresh, and reuses its token twice after the child was used: within the grace period, and after it. Then sends
    /// invalid tokens.
    async fn reuse_refresh_tokens(&mut self, first: String) {
        let child = self.refresh(&first).await.1["refreshToken"].as_str().unwrap().to_owned();
        assert_eq!(self.refresh(&first).await.0, 200);
        assert_eq!(self.refresh(&child).await.0, 200);
        assert_eq!(self.refresh(&first).await.0, 401);
        let long_ago = doc! { "$set": { "earlier.0.at": DateTime::from_millis(0) } };
        let sessions = self.app.db.collection::<Document>("sessions");
        sessions.update_many(doc! { "earlier.0": { "$exists": true } }, long_ago).await.unwrap();
        assert_eq!(self.refresh(&first).await.0, 401);
        assert_eq!(self.refresh("no refresh token").await.0, 401);
        assert_eq!(self.client.post("/api/auth/logout", &json!({ "refreshToken": "none" })).await.0, 401);
        self.secrets.extend([first, child]);
    }

    /// Sends a forged access token, two tokens, and the token of an ended session.
    async fn send_rejected_tokens(&mut self) {
        let me_with = async |headers: &[&str]| {
            let request = self.client.http.get(format!("{}/api/auth/me", self.client.base)).header("x-request-id", "forged-1");
            let request = request.header("x-forwarded-for", "192.0.2.44");
            let request = headers.iter().fold(request, |request, value| request.header("authorization", *value));
            request.send().await.unwrap().status()
        };
        let ended = format!("Bearer {}", self.client.token.clone().unwrap());
        assert_eq!(me_with(&["Bearer canary.canary.canary"]).await, 401);
        assert_eq!(me_with(&["Bearer canary", "Bearer canary"]).await, 401);
        assert_eq!(me_with(&[&ended]).await, 401);
        self.secrets.extend([ended, "canary".to_owned()]);
    }

    /// Tries to end another user's session, which is answered 404, and ends one of the user's own.
    async fn end_sessions(&mut self, foreign: &str) {
        assert_eq!(self.sign_in("signup", EVE, PASSWORD).await.0, 201);
        assert_eq!(self.client.call(Method::DELETE, &format!("/api/auth/sessions/{foreign}"), None).await.0, 404);
        let own = self.session().await;
        assert_eq!(self.client.call(Method::DELETE, &format!("/api/auth/sessions/{own}"), None).await.0, 204);
    }

    /// Changes the password, which ends the earlier sessions, and repeats the change.
    async fn change_password(&mut self) {
        let (status, last) = self.sign_in("login", &self.ada.clone(), PASSWORD).await;
        assert_eq!(status, 200);
        let change = json!({ "currentPassword": PASSWORD, "newPassword": NEW_PASSWORD });
        for _ in ["changed", "repeated"] {
            assert_eq!(self.client.call(Method::PUT, "/api/auth/password", Some(&change)).await.0, 204);
        }
        assert_eq!(self.sign_in("login", "nobody@example.com", CANARY_PASSWORD).await.0, 401);
        assert_eq!(self.client.post("/api/auth/logout", &json!({ "refreshToken": last })).await.0, 204);
        self.secrets.push(last);
    }

    /// Deletes the account after a wrong password, and tries to sign in to it until logins are throttled.
    async fn delete_account(&mut self) {
        assert_eq!(self.sign_in("login", &self.ada.clone(), NEW_PASSWORD).await.0, 200);
        assert_eq!(self.client.post("/api/auth/me/delete", &json!({ "password": CANARY_PASSWORD })).await.0, 401);
        assert_eq!(self.client.post("/api/auth/me/delete", &json!({ "password": NEW_PASSWORD })).await.0, 204);
        for status in [401, 401, 401, 429] {
            assert_eq!(self.sign_in("login", &self.ada.clone(), CANARY_PASSWORD).await.0, status);
        }
        self.secrets.push(self.client.token.clone().unwrap());
    }
}

/// Asserts that each event was logged, with its request or its user, and that each logged event is documented.
fn assert_events(events: &[Value], user: &str) {
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    for name in EVENTS {
        let event = *named(name).first().unwrap_or_else(|| panic!("{name} in {events:#?}"));
        // Events of the sweeper have no request id.
        let by_request = name != "account_deleted";
        assert_eq!(event["span"]["id"].is_string() && event["span"]["client"].is_string(), by_request, "{event}");
    }
    let rejected_tokens = named("token_refused");
    for reason in ["invalid", "two Authorization headers", "session ended"] {
        let event = rejected_tokens
            .iter()
            .find(|event| event["reason"] == reason)
            .unwrap_or_else(|| panic!("{reason} in {rejected_tokens:#?}"));
        assert_eq!((&event["span"]["id"], &event["span"]["client"]), (&json!("forged-1"), &json!("192.0.2.44")));
    }
    for name in EVENTS_WITH_USER {
        assert!(named(name).iter().any(|event| event["user"] == user), "{name} names its user: {:#?}", named(name));
    }
    let documented = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit-log.md")).unwrap();
    for event in events {
        let name = event["event"].as_str().unwrap();
        assert!(documented.contains(&format!("| `{name}` |")), "docs/audit-log.md does not describe {name}");
    }
}

#[tokio::test]
async fn every_event_is_logged_with_its_request_and_without_secrets() {
    let app = TestApp::start().await;
    let settings = Settings::for_app(&app)
        .with("RUST_LOG", "valet=info,audit=info")
        .with("RATE_LIMIT_LOGIN_FAILURES", "3/1h")
        .with("SWEEP_INTERVAL", "1s")
        .with("TRUSTED_PROXIES", "127.0.0.1");
    let (process, client) = settings.start_listening().await;
    let ada = format!("{}@example.com", uuid::Uuid::new_v4().simple());
    let secrets = vec![PASSWORD.to_owned(), NEW_PASSWORD.to_owned(), ada.clone(), EVE.to_owned()];
    let mut audited = Audited { app: &app, client, ada: ada.clone(), secrets };
    assert_eq!(audited.sign_in("signup", &ada, PASSWORD).await.0, 201);
    let (_, me) = audited.client.get("/api/auth/me").await;
    let (_, first) = audited.sign_in("login", &ada, PASSWORD).await;
    let foreign = audited.session().await;
    audited.reuse_refresh_tokens(first).await;
    audited.send_rejected_tokens().await;
    audited.end_sessions(&foreign).await;
    audited.change_password().await;
    audited.delete_account().await;

    process.wait_for(|process| events(process).iter().any(|event| event["event"] == "account_deleted").then_some(())).await;
    assert_events(&events(&process), me["id"].as_str().unwrap());
    let log = process.err() + &process.out();
    for secret in audited.secrets {
        let line = log.lines().find(|line| line.contains(secret.trim_start_matches("Bearer ")));
        assert!(line.is_none(), "{secret} in: {}", line.unwrap());
    }
}
