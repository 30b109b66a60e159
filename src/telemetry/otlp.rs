//! Exports spans to an OpenTelemetry collector (OTLP over HTTP, protobuf). OpenTelemetry's own environment variables apply;
//! nothing is sent unless an endpoint is set. `config` rejects settings that are not supported here.
//!
//! A request never waits for the export: its span is put into a bounded queue or, when the queue is full, counted and dropped.

use std::{
    env,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use opentelemetry::{
    Context, Key, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TracerProvider},
};
use opentelemetry_http::HttpError;
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor},
};
use rustls::RootCertStore;
use tokio::runtime::Handle;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::context::TraceContext;
use crate::{
    http_client::{self, Connections, HttpClient},
    metrics::{METRICS, Metrics},
};

/// Default of `OTEL_BSP_MAX_QUEUE_SIZE` in spans, as OpenTelemetry defines it.
const DEFAULT_QUEUE_SPANS: usize = 2048;
/// Default of `OTEL_EXPORTER_OTLP_TIMEOUT`, as OpenTelemetry defines it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which the process waits at its end until queued spans are sent.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);
/// Maximum bytes of a collector's response.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// The provider of the tracer, for [`stop`].
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Returns the trimmed value of an environment variable, unless it is empty.
fn env_var(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Returns the exporter's setting `name` for traces, else the one for all signals.
fn trace_setting(name: &str) -> Option<String> {
    env_var(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| env_var(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// Returns the tracer, if the environment names a collector.
///
/// # Errors
/// The problem of the environment, without the values.
pub(super) fn tracer() -> Result<Option<SdkTracer>, String> {
    let Some(endpoint) = trace_setting("ENDPOINT") else { return Ok(None) };
    let is_set_to = |name: &str, value: &str| env_var(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
    if is_set_to("OTEL_SDK_DISABLED", "true") || is_set_to("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let runtime = Handle::try_current().map_err(|error| error.to_string())?;
    let timeout = trace_setting("TIMEOUT").and_then(|ms| ms.parse().ok()).map_or(DEFAULT_TIMEOUT, Duration::from_millis);
    let connector = if endpoint.starts_with("https:") {
        http_client::system_connector().map_err(|_| "the system's certificates cannot be read".to_owned())?
    } else {
        // A plain connection needs no certificates, and a container image may have none.
        http_client::connector(RootCertStore::empty())
    };
    let client = HttpClient::new(connector, Connections::Kept, MAX_RESPONSE_BYTES);
    let builder = Otlp::builder().with_http().with_protocol(Protocol::HttpBinary);
    let builder = builder.with_http_client(ExportClient { client, runtime, timeout });
    // The error text contains the endpoint, which may contain a password.
    let exporter =
        builder.build().map_err(|_| "OTEL_EXPORTER_OTLP_ENDPOINT or another of its settings is not valid".to_owned())?;

    let max_queue = env_var("OTEL_BSP_MAX_QUEUE_SIZE")
        .and_then(|size| size.parse().ok())
        .filter(|size| *size > 0)
        .unwrap_or(DEFAULT_QUEUE_SPANS);
    let waiting = Arc::new(AtomicUsize::new(0));
    let exporter = MeteredExporter { inner: exporter, waiting: waiting.clone(), failing: AtomicBool::new(false) };
    let batches = BatchConfigBuilder::default().with_max_queue_size(max_queue).build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource())
        .with_span_processor(BoundedQueue { inner, waiting, max_queue })
        .build();
    let tracer = provider.tracer("valet");
    let _ = PROVIDER.set(provider);
    Ok(Some(tracer))
}

/// Returns the resource: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else this program's own name.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let is_service_named =
        detected.get(&Key::new("service.name")).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    if is_service_named { builder.build() } else { builder.with_service_name("valet").build() }
}

/// Makes a span a child of the caller's and returns its trace and span ids. `None` without a collector.
pub(super) fn continue_trace(span: &tracing::Span, caller: Option<&TraceContext>) -> Option<(u128, u64)> {
    if let Some(TraceContext { trace_id, span_id, sampled, state }) = caller {
        let flags = TraceFlags::default().with_sampled(*sampled);
        // A malformed tracestate is dropped; the trace continues.
        let state = state.parse().unwrap_or_default();
        let (trace, parent) = (TraceId::from(*trace_id), SpanId::from(*span_id));
        let caller = SpanContext::new(trace, parent, flags, true, state);
        span.set_parent(Context::new().with_remote_span_context(caller)).ok()?;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let ids = (u128::from_be_bytes(context.trace_id().to_bytes()), u64::from_be_bytes(context.span_id().to_bytes()));
    context.is_valid().then_some(ids)
}

/// Sends the queued spans, for at most [`FLUSH_DEADLINE`].
pub(super) async fn stop() {
    if let Some(provider) = PROVIDER.get() {
        let _ = tokio::task::spawn_blocking(|| provider.shutdown_with_timeout(FLUSH_DEADLINE)).await;
    }
}

/// A span processor that drops spans beyond the queue's size. The inner processor would drop them without counting them here.
#[derive(Debug)]
struct BoundedQueue {
    inner: BatchSpanProcessor,
    /// Spans that wait or are being sent.
    waiting: Arc<AtomicUsize>,
    max_queue: usize,
}

impl SpanProcessor for BoundedQueue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_queue {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            Metrics::count(&METRICS.spans, "dropped", 1);
        } else {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An exporter that counts exported and failed spans, and logs when the outcome changes.
#[derive(Debug)]
struct MeteredExporter {
    inner: Otlp,
    /// Spans that wait or are being sent.
    waiting: Arc<AtomicUsize>,
    /// Whether the last export failed.
    failing: AtomicBool,
}

impl SpanExporter for MeteredExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let done = self.inner.export(batch).await;
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        Metrics::count(&METRICS.spans, if done.is_ok() { "exported" } else { "failed" }, spans as u64);
        match (&done, self.failing.swap(done.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, "failed to export traces; requests are not affected"),
            (Ok(()), true) => tracing::info!("exporting traces again"),
            _ => {}
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An HTTP client for the exporter. Batches are sent from a thread without a tokio runtime, so the client has a handle of the
/// server's.
#[derive(Debug)]
struct ExportClient {
    client: HttpClient<Full<Bytes>>,
    runtime: Handle,
    timeout: Duration,
}

#[async_trait]
impl opentelemetry_http::HttpClient for ExportClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let exchange = async move {
            let (parts, body) = client.send(request.map(Full::new)).await?.into_parts();
            Ok(Response::from_parts(parts, body?))
        };
        self.runtime.spawn(async move { tokio::time::timeout(timeout, exchange).await }).await??
    }
}
