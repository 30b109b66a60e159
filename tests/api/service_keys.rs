//! Covers service keys: the operations that accept them, their scopes, expiry, revocation, limits and records.
//!
//! Routes: POST /api/admin/tokens, GET /api/admin/users, GET /api/admin/users/{user}, DELETE /api/admin/users/{user},
//! PUT /api/admin/users/{user}/quota, DELETE /api/admin/users/{user}/quota, POST /api/admin/users/{user}/suspend,
//! POST /api/admin/users/{user}/resume, GET /api/admin/users/{user}/images, DELETE /api/admin/users/{user}/images/{image}.
//! Commands: valet key.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc};
use reqwest::Method;
use serde_json::json;
use valet::{config::Rate, model::Scope};

use super::{
    app::{Answer, Caller, TestApp},
    openapi::{Operation, operations},
    process_client::{Ended, Process},
    serve::Settings,
};

/// Returns the operations for service keys, or all others that take a token.
fn protected(is_admin: bool) -> Vec<Operation> {
    let found: Vec<_> = operations().into_iter().filter(|one| one.is_protected() && one.is_admin() == is_admin).collect();
    assert!(found.len() >= 10, "{}", found.len());
    found
}

/// Calls an operation with an unknown id and the body of the OpenAPI document's example.
async fn call(caller: &Caller<'_>, operation: &Operation) -> Answer {
    let path = operation.path_of(&uuid::Uuid::now_v7().to_string());
    let send = |request: reqwest::RequestBuilder| match operation.body() {
        Some(body) => request.json(body),
        None => request,
    };
    caller.send(operation.method.clone(), &path, send).await
}

/// Returns the scope that an operation's description names.
fn scope_of(operation: &Operation) -> Scope {
    let words = operation.described["description"].as_str().unwrap();
    let named = words.rsplit("Scope:").next().unwrap().trim().trim_end_matches('.').trim_matches('`');
    Scope::parse(named).unwrap_or_else(|| panic!("{named} of {}", operation.described["operationId"]))
}

/// Returns the text of a key: `vk_`, its id (bytes 3 to 38), `_`, and its secret (from byte 40).
fn raw(key: &Caller<'_>) -> String {
    key.token.clone().unwrap()
}

#[tokio::test]
async fn keys_and_users_tokens_are_accepted_only_where_they_belong() {
    let app = TestApp::start().await;
    let (ada, key) = (app.user().await, app.create_service_key(&Scope::ALL).await);
    let app_users = key.post("/api/admin/tokens", json!({ "subject": "7" })).await;
    let eve = Caller { token: app_users.json["token"].as_str().map(str::to_owned), ..app.anonymous() };
    let uppy = Caller { token: Some(ada.uppy().await), ..app.anonymous() };
    for operation in protected(false) {
        let rejected = call(&key, &operation).await;
        assert_eq!(rejected.problem(), (401, "token_invalid"), "{} {}", operation.method, operation.path);
        assert_eq!(rejected.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
    for operation in protected(true) {
        for caller in [&ada, &eve, &uppy] {
            let rejected = call(caller, &operation).await;
            assert_eq!(rejected.problem(), (401, "token_invalid"), "{} {}", operation.method, operation.path);
        }
        let allowed = call(&key, &operation).await;
        assert!(matches!(allowed.status, 200 | 404), "{} {}: {allowed:?}", operation.method, operation.path);
    }
    // A key in a path is rejected too.
    let path = format!("/uppy/{}/s3/params?filename=a.png&type=image/png", raw(&key));
    assert_eq!(app.anonymous().get(&path).await.problem(), (401, "token_invalid"));
}

#[tokio::test]
async fn each_operation_needs_exactly_its_scope() {
    let app = TestApp::start().await;
    for operation in protected(true) {
        let scope = scope_of(&operation);
        let others: Vec<_> = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
        let rejected = call(&app.create_service_key(&others).await, &operation).await;
        assert_eq!(rejected.problem(), (403, "insufficient_scope"), "{} {}", operation.method, operation.path);
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
        assert_eq!(rejected.header("www-authenticate"), challenge);
        let allowed = call(&app.create_service_key(&[scope]).await, &operation).await;
        assert!(matches!(allowed.status, 200 | 404), "{} {}: {allowed:?}", operation.method, operation.path);
    }
}

#[tokio::test]
async fn forged_keys_are_rejected_by_every_operation() {
    let app = TestApp::start().await;
    let (key, other) = (app.create_service_key(&Scope::ALL).await, app.create_service_key(&Scope::ALL).await);
    let (good, foreign) = (raw(&key), raw(&other));
    let (head, secret) = good.split_at(40);
    let swapped: String =
        secret.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
    let forged = [
        head.to_owned(),
        head[3..39].to_owned(),
        format!("{head}{}", &foreign[40..]),
        format!("{}{secret}", &foreign[..40]),
        format!("vk_{}_{secret}", uuid::Uuid::now_v7()),
        format!("{head}{}", "A".repeat(43)),
        format!("{head}{swapped}"),
        good[..82].to_owned(),
        format!("{good}="),
        good.to_uppercase(),
        good.replacen("vk_", "", 1),
        secret.to_owned(),
    ];
    let before = users(&app).await;
    for operation in protected(true) {
        for token in &forged {
            let caller = Caller { token: Some(token.clone()), ..app.anonymous() };
            let rejected = call(&caller, &operation).await;
            assert_eq!(rejected.problem(), (401, "token_invalid"), "{} {}: {token}", operation.method, operation.path);
            assert!(!rejected.text.contains(secret), "{rejected:?}");
        }
    }
    assert_eq!(users(&app).await, before);
    assert_eq!(key.get("/api/admin/users").await.status, 200, "the genuine key is still valid");
}

/// Returns the number of users.
async fn users(app: &TestApp) -> u64 {
    app.db.collection::<Document>("users").count_documents(doc! {}).await.unwrap()
}

#[tokio::test]
async fn pages_cannot_call_for_the_apps_backend() {
    let app = TestApp::start().await;
    let key = app.create_service_key(&Scope::ALL).await;
    let origin = "https://app.example";
    for operation in protected(true) {
        let path = operation.path_of("x");
        for path in [path.clone(), path.replacen("admin", "%61dmin", 1)] {
            let request = app.http.request(Method::OPTIONS, format!("{}{path}", app.base)).header("origin", origin);
            let request = request.header("access-control-request-method", operation.method.as_str());
            let preflight = request.header("access-control-request-headers", "authorization").send().await.unwrap();
            let call = app.http.request(operation.method.clone(), format!("{}{path}", app.base)).header("origin", origin);
            let call = call.bearer_auth(raw(&key)).send().await.unwrap();
            let is_readable =
                |answer: &reqwest::Response| answer.headers().keys().any(|name| name.as_str().starts_with("access-control-"));
            let is_allowed = is_readable(&preflight) || is_readable(&call);
            // An encoded spelling of a path is another path, which does not exist.
            assert!(
                !is_allowed || (call.status() == 404 && path.contains('%')),
                "{} {path}: {preflight:?} {call:?}",
                operation.method
            );
        }
    }
    let users = app.http.get(format!("{}/api/%61dmin/users", app.base)).bearer_auth(raw(&key)).send().await.unwrap();
    assert_eq!(users.status(), 404, "the router does not decode paths");
}

#[tokio::test]
async fn expired_keys_and_calls_beyond_the_limit_are_rejected() {
    let app = TestApp::start_with(|config| {
        config.limits = valet::config::RateLimits { service_key: Rate::new(3, 3600), ..valet::config::RateLimits::default() };
    })
    .await;
    let key = app.create_service_key(&[Scope::UsersRead]).await;
    for _ in 0..3 {
        assert_eq!(key.get("/api/admin/users").await.status, 200);
    }
    let rejected = key.get("/api/admin/users").await;
    assert_eq!(rejected.problem(), (429, "rate_limited"));
    assert_eq!(rejected.header("ratelimit-policy"), "\"service-key\";q=3;w=3600");
    let other = app.create_service_key(&[Scope::UsersRead]).await;
    let id = raw(&other)[3..39].to_owned();
    let keys = app.db.collection::<Document>("serviceKeys");
    keys.update_one(doc! { "_id": &id }, doc! { "$set": { "expiresAt": DateTime::now() } }).await.unwrap();
    assert_eq!(other.get("/api/admin/users").await.problem(), (401, "token_expired"));
    let fresh = app.create_service_key(&[Scope::UsersRead]).await;
    assert_eq!(fresh.get("/api/admin/users").await.status, 200, "each key has its own limit");
}

#[tokio::test]
async fn use_is_recorded_once_an_hour_and_no_secret_is_stored() {
    let app = TestApp::start().await;
    let key = app.create_service_key(&[Scope::UsersRead]).await;
    let keys = app.db.collection::<Document>("serviceKeys");
    let record = async || keys.find_one(doc! { "_id": &raw(&key)[3..39] }).await.unwrap().unwrap();
    assert!(!record().await.contains_key("lastUsedAt"));
    let wrong = format!("{}{}", &raw(&key)[..40], "A".repeat(43));
    assert_eq!(Caller { token: Some(wrong), ..app.anonymous() }.get("/api/admin/users").await.status, 401);
    assert!(!record().await.contains_key("lastUsedAt"), "a call with a wrong secret is not a use");
    assert_eq!(key.get("/api/admin/users").await.status, 200);
    let used = *record().await.get_datetime("lastUsedAt").unwrap();
    assert_eq!(used.timestamp_millis() % 3_600_000, 0, "{used}");
    // A further use in the same hour writes nothing; the hour may have ended meanwhile.
    let unset = doc! { "$unset": { "lastUsedAt": "" } };
    keys.update_one(doc! { "_id": &raw(&key)[3..39] }, unset).await.unwrap();
    assert_eq!(key.get("/api/admin/users").await.status, 200);
    let again = record().await.get_datetime("lastUsedAt").ok().copied();
    assert!(again.is_none_or(|again| again > used), "the use is recorded once an hour: {again:?}");
    let record = format!("{:?}", record().await);
    assert!(!record.contains(&raw(&key)[40..]), "{record}");
}

/// Runs `valet key`; returns whether it succeeded, its standard output and its standard error.
async fn key_command(settings: &Settings, arguments: &[&str]) -> (bool, String, String) {
    let process: Process = settings.run(&[&["key"], arguments].concat());
    let Ended { status, out, err } = process.wait_for_end(Duration::from_secs(30)).await;
    (status.success(), out, err)
}

#[tokio::test]
async fn operator_creates_lists_and_revokes_keys() {
    let app = TestApp::start().await;
    let settings = Settings::for_app(&app).with("RUST_LOG", "audit=info");
    let create = ["create", "Photo backend", "--scope", "users:read", "--scope", "tokens:create", "--expires", "90d"];
    let (created, out, err) = key_command(&settings, &create).await;
    assert!(created && out.lines().count() == 1, "{out} {err}");
    let text = out.trim();
    assert!(!err.contains(&text[40..]) && err.contains("service_key_created"), "{err}");
    let key = Caller { token: Some(text.to_owned()), ..app.anonymous() };
    assert_eq!(key.get("/api/admin/users").await.status, 200);
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let on_other = Caller { token: Some(text.to_owned()), ..other.anonymous() };
    assert_eq!(on_other.get("/api/admin/users").await.status, 200);

    let (_, listed, _) = key_command(&settings, &["list"]).await;
    let line = listed.lines().find(|line| line.starts_with(&text[3..39])).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("valid") && line.contains("Photo backend") && line.contains("tokens:create,users:read"), "{line}");
    assert!(!listed.contains(&text[40..]), "{listed}");
    for (wrong, expected) in [
        (&["create", "a"][..], "--scope"),
        (&["create", "a", "--scope", "users"], "tokens:create, users:read"),
        (&["create", "a\u{e9}", "--scope", "users:read"], "letters, digits"),
        (&["create", "a", "--scope", "users:read", "--expires", "0s"], "90d"),
        (&["revoke", text], "not the key itself"),
        (&["revoke", &uuid::Uuid::now_v7().to_string()], "no key has this id"),
    ] {
        let (success, out, err) = key_command(&settings, wrong).await;
        assert!(!success && err.contains(expected) && out.is_empty(), "{wrong:?}: {out} {err}");
    }
    let (revoked, out, err) = key_command(&settings, &["revoke", &text[3..39]]).await;
    assert!(revoked && err.contains("service_key_revoked"), "{out} {err}");
    // Both servers had cached the key; each reads it again within 10 s.
    for caller in [&key, &on_other] {
        super::app::eventually("the key is rejected", async || {
            caller.get("/api/admin/users").await.problem() == (401, "token_invalid")
        })
        .await;
    }
    let (_, listed, _) = key_command(&settings, &["list"]).await;
    assert!(listed.lines().any(|line| line.starts_with(&text[3..39]) && line.contains("revoked")), "{listed}");
}

/// The command waits until no server accepts the key. The test dates the revocation back, so that this wait is over.
#[tokio::test]
async fn revoking_a_key_can_end_the_sessions_of_its_tokens() {
    let app = TestApp::start().await;
    let (leaked, other) =
        (app.create_service_key(&[Scope::TokensCreate]).await, app.create_service_key(&[Scope::TokensCreate]).await);
    let id = raw(&leaked)[3..39].to_owned();
    let mut callers = Vec::new();
    for (key, subject) in [(&leaked, "1"), (&leaked, "2"), (&other, "1")] {
        let answer = key.post("/api/admin/tokens", json!({ "subject": subject })).await;
        callers.push(Caller { token: answer.json["token"].as_str().map(str::to_owned), ..app.anonymous() });
    }
    let settings = Settings::for_app(&app).with("RUST_LOG", "audit=info");
    assert!(key_command(&settings, &["revoke", &id]).await.0);
    let keys = app.db.collection::<Document>("serviceKeys");
    let a_minute_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 60_000);
    keys.update_one(doc! { "_id": &id }, doc! { "$set": { "revokedAt": a_minute_ago } }).await.unwrap();

    let (ended, out, err) = key_command(&settings, &["revoke", &id, "--end-sessions"]).await;
    assert!(ended && out.contains("Ended 2 sessions") && err.contains("service_key_sessions_ended"), "{out} {err}");
    let server = TestApp::start_second_server(&app, |_| {}).await;
    let statuses = callers.iter().map(async |caller| {
        let caller = Caller { token: caller.token.clone(), ..server.anonymous() };
        caller.get("/api/images/gallery").await.status
    });
    assert_eq!(futures_util::future::join_all(statuses).await, [401, 401, 200], "sessions of another key stay");

    let unknown = uuid::Uuid::now_v7().to_string();
    let (success, _, err) = key_command(&settings, &["revoke", &unknown, "--end-sessions"]).await;
    assert!(!success && err.contains("no key has this id"), "{err}");
}
