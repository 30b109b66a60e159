//! Covers the in-process S3 server, through the real SDK and through raw presigned requests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authorization;
mod bucket_settings;
mod complete_multipart;
mod copy_parts;
mod cors;
mod crashes;
mod forms;
mod multipart;
mod objects;
mod policies;
mod presigned;
mod read_objects;
mod response_bodies;
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use valet::config::CorsOrigins;
use valet::dev::s3::{LocalS3, LocalS3Options};

/// Key id, secret and bucket of every server.
const ACCESS: &str = "local-access";
const SECRET: &str = "local-secret-value";
const BUCKET: &str = "photos";

/// A running local S3 server.
struct Server {
    /// Folder of its data.
    root: PathBuf,
    /// Base URL, without a path.
    base: String,
    s3: Client,
    http: reqwest::Client,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Returns a new path for the server's data.
fn fresh_root() -> PathBuf {
    std::env::temp_dir().join(format!("valet-s3-{}", uuid::Uuid::new_v4().simple()))
}

/// Returns the options of a server with its data in this folder.
fn options(root: &Path) -> LocalS3Options {
    LocalS3Options {
        root: root.to_owned(),
        access_key: ACCESS.into(),
        secret_key: SECRET.into(),
        region: "us-east-1".to_owned(),
        cors: CorsOrigins { exact: vec!["https://app.example".to_owned()], loopback: true },
    }
}

impl Server {
    /// Starts a server with a new folder.
    async fn start() -> Self {
        Self::start_at(fresh_root()).await
    }

    /// Starts a server with its data in this folder, which may have data already.
    async fn start_at(root: PathBuf) -> Self {
        let local = LocalS3::open(options(&root)).unwrap();
        local.create_bucket(&BUCKET.parse().unwrap()).unwrap();
        // Creating a bucket that exists changes nothing.
        local.create_bucket(&BUCKET.parse().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(local.serve(listener, stop.clone()));
        let s3 = client(&base, ACCESS, SECRET);
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self { root, base, s3, http, stop, task }
    }

    /// Stops the server and keeps the folder.
    async fn stop(self) -> PathBuf {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap();
        self.root
    }

    /// Stops the server and removes its data.
    async fn end(self) {
        let root = self.stop().await;
        std::fs::remove_dir_all(root).unwrap();
    }

    /// Writes an object.
    async fn put(&self, key: &str, body: &[u8]) {
        self.s3.put_object().bucket(BUCKET).key(key).body(ByteStream::from(body.to_vec())).send().await.unwrap();
    }

    /// Returns the bytes of an object.
    async fn read(&self, key: &str) -> Vec<u8> {
        let object = self.s3.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        object.body.collect().await.unwrap().to_vec()
    }

    /// Returns a presigned PUT like Valet's: it signs type, length, digest and `if-none-match`.
    async fn sign_put(&self, key: &str, body: &[u8]) -> PresignedRequest {
        self.s3
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .content_type("image/jpeg")
            .content_length(i64::try_from(body.len()).unwrap())
            .checksum_sha256(sha256(body))
            .if_none_match("*")
            .presigned(PresigningConfig::expires_in(Duration::from_secs(600)).unwrap())
            .await
            .unwrap()
    }

    /// Returns a presigned GET URL.
    async fn sign_get(&self, key: &str) -> String {
        let lifetime = PresigningConfig::expires_in(Duration::from_secs(600)).unwrap();
        self.s3.get_object().bucket(BUCKET).key(key).presigned(lifetime).await.unwrap().uri().to_owned()
    }

    /// Returns the number of temporary files: incomplete uploads.
    fn temporary_files(&self) -> usize {
        std::fs::read_dir(self.root.join("tmp")).unwrap().count()
    }

    /// Returns whether the object exists.
    async fn exists(&self, key: &str) -> bool {
        self.s3.head_object().bucket(BUCKET).key(key).send().await.is_ok()
    }
}

/// Returns an SDK client with these keys.
fn client(base: &str, access: &str, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(access, secret, None, None, "test"))
        .endpoint_url(base)
        .force_path_style(true)
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// Returns a request builder for a presigned request, for tests to alter.
fn replay(http: &reqwest::Client, signed: &PresignedRequest) -> reqwest::RequestBuilder {
    let method: Method = signed.method().parse().unwrap();
    signed.headers().fold(http.request(method, signed.uri()), |request, (name, value)| request.header(name, value))
}

/// Returns the SHA-256 in base64.
fn sha256(body: &[u8]) -> String {
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body))
}

/// Returns the time `n` hours from now; negative numbers are in the past.
fn hours(n: i64) -> SystemTime {
    let by = Duration::from_secs(n.unsigned_abs() * 3600);
    if n < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
}

/// Asserts the status of an answer, its error code unless `code` is empty, and that it has an id and a date; returns the body.
async fn expect(response: Response, status: u16, code: &str) -> String {
    assert!(response.headers().contains_key("x-amz-request-id"), "every answer has an id");
    assert!(response.headers().contains_key("date"), "every answer has a date");
    let actual = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(actual, StatusCode::from_u16(status).unwrap(), "{body}");
    if code.is_empty() {
        return body;
    }
    assert!(body.contains(&format!("<Code>{code}</Code>")), "{code} expected: {body}");
    body
}
