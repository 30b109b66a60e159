//! What a request may be before anybody looks at it: its body's type, size and pace.

use std::time::Duration;

use poem::{
    Body, Request,
    error::ReadBodyError,
    http::{Method, header},
};

use super::problem::{Code, Problem};

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(15);

/// The largest body in bytes that this path takes.
fn body_limit(path: &str) -> usize {
    if path.starts_with("/api/auth/") {
        4 * 1024
    } else if path.ends_with("/parts") {
        1024 * 1024
    } else {
        16 * 1024
    }
}

/// How long a request may take once its body is here. Confirming reads from S3, on some stores the whole file; parts are
/// listed in up to ten pages.
#[must_use]
pub fn deadline(path: &str) -> Duration {
    Duration::from_secs(match path.rsplit('/').next() {
        Some("confirm") => 60,
        Some("parts") => 30,
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
    if !has_body {
        return Ok(());
    }
    if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) && !request.content_type().is_some_and(is_json) {
        return Err(not_json(&path));
    }
    let too_large = || Problem::new(Code::PayloadTooLarge, format!("The body may have at most {limit} bytes."));
    if length.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let read = request.take_body().into_bytes_limit(limit);
    let bytes = match tokio::time::timeout(BODY_DEADLINE, read).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(ReadBodyError::PayloadTooLarge)) => return Err(too_large()),
        Ok(Err(_)) => return Err(Problem::new(Code::InvalidRequest, "The body broke off before its end.")),
        Err(_) => return Err(Problem::new(Code::RequestTimeout, "Send the whole body within 15 seconds.")),
    };
    request.set_body(Body::from_bytes(bytes));
    Ok(())
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
