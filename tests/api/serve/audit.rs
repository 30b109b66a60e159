//! Covers the audit log of a real process: each event with its user, network and request id, and without secrets.

use mongodb::bson::{DateTime, Document, doc};
use reqwest::Method;
use serde_json::{Value, json};

use super::Settings;
use crate::{
    app::{PASSWORD, TestApp},
    process_client::{Client, Process},
};

const OTHER: &str = "seven green kites over the bay";

fn events(process: &Process) -> Vec<Value> {
    let log = process.err();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "audit" && line["event"].is_string()).collect()
}

/// Signs in and keeps the refresh token, too.
async fn enter(client: &mut Client, route: &str, email: &str, password: &str) -> (u16, String) {
    let (status, session) = client.post(&format!("/api/auth/{route}"), &json!({ "email": email, "password": password })).await;
    if status.is_success() {
        client.token = session["token"].as_str().map(str::to_owned);
    }
    (status.as_u16(), session["refreshToken"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn every_event_is_logged_with_its_request_and_without_secrets() {
    let app = TestApp::start().await;
    let settings = Settings::for_app(&app)
        .with("RUST_LOG", "valet=info,audit=info")
        .with("RATE_LIMIT_LOGIN_FAILURES", "3/1h")
        .with("SWEEP_INTERVAL", "1s")
        .with("TRUSTED_PROXIES", "127.0.0.1");
    let (process, mut client) = settings.start_listening().await;
    let (ada, eve) = (format!("{}@example.com", uuid::Uuid::new_v4().simple()), "eve@example.com");
    let mut secrets = vec![PASSWORD.to_owned(), OTHER.to_owned(), ada.clone(), eve.to_owned()];
    assert_eq!(enter(&mut client, "signup", &ada, PASSWORD).await.0, 201);
    let (_, me) = client.get("/api/auth/me").await;
    let user = me["id"].as_str().unwrap().to_owned();
    let (_, first) = enter(&mut client, "login", &ada, PASSWORD).await;
    let foreign = client.get("/api/auth/sessions").await.1["sessions"][0]["id"].as_str().unwrap().to_owned();

    // A refresh token whose answer is repeated, and that is used twice after its child was: too soon, and too late.
    let refresh = async |client: &Client, token: &str| client.post("/api/auth/refresh", &json!({ "refreshToken": token })).await;
    let child = refresh(&client, &first).await.1["refreshToken"].as_str().unwrap().to_owned();
    assert_eq!(refresh(&client, &first).await.0, 200);
    assert_eq!(refresh(&client, &child).await.0, 200);
    assert_eq!(refresh(&client, &first).await.0, 401);
    let long_ago = doc! { "$set": { "earlier.0.at": DateTime::from_millis(0) } };
    app.db.collection::<Document>("sessions").update_many(doc! { "earlier.0": { "$exists": true } }, long_ago).await.unwrap();
    assert_eq!(refresh(&client, &first).await.0, 401);
    assert_eq!(refresh(&client, "no refresh token").await.0, 401);
    assert_eq!(client.post("/api/auth/logout", &json!({ "refreshToken": "none" })).await.0, 401);
    secrets.extend([first, child]);

    // Tokens: forged, sent twice, of an ended session; and another user's session.
    let me_with = async |headers: &[&str]| {
        let request = client.http.get(format!("{}/api/auth/me", client.base)).header("x-request-id", "forged-1");
        let request = request.header("x-forwarded-for", "192.0.2.44");
        headers.iter().fold(request, |request, value| request.header("authorization", *value)).send().await.unwrap().status()
    };
    let ended = format!("Bearer {}", client.token.clone().unwrap());
    assert_eq!(me_with(&["Bearer canary.canary.canary"]).await, 401);
    assert_eq!(me_with(&["Bearer canary", "Bearer canary"]).await, 401);
    assert_eq!(me_with(&[&ended]).await, 401);
    secrets.extend([ended, "canary".to_owned()]);
    assert_eq!(enter(&mut client, "signup", eve, PASSWORD).await.0, 201);
    assert_eq!(client.call(Method::DELETE, &format!("/api/auth/sessions/{foreign}"), None).await.0, 404);
    let (_, own) = client.get("/api/auth/sessions").await;
    let own = own["sessions"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(client.call(Method::DELETE, &format!("/api/auth/sessions/{own}"), None).await.0, 204);

    // Passwords: wrong, too many attempts, changed; then the account is deleted.
    let (status, last) = enter(&mut client, "login", &ada, PASSWORD).await;
    assert_eq!(status, 200);
    let change = json!({ "currentPassword": PASSWORD, "newPassword": OTHER });
    for _ in ["changed", "repeated"] {
        assert_eq!(client.call(Method::PUT, "/api/auth/password", Some(&change)).await.0, 204);
    }
    assert_eq!(enter(&mut client, "login", "nobody@example.com", "canary canary canary").await.0, 401);
    assert_eq!(client.post("/api/auth/logout", &json!({ "refreshToken": last })).await.0, 204);
    assert_eq!(enter(&mut client, "login", &ada, OTHER).await.0, 200);
    assert_eq!(client.post("/api/auth/me/delete", &json!({ "password": "canary canary canary" })).await.0, 401);
    assert_eq!(client.post("/api/auth/me/delete", &json!({ "password": OTHER })).await.0, 204);
    let statuses = [401, 401, 401, 429];
    for status in statuses {
        assert_eq!(enter(&mut client, "login", &ada, "canary canary canary").await.0, status);
    }
    secrets.extend([last, client.token.clone().unwrap()]);

    let wanted = [
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
    process.find(|process| events(process).iter().any(|event| event["event"] == "account_deleted").then_some(())).await;
    let events = events(&process);
    for name in wanted {
        let event = events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("{name} in {events:#?}"));
        // Events of the sweeper have no request id.
        let by_request = name != "account_deleted";
        assert_eq!(event["span"]["id"].is_string() && event["span"]["client"].is_string(), by_request, "{event}");
    }
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    let refused = of("token_refused");
    for reason in ["invalid", "two Authorization headers", "session ended"] {
        let event = refused.iter().find(|event| event["reason"] == reason).unwrap_or_else(|| panic!("{reason} in {refused:#?}"));
        assert_eq!((&event["span"]["id"], &event["span"]["client"]), (&json!("forged-1"), &json!("192.0.2.44")));
    }
    for name in
        ["account_created", "login_succeeded", "password_changed", "refresh_reused", "account_deletion_begun", "account_deleted"]
    {
        assert!(of(name).iter().any(|event| event["user"] == user.as_str()), "{name} names its user: {:#?}", of(name));
    }
    let documented = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit-log.md")).unwrap();
    for event in &events {
        let name = event["event"].as_str().unwrap();
        assert!(documented.contains(&format!("| `{name}` |")), "docs/audit-log.md does not know {name}");
    }
    let log = process.err() + &process.out();
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret.trim_start_matches("Bearer ")));
        assert!(line.is_none(), "{secret} in: {}", line.unwrap());
    }
}
