//! A plain HTTP client without credentials, for probing what a presigned URL permits.
//!
//! No retries, no redirects, a new connection for each request. Errors name the operation and never the URL.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
pub use hyper::Method;
use hyper::{
    Request, Uri,
    body::Frame,
    header::{CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue},
};
use tokio::sync::{Barrier, Notify};
use tokio_util::task::TaskTracker;

use super::{StoreError, no_response_cause::NoResponseCause};
use crate::http_client::{Connections, Connector, HttpClient};

/// Deadline of a request, its response included.
const DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of a request with a large body.
const LARGE_BODY_DEADLINE: Duration = Duration::from_secs(60);
/// Time for which a request without its body waits for a rejection. A store that rejects the announced length does so at once.
const REJECTION_TIMEOUT: Duration = Duration::from_millis(1500);
/// Maximum length of a response in bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;
/// Time for which a request waits, after the first half of its body, until the other request has sent its first half. The store may
/// have rejected the other request already.
const BARRIER_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum length of an error code of S3 in bytes; a longer text is not shown.
const MAX_CODE_BYTES: usize = 64;

/// Body of a request.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An HTTP client without credentials.
#[derive(Debug, Clone)]
pub struct ProbeClient {
    client: HttpClient<Body>,
    /// Requests without a response yet.
    in_flight: TaskTracker,
}

/// A response.
#[derive(Debug, Clone)]
pub struct ProbeResponse {
    /// The HTTP status.
    pub status: u16,
    /// All headers.
    headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl ProbeResponse {
    /// Returns whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns whether the store rejected the request: a 4xx.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// Returns the status, with S3's error code if the response has one.
    #[must_use]
    pub fn describe(&self) -> String {
        let text = if self.is_success() { "" } else { std::str::from_utf8(&self.body).unwrap_or_default() };
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code.trim());
        let is_code =
            |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric()) && (1..=MAX_CODE_BYTES).contains(&text.len());
        match code.filter(is_code) {
            Some(code) => format!("HTTP {} {code}", self.status),
            None => format!("HTTP {}", self.status),
        }
    }

    /// Returns a header's value; empty when it is absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the items of a list header, in lower case, over all its lines.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        let lines = self.headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(|item| item.trim().to_ascii_lowercase()).collect()
    }
}

impl ProbeClient {
    /// Creates a client that uses a new connection for each request and repeats none.
    pub(super) fn new(connector: Connector) -> Self {
        let client = HttpClient::new(connector, Connections::Single, MAX_RESPONSE_BYTES);
        Self { client, in_flight: TaskTracker::new() }
    }

    /// Waits for the responses to all requests, at most for their deadlines. A caller that stops waiting for a response does not
    /// stop its request, so an object may appear until this returns.
    pub async fn wait_for_responses(&self) {
        self.in_flight.close();
        self.in_flight.wait().await;
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`StoreError`] without a response.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<ProbeResponse, StoreError> {
        let request = request(method, url, headers, Full::new(body).boxed_unsync())?;
        self.deliver(request, DEADLINE).await
    }

    /// Sends a PUT with a large body.
    ///
    /// # Errors
    /// [`StoreError`] without a response.
    pub async fn put_large(&self, url: &str, headers: &[(&str, &str)], body: Bytes) -> Result<ProbeResponse, StoreError> {
        self.deliver(request(Method::PUT, url, headers, Full::new(body).boxed_unsync())?, LARGE_BODY_DEADLINE).await
    }

    /// Announces a PUT of `length` bytes and sends none of them. Returns `None` if the store waits for the body (100, or no
    /// response); else its response, a rejection. Nothing is stored, because the connection ends before the body.
    ///
    /// # Errors
    /// [`StoreError`] when there is no connection.
    pub async fn announce_put(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        length: u64,
    ) -> Result<Option<ProbeResponse>, StoreError> {
        let length = length.to_string();
        let announced = [(CONTENT_LENGTH.as_str(), length.as_str()), (EXPECT.as_str(), "100-continue")];
        let headers: Vec<_> = headers.iter().copied().chain(announced).collect();
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync();
        let mut request = request(Method::PUT, url, &headers, body)?;
        let continued = Arc::new(Notify::new());
        hyper::ext::on_informational(&mut request, {
            let continued = Arc::clone(&continued);
            move |informational| {
                if informational.status() == hyper::StatusCode::CONTINUE {
                    continued.notify_one();
                }
            }
        });
        tokio::select! {
            answer = exchange(&self.client, request, DEADLINE) => answer.map(Some),
            () = continued.notified() => Ok(None),
            () = tokio::time::sleep(REJECTION_TIMEOUT) => Ok(None),
        }
    }

    /// Sends one PUT twice so that the transfers overlap: neither body ends before both have begun.
    ///
    /// # Errors
    /// [`StoreError`] when either has no response.
    pub async fn put_twice(&self, url: &str, headers: &[(&str, &str)], body: &Bytes) -> Result<[ProbeResponse; 2], StoreError> {
        let barrier = Arc::new(Barrier::new(2));
        let length = body.len().to_string();
        let headers: Vec<_> = headers.iter().copied().chain([(CONTENT_LENGTH.as_str(), length.as_str())]).collect();
        let put = || {
            let (barrier, rest) = (Arc::clone(&barrier), body.slice(body.len() / 2..));
            let second = stream::once(async move {
                // After the timeout, the second half is sent without the other request.
                let _ = tokio::time::timeout(BARRIER_TIMEOUT, barrier.wait()).await;
                Ok(Frame::data(rest))
            });
            let first = stream::iter([Ok(Frame::data(body.slice(..body.len() / 2)))]);
            request(Method::PUT, url, &headers, StreamBody::new(first.chain(second)).boxed_unsync())
        };
        let (first, second) = (put()?, put()?);
        let (first, second) = tokio::try_join!(self.deliver(first, DEADLINE), self.deliver(second, DEADLINE))?;
        Ok([first, second])
    }

    /// Sends a request in a task of its own, so that a caller that stops waiting does not stop the request.
    async fn deliver(&self, request: Request<Body>, deadline: Duration) -> Result<ProbeResponse, StoreError> {
        let operation = operation(request.method());
        let client = self.client.clone();
        let task = self.in_flight.spawn(async move { exchange(&client, request, deadline).await });
        task.await.unwrap_or_else(|failure| Err(StoreError::Objects { operation, reason: failure.to_string() }))
    }
}

/// Sends a request and reads the response.
async fn exchange(client: &HttpClient<Body>, request: Request<Body>, deadline: Duration) -> Result<ProbeResponse, StoreError> {
    let operation = operation(request.method());
    let failed = |reason: &str| StoreError::Objects { operation, reason: reason.to_owned() };
    let address = origin(request.uri());
    let exchange = async {
        let response = client
            .send(request)
            .await
            .map_err(|error| failed(&format!("{address}: the endpoint cannot be reached: {}", NoResponseCause::find(&error))))?;
        let (parts, body) = response.into_parts();
        let body = body.map_err(|_| failed("the response was cut off"))?;
        Ok(ProbeResponse { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(StoreError::ObjectsTimeout { operation }))
}

/// Builds a request; the error names the operation and not the URL.
fn request(method: Method, url: &str, headers: &[(&str, &str)], body: Body) -> Result<Request<Body>, StoreError> {
    let operation = operation(&method);
    let failed = |reason: &str| StoreError::Objects { operation, reason: reason.to_owned() };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url.parse::<Uri>().map_err(|_| failed("not a URL"))?;
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).map_err(|_| failed("not a header"))?;
        request.headers_mut().insert(name, HeaderValue::try_from(*value).map_err(|_| failed("not a header"))?);
    }
    Ok(request)
}

/// Returns scheme and host, which contain no secret.
fn origin(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |authority| authority.as_str()))
}

/// Returns the name of the operation in errors.
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
