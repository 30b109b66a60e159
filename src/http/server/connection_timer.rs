//! Deadlines of a connection by its phase: the client sends a head, reads a response, or is idle.
//!
//! While a request is handled, its body and its handler have deadlines of their own.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{origin_scanner::OriginScanner, rejection};
use crate::config::CorsOrigins;

/// Maximum bytes of a request's head. The longest head of this API's clients has an access token and a cursor, some 2 KiB.
pub(super) const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Time that a request's head may take, from its first byte; on a new connection, from the start. A slow mobile network needs a
/// few seconds.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Time after which an idle connection is closed: longer than the 60 s of most proxies, so that they close first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Time for which a client may read nothing of a pending response.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Minimum speed at which a client must read a pending response: less than the slowest mobile networks (EDGE) have.
const MIN_READ_BYTES_PER_SECOND: u64 = 2048;

/// Maximum bytes that are read on of a head that is too long, to find its origin: pages of other origins can read the rejection
/// only if it has CORS headers.
const MAX_EXCESS_HEAD_BYTES: usize = 1 << 20;
/// Time for which a head that is too long is read on.
const EXCESS_HEAD_DEADLINE: Duration = Duration::from_millis(500);

/// The deadline of a connection.
pub(super) struct ConnectionTimer {
    /// Never contended: a connection has one task.
    state: Mutex<State>,
    /// Whether hyper rejected a malformed request.
    rejected: AtomicBool,
}

struct State {
    phase: Phase,
    /// Time by which the client must read the bytes that wait to be written, if there are any.
    write_deadline: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// The client sends a head, since this time.
    Head(Instant),
    /// The client sends the body, or waits for the response.
    Handling,
    /// hyper has the whole response, and writes it.
    Responding,
    /// No request is open, since this time.
    Idle(Instant),
}

impl ConnectionTimer {
    /// Starts the timer of a new connection.
    pub(super) fn new() -> Self {
        let state = State { phase: Phase::Head(Instant::now()), write_deadline: None };
        Self { state: Mutex::new(state), rejected: AtomicBool::new(false) }
    }

    /// Opens a request. The request ends when hyper has the last byte of its response.
    pub(super) fn open_request(self: &Arc<Self>) -> OpenRequest {
        self.state.lock().phase = Phase::Handling;
        OpenRequest(self.clone())
    }

    /// Returns the deadline and its cause, one of [`crate::metrics::TIMEOUT_PHASES`].
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let state = self.state.lock();
        match (state.write_deadline, state.phase) {
            (Some(at), _) => Some((at, "answer")),
            (None, Phase::Head(since)) => Some((since + HEAD_DEADLINE, "header")),
            (None, Phase::Idle(since)) => Some((since + IDLE_TIMEOUT, "idle")),
            (None, Phase::Handling | Phase::Responding) => None,
        }
    }

    /// Returns whether no request is open and no response pending. An incomplete head does not count as a request.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Head(_) | Phase::Idle(_))
    }

    /// Returns whether the connection waits for a request.
    fn is_idle(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Idle(_))
    }

    /// Returns whether hyper rejected a malformed request.
    pub(super) fn is_rejected(&self) -> bool {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Records that bytes were read: the first ones begin a request.
    fn on_read(&self) {
        let mut state = self.state.lock();
        if let Phase::Idle(_) = state.phase {
            state.phase = Phase::Head(Instant::now());
        }
    }

    /// Records that bytes were written, which extends the deadline of the response.
    fn on_write(&self, bytes: usize) {
        let mut state = self.state.lock();
        if let Some(at) = state.write_deadline {
            let earned = Duration::from_millis(bytes as u64 * 1000 / MIN_READ_BYTES_PER_SECOND);
            state.write_deadline = Some((at + earned).min(Instant::now() + STALL_TIMEOUT));
        }
    }

    /// Records that the client reads nothing, which starts a deadline.
    fn on_blocked(&self) {
        self.state.lock().write_deadline.get_or_insert_with(|| Instant::now() + STALL_TIMEOUT);
    }

    /// Records that all bytes are written.
    fn on_flush(&self) {
        let mut state = self.state.lock();
        state.write_deadline = None;
        if let Phase::Responding = state.phase {
            state.phase = Phase::Idle(Instant::now());
        }
    }
}

/// An open request, until this is dropped.
pub(super) struct OpenRequest(Arc<ConnectionTimer>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.state.lock().phase = Phase::Responding;
    }
}

/// A response body. hyper drops it when it has the last byte, which ends the request.
pub(super) struct TimedBody {
    body: BoxBody<Bytes, io::Error>,
    _request: OpenRequest,
}

impl TimedBody {
    pub(super) fn new(body: BoxBody<Bytes, io::Error>, request: OpenRequest) -> Self {
        Self { body, _request: request }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that reports reads and writes to its [`ConnectionTimer`], and holds back hyper's own rejections.
pub(super) struct TimedIo {
    stream: TcpStream,
    timer: Arc<ConnectionTimer>,
    /// Received part of the head, whose `Origin` a rejection needs.
    head: Vec<u8>,
    /// Scanner for the origin of a head of more than [`MAX_HEAD_BYTES`].
    overlong: Option<OriginScanner>,
    origins: Arc<CorsOrigins>,
    /// hyper's own rejection of a malformed request, which a problem replaces.
    rejection: Vec<u8>,
}

impl TimedIo {
    pub(super) fn new(stream: TcpStream, timer: Arc<ConnectionTimer>, origins: Arc<CorsOrigins>) -> Self {
        Self { stream, timer, head: Vec::new(), overlong: None, origins, rejection: Vec::new() }
    }

    /// Writes the problem for a malformed request, and shuts down writing.
    ///
    /// # Errors
    /// Errors of the connection.
    pub(super) async fn reject(mut self) -> io::Result<TcpStream> {
        let is_too_long = rejection::is_head_too_long(&self.rejection);
        if is_too_long {
            self.read_excess_head().await;
        }
        let head = self.overlong.as_ref().filter(|_| is_too_long).map_or(&self.head[..], OriginScanner::origins);
        self.stream.write_all(&rejection::replacement(&self.rejection, head, &self.origins)).await?;
        self.stream.shutdown().await?;
        Ok(self.stream)
    }

    /// Reads on to the end of a head that is too long, within bounds: browsers send the origin after the headers that the page has
    /// set.
    async fn read_excess_head(&mut self) {
        let scanner = self.overlong.get_or_insert_with(|| OriginScanner::start(&self.head));
        let rest = async {
            let (mut buffer, mut bytes_left) = ([0; 4096], MAX_EXCESS_HEAD_BYTES);
            while !scanner.is_complete() && bytes_left > 0 {
                let Ok(count @ 1..) = self.stream.read(&mut buffer).await else { return };
                scanner.push(&buffer[..count]);
                bytes_left = bytes_left.saturating_sub(count);
            }
        };
        let _ = timeout(EXCESS_HEAD_DEADLINE, rest).await;
    }

    /// Records the result of a write.
    fn record_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.timer.on_write(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.timer.on_blocked(),
        }
        written
    }

    /// Holds back hyper's own rejection of a request that it could not parse. hyper writes it while no request is open, without a
    /// body, and then nothing more. [`TimedIo::reject`] sends a problem instead.
    fn hold_back(&mut self, rejection: &[u8]) -> Poll<io::Result<usize>> {
        self.timer.rejected.store(true, Ordering::Relaxed);
        self.rejection.extend_from_slice(rejection);
        Poll::Ready(Ok(rejection.len()))
    }
}

impl AsyncRead for TimedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let this = &mut *self;
        let received = buffer.filled().get(before..).unwrap_or_default();
        if this.timer.is_idle() {
            this.head.clear();
            this.overlong = None;
        }
        if !received.is_empty() {
            this.timer.on_read();
        }
        if this.timer.is_between_requests() {
            // hyper rejects a head of more than MAX_HEAD_BYTES; the bytes beyond are only scanned for `Origin`.
            let free_bytes = MAX_HEAD_BYTES.saturating_sub(this.head.len());
            let (kept, beyond) = received.split_at(received.len().min(free_bytes));
            this.head.extend_from_slice(kept);
            if !beyond.is_empty() {
                this.overlong.get_or_insert_with(|| OriginScanner::start(&this.head)).push(beyond);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TimedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.timer.is_between_requests() {
            return self.hold_back(bytes);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.record_write(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.timer.is_between_requests() {
            let first = bytes.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.hold_back(first);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.record_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // hyper flushes when it has written everything.
        self.timer.on_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing of a rejection is written yet.
        if self.timer.is_rejected() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }
}
