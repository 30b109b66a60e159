//! Covers the queue of notifications: a message is deleted only after it had its effect, and a failing queue affects nothing else.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::net::TcpSocket;
use valet::metrics::METRICS;

use super::{
    Abandoned,
    local_queue::{LocalQueue, QueueServer, queue_url},
    records,
};
use crate::{
    app::{TestApp, eventually, unique_png},
    outages::stalling_relay::StallingRelay,
};

const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// Starts a queue and a server that reads it.
async fn start() -> (TestApp, LocalQueue, QueueServer) {
    let queue = LocalQueue::default();
    let server = queue.serve(SocketAddr::from(ANY_PORT)).await;
    let url = server.url();
    let app = TestApp::start_with(|config| config.store_events.queue = Some(url)).await;
    (app, queue, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_notification_is_deleted_after_it_had_its_effect() {
    let (app, queue, _server) = start().await;
    let ada = app.user().await;
    let bucket = app.config.s3.bucket.to_string();
    let mut uploads = Vec::new();
    for _ in 0..12 {
        uploads.push(Abandoned::sent(&ada).await);
    }
    // The notifications come in another order, each twice, among other messages: 73 in all.
    queue.send(json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket }));
    for upload in uploads.iter().rev().chain(&uploads) {
        queue.send(records(&bucket, &[&upload.key]));
        queue.send("garbage");
        queue.send(records("another-bucket", &[&upload.key]));
    }
    for upload in &uploads {
        app.until_state(&upload.id, "ready").await;
    }
    eventually("every message is deleted", async || queue.counts() == (0, 0, 73)).await;
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_share_a_queue() {
    let (app, queue, server) = start().await;
    let url = server.url();
    let _other = TestApp::start_second_server(&app, |config| config.store_events.queue = Some(url)).await;
    let ada = app.user().await;
    let mut uploads = Vec::new();
    for _ in 0..8 {
        let upload = Abandoned::sent(&ada).await;
        queue.send(records(&app.config.s3.bucket, &[&upload.key]));
        uploads.push(upload);
    }
    for upload in &uploads {
        app.until_state(&upload.id, "ready").await;
    }
    eventually("every message is deleted", async || queue.counts() == (0, 0, 8)).await;
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn message_stays_in_the_queue_while_the_database_is_down() {
    let app = TestApp::start().await;
    let relay = StallingRelay::before_mongodb(&app).await;
    let (queue, uri) = (LocalQueue::default(), relay.uri(&app));
    let server = queue.serve(SocketAddr::from(ANY_PORT)).await;
    let url = server.url();
    let _server = TestApp::start_second_server(&app, |config| {
        config.mongo.uri = uri.into();
        config.store_events.queue = Some(url);
    })
    .await;
    let upload = Abandoned::sent(&app.user().await).await;
    relay.drop_open_connections();
    queue.send(records(&app.config.s3.bucket, &[&upload.key]));
    eventually("the message was received", async || queue.counts().0 == 0).await;
    let calls_before = queue.asked();
    eventually("the message failed, and the server calls the queue again", async || queue.asked() > calls_before).await;
    assert_eq!(queue.counts(), (0, 1, 0), "not deleted");
    relay.accept_again();
    queue.show_hidden();
    eventually("the message had its effect", async || {
        // The message may fail again while the server reconnects to the database.
        queue.show_hidden();
        queue.counts() == (0, 0, 1)
    })
    .await;
    app.until_state(&upload.id, "ready").await;
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_queue_delays_nothing_and_is_read_when_it_is_back() {
    // A port at which nothing listens yet.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(ANY_PORT)).unwrap();
    let address = socket.local_addr().unwrap();
    let failures = METRICS.events_queue_failures.get();
    let app = TestApp::start_with(|config| config.store_events.queue = Some(queue_url(address))).await;
    let ada = app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    eventually("failures are counted", async || METRICS.events_queue_failures.get() > failures).await;
    let upload = Abandoned::sent(&ada).await;
    let queue = LocalQueue::default();
    queue.send(records(&app.config.s3.bucket, &[&upload.key]));
    let server = queue.serve_on(socket.listen(64).unwrap());
    app.until_state(&upload.id, "ready").await;
    eventually("the message is deleted", async || queue.counts() == (0, 0, 1)).await;
    // Uploads work after the queue has stopped.
    drop(server);
    tokio::time::sleep(Duration::from_millis(200)).await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    app.audit().await;
}
