//! An S3 server that misbehaves: an HTTP proxy in front of a real one that answers chosen operations like broken, overloaded and
//! misconfigured stores, and like proxies in front of stores. All other requests pass unchanged, with their Host header, which is
//! signed.
//!
//! The proxy expects path-style addressing. Faults of connections, independent of HTTP, are in `proxy`.

mod misbehavior;
mod operation;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{Request, Response, Uri, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::servers::servers;

pub use self::{
    misbehavior::{Answer, Misbehavior},
    operation::Operation,
};

/// A streamed body, which may fail.
type Body = UnsyncBoxBody<Bytes, io::Error>;
/// HTTP client that sends the forwarded requests.
type Upstream = Client<HttpConnector, Body>;

/// A fault and the requests that it applies to.
#[derive(Clone)]
pub struct Rule {
    operations: Vec<Operation>,
    /// Percentage of requests.
    share: u64,
    /// Number of requests that the rule can still apply to.
    left: Arc<AtomicU64>,
    /// Number of requests that the rule has applied to.
    hits: Arc<AtomicU64>,
    /// Text that the path or the query must contain; empty: any request.
    target_text: String,
    misbehavior: Misbehavior,
}

impl Rule {
    /// Applies to each of these operations.
    pub fn new(operations: &[Operation], misbehavior: Misbehavior) -> Self {
        let (left, hits) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::default());
        Self { operations: operations.to_vec(), share: 100, left, hits, target_text: String::new(), misbehavior }
    }

    /// Applies to every operation.
    pub fn all(misbehavior: Misbehavior) -> Self {
        Self::new(&Operation::ALL, misbehavior)
    }

    /// Applies to a random percentage of requests.
    pub fn share(self, percent: u64) -> Self {
        Self { share: percent, ..self }
    }

    /// Applies to the first `count` requests only.
    pub fn at_most(self, count: u64) -> Self {
        self.left.store(count, SeqCst);
        self
    }

    /// Applies to requests with this text in path or query, such as an image's id.
    pub fn only_for(self, target_text: &str) -> Self {
        Self { target_text: target_text.to_owned(), ..self }
    }

    /// Returns whether the rule applies to a request, and counts it; `chance` is a random number.
    fn applies_to(&self, operation: Operation, uri: &Uri, chance: u64) -> bool {
        let applies = self.operations.contains(&operation)
            && uri.to_string().contains(&self.target_text)
            && chance % 100 < self.share
            && self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        self.hits.fetch_add(applies.into(), SeqCst);
        applies
    }
}

/// The running proxy, which ends when it is dropped.
pub struct S3Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: AbortOnDropHandle<()>,
}

/// State that all connections of the proxy share.
struct Shared {
    upstream: SocketAddr,
    client: Upstream,
    rules: Mutex<Vec<Rule>>,
    /// Operations since [`S3Faults::take_operations`] was called.
    operations: Mutex<Vec<Operation>>,
    /// State of [`Shared::next_random`].
    random_state: AtomicU64,
}

impl S3Faults {
    /// Starts a proxy for the S3 server at `upstream` on a free port of 127.0.0.1.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let shared = Arc::new(Shared {
            upstream,
            client,
            rules: Mutex::default(),
            operations: Mutex::default(),
            // A fixed seed, so that a run repeats.
            random_state: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        });
        let running = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, _running: AbortOnDropHandle::new(running) }
    }

    /// Starts a proxy for the run's S3.
    pub async fn of_this_run() -> Self {
        Self::start(s3_address().await).await
    }

    /// Returns the address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the value for `S3_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule before the existing ones; returns a counter of its uses.
    pub fn add(&self, rule: Rule) -> Arc<AtomicU64> {
        let hits = rule.hits.clone();
        self.shared.rules.lock().unwrap().insert(0, rule);
        hits
    }

    /// Removes all rules.
    ///
    /// # Panics
    /// If a rule for each request of its operations has applied to none: the test has not tested it.
    pub fn heal(&self) {
        let rules = std::mem::take(&mut *self.shared.rules.lock().unwrap());
        let unused = rules.iter().filter(|rule| rule.share == 100 && rule.hits.load(SeqCst) == 0);
        let operations: Vec<_> = unused.map(|rule| &rule.operations).collect();
        assert!(operations.is_empty(), "no request met the rules for {operations:?}");
    }

    /// Returns the operations since the last call of this function.
    pub fn take_operations(&self) -> Vec<Operation> {
        std::mem::take(&mut self.shared.operations.lock().unwrap())
    }
}

/// Returns the address of the run's S3.
pub async fn s3_address() -> SocketAddr {
    let endpoint = servers().s3_endpoint.strip_prefix("http://").expect("S3 without TLS");
    tokio::net::lookup_host(endpoint).await.unwrap().next().unwrap()
}

/// Accepts connections, each in a task of its own.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // The connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let shared = shared.clone();
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| handle(shared.clone(), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Answers one request by the newest rule that applies, or forwards it; an error ends the connection without an answer.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let operation = Operation::of(&request);
    shared.operations.lock().unwrap().push(operation);
    let rule = {
        let chance = shared.next_random();
        let rules = shared.rules.lock().unwrap();
        rules.iter().find(|rule| rule.applies_to(operation, request.uri(), chance)).cloned()
    };
    match rule {
        Some(rule) => rule.misbehavior.apply(request, &shared).await,
        None => shared.forward(request).await,
    }
}

impl Shared {
    /// Returns a pseudo-random number; the sequence is the same in every run.
    fn next_random(&self) -> u64 {
        // Knuth's multiplier; its high bits are the random ones.
        let step = |state: u64| state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random_state.fetch_update(SeqCst, SeqCst, |state| Some(step(state))).map_or(0, |state| step(state) >> 33)
    }

    /// Sends a request to the real store and returns its answer.
    async fn forward(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = format!("http://{}{path}", self.upstream).parse::<Uri>().map_err(io::Error::other)?;
        let request = Request::from_parts(parts, body.map_err(io::Error::other).boxed_unsync());
        let answer = self.client.request(request).await.map_err(io::Error::other)?;
        Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()))
    }
}
