//! Problem responses for connections beyond the limit and for requests that could not be parsed; written directly, outside the
//! middleware.

use bytes::Bytes;
use futures_util::FutureExt;
use poem::http::{HeaderValue, header};
use time::{OffsetDateTime, format_description::StaticFormatDescription, macros::format_description};
use uuid::Uuid;

use crate::{
    config::CorsOrigins,
    http::{
        middleware::{cors::allow_rejection, request_id::set_request_id, security_headers::set_security_headers},
        problem::{Code, Problem},
    },
};

/// Format of the header `Date` (RFC 9110 section 5.6.7).
const DATE: StaticFormatDescription =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Returns the 503 for a connection beyond `MAX_CONNECTIONS`.
pub(super) fn too_many_connections(head: &[u8], origins: &CorsOrigins) -> Bytes {
    serialize(Problem::too_many("Too many connections are open."), head, origins)
}

/// Returns whether hyper rejected a head because of its length.
pub(super) fn is_head_too_long(rejection: &[u8]) -> bool {
    // The three digits after `HTTP/1.1 `.
    matches!(rejection.get(9..12), Some(b"431" | b"414"))
}

/// Returns the problem that replaces hyper's own rejection, which has no body, of a malformed or too long head. `head` is the
/// received part of the head, for its `Origin`.
pub(super) fn replacement(rejection: &[u8], head: &[u8], origins: &CorsOrigins) -> Bytes {
    let problem = if is_head_too_long(rejection) {
        let detail = "The request line and the headers may have 32 KiB together, in at most 100 fields.";
        Problem::new(Code::HeadersTooLarge, detail)
    } else {
        Problem::new(Code::InvalidRequest, "This is not an HTTP/1.1 request.")
    };
    serialize(problem, head, origins)
}

/// Returns the bytes of the response, which closes the connection.
fn serialize(problem: Problem, head: &[u8], origins: &CorsOrigins) -> Bytes {
    let id = Uuid::new_v4().to_string();
    let mut response = problem.respond(&id);
    let body = response.take_body().into_bytes().now_or_never().and_then(Result::ok).unwrap_or_default();
    let status = response.status();
    let headers = response.headers_mut();
    set_request_id(headers, &id);
    set_security_headers(headers);
    allow_rejection(origins, head, headers);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    if let Some(date) = OffsetDateTime::now_utc().format(DATE).ok().and_then(|date| HeaderValue::try_from(date).ok()) {
        headers.insert(header::DATE, date);
    }
    let mut text = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in headers.iter() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&body);
    text.into()
}
