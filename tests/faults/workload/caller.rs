//! Calls of one client: chooses the server, writes the journal, and repeats calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::{
    answer::{Answer, answer_line, comparable_text, receive},
    random::Random,
};
use crate::journal::{AnswerLine, Call, Item, Journal, RequestLine, now};

/// Time after which a request counts as lost.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Number of failures, at most, that the tally records.
const MAX_FAILURES: usize = 200;

/// The servers as a load balancer sees them.
pub struct Balancer {
    pub bases: Vec<String>,
    /// Whether each server is ready by its `/readyz`; maintained if `by_readiness`.
    pub ready: Vec<AtomicBool>,
    /// Whether each server was taken out of the service, as Kubernetes does before it stops a pod.
    pub withdrawn: Vec<AtomicBool>,
    /// Whether requests go only to ready servers, and only refused connections are retried on another server, like a Kubernetes
    /// service.
    pub by_readiness: bool,
}

impl Balancer {
    /// Returns the number of the server for the next request.
    fn pick(&self, random: &mut Random) -> usize {
        let serves = |n: &usize| self.ready[*n].load(Ordering::Relaxed) && !self.withdrawn[*n].load(Ordering::Relaxed);
        let ready: Vec<_> = (0..self.bases.len()).filter(serves).collect();
        if self.by_readiness && !ready.is_empty() { ready[random.below(ready.len())] } else { random.below(self.bases.len()) }
    }
}

/// Counters of the load.
#[derive(Default)]
pub struct Tally {
    /// Number of images that confirms answered with 200; a repeated confirm counts again.
    pub confirmed: AtomicU64,
    /// The first answers of 500, 503 and 504, and the first missing answers.
    pub failures: std::sync::Mutex<Vec<String>>,
    /// Number of clients that have signed in for the first time.
    pub at_work: AtomicU64,
    /// Number of calls that were given up after all repeats.
    pub given_up: AtomicU64,
}

/// A request to the API.
pub struct Request<'a> {
    /// Purpose of the call, for the journal.
    pub call: Call,
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
    pub idem_key: Option<String>,
    pub token: Option<&'a str>,
    /// Images that the request is about, for the journal.
    pub items: Vec<Item>,
}

/// Identity, connections and settings of one client.
pub struct Caller {
    /// Number of the client.
    pub number: usize,
    /// Email of the account, for the journal.
    pub user: String,
    pub random: Random,
    pub http: reqwest::Client,
    pub balancer: Arc<Balancer>,
    pub journal: Arc<Journal>,
    pub tally: Arc<Tally>,
    /// Time for which a call without a final answer is repeated.
    pub patience: Duration,
    /// Service key of the app's backend.
    pub key: Arc<str>,
}

impl Caller {
    /// Returns a caller with the same state, for concurrent calls of the same client.
    pub fn concurrent_copy(&mut self) -> Self {
        Self {
            number: self.number,
            user: self.user.clone(),
            random: Random::new(self.random.next()),
            http: self.http.clone(),
            balancer: self.balancer.clone(),
            journal: self.journal.clone(),
            tally: self.tally.clone(),
            patience: self.patience,
            key: self.key.clone(),
        }
    }

    /// Calls until there is a final answer: repeats 503, 504 and missing answers, as the documented rules for clients require.
    pub async fn call(&mut self, request: Request<'_>) -> Answer {
        let (began, mut first, mut pause_ms) = (Instant::now(), None, 50);
        loop {
            let (op, answer) = self.send_once(&request, first).await;
            if !matches!(answer.status, 0 | 503 | 504) {
                return answer;
            }
            if began.elapsed() > self.patience {
                self.tally.given_up.fetch_add(1, Ordering::Relaxed);
                return answer;
            }
            first = first.or(Some(op));
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(400);
        }
    }

    /// Sends a request once and records it with its answer; returns the number of the call and the answer. `repeat_of` is the
    /// number of the first call that it repeats.
    async fn send_once(&mut self, request: &Request<'_>, repeat_of: Option<u64>) -> (u64, Answer) {
        let op = self.journal.next_number();
        let mut server = self.balancer.pick(&mut self.random);
        self.journal.record_request(RequestLine {
            op,
            t0: now(),
            client: self.number,
            user: self.user.clone(),
            call: request.call,
            server: Some(server),
            repeats: repeat_of,
            items: request.items.clone(),
        });
        let mut sent = self.build(request, server).send().await;
        // No server has received a request whose connection was refused.
        let began = Instant::now();
        while self.balancer.by_readiness && sent.as_ref().is_err_and(reqwest::Error::is_connect) && began.elapsed() < TIMEOUT {
            tokio::time::sleep(Duration::from_millis(20)).await;
            server = self.balancer.pick(&mut self.random);
            sent = self.build(request, server).send().await;
        }
        let received = receive(sent).await;
        if let Ok(answer) = &received {
            self.record_secrets(&answer.json);
        }
        let failure = match &received {
            Ok(answer) if answer.status >= 500 => {
                Some(format!("{} {}: {} {}", request.method, request.path, answer.status, answer.json))
            }
            Ok(_) => None,
            Err(lost) => Some(format!("{} {} on server {server}: {lost}", request.method, request.path)),
        };
        if let Some(failure) = failure {
            let mut failures = self.tally.failures.lock().unwrap();
            if failures.len() < MAX_FAILURES {
                failures.push(failure);
            }
        }
        let line = answer_line(op, &request.items, &received);
        if request.call == Call::Confirm {
            let confirmed = line.items.iter().filter(|item| item.status == Some(200)).count();
            self.tally.confirmed.fetch_add(confirmed as u64, Ordering::Relaxed);
        }
        self.journal.record_answer(line);
        (op, received.unwrap_or_default())
    }

    /// Makes one call twice: with the id of another user's image, and with an unknown id. Records digests of both answers, without
    /// the ids that must differ.
    pub async fn call_foreign(
        &mut self,
        method: Method,
        path: impl Fn(&str) -> String,
        body: impl Fn(&str) -> Option<Value>,
        ids: [&str; 2],
        token: &str,
    ) {
        let (op, server) = (self.journal.next_number(), self.balancer.pick(&mut self.random));
        let items: Vec<_> = ids.iter().map(|id| Item { id: Some((*id).to_owned()), ..Item::default() }).collect();
        let (client, user) = (self.number, self.user.clone());
        self.journal.record_request(RequestLine {
            op,
            t0: now(),
            client,
            user,
            call: Call::Probe,
            server: Some(server),
            repeats: None,
            items: items.clone(),
        });
        let mut line = AnswerLine { op, t1: now(), ..AnswerLine::default() };
        for (item, id) in items.into_iter().zip(ids) {
            let request = Request {
                call: Call::Probe,
                method: method.clone(),
                path: path(id),
                body: body(id),
                idem_key: None,
                token: Some(token),
                items: Vec::new(),
            };
            match receive(self.build(&request, server).send().await).await {
                Ok(answer) => {
                    let code = answer.json["code"].as_str().map(str::to_owned);
                    let sha256 = Some(crate::files::sha256(comparable_text(&answer, id).as_bytes()));
                    line.items.push(Item { status: Some(answer.status), code, sha256, ..item });
                }
                Err(lost) => line.lost = Some(lost),
            }
        }
        line.t1 = now();
        self.journal.record_answer(line);
    }

    /// Builds the HTTP request for a server.
    fn build(&self, request: &Request<'_>, server: usize) -> RequestBuilder {
        let url = format!("{}{}", self.balancer.bases[server], request.path);
        let mut built = self.http.request(request.method.clone(), url).timeout(TIMEOUT);
        if let Some(token) = request.token {
            built = built.bearer_auth(token);
        }
        if let Some(key) = &request.idem_key {
            built = built.header("idempotency-key", key);
        }
        match &request.body {
            Some(body) => built.json(body),
            None => built,
        }
    }

    /// Records tokens and signatures by their digests.
    fn record_secrets(&self, json: &Value) {
        for (name, kind) in [("token", "access token"), ("refreshToken", "refresh token")] {
            if let Some(secret) = json[name].as_str() {
                self.journal.record_secret(kind, secret);
            }
        }
        for pointer in ["/upload/url", "/previewUpload/url", "/url"] {
            let url = json.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            if let Some((_, signature)) = url.rsplit_once("X-Amz-Signature=") {
                self.journal.record_secret("signature", signature);
            }
        }
    }

    /// Sends a presigned PUT to S3; repeats 409, 5xx and missing answers. Returns the status; 0 without an answer.
    pub async fn put(&mut self, request: &Value, item: Item, bytes: &[u8]) -> u16 {
        let began = Instant::now();
        loop {
            let status = self.put_once(request, &item, bytes, TIMEOUT).await;
            if !matches!(status, 0 | 409 | 500..) || began.elapsed() > self.patience {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends a presigned PUT to S3, and closes the connection within a few milliseconds, in most cases before the answer.
    pub async fn put_and_hang_up(&mut self, request: &Value, item: &Item, bytes: &[u8]) {
        let limit = Duration::from_millis(self.random.next() % 6);
        self.put_once(request, item, bytes, limit).await;
    }

    /// Sends a presigned PUT to S3 once, and waits for at most `limit`. Returns the status; 0 without an answer.
    async fn put_once(&mut self, request: &Value, item: &Item, bytes: &[u8], limit: Duration) -> u16 {
        let (op, t0) = (self.journal.next_number(), now());
        let (client, user, items) = (self.number, self.user.clone(), vec![item.clone()]);
        self.journal.record_request(RequestLine { op, t0, client, user, call: Call::Put, server: None, repeats: None, items });
        let mut put = self.http.put(request["url"].as_str().unwrap_or_default()).timeout(TIMEOUT);
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            put = put.header(name, value.as_str().unwrap_or_default());
        }
        let send = put.body(bytes.to_vec()).send();
        let (status, lost) = match tokio::time::timeout(limit, send).await {
            Ok(Ok(answer)) => (answer.status().as_u16(), None),
            Ok(Err(error)) => (0, Some(error.without_url().to_string())),
            Err(_) => (0, Some("hung up".to_owned())),
        };
        self.journal.record_answer(AnswerLine {
            op,
            t1: now(),
            status: (status > 0).then_some(status),
            lost,
            ..AnswerLine::default()
        });
        status
    }

    /// Fetches a presigned URL from S3.
    pub async fn get(&mut self, url: &Value, id: &str) {
        let op = self.journal.next_number();
        let item = Item { id: Some(id.to_owned()), ..Item::default() };
        let (client, user, items) = (self.number, self.user.clone(), vec![item.clone()]);
        self.journal.record_request(RequestLine {
            op,
            t0: now(),
            client,
            user,
            call: Call::Get,
            server: None,
            repeats: None,
            items,
        });
        let received = receive(self.http.get(url.as_str().unwrap_or_default()).timeout(TIMEOUT).send().await).await;
        let mut line = AnswerLine { op, t1: now(), ..AnswerLine::default() };
        match received {
            Ok(answer) => {
                let fetched = Item {
                    sha256: answer.ok().then(|| crate::files::sha256(&answer.body)),
                    size: answer.ok().then_some(answer.body.len() as u64),
                    content_type: answer.headers.get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned),
                    status: Some(answer.status),
                    ..item
                };
                (line.status, line.items) = (Some(answer.status), vec![fetched]);
            }
            Err(lost) => line.lost = Some(lost),
        }
        self.journal.record_answer(line);
    }
}
