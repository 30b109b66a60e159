//! Covers leases of deliveries: no second attempt while one is under way, and an attempt of a crashed server is repeated.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn attempt_under_way_is_not_repeated_by_this_server_or_another() {
    let app = start().await;
    let second_server = TestApp::start_second_server(&app, |config| with_webhooks(config, &["127.0.0.0/8"])).await;
    let receiver = Receiver::start(|_| Reply { is_held: true, ..status(200) }).await;
    add(&app, &receiver.url, &["image.ready"]).await;
    ready(&app.user().await).await;
    receiver.wait_for(1).await;
    // Both servers look for due deliveries several times, in less time than the deadline of the attempt (15 s), also on a busy
    // machine.
    for _ in 0..4 {
        for server in [&app, &second_server] {
            server.app.valet.webhook_delivery.as_ref().unwrap().wake();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(receiver.messages().len(), 1);
    receiver.release();
    let done = doc! { "doneAt": { "$exists": true } };
    eventually("the outcome is recorded", async || stored(&app, "deliveries", done.clone()).await.is_some()).await;
    assert_eq!(stored(&app, "deliveries", done).await.unwrap().get_i64("tries").unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_of_a_crashed_server_is_repeated_when_its_lease_ends() {
    let app = start().await;
    let receiver = Receiver::start(|_| status(200)).await;
    let endpoint = add(&app, &receiver.url, &["image.ready"]).await.id;
    let in_two_seconds = DateTime::from_millis(DateTime::now().timestamp_millis() + 2000);
    let claimed = doc! { "_id": "claimed", "endpoint": &endpoint, "event": "e1", "type": "image.ready", "body": "{}", "tries": 0_i64,
    "at": DateTime::now(), "due": in_two_seconds, "lease": "of a server that has crashed" };
    app.db.collection::<Document>("deliveries").insert_one(claimed).await.unwrap();
    receiver.wait_for(1).await;
    assert!(DateTime::now() >= in_two_seconds, "not before the lease ended");
    eventually("the outcome is recorded", async || {
        stored(&app, "deliveries", doc! { "_id": "claimed", "doneAt": { "$exists": true }, "lease": { "$exists": false } })
            .await
            .is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_of_an_attempt_whose_lease_another_server_has_is_not_recorded() {
    let app = start().await;
    let receiver = Receiver::start(|_| Reply { is_held: true, ..status(500) }).await;
    let endpoint = add(&app, &receiver.url, &["image.ready"]).await.id;
    ready(&app.user().await).await;
    receiver.wait_for(1).await;
    let later = DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000);
    let other_servers_claim = doc! { "$set": { "lease": "of another server", "due": later } };
    app.db.collection::<Document>("deliveries").update_one(doc! { "endpoint": &endpoint }, other_servers_claim).await.unwrap();
    receiver.release();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let delivery = stored(&app, "deliveries", doc! { "endpoint": &endpoint }).await.unwrap();
    assert_eq!((delivery.get_str("lease").unwrap(), delivery.get_i64("tries").unwrap()), ("of another server", 0), "{delivery}");
    let failing = stored(&app, "endpoints", doc! { "_id": &endpoint, "firstFailureAt": { "$exists": true } }).await;
    assert_eq!(failing, None, "the other server records whether the endpoint works");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_endpoint_has_one_attempt_at_once() {
    let app = start().await;
    let receiver = Receiver::start(|_| Reply { is_held: true, ..status(500) }).await;
    let endpoint = add(&app, &receiver.url, &["image.updated"]).await.id;
    let failing = doc! { "$set": { "firstFailureAt": DateTime::now() } };
    app.db.collection::<Document>("endpoints").update_one(doc! { "_id": &endpoint }, failing).await.unwrap();
    // An event makes the server read the endpoints again.
    let another = Receiver::start(|_| status(200)).await;
    add(&app, &another.url, &["image.ready"]).await;
    ready(&app.user().await).await;
    another.wait_for(1).await;
    insert_due(&app, &endpoint, 3).await;
    receiver.wait_for(1).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(receiver.messages().len(), 1, "other deliveries wait for the end of the attempt");
}
