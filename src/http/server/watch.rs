//! Deadlines of a connection, by its phase: the client sends a head, reads an answer, or is idle.
//!
//! While a request is worked on, its body and its handler have deadlines of their own.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{MOST_HEAD, refusal, scan::Scan};
use crate::config::CorsOrigins;

/// How long a request's head may take, from its first byte; on a new connection, from the start.
const HEAD: Duration = Duration::from_secs(10);
/// A connection on which nothing happens is closed after this: longer than the 60 s of most proxies, so that they close first.
const IDLE: Duration = Duration::from_secs(75);
/// How long a client may take nothing of an answer that waits for it,
const STALL: Duration = Duration::from_secs(20);
/// and how many bytes a second it must take at least.
const SLOWEST: u64 = 2048;

/// How far, and how long, a head that is too long is read on for its origin.
const MOST_READ_ON: usize = 1 << 20;
const READ_ON: Duration = Duration::from_millis(500);

/// The time that a connection has.
pub(super) struct Watch {
    state: Mutex<State>,
    refused: AtomicBool,
}

struct State {
    doing: Doing,
    /// When what waits to be written must be taken, if something does.
    taken_by: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Doing {
    /// Sending a head, since then.
    Head(Instant),
    /// Waiting for an answer, or sending the body.
    Waiting,
    /// The answer has been handed over to be written.
    Taking,
    /// Nothing, since then.
    Idle(Instant),
}

impl Watch {
    /// Of a connection that has just begun.
    pub(super) fn new() -> Self {
        let state = State { doing: Doing::Head(Instant::now()), taken_by: None };
        Self { state: Mutex::new(state), refused: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Never contended: one task does everything on a connection.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come; it is under way until the answer's last byte is handed over.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.state().doing = Doing::Waiting;
        UnderWay(self.clone())
    }

    /// When the connection's time is over, and what for: one of [`crate::metrics::TIMEOUT_PHASES`].
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let state = self.state();
        match (state.taken_by, state.doing) {
            (Some(at), _) => Some((at, "answer")),
            (None, Doing::Head(since)) => Some((since + HEAD, "header")),
            (None, Doing::Idle(since)) => Some((since + IDLE, "idle")),
            (None, Doing::Waiting | Doing::Taking) => None,
        }
    }

    /// Whether no request is under way and no answer on its way; half a head is no request.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.state().doing, Doing::Head(_) | Doing::Idle(_))
    }

    fn is_idle(&self) -> bool {
        matches!(self.state().doing, Doing::Idle(_))
    }

    /// Whether the client sent something else than a request, and the refusal was written.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn read(&self) {
        let mut state = self.state();
        if let Doing::Idle(_) = state.doing {
            state.doing = Doing::Head(Instant::now());
        }
    }

    fn written(&self, bytes: usize) {
        let mut state = self.state();
        if let Some(at) = state.taken_by {
            let earned = Duration::from_millis(bytes as u64 * 1000 / SLOWEST);
            state.taken_by = Some((at + earned).min(Instant::now() + STALL));
        }
    }

    fn blocked(&self) {
        self.state().taken_by.get_or_insert_with(|| Instant::now() + STALL);
    }

    /// All that was to be written has been.
    fn flushed(&self) {
        let mut state = self.state();
        state.taken_by = None;
        if let Doing::Taking = state.doing {
            state.doing = Doing::Idle(Instant::now());
        }
    }
}

/// A request that is under way, until this is dropped.
pub(super) struct UnderWay(Arc<Watch>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().doing = Doing::Taking;
    }
}

/// An answer's body, which is dropped when its last byte has been handed over.
pub(super) struct Answer {
    body: BoxBody<Bytes, io::Error>,
    _under_way: UnderWay,
}

impl Answer {
    pub(super) fn new(body: BoxBody<Bytes, io::Error>, under_way: UnderWay) -> Self {
        Self { body, _under_way: under_way }
    }
}

impl Body for Answer {
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

/// A stream that tells its [`Watch`] what happens on it.
pub(super) struct Watched {
    stream: TcpStream,
    watch: Arc<Watch>,
    /// Bytes of an incomplete head, for its refusal.
    head: Vec<u8>,
    /// The same, of a head that is longer than a request's may be.
    overlong: Option<Scan>,
    origins: Arc<CorsOrigins>,
    /// hyper's own words for what it could not read, in whose place a problem is written.
    refusal: Vec<u8>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, watch: Arc<Watch>, origins: Arc<CorsOrigins>) -> Self {
        Self { stream, watch, head: Vec::new(), overlong: None, origins, refusal: Vec::new() }
    }

    /// Writes the refusal of what was no request, and ends the writing.
    ///
    /// # Errors
    /// The connection's.
    pub(super) async fn refuse(mut self) -> io::Result<TcpStream> {
        let is_too_long = refusal::is_of_length(&self.refusal);
        if is_too_long {
            self.read_on().await;
        }
        let head = self.overlong.as_ref().filter(|_| is_too_long).map_or(&self.head[..], Scan::head);
        self.stream.write_all(&refusal::in_place_of(&self.refusal, head, &self.origins)).await?;
        self.stream.shutdown().await?;
        Ok(self.stream)
    }

    /// Reads on to the end of a head that is too long, within bounds: browsers write the origin after what the page has set.
    async fn read_on(&mut self) {
        let scan = self.overlong.get_or_insert_with(|| Scan::of(&self.head));
        let rest = async {
            let (mut buffer, mut most) = ([0; 4096], MOST_READ_ON);
            while !scan.is_over() && most > 0 {
                let Ok(count @ 1..) = self.stream.read(&mut buffer).await else { return };
                scan.push(&buffer[..count]);
                most = most.saturating_sub(count);
            }
        };
        let _ = timeout(READ_ON, rest).await;
    }

    fn watched(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.watch.written(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch.blocked(),
        }
        written
    }

    /// Holds back hyper's own refusal of a request that it could not parse: a response without a body, written while no request
    /// is open, and its last write. [`Watched::refuse`] replaces it.
    fn note_refusal(&mut self, refusal: &[u8]) -> Poll<io::Result<usize>> {
        self.watch.refused.store(true, Ordering::Relaxed);
        self.refusal.extend_from_slice(refusal);
        Poll::Ready(Ok(refusal.len()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let this = &mut *self;
        let came = buffer.filled().get(before..).unwrap_or_default();
        if this.watch.is_idle() {
            this.head.clear();
            this.overlong = None;
        }
        if !came.is_empty() {
            this.watch.read();
        }
        if this.watch.is_between_requests() {
            // hyper keeps as much of it.
            let room = MOST_HEAD.saturating_sub(this.head.len());
            let (kept, beyond) = came.split_at(came.len().min(room));
            this.head.extend_from_slice(kept);
            if !beyond.is_empty() {
                this.overlong.get_or_insert_with(|| Scan::of(&this.head)).push(beyond);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.watch.is_between_requests() {
            return self.note_refusal(bytes);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.watch.is_between_requests() {
            let first = bytes.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.note_refusal(first);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watched(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // hyper flushes when it has nothing left to write.
        self.watch.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of a refusal nothing is written yet.
        if self.watch.is_refused() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }
}
