//! Temporary credentials of S3: renewed ahead of their end, extended, lost to an outage of who gives them, and back.

use std::sync::{Arc, Mutex};

use poem::{
    EndpointExt, IntoResponse, Response, Route, Server, get, handler,
    http::StatusCode as Status,
    listener::TcpAcceptor,
    web::{Data, Json},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::*;
use crate::app::{declared, s3_is_local, unique_png};

/// What the provider answers: a session token and the end of the credentials, or nothing while it is out.
type Given = Arc<Mutex<Option<(&'static str, OffsetDateTime)>>>;

#[derive(Clone)]
struct Provider {
    keys: (String, String),
    given: Given,
}

#[handler]
async fn answer(provider: Data<&Provider>) -> Response {
    let Some((token, end)) = *provider.given.lock().unwrap() else { return Status::INTERNAL_SERVER_ERROR.into_response() };
    let (id, secret) = &provider.keys;
    Json(json!({ "AccessKeyId": id, "SecretAccessKey": secret, "Token": token, "Expiration": end.format(&Rfc3339).unwrap() }))
        .into_response()
}

/// As a task of ECS or a pod of EKS finds it: the address is in `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
fn start(keys: (String, String), given: &Given) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}/credentials", listener.local_addr().unwrap());
    let routes = Route::new().at("/credentials", get(answer)).data(Provider { keys, given: given.clone() });
    tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_std(listener).unwrap()).run(routes));
    address
}

/// The token that a new URL carries and how many seconds it holds, or the status of the refusal.
async fn issued(client: &Client) -> Result<(String, i64), (u16, Value)> {
    let (status, ticket) = client.post("/api/images/upload", &declared("sea.png", "image/png", &unique_png())).await;
    if status != 201 {
        return Err((status.as_u16(), ticket));
    }
    let url = url::Url::parse(ticket["upload"]["url"].as_str().unwrap()).unwrap();
    let value = |name: &str| url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
    let ends = OffsetDateTime::parse(ticket["upload"]["expiresAt"].as_str().unwrap(), &Rfc3339).unwrap();
    let (holds, left) = (value("X-Amz-Expires").parse().unwrap(), (ends - OffsetDateTime::now_utc()).whole_seconds());
    assert!((holds - 5..=holds).contains(&left), "the answer says how long the URL holds: {holds} and {left}");
    Ok((value("X-Amz-Security-Token"), holds))
}

/// Asks until the answer is such, for at most 25 s: two of the background task's turns.
async fn until(client: &Client, wanted: impl Fn(&Result<(String, i64), (u16, Value)>) -> bool) {
    let began = Instant::now();
    loop {
        let seen = issued(client).await;
        if wanted(&seen) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(25), "{seen:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_credentials_are_renewed_extended_and_outlived_by_nothing() {
    // LocalStack takes any secret, and no session token that it did not give.
    if !s3_is_local() {
        return;
    }
    let app = TestApp::start().await;
    let keys = app.config.s3.credentials.as_ref().unwrap();
    let keys = (keys.access_key_id.clone(), keys.secret_access_key.expose_secret().to_owned());
    let given = Given::default();
    let give = |token, seconds| *given.lock().unwrap() = Some((token, OffsetDateTime::now_utc() + Duration::from_secs(seconds)));
    let address = start(keys, &given);
    let settings = Settings::of(&app).without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let settings =
        settings.but("RATE_LIMIT", "off").but("UPLOAD_URL_TTL", "300s").but("AWS_CONTAINER_CREDENTIALS_FULL_URI", &address);

    let said = settings.refusal().await;
    assert!(said.contains("AWS credentials"), "a server without credentials does not start: {said}");

    give("one", 40);
    let (process, mut client) = settings.listening().await;
    client.enter("signup", "ada@example.com").await;
    let (token, holds) = issued(&client).await.unwrap();
    assert!(token == "one" && (25..=40).contains(&holds), "no URL outlives what signed it: {token}, {holds} s");

    // The same credentials with a later end, as EC2 gives when its own source is out; then others.
    give("one", 3600);
    until(&client, |seen| matches!(seen, Ok((token, 300)) if token == "one")).await;
    drop((process, client));

    give("two", 20);
    let (process, mut client) = settings.listening().await;
    client.enter("login", "ada@example.com").await;
    *given.lock().unwrap() = None;
    // An outage costs nothing while the credentials live, then a 503, and nothing that was uploaded.
    let (image, _) = client.upload(&unique_png()).await;
    until(&client, |seen| match seen {
        Ok((token, holds)) => {
            assert!(token == "two" && *holds <= 20);
            false
        }
        Err((status, problem)) => {
            assert_eq!((*status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
            true
        }
    })
    .await;
    assert!(process.err().contains("failed to renew the credentials for S3"), "the operator is told");
    give("three", 3600);
    until(&client, |seen| matches!(seen, Ok((token, 300)) if token == "three")).await;
    let (_, gallery) = client.get("/api/images/gallery").await;
    assert_eq!(gallery["images"][0]["id"], image["id"]);
    // The server's own calls go on with the new ones, too.
    client.upload(&unique_png()).await;
    let log = process.err();
    for secret in ["\"two\"", "\"three\"", "X-Amz-Security-Token"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}
