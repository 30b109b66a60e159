//! Faults for one request to S3.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::{Frame, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::{Body, Shared};

/// Fault of one request or of its answer.
#[derive(Clone)]
pub enum Misbehavior {
    /// Sends this answer without forwarding the request to S3.
    AnswersWith(Answer),
    /// Forwards to S3 and changes its answer.
    ChangesAnswer(Arc<dyn Fn(&mut Answer) + Send + Sync>),
    /// Forwards to S3 and closes the connection without an answer.
    LosesAnswer,
    /// Closes the connection without forwarding the request to S3.
    HangsUp,
    /// Forwards to S3 after this time.
    Delays(Duration),
    /// Forwards to S3 and ends the connection after so many bytes of the answer's body.
    CutsBody(usize),
    /// Forwards to S3 and limits the answer's body to so many bytes per second.
    SlowsBody(usize),
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Returns an error in S3's format.
    pub fn error(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>No.</Message><RequestId>1</RequestId></Error>"
        );
        Self::page(status, "application/xml", body)
    }

    /// Returns an HTML error page, as proxies in front of S3 send it.
    pub fn html(status: u16) -> Self {
        Self::page(status, "text/html", format!("<html><head><title>{status}</title></head><body>nginx</body></html>"))
    }

    /// Returns an answer with this status, type and body.
    pub fn page(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { status, headers, body: body.into() }
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a header.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }

    /// Removes a header.
    pub fn remove(&mut self, name: &str) {
        self.headers.remove(name);
    }

    /// Builds the response. `Content-Length` is the body's length, except in an answer to HEAD, which has the header of
    /// `self`.
    fn respond(self, method: &Method) -> Response<Body> {
        let Self { status, mut headers, body } = self;
        let mut response = if *method == Method::HEAD {
            // A body of unknown length; hyper would add a Content-Length otherwise.
            Response::new(StreamBody::new(stream::empty()).boxed_unsync())
        } else {
            headers.remove(CONTENT_LENGTH);
            Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync())
        };
        *response.status_mut() = status.try_into().unwrap();
        *response.headers_mut() = headers;
        response
    }
}

impl Misbehavior {
    /// Forwards to S3 and applies `change` to its answer.
    pub fn changes(change: impl Fn(&mut Answer) + Send + Sync + 'static) -> Self {
        Self::ChangesAnswer(Arc::new(change))
    }

    /// Sends an error in S3's format, without forwarding the request to S3.
    pub fn error(status: u16, code: &str) -> Self {
        Self::AnswersWith(Answer::error(status, code))
    }

    /// Answers a request with this misbehavior.
    pub(super) async fn apply(self, request: Request<Incoming>, shared: &Shared) -> io::Result<Response<Body>> {
        let method = request.method().clone();
        match self {
            Self::AnswersWith(answer) => {
                // Reads the request to its end: a client that is still sending would see a reset instead of the answer.
                let _ = request.into_body().collect().await;
                Ok(answer.respond(&method))
            }
            Self::ChangesAnswer(change) => {
                let (parts, body) = shared.forward(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                let mut answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
                change(&mut answer);
                Ok(answer.respond(&method))
            }
            Self::LosesAnswer => {
                shared.forward(request).await?.into_body().collect().await?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Self::HangsUp => Err(io::ErrorKind::ConnectionAborted.into()),
            Self::Delays(time) => {
                tokio::time::sleep(time).await;
                shared.forward(request).await
            }
            Self::CutsBody(after) => {
                let (parts, body) = shared.forward(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                let short = body.slice(..after.min(body.len()));
                let broken = (short.len() < body.len()).then(|| Err(io::ErrorKind::ConnectionAborted.into()));
                let pieces = stream::iter([Ok(Frame::data(short))].into_iter().chain(broken));
                // A pause before each piece, so that the bytes before the break have been sent.
                let pieces = pieces.then(|piece| async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    piece
                });
                Ok(Response::from_parts(parts, StreamBody::new(pieces).boxed_unsync()))
            }
            Self::SlowsBody(rate) => {
                let (parts, body) = shared.forward(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                // Ten pieces a second.
                let pieces: Vec<_> = body.chunks(rate.div_ceil(10)).map(|piece| body.slice_ref(piece)).collect();
                let pieces = stream::iter(pieces).then(|piece| async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Ok(Frame::data(piece))
                });
                Ok(Response::from_parts(parts, StreamBody::new(pieces).boxed_unsync()))
            }
        }
    }
}
