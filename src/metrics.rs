//! Metrics of this process and their OpenMetrics 1.0 text for Prometheus: one registry per process.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>. Label values come from closed sets (routes of the OpenAPI
//! document, commands, states); never ids, addresses or anything a caller chose. Code records a measurement where it happens;
//! this file decides nothing.

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
    pub command: String,
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
            /// The label's value.
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

/// All instruments; cheap to record in from anywhere.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Metrics of the process, whose names have no prefix.
    process: Registry,
    /// Duration of requests.
    pub requests: Family<RequestLabels, Histogram>,
    /// Requests being processed.
    pub in_flight: Gauge,
    /// Open connections of clients.
    pub connections: Gauge,
    /// Connections that were closed at once because too many were open.
    pub connections_refused: Counter,
    /// Connections that were closed because their client was too slow, by phase: one of [`TIMEOUT_PHASES`].
    pub connections_timed_out: Family<PhaseLabel, Counter>,
    /// Requests that were answered 503 at once because too many were being processed.
    pub requests_shed: Counter,
    /// Transitions of images, by the state entered.
    pub image_transitions: Family<TransitionLabel, Counter>,
    /// Images in each state, estimated.
    pub images: Family<StateLabel, FloatGauge>,
    /// The images' share of the owners' quotas in bytes, estimated.
    pub image_bytes: Family<StateLabel, FloatGauge>,
    /// Accounts, estimated.
    pub accounts: Gauge,
    /// Uploads that were refused because the quota was full.
    pub quota_refusals: Counter,
    /// Presigned URLs and forms, by HTTP method.
    pub presigned_urls: Family<MethodLabel, Counter>,
    /// The counter of presigned GETs, for galleries, which count by the page.
    pub presigned_gets: Counter,
    /// Duration of calls to S3.
    pub s3_calls: Family<S3CallLabels, Histogram>,
    /// How far S3's clock is ahead of this machine's, in seconds.
    pub s3_clock_ahead: FloatGauge,
    /// When the credentials for S3 expire, in Unix time; 0 if they do not.
    pub s3_credentials_expiry: FloatGauge,
    /// Failures to refresh the credentials for S3.
    pub s3_credential_failures: Counter,
    /// Duration of commands to MongoDB.
    pub mongodb_commands: Family<CommandLabels, Histogram>,
    /// Open connections to MongoDB.
    pub mongodb_connections: Gauge,
    /// Connections to MongoDB in use.
    pub mongodb_connections_used: Gauge,
    /// Calls that wait for a permit or a connection to MongoDB.
    pub mongodb_calls_waiting: Gauge,
    /// The maximum number of connections to one server of MongoDB.
    pub mongodb_connections_max: Gauge,
    /// Passwords being hashed.
    pub hashes_running: Gauge,
    /// Passwords that wait to be hashed.
    pub hashes_waiting: Gauge,
    /// Passwords that were refused because too many waited.
    pub hashes_refused: Counter,
    /// Images and accounts swept, by outcome: one of [`SWEEP_OUTCOMES`].
    pub sweep_items: Family<OutcomeLabel, Counter>,
    /// Images due at the end of the last sweep, counted up to a thousand.
    pub sweep_backlog: Gauge,
    /// How long the oldest of them has been due, in seconds.
    pub sweep_lag: FloatGauge,
    /// Images and deleted accounts whose sweep fails until an operator acts, counted up to a thousand of each.
    pub sweep_stuck: Gauge,
    /// Deletions of objects whose versions the store retains.
    pub retained_objects: Counter,
    /// When the last sweep succeeded, in Unix time.
    pub sweep_last_success: FloatGauge,
    /// Spans of traces, by outcome: one of [`SPAN_OUTCOMES`].
    pub spans: Family<OutcomeLabel, Counter>,
    /// Tasks of the tokio runtime that are alive.
    pub tokio_alive_tasks: Gauge,
}

/// Buckets of durations in seconds, from that of a cached response to the longest a request may take.
const DURATION_BUCKETS_SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Phases in which a slow client can miss its deadline.
pub const TIMEOUT_PHASES: [&str; 4] = ["header", "body", "answer", "idle"];

/// Outcomes of a span: exported, rejected by the collector, or dropped because the queue was full.
pub const SPAN_OUTCOMES: [&str; 3] = ["exported", "failed", "dropped"];

/// Outcomes of a sweep for one image or account.
pub const SWEEP_OUTCOMES: [&str; 8] = ["confirmed", "rejected", "expired", "purged", "gone", "holds", "accounts", "failed"];

/// Returns a family of counters, each at zero: a series that is absent until its first event hides that event from `rate`.
fn zeroed<L: Label>(values: &[&'static str]) -> Family<L, Counter> {
    let family = Family::default();
    for value in values {
        drop(family.get_or_create(&L::from(value)));
    }
    family
}

fn durations<L: Clone + Eq + Hash>() -> Family<L, Histogram> {
    Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS_SECONDS))
}

/// A registry that returns the instruments it registers.
struct Register(Registry);

impl Register {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    /// Registers a metric in seconds.
    fn seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.with_unit(name, help, Unit::Seconds, metric)
    }

    /// Registers a metric in a unit, which is appended to its name.
    fn with_unit<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Unit, metric: M) -> M {
        self.0.register_with_unit(name, help, unit, metric.clone());
        metric
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut register = Register(Registry::with_prefix("valet"));
        register.0.register("build", "Which version runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let mut process = Registry::default();
        process.register_collector(Box::new(process::Process));
        let methods = zeroed(&["GET", "PUT", "POST", "DELETE", "HEAD"]);
        let presigned_urls: Family<MethodLabel, Counter> = register.add("presigned_urls", "Presigned URLs and forms", methods);
        let transitions = zeroed(&ImageState::ALL.map(ImageState::as_str));
        Self {
            requests: register.seconds("http_request_duration", "Duration of HTTP requests", durations()),
            in_flight: register.add("http_requests_in_flight", "HTTP requests being processed", Gauge::default()),
            connections: register.add("http_connections", "Open client connections", Gauge::default()),
            connections_refused: register.add(
                "http_connections_refused",
                "Connections refused because too many were open",
                Counter::default(),
            ),
            connections_timed_out: register.add(
                "http_connections_timed_out",
                "Connections of slow clients closed, by phase",
                zeroed(&TIMEOUT_PHASES),
            ),
            requests_shed: register.add(
                "http_requests_shed",
                "Requests answered 503 because too many were being processed",
                Counter::default(),
            ),
            image_transitions: register.add("image_transitions", "Transitions of images, by the state entered", transitions),
            images: register.add("images", "Images by state, estimated from a sample", Family::default()),
            image_bytes: register.with_unit(
                "image",
                "Bytes of quota by state, estimated from a sample",
                Unit::Bytes,
                Family::default(),
            ),
            accounts: register.add("accounts", "Accounts, as estimated by the database", Gauge::default()),
            quota_refusals: register.add("quota_refusals", "Uploads refused because the quota was full", Counter::default()),
            presigned_gets: presigned_urls.get_or_create_owned(&"GET".into()),
            presigned_urls,
            s3_calls: register.seconds("s3_call_duration", "Duration of S3 calls, retries included", durations()),
            s3_clock_ahead: register.seconds("s3_clock_ahead", "How far S3's clock is ahead of ours", FloatGauge::default()),
            s3_credentials_expiry: register.seconds(
                "s3_credentials_expiry_timestamp",
                "Unix time at which the credentials for S3 expire",
                FloatGauge::default(),
            ),
            s3_credential_failures: register.add(
                "s3_credential_failures",
                "Failures to refresh the credentials for S3",
                Counter::default(),
            ),
            mongodb_commands: register.seconds("mongodb_command_duration", "Duration of MongoDB commands", durations()),
            mongodb_connections: register.add("mongodb_connections", "Open connections to MongoDB", Gauge::default()),
            mongodb_connections_used: register.add("mongodb_connections_used", "Connections to MongoDB in use", Gauge::default()),
            mongodb_calls_waiting: register.add(
                "mongodb_calls_waiting",
                "Calls that wait for a connection to MongoDB",
                Gauge::default(),
            ),
            mongodb_connections_max: register.add(
                "mongodb_connections_max",
                "Maximum number of connections to one MongoDB server",
                Gauge::default(),
            ),
            hashes_running: register.add("password_hashes_running", "Passwords being hashed", Gauge::default()),
            hashes_waiting: register.add("password_hashes_waiting", "Passwords that wait to be hashed", Gauge::default()),
            hashes_refused: register.add(
                "password_hashes_refused",
                "Passwords refused because too many waited",
                Counter::default(),
            ),
            sweep_items: register.add("sweep_items", "Images and accounts swept, by outcome", zeroed(&SWEEP_OUTCOMES)),
            sweep_backlog: register.add("sweep_backlog", "Images due after the last sweep, up to 1000", Gauge::default()),
            sweep_lag: register.seconds("sweep_lag", "How long the oldest due image has been due", FloatGauge::default()),
            sweep_stuck: register.add(
                "sweep_stuck_records",
                "Images and deleted accounts whose sweep fails until an operator acts, up to 1000 of each",
                Gauge::default(),
            ),
            retained_objects: register.add(
                "retained_objects",
                "Deletions of objects whose versions the store retains",
                Counter::default(),
            ),
            sweep_last_success: register.seconds(
                "sweep_last_success_timestamp",
                "Unix time of the last successful sweep",
                FloatGauge::default(),
            ),
            spans: register.add("trace_spans", "Trace spans, by outcome", zeroed(&SPAN_OUTCOMES)),
            tokio_alive_tasks: register.add("tokio_alive_tasks", "Alive tasks of the tokio runtime", Gauge::default()),
            registry: register.0,
            process,
        }
    }
}

impl Metrics {
    /// Adds to the counter of a label value.
    pub fn count<L: Label>(family: &Family<L, Counter>, value: &'static str, by: u64) {
        if by > 0 {
            family.get_or_create(&L::from(value)).inc_by(by);
        }
    }

    /// Records the duration of a call to S3.
    pub fn s3_call(&self, operation: &str, status: Option<u16>, took: Duration) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.s3_calls.get_or_create(&S3CallLabels { operation: operation.to_owned(), status }).observe(took.as_secs_f64());
    }

    /// Records the duration of a command to MongoDB.
    pub fn mongodb_command(&self, command: &str, outcome: &'static str, took: Duration) {
        let command = CommandLabels { command: command.to_owned(), outcome };
        self.mongodb_commands.get_or_create(&command).observe(took.as_secs_f64());
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
