//! The spans of a trace: one for each request, for each call to S3 and MongoDB, for sweeps and for passwords' hashes. Names
//! and attributes are OpenTelemetry's (<https://opentelemetry.io/docs/specs/semconv/>).
//!
//! They have a target of their own and are no part of the log: only the exporter sees them. Without the feature `otlp` none
//! is made. An attribute is never a query, an address of mail or a client's, nor anything out of a body.

use std::fmt;

use tracing::{Span, field::Empty};
use uuid::Uuid;

use super::context::TraceContext;

/// The target of all of them.
pub(super) const TARGET: &str = "otlp";

/// Whether there is an exporter in this build; else the compiler leaves all of this out.
const BUILT: bool = cfg!(feature = "otlp");

/// A span's place, as log lines show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    trace: u128,
    span: u64,
}

impl Ids {
    /// 32 hexadecimal digits.
    #[must_use]
    pub fn trace(&self) -> impl fmt::Display + use<> {
        let id = self.trace;
        fmt::from_fn(move |f| write!(f, "{id:032x}"))
    }

    /// 16 hexadecimal digits.
    #[must_use]
    pub fn span(&self) -> impl fmt::Display + use<> {
        let id = self.span;
        fmt::from_fn(move |f| write!(f, "{id:016x}"))
    }

    /// Returns a span of the caller's trace, or of one that begins here. Both ids end in bits that are random in version 4.
    fn fresh(caller: Option<&TraceContext>) -> Self {
        let trace = caller.map_or_else(|| Uuid::new_v4().as_u128(), |caller| caller.trace_id);
        Self { trace, span: Uuid::new_v4().as_u64_pair().1 }
    }
}

/// A request's span.
#[derive(Debug)]
pub struct Server {
    span: Span,
    ids: Ids,
}

/// Attributes of a request's span.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// GET, POST, …; `None` for a method that HTTP does not know.
    pub method: Option<&'static str>,
    /// The documented path, its parameters in braces; `None` for all others.
    pub route: Option<&'a str>,
    /// As it may be logged.
    pub path: &'a str,
    /// The request's id.
    pub id: &'a str,
}

impl Server {
    /// Begins one, in the caller's trace when there is one.
    #[must_use]
    pub fn begin(caller: Option<&TraceContext>, asked: &Asked<'_>) -> Self {
        let span = if BUILT { server(asked) } else { Span::none() };
        let ids = match super::join(&span, caller) {
            Some((trace, span)) => Ids { trace, span },
            // Nobody keeps it, but the log's lines still say what belongs together.
            None => Ids::fresh(caller),
        };
        Self { span, ids }
    }

    /// For the log.
    #[must_use]
    pub fn ids(&self) -> Ids {
        self.ids
    }

    /// To work in.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// The answer's status. Only what is the server's fault is an error of its span.
    pub fn answered(&self, status: u16) {
        self.span.record("http.response.status_code", status);
        if status >= 500 {
            failed(&self.span, &status.to_string());
        }
    }
}

fn server(Asked { method, route, path, id }: &Asked<'_>) -> Span {
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

/// Work of this server's own, under what is current.
pub fn internal(name: &'static str) -> Span {
    if BUILT { tracing::info_span!(target: TARGET, "internal", otel.name = name) } else { Span::none() }
}

/// A call to another server, under what is current. Dropped before its end, it was cancelled: by a deadline, or by a client
/// that hung up.
#[derive(Debug)]
pub struct Call {
    span: Span,
    open: bool,
}

impl Call {
    /// To S3, by the operation's name.
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

    /// To MongoDB: a command, its database and its collection, and who is asked.
    #[must_use]
    pub fn mongodb(command: &str, database: &str, collection: Option<&str>, server: (&str, Option<u16>)) -> Self {
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
                server.address = server.0,
                server.port = server.1,
            )
        };
        Self::begin(span)
    }

    fn begin(span: impl FnOnce() -> Span) -> Self {
        let span = if BUILT { span() } else { Span::none() };
        Self { open: !span.is_disabled(), span }
    }

    /// Returns whether anybody keeps it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.open
    }

    /// S3's answer: its status, its name for the request, and what kind of failure the call was.
    pub fn answered(self, status: Option<u16>, request_id: Option<&str>, failure: Option<&str>) {
        self.span.record("http.response.status_code", status);
        self.span.record("aws.request_id", request_id);
        self.end(failure);
    }

    /// Its end, and what kind of failure it was.
    pub fn end(mut self, failure: Option<&str>) {
        self.open = false;
        if let Some(failure) = failure {
            failed(&self.span, failure);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.open {
            failed(&self.span, "cancelled");
        }
    }
}

fn failed(span: &Span, why: &str) {
    span.record("error.type", why);
    span.record("otel.status_code", "ERROR");
}
