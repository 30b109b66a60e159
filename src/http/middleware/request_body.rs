//! Reads request bodies into memory, within the limits of the operation and of all bodies together.

use std::time::Duration;

use poem::{
    Body, Request,
    http::{Method, header},
};
use tokio::io::AsyncReadExt;

use super::permits::{Permit, Permits};
use crate::{
    http::{
        body::is_json,
        operation::RequestBody,
        problem::{Code, Problem},
    },
    metrics::{METRICS, Metrics},
    model::NetworkPrefix,
};

/// Time within which a whole body must arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(15);
/// Time to wait for the first bytes of a body of a method whose requests have no body.
const UNWANTED_BODY_DEADLINE: Duration = Duration::from_secs(1);
/// Bytes that are read to find out whether a body is empty, which white space, `{}` and `null` are.
const MAX_EMPTY_BODY_BYTES: u64 = 64;
/// Maximum bytes of a rejected body that are read on.
const MAX_DRAINED_BYTES: u64 = 64 * 1024 * 1024;
/// Time for which a rejected body is read on.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// Reads the body into memory. Keep the permit as long as the body; `body` is `None` for a request that no operation matches.
///
/// # Errors
/// 400 for a body where the operation takes none, 408, 413, 415, or 503 when other bodies hold all memory or the network holds as
/// much as one network may.
pub async fn read_body(
    request: &mut Request,
    body: Option<RequestBody>,
    permits: &Permits,
    network: NetworkPrefix,
) -> Result<Permit, Problem> {
    let takes_no_body = body == Some(RequestBody::None);
    let limit = match body {
        Some(RequestBody::Json(bytes)) => bytes,
        Some(RequestBody::None) | None => RequestBody::DEFAULT_MAX_BYTES,
    };
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let has_body = length.map_or_else(|| request.headers().contains_key(header::TRANSFER_ENCODING), |length| length > 0);
    // A method that the path does not have gets 405 from the router, whatever the body.
    if !has_body || (!takes_no_body && !has_bodies(request.method())) {
        return Ok(Permit::default());
    }
    if !has_bodies(request.method()) {
        reject_unwanted_body(request).await?;
        return Ok(Permit::default());
    }
    // An operation without a body accepts an empty one of any type; a body without a length must be read to see whether it is
    // empty.
    if !takes_no_body && !request.content_type().is_some_and(is_json) {
        drain(request).await;
        return Err(not_json(request.uri().path()));
    }
    if length.is_some_and(|length| length > limit as u64) {
        drain(request).await;
        return Err(too_large(limit));
    }
    let (bytes, permit) = read_limited(request, limit, permits, network).await?;
    if takes_no_body && !bytes.is_empty() {
        if !request.content_type().is_some_and(is_json) {
            return Err(not_json(request.uri().path()));
        }
        if !is_empty(&bytes) {
            return Err(no_body_allowed());
        }
    }
    request.set_body(Body::from_vec(bytes));
    Ok(permit)
}

/// Reads at most `limit` bytes. The rest of a body that is rejected is drained.
async fn read_limited(
    request: &mut Request,
    limit: usize,
    permits: &Permits,
    network: NetworkPrefix,
) -> Result<(Vec<u8>, Permit), Problem> {
    let mut reader = request.take_body().into_async_read();
    let (mut bytes, mut permit) = (Vec::new(), Permit::default());
    let read = async {
        let mut rest = (&mut reader).take(limit as u64 + 1);
        while rest.read_buf(&mut bytes).await.map_err(|_| truncated())? > 0 {
            permits.extend(&mut permit, bytes.len(), network)?;
        }
        Ok(())
    };
    let problem = match tokio::time::timeout(BODY_DEADLINE, read).await {
        Ok(Ok(())) if bytes.len() <= limit => return Ok((bytes, permit)),
        Ok(Ok(())) => too_large(limit),
        Ok(Err(problem)) => problem,
        Err(_) => {
            Metrics::count(&METRICS.connections_timed_out, "body", 1);
            return Err(Problem::new(Code::RequestTimeout, "Send the whole request body within 15 seconds."));
        }
    };
    // Frees the memory before draining, which needs none.
    drop((bytes, permit));
    request.set_body(Body::from_async_read(reader));
    drain(request).await;
    Err(problem)
}

/// Rejects a body, unless it is empty, of a method whose requests have none. A body counts as empty if no byte arrives within
/// [`UNWANTED_BODY_DEADLINE`].
async fn reject_unwanted_body(request: &mut Request) -> Result<(), Problem> {
    let mut start = request.take_body().into_async_read().take(MAX_EMPTY_BODY_BYTES);
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(UNWANTED_BODY_DEADLINE, start.read_to_end(&mut bytes)).await;
    if is_empty(&bytes) {
        return Ok(());
    }
    request.set_body(Body::from_async_read(start.into_inner()));
    drain(request).await;
    Err(no_body_allowed())
}

/// Reads the rest of a body for a moment and drops it: a client that is still sending when the connection closes sees a reset
/// instead of the response. Returns at once for a client that waits for `100 Continue`, which reading would send.
async fn drain(request: &mut Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let body = request.take_body().into_async_read();
    let read = async { tokio::io::copy(&mut body.take(MAX_DRAINED_BYTES), &mut tokio::io::sink()).await };
    let _ = tokio::time::timeout(DRAIN_DEADLINE, read).await;
}

/// Returns whether a body is empty, `{}` or `null`, which generated clients send to operations without a body.
fn is_empty(body: &[u8]) -> bool {
    matches!(body.trim_ascii(), b"" | b"{}" | b"null")
}

/// Returns whether requests of this method have bodies.
fn has_bodies(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Returns the 400 for a body where the operation takes none.
fn no_body_allowed() -> Problem {
    Problem::new(Code::InvalidRequest, "This operation takes no request body. Leave it out.")
}

/// Returns the 400 for a body that ended early.
fn truncated() -> Problem {
    Problem::new(Code::InvalidRequest, "The request body ended before its announced length.")
}

/// Returns the 413 for a body of more than `limit` bytes.
fn too_large(limit: usize) -> Problem {
    Problem::new(Code::PayloadTooLarge, format!("The request body may have at most {limit} bytes."))
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
