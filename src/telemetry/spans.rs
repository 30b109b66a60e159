//! The spans of a trace: one for each request, for each call to S3 and MongoDB, for sweeps and for password hashes. Names and
//! attributes follow OpenTelemetry (<https://opentelemetry.io/docs/specs/semconv/>).
//!
//! Spans have a target of their own and are not logged: only the exporter receives them. Without the feature `otlp`, no span is
//! created. No attribute contains a query, an email address, a client address, or content of a body.

use std::fmt;

use tracing::{Span, field::Empty};
use uuid::Uuid;

use super::context::TraceContext;

/// Target of all spans.
pub(super) const TARGET: &str = "otlp";

/// Whether this build has an exporter; without one, the compiler removes the creation of spans.
const ENABLED: bool = cfg!(feature = "otlp");

/// The trace and span ids, as log lines show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanIds {
    trace: u128,
    span: u64,
}

impl SpanIds {
    /// Returns the trace id as 32 hexadecimal digits.
    #[must_use]
    pub fn trace(&self) -> impl fmt::Display + use<> {
        let id = self.trace;
        fmt::from_fn(move |f| write!(f, "{id:032x}"))
    }

    /// Returns the span id as 16 hexadecimal digits.
    #[must_use]
    pub fn span(&self) -> impl fmt::Display + use<> {
        let id = self.span;
        fmt::from_fn(move |f| write!(f, "{id:016x}"))
    }

    /// Returns ids for a span of the caller's trace, or of a new trace. Version 4 UUIDs end in random bits.
    fn fresh(caller: Option<&TraceContext>) -> Self {
        let trace = caller.map_or_else(|| Uuid::new_v4().as_u128(), |caller| caller.trace_id);
        Self { trace, span: Uuid::new_v4().as_u64_pair().1 }
    }
}

/// A request's span.
#[derive(Debug)]
pub struct ServerSpan {
    span: Span,
    ids: SpanIds,
}

/// Attributes of a request's span.
#[derive(Debug, Clone, Copy)]
pub struct RequestAttributes<'a> {
    /// GET, POST, …; `None` for a method that HTTP does not define.
    pub method: Option<&'static str>,
    /// The path in the OpenAPI document with its parameters in braces; `None` for all others.
    pub route: Option<&'a str>,
    /// The path as it may be logged.
    pub path: &'a str,
    /// The request's id.
    pub id: &'a str,
}

impl ServerSpan {
    /// Begins a span, in the caller's trace if there is one.
    #[must_use]
    pub fn begin(caller: Option<&TraceContext>, attributes: &RequestAttributes<'_>) -> Self {
        let span = if ENABLED { server_span(attributes) } else { Span::none() };
        let ids = match super::continue_trace(&span, caller) {
            Some((trace, span)) => SpanIds { trace, span },
            // The span is not exported, but its ids still connect log lines.
            None => SpanIds::fresh(caller),
        };
        Self { span, ids }
    }

    /// Returns the ids for the log.
    #[must_use]
    pub fn ids(&self) -> SpanIds {
        self.ids
    }

    /// Returns the span to process the request in.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Records the response's status. Only server errors are errors of the span.
    pub fn record_response(&self, status: u16) {
        self.span.record("http.response.status_code", status);
        if status >= 500 {
            record_failure(&self.span, &status.to_string());
        }
    }
}

/// Creates the span of a request.
fn server_span(RequestAttributes { method, route, path, id }: &RequestAttributes<'_>) -> Span {
    let name = |method: &str| route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = name(method.unwrap_or("HTTP")),
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        http.request.method = method.unwrap_or("_OTHER"),
        http.response.status_code = Empty,
        http.route = route,
        url.path = path,
        valet.request_id = id,
    )
}

/// Begins a span for work of this server, as a child of the current span.
pub fn internal(name: &'static str) -> Span {
    if ENABLED { tracing::info_span!(target: TARGET, "internal", otel.name = name) } else { Span::none() }
}

/// A call to another server, as a child of the current span. A call that is dropped before its end was cancelled: by a
/// deadline, or by a client that disconnected.
#[derive(Debug)]
pub struct ClientSpan {
    span: Span,
    /// Whether the call is recorded and has not ended.
    open: bool,
}

impl ClientSpan {
    /// Begins a call to S3, named by the operation.
    #[must_use]
    pub fn s3(operation: &str) -> Self {
        let span = || {
            tracing::info_span!(
                target: TARGET,
                "s3",
                otel.name = format!("S3.{operation}"),
                otel.kind = "client",
                otel.status_code = Empty,
                error.type = Empty,
                rpc.system = "aws-api",
                rpc.service = "S3",
                rpc.method = operation,
                http.response.status_code = Empty,
                aws.request_id = Empty,
            )
        };
        Self::begin(span)
    }

    /// Begins a command to MongoDB on a database and a collection.
    #[must_use]
    pub fn mongodb(command: &str, database: &str, collection: Option<&str>) -> Self {
        let span = || {
            tracing::info_span!(
                target: TARGET,
                "mongodb",
                otel.name = collection.map_or_else(|| command.to_owned(), |collection| format!("{command} {collection}")),
                otel.kind = "client",
                otel.status_code = Empty,
                error.type = Empty,
                db.system.name = "mongodb",
                db.operation.name = command,
                db.namespace = database,
                db.collection.name = collection,
                server.address = Empty,
                server.port = Empty,
            )
        };
        Self::begin(span)
    }

    /// Begins a call with the span that `span` creates, if this build has an exporter.
    fn begin(span: impl FnOnce() -> Span) -> Self {
        let span = if ENABLED { span() } else { Span::none() };
        Self { open: !span.is_disabled(), span }
    }

    /// Records the server that the command was sent to.
    pub fn record_server(&self, host: &str, port: Option<u16>) {
        self.span.record("server.address", host);
        self.span.record("server.port", port);
    }

    /// Ends the span with the status of S3's response, its request id, and the kind of failure.
    pub fn end_s3(self, status: Option<u16>, request_id: Option<&str>, failure: Option<&str>) {
        self.span.record("http.response.status_code", status);
        self.span.record("aws.request_id", request_id);
        self.end(failure);
    }

    /// Ends the span with the kind of failure.
    pub fn end(mut self, failure: Option<&str>) {
        self.open = false;
        if let Some(failure) = failure {
            record_failure(&self.span, failure);
        }
    }
}

impl Drop for ClientSpan {
    fn drop(&mut self) {
        if self.open {
            record_failure(&self.span, "cancelled");
        }
    }
}

/// Marks a span as failed for this reason.
fn record_failure(span: &Span, why: &str) {
    span.record("error.type", why);
    span.record("otel.status_code", "ERROR");
}
