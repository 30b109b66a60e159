//! Covers the logs at every level: they contain no secrets and no data from request bodies (requirement O1).

use reqwest::Method;
use serde_json::json;

use super::Settings;
use crate::{
    app::{JWT_SECRET, PASSWORD, TestApp, declaration, s3_is_local, unique_png},
    oidc::provider::{AUDIENCE, Key, Provider},
    outages::stalling_relay::StallingRelay,
    process_client::{Client, Process},
};

/// Text that is sent wherever a caller can put one; must not appear in the logs.
const CANARY: &str = "canary-7f3a";

/// Beginnings of the targets of libraries' log lines.
const LIBRARIES: [&str; 5] = ["aws_", "hyper", "rustls", "s3s", "mongodb"];

/// Makes correct and incorrect calls with secrets and canaries in them; returns the texts that must not be in the logs.
async fn make_calls(client: &mut Client) -> Vec<String> {
    let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
    client.sign_in("signup", &email).await;
    let first = client.token.clone().unwrap();
    client.sign_in("login", &email).await;
    let (image, urls) = client.upload(&unique_png()).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    assert_eq!(client.call(Method::PATCH, &path, Some(&json!({ "caption": CANARY }))).await.0, 200);

    for (route, password) in [("login", CANARY.to_owned()), ("signup", CANARY.to_owned()), ("signup", PASSWORD.to_owned())] {
        let (status, _) = client.post(&format!("/api/auth/{route}"), &json!({ "email": email, "password": password })).await;
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

    let mut planted = plant_tokens(client, &email).await;
    plant_in_headers(client).await;
    let signatures = urls.iter().map(|url| url.rsplit_once("X-Amz-Signature=").unwrap().1[..64].to_owned());
    planted.extend([first, client.token.clone().unwrap()]);
    planted.extend(signatures);
    planted
}

/// Uses refresh tokens and path tokens, correctly and incorrectly; returns the tokens.
async fn plant_tokens(client: &Client, email: &str) -> Vec<String> {
    let (_, session) = client.post("/api/auth/login", &json!({ "email": email, "password": PASSWORD })).await;
    let refresh = session["refreshToken"].as_str().unwrap().to_owned();
    let (status, rotated) = client.post("/api/auth/refresh", &json!({ "refreshToken": refresh })).await;
    assert_eq!(status, 200);
    let rotated = rotated["refreshToken"].as_str().unwrap().to_owned();
    for token in [refresh.as_str(), CANARY, &"c".repeat(86)] {
        // The first token was exchanged before; the repeat within the grace period is answered too.
        assert!(!client.post("/api/auth/refresh", &json!({ "refreshToken": token })).await.0.is_server_error());
        client.post("/api/auth/logout", &json!({ "refreshToken": token })).await;
    }
    let (_, uppy) = client.call(Method::POST, "/api/uppy/session", None).await;
    let path_token = uppy["token"].as_str().unwrap().to_owned();
    let spoiled = path_token.replace('.', "_");
    for token in [&path_token, &spoiled, &path_token.replace('e', "%65")] {
        for rest in ["params?filename=a.png&type=image/png", "multipart/x?key=y", "nothing"] {
            client.get(&format!("/uppy/{token}/s3/{rest}")).await;
        }
    }
    vec![refresh, rotated, path_token, spoiled]
}

/// Sends the canary in headers that the server reads, in headers that it ignores, and in malformed request heads.
async fn plant_in_headers(client: &Client) {
    let body = declaration("a.png", "image/png", &unique_png());
    for name in [
        "idempotency-key",
        "x-forwarded-for",
        "x-forwarded-proto",
        "forwarded",
        "x-real-ip",
        "cookie",
        "origin",
        "referer",
        "range",
        "if-none-match",
        "traceparent",
        "user-agent",
    ] {
        let mut upload =
            client.http.post(format!("{}/api/images/upload", client.base)).bearer_auth(client.token.as_ref().unwrap());
        upload = upload.header(name, CANARY).json(&body);
        assert!(!upload.send().await.unwrap().status().is_server_error(), "{name}");
    }
    for head in [
        format!("{CANARY}\u{0} / HTTP/1.1"),
        format!("GET / HTTP/1.1\r\n{CANARY}"),
        format!("GET / HTTP/1.1\r\nx: {}", CANARY.repeat(4000)),
    ] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(client.base.trim_start_matches("http://")).await.unwrap();
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        let mut message = String::new();
        stream.read_to_string(&mut message).await.unwrap();
        assert!(message.starts_with("HTTP/1.1 4") && !message.contains(CANARY), "{message}");
    }
}

/// Asserts that the log has lines of requests and contains no secret.
fn assert_no_secrets(process: &Process, secrets: &[String]) {
    let log = process.err() + &process.out();
    assert!(log.contains("/api/images/upload") && log.contains("request completed"), "requests are logged: {log}");
    let library = log.lines().find(|line| LIBRARIES.iter().any(|name| line.contains(&format!("\"target\":\"{name}"))));
    assert!(library.is_none(), "log lines of libraries contain whole requests: {library:?}");
    let fixed = [PASSWORD, JWT_SECRET, CANARY, "X-Amz-Signature", "X-Amz-Credential", "$argon2", "AWS4-HMAC-SHA256", "eyJ0eXAi"];
    for secret in fixed.into_iter().chain(secrets.iter().map(String::as_str)) {
        let line = log.lines().find(|line| line.to_lowercase().contains(&secret.to_lowercase()));
        assert!(line.is_none(), "{secret} in: {}", line.unwrap());
    }
}

/// Value of `RUST_LOG` with directives for modules of libraries: none of them enables logs that `telemetry` disables.
const ALL_TRACE: &str = "trace,hyper=trace,hyper::proto=trace,hyper_util::client=trace,aws_smithy_runtime::client=trace,\
    aws_smithy_runtime_api=trace,aws_sigv4::http_request=trace,aws_sdk_s3::operation=trace,aws_runtime::auth=trace,\
    aws_config::meta=trace,rustls=trace,mongodb=trace,s3s::ops=trace,[request]=trace";

#[tokio::test]
async fn o1_no_secret_is_logged_at_any_level() {
    let app = TestApp::start().await;
    let keys = app.config.s3.credentials.as_ref().unwrap();
    let s3_secret = secrecy::ExposeSecret::expose_secret(&keys.secret_access_key).to_owned();
    for level in ["info", "trace", ALL_TRACE] {
        let settings =
            Settings::for_app(&app).with("RUST_LOG", level).with("SWEEP_INTERVAL", "1s").with("TRUSTED_PROXIES", "127.0.0.1");
        let (process, mut client) = settings.start_listening().await;
        let mut secrets = make_calls(&mut client).await;
        secrets.push(s3_secret.clone());
        assert_no_secrets(&process, &secrets);
    }
}

/// Covers tokens of an identity provider, valid and invalid, and S3 credentials of a role.
#[tokio::test]
async fn o1_credentials_of_other_services_are_not_logged() {
    let app = TestApp::start().await;
    let (key, other) = (Key::ec(), Key::ec());
    let provider = Provider::start(&[("kid", &key)]).await;
    let mut settings =
        Settings::for_app(&app).with("RUST_LOG", ALL_TRACE).with("OIDC_ISSUER", &provider.issuer).with("OIDC_AUDIENCE", AUDIENCE);
    if s3_is_local() {
        settings = settings.with("AWS_SESSION_TOKEN", &format!("{CANARY}-of-a-role"));
    }
    let (process, mut client) = settings.start_listening().await;
    let mut expired = provider.claims("ada");
    expired["exp"] = json!(1);
    let tokens = [
        (key.token("kid", &provider.claims("ada")), 200),
        (key.token("kid", &expired), 401),
        (other.token("kid", &provider.claims("ada")), 401),
        (key.token(CANARY, &provider.claims("ada")), 401),
        (key.token("kid", &json!({ "iss": provider.issuer, "email": CANARY })), 401),
    ];
    let mut secrets = Vec::new();
    for (token, status) in tokens {
        client.token = Some(token.clone());
        assert_eq!(client.get("/api/auth/me").await.0, status);
        secrets.extend(token.split('.').map(str::to_owned));
    }
    secrets.extend(make_calls(&mut client).await);
    assert_no_secrets(&process, &secrets);
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_failures_log_no_secrets() {
    let app = TestApp::start().await;
    let (database, store) = (StallingRelay::before_mongodb(&app).await, StallingRelay::before_s3(&app).await);
    let settings = Settings::for_app(&app).with("MONGODB_URI", &database.uri(&app)).with("S3_ENDPOINT", &store.endpoint());
    let public = app.config.s3.endpoint.as_deref().unwrap().to_owned();
    let (process, mut client) = settings.with("S3_PUBLIC_ENDPOINT", &public).with("RUST_LOG", ALL_TRACE).start_listening().await;
    let secrets = make_calls(&mut client).await;
    let (_, ticket) = client.post("/api/images/upload", &declaration("a.png", "image/png", &unique_png())).await;
    let confirm = format!("/api/images/{}/confirm", ticket["id"].as_str().unwrap());
    let log_in = json!({ "email": format!("{CANARY}@example.com"), "password": CANARY });
    store.stall();
    let refresh = json!({ "refreshToken": CANARY });
    assert!(client.call(Method::POST, &confirm, None).await.0.is_server_error());
    database.stall();
    let (login, refresh, confirm) = tokio::join!(
        client.post("/api/auth/login", &log_in),
        client.post("/api/auth/refresh", &refresh),
        client.call(Method::POST, &confirm, None)
    );
    assert!(
        login.0.is_server_error() && refresh.0.is_client_error() && confirm.0.is_server_error(),
        "{login:?} {refresh:?} {confirm:?}"
    );
    assert_no_secrets(&process, &secrets);
    drop(process);
    // A server that fails to start.
    let uri = app.config.mongo.uri.clone();
    let uri = secrecy::ExposeSecret::expose_secret(&uri).replace("mongodb://", &format!("mongodb://user:{CANARY}@"));
    for (name, value) in [("MONGODB_URI", uri.as_str()), ("S3_BUCKET", "no-such-bucket"), ("AWS_SECRET_ACCESS_KEY", CANARY)] {
        if name.starts_with("AWS") && !s3_is_local() {
            continue;
        }
        let message = Settings::for_app(&app).with(name, value).with("RUST_LOG", ALL_TRACE).start_error().await;
        assert!(!message.contains(CANARY) && !message.contains(JWT_SECRET), "{name}: {message}");
    }
}
