//! Covers the calls of an app's backend about users: lists, quotas, suspension, deletion, and the users' images.
//!
//! Routes: GET /api/admin/users, GET /api/admin/users/{user}, DELETE /api/admin/users/{user}, PUT /api/admin/users/{user}/quota,
//! DELETE /api/admin/users/{user}/quota, POST /api/admin/users/{user}/suspend, POST /api/admin/users/{user}/resume,
//! GET /api/admin/users/{user}/images, DELETE /api/admin/users/{user}/images/{image}.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use valet::model::Scope;

use super::{
    app::{Answer, Caller, PASSWORD, TestApp, eventually, unique_png},
    isolation::call_with,
    openapi::operations,
    process_client::Client,
    serve::Settings,
};

/// Returns the path of a user in the API for the app's backend, followed by `rest`.
fn admin_path(user: &Caller<'_>, rest: &str) -> String {
    format!("/api/admin/users/{}{rest}", user.id)
}

/// Returns the ids of the users in a page.
fn ids(page: &Answer) -> Vec<&str> {
    assert_eq!(page.status, 200, "{page:?}");
    page.json["users"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn users_are_listed_in_pages_and_found_by_subject_and_address() {
    let app = TestApp::start().await;
    let key = app.create_service_key(&Scope::ALL).await;
    let users = [app.user().await, app.user().await, app.user().await];
    let token = key.post("/api/admin/tokens", json!({ "subject": "user|7" })).await;
    let mut all: Vec<_> = users.iter().map(|user| user.id.clone()).collect();
    all.push(token.json["user"]["id"].as_str().unwrap().to_owned());
    let (mut seen, mut path) = (Vec::new(), "/api/admin/users?limit=3".to_owned());
    loop {
        let page = key.get(&path).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(cursor) = page.json["nextCursor"].as_str() else { break };
        path = format!("/api/admin/users?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, all);
    let found = key.get("/api/admin/users?subject=user%7C7").await;
    assert_eq!(ids(&found), [all[3].as_str()]);
    assert_eq!((&found.json["users"][0]["issuer"], &found.json["users"][0]["subject"]), (&json!("app"), &json!("user|7")));
    assert_eq!(ids(&key.get("/api/admin/users?subject=nobody").await), Vec::<&str>::new());
    let by_address = key.get(&format!("/api/admin/users?email={}", users[1].email.to_uppercase())).await;
    assert_eq!(ids(&by_address), [users[1].id.as_str()]);
    assert!(by_address.json["users"][0].get("issuer").is_none() && !by_address.text.contains("assword"), "{by_address:?}");
    assert_eq!(key.get("/api/admin/users?email=ada").await.problem(), (422, "invalid_email"));
    assert_eq!(key.get("/api/admin/users?email=a@b.example&subject=7").await.problem(), (400, "invalid_request"));
    assert_eq!(key.get("/api/admin/users?cursor=AAAA").await.problem(), (400, "invalid_cursor"));
    assert_eq!(key.get("/api/admin/users?limit=101").await.problem(), (400, "invalid_request"));
    // An unreadable record is left out; the others are listed.
    let records = app.db.collection::<Document>("users");
    records.update_one(doc! { "_id": &users[0].id }, doc! { "$set": { "createdAt": "x" } }).await.unwrap();
    assert_eq!(ids(&key.get("/api/admin/users").await).len(), 3);
}

#[tokio::test]
async fn own_quota_applies_at_once_and_deletes_nothing() {
    let app = TestApp::start_with(|config| config.uploads.quota_bytes = 1000).await;
    let other = TestApp::start_second_server(&app, |config| config.uploads.quota_bytes = 1000).await;
    let (key, ada, bob) = (app.create_service_key(&Scope::ALL).await, app.user().await, app.user().await);
    let png = unique_png();
    let size = png.len() as u64;
    let set_quota = async |bytes: u64| key.put(&admin_path(&ada, "/quota"), json!({ "bytes": bytes })).await;
    let open_upload = async |user: &Caller<'_>| {
        let mut bytes = unique_png();
        bytes.resize(900, 0);
        user.open_upload("a.png", "image/png", &bytes).await
    };
    assert!(size < 900, "{size}");
    ada.upload("a.png", "image/png", &png).await;
    assert_eq!(open_upload(&ada).await.problem(), (409, "quota_exceeded"), "the server's quota");
    let answer = set_quota(size + 1800).await;
    assert_eq!(answer.json["usage"], json!({ "bytes": size, "quotaBytes": size + 1800, "images": 1, "pending": 0 }));
    let on_other = Caller { app: &other, ..ada.clone() };
    assert_eq!((open_upload(&ada).await.status, open_upload(&on_other).await.status), (201, 201), "beyond the server's quota");
    let rejected = open_upload(&on_other).await;
    assert!(
        rejected.problem() == (409, "quota_exceeded") && rejected.text.contains(&format!("0 of {} bytes", size + 1800)),
        "{rejected:?}"
    );
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["quotaBytes"], size + 1800);
    // Quotas below the usage, and of zero.
    for bytes in [1, 0] {
        assert_eq!(set_quota(bytes).await.json["usage"]["quotaBytes"], bytes);
        assert_eq!(open_upload(&ada).await.problem(), (409, "quota_exceeded"));
    }
    assert_eq!(ada.get("/api/images/gallery").await.json["images"].as_array().unwrap().len(), 1);
    let pending = ada.get("/api/images/pending").await;
    assert_eq!(pending.json["uploads"].as_array().unwrap().len(), 2, "open uploads stay");
    assert_eq!(open_upload(&bob).await.status, 201, "another user");
    let reset = key.delete(&admin_path(&ada, "/quota")).await;
    assert_eq!(reset.json["usage"]["quotaBytes"], 1000);
    assert_eq!(set_quota((1 << 53) - 1).await.status, 200);
    assert_eq!(set_quota(1 << 53).await.problem(), (422, "invalid_quota"));
    for (bytes, problem) in
        [(json!(-1), (422, "invalid_quota")), (json!(1.5), (400, "invalid_request")), (json!("1"), (400, "invalid_request"))]
    {
        let rejected = key.put(&admin_path(&ada, "/quota"), json!({ "bytes": bytes })).await;
        assert_eq!(rejected.problem(), problem, "{bytes}");
        let message = rejected.json["errors"][0]["message"].as_str().unwrap_or_default();
        assert!(problem.0 == 422 || message == "must be an integer", "{message}");
    }
}

/// Concurrent uploads on two servers fill a user's own quota exactly, in whatever order they arrive.
#[tokio::test(flavor = "multi_thread")]
async fn own_quota_is_never_exceeded_by_concurrent_uploads() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let (key, ada) = (app.create_service_key(&Scope::ALL).await, app.user().await);
    assert_eq!(key.put(&admin_path(&ada, "/quota"), json!({ "bytes": 5000 })).await.status, 200);
    let on_other = Caller { app: &other, ..ada.clone() };
    let calls = (0..12).map(async |n| {
        let mut bytes = unique_png();
        bytes.resize(1000, 0);
        (if n % 2 == 0 { &ada } else { &on_other }).open_upload("a.png", "image/png", &bytes).await.status
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5, "{statuses:?}");
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 5000);
}

#[tokio::test]
async fn suspended_user_is_rejected_everywhere_until_resumed() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let (key, ada, bob) = (app.create_service_key(&Scope::ALL).await, app.user().await, app.user().await);
    let credentials = json!({ "email": ada.email, "password": PASSWORD });
    let session = app.anonymous().post("/api/auth/login", credentials.clone()).await;
    let refresh = json!({ "refreshToken": session.json["refreshToken"] });
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let uppy = format!("/uppy/{}/s3/params?filename=a.png&type=image/png", ada.uppy().await);
    let on_other = Caller { app: &other, ..ada.clone() };
    assert_eq!(on_other.get("/api/auth/me").await.status, 200, "the other server caches the session");

    let suspended = key.post_empty(&admin_path(&ada, "/suspend")).await;
    let since = suspended.json["suspendedAt"].clone();
    assert!(suspended.status == 200 && since.is_string(), "{suspended:?}");
    for operation in operations().into_iter().filter(|one| one.is_protected() && !one.is_admin()) {
        let rejected = call_with(&ada, &operation, image["id"].as_str().unwrap()).await;
        assert_eq!(rejected.problem(), (403, "account_suspended"), "{} {}", operation.method, operation.path);
    }
    let suspension = (403, "account_suspended");
    assert_eq!(app.anonymous().get(&uppy).await.problem(), suspension);
    for server in [&app, &other] {
        assert_eq!(server.anonymous().post("/api/auth/login", credentials.clone()).await.problem(), suspension);
        assert_eq!(server.anonymous().post("/api/auth/refresh", refresh.clone()).await.problem(), suspension);
    }
    let wrong = json!({ "email": ada.email, "password": "another password of hers" });
    assert_eq!(
        app.anonymous().post("/api/auth/login", wrong).await.problem(),
        (401, "invalid_credentials"),
        "the suspension is not revealed without the password"
    );
    let began = std::time::Instant::now();
    eventually("the other server rejects", async || on_other.get("/api/auth/me").await.problem() == suspension).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(key.post_empty(&admin_path(&ada, "/suspend")).await.json["suspendedAt"], since, "a repeat keeps the time");
    assert_eq!(bob.get("/api/auth/me").await.status, 200);
    assert_eq!(
        key.get(&admin_path(&ada, "/images")).await.json["images"][0]["id"],
        image["id"],
        "the backend can still list the images"
    );

    let resumed = key.post_empty(&admin_path(&ada, "/resume")).await;
    assert!(resumed.status == 200 && resumed.json.get("suspendedAt").is_none(), "{resumed:?}");
    assert_eq!(ada.get("/api/auth/me").await.status, 200, "the same session");
    assert_eq!(app.anonymous().post("/api/auth/refresh", refresh).await.status, 200);
    eventually("the other server accepts", async || on_other.get("/api/auth/me").await.status == 200).await;
    assert_eq!(key.post_empty(&admin_path(&ada, "/resume")).await.status, 200, "a repeat");
}

#[tokio::test]
async fn suspended_app_user_gets_no_token_and_loses_the_one_it_has() {
    let app = TestApp::start().await;
    let key = app.create_service_key(&Scope::ALL).await;
    let token = key.post("/api/admin/tokens", json!({ "subject": "7" })).await;
    let ada = Caller {
        token: token.json["token"].as_str().map(str::to_owned),
        id: token.json["user"]["id"].as_str().unwrap().to_owned(),
        ..app.anonymous()
    };
    assert_eq!(ada.get("/api/auth/me").await.status, 200);
    assert_eq!(key.post_empty(&admin_path(&ada, "/suspend")).await.status, 200);
    assert_eq!(ada.get("/api/auth/me").await.problem(), (403, "account_suspended"));
    assert_eq!(key.post("/api/admin/tokens", json!({ "subject": "7" })).await.problem(), (403, "account_suspended"));
    assert_eq!(key.post_empty(&admin_path(&ada, "/resume")).await.status, 200);
    assert_eq!(ada.get("/api/auth/me").await.status, 200);
}

#[tokio::test]
async fn backend_deletes_users_and_their_images() {
    let app = TestApp::start().await;
    let (key, ada, bob) = (app.create_service_key(&Scope::ALL).await, app.user().await, app.user().await);
    let image = ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    ada.upload("b.png", "image/png", &unique_png()).await;
    let page = key.get(&admin_path(&ada, "/images?limit=1")).await;
    assert_eq!(page.json["images"].as_array().unwrap().len(), 1);
    let next = page.json["nextCursor"].as_str().unwrap();
    assert_eq!(
        key.get(&admin_path(&ada, &format!("/images?limit=1&cursor={next}"))).await.json["images"][0]["id"],
        image.as_str()
    );
    assert_eq!(
        key.get(&admin_path(&bob, &format!("/images?cursor={next}"))).await.problem(),
        (400, "invalid_cursor"),
        "another user's cursor"
    );
    assert_eq!(
        key.delete(&admin_path(&bob, &format!("/images/{image}"))).await.problem(),
        (404, "not_found"),
        "not an image of this user"
    );
    assert_eq!(key.delete(&admin_path(&ada, &format!("/images/{image}"))).await.status, 204);
    assert_eq!(ada.get(&format!("/api/images/{image}")).await.problem(), (404, "not_found"));
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["images"], 1);

    assert_eq!(key.delete(&admin_path(&ada, "")).await.status, 204);
    assert_eq!(ada.get("/api/auth/me").await.problem(), (401, "session_ended"));
    for (method, rest, body) in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("PUT", "/quota", Some(json!({ "bytes": 1 }))),
        ("DELETE", "/quota", None),
        ("POST", "/suspend", None),
        ("POST", "/resume", None),
        ("GET", "/images", None),
        ("DELETE", &format!("/images/{image}0"), None),
    ] {
        let send =
            |request: reqwest::RequestBuilder| body.as_ref().map_or(request.try_clone().unwrap(), |body| request.json(body));
        let answer = key.send(method.parse().unwrap(), &admin_path(&ada, rest), send).await;
        assert_eq!(answer.problem(), (404, "not_found"), "{method} {rest}");
    }
    let sign_up = json!({ "email": ada.email, "password": PASSWORD });
    assert_eq!(app.anonymous().post("/api/auth/signup", sign_up).await.status, 201, "the address is free");
    app.sweep_after_url_expiry().await;
    assert!(!app.bucket_keys().await.iter().any(|key| key.contains(&ada.id)));
    assert_eq!(bob.get("/api/auth/me").await.status, 200);
}

#[tokio::test]
async fn every_call_is_audited_with_the_name_of_its_key() {
    let app = TestApp::start().await;
    let key = app.create_service_key(&Scope::ALL).await;
    let (process, client) = Settings::for_app(&app).with("RUST_LOG", "audit=info,valet=info").start_listening().await;
    let client = Client { token: key.token.clone(), ..client };
    let user = client.post("/api/admin/tokens", &json!({ "subject": "canary subject" })).await.1["user"]["id"].clone();
    let user = user.as_str().unwrap();
    let admin: Vec<_> = operations().into_iter().filter(|one| one.is_admin()).collect();
    // The deletion of the user comes last.
    for operation in admin.iter().filter(|one| one.described["operationId"] != "delete_user") {
        let path = operation.path.replace("{user}", user).replace("{image}", &uuid::Uuid::now_v7().to_string());
        let (status, answer) = client.call(operation.method.clone(), &path, operation.body()).await;
        assert!(status.is_success() || status == 404, "{path}: {answer}");
    }
    assert_eq!(client.call(reqwest::Method::DELETE, &format!("/api/admin/users/{user}"), None).await.0, 204);
    // Returns the lines of the audit log.
    let audited = |log: &str| -> Vec<Value> {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "audit" && line["event"].is_string()).collect()
    };
    let all = process
        .wait_for(|process| {
            Some(audited(&process.err())).filter(|all| all.iter().any(|line| line["event"] == "account_deletion_begun"))
        })
        .await;
    for operation in &admin {
        let id = &operation.described["operationId"];
        let line = all.iter().find(|line| line["event"] == "admin_call" && line["operation"] == *id);
        let line = line.unwrap_or_else(|| panic!("{id} in {all:#?}"));
        // A service key is `vk_<id>_<secret>`, with an id of 36 characters.
        assert!(
            line["key"] == "tests" && line["key_id"] == key.token.as_ref().unwrap()[3..39] && line["span"]["id"].is_string(),
            "{line}"
        );
    }
    let documented = include_str!("../../docs/audit-log.md");
    for event in
        ["account_created", "token_created", "quota_changed", "account_suspended", "account_resumed", "account_deletion_begun"]
    {
        let line = all.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("{event} in {all:#?}"));
        assert!(line["key"] == "tests" && line["user"] == user, "{line}");
        assert!(documented.contains(&format!("| `{event}` |")), "{event}");
    }
    let log = process.err();
    assert!(!log.contains(&key.token.as_ref().unwrap()[40..]) && !log.contains("canary"), "{log}");
}
