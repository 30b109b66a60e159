//! Plain HTTP, as a client without credentials speaks it: what a presigned URL really allows is seen only from there.
//!
//! No retries, no redirects, a connection for each request. Errors name the operation and never the URL.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
pub use hyper::Method;
use hyper::{
    Request, Uri,
    body::Frame,
    header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::Barrier;

use super::StoreError;

/// The longest a request may take, its answer included.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// How long half a body waits for the other request's half: the store may have refused that one already.
const TOGETHER: Duration = Duration::from_millis(500);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A client that has nothing but URLs.
#[derive(Debug, Clone)]
pub struct Wire {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// All headers.
    headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Any 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A refusal by the store: any 4xx.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// A header's value; empty when it is absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The items of a list header, in lower case, over all its lines.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        let lines = self.headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(|item| item.trim().to_ascii_lowercase()).collect()
    }
}

impl Wire {
    /// A client that trusts the system's certificates.
    ///
    /// # Errors
    /// When the system has none.
    pub fn new() -> Result<Self, StoreError> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_native_roots().map_err(|_| StoreError::Objects {
            operation: "TLS",
            reason: "the system's certificates cannot be read".to_owned(),
        })?;
        let connector = connector.https_or_http().enable_http1().build();
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).retry_canceled_requests(false).build(connector);
        Ok(Self { client })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`StoreError`] when no answer comes.
    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, StoreError> {
        self.deliver(method, url, headers, Full::new(body).boxed_unsync()).await
    }

    /// Sends one PUT twice so that the transfers overlap: neither body ends before both have begun.
    ///
    /// # Errors
    /// [`StoreError`] when either gets no answer.
    pub async fn put_twice(&self, url: &str, headers: &[(&str, &str)], body: &Bytes) -> Result<[Answer; 2], StoreError> {
        let barrier = Arc::new(Barrier::new(2));
        let length = body.len().to_string();
        let headers: Vec<_> = headers.iter().copied().chain([(CONTENT_LENGTH.as_str(), length.as_str())]).collect();
        let put = || {
            let (barrier, rest) = (Arc::clone(&barrier), body.slice(body.len() / 2..));
            let second = stream::once(async move {
                // Alone after a while: the other was refused before its body was read.
                let _ = tokio::time::timeout(TOGETHER, barrier.wait()).await;
                Ok(Frame::data(rest))
            });
            let first = stream::iter([Ok(Frame::data(body.slice(..body.len() / 2)))]);
            self.deliver(Method::PUT, url, &headers, StreamBody::new(first.chain(second)).boxed_unsync())
        };
        let (one, other) = tokio::try_join!(put(), put())?;
        Ok([one, other])
    }

    async fn deliver(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Body) -> Result<Answer, StoreError> {
        let operation = operation(&method);
        let failed = |reason: &str| StoreError::Objects { operation, reason: reason.to_owned() };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = url.parse::<Uri>().map_err(|_| failed("not a URL"))?;
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).map_err(|_| failed("not a header"))?;
            request.headers_mut().insert(name, HeaderValue::try_from(*value).map_err(|_| failed("not a header"))?);
        }
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                failed(if error.is_connect() { "the endpoint cannot be reached" } else { "the connection broke off" })
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| failed("the answer broke off"))?;
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(DEADLINE, exchange).await.unwrap_or(Err(StoreError::ObjectsTimeout { operation }))
    }
}

fn operation(method: &Method) -> &'static str {
    match *method {
        Method::PUT => "presigned PUT",
        Method::GET => "presigned GET",
        Method::HEAD => "presigned HEAD",
        Method::POST => "signed form",
        Method::OPTIONS => "CORS preflight",
        _ => "plain HTTP",
    }
}
