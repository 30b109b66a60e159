//! HTTP relays between the program and S3. A test passes a handler that gets each request, and may change the request or the
//! answer.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, http::request::Parts, service::service_fn};
use hyper_util::rt::TokioIo;

use super::app::{TestApp, http_client};

/// An HTTP answer whose body is in memory.
pub type Answer = Response<Full<Bytes>>;

/// Serves requests with `answer` on a free port until the test's runtime ends; returns the address.
pub async fn listen<A>(answer: impl Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static) -> String
where
    A: Future<Output = Result<Answer, Infallible>> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(answer.clone())));
        }
    });
    endpoint
}

/// S3 of a server under test, to which a relay forwards requests.
#[derive(Clone)]
pub struct Upstream {
    pub bucket: String,
    pub s3: aws_sdk_s3::Client,
    pub http: reqwest::Client,
    endpoint: String,
}

impl Upstream {
    /// Returns the store of a server.
    pub fn of(app: &TestApp) -> Self {
        Self {
            bucket: app.config.s3.bucket.to_string(),
            s3: app.s3.clone(),
            endpoint: app.config.s3.endpoint.as_deref().unwrap().to_owned(),
            http: http_client(),
        }
    }

    /// Returns the object key in a request's path; empty for the bucket itself.
    pub fn key(&self, parts: &Parts) -> String {
        parts.uri.path().strip_prefix(&format!("/{}/", self.bucket)).unwrap_or_default().to_owned()
    }

    /// Forwards a request, with the client's own Host header, because it is signed.
    pub async fn forward(&self, parts: &Parts, body: Bytes) -> Answer {
        let url = format!("{}{}", self.endpoint, parts.uri);
        let mut headers: HeaderMap = parts.headers.clone();
        headers.remove("transfer-encoding");
        relayed(self.http.request(parts.method.clone(), url).headers(headers).body(body).send().await.unwrap()).await
    }
}

/// Converts the store's answer into one that the relay can send.
pub async fn relayed(answer: reqwest::Response) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    response.headers_mut().remove("transfer-encoding");
    *response.body_mut() = answer.bytes().await.unwrap().into();
    response
}

/// A request to S3 that a relay has received completely.
pub struct RelayedRequest {
    pub parts: Parts,
    pub body: Bytes,
    upstream: Upstream,
}

impl RelayedRequest {
    /// Returns the path of the request.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// Returns the query of the request; empty if it has none.
    pub fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// Forwards the request to the store.
    pub async fn forward(self) -> Answer {
        self.upstream.forward(&self.parts, self.body).await
    }
}

/// Starts a relay in front of the application's S3; returns its address. `handle` answers each request, usually by forwarding it.
pub async fn relay_s3<A>(app: &TestApp, handle: impl Fn(RelayedRequest) -> A + Clone + Send + Sync + 'static) -> String
where
    A: Future<Output = Answer> + Send + 'static,
{
    let upstream = Upstream::of(app);
    listen(move |request: Request<Incoming>| {
        let (handle, upstream) = (handle.clone(), upstream.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Ok(handle(RelayedRequest { parts, body, upstream }).await)
        }
    })
    .await
}

/// Returns an answer without a body.
pub fn empty_answer(status: u16) -> Answer {
    Response::builder().status(status).body(Full::default()).unwrap()
}
