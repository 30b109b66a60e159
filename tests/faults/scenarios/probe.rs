//! The probe: a client that asserts that the current fault allows each answer.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::super::{
    cluster::Cluster,
    files::{declaration, fixture},
    single_server::{ANSWERED_WITHIN, Answer},
    workload::users::password_of,
};

/// The client and its user. No client of the load belongs to this user; the checker checks the user like all others.
pub struct Probe {
    http: reqwest::Client,
    bases: Vec<String>,
    token: String,
    /// Number of calls, by which the probe alternates between the servers.
    calls: usize,
}

impl Probe {
    /// Signs up the user of the probe.
    pub async fn start(cluster: &Cluster) -> Self {
        let bases = cluster.servers.iter().map(|server| server.base()).collect();
        let mut probe = Self { http: reqwest::Client::new(), bases, token: String::new(), calls: 0 };
        let email = format!("probe-{}@example.com", uuid::Uuid::new_v4().simple());
        let session = json!({ "email": email, "password": password_of(&email) });
        let session = probe.call(Method::POST, "/api/auth/signup", Some(session)).await;
        probe.token = session.json["token"].as_str().unwrap_or_else(|| panic!("{session:?}")).to_owned();
        probe
    }

    /// Makes one call with the token, without repeats.
    pub async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.calls += 1;
        let url = format!("{}{path}", self.bases[self.calls % self.bases.len()]);
        let mut request = self.http.request(method, url).timeout(Duration::from_secs(60));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let began = Instant::now();
        let answer = request.send().await.expect("the server answers even if its dependencies fail");
        let header = |name| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
        let (status, content_type) = (answer.status().as_u16(), header("content-type").unwrap_or_default());
        let retry_after = header("retry-after");
        Answer { status, content_type, retry_after, json: answer.json().await.unwrap_or(Value::Null), took: began.elapsed() }
    }

    /// Lists the gallery, uploads, confirms and deletes. Returns the number of calls that were answered 503 or 504; an
    /// undocumented answer fails the test.
    pub async fn cycle(&mut self, case: &str) -> usize {
        let mut refused = 0;
        let mut check = |answer: &Answer, allowed: &[u16]| {
            assert!(answer.took < ANSWERED_WITHIN, "{case}: {answer:?}");
            if matches!(answer.status, 503 | 504) {
                answer.assert_outage(case);
                refused += 1;
                return false;
            }
            assert!(answer.status < 300 || allowed.contains(&answer.status), "{case}: {answer:?}");
            answer.status < 300
        };
        let gallery = self.call(Method::GET, "/api/images/gallery", None).await;
        check(&gallery, &[]);
        let bytes = file();
        let ticket = self.call(Method::POST, "/api/images/upload", Some(declaration("a.png", "image/png", &bytes))).await;
        if check(&ticket, &[409]) {
            let sent = put(&self.http, &ticket.json["upload"], bytes).await;
            let path = format!("/api/images/{}", ticket.id());
            let confirmed = self.call(Method::POST, &format!("{path}/confirm"), None).await;
            // 409 if the object was not sent or is not visible yet; 410 and 404 if the upload has expired after its few seconds.
            check(&confirmed, &[404, 409, 410]);
            // After a lost answer the object may exist; after a rejected PUT it does not.
            let is_put_rejected = sent.is_some_and(|status| status != 200);
            assert!(!is_put_rejected || confirmed.status != 200, "{case}: {sent:?}, and {confirmed:?}");
            let deleted = self.call(Method::DELETE, &path, None).await;
            check(&deleted, &[404]);
        }
        refused
    }

    /// Returns whether every server is ready and lists the gallery.
    pub async fn is_reachable(&mut self, cluster: &Cluster) -> bool {
        for _ in 0..cluster.servers.len() {
            let ready = self.call(Method::GET, "/readyz", None).await;
            // The next call uses the same server again.
            self.calls -= 1;
            let gallery = self.call(Method::GET, "/api/images/gallery", None).await;
            if (ready.status, gallery.status) != (200, 200) {
                return false;
            }
        }
        true
    }

    /// Opens an upload and sends its bytes; returns its id.
    pub async fn send_upload(&mut self) -> String {
        let bytes = file();
        let ticket = self.call(Method::POST, "/api/images/upload", Some(declaration("a.png", "image/png", &bytes))).await;
        assert_eq!(put(&self.http, &ticket.json["upload"], bytes).await, Some(200), "{ticket:?}");
        ticket.id()
    }

    /// Confirms an upload once.
    pub async fn confirm(&mut self, id: &str) -> Answer {
        self.call(Method::POST, &format!("/api/images/{id}/confirm"), None).await
    }

    /// Uploads and confirms an image that stays.
    pub async fn upload(&mut self) -> String {
        let id = self.send_upload().await;
        let confirmed = self.confirm(&id).await;
        assert_eq!(confirmed.status, 200, "{confirmed:?}");
        id
    }

    /// Returns whether every server completes a whole upload.
    pub async fn completes_upload(&mut self, cluster: &Cluster) -> bool {
        for _ in 0..cluster.servers.len() {
            let bytes = file();
            let ticket = self.call(Method::POST, "/api/images/upload", Some(declaration("a.png", "image/png", &bytes))).await;
            if ticket.status != 201 || put(&self.http, &ticket.json["upload"], bytes).await != Some(200) {
                return false;
            }
            let path = format!("/api/images/{}", ticket.id());
            let confirmed = self.call(Method::POST, &format!("{path}/confirm"), None).await;
            let deleted = self.call(Method::DELETE, &path, None).await;
            if (confirmed.status, deleted.status) != (200, 204) {
                return false;
            }
        }
        true
    }
}

/// Returns the bytes of a unique PNG.
fn file() -> Vec<u8> {
    let mut bytes = fixture("plain.png");
    bytes.extend(uuid::Uuid::new_v4().as_bytes());
    bytes
}

/// Sends a presigned PUT; returns the status, or `None` without an answer.
async fn put(http: &reqwest::Client, request: &Value, bytes: Vec<u8>) -> Option<u16> {
    let mut put = http.put(request["url"].as_str()?).timeout(Duration::from_secs(20));
    for (name, value) in request["headers"].as_object()? {
        put = put.header(name, value.as_str()?);
    }
    Some(put.body(bytes).send().await.ok()?.status().as_u16())
}
