//! Cross-origin calls (Fetch standard): exact origins, no credentials, and never a refusal that is not the browser's own.
//!
//! A foreign page's request is answered without CORS headers, which the browser then keeps from the page; the API's own
//! page sends its origin too and needs none.

use poem::{
    Endpoint, IntoResponse, Middleware, Request, Response, Result,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};

use super::outermost;
use crate::config::CorsOrigins;

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
const HEADERS: &str = "authorization, content-type, idempotency-key, if-none-match";
const EXPOSED: &str = "retry-after, ratelimit, ratelimit-policy, www-authenticate, etag, x-request-id, date";
/// Two hours: the most that browsers keep a preflight's answer.
const MAX_AGE: &str = "7200";

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

fn mark(headers: &mut HeaderMap, origin: HeaderValue, preflight: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}
