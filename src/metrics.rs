//! Metrics of this process and their OpenMetrics 1.0 text for Prometheus: one registry per process.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>. Label values come from closed sets (routes of the OpenAPI
//! document, commands, states); never ids, addresses or anything a caller chose. The code that does the work records the
//! measurement. A new metric must be shown by deploy/grafana.json or used by deploy/alerts.yaml, which tests/api/serve/metrics.rs
//! checks; docs/metrics.md is generated.

mod process;

use std::{
    hash::Hash,
    sync::{LazyLock, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};

use crate::model::ImageState;

/// The metrics of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// Counter of presigned GETs in [`Metrics::presigned_urls`], looked up once, because a page of the gallery counts up to a hundred.
pub static PRESIGNED_GETS: LazyLock<Counter> = LazyLock::new(|| METRICS.presigned_urls.get_or_create_owned(&"GET".into()));

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of an answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// A path of the OpenAPI document with its parameters in braces, or `other`.
    pub route: String,
    /// GET, POST, …, or `other`.
    pub method: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// Labels of a command to MongoDB.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CommandLabels {
    /// `find`, `update`, …
    pub command: &'static str,
    /// `ok` or `error`.
    pub outcome: &'static str,
}

/// Labels of a call to S3, including its retries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct S3CallLabels {
    /// `HeadObject`, `CopyObject`, …
    pub operation: String,
    /// The HTTP status, or `none` without a response.
    pub status: String,
}

/// Declares label sets of one label each.
macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $label:ident })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name {
            /// Value of the label.
            pub $label: &'static str,
        }

        impl From<&'static str> for $name {
            fn from($label: &'static str) -> Self {
                Self { $label }
            }
        }
    )*};
}

labels! {
    /// The state of images.
    StateLabel { state }
    /// The state that an image entered.
    TransitionLabel { to }
    /// An HTTP method.
    MethodLabel { method }
    /// The phase of a connection.
    PhaseLabel { phase }
    /// An outcome.
    OutcomeLabel { outcome }
}

/// A label set of one label.
pub trait Label: From<&'static str> + Clone + Eq + Hash {}

impl<L: From<&'static str> + Clone + Eq + Hash> Label for L {}

type FloatGauge = Gauge<f64, AtomicU64>;

/// Buckets of durations in seconds, from that of a cached response to the deadline of most operations.
const DURATION_BUCKETS_SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets in seconds of delays that depend on another service or on a worker, up to five minutes.
const DELAY_BUCKETS_SECONDS: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Phases in which a slow client can miss its deadline.
pub const TIMEOUT_PHASES: [&str; 4] = ["header", "body", "answer", "idle"];

/// Outcomes of an attempt of a webhook: delivered, to be repeated, or the last one of a delivery that is given up.
pub const WEBHOOK_OUTCOMES: [&str; 3] = ["delivered", "failed", "dead"];

/// Outcomes of a record in a notification of the store: the upload is due now; its check is planned already; no such upload is
/// open; the database failed; or the reason for ignoring the record ([`crate::model::s3_event::IgnoredRecord`]).
pub const RECORD_OUTCOMES: [&str; 9] =
    ["queued", "repeated", "not_pending", "failed", "malformed", "test", "other_event", "other_bucket", "other_key"];

/// Outcomes of the check of an upload because of a notification.
pub const CHECK_OUTCOMES: [&str; 4] = ["confirmed", "rejected", "unfinished", "failed"];

/// Outcomes of a span: exported, rejected by the collector, or dropped because the queue was full.
pub const SPAN_OUTCOMES: [&str; 3] = ["exported", "failed", "dropped"];

/// Outcomes of an attempt to make the previews of an image: made; the image was deleted meanwhile (`gone`); to be repeated because
/// of the image (`retried`) or of an outage (`postponed`); or the failure that ended the work
/// ([`crate::model::RenderingFailure`]).
pub const PREVIEW_OUTCOMES: [&str; 10] =
    ["made", "gone", "retried", "postponed", "unsupported", "too_big", "corrupt", "crashed", "missing", "unreadable"];

/// Outcomes of a sweep for one image or account. `purged` counts removals of an image's objects, `gone` tombstones that became purged
/// images, and `holds` released reservations without an image.
pub const SWEEP_OUTCOMES: [&str; 8] = ["confirmed", "rejected", "expired", "purged", "gone", "holds", "accounts", "failed"];

/// Returns a family of counters, each at zero: a series that is absent until its first event hides that event from `rate`.
fn zeroed<L: Label>(values: &[&'static str]) -> Family<L, Counter> {
    let family = Family::default();
    for value in values {
        drop(family.get_or_create(&L::from(value)));
    }
    family
}

/// Returns a family of histograms with [`DURATION_BUCKETS_SECONDS`].
fn durations<L: Clone + Eq + Hash>() -> Family<L, Histogram> {
    Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS_SECONDS))
}

/// Declares [`Metrics`] and registers each of its instruments: its initial value, its name, maybe a unit that is appended to the
/// name, and its help, which is also its documentation.
macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident: $kind:ty = $initial:expr, $name:literal $([$unit:ident])?, $help:literal;)*) => {
        /// All instruments. Recording is cheap, and possible from every thread.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            /// Metrics of the process, whose names have no prefix.
            process: Registry,
            $(#[doc = concat!($help, ".")] $(#[$doc])* pub $field: $kind,)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("valet");
                registry.register("build", "Which version runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
                let mut process = Registry::default();
                process.register_collector(Box::new(process::Process));
                $(
                    let $field: $kind = $initial;
                    register(&mut registry, $name, &[$(Unit::$unit)?], $help, $field.clone());
                )*
                Self { registry, process, $($field,)* }
            }
        }
    };
}

/// Registers a metric, with the first of `unit` if there is one.
fn register(registry: &mut Registry, name: &str, unit: &[Unit], help: &str, metric: impl Metric) {
    match unit.first() {
        Some(unit) => registry.register_with_unit(name, help, unit.clone(), metric),
        None => registry.register(name, help, metric),
    }
}

metrics! {
    presigned_urls: Family<MethodLabel, Counter> = zeroed(&["GET", "PUT", "POST", "DELETE", "HEAD"]),
        "presigned_urls", "Presigned URLs and forms";
    requests: Family<RequestLabels, Histogram> = durations(), "http_request_duration" [Seconds], "Duration of HTTP requests";
    in_flight: Gauge = Gauge::default(), "http_requests_in_flight", "HTTP requests being processed";
    connections: Gauge = Gauge::default(), "http_connections", "Open client connections";
    connections_refused: Counter = Counter::default(),
        "http_connections_refused", "Connections refused because too many were open";
    connections_timed_out: Family<PhaseLabel, Counter> = zeroed(&TIMEOUT_PHASES),
        "http_connections_timed_out", "Connections of slow clients closed, by phase";
    requests_shed: Counter = Counter::default(),
        "http_requests_shed", "Requests answered 503 because too many were being processed";
    image_transitions: Family<TransitionLabel, Counter> = zeroed(&ImageState::ALL.map(ImageState::as_str)),
        "image_transitions", "Transitions of images, by the state entered";
    images: Family<StateLabel, FloatGauge> = Family::default(), "images", "Images by state, estimated from a sample";
    image_bytes: Family<StateLabel, FloatGauge> = Family::default(),
        "image" [Bytes], "Bytes of quota by state, estimated from a sample";
    accounts: Gauge = Gauge::default(), "accounts", "Accounts, as estimated by the database";
    quota_refusals: Counter = Counter::default(), "quota_refusals", "Uploads refused because the quota was full";
    s3_calls: Family<S3CallLabels, Histogram> = durations(),
        "s3_call_duration" [Seconds], "Duration of S3 calls, retries included";
    s3_clock_ahead: FloatGauge = FloatGauge::default(),
        "s3_clock_ahead" [Seconds], "How far S3's clock is ahead of ours";
    /// Zero if the credentials do not expire.
    s3_credentials_expiry: FloatGauge = FloatGauge::default(),
        "s3_credentials_expiry_timestamp" [Seconds], "Unix time at which the credentials for S3 expire";
    s3_credential_failures: Counter = Counter::default(),
        "s3_credential_failures", "Failures to refresh the credentials for S3";
    mongodb_commands: Family<CommandLabels, Histogram> = durations(),
        "mongodb_command_duration" [Seconds], "Duration of MongoDB commands";
    mongodb_connections: Gauge = Gauge::default(), "mongodb_connections", "Open connections to MongoDB";
    mongodb_connections_used: Gauge = Gauge::default(), "mongodb_connections_used", "Connections to MongoDB in use";
    mongodb_calls_waiting: Gauge = Gauge::default(), "mongodb_calls_waiting", "Calls that wait for a connection to MongoDB";
    mongodb_connections_max: Gauge = Gauge::default(),
        "mongodb_connections_max", "Maximum number of connections to one MongoDB server";
    hashes_running: Gauge = Gauge::default(), "password_hashes_running", "Passwords being hashed";
    hashes_waiting: Gauge = Gauge::default(), "password_hashes_waiting", "Passwords that wait to be hashed";
    hashes_refused: Counter = Counter::default(), "password_hashes_refused", "Passwords refused because too many waited";
    sweep_items: Family<OutcomeLabel, Counter> = zeroed(&SWEEP_OUTCOMES), "sweep_items", "Images and accounts swept, by outcome";
    sweep_backlog: Gauge = Gauge::default(), "sweep_backlog", "Images due after the last sweep, up to 1000";
    sweep_lag: FloatGauge = FloatGauge::default(), "sweep_lag" [Seconds], "How long the oldest due image has been due";
    sweep_stuck: Gauge = Gauge::default(),
        "sweep_stuck_records", "Images and deleted accounts whose sweep fails until an operator acts, up to 1000 of each";
    retained_objects: Counter = Counter::default(),
        "retained_objects", "Deletions of objects whose versions the store retains";
    sweep_last_success: FloatGauge = FloatGauge::default(),
        "sweep_last_success_timestamp" [Seconds], "Unix time of the last successful sweep";
    preview_attempts: Family<OutcomeLabel, Counter> = zeroed(&PREVIEW_OUTCOMES),
        "preview_attempts", "Attempts of this worker to make the previews of an image, by outcome";
    preview_duration: Histogram = Histogram::new(DELAY_BUCKETS_SECONDS),
        "preview_duration" [Seconds], "Duration of an attempt to make the previews of an image";
    preview_backlog: Gauge = Gauge::default(), "preview_backlog", "Images whose previews this worker found due, up to 200";
    preview_lag: FloatGauge = FloatGauge::default(),
        "preview_lag" [Seconds], "How long the oldest image has been waiting for its previews";
    outbox_lag: FloatGauge = FloatGauge::default(), "outbox_lag" [Seconds], "How long the oldest event waits for its fan-out";
    webhook_attempts: Family<OutcomeLabel, Counter> = zeroed(&WEBHOOK_OUTCOMES), "webhook_attempts", "Attempts of webhooks, by outcome";
    webhook_endpoints_disabled: Counter = Counter::default(),
        "webhook_endpoints_disabled", "Webhook endpoints that this server disabled";
    notification_records: Family<OutcomeLabel, Counter> = zeroed(&RECORD_OUTCOMES),
        "notification_records", "Records in the store's notifications, by outcome";
    notification_checks: Family<OutcomeLabel, Counter> = zeroed(&CHECK_OUTCOMES),
        "notification_checks", "Checks of uploads because of notifications, by outcome";
    notification_delay: Histogram = Histogram::new(DELAY_BUCKETS_SECONDS),
        "notification_delay" [Seconds], "Time from the store's notification until the upload is confirmed, by both clocks";
    events_queue_failures: Counter = Counter::default(),
        "events_queue_failures", "Failures to read the queue of the store's notifications";
    /// Zero before the first answer, and without a queue.
    events_queue_last_success: FloatGauge = FloatGauge::default(),
        "events_queue_last_success_timestamp" [Seconds], "Unix time of the last answer of the queue of notifications";
    event_streams: Gauge = Gauge::default(), "event_streams", "Open event streams of clients";
    event_stream_resets: Counter = Counter::default(),
        "event_stream_resets", "Resets sent to event streams whose clients may have missed changes";
    spans: Family<OutcomeLabel, Counter> = zeroed(&SPAN_OUTCOMES), "trace_spans", "Trace spans, by outcome";
    tokio_alive_tasks: Gauge = Gauge::default(), "tokio_alive_tasks", "Alive tasks of the tokio runtime";
}

impl Metrics {
    /// Adds to the counter of a label value.
    pub fn count<L: Label>(family: &Family<L, Counter>, value: &'static str, by: u64) {
        if by > 0 {
            family.get_or_create(&L::from(value)).inc_by(by);
        }
    }

    /// Records the duration of a call to S3.
    pub fn record_s3_call(&self, operation: &str, status: Option<u16>, took: Duration) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.s3_calls.get_or_create(&S3CallLabels { operation: operation.to_owned(), status }).observe(took.as_secs_f64());
    }

    /// Records the duration of a command to MongoDB.
    pub fn record_mongodb_command(&self, command: &'static str, outcome: &'static str, took: Duration) {
        self.mongodb_commands.get_or_create(&CommandLabels { command, outcome }).observe(took.as_secs_f64());
    }

    /// Returns the text of all metrics, of type [`MEDIA_TYPE`].
    #[must_use]
    pub fn text(&self) -> String {
        let mut all = String::new();
        // Writing to a String never fails.
        let _ = text::encode_registry(&mut all, &self.registry);
        let _ = text::encode_registry(&mut all, &self.process);
        let _ = text::encode_eof(&mut all);
        all
    }
}
