//! Covers webhooks from a change to the request that a real receiver gets: signature, retries, redirects, slow and vanished
//! endpoints, several servers, and addresses that are never connected to.
//!
//! Routes: POST /api/images/{id}/confirm, PATCH /api/images/{id}.
//!
//! Commands: valet webhook.

mod hostile_receivers;
mod leases;
mod rebinding;
mod tls;

use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt;
use mongodb::{
    bson::{DateTime, Document, doc},
    change_stream::{ChangeStream, event::ChangeStreamEvent},
    options::FullDocumentType,
};
use secrecy::ExposeSecret;
use serde_json::json;
use time::OffsetDateTime;
use valet::{
    config::{Config, Events, Webhooks},
    domain::webhooks::endpoints::{EndpointError, Endpoints, PreviousSecret},
    model::WebhookEndpoint,
};

use super::{
    app::{Caller, TestApp, eventually, unique_png},
    serve::Settings,
    webhook_receiver::{Receiver, Reply, status},
};
use crate::process_client::Ended;

/// Switches webhooks on, with endpoints in these private networks.
fn with_webhooks(config: &mut Config, allow: &[&str]) {
    let allow = allow.iter().map(|network| network.parse().unwrap()).collect();
    config.events = Events::On;
    config.webhooks = Some(Webhooks { secret: "0123456789abcdef0123456789abcdef".into(), allow });
}

/// Starts a server that sends webhooks to loopback addresses.
async fn start() -> TestApp {
    TestApp::start_with(|config| with_webhooks(config, &["127.0.0.0/8"])).await
}

/// Returns the service that administers endpoints.
fn endpoints(app: &TestApp) -> &Endpoints {
    app.app.valet.endpoints.as_ref().unwrap()
}

/// Adds an endpoint that receives these types of events.
async fn add(app: &TestApp, url: &str, types: &[&str]) -> WebhookEndpoint {
    let types = types.iter().map(|name| (*name).to_owned()).collect();
    endpoints(app).add(url, types, OffsetDateTime::now_utc()).await.unwrap()
}

/// Uploads a unique image; returns its id.
async fn ready(ada: &Caller<'_>) -> String {
    ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned()
}

/// Inserts deliveries to this endpoint that are due, and wakes the server.
async fn insert_due(app: &TestApp, endpoint: &str, count: usize) {
    let delivery = |number| {
        doc! { "_id": format!("{endpoint}-{number}"), "endpoint": endpoint, "event": format!("e{number}"), "type": "image.ready",
        "body": "{}", "tries": 0_i64, "at": DateTime::now(), "due": DateTime::from_millis(0) }
    };
    app.db.collection::<Document>("deliveries").insert_many((0..count).map(delivery)).await.unwrap();
    app.app.valet.webhook_delivery.as_ref().unwrap().wake();
}

/// Returns a document of a collection that matches.
async fn stored(app: &TestApp, collection: &str, filter: Document) -> Option<Document> {
    app.db.collection::<Document>(collection).find_one(filter).await.unwrap()
}

/// Makes every waiting delivery due now.
async fn make_deliveries_due(app: &TestApp) {
    let filter = doc! { "due": { "$exists": true }, "lease": { "$exists": false } };
    let update = doc! { "$set": { "due": DateTime::from_millis(0) } };
    app.db.collection::<Document>("deliveries").update_many(filter, update).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_image_is_announced_with_a_valid_signature() {
    let app = start().await;
    let receiver = Receiver::start(|_| status(204)).await;
    let endpoint = add(&app, &receiver.url, &["image.ready"]).await;
    let ada = app.user().await;
    let id = ready(&ada).await;
    let message = receiver.wait_for(1).await[0].clone();
    let secret = endpoints(&app).secret(&endpoint.id).await.unwrap();
    assert!(message.is_signed_by(secret.expose_secret()), "{message:?}");
    assert!((OffsetDateTime::now_utc().unix_timestamp() - message.timestamp).abs() < 60);
    let json = message.json();
    assert_eq!((&json["type"], &json["data"]["id"], &json["data"]["user"]), (&json!("image.ready"), &json!(id), &json!(ada.id)));
    eventually("the outcome is recorded", async || {
        stored(&app, "deliveries", doc! { "doneAt": { "$exists": true }, "due": { "$exists": false } }).await.is_some()
    })
    .await;

    let new = endpoints(&app).rotate(&endpoint.id, PreviousSecret::Kept, OffsetDateTime::now_utc()).await.unwrap();
    ready(&ada).await;
    let message = receiver.wait_for(2).await[1].clone();
    for secret in [secret, new] {
        assert!(message.is_signed_by(secret.expose_secret()), "both secrets sign during a rotation");
    }
    let attempt = endpoints(&app).test(&endpoint.id, OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!((attempt.status, receiver.messages().last().unwrap().json()["type"].clone()), (Some(204), json!("webhook.test")));
    eventually("both outcomes are recorded", async || {
        let done = doc! { "doneAt": { "$exists": true }, "due": { "$exists": false } };
        app.db.collection::<Document>("deliveries").count_documents(done).await.unwrap() == 2
    })
    .await;
    let replayed = endpoints(&app).replay(&endpoint.id, OffsetDateTime::UNIX_EPOCH, OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(replayed, 2);
    let all = receiver.wait_for(5).await;
    let again = all[3..].iter().filter(|message| all[..2].iter().any(|first| first.id == message.id)).count();
    assert_eq!(again, 2, "a replay keeps webhook-id");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempt_is_repeated_with_the_same_id() {
    let app = start().await;
    let receiver = Receiver::start(|all| status(if all.len() <= 2 { 500 } else { 200 })).await;
    let endpoint = add(&app, &receiver.url, &["image.ready"]).await;
    let unreadable = doc! { "_id": "bad", "endpoint": &endpoint.id, "due": DateTime::from_millis(0), "event": 7 };
    app.db.collection::<Document>("deliveries").insert_one(unreadable).await.unwrap();
    ready(&app.user().await).await;
    for count in 1..3 {
        receiver.wait_for(count).await;
        eventually("the failure is recorded", async || {
            // The first attempt is repeated after a few seconds, without the help of the test.
            let tries = doc! { "$gte": i64::try_from(count).unwrap() };
            stored(&app, "deliveries", doc! { "tries": tries, "last.status": 500 }).await.is_some()
        })
        .await;
        let failing = doc! { "_id": &endpoint.id, "firstFailureAt": { "$exists": true } };
        eventually("the endpoint is failing", async || stored(&app, "endpoints", failing.clone()).await.is_some()).await;
        make_deliveries_due(&app).await;
    }
    let all = receiver.wait_for(3).await;
    assert!(all.iter().all(|message| message.id == all[0].id && message.body == all[0].body), "{all:?}");
    eventually("the endpoint works again", async || {
        !stored(&app, "endpoints", doc! { "_id": &endpoint.id }).await.unwrap().contains_key("firstFailureAt")
    })
    .await;
    let bad = stored(&app, "deliveries", doc! { "_id": "bad" }).await.unwrap();
    assert_eq!(bad.get_str("why").unwrap(), "unreadable", "{bad}");
}

/// Returns by endpoint the seconds from the first failed attempt to the next one, as they are recorded.
async fn pauses_after_failures(changes: ChangeStream<ChangeStreamEvent<Document>>, count: usize) -> HashMap<String, f64> {
    let first_failures = changes.filter_map(async |change| {
        let change = change.unwrap();
        let set = change.update_description?.updated_fields;
        (set.get_i64("tries").ok() == Some(1)).then_some(())?;
        let at = set.get_document("last").unwrap().get_datetime("at").unwrap();
        let pause = set.get_datetime("due").unwrap().timestamp_millis() - at.timestamp_millis();
        Some((change.full_document.unwrap().get_str("endpoint").unwrap().to_owned(), pause as f64 / 1000.0))
    });
    tokio::time::timeout(Duration::from_secs(60), first_failures.take(count).collect()).await.expect("failures within a minute")
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_is_that_of_the_schedule_and_retry_after_lengthens_it_up_to_twice() {
    let app = start().await;
    // The first pause is 5 s, with at most a fifth of it added as jitter.
    let mut cases = Vec::new();
    for (retry_after, pauses) in [("", 5.0..6.1), ("1", 5.0..6.1), ("8", 8.0..9.1), ("3600", 10.0..11.1)] {
        let receiver = Receiver::start(move |_| Reply { retry_after, ..status(429) }).await;
        let endpoint = add(&app, &receiver.url, &["image.ready"]).await.id;
        cases.push((receiver, endpoint, retry_after, pauses));
    }
    let deliveries = app.db.collection::<Document>("deliveries");
    let changes = deliveries.watch().full_document(FullDocumentType::UpdateLookup).await.unwrap();
    ready(&app.user().await).await;
    let measured = pauses_after_failures(changes, cases.len()).await;
    for (_receiver, endpoint, retry_after, pauses) in cases {
        let pause = measured[&endpoint];
        assert!(pauses.contains(&pause), "Retry-After {retry_after:?}: {pause} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_that_is_gone_or_fails_for_five_days_is_disabled() {
    let app = start().await;
    let gone = Receiver::start(|_| status(410)).await;
    let failing = Receiver::start(|_| status(500)).await;
    let (gone_id, failing_id) = (add(&app, &gone.url, &[]).await.id, add(&app, &failing.url, &["image.ready"]).await.id);
    let long_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 6 * 24 * 3600 * 1000);
    let update = doc! { "$set": { "firstFailureAt": long_ago } };
    app.db.collection::<Document>("endpoints").update_one(doc! { "_id": &failing_id }, update).await.unwrap();
    let ada = app.user().await;
    ready(&ada).await;
    for (id, why) in [(&gone_id, "gone"), (&failing_id, "failing")] {
        eventually("the endpoint is disabled", async || {
            stored(&app, "endpoints", doc! { "_id": id, "state": "disabled", "disabledWhy": why }).await.is_some()
        })
        .await;
        eventually("no delivery waits for the endpoint", async || {
            stored(&app, "deliveries", doc! { "endpoint": id, "due": { "$exists": true } }).await.is_none()
        })
        .await;
    }
    endpoints(&app).enable(&failing_id).await.unwrap();
    let before = failing.messages().len();
    ready(&ada).await;
    failing.wait_for(before + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirect_is_a_failure_and_not_followed() {
    let app = start().await;
    let target = Receiver::start(|_| status(200)).await;
    let location: &'static str = Box::leak(target.url.clone().into_boxed_str());
    let receiver = Receiver::start(move |_| Reply { location, ..status(307) }).await;
    add(&app, &receiver.url, &["image.ready"]).await;
    ready(&app.user().await).await;
    receiver.wait_for(1).await;
    eventually("the failure is recorded", async || {
        stored(&app, "deliveries", doc! { "last.status": 307, "due": { "$exists": true } }).await.is_some()
    })
    .await;
    assert!(target.messages().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_endpoint_delays_no_other_and_has_four_attempts_at_once() {
    let app = start().await;
    let slow = Receiver::start(|_| Reply { after: Duration::from_secs(40), ..status(200) }).await;
    let quick = Receiver::start(|_| status(200)).await;
    let slow_id = add(&app, &slow.url, &["image.updated"]).await.id;
    let quick_id = add(&app, &quick.url, &["image.updated"]).await.id;
    // An event makes the server read the endpoints again.
    ready(&app.user().await).await;
    insert_due(&app, &slow_id, 8).await;
    slow.wait_for(4).await;
    insert_due(&app, &quick_id, 8).await;
    quick.wait_for(8).await;
    let messages = slow.messages();
    let ended = stored(&app, "deliveries", doc! { "endpoint": &slow_id, "last": { "$exists": true } }).await;
    assert_eq!((messages.len(), ended), (4, None), "the first attempts are still under way");
    eventually("the deadline of an attempt passes", async || {
        stored(&app, "deliveries", doc! { "endpoint": &slow_id, "last.error": "late" }).await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_deliver_once() {
    let app = start().await;
    let second_server = TestApp::start_second_server(&app, |config| with_webhooks(config, &["127.0.0.0/8"])).await;
    let receiver = Receiver::start(|_| status(200)).await;
    add(&app, &receiver.url, &["image.updated"]).await;
    let ada = app.user().await;
    let id = ready(&ada).await;
    for number in 0..20 {
        let answer = ada.patch(&format!("/api/images/{id}"), json!({ "caption": format!("{number}") })).await;
        assert_eq!(answer.status, 200);
        if number % 5 == 0 {
            second_server.app.valet.webhook_delivery.as_ref().unwrap().wake();
        }
    }
    receiver.wait_for(20).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut ids: Vec<_> = receiver.messages().into_iter().map(|message| message.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), receiver.messages().len()), (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_address_is_never_connected_to_unless_it_is_allowed() {
    let app = TestApp::start_with(|config| with_webhooks(config, &["10.0.0.0/8"])).await;
    let receiver = Receiver::start(|_| status(200)).await;
    let port = receiver.url.split([':', '/']).nth(4).unwrap().to_owned();
    let hosts = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"];
    for host in hosts {
        add(&app, &format!("http://{host}:{port}/"), &["image.ready"]).await;
        add(&app, &format!("https://{host}:{port}/"), &["image.ready"]).await;
    }
    ready(&app.user().await).await;
    eventually("no attempt is permitted", async || {
        let not_permitted = doc! { "last.error": "not permitted", "tries": 1 };
        app.db.collection::<Document>("deliveries").count_documents(not_permitted).await.unwrap() == 2 * hosts.len() as u64
    })
    .await;
    assert!(receiver.messages().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_run_at_once_add_no_more_endpoints_than_the_limit() {
    let app = start().await;
    let add = async |number: usize| {
        endpoints(&app).add(&format!("https://app.example/{number}"), Vec::new(), OffsetDateTime::now_utc()).await
    };
    let outcomes = futures_util::future::join_all((0..24).map(add)).await;
    let rejected = outcomes.iter().filter(|outcome| matches!(outcome, Err(EndpointError::TooMany))).count();
    assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), rejected), (16, 8), "{outcomes:?}");
    assert_eq!(endpoints(&app).list().await.unwrap().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_administers_endpoints_by_commands() {
    let app = start().await;
    let receiver = Receiver::start(|_| status(204)).await;
    let settings = Settings::for_app(&app)
        .with("WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef")
        .with("WEBHOOK_ALLOW", "127.0.0.0/8")
        .with("LOG_FORMAT", "text");
    let run = async |arguments: &[&str]| {
        let all = [&["webhook"], arguments].concat();
        let Ended { status, out, err } = settings.run(&all).wait_for_end(Duration::from_secs(30)).await;
        (status.success(), out, err)
    };
    let (_, out, err) = run(&["add", &receiver.url, "--type", "image.ready"]).await;
    let (id, secret) = out.trim().split_once('\n').unwrap_or_else(|| panic!("{out}{err}"));
    assert_eq!(secret, endpoints(&app).secret(id).await.unwrap().expose_secret(), "the servers sign with it");
    assert_eq!(run(&["secret", id]).await.1.trim(), secret);
    assert!(run(&["list"]).await.1.contains(&format!("{id} on {} image.ready", receiver.url)));
    assert!(run(&["test", id]).await.1.starts_with("delivered: status 204"));
    assert!(receiver.messages()[0].is_signed_by(secret));
    let second = run(&["rotate", id]).await.1;
    assert_ne!(second.trim(), secret);
    // A second rotation would end the first secret, which signs for 24 hours after the first rotation.
    let (success, _, err) = run(&["rotate", id]).await;
    assert!(!success && err.contains("less than 24 hours ago"), "{err}");
    assert_eq!(run(&["secret", id]).await.1, second);
    assert!(![secret, second.trim()].contains(&run(&["rotate", id, "--force"]).await.1.trim()));
    assert!(run(&["disable", id]).await.0 && run(&["list"]).await.1.contains(" off "));
    let (success, _, err) = run(&["replay", id, "--since", "2026-01-01T00:00:00Z"]).await;
    assert!(!success && err.contains("the endpoint is off"), "{err}");
    assert!(run(&["enable", id]).await.0 && run(&["list"]).await.1.contains(" on "));
    assert!(run(&["replay", id, "--since", "2026-01-01T00:00:00Z"]).await.1.starts_with("0 messages"));
    let (success, _, err) = run(&["secret", "no-such-id"]).await;
    assert!(!success && err.contains("no endpoint has this id"), "{err}");
}
