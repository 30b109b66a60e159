//! What a request may be before anybody looks at it: its body's type, size and pace.

use std::time::Duration;

use poem::{
    Body, Request,
    http::{Method, header},
};
use tokio::io::AsyncReadExt;

use super::problem::{Code, Problem};

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

/// Reads the body into memory, within the path's limit.
///
/// # Errors
/// 408, 413 or 415.
pub async fn admit(request: &mut Request) -> Result<(), Problem> {
    let path = request.uri().path().to_owned();
    let limit = body_limit(&path);
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let has_body = length.map_or_else(|| request.headers().contains_key(header::TRANSFER_ENCODING), |length| length > 0);
    // Other methods have no use for a body; one that comes is not read.
    if !has_body || !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        return Ok(());
    }
    if !request.content_type().is_some_and(is_json) {
        drain(request.take_body()).await;
        return Err(not_json(&path));
    }
    let too_large = || Problem::new(Code::PayloadTooLarge, format!("The body may have at most {limit} bytes."));
    if length.is_some_and(|length| length > limit as u64) {
        drain(request.take_body()).await;
        return Err(too_large());
    }
    let mut reader = request.take_body().into_async_read();
    let mut bytes = Vec::new();
    match tokio::time::timeout(BODY_DEADLINE, (&mut reader).take(limit as u64 + 1).read_to_end(&mut bytes)).await {
        Ok(Ok(_)) if bytes.len() > limit => {
            drain(Body::from_async_read(reader)).await;
            return Err(too_large());
        }
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Err(Problem::new(Code::InvalidRequest, "The body broke off before its end.")),
        Err(_) => return Err(Problem::new(Code::RequestTimeout, "Send the whole body within 15 seconds.")),
    }
    request.set_body(Body::from_vec(bytes));
    Ok(())
}

/// Reads on for a moment and drops what comes: a client that is still sending when the connection closes sees a reset
/// and not the answer.
async fn drain(body: Body) {
    let read = async { tokio::io::copy(&mut body.into_async_read().take(DRAIN_MOST), &mut tokio::io::sink()).await };
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
