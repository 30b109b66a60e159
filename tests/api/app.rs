//! `TestApp`, a server under test in the process of the tests, with its own port, database and bucket; `Caller`, which sends
//! requests to it; and `Answer`.
//!
//! All tests of a run share one mongod and one local S3, or the servers that the environment names (tests/support/servers.rs).
//! Helpers that bypass the API begin with `db_` or `bucket_`.

use std::{sync::Arc, time::Duration};

use mongodb::{
    bson::{Document, doc},
    options::{DatabaseOptions, ReadConcern},
};
use reqwest::{Method, StatusCode, header::HeaderMap};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_util::sync::DropGuard;
use valet::{
    config::{Config, SweepSchedule},
    domain::service_keys::NewServiceKey,
    model::{KeyName, Scope},
    state::AppState,
};

use super::{
    databases::TestDatabase,
    servers::{self, InProcess, s3_client, servers},
    targeting::{self, Watch},
};
pub use super::{
    files::{declaration, fixture, sha256},
    servers::{JWT_SECRET, finalize, http_client, s3_is_local},
    store_rules::skip_unless_local_s3,
};

/// A password that sign-up accepts.
pub const PASSWORD: &str = "three small blue boats";

/// Waits until `holds` returns true, such as for the work of a background task. Panics with `condition` after a minute.
pub async fn eventually(condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("not within a minute: {condition}"));
}

/// A server under test.
pub struct TestApp {
    /// Base URL, without a path.
    pub base: String,
    pub app: AppState,
    pub config: Config,
    pub http: reqwest::Client,
    pub s3: aws_sdk_s3::Client,
    pub db: mongodb::Database,
    _stop: DropGuard,
    _watch: Option<Watch>,
    database: Option<Arc<TestDatabase>>,
}

impl TestApp {
    /// Starts a server with default settings. Its sweeper is idle; tests call [`TestApp::sweep`].
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a server that also sweeps by itself, soon after the opening of an upload that no client will confirm.
    pub async fn start_sweeping() -> Self {
        Self::start_with(|config| config.sweep.schedule = SweepSchedule::Prompt).await
    }

    /// Starts a server with the default settings after `change`.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let bucket = format!("t-{}", uuid::Uuid::new_v4().simple());
        s3_client(&servers().s3_endpoint, &servers().keys).create_bucket().bucket(&bucket).send().await.unwrap();
        let client = mongodb::Client::with_uri_str(&servers().mongodb).await.unwrap();
        let database = TestDatabase::new(&client).await;
        let watch = targeting::watch(&client.database(database.name())).await;
        let started = Self::start_on(database.name(), client.clone(), &bucket, change).await;
        let database = database.record_schema(&client).await;
        Self { _watch: Some(watch), database: Some(Arc::new(database)), ..started }
    }

    /// Starts a second server, or a restarted one, on the same database and bucket.
    pub async fn start_second_server(other: &Self, change: impl FnOnce(&mut Config)) -> Self {
        let client = mongodb::Client::with_uri_str(&servers().mongodb).await.unwrap();
        let started = Self::start_on(&other.config.mongo.database, client, &other.config.s3.bucket, change).await;
        Self { database: other.database.clone(), ..started }
    }

    /// Starts a server with this database and bucket.
    async fn start_on(database: &str, client: mongodb::Client, bucket: &str, change: impl FnOnce(&mut Config)) -> Self {
        let servers = servers();
        let mut config = servers::config(database, bucket, &|name| match name {
            "CORS_ORIGINS" => Some("https://app.example, capacitor://localhost".to_owned()),
            "LOG_FORMAT" => Some("text".to_owned()),
            "S3_FINALIZE" => Some(finalize()),
            _ => None,
        });
        change(&mut config);
        let app = AppState::connect(&config).await.unwrap();
        // Probes now, so that the probe objects are removed before the test lists the bucket.
        app.valet.prober.probe(OffsetDateTime::now_utc()).await;
        let InProcess { app, base, stop } = InProcess::serve(app, &config).await;
        // Majority read concern, as in the program: the next answer of the API reflects everything that a test has read.
        let majority = DatabaseOptions::builder().read_concern(ReadConcern::majority()).build();
        Self {
            base,
            app,
            db: client.database_with_options(database, majority),
            s3: s3_client(&servers.s3_endpoint, &servers.keys),
            http: http_client(),
            config,
            _stop: stop,
            _watch: None,
            database: None,
        }
    }

    /// Returns a caller without a token.
    pub fn anonymous(&self) -> Caller<'_> {
        Caller { app: self, token: None, id: String::new(), email: String::new(), address: None }
    }

    /// Signs up a new user through the API.
    pub async fn user(&self) -> Caller<'_> {
        let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
        let answer = self.anonymous().post("/api/auth/signup", json!({ "email": email, "password": PASSWORD })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let token = answer.json["token"].as_str().unwrap().to_owned();
        Caller { token: Some(token), id: answer.json["user"]["id"].as_str().unwrap().to_owned(), email, ..self.anonymous() }
    }

    /// Creates a service key with these scopes; returns a caller that uses the key.
    pub async fn create_service_key(&self, scopes: &[Scope]) -> Caller<'_> {
        let new = NewServiceKey { name: KeyName::parse("tests").unwrap(), scopes: scopes.to_vec(), lifetime: None };
        let key = self.app.valet.service_keys.create(new, OffsetDateTime::now_utc()).await.unwrap();
        Caller { token: Some(key.expose_secret().to_owned()), ..self.anonymous() }
    }

    /// Sends the presigned request of a ticket.
    pub async fn put(&self, request: &Value, bytes: impl Into<reqwest::Body>) -> StatusCode {
        let mut put = self.http.request(request["method"].as_str().unwrap().parse().unwrap(), request["url"].as_str().unwrap());
        for (name, value) in request["headers"].as_object().unwrap() {
            put = put.header(name, value.as_str().unwrap());
        }
        put.body(bytes).send().await.unwrap().status()
    }

    /// Runs one sweep with the clock at `now`.
    pub async fn sweep(&self, now: OffsetDateTime) -> valet::domain::sweeper::Swept {
        self.app.valet.sweeper.sweep_once(now).await.unwrap().swept
    }

    /// Sweeps at a time when every URL of the default settings has expired, until nothing is left to do, so that deleted and
    /// rejected images no longer count against quotas.
    pub async fn sweep_after_url_expiry(&self) {
        let after_expiry = OffsetDateTime::now_utc() + Duration::from_secs(2 * 3600);
        while self.sweep(after_expiry).await != valet::domain::sweeper::Swept::default() {}
    }

    /// Returns the image's document.
    pub async fn db_image(&self, id: &str) -> Option<Document> {
        self.db.collection::<Document>("images").find_one(doc! { "_id": id }).await.unwrap()
    }

    /// Returns the state in the image's document; "none" if there is no document.
    pub async fn db_state(&self, id: &str) -> String {
        self.db_image(id).await.map_or_else(|| "none".to_owned(), |image| image.get_str("state").unwrap().to_owned())
    }

    /// Returns all keys in the bucket except the deployment's marker, which a server process writes at its first start.
    pub async fn bucket_keys(&self) -> Vec<String> {
        let mut keys = self.all_bucket_keys().await;
        keys.retain(|key| key != valet::store::objects::marker::KEY);
        keys
    }

    /// Returns all keys in the bucket.
    pub async fn all_bucket_keys(&self) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket(&self.config.s3.bucket).send().await.unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    /// Writes an object without any checks, as an operator could.
    pub async fn bucket_put(&self, key: &str, content_type: &str, bytes: Vec<u8>) {
        let put = self.s3.put_object().bucket(&self.config.s3.bucket).key(key).content_type(content_type);
        put.checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Sha256).body(bytes.into()).send().await.unwrap();
    }
}

/// A client that sends requests as a user, with a service key, or anonymously.
#[derive(Clone)]
pub struct Caller<'a> {
    pub app: &'a TestApp,
    /// Bearer token: an access token or a service key.
    pub token: Option<String>,
    /// Id of the user; empty for an anonymous caller.
    pub id: String,
    pub email: String,
    /// Client address in X-Forwarded-For, if any.
    pub address: Option<String>,
}

impl<'a> Caller<'a> {
    /// Returns the same caller with this client address.
    pub fn with_address(&self, address: &str) -> Caller<'a> {
        Self { address: Some(address.to_owned()), ..self.clone() }
    }

    /// Returns a caller that may call this operation: itself, or a service key if the operation is for the app's backend.
    pub async fn for_operation(&self, operation: &super::openapi::Operation) -> Caller<'a> {
        if operation.is_admin() { self.app.create_service_key(&Scope::ALL).await } else { self.clone() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, |request| request).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, |request| request.json(&body)).await
    }

    /// Sends a POST without a body.
    pub async fn post_empty(&self, path: &str) -> Answer {
        self.send(Method::POST, path, |request| request).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, |request| request.json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, |request| request.json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, |request| request).await
    }

    /// Sends a request that `change` completes, and compares the answer with the OpenAPI document.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        let mut request =
            self.app.http.request(method.clone(), format!("{}{path}", self.app.base)).timeout(Duration::from_secs(30));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(address) = &self.address {
            request = request.header("x-forwarded-for", address);
        }
        let mut response = change(request).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = if headers.get("content-type").is_some_and(|media_type| media_type == "text/event-stream") {
            // An event stream stays open for half an hour, so only its first chunk is read.
            let first = response.chunk().await.unwrap();
            first.map(|first| String::from_utf8_lossy(&first).into_owned()).unwrap_or_default()
        } else {
            response.text().await.unwrap()
        };
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Answer { status, headers, text, json };
        if method != Method::GET {
            // The server counts steps after its answer; a test may read the counters from the database.
            self.app.app.valet.confirmation.wait_for_counts().await;
        }
        super::response_validation::check(&method, path, &answer);
        answer
    }

    /// Opens an upload of these bytes.
    pub async fn open_upload(&self, file_name: &str, content_type: &str, bytes: &[u8]) -> Answer {
        self.post("/api/images/upload", declaration(file_name, content_type, bytes)).await
    }

    /// Uploads and confirms an image; returns it.
    pub async fn upload(&self, file_name: &str, content_type: &str, bytes: &[u8]) -> Value {
        let ticket = self.open_upload(file_name, content_type, bytes).await;
        assert_eq!(ticket.status, 201, "{ticket:?}");
        assert_eq!(self.app.put(&ticket.json["upload"], bytes.to_vec()).await, 200);
        let image = self.confirm(ticket.id()).await;
        assert_eq!(image.status, 200, "{image:?}");
        image.json
    }

    /// Confirms an upload.
    pub async fn confirm(&self, id: &str) -> Answer {
        self.post_empty(&format!("/api/images/{id}/confirm")).await
    }
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// The body as JSON; null if it is not JSON.
    pub json: Value,
}

impl Answer {
    /// Returns the member `id` of the answer.
    pub fn id(&self) -> &str {
        self.json["id"].as_str().unwrap()
    }

    /// Returns the problem code; empty if the answer has none.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// Returns status and code, for comparison.
    pub fn problem(&self) -> (u16, &str) {
        (self.status, self.code())
    }

    /// Returns the value of a header; empty if the answer has none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Returns a small unique PNG: it ends with random bytes, which are legal after the image's end.
pub fn unique_png() -> Vec<u8> {
    let mut bytes = fixture("plain.png");
    bytes.extend(uuid::Uuid::new_v4().as_bytes());
    bytes
}
