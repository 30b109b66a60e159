//! A client that knows a server only by its address, and the types for starting such a server as a process.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::app::{PASSWORD, declaration, http_client};
pub use super::program::{Ended, Process, Settings, listening_at};

/// A client of a server at some address.
pub struct Client {
    pub base: String,
    pub http: reqwest::Client,
    pub token: Option<String>,
    /// Whether the server has opened an upload.
    pub has_opened: AtomicBool,
}

impl Client {
    /// Returns a client of the server at this address.
    pub fn at(base: impl Into<String>) -> Self {
        Self { base: base.into(), http: http_client(), token: None, has_opened: AtomicBool::new(false) }
    }

    /// Makes a call; returns the status and the body.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).timeout(Duration::from_secs(30));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        if status.is_success() && path.starts_with("/api/images/upload") {
            self.has_opened.store(true, Relaxed);
        }
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Fetches a presigned URL.
    pub async fn fetch(&self, url: &Value) -> Vec<u8> {
        let answer = self.http.get(url.as_str().unwrap()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap().to_vec()
    }

    /// Signs up or logs in (the last segment of the route), and stores the access token.
    pub async fn sign_in(&mut self, route: &str, email: &str) {
        let (status, session) = self.post(&format!("/api/auth/{route}"), &json!({ "email": email, "password": PASSWORD })).await;
        assert!(status.is_success(), "{status} {session}");
        self.token = Some(session["token"].as_str().unwrap().to_owned());
    }

    /// Opens an upload. Repeats the first one while it is refused with 503: a server on a busy machine may not have probed its
    /// store before the first request, and does so in its first sweep.
    async fn open_upload(&self, declared: &Value) -> Value {
        let began = Instant::now();
        loop {
            let (status, ticket) = self.post("/api/images/upload", declared).await;
            if status == 201 {
                return ticket;
            }
            let may_repeat = status == 503 && !self.has_opened.load(Relaxed) && began.elapsed() < Duration::from_secs(60);
            assert!(may_repeat, "{status} {ticket}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Uploads and confirms a PNG and fetches its URLs; returns the image and every presigned URL.
    pub async fn upload(&self, bytes: &[u8]) -> (Value, Vec<String>) {
        self.upload_as("image/png", bytes).await
    }

    /// Uploads and confirms an image of this type and fetches its URLs; returns the image and every presigned URL.
    pub async fn upload_as(&self, content_type: &str, bytes: &[u8]) -> (Value, Vec<String>) {
        let ticket = self.open_upload(&declaration("sea.png", content_type, bytes)).await;
        let upload = &ticket["upload"];
        let mut put = self.http.put(upload["url"].as_str().unwrap());
        for (name, value) in upload["headers"].as_object().unwrap() {
            put = put.header(name, value.as_str().unwrap());
        }
        assert_eq!(put.body(bytes.to_vec()).send().await.unwrap().status(), 200);
        let path = format!("/api/images/{}", ticket["id"].as_str().unwrap());
        let (status, image) = self.call(Method::POST, &format!("{path}/confirm"), None).await;
        assert_eq!(status, 200, "{image}");
        let (_, gallery) = self.get("/api/images/gallery").await;
        assert_eq!(gallery["images"][0]["id"], ticket["id"]);
        let (_, download) = self.get(&format!("{path}/download")).await;
        let urls = [&gallery["images"][0]["url"], &download["url"]];
        for url in urls {
            assert!(self.fetch(url).await == bytes, "the bytes that were sent");
        }
        let urls_seen = [upload["url"].clone(), image["url"].clone(), urls[0].clone(), urls[1].clone()];
        (image, urls_seen.into_iter().map(|url| url.as_str().unwrap().to_owned()).collect())
    }
}
