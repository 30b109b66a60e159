//! One server in this process, with an S3 that misbehaves on request: for faults that a single step decides. Its sweeper is idle;
//! tests run single sweeps at any time. Faults under load use a [`Cluster`](super::cluster::Cluster).

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_util::sync::DropGuard;
use valet::{domain::sweeper::Swept, state::AppState};

use super::{
    files::{declaration, fixture},
    s3_faults::S3Faults,
    servers::{self, InProcess, http_client, s3_client, servers},
};

/// Limit for an answer: ten seconds for the server, and more for a machine whose two cores are busy.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// The server, its only user, and direct access to database and bucket.
pub struct SingleServer {
    pub app: AppState,
    pub faults: S3Faults,
    pub db: mongodb::Database,
    /// Client of S3 that bypasses all faults.
    pub s3: aws_sdk_s3::Client,
    pub bucket: String,
    pub http: reqwest::Client,
    base: String,
    token: String,
    _stop: DropGuard,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
    pub content_type: String,
    pub retry_after: Option<String>,
    /// Time from the request to the end of the answer.
    pub took: Duration,
}

impl Answer {
    /// Returns the upload's image id.
    pub fn id(&self) -> String {
        self.json["id"].as_str().unwrap().to_owned()
    }

    /// Returns status and code, for comparison.
    pub fn problem(&self) -> (u16, &str) {
        (self.status, self.json["code"].as_str().unwrap_or_default())
    }

    /// Asserts that this answer reports an outage in time, in the documented shape and without details of the internals.
    pub fn assert_outage(&self, case: &str) {
        assert!(matches!(self.problem(), (503, "unavailable") | (504, "timeout")), "{case}: {self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{case}: {self:?}");
        assert!(self.status == 504 || self.retry_after.is_some(), "{case}: {self:?}");
        assert!(self.took < ANSWERED_WITHIN, "{case}: {self:?}");
        let text = self.json.to_string();
        assert!(!["127.0.0.1", "mongo", "X-Amz", "Error {", "u/"].iter().any(|inner| text.contains(inner)), "{case}: {text}");
    }
}

impl SingleServer {
    /// Starts a server with default settings except for `change`.
    pub async fn start(change: &[(&str, &str)]) -> Self {
        let shared = servers();
        let faults = S3Faults::of_this_run().await;
        let name = format!("o-{}", uuid::Uuid::new_v4().simple());
        let s3 = s3_client(&shared.s3_endpoint, &shared.keys);
        s3.create_bucket().bucket(&name).send().await.unwrap();
        let endpoint = faults.endpoint();
        let config = servers::config(&name, &name, &|wanted| {
            let changed = change.iter().find(|(known, _)| *known == wanted).map(|(_, value)| *value);
            let value = changed.or(match wanted {
                "S3_ENDPOINT" => Some(&endpoint),
                "S3_PUBLIC_ENDPOINT" => Some(&shared.s3_endpoint),
                "S3_FINALIZE" => Some("in-place"),
                _ => None,
            });
            value.map(str::to_owned)
        });
        let app = AppState::connect(&config).await.unwrap();
        // A probe before the first request has less time, and uploads are refused until one has succeeded.
        app.valet.prober.probe(OffsetDateTime::now_utc()).await;
        let InProcess { app, base, stop } = InProcess::serve(app, &config).await;
        let db = mongodb::Client::with_uri_str(&shared.mongodb).await.unwrap().database(&config.mongo.database);
        let (http, token) = (http_client(), String::new());
        let mut server = Self { app, faults, db, s3, bucket: name, http, base, token, _stop: stop };
        let credentials = json!({ "email": "ada@example.com", "password": "three small blue boats" });
        let session = server.post("/api/auth/signup", credentials).await;
        server.token = session.json["token"].as_str().expect("a session").to_owned();
        server
    }

    /// Makes a call as the server's user.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).timeout(Duration::from_secs(90));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let began = Instant::now();
        let answer = request.send().await.unwrap();
        let header = |name| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
        let (status, content_type) = (answer.status().as_u16(), header("content-type").unwrap_or_default());
        let retry_after = header("retry-after");
        Answer { status, content_type, retry_after, json: answer.json().await.unwrap_or(Value::Null), took: began.elapsed() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn confirm(&self, id: &str) -> Answer {
        self.call(Method::POST, &format!("/api/images/{id}/confirm"), None).await
    }

    pub async fn delete(&self, id: &str) -> Answer {
        self.call(Method::DELETE, &format!("/api/images/{id}"), None).await
    }

    /// Opens an upload of unique bytes and sends them to the store, bypassing all faults; returns its id.
    pub async fn send_upload(&self) -> String {
        let mut bytes = fixture("plain.png");
        bytes.extend(uuid::Uuid::new_v4().as_bytes());
        let ticket = self.post("/api/images/upload", declaration("a.png", "image/png", &bytes)).await;
        assert_eq!(ticket.status, 201, "{ticket:?}");
        assert_eq!(self.put(&ticket.json["upload"], bytes).await, 200);
        ticket.id()
    }

    /// Uploads and confirms an image; returns its id.
    pub async fn upload_ready(&self) -> String {
        let id = self.send_upload().await;
        assert_eq!(self.confirm(&id).await.status, 200);
        id
    }

    /// Sends a presigned PUT; returns the status.
    pub async fn put(&self, request: &Value, bytes: Vec<u8>) -> u16 {
        let mut put = self.http.put(request["url"].as_str().unwrap());
        for (name, value) in request["headers"].as_object().unwrap() {
            put = put.header(name, value.as_str().unwrap());
        }
        put.body(bytes).send().await.unwrap().status().as_u16()
    }

    /// Runs one sweep with a clock that is `later` ahead.
    pub async fn sweep(&self, later: Duration) -> Swept {
        self.app.valet.sweeper.sweep_once(OffsetDateTime::now_utc() + later).await.unwrap().swept
    }

    /// Returns the state in the image's document, or `none` without a document.
    pub async fn state(&self, id: &str) -> String {
        let found = self.db.collection::<Document>("images").find_one(doc! { "_id": id }).await.unwrap();
        found.map_or_else(|| "none".to_owned(), |image| image.get_str("state").unwrap().to_owned())
    }

    /// Returns the keys of all objects in the bucket except the deployment's marker.
    pub async fn keys(&self) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket(&self.bucket).send().await.unwrap();
        let keys = listed.contents().iter().map(|object| object.key().unwrap().to_owned());
        keys.filter(|key| key != valet::store::objects::marker::KEY).collect()
    }
}
