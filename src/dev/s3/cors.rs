//! CORS for browsers: which origins, which preflights. It stands before the protocol, which would want OPTIONS signed.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, VARY,
};
use s3s::{S3Error, S3ErrorCode, s3_error};

use crate::config::CorsOrigins;

const METHODS: &str = "GET, PUT, POST, HEAD, DELETE";
/// Besides every `x-amz-*`.
const HEADERS: [&str; 6] = ["authorization", "content-type", "content-md5", "content-disposition", "if-none-match", "range"];
const EXPOSED: &str = "ETag, Location, x-amz-checksum-sha256, x-amz-checksum-crc32, x-amz-checksum-crc32c, \
     x-amz-checksum-crc64nvme, x-amz-request-id, x-amz-version-id, content-range, date";
/// Seconds that a browser may keep a preflight's answer.
const MAX_AGE: &str = "3000";

/// The headers of the answer to a preflight, or its 403.
pub(super) fn preflight(origins: &CorsOrigins, request: &HeaderMap) -> Result<HeaderMap, S3Error> {
    let text = |name: HeaderName| request.get(name).and_then(|v| v.to_str().ok());
    let (Some(origin), Some(method)) = (text(ORIGIN), text(ACCESS_CONTROL_REQUEST_METHOD)) else {
        return Err(s3_error!(InvalidRequest, "Insufficient information. Origin request header needed."));
    };
    let asked: Vec<String> = text(ACCESS_CONTROL_REQUEST_HEADERS)
        .unwrap_or_default()
        .split(',')
        .map(|h| h.trim().to_ascii_lowercase())
        .filter(|h| !h.is_empty())
        .collect();
    let header_ok = |h: &String| HEADERS.contains(&h.as_str()) || h.starts_with("x-amz-");
    if !origins.allow(origin) || !METHODS.split(", ").any(|m| m == method) || !asked.iter().all(header_ok) {
        return Err(forbidden());
    }
    let amz = asked.iter().map(String::as_str).filter(|h| h.starts_with("x-amz-"));
    let allowed = HEADERS.into_iter().chain(amz).collect::<Vec<_>>().join(", ");
    let allowed = HeaderValue::try_from(allowed).map_err(|_| forbidden())?;
    Ok(HeaderMap::from_iter([
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)),
        (ACCESS_CONTROL_ALLOW_HEADERS, allowed),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE)),
    ]))
}

/// Adds to any answer what lets the origin's page read it.
pub(super) fn decorate(origins: &CorsOrigins, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
    // Answers without an origin vary too: a cache must not hand them to a page.
    response.append(VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin.filter(|o| o.to_str().is_ok_and(|o| origins.allow(o))) else {
        return;
    };
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}

fn forbidden() -> S3Error {
    let code = S3ErrorCode::Custom("AccessForbidden".into());
    let mut error = S3Error::with_message(code, "CORSResponse: This CORS request is not allowed.");
    error.set_status_code(hyper::StatusCode::FORBIDDEN);
    error
}
