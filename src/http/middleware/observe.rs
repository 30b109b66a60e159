//! Spans, log lines and metrics of every request.

use std::{borrow::Cow, sync::Arc, time::Instant};

use poem::{
    Endpoint, EndpointExt, Request, Response,
    http::{HeaderValue, Method},
};
use tracing::Instrument;

use super::request_id::RequestId;
use crate::{
    config::TrustedProxies,
    http::{client, route_table::RouteTable},
    metrics::{METRICS, RequestLabels},
    telemetry::{
        AUDIT,
        context::{self, TraceContext},
        spans,
    },
};

/// Status in logs and metrics of a request whose client disconnected before the response.
const CLIENT_DISCONNECTED: u16 = 499;
/// Maximum bytes of a path's segment that is logged. Only Uppy's token is longer, which must not be logged in any encoding.
const MAX_SEGMENT_BYTES: usize = 64;

/// Opens a span for every request, logs its response, and counts it by route.
pub fn with_observation<E>(
    endpoint: E,
    proxies: Arc<TrustedProxies>,
    routes: Arc<RouteTable>,
) -> impl Endpoint<Output = Response> + 'static
where
    E: Endpoint<Output = Response> + 'static,
{
    endpoint.around(move |next, request| {
        let (proxies, routes) = (proxies.clone(), routes.clone());
        async move {
            let RequestId(id) = RequestId::of(&request);
            let method = request.method().clone();
            client::warn_of_untrusted_proxy(&request, &proxies);
            let client = client::address(&request, &proxies);
            let uri = request.uri().clone();
            let path = loggable(uri.path());
            let route = routes.find(request.uri().path()).map(|route| route.template.as_str());
            let attributes = spans::RequestAttributes { method: known_method(&method), route, path: &path, id: &id };
            let traced = spans::ServerSpan::begin(caller_context(&request).as_ref(), &attributes);
            let (trace_id, span_id) = (traced.ids().trace(), traced.ids().span());
            // With the target `AUDIT`, whose spans no log filter disables: every line of the request has its id.
            let span = tracing::info_span!(target: AUDIT, "request", id, %trace_id, %span_id, %client, %method, path = &*path, user = tracing::field::Empty);
            // Boxed, because a future is copied whole each time that it moves, here into both spans.
            let respond = Box::pin(async {
                let in_flight = InFlight::begin(RequestLabels {
                    route: route.unwrap_or("other").to_owned(),
                    method: known_method(&method).unwrap_or("other"),
                    status: CLIENT_DISCONNECTED,
                });
                let response = next.get_response(request).await;
                let status = response.status().as_u16();
                traced.record_response(status);
                in_flight.end(status);
                response
            });
            Ok(respond.instrument(span).instrument(traced.span()).await)
        }
    })
}

/// A request that is being handled. When this is dropped, the request is logged and measured, also if the client disconnected.
struct InFlight {
    labels: RequestLabels,
    began: Instant,
}

impl InFlight {
    /// Begins a request, with the labels of one whose client disconnects.
    fn begin(labels: RequestLabels) -> Self {
        METRICS.in_flight.inc();
        Self { labels, began: Instant::now() }
    }

    /// Ends a request with the status of its response.
    fn end(mut self, status: u16) {
        self.labels.status = status;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        METRICS.in_flight.dec();
        let duration = self.began.elapsed();
        METRICS.requests.get_or_create(&self.labels).observe(duration.as_secs_f64());
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let status = self.labels.status;
        if status == CLIENT_DISCONNECTED {
            tracing::info!(status, duration_ms, "client disconnected before the response");
        } else {
            tracing::info!(status, duration_ms, "request completed");
        }
    }
}

/// Returns the method's name if it is one of HTTP's; metrics must not have labels of the caller's choice.
fn known_method(method: &Method) -> Option<&'static str> {
    let names = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    names.into_iter().find(|name| method.as_str() == *name)
}

/// Returns the trace context in the request's headers.
fn caller_context(request: &Request) -> Option<TraceContext> {
    let lines = |name| request.headers().get_all(name).into_iter().map(HeaderValue::as_bytes);
    TraceContext::parse(lines(context::TRACEPARENT), lines(context::TRACESTATE))
}

/// Returns the path for the log, with `…` in place of each long segment.
fn loggable(path: &str) -> Cow<'_, str> {
    if path.split('/').all(|segment| segment.len() <= MAX_SEGMENT_BYTES) {
        return path.into();
    }
    let shorten = |segment| if str::len(segment) > MAX_SEGMENT_BYTES { "…" } else { segment };
    path.split('/').map(shorten).collect::<Vec<_>>().join("/").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_segments_are_not_logged() {
        let long = "x".repeat(MAX_SEGMENT_BYTES + 1);
        assert_eq!(loggable(&format!("/uppy/{long}/s3")), "/uppy/…/s3");
        for path in ["", "/", "/api/images/gallery", &long[1..]] {
            assert_eq!(loggable(path), path);
        }
    }
}
