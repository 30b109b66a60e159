//! Cross-origin requests (Fetch standard): exact origins, no credentials.
//!
//! A request of another origin gets a response without CORS headers, which the browser does not show to the page. The request is
//! not rejected: the gallery page sends its origin too and needs no CORS headers.

use std::sync::{Arc, LazyLock};

use poem::{
    Endpoint, EndpointExt, IntoResponse, Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};

use super::security_headers::set_security_headers;
use crate::{
    config::CorsOrigins,
    model::cors::{API_MAX_AGE, API_REQUEST_HEADERS, API_RESPONSE_HEADERS},
};

/// Methods that pages of allowed origins may use.
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";

/// Answers preflight requests, and adds the CORS headers to every response to an allowed origin.
pub fn with_cors<E>(endpoint: E, origins: CorsOrigins) -> impl Endpoint<Output = Response> + 'static
where
    E: Endpoint<Output = Response> + 'static,
{
    let origins = Arc::new(origins);
    endpoint.around(move |next, request| {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let is_for_pages = !is_admin(request.uri().path());
        let allowed = origin.filter(|origin| is_for_pages && origin.to_str().is_ok_and(|origin| origins.allows(origin)));
        async move {
            if is_preflight(&request) {
                return Ok(answer_preflight(allowed));
            }
            let mut response = next.get_response(request).await;
            allow_response(response.headers_mut(), allowed);
            Ok(response)
        }
    })
}

/// Returns whether a path is for the app's backend, whose service keys no page may have.
fn is_admin(path: &str) -> bool {
    path == "/api/admin" || path.starts_with("/api/admin/")
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers a preflight request; `allowed` is its origin if that is allowed.
fn answer_preflight(allowed: Option<HeaderValue>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    set_security_headers(headers);
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS.clone());
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(API_MAX_AGE));
    }
    response
}

/// Adds the CORS headers of a response; `allowed` is the request's origin if that is allowed.
fn allow_response(headers: &mut HeaderMap, allowed: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS.clone());
    }
}

/// Adds the CORS headers to the response to a malformed request, for the origin that the received part of its head names.
pub(in crate::http) fn allow_rejection(origins: &CorsOrigins, head: &[u8], headers: &mut HeaderMap) {
    let allowed = find_origin(head).filter(|origin| origins.allows(origin)).and_then(|origin| HeaderValue::from_str(origin).ok());
    allow_response(headers, allowed);
}

/// Returns the value of the only `Origin` line of a head that may be incomplete.
fn find_origin(head: &[u8]) -> Option<&str> {
    let lines = head.split_inclusive(|byte| *byte == b'\n').skip(1).take_while(|line| !line.trim_ascii().is_empty());
    let mut origins = lines.filter_map(|line| {
        let (name, value) = line.split_at_checked(b"origin:".len())?;
        (name.eq_ignore_ascii_case(b"origin:") && line.ends_with(b"\n")).then(|| std::str::from_utf8(value.trim_ascii()).ok())?
    });
    let first = origins.next();
    first.filter(|_| origins.next().is_none())
}

/// Request headers that pages may send.
static REQUEST_HEADERS: LazyLock<HeaderValue> = LazyLock::new(|| join(&API_REQUEST_HEADERS));
/// Response headers that pages may read.
static RESPONSE_HEADERS: LazyLock<HeaderValue> = LazyLock::new(|| join(&API_RESPONSE_HEADERS));

/// Joins header names for the value of a header.
#[expect(clippy::expect_used, reason = "header names consist of characters that header values may have")]
fn join(names: &[&str]) -> HeaderValue {
    HeaderValue::from_str(&names.join(", ")).expect("header names joined by commas")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_an_incomplete_head_is_found() {
        for (head, origin) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nx: ", Some("https://app.example")),
            ("GET / HTTP/1.1\r\nORIGIN:https://app.example \r\n\r\n", Some("https://app.example")),
            ("GET / HTTP/1.1\r\norigin: https://app.exam", None),
            ("GET / HTTP/1.1\r\norigin: a\r\norigin: b\r\n", None),
            ("GET / HTTP/1.1\r\nx: a\r\n\r\norigin: https://app.example\r\n", None),
            ("origin: https://app.example\r\n", None),
            ("", None),
        ] {
            assert_eq!(find_origin(head.as_bytes()), origin, "{head:?}");
        }
    }
}
