//! Limits on requests before they reach a handler: type, size and pace of the body, and the number of requests under way, in all
//! and of one network or user. Requests beyond them are refused at once, since a growing queue would delay all.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use poem::{
    Body, Request,
    http::{HeaderValue, Method, Version, header},
};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use super::{
    problem::{Code, Problem},
    shape,
};
use crate::{
    domain::shares::{Share, Shares},
    metrics::{METRICS, Metrics},
    model::{NetworkPrefix, UserId},
    store::request_origin,
};

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(15);
/// How long the first bytes of a body may take with a method whose requests have none.
const UNWANTED_DEADLINE: Duration = Duration::from_secs(1);

/// More than this is no empty body, whatever it is.
const MOST_NOTHING: u64 = 64;

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

/// Whether a media type is JSON (RFC 8259, RFC 6839) in UTF-8, the one encoding that RFC 8259 section 8.1 allows. Neither
/// defines a `charset`; where one is given all the same, it must be this one.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_utf8 = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset") || ["utf-8", "utf8"].iter().any(|known| value.eq_ignore_ascii_case(known))
    };
    if !parts.all(is_utf8) {
        return false;
    }
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Bytes that all bodies together may have in memory, beyond the first [`FREE`] of each.
const BODIES: usize = 64 * 1024 * 1024;
/// Bytes that every body may have without a permit: those of a single call. The number of connections bounds their sum.
const FREE: usize = 16 * 1024;

/// Places for requests and bytes for their bodies, each shared between networks, and places between users.
#[derive(Debug)]
pub struct Room {
    requests: Arc<Shares<NetworkPrefix>>,
    users: Arc<Shares<UserId>>,
    bodies: Arc<Shares<NetworkPrefix>>,
}

/// Room that is taken, until it is dropped.
#[derive(Debug, Default)]
pub struct Taken(Option<Share<NetworkPrefix>>);

/// The place of a request among those of its user, once that is known.
struct Seat {
    users: Arc<Shares<UserId>>,
    taken: Mutex<Option<Share<UserId>>>,
}

tokio::task_local! {
    /// Of the request that the task answers.
    static SEAT: Seat;
}

/// Takes a place for the request that this task answers, among those of the user it proved to come from.
///
/// # Errors
/// 503 for a user who has a share of all places: at once.
pub fn seat(user: UserId) -> Result<(), Problem> {
    // Outside a request nothing is bounded.
    let taken = SEAT.try_with(|seat| {
        let share = seat.users.take(user, 1).ok_or_else(shed)?;
        *seat.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(share);
        Ok(())
    });
    taken.unwrap_or(Ok(()))
}

impl Room {
    /// For so many requests under way.
    #[must_use]
    pub fn new(requests: usize) -> Self {
        // One user has less than a network may have: others in the same office have places, too.
        Self { requests: Shares::new(requests), users: Shares::divided(requests, 2), bodies: Shares::new(BODIES) }
    }

    /// Room for one request more from a network. Probes of whether the server lives are never turned away.
    ///
    /// # Errors
    /// 503 when there is none, or when the network has its share: at once.
    pub fn enter(&self, path: &str, site: NetworkPrefix) -> Result<Taken, Problem> {
        if matches!(path, "/livez" | "/readyz") {
            return Ok(Taken(None));
        }
        self.requests.take(site, 1).map(|taken| Taken(Some(taken))).ok_or_else(shed)
    }

    /// Answers a request of this network in this task; [`seat`] takes its user's place until it is answered.
    pub async fn seated<T>(&self, site: NetworkPrefix, answer: impl Future<Output = T>) -> T {
        let seat = Seat { users: self.users.clone(), taken: Mutex::new(None) };
        request_origin::scope(site, SEAT.scope(seat, answer)).await
    }

    /// Reads the body into memory, within the path's limit; `takes_none` where the document has no body. The room it takes there
    /// is to be kept as long as the body is.
    ///
    /// # Errors
    /// 400 for a body where none is taken, 408, 413, 415, or 503 when other bodies take all the room or the network has its
    /// share.
    pub async fn admit(&self, request: &mut Request, site: NetworkPrefix, takes_none: bool) -> Result<Taken, Problem> {
        let path = request.uri().path().to_owned();
        let limit = body_limit(&path);
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let has_body = length.map_or_else(|| request.headers().contains_key(header::TRANSFER_ENCODING), |length| length > 0);
        // A method that the path does not have is refused as such (405), whatever its body.
        if !has_body || (!takes_none && !shape::has_bodies(request.method())) {
            return Ok(Taken(None));
        }
        if !shape::has_bodies(request.method()) {
            let body = request.take_body().into_async_read();
            let mut begins = Vec::new();
            let mut some = body.take(MOST_NOTHING);
            // A body that is announced and does not come is not waited for.
            let _ = tokio::time::timeout(UNWANTED_DEADLINE, some.read_to_end(&mut begins)).await;
            if !shape::is_nothing(&begins) {
                request.set_body(Body::from_async_read(some.into_inner()));
                drain(request).await;
                return Err(shape::no_body());
            }
            return Ok(Taken(None));
        }
        if !request.content_type().is_some_and(is_json) {
            drain(request).await;
            return Err(not_json(&path));
        }
        let too_large = || Problem::new(Code::PayloadTooLarge, format!("The request body may have at most {limit} bytes."));
        if length.is_some_and(|length| length > limit as u64) {
            drain(request).await;
            return Err(too_large());
        }
        let mut reader = request.take_body().into_async_read();
        let (mut bytes, mut taken) = (Vec::new(), Taken(None));
        let body = async {
            let mut rest = (&mut reader).take(limit as u64 + 1);
            while rest.read_buf(&mut bytes).await.map_err(|_| broken_off())? > 0 {
                self.make_room(&mut taken, bytes.len(), site)?;
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
                return Err(Problem::new(Code::RequestTimeout, "Send the whole request body within 15 seconds."));
            }
        }
        if takes_none && !shape::is_nothing(&bytes) {
            return Err(shape::no_body());
        }
        request.set_body(Body::from_vec(bytes));
        Ok(taken)
    }

    fn make_room(&self, taken: &mut Taken, bytes: usize, site: NetworkPrefix) -> Result<(), Problem> {
        let has = taken.0.as_ref().map_or(0, Share::count);
        let more = bytes.saturating_sub(FREE + has);
        let fits = match &mut taken.0 {
            _ if more == 0 => true,
            Some(taken) => taken.grow(more),
            none => {
                *none = self.bodies.take(site, more);
                none.is_some()
            }
        };
        if fits { Ok(()) } else { Err(shed()) }
    }
}

/// Returns the 503 for a request beyond the number that the server handles at once.
fn shed() -> Problem {
    METRICS.requests_shed.inc();
    overloaded("Too many requests are under way.")
}

/// Returns a 503 with a random Retry-After of 1 to 10 seconds, so that clients refused together do not return together.
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
        return Err(Problem::new(Code::InvalidRequest, "The request target is not a path."));
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match (request.version(), hosts) {
        (_, 1) | (Version::HTTP_10, 0) => Ok(()),
        _ => Err(Problem::new(Code::InvalidRequest, "Send one `Host` header.")),
    }
}

fn broken_off() -> Problem {
    Problem::new(Code::InvalidRequest, "The request body ended before its announced length.")
}

/// Reads on for a moment and drops what comes: a client that is still sending when the connection closes sees a reset
/// and not the answer. Does not send `100 Continue` to a client that expects it.
async fn drain(request: &mut Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let body = request.take_body().into_async_read();
    let read = async { tokio::io::copy(&mut body.take(DRAIN_MOST), &mut tokio::io::sink()).await };
    let _ = tokio::time::timeout(DRAIN_DEADLINE, read).await;
}

/// Returns the 415 for a body that is not JSON; on upload paths it describes how files are uploaded.
pub(super) fn not_json(path: &str) -> Problem {
    let detail = if path.starts_with("/api/images/upload") {
        "Files are not sent here. POST application/json with the file's fileName, contentType, size and sha256; then PUT the bytes to the \
         answer's upload.url with exactly its headers; then POST to /api/images/{id}/confirm."
    } else {
        "Send application/json, in UTF-8."
    };
    Problem::new(Code::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_in_utf_8() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/problem+json; profile=x; charset=utf8",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/json",
            "application/json; charset=utf-16",
            "application/json;Charset = \"iso-8859-1\"",
            "application/json; charset",
            "application/json; charset=utf-8; charset=utf-16",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
