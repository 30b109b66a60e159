//! Cross-origin calls (Fetch standard): exact origins, no credentials, and never a refusal that is not the browser's own.
//!
//! A foreign page's request is answered without CORS headers, which the browser then keeps from the page; the API's own
//! page sends its origin too and needs none.

use std::sync::LazyLock;

use poem::{
    Endpoint, IntoResponse, Middleware, Request, Response, Result,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};

use super::outermost;
use crate::{
    config::CorsOrigins,
    model::cors::{API_MAX_AGE, API_REQUEST_HEADERS, API_RESPONSE_HEADERS},
};

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";

/// Answers preflights and marks answers.
pub struct Cors(pub CorsOrigins);

impl<E: Endpoint> Middleware<E> for Cors {
    type Output = CorsEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        CorsEndpoint { inner, origins: self.0.clone() }
    }
}

/// The endpoint behind [`Cors`].
pub struct CorsEndpoint<E> {
    inner: E,
    origins: CorsOrigins,
}

impl<E: Endpoint> Endpoint for CorsEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|origin| self.origins.allow(origin)));
        let preflight =
            request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let mut response =
            if preflight { StatusCode::NO_CONTENT.into_response() } else { self.inner.get_response(request).await };
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if preflight {
            outermost::protect(headers);
        }
        if let Some(origin) = allowed {
            mark(headers, origin, preflight);
        }
        Ok(response)
    }
}

/// Marks the answer to what never became a request, for the origin that its head names, if it was read so far.
pub(super) fn mark_refusal(origins: &CorsOrigins, head: &[u8], headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let allowed = origin_of(head).filter(|origin| origins.allow(origin)).and_then(|origin| HeaderValue::from_str(origin).ok());
    if let Some(origin) = allowed {
        mark(headers, origin, false);
    }
}

/// The only `Origin` line of a head that may be cut off.
fn origin_of(head: &[u8]) -> Option<&str> {
    let lines = head.split_inclusive(|byte| *byte == b'\n').skip(1).take_while(|line| !line.trim_ascii().is_empty());
    let mut named = lines.filter_map(|line| {
        let (name, value) = line.split_at_checked(b"origin:".len())?;
        (name.eq_ignore_ascii_case(b"origin:") && line.ends_with(b"\n")).then(|| std::str::from_utf8(value.trim_ascii()).ok())?
    });
    let first = named.next();
    first.filter(|_| named.next().is_none())
}

fn mark(headers: &mut HeaderMap, origin: HeaderValue, preflight: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS.clone());
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(API_MAX_AGE));
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS.clone());
    }
}

static REQUEST_HEADERS: LazyLock<HeaderValue> = LazyLock::new(|| list(&API_REQUEST_HEADERS));
static RESPONSE_HEADERS: LazyLock<HeaderValue> = LazyLock::new(|| list(&API_RESPONSE_HEADERS));

#[expect(clippy::expect_used, reason = "header names are made of characters that header values may have")]
fn list(names: &[&str]) -> HeaderValue {
    HeaderValue::from_str(&names.join(", ")).expect("a list of header names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_cannot_be_read_names_its_origin_all_the_same() {
        for (head, origin) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nx: ", Some("https://app.example")),
            ("GET / HTTP/1.1\r\nORIGIN:https://app.example \r\n\r\n", Some("https://app.example")),
            ("GET / HTTP/1.1\r\norigin: https://app.exam", None),
            ("GET / HTTP/1.1\r\norigin: a\r\norigin: b\r\n", None),
            ("GET / HTTP/1.1\r\nx: a\r\n\r\norigin: https://app.example\r\n", None),
            ("origin: https://app.example\r\n", None),
            ("", None),
        ] {
            assert_eq!(origin_of(head.as_bytes()), origin, "{head:?}");
        }
    }
}
