//! Covers temporary S3 credentials: the server renews them before they expire, also if they stay the same and only their expiry
//! changes; during an outage of their provider they expire.

use std::sync::{Arc, Mutex};

use poem::{
    EndpointExt, IntoResponse, Response, Route, Server, get, handler,
    http::StatusCode as Status,
    listener::TcpAcceptor,
    web::{Data, Json},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Client, Duration, ExposeSecret, Instant, Settings, TestApp};
use crate::app::{declaration, skip_unless_local_s3, unique_png};

/// The provider's answer: a session token and the credentials' expiry, or `None` during an outage.
type Given = Arc<Mutex<Option<(&'static str, OffsetDateTime)>>>;

/// A provider of temporary credentials.
#[derive(Clone)]
struct Provider {
    /// Access key id and secret of the store.
    keys: (String, String),
    given: Given,
}

/// Answers with the current credentials, or with 500 without them.
#[handler]
async fn answer(provider: Data<&Provider>) -> Response {
    let Some((token, end)) = *provider.given.lock().unwrap() else { return Status::INTERNAL_SERVER_ERROR.into_response() };
    let (id, secret) = &provider.keys;
    Json(json!({ "AccessKeyId": id, "SecretAccessKey": secret, "Token": token, "Expiration": end.format(&Rfc3339).unwrap() }))
        .into_response()
}

/// Starts the provider of an ECS task or EKS pod, whose address is in `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
fn start(keys: (String, String), given: &Given) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}/credentials", listener.local_addr().unwrap());
    let routes = Route::new().at("/credentials", get(answer)).data(Provider { keys, given: given.clone() });
    tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_std(listener).unwrap()).run(routes));
    address
}

/// Opens an upload. Returns the session token in its URL and the URL's lifetime in seconds, or status and problem.
async fn issued(client: &Client) -> Result<(String, i64), (u16, Value)> {
    let asked_at = OffsetDateTime::now_utc();
    let (status, ticket) = client.post("/api/images/upload", &declaration("sea.png", "image/png", &unique_png())).await;
    if status != 201 {
        return Err((status.as_u16(), ticket));
    }
    let url = url::Url::parse(ticket["upload"]["url"].as_str().unwrap()).unwrap();
    let value = |name: &str| url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
    let ends = OffsetDateTime::parse(ticket["upload"]["expiresAt"].as_str().unwrap(), &Rfc3339).unwrap();
    let (holds, most) = (value("X-Amz-Expires").parse().unwrap(), (ends - asked_at).whole_seconds() + 1);
    let least = (ends - OffsetDateTime::now_utc()).whole_seconds();
    assert!((least..=most).contains(&holds), "the answer has the URL's lifetime: {holds}, from {least} to {most}");
    Ok((value("X-Amz-Security-Token"), holds))
}

/// Requests URLs until the answer is as wanted, for at most 90 s: credentials may live for a minute.
async fn until(client: &Client, wanted: impl Fn(&Result<(String, i64), (u16, Value)>) -> bool) {
    let began = Instant::now();
    loop {
        let result = issued(client).await;
        if wanted(&result) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{result:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_credentials_are_renewed_and_no_url_outlives_them() {
    // LocalStack accepts any secret, but no session token that it has not issued.
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let keys = app.config.s3.credentials.as_ref().unwrap();
    let keys = (keys.access_key_id.clone(), keys.secret_access_key.expose_secret().to_owned());
    let given = Given::default();
    let give = |token, seconds| *given.lock().unwrap() = Some((token, OffsetDateTime::now_utc() + Duration::from_secs(seconds)));
    let address = start(keys, &given);
    let settings = Settings::for_app(&app).without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let settings =
        settings.with("RATE_LIMIT", "off").with("UPLOAD_URL_TTL", "300s").with("AWS_CONTAINER_CREDENTIALS_FULL_URI", &address);

    let message = settings.start_error().await;
    assert!(message.contains("AWS credentials"), "a server without credentials does not start: {message}");

    give("one", 100);
    let (process, mut client) = settings.start_listening().await;
    client.sign_in("signup", "ada@example.com").await;
    until(&client, Result::is_ok).await;
    let (token, holds) = issued(&client).await.unwrap();
    assert!(token == "one" && (25..=100).contains(&holds), "no URL outlives its credentials: {token}, {holds} s");

    // The same credentials with a later expiry, as EC2 gives them during an outage of its own source; then other credentials.
    give("one", 3600);
    until(&client, |seen| matches!(seen, Ok((token, 300)) if token == "one")).await;
    drop((process, client));

    give("two", 60);
    let (process, mut client) = settings.start_listening().await;
    client.sign_in("login", "ada@example.com").await;
    *given.lock().unwrap() = None;
    // An outage has no effect while the credentials are valid; then calls are answered 503, and no uploaded data is lost.
    let (image, _) = client.upload(&unique_png()).await;
    until(&client, |seen| match seen {
        Ok((token, holds)) => {
            assert!(token == "two" && *holds <= 60);
            false
        }
        Err((status, problem)) => {
            assert_eq!((*status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
            true
        }
    })
    .await;
    assert!(process.err().contains("failed to renew the credentials for S3"), "the failure is logged");
    give("three", 3600);
    until(&client, |seen| matches!(seen, Ok((token, 300)) if token == "three")).await;
    let (_, gallery) = client.get("/api/images/gallery").await;
    assert_eq!(gallery["images"][0]["id"], image["id"]);
    // The server's own calls use the new credentials too.
    client.upload(&unique_png()).await;
    let log = process.err();
    for secret in ["\"two\"", "\"three\"", "X-Amz-Security-Token"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}
