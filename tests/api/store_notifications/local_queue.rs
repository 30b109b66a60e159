//! A queue with the part of SQS's protocol (AWS JSON 1.0) that a reader of one queue needs. Received messages are hidden until
//! they are deleted, or shown again. The tests in `real_queue` use the queue of `LocalStack` instead.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use valet::config::QueueUrl;

/// Messages of a queue: ids and bodies of those that wait and of those that were received, and the number of deleted ones.
#[derive(Default)]
struct Messages {
    waiting: VecDeque<(String, String)>,
    hidden: Vec<(String, String)>,
    deleted: usize,
    /// Number of calls of `ReceiveMessage`.
    receive_calls: usize,
}

/// The contents of a queue, which outlive the server in front of them.
#[derive(Clone, Default)]
pub struct LocalQueue {
    messages: Arc<Mutex<Messages>>,
    sent: Arc<Notify>,
}

/// A server of a queue; it ends when it is dropped.
pub struct QueueServer {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl QueueServer {
    /// Returns the URL of the queue on this server.
    pub fn url(&self) -> QueueUrl {
        queue_url(self.address)
    }
}

/// Returns the URL of the queue on a server at this address.
pub fn queue_url(address: SocketAddr) -> QueueUrl {
    QueueUrl::parse(&format!("http://{address}/000000000000/valet-events")).unwrap()
}

impl LocalQueue {
    /// Serves the queue at this address until the returned server is dropped; the messages stay.
    pub async fn serve(&self, address: SocketAddr) -> QueueServer {
        self.serve_on(TcpListener::bind(address).await.unwrap())
    }

    /// Serves the queue on this socket until the returned server is dropped; the messages stay.
    pub fn serve_on(&self, listener: TcpListener) -> QueueServer {
        let address = listener.local_addr().unwrap();
        let (queue, mut tasks) = (self.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let queue = queue.clone();
                let service = service_fn(move |request| queue.clone().answer(request));
                connections.spawn(async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        QueueServer { address, _tasks: tasks }
    }

    /// Adds a message.
    pub fn send(&self, body: impl ToString) {
        let message = (uuid::Uuid::new_v4().to_string(), body.to_string());
        self.messages.lock().unwrap().waiting.push_back(message);
        self.sent.notify_waiters();
    }

    /// Shows the received messages again that were not deleted, as SQS does after their visibility timeout.
    pub fn show_hidden(&self) {
        let mut messages = self.messages.lock().unwrap();
        let hidden = std::mem::take(&mut messages.hidden);
        messages.waiting.extend(hidden);
        self.sent.notify_waiters();
    }

    /// Returns the numbers of messages that wait, are hidden, and were deleted.
    pub fn counts(&self) -> (usize, usize, usize) {
        let messages = self.messages.lock().unwrap();
        (messages.waiting.len(), messages.hidden.len(), messages.deleted)
    }

    /// Returns the number of calls of `ReceiveMessage`.
    pub fn asked(&self) -> usize {
        self.messages.lock().unwrap().receive_calls
    }

    /// Answers a call of SQS.
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
        let target = request.headers()["x-amz-target"].to_str().unwrap().to_owned();
        let is_signed = request.headers()["authorization"].to_str().unwrap().contains("/us-east-1/sqs/aws4_request");
        let body: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert!(is_signed && body["QueueUrl"].as_str().unwrap().ends_with("/000000000000/valet-events"));
        let answer = match target.as_str() {
            "AmazonSQS.ReceiveMessage" => self.receive(&body).await,
            "AmazonSQS.DeleteMessageBatch" => self.delete(&body),
            "AmazonSQS.GetQueueAttributes" => {
                json!({ "Attributes": { "QueueArn": "arn:aws:sqs:us-east-1:000000000000:valet-events" } })
            }
            other => panic!("the local queue does not implement {other}"),
        };
        let mut response = Response::new(answer.to_string().into());
        response.headers_mut().insert("content-type", "application/x-amz-json-1.0".parse().unwrap());
        Ok(response)
    }

    /// Waits for messages as `ReceiveMessage` does, and hides those that it returns.
    async fn receive(&self, body: &Value) -> Value {
        let wait = Duration::from_secs(body["WaitTimeSeconds"].as_u64().unwrap());
        let max_messages = usize::try_from(body["MaxNumberOfMessages"].as_u64().unwrap()).unwrap();
        let ends = tokio::time::Instant::now() + wait;
        self.messages.lock().unwrap().receive_calls += 1;
        loop {
            let sent = self.sent.notified();
            {
                let mut messages = self.messages.lock().unwrap();
                let count = messages.waiting.len().min(max_messages);
                let received: Vec<_> = messages.waiting.drain(..count).collect();
                messages.hidden.extend(received.iter().cloned());
                let list = received.iter().map(|(id, body)| json!({ "MessageId": id, "ReceiptHandle": id, "Body": body }));
                if !received.is_empty() {
                    return json!({ "Messages": list.collect::<Vec<_>>() });
                }
            }
            if tokio::time::timeout_at(ends, sent).await.is_err() {
                return json!({});
            }
        }
    }

    /// Deletes the messages of `DeleteMessageBatch`.
    fn delete(&self, body: &Value) -> Value {
        let mut messages = self.messages.lock().unwrap();
        let entries = body["Entries"].as_array().unwrap();
        for entry in entries {
            let receipt = entry["ReceiptHandle"].as_str().unwrap();
            let before = messages.hidden.len();
            messages.hidden.retain(|(id, _)| id != receipt);
            messages.deleted += before - messages.hidden.len();
        }
        json!({ "Successful": entries.iter().map(|entry| json!({ "Id": entry["Id"] })).collect::<Vec<_>>(), "Failed": [] })
    }
}
