//! Security headers of every response.

use std::sync::Arc;

use poem::{
    Endpoint, EndpointExt, Response,
    http::{HeaderMap, HeaderValue, header},
};

use crate::{config::TrustedProxies, http::client};

/// Value of `Strict-Transport-Security` (RFC 6797), valid for a year. Browsers ignore it without TLS.
const HSTS: &str = "max-age=31536000; includeSubDomains";

/// Adds the security headers to every response, and `Vary: authorization` to those of the API.
pub fn with_security_headers<E>(endpoint: E, proxies: Arc<TrustedProxies>) -> impl Endpoint<Output = Response> + 'static
where
    E: Endpoint<Output = Response> + 'static,
{
    endpoint.around(move |next, request| {
        let is_tls = client::is_tls(&request, &proxies);
        let is_api = request.uri().path().starts_with("/api/");
        async move {
            let mut response = next.get_response(request).await;
            let headers = response.headers_mut();
            set_security_headers(headers);
            if is_tls {
                set_tls_headers(headers);
            }
            if is_api {
                headers.append(header::VARY, HeaderValue::from_static("authorization"));
            }
            Ok(response)
        }
    })
}

/// Sets the security headers of every response: no-store by default, no framing, no sniffing, no cross-origin embedding, no
/// referrer.
pub fn set_security_headers(headers: &mut HeaderMap) {
    let fixed = HeaderValue::from_static;
    headers.entry(header::CACHE_CONTROL).or_insert(fixed("no-store"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(fixed("default-src 'none'; frame-ancestors 'none'"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    headers.insert(header::REFERRER_POLICY, fixed("no-referrer"));
    // https://fetch.spec.whatwg.org/#cross-origin-resource-policy-header: origins that may read a response use CORS.
    headers.insert("cross-origin-resource-policy", fixed("same-origin"));
    if is_page(headers) {
        headers.insert("permissions-policy", fixed("camera=(), geolocation=(), microphone=(), payment=(), usb=()"));
    }
}

/// Sets the headers that are sent only over TLS.
fn set_tls_headers(headers: &mut HeaderMap) {
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    if is_page(headers) {
        // A page that holds tokens must not be reachable from the page that opened it. Without TLS, browsers ignore the header and
        // log a warning.
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    }
}

/// Returns whether the headers are those of an HTML page.
fn is_page(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|media_type| media_type.as_bytes().starts_with(b"text/html"))
}
