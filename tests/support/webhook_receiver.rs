//! A receiver of webhooks: an HTTP server on the loopback interface that records what it receives. Shared by the test binaries.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

/// A message as it was received.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    pub timestamp: i64,
    pub signature: String,
    pub body: String,
    /// Time at which the message had arrived completely.
    #[allow(dead_code, reason = "only the fault tests compare times")]
    pub at: OffsetDateTime,
    /// HTTP status of the receiver's answer.
    pub status: u16,
}

impl Message {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns whether one of the signatures is that of the secret, computed as Standard Webhooks 1.0 specifies.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let expected = self.signature_by(secret);
        self.signature.split(' ').any(|one| one == expected)
    }

    /// Returns the signature of this message by a secret, as the specification of Standard Webhooks computes it.
    fn signature_by(&self, secret: &str) -> String {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let text = format!("{}.{}.{}", self.id, self.timestamp, self.body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(tag.as_ref()))
    }

    /// Replaces the signature by a valid one of this secret.
    #[allow(dead_code, reason = "only the fault tests change messages")]
    pub fn signed_again(mut self, secret: &str) -> Self {
        self.signature = self.signature_by(secret);
        self
    }
}

/// The answer of a receiver.
#[derive(Clone, Copy)]
pub struct Reply {
    pub status: u16,
    /// Value of the header `Location`.
    pub location: &'static str,
    /// Value of the header `Retry-After`.
    pub retry_after: &'static str,
    /// Delay before the answer.
    pub after: Duration,
    /// Whether the reply waits until [`Receiver::release`].
    pub is_held: bool,
}

/// Returns an immediate reply with this status.
pub fn status(status: u16) -> Reply {
    Reply { status, location: "", retry_after: "", after: Duration::ZERO, is_held: false }
}

/// An HTTP server on the loopback interface that records what it receives.
pub struct Receiver {
    pub url: String,
    received: Arc<Mutex<Vec<Message>>>,
    released: watch::Sender<bool>,
    task: AbortHandle,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Starts a receiver. `reply` gets all messages so far; the last one is the message to answer.
    pub async fn start(reply: impl Fn(&[Message]) -> Reply + Clone + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0", reply).await
    }

    /// Starts a receiver at this address.
    pub async fn start_at(address: &str, reply: impl Fn(&[Message]) -> Reply + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        let received = Arc::<Mutex<Vec<Message>>>::default();
        let all = received.clone();
        let released = watch::Sender::new(false);
        let waiting = released.subscribe();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (all, waiting, reply) = (all.clone(), waiting.clone(), reply.clone());
                let service = service_fn(move |request| answer(request, all.clone(), waiting.clone(), reply.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        };
        Self { url, received, released, task: tokio::spawn(accept).abort_handle() }
    }

    /// Sends the replies that are held, and holds no further ones.
    #[allow(dead_code, reason = "only the tests of leases hold replies")]
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Returns all messages received so far.
    pub fn messages(&self) -> Vec<Message> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until at least `count` messages have been received, for at most a minute, and returns all messages.
    pub async fn wait_for(&self, count: usize) -> Vec<Message> {
        for _ in 0..1200 {
            if self.messages().len() >= count {
                return self.messages();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {count} messages within a minute: {:?}", self.messages());
    }
}

/// Records a message in `all` and answers it.
async fn answer(
    request: Request<Incoming>,
    all: Arc<Mutex<Vec<Message>>>,
    mut released: watch::Receiver<bool>,
    reply: impl Fn(&[Message]) -> Reply,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (id, signature, timestamp) = (header("webhook-id"), header("webhook-signature"), header("webhook-timestamp"));
    let body = request.into_body().collect().await?.to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let reply = {
        let mut all = all.lock().unwrap();
        let at = OffsetDateTime::now_utc();
        all.push(Message { id, timestamp: timestamp.parse().unwrap_or(0), signature, body, at, status: 0 });
        let reply = reply(&all);
        all.last_mut().unwrap().status = reply.status;
        reply
    };
    tokio::time::sleep(reply.after).await;
    if reply.is_held {
        // It fails only after the receiver was dropped.
        let _ = released.wait_for(|is_released| *is_released).await;
    }
    let response =
        Response::builder().status(reply.status).header("location", reply.location).header("retry-after", reply.retry_after);
    Ok(response.body(Full::from("an answer")).unwrap())
}
