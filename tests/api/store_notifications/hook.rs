//! Covers the address that receives notifications: its token, its limits, and its answers while the database is down.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Abandoned, Notifier, TOKEN, with_hook};
use crate::{
    app::TestApp,
    outages::{LIMIT, stalling_relay::StallingRelay},
    process_client::Client,
    serve::Settings,
};

#[tokio::test(flavor = "multi_thread")]
async fn hook_exists_only_at_the_path_with_its_token() {
    let notifier = Notifier::start().await;
    let upload = Abandoned::sent(&notifier.app.user().await).await;
    let body = notifier.records(&[&upload.key]).to_string();
    let upper = TOKEN.to_uppercase();
    let longer = format!("{TOKEN}0");
    for token in ["", "x", &TOKEN[1..], &longer, &upper, "%2e%2e", "f3a9c1d27b6e4805f3a9c1d27b6e4806"] {
        let answer =
            notifier.app.http.post(format!("{}/hooks/s3/{token}", notifier.address)).body(body.clone()).send().await.unwrap();
        assert_eq!((answer.status(), answer.text().await.unwrap().contains(TOKEN)), (StatusCode::NOT_FOUND, false), "{token}");
    }
    for path in ["/hooks/s3", "/hooks", "/", "/api/auth/me", "/livez", &format!("/hooks/s3/{TOKEN}/x")] {
        assert_eq!(notifier.app.http.post(format!("{}{path}", notifier.address)).send().await.unwrap().status(), 404, "{path}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD] {
        let status = notifier.app.http.request(method.clone(), notifier.url()).send().await.unwrap().status();
        assert_eq!(status, 405, "{method}");
    }
    assert_eq!(notifier.app.db_state(&upload.id).await, "pending", "no notification was accepted");
    let at_api =
        notifier.app.http.post(format!("{}/hooks/s3/{TOKEN}", notifier.app.base)).header("content-type", "application/json");
    let at_api = at_api.body(body).send().await.unwrap();
    assert_eq!(at_api.status(), 404, "the hook is not at the address of the API");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_may_call_the_hook() {
    let notifier = Notifier::start().await;
    for origin in ["https://app.example", "null"] {
        let preflight = notifier.app.http.request(Method::OPTIONS, notifier.url()).header("origin", origin);
        let preflight = preflight.header("access-control-request-method", "POST").send().await.unwrap();
        let post = notifier.app.http.post(notifier.url()).header("origin", origin).body("{}").send().await.unwrap();
        for answer in [preflight, post] {
            let cors = answer.headers().keys().find(|name| name.as_str().starts_with("access-control-"));
            assert_eq!(cors, None, "{origin}");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_notifications_are_answered_as_received() {
    let notifier = Notifier::start().await;
    let upload = Abandoned::sent(&notifier.app.user().await).await;
    let bucket = notifier.app.config.s3.bucket.to_string();
    let mut removed = notifier.records(&[&upload.key]);
    removed["Records"][0]["eventName"] = "ObjectRemoved:Delete".into();
    for body in [
        String::new(),
        "<xml/>".to_owned(),
        "[".repeat(100_000),
        json!({ "Records": [7, null, {}] }).to_string(),
        json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket }).to_string(),
        json!({ "Type": "SubscriptionConfirmation", "SubscribeURL": "http://127.0.0.1:1/", "Message": "" }).to_string(),
        super::records("another-bucket", &[&upload.key]).to_string(),
        super::records(&bucket, &["u/../../etc/passwd", "backup.tar", &format!("{}.png", upload.key)]).to_string(),
        removed.to_string(),
    ] {
        assert_eq!(notifier.send(body.clone()).await, 204, "{}", &body[..body.len().min(100)]);
    }
    assert_eq!(notifier.app.db_state(&upload.id).await, "pending");
    notifier.notify(&[&upload.key]).await;
    notifier.app.until_state(&upload.id, "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_notifications_are_rejected() {
    let notifier = Notifier::start().await;
    assert_eq!(notifier.send(" ".repeat(256 * 1024)).await, 204);
    assert_eq!(notifier.send(" ".repeat(256 * 1024 + 1)).await, 413);
    let endless = futures_util::stream::iter((0..1000).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
    let sent = notifier.app.http.post(notifier.url()).body(reqwest::Body::wrap_stream(endless)).send().await;
    assert!(sent.is_err() || sent.is_ok_and(|answer| answer.status() == 413));
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_is_asked_to_repeat_while_the_database_is_down() {
    let app = TestApp::start().await;
    let relay = StallingRelay::before_mongodb(&app).await;
    let uri = relay.uri(&app);
    let server = TestApp::start_second_server(&app, |config| {
        with_hook(config);
        config.mongo.uri = uri.into();
    });
    let notifier = Notifier::before(server.await).await;
    let upload = Abandoned::sent(&app.user().await).await;
    let body = notifier.records(&[&upload.key]).to_string();
    relay.drop_open_connections();
    let began = Instant::now();
    let answer = notifier.app.http.post(notifier.url()).body(body.clone()).send().await.unwrap();
    assert_eq!((answer.status(), answer.headers()["retry-after"].to_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    assert_eq!(notifier.send("garbage").await, 204, "an ignored notification needs no database");
    relay.accept_again();
    let began = Instant::now();
    while notifier.send(body.clone()).await != 204 {
        assert!(began.elapsed() < Duration::from_secs(30), "the hook works again within 30 s");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    app.until_state(&upload.id, "ready").await;
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn served_program_receives_notifications_on_its_own_address() {
    let app = TestApp::start().await;
    let settings = Settings::for_app(&app).with("HOOKS_BIND", "127.0.0.1:0").with("S3_HOOK_TOKEN", TOKEN);
    let (process, _client) = settings.start_listening().await;
    let address = process.wait_for(|process| {
        process.err().lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let is_hook = line["message"].as_str()?.contains("/hooks/s3/");
            is_hook.then(|| line["address"].as_str().map(str::to_owned))?
        })
    });
    let hook = Client::at(format!("http://{}", address.await));
    let upload = Abandoned::sent(&app.user().await).await;
    let body = super::records(&app.config.s3.bucket, &[&upload.key]).to_string();
    let sent = hook.http.post(format!("{}/hooks/s3/{TOKEN}", hook.base)).body(body).send().await.unwrap();
    assert_eq!(sent.status(), 204);
    app.until_state(&upload.id, "ready").await;
    assert!(!process.err().contains(TOKEN), "{}", process.err());
}
