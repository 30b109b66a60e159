//! What goes wrong with one request.

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

/// What is done instead of what was asked, or to its answer.
#[derive(Clone)]
pub enum Misbehavior {
    /// S3 is not asked; this is the answer.
    Says(Answer),
    /// S3 is asked, and its answer changed.
    Changes(Arc<dyn Fn(&mut Answer) + Send + Sync>),
    /// S3 does it, and the connection ends without an answer.
    LosesAnswer,
    /// The connection ends, and S3 is not asked.
    HangsUp,
    /// S3 is asked so much later.
    Waits(Duration),
    /// The body breaks off after so many bytes, short of its length.
    BreaksOff(usize),
    /// So many bytes of the body come in a second.
    Trickles(usize),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// An error as S3 says it.
    pub fn error(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>No.</Message><RequestId>1</RequestId></Error>"
        );
        Self::page(status, "application/xml", body)
    }

    /// What a proxy before S3 says.
    pub fn html(status: u16) -> Self {
        Self::page(status, "text/html", format!("<html><head><title>{status}</title></head><body>nginx</body></html>"))
    }

    /// Any status, type and body.
    pub fn page(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { status, headers, body: body.into() }
    }

    /// With another header.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a header.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }

    /// Takes a header away.
    pub fn remove(&mut self, name: &str) {
        self.headers.remove(name);
    }

    /// As it is written. `Content-Length` is the body's, unless it was answered to HEAD: there it is what was set.
    fn respond(self, method: &Method) -> Response<Body> {
        let Self { status, mut headers, body } = self;
        let mut response = if *method == Method::HEAD {
            // Of unknown length: otherwise one would be added.
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
    /// Changes the answer of S3.
    pub fn changes(change: impl Fn(&mut Answer) + Send + Sync + 'static) -> Self {
        Self::Changes(Arc::new(change))
    }

    /// An error as S3 says it.
    pub fn error(status: u16, code: &str) -> Self {
        Self::Says(Answer::error(status, code))
    }

    pub(super) async fn commit(self, request: Request<Incoming>, shared: &Shared) -> io::Result<Response<Body>> {
        let method = request.method().clone();
        match self {
            Self::Says(answer) => {
                // A request is heard to its end: who is still sending sees a reset and not the answer.
                let _ = request.into_body().collect().await;
                Ok(answer.respond(&method))
            }
            Self::Changes(change) => {
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
            Self::Waits(time) => {
                tokio::time::sleep(time).await;
                shared.forward(request).await
            }
            Self::BreaksOff(after) => {
                let (parts, body) = shared.forward(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                let short = body.slice(..after.min(body.len()));
                let broken = (short.len() < body.len()).then(|| Err(io::ErrorKind::ConnectionAborted.into()));
                let pieces = stream::iter([Ok(Frame::data(short))].into_iter().chain(broken));
                // A moment between the two: what came before the break has been sent.
                let pieces = pieces.then(|piece| async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    piece
                });
                Ok(Response::from_parts(parts, StreamBody::new(pieces).boxed_unsync()))
            }
            Self::Trickles(rate) => {
                let (parts, body) = shared.forward(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
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
