//! The HTTP server: accepting, how many connections there may be, how long each may take for what, and stopping.
//!
//! HTTP/1.1 only: browsers speak HTTP/2 to the proxy that ends TLS, and what rapid resets and header compression do to a server is
//! not done to this one. What a request is and what becomes of it is not decided here.

mod refusal;
mod scan;
mod watch;

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

use self::watch::{Answer, Watch, Watched};
use crate::{
    config::CorsOrigins,
    metrics::{METRICS, Metrics},
};

/// How long requests that are under way may go on after the signal to stop.
const DRAIN: Duration = Duration::from_secs(25);
/// The most bytes of a request's head. The longest that means something here has an access token and a cursor, some 2 KiB.
const MOST_HEAD: usize = 32 * 1024;
/// Bytes buffered of a connection, in each direction.
const BUFFER: usize = 64 * 1024;
/// After a failure to accept that lies with this machine, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted: those of a burst, such as after a restart. The system bounds it too.
const BACKLOG: u32 = 4096;
/// Connections that are being refused at once; above that they are closed without a word.
const MOST_REFUSED: usize = 64;
/// How long, and over how many bytes, a connection that was refused is read on.
const LINGER: Duration = Duration::from_secs(1);
const MOST_LINGERED: u64 = 1 << 20;
/// How much of its head is read before it is refused, and for how long.
const FIRST_OF_HEAD: usize = 4096;
const FIRST: Duration = Duration::from_millis(250);
/// Files and connections to MongoDB and S3 that are not clients' connections.
const OTHER_FILES: usize = 512;

/// Listens on an address.
///
/// # Errors
/// When it is taken, or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else a restarted server would wait for the connections of the one before.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// As many connections as are wanted, or as the process may have open: a limit that can be raised is.
#[must_use]
pub fn affordable(wanted: usize) -> usize {
    let files = open_files(wanted.saturating_add(OTHER_FILES));
    let most = wanted.min(files - OTHER_FILES.min(files / 4));
    if most < wanted {
        tracing::warn!(wanted, most, files, "MAX_CONNECTIONS is more than the process may have open files (RLIMIT_NOFILE) for");
    }
    most
}

#[cfg(unix)]
fn open_files(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let count = |limit: Option<u64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let limit = getrlimit(Resource::Nofile);
    if count(limit.current) < wanted {
        // Programs that use select(2) need the low limit that is set by default; this is none.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    count(getrlimit(Resource::Nofile).current)
}

#[cfg(not(unix))]
fn open_files(_: usize) -> usize {
    usize::MAX
}

/// Serves at most so many connections until `stop`. Then those without a request under way close at once, the others have
/// 25 s.
///
/// Refusals of what never became a request carry the CORS headers of `origins`.
pub async fn serve<E>(listener: TcpListener, endpoint: E, (most, origins): (usize, CorsOrigins), stop: CancellationToken)
where
    E: Endpoint<Output = Response> + 'static,
{
    let (endpoint, origins) = (Arc::new(endpoint), Arc::new(origins));
    let mut http = http1::Builder::new();
    // `watch` keeps the time: it tells a silent client from a slow one, and an idle connection from both.
    http.header_read_timeout(None).max_header_size(MOST_HEAD).max_buf_size(BUFFER);
    let (mut connections, mut refused) = (JoinSet::new(), JoinSet::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        reap(&mut connections);
        reap(&mut refused);
        match accepted {
            Ok((stream, peer)) if connections.len() < most => {
                connections.spawn(connection((stream, peer), http.clone(), endpoint.clone(), origins.clone(), stop.clone()));
            }
            Ok((stream, _)) => {
                METRICS.connections_refused.inc();
                if refused.len() < MOST_REFUSED {
                    refused.spawn(refuse(stream, origins.clone()));
                }
            }
            // The client's own: it was gone before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, open = connections.len(), "no connection could be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // Whoever connects now is to be told so by the system.
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(open = connections.len(), "requests are cut off that did not end in time");
        connections.shutdown().await;
    }
}

/// Forgets those that have ended.
fn reap(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.try_join_next() {
        if let Err(error) = ended {
            tracing::error!(%error, "a connection panicked");
        }
    }
}

/// A connection that is counted.
struct Counted;

impl Counted {
    fn new() -> Self {
        METRICS.connections.inc();
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        METRICS.connections.dec();
    }
}

async fn connection<E>(
    (stream, peer): (TcpStream, SocketAddr),
    http: http1::Builder,
    endpoint: Arc<E>,
    origins: Arc<CorsOrigins>,
    stop: CancellationToken,
) where
    E: Endpoint<Output = Response> + 'static,
{
    let _counted = Counted::new();
    let Ok(local) = stream.local_addr() else { return };
    // Answers are written whole: waiting for more to send gains nothing.
    let _ = stream.set_nodelay(true);
    let watch = Arc::new(Watch::new());
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let under_way = watch.request();
        let local = LocalAddr(Addr::SocketAddr(local));
        let remote = RemoteAddr(Addr::SocketAddr(peer));
        let request = Request::from((request, local, remote, Scheme::HTTP));
        let endpoint = endpoint.clone();
        async move {
            let answer = hyper::Response::from(endpoint.get_response(request).await);
            Ok::<_, Infallible>(answer.map(|body| Answer::new(body, under_way)))
        }
    });
    let mut exchange = http.serve_connection(TokioIo::new(Watched::new(stream, watch.clone(), origins)), service);
    let mut stopping = pin!(stop.cancelled());
    let mut stopped = false;
    let mut alarm = pin!(sleep_until(watch.deadline().map_or_else(Instant::now, |(at, _)| at)));
    poll_fn(|cx| {
        // First, so that a request that has arrived is seen before the connection counts as idle. An error is the client's: it has
        // been told, or is gone.
        if Pin::new(&mut exchange).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !stopped && stopping.as_mut().poll(cx).is_ready() {
            stopped = true;
            Pin::new(&mut exchange).graceful_shutdown();
            if Pin::new(&mut exchange).poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        if stopped && watch.is_between_requests() {
            return Poll::Ready(());
        }
        // An alarm that rings early costs less than one that is set anew for every request.
        let Some((deadline, kind)) = watch.deadline() else { return Poll::Pending };
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                Metrics::count(&METRICS.connections_timed_out, kind, 1);
                tracing::debug!(%peer, kind, "a connection is closed that took too long");
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await;
    if watch.is_refused() {
        let refuse = exchange.into_parts().io.into_inner().refuse();
        if let Ok(Ok(stream)) = timeout(LINGER, refuse).await {
            linger(stream).await;
        }
    }
}

/// One too many.
async fn refuse(mut stream: TcpStream, origins: Arc<CorsOrigins>) {
    let said = async {
        // For its origin: what a page may not read is a broken network to it.
        let mut head = vec![0; FIRST_OF_HEAD];
        let read = timeout(FIRST, stream.read(&mut head)).await;
        head.truncate(read.unwrap_or(Ok(0))?);
        stream.write_all(&refusal::too_many_connections(&head, &origins)).await?;
        stream.shutdown().await
    };
    if timeout(LINGER, said).await.is_ok_and(|said| said.is_ok()) {
        linger(stream).await;
    }
}

/// Reads on for a moment: a client that is still sending when the connection closes sees a reset and not the answer.
async fn linger(stream: TcpStream) {
    let rest = async { tokio::io::copy(&mut stream.take(MOST_LINGERED), &mut tokio::io::sink()).await };
    let _ = timeout(LINGER, rest).await;
}
