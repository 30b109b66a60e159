//! What a request may be before anybody looks at it: its body's type, size and pace. And how many there may be: what comes beyond
//! is refused at once, since a queue that grows serves nobody in time.

use std::{sync::Arc, time::Duration};

use poem::{
    Body, Request,
    http::{HeaderValue, Method, Version, header},
};
use tokio::{
    io::AsyncReadExt,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use uuid::Uuid;

use super::problem::{Code, Problem};
use crate::metrics::{METRICS, Metrics};

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(15);

/// How much of a refused body is read on, and for how long.
const DRAIN_MOST: u64 = 64 * 1024 * 1024;
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// The largest body in bytes that this path takes.
fn body_limit(path: &str) -> usize {
    match path {
        _ if path.starts_with("/api/auth/") => 4 * 1024,
        "/api/images/upload/batch" | "/api/images/renew" | "/api/images/confirm" | "/api/images/read" | "/api/images/delete" => {
            256 * 1024
        }
        _ if path.ends_with("/parts") || (path.starts_with("/uppy/") && path.ends_with("/complete")) => 1024 * 1024,
        _ => 16 * 1024,
    }
}

/// How long a request may take once its body is here. Confirming reads from S3, on some stores the whole file; parts are
/// listed in up to ten pages.
#[must_use]
pub fn deadline(path: &str) -> Duration {
    Duration::from_secs(match path.rsplit('/').next() {
        Some("confirm" | "complete") => 60,
        Some("parts") => 30,
        _ if path.starts_with("/uppy/") => 30,
        _ => 10,
    })
}

/// Whether a media type is JSON (RFC 8259, RFC 6839).
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Bytes that all bodies together may have in memory, beyond the first [`FREE`] of each.
const BODIES: usize = 64 * 1024 * 1024;
/// What every body may have: a single call's. Connections are bounded, and so is the sum of these.
const FREE: usize = 16 * 1024;

/// What there is room for at once.
#[derive(Debug)]
pub struct Room {
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// Room that is taken, until it is dropped.
#[derive(Debug, Default)]
pub struct Taken(Option<OwnedSemaphorePermit>);

impl Room {
    /// For so many requests under way.
    #[must_use]
    pub fn new(requests: usize) -> Self {
        Self { requests: Arc::new(Semaphore::new(requests)), bodies: Arc::new(Semaphore::new(BODIES)) }
    }

    /// Room for one request more. Who asks whether the server lives is never turned away.
    ///
    /// # Errors
    /// 503 when there is none: at once.
    pub fn enter(&self, path: &str) -> Result<Taken, Problem> {
        if matches!(path, "/livez" | "/readyz") {
            return Ok(Taken(None));
        }
        take(&self.requests, 1).map(|taken| Taken(Some(taken)))
    }

    /// Reads the body into memory, within the path's limit. The room it takes there is to be kept as long as the body is.
    ///
    /// # Errors
    /// 408, 413, 415, or 503 when other bodies take all the room.
    pub async fn admit(&self, request: &mut Request) -> Result<Taken, Problem> {
        let path = request.uri().path().to_owned();
        let limit = body_limit(&path);
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let has_body = length.map_or_else(|| request.headers().contains_key(header::TRANSFER_ENCODING), |length| length > 0);
        // Other methods have no use for a body; one that comes is not read.
        if !has_body || !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
            return Ok(Taken(None));
        }
        if !request.content_type().is_some_and(is_json) {
            drain(request).await;
            return Err(not_json(&path));
        }
        let too_large = || Problem::new(Code::PayloadTooLarge, format!("The body may have at most {limit} bytes."));
        if length.is_some_and(|length| length > limit as u64) {
            drain(request).await;
            return Err(too_large());
        }
        let mut reader = request.take_body().into_async_read();
        let (mut bytes, mut taken) = (Vec::new(), Taken(None));
        let body = async {
            let mut rest = (&mut reader).take(limit as u64 + 1);
            while rest.read_buf(&mut bytes).await.map_err(|_| broken_off())? > 0 {
                self.make_room(&mut taken, bytes.len())?;
            }
            Ok::<_, Problem>(())
        };
        match tokio::time::timeout(BODY_DEADLINE, body).await {
            Ok(Ok(())) if bytes.len() > limit => {
                request.set_body(Body::from_async_read(reader));
                drain(request).await;
                return Err(too_large());
            }
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                // At once: what is read on takes no room.
                drop((bytes, taken));
                request.set_body(Body::from_async_read(reader));
                drain(request).await;
                return Err(refusal);
            }
            Err(_) => {
                Metrics::count(&METRICS.connections_timed_out, "body", 1);
                return Err(Problem::new(Code::RequestTimeout, "Send the whole body within 15 seconds."));
            }
        }
        request.set_body(Body::from_vec(bytes));
        Ok(taken)
    }

    fn make_room(&self, taken: &mut Taken, bytes: usize) -> Result<(), Problem> {
        let has = taken.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.saturating_sub(FREE + has);
        if more == 0 {
            return Ok(());
        }
        let more = take(&self.bodies, more)?;
        match &mut taken.0 {
            Some(taken) => taken.merge(more),
            None => taken.0 = Some(more),
        }
        Ok(())
    }
}

fn take(room: &Arc<Semaphore>, how_much: usize) -> Result<OwnedSemaphorePermit, Problem> {
    let how_much = u32::try_from(how_much).unwrap_or(u32::MAX);
    room.clone().try_acquire_many_owned(how_much).map_err(|_| {
        METRICS.shed.inc();
        overloaded("Too many requests are under way.")
    })
}

/// With a wait of one to ten seconds, at random: those who were refused together do not come back together.
#[must_use]
pub fn overloaded(what: &str) -> Problem {
    let wait = 1 + u16::from(Uuid::new_v4().as_bytes()[0] % 10);
    let detail = format!("{what} Repeat the request after the wait in Retry-After.");
    Problem::new(Code::Unavailable, detail).header(header::RETRY_AFTER, HeaderValue::from(wait))
}

/// RFC 9112 section 3.2: a path, and exactly one `Host`, which proxies may have routed by.
///
/// # Errors
/// 400.
pub fn check_target(request: &Request) -> Result<(), Problem> {
    if request.uri().path().is_empty() && request.method() != Method::CONNECT {
        return Err(Problem::new(Code::InvalidRequest, "The request's target is no path."));
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match (request.version(), hosts) {
        (_, 1) | (Version::HTTP_10, 0) => Ok(()),
        _ => Err(Problem::new(Code::InvalidRequest, "Send one `Host` header.")),
    }
}

fn broken_off() -> Problem {
    Problem::new(Code::InvalidRequest, "The body broke off before its end.")
}

/// Reads on for a moment and drops what comes: a client that is still sending when the connection closes sees a reset
/// and not the answer. One that waits to be told to go on is not told to.
async fn drain(request: &mut Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let body = request.take_body().into_async_read();
    let read = async { tokio::io::copy(&mut body.take(DRAIN_MOST), &mut tokio::io::sink()).await };
    let _ = tokio::time::timeout(DRAIN_DEADLINE, read).await;
}

/// The bytes of a file do not pass through here; whoever posts a form is told how it is done.
pub(super) fn not_json(path: &str) -> Problem {
    let detail = if path.starts_with("/api/images/upload") {
        "Files are not sent here. POST application/json with the file's fileName, contentType, size and sha256; then PUT the bytes to the \
         answer's upload.url with exactly its headers; then POST to /api/images/{id}/confirm."
    } else {
        "Send application/json."
    };
    Problem::new(Code::UnsupportedMediaType, detail)
}
