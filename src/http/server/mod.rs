//! The HTTP server: accepts connections, limits their number, enforces their deadlines, and drains them when the server stops.
//!
//! HTTP/1.1 only: browsers use HTTP/2 with the proxy that terminates TLS. HTTP/2 attacks (rapid reset, HPACK bombs) do not apply.

mod connection_timer;
mod origin_scanner;
mod rejection;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use poem::{
    Addr, Endpoint, Request, Response,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::connection_timer::{ConnectionTimer, MAX_HEAD_BYTES, TimedBody, TimedIo};
use crate::{
    config::CorsOrigins,
    metrics::{METRICS, Metrics},
};

/// Time that open requests have after the signal to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(25);
/// Maximum bytes that are buffered for a connection, in each direction.
const BUFFER_BYTES: usize = 64 * 1024;
/// Pause after this machine failed to accept a connection, such as for too many open files.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Number of connections that may wait to be accepted, for bursts such as after a restart. The system has its own limit.
const BACKLOG: u32 = 4096;
/// Maximum number of rejected connections that are answered at the same time; more are closed without a response.
const MAX_REJECTIONS: usize = 64;
/// Deadline for writing a rejection, and again for reading on after it.
const LINGER_DEADLINE: Duration = Duration::from_secs(1);
/// Maximum bytes that are read on after a rejection.
const MAX_LINGER_BYTES: u64 = 1 << 20;
/// Maximum bytes of a rejected connection's head that are read.
const REJECTED_HEAD_BYTES: usize = 4096;
/// Time to wait for the head of a rejected connection.
const REJECTED_HEAD_DEADLINE: Duration = Duration::from_millis(250);
/// Number of open files that are reserved for other uses than clients' connections: files, and connections to MongoDB and S3.
const OTHER_FILES: usize = 512;

/// Listens on an address.
///
/// # Errors
/// When the address is in use, or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Otherwise a restarted server waits for the connections of the previous one.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Raises the limit of open files if possible. Returns `wanted`, or the number of connections that the limit allows.
#[must_use]
pub fn clamp_to_fd_limit(wanted: usize) -> usize {
    let files = raise_fd_limit(wanted.saturating_add(OTHER_FILES));
    // With a low limit, at most a quarter is reserved for other files.
    let allowed = wanted.min(files - OTHER_FILES.min(files / 4));
    if allowed < wanted {
        tracing::warn!(wanted, allowed, files, "MAX_CONNECTIONS exceeds RLIMIT_NOFILE; lowering it");
    }
    allowed
}

/// Raises the limit of open files to its maximum if it is below `wanted`. Returns the limit.
#[cfg(unix)]
fn raise_fd_limit(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let count = |limit: Option<u64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let limit = getrlimit(Resource::Nofile);
    if count(limit.current) < wanted {
        // The low default is for programs that use select(2).
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    count(getrlimit(Resource::Nofile).current)
}

/// Returns the largest number: on this system, the limit of open files is not known.
#[cfg(not(unix))]
fn raise_fd_limit(_: usize) -> usize {
    usize::MAX
}

/// Options of [`serve`].
#[derive(Debug)]
pub struct ConnectionOptions {
    /// Largest number of open connections.
    pub max_connections: usize,
    /// Origins whose pages may read the rejections of malformed requests.
    pub origins: CorsOrigins,
}

/// Accepts connections until `stop`. Then those without an open request close at once; the others have 25 s.
pub async fn serve<E>(listener: TcpListener, endpoint: E, options: ConnectionOptions, stop: CancellationToken)
where
    E: Endpoint<Output = Response> + 'static,
{
    let ConnectionOptions { max_connections, origins } = options;
    let (endpoint, origins) = (Arc::new(endpoint), Arc::new(origins));
    let mut http = http1::Builder::new();
    // `ConnectionTimer` has the deadlines: hyper's do not distinguish a silent client, a slow one and an idle connection.
    http.header_read_timeout(None).max_header_size(MAX_HEAD_BYTES).max_buf_size(BUFFER_BYTES);
    let mut connections = JoinSet::new();
    let mut rejections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        reap(&mut connections);
        reap(&mut rejections);
        match accepted {
            Ok((stream, peer)) if connections.len() < max_connections => {
                let connection =
                    Connection { stream, peer, endpoint: endpoint.clone(), origins: origins.clone(), stop: stop.clone() };
                connections.spawn(connection.serve(http.clone()));
            }
            Ok((stream, _)) => {
                METRICS.connections_refused.inc();
                if rejections.len() < MAX_REJECTIONS {
                    rejections.spawn(reject(stream, origins.clone()));
                }
            }
            // The client has disconnected already.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, open = connections.len(), "failed to accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // From here on, the system rejects new connections.
    drop(listener);
    drain(connections).await;
}

/// Waits for the open requests; at the deadline their connections are closed.
async fn drain(mut connections: JoinSet<()>) {
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_DEADLINE, drained).await.is_err() {
        tracing::warn!(open = connections.len(), "closing connections whose requests did not end in time");
        connections.shutdown().await;
    }
}

/// Removes the tasks that have ended.
fn reap(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.try_join_next() {
        if let Err(error) = ended {
            tracing::error!(%error, "connection task panicked");
        }
    }
}

/// Counts an open connection until it is dropped.
struct OpenConnection;

impl OpenConnection {
    fn new() -> Self {
        METRICS.connections.inc();
        Self
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        METRICS.connections.dec();
    }
}

/// An accepted connection.
struct Connection<E> {
    stream: TcpStream,
    peer: SocketAddr,
    endpoint: Arc<E>,
    origins: Arc<CorsOrigins>,
    stop: CancellationToken,
}

impl<E> Connection<E>
where
    E: Endpoint<Output = Response> + 'static,
{
    /// Serves the requests of the connection until it closes, or its deadline has passed.
    async fn serve(self, http: http1::Builder) {
        let Self { stream, peer, endpoint, origins, stop } = self;
        let _counted = OpenConnection::new();
        let Ok(local) = stream.local_addr() else { return };
        // Responses are written whole: Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let timer = Arc::new(ConnectionTimer::new());
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let open_request = timer.open_request();
            let (local, remote) = (LocalAddr(Addr::SocketAddr(local)), RemoteAddr(Addr::SocketAddr(peer)));
            let (request, endpoint) = (Request::from((request, local, remote, Scheme::HTTP)), endpoint.clone());
            async move {
                // Boxed, so that its memory is free while an event stream is open.
                let response = hyper::Response::from(Box::pin(endpoint.get_response(request)).await);
                Ok::<_, Infallible>(response.map(|body| TimedBody::new(body, open_request)))
            }
        });
        let mut exchange = http.serve_connection(TokioIo::new(TimedIo::new(stream, timer.clone(), origins)), service);
        let mut stopping = pin!(stop.cancelled());
        let mut is_stopping = false;
        let mut alarm = pin!(sleep_until(timer.deadline().map_or_else(Instant::now, |(at, _)| at)));
        poll_fn(|cx| {
            // First, so that a request that has arrived is seen before the connection counts as idle. An error needs no handling:
            // the client has its response, or has disconnected.
            if Pin::new(&mut exchange).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                Pin::new(&mut exchange).graceful_shutdown();
                if Pin::new(&mut exchange).poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            if is_stopping && timer.is_between_requests() {
                return Poll::Ready(());
            }
            // An alarm that rings early costs less than one that is reset for every request.
            let Some((deadline, kind)) = timer.deadline() else { return Poll::Pending };
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            while alarm.as_mut().poll(cx).is_ready() {
                if deadline <= Instant::now() {
                    Metrics::count(&METRICS.connections_timed_out, kind, 1);
                    tracing::debug!(%peer, kind, "closing a connection past its deadline");
                    return Poll::Ready(());
                }
                alarm.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await;
        if timer.is_rejected() {
            let reject = exchange.into_parts().io.into_inner().reject();
            if let Ok(Ok(stream)) = timeout(LINGER_DEADLINE, reject).await {
                linger(stream).await;
            }
        }
    }
}

/// Rejects a connection beyond the largest number, with a 503.
async fn reject(mut stream: TcpStream, origins: Arc<CorsOrigins>) {
    let respond = async {
        // Reads the `Origin` for the CORS headers, without which the page would see a network error.
        let mut head = vec![0; REJECTED_HEAD_BYTES];
        let read = timeout(REJECTED_HEAD_DEADLINE, stream.read(&mut head)).await;
        head.truncate(read.unwrap_or(Ok(0))?);
        stream.write_all(&rejection::too_many_connections(&head, &origins)).await?;
        stream.shutdown().await
    };
    if timeout(LINGER_DEADLINE, respond).await.is_ok_and(|written| written.is_ok()) {
        linger(stream).await;
    }
}

/// Reads the rest of a request for a moment: a client that is still sending when the connection closes sees a reset instead of the
/// response.
async fn linger(stream: TcpStream) {
    let rest = async { tokio::io::copy(&mut stream.take(MAX_LINGER_BYTES), &mut tokio::io::sink()).await };
    let _ = timeout(LINGER_DEADLINE, rest).await;
}
