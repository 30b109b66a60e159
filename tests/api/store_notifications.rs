//! Covers the store's notifications: an upload whose client died is confirmed when the store announces its object, and the
//! content of a notification is not trusted.
//!
//! `uploads` covers their effects on uploads. `hook` covers the address that receives notifications: it is apart from the API's
//! (`HOOKS_BIND`), so its path is not in the OpenAPI document. `flood` covers many notifications at that address. `queue` covers
//! notifications in a queue, which `local_queue` implements; `real_queue` does so with a store that sends to a queue itself.

mod flood;
mod hook;
pub mod local_queue;
mod queue;
mod real_queue;
mod uploads;

use std::net::SocketAddr;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use valet::{
    config::{Config, StoreHook},
    http::{hooks, server::ConnectionOptions},
};

use super::app::{Answer, Caller, TestApp, unique_png};

/// Token in the hook's path.
const TOKEN: &str = "f3a9c1d27b6e4805f3a9c1d27b6e4805";

/// Switches the hook on, on a free port.
fn with_hook(config: &mut Config) {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.store_events.hook = Some(StoreHook { bind, token: TOKEN.into() });
}

/// A server with a hook at a known address.
struct Notifier {
    app: TestApp,
    address: String,
    _stop: DropGuard,
}

impl Notifier {
    /// Starts a server with a hook.
    async fn start() -> Self {
        Self::before(TestApp::start_with(with_hook).await).await
    }

    /// Serves the hook of this server at a second address.
    async fn before(app: TestApp) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (endpoint, stop) = (hooks::endpoint(app.app.clone()), CancellationToken::new());
        let options = ConnectionOptions { max_connections: 64, origins: valet::config::CorsOrigins::default() };
        tokio::spawn(valet::http::server::serve(listener, endpoint, options, stop.clone()));
        Self { app, address, _stop: stop.drop_guard() }
    }

    /// Returns the hook's URL.
    fn url(&self) -> String {
        format!("{}/hooks/s3/{TOKEN}", self.address)
    }

    /// Sends a notification to the hook; returns the status.
    async fn send(&self, body: impl Into<reqwest::Body>) -> StatusCode {
        self.app.http.post(self.url()).body(body).send().await.unwrap().status()
    }

    /// Sends S3's records about these keys.
    async fn notify(&self, keys: &[&str]) {
        assert_eq!(self.send(self.records(keys).to_string()).await, 204);
    }

    /// Returns a notification that names these keys.
    fn records(&self, keys: &[&str]) -> Value {
        records(&self.app.config.s3.bucket, keys)
    }
}

/// Returns S3's records of objects that were created by a PUT.
fn records(bucket: &str, keys: &[&str]) -> Value {
    let record = |key: &&str| {
        json!({
            "eventVersion": "2.6", "eventSource": "aws:s3", "eventTime": "2026-08-21T10:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": { "name": bucket, "arn": format!("arn:aws:s3:::{bucket}") },
                "object": { "key": key, "size": 1, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "00" }
            }
        })
    };
    json!({ "Records": keys.iter().map(record).collect::<Vec<_>>() })
}

/// An upload that a client opened and never confirms.
struct Abandoned {
    id: String,
    key: String,
    ticket: Answer,
    bytes: Vec<u8>,
}

impl Abandoned {
    /// Opens an upload without sending its bytes.
    async fn open(ada: &Caller<'_>) -> Self {
        let bytes = unique_png();
        let ticket = ada.open_upload("sea.png", "image/png", &bytes).await;
        assert_eq!(ticket.status, 201, "{ticket:?}");
        let id = ticket.id().to_owned();
        let key = ada.app.db_key(&id).await;
        Self { id, key, ticket, bytes }
    }

    /// Sends the upload's bytes.
    async fn put(&self, app: &TestApp) {
        assert_eq!(app.put(&self.ticket.json["upload"], self.bytes.clone()).await, 200);
    }

    /// Opens an upload and sends its bytes; no client confirms it.
    async fn sent(ada: &Caller<'_>) -> Self {
        let upload = Self::open(ada).await;
        upload.put(ada.app).await;
        upload
    }
}
