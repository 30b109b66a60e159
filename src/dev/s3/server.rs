//! Accepts connections, with time limits, until the shutdown.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::LocalS3;
use super::gate::Gate;

/// Longest time for a request's head, and longest idle time of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for requests in flight after the shutdown began.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

impl LocalS3 {
    /// Serves HTTP/1.1 until `shutdown`: then idle connections close, requests in flight get five seconds, and the call returns.
    /// The folder's lock is released when the last connection has closed.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _peer)) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&self.gate), shutdown.clone()));
                }
                Err(error) => {
                    // Usually, no file descriptor is free; after the pause, one may be.
                    tracing::warn!(%error, "local S3: accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_DEADLINE, drained).await.is_err() {
            tracing::warn!(open = connections.len(), "local S3: connections cut at shutdown");
            connections.shutdown().await;
        }
    }
}

/// Serves the requests of a connection until it closes, or until the request in flight at the shutdown has ended.
async fn serve_connection(stream: TcpStream, gate: Arc<Gate>, shutdown: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| Arc::clone(&gate).handle(request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A client that disconnects is normal here: its incomplete upload is discarded.
    tokio::select! {
        _done = connection.as_mut() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
