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
type CurrentCredentials = Arc<Mutex<Option<(&'static str, OffsetDateTime)>>>;

/// A provider of temporary credentials.
#[derive(Clone)]
struct Provider {
    /// Access key id and secret of the store.
    keys: (String, String),
    current: CurrentCredentials,
}

/// Answers with the current credentials, or with 500 without them.
#[handler]
async fn answer(provider: Data<&Provider>) -> Response {
    let Some((token, end)) = *provider.current.lock().unwrap() else { return Status::INTERNAL_SERVER_ERROR.into_response() };
    let (id, secret) = &provider.keys;
    Json(json!({ "AccessKeyId": id, "SecretAccessKey": secret, "Token": token, "Expiration": end.format(&Rfc3339).unwrap() }))
        .into_response()
}

/// Starts the provider of an ECS task or EKS pod, whose address is in `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
fn start(keys: (String, String), current: &CurrentCredentials) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}/credentials", listener.local_addr().unwrap());
    let routes = Route::new().at("/credentials", get(answer)).data(Provider { keys, current: current.clone() });
    tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_std(listener).unwrap()).run(routes));
    address
}

/// Opens an upload. Returns the session token in its URL and the URL's lifetime in seconds, or status and problem.
async fn open_upload(client: &Client) -> Result<(String, i64), (u16, Value)> {
    let requested_at = OffsetDateTime::now_utc();
    let (status, ticket) = client.post("/api/images/upload", &declaration("sea.png", "image/png", &unique_png())).await;
    if status != 201 {
        return Err((status.as_u16(), ticket));
    }
    let url = url::Url::parse(ticket["upload"]["url"].as_str().unwrap()).unwrap();
    let value = |name: &str| url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
    let ends = OffsetDateTime::parse(ticket["upload"]["expiresAt"].as_str().unwrap(), &Rfc3339).unwrap();
    let (lifetime, max_lifetime) = (value("X-Amz-Expires").parse().unwrap(), (ends - requested_at).whole_seconds() + 1);
    let min_lifetime = (ends - OffsetDateTime::now_utc()).whole_seconds();
    assert!(
        (min_lifetime..=max_lifetime).contains(&lifetime),
        "the answer has the URL's lifetime: {lifetime}, from {min_lifetime} to {max_lifetime}"
    );
    Ok((value("X-Amz-Security-Token"), lifetime))
}

/// Requests URLs until the answer is as wanted, for at most 90 s: credentials may live for a minute.
async fn wait_until(client: &Client, is_wanted: impl Fn(&Result<(String, i64), (u16, Value)>) -> bool) {
    let began = Instant::now();
    loop {
        let result = open_upload(client).await;
        if is_wanted(&result) {
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
    let current = CurrentCredentials::default();
    let set_credentials =
        |token, seconds| *current.lock().unwrap() = Some((token, OffsetDateTime::now_utc() + Duration::from_secs(seconds)));
    let address = start(keys, &current);
    let settings = Settings::for_app(&app).without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let settings =
        settings.with("RATE_LIMIT", "off").with("UPLOAD_URL_TTL", "300s").with("AWS_CONTAINER_CREDENTIALS_FULL_URI", &address);

    let message = settings.start_error().await;
    assert!(message.contains("AWS credentials"), "a server without credentials does not start: {message}");

    set_credentials("one", 100);
    let (process, mut client) = settings.start_listening().await;
    client.sign_in("signup", "ada@example.com").await;
    wait_until(&client, Result::is_ok).await;
    let (token, lifetime) = open_upload(&client).await.unwrap();
    assert!(token == "one" && (25..=100).contains(&lifetime), "no URL outlives its credentials: {token}, {lifetime} s");

    // The same credentials with a later expiry, as EC2 gives them during an outage of its own source; then other credentials.
    set_credentials("one", 3600);
    wait_until(&client, |seen| matches!(seen, Ok((token, 300)) if token == "one")).await;
    drop((process, client));

    set_credentials("two", 60);
    let (process, mut client) = settings.start_listening().await;
    client.sign_in("login", "ada@example.com").await;
    *current.lock().unwrap() = None;
    // An outage has no effect while the credentials are valid; then calls are answered 503, and no uploaded data is lost.
    let (image, _) = client.upload(&unique_png()).await;
    wait_until(&client, |seen| match seen {
        Ok((token, lifetime)) => {
            assert!(token == "two" && *lifetime <= 60);
            false
        }
        Err((status, problem)) => {
            assert_eq!((*status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
            true
        }
    })
    .await;
    assert!(process.err().contains("failed to renew the credentials for S3"), "the failure is logged");
    set_credentials("three", 3600);
    wait_until(&client, |seen| matches!(seen, Ok((token, 300)) if token == "three")).await;
    let (_, gallery) = client.get("/api/images/gallery").await;
    assert_eq!(gallery["images"][0]["id"], image["id"]);
    // The server's own calls use the new credentials too.
    client.upload(&unique_png()).await;
    let log = process.err();
    for secret in ["\"two\"", "\"three\"", "X-Amz-Security-Token"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}
