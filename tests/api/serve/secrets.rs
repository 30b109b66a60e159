//! O1: whatever is logged, at whatever level, it is no secret and nothing that a caller sent in a body.

use reqwest::Method;
use serde_json::json;

use super::Settings;
use crate::{
    app::{JWT_SECRET, PASSWORD, TestApp, unique_png},
    process::{Client, Process},
};

const CANARY: &str = "canary-7f3a";

const LIBRARIES: [&str; 5] = ["aws_", "hyper", "rustls", "s3s", "mongodb"];

/// The whole path, and everything that a client can get wrong. Returns what must not be found in the logs.
async fn use_everything(client: &mut Client) -> Vec<String> {
    let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
    client.enter("signup", &email).await;
    let first = client.token.clone().unwrap();
    client.enter("login", &email).await;
    let (image, urls) = client.upload(&unique_png()).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    assert_eq!(client.call(Method::PATCH, &path, Some(&json!({ "caption": CANARY }))).await.0, 200);

    for (door, password) in [("login", CANARY.to_owned()), ("signup", CANARY.to_owned()), ("signup", PASSWORD.to_owned())] {
        let (status, _) = client.post(&format!("/api/auth/{door}"), &json!({ "email": email, "password": password })).await;
        assert!(status.is_client_error(), "{status}");
    }
    let wrong = json!({ "fileName": { "$gt": CANARY }, "contentType": CANARY, "size": CANARY, "sha256": CANARY });
    for body in [json!({ "email": CANARY, "password": [CANARY] }), json!({ CANARY: CANARY }), wrong, json!(CANARY)] {
        for path in ["/api/auth/login", "/api/images/upload"] {
            assert_eq!(client.post(path, &body).await.0, 400);
        }
    }
    for text in [format!("{{\"email\":\"{CANARY}"), "x".repeat(20_000) + CANARY] {
        for content_type in ["application/json", "text/plain", "multipart/form-data; boundary=canary-7f3a"] {
            let request = client.http.post(format!("{}/api/auth/login", client.base)).header("content-type", content_type);
            assert!(request.body(text.clone()).send().await.unwrap().status().is_client_error());
        }
    }
    for authorization in [format!("Bearer {CANARY}"), format!("Basic {CANARY}"), CANARY.to_owned()] {
        let request = client.http.get(format!("{}/api/auth/me", client.base)).header("authorization", authorization);
        assert_eq!(request.header("x-request-id", format!("{CANARY} {CANARY}")).send().await.unwrap().status(), 401);
    }
    assert_eq!(client.get(&format!("/api/images/gallery?cursor={CANARY}&access_token={first}")).await.0, 400);
    assert_eq!(client.call(Method::DELETE, &path, None).await.0, 204);

    let signatures = urls.iter().map(|url| url.rsplit_once("X-Amz-Signature=").unwrap().1[..64].to_owned());
    [first, client.token.clone().unwrap()].into_iter().chain(signatures).collect()
}

fn check(process: &Process, secrets: &[String]) {
    let log = process.err() + &process.out();
    assert!(log.contains("/api/images/upload") && log.contains("answered"), "requests are logged: {log}");
    let library = log.lines().find(|line| LIBRARIES.iter().any(|name| line.contains(&format!("\"target\":\"{name}"))));
    assert!(library.is_none(), "the libraries' own lines hold whole requests: {library:?}");
    let fixed = [PASSWORD, JWT_SECRET, CANARY, "X-Amz-Signature", "X-Amz-Credential", "$argon2", "AWS4-HMAC-SHA256", "eyJ0eXAi"];
    for secret in fixed.into_iter().chain(secrets.iter().map(String::as_str)) {
        let line = log.lines().find(|line| line.to_lowercase().contains(&secret.to_lowercase()));
        assert!(line.is_none(), "{secret} in: {}", line.unwrap());
    }
}

/// Directives for parts of a library are as many as it has modules: none of them opens what `telemetry` closes.
const LOUD: &str = "trace,hyper=trace,hyper::proto=trace,hyper_util::client=trace,aws_smithy_runtime::client=trace,\
    aws_smithy_runtime_api=trace,aws_sigv4::http_request=trace,aws_sdk_s3::operation=trace,aws_runtime::auth=trace,\
    aws_config::meta=trace,rustls=trace,mongodb=trace,s3s::ops=trace,[request]=trace";

#[tokio::test]
async fn o1_no_secret_is_logged_at_any_level() {
    let app = TestApp::start().await;
    let keys = app.config.s3.credentials.as_ref().unwrap();
    let s3_secret = secrecy::ExposeSecret::expose_secret(&keys.secret_access_key).to_owned();
    for level in ["info", "trace", LOUD] {
        let (process, mut client) = Settings::of(&app).but("RUST_LOG", level).but("SWEEP_INTERVAL", "1s").listening().await;
        let mut secrets = use_everything(&mut client).await;
        secrets.push(s3_secret.clone());
        check(&process, &secrets);
    }
}
