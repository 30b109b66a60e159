//! Metrics of this process, and their text for Prometheus (OpenMetrics 1.0): one registry per process, as Prometheus counts.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>. Labels come from closed sets: routes of the document, commands,
//! states; never ids, addresses or anything a caller chose. Who measures does it where the thing happens; this file decides nothing.

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

/// The process's.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// A path of the document, its parameters in braces, or `other`.
    pub route: String,
    /// GET, POST, …, or `other`.
    pub method: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// A call to MongoDB.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Command {
    /// `find`, `update`, …
    pub command: String,
    /// `ok` or `error`.
    pub outcome: &'static str,
}

/// A call to S3, retries included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// `HeadObject`, `CopyObject`, …
    pub operation: String,
    /// The HTTP status, or `none` when there was no answer.
    pub status: String,
}

/// One label for what is counted by kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// A state, a method or an outcome.
    pub kind: &'static str,
}

type Real = Gauge<f64, AtomicU64>;

/// Every instrument; cheap to record in from anywhere.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Its names have no prefix.
    process: Registry,
    /// Requests and how long their answers took.
    pub requests: Family<Answered, Histogram>,
    /// Requests under way.
    pub in_flight: Gauge,
    /// Connections of clients that are open.
    pub connections: Gauge,
    /// Connections that were closed at once because too many were open.
    pub connections_refused: Counter,
    /// Connections that were closed because their client was too slow, by what did not come: one of [`TOO_SLOW`].
    pub connections_timed_out: Family<Kind, Counter>,
    /// Requests that were answered 503 at once because too many were under way.
    pub shed: Counter,
    /// Images that came into a state.
    pub images: Family<Kind, Counter>,
    /// Images in each state, estimated.
    pub images_present: Family<Kind, Real>,
    /// Their share of the owners' quotas in bytes, estimated.
    pub image_bytes: Family<Kind, Real>,
    /// Accounts, about.
    pub accounts: Gauge,
    /// Uploads that were refused for a full quota.
    pub quota_refusals: Counter,
    /// URLs and forms signed, by HTTP method.
    pub signed: Family<Kind, Counter>,
    /// The one of these that a gallery counts by the page.
    pub signed_gets: Counter,
    /// Calls to S3.
    pub s3_calls: Family<Call, Histogram>,
    /// How far S3's clock is ahead of this machine's.
    pub s3_clock_ahead: Real,
    /// When the credentials for S3 end, in Unix time; 0 when they do not.
    pub s3_credentials_end: Real,
    /// Times that fresh credentials for S3 could not be had.
    pub s3_credential_failures: Counter,
    /// Commands to MongoDB.
    pub mongodb_commands: Family<Command, Histogram>,
    /// Connections to MongoDB that are open.
    pub mongodb_connections: Gauge,
    /// Connections to MongoDB that are in use.
    pub mongodb_connections_used: Gauge,
    /// Calls that wait for a connection to MongoDB.
    pub mongodb_connections_waiting: Gauge,
    /// The most connections to one server of MongoDB.
    pub mongodb_connections_max: Gauge,
    /// Passwords that are being hashed.
    pub hashes_running: Gauge,
    /// Passwords that wait to be hashed.
    pub hashes_waiting: Gauge,
    /// Passwords that were refused because too many waited.
    pub hashes_refused: Counter,
    /// Outcomes of sweeps.
    pub swept: Family<Kind, Counter>,
    /// Images that were due at the end of the last sweep, at most a thousand are counted.
    pub sweep_backlog: Gauge,
    /// How long the image that is due longest has been so, at the end of the last sweep.
    pub sweep_lag: Real,
    /// Images whose sweep, and accounts whose deletion fails in a way that needs an operator, at most a thousand of each are counted.
    pub sweep_stuck: Gauge,
    /// Deleted objects whose versions the store retains.
    pub retained: Counter,
    /// When the last sweep went through, in Unix time.
    pub swept_at: Real,
    /// Spans of traces, by what became of them: one of [`SPANS`].
    pub spans: Family<Kind, Counter>,
    /// Tasks of the runtime.
    pub tasks: Gauge,
}

/// From a cache's answer to the longest a request may take.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Phase in which a slow client missed its deadline.
pub const TOO_SLOW: [&str; 4] = ["header", "body", "answer", "idle"];

/// Fate of a span: exported, refused by the collector, or dropped because the queue was full.
pub const SPANS: [&str; 3] = ["exported", "failed", "dropped"];

/// Outcome of a sweep for one image.
pub const SWEPT: [&str; 8] = ["confirmed", "rejected", "expired", "purged", "gone", "holds", "accounts", "failed"];

/// Each at zero: what is absent until it happens cannot be seen to begin.
fn kinds(names: &[&'static str]) -> Family<Kind, Counter> {
    let family = Family::default();
    for kind in names {
        drop(family.get_or_create(&Kind { kind }));
    }
    family
}

fn durations<L: Clone + Eq + Hash>() -> Family<L, Histogram> {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

/// What is registered; the instrument is told where it is made.
struct Register(Registry);

impl Register {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    /// In seconds.
    fn seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.with_unit(name, help, Unit::Seconds, metric)
    }

    /// In a unit, which its name then says.
    fn with_unit<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Unit, metric: M) -> M {
        self.0.register_with_unit(name, help, unit, metric.clone());
        metric
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut of = Register(Registry::with_prefix("valet"));
        of.0.register("build", "Which version runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let mut process = Registry::default();
        process.register_collector(Box::new(process::Process));
        let signed = of.add("signed", "URLs and forms signed, by HTTP method", kinds(&["GET", "PUT", "POST", "DELETE", "HEAD"]));
        let states = kinds(&ImageState::ALL.map(ImageState::as_str));
        Self {
            requests: of.seconds("http_request_duration", "Requests, by route, method and status", durations()),
            in_flight: of.add("http_requests_in_flight", "Requests under way", Gauge::default()),
            connections: of.add("http_connections", "Connections of clients", Gauge::default()),
            connections_refused: of.add(
                "http_connections_refused",
                "Connections refused: too many were open",
                Counter::default(),
            ),
            connections_timed_out: of.add("http_connections_timed_out", "Connections of slow clients closed", kinds(&TOO_SLOW)),
            shed: of.add("http_requests_shed", "Requests answered 503: too many were under way", Counter::default()),
            images: of.add("images", "Images that came into a state", states),
            images_present: of.add("images_present", "Images by state, estimated from a sample", Family::default()),
            image_bytes: of.with_unit(
                "image",
                "Bytes of quota by state, estimated from a sample",
                Unit::Bytes,
                Family::default(),
            ),
            accounts: of.add("accounts", "Accounts, by the database's own estimate", Gauge::default()),
            quota_refusals: of.add("quota_refusals", "Uploads refused for a full quota", Counter::default()),
            signed_gets: signed.get_or_create_owned(&Kind { kind: "GET" }),
            signed,
            s3_calls: of.seconds("s3_call_duration", "Calls to S3, retries included", durations()),
            s3_clock_ahead: of.seconds("s3_clock_ahead", "How far S3's clock is ahead of ours", Real::default()),
            s3_credentials_end: of.seconds("s3_credentials_end", "Unix time at which credentials for S3 end", Real::default()),
            s3_credential_failures: of.add("s3_credential_failures", "Fresh credentials could not be had", Counter::default()),
            mongodb_commands: of.seconds("mongodb_command_duration", "Commands to MongoDB", durations()),
            mongodb_connections: of.add("mongodb_connections", "Connections to MongoDB", Gauge::default()),
            mongodb_connections_used: of.add("mongodb_connections_used", "Connections to MongoDB in use", Gauge::default()),
            mongodb_connections_waiting: of.add("mongodb_connections_waiting", "Calls that wait for one", Gauge::default()),
            mongodb_connections_max: of.add("mongodb_connections_max", "The most to one server of MongoDB", Gauge::default()),
            hashes_running: of.add("password_hashes_running", "Passwords that are being hashed", Gauge::default()),
            hashes_waiting: of.add("password_hashes_waiting", "Passwords that wait to be hashed", Gauge::default()),
            hashes_refused: of.add("password_hashes_refused", "Passwords refused because too many waited", Counter::default()),
            swept: of.add("swept", "What sweeps settled", kinds(&SWEPT)),
            sweep_backlog: of.add("sweep_backlog", "Images due after the last sweep, up to 1000", Gauge::default()),
            sweep_lag: of.seconds("sweep_lag", "How long the image due longest has been so", Real::default()),
            sweep_stuck: of.add(
                "sweep_stuck_objects",
                "Images and deleted accounts that cannot be swept for good, up to 1000 of each",
                Gauge::default(),
            ),
            retained: of.add("retained_objects", "Deletes of objects whose versions the store retains", Counter::default()),
            swept_at: of.seconds("sweep_finished", "Unix time of the last sweep that went through", Real::default()),
            spans: of.add("trace_spans", "Spans of traces, by what became of them", kinds(&SPANS)),
            tasks: of.add("tasks", "Tasks of the runtime", Gauge::default()),
            registry: of.0,
            process,
        }
    }
}

impl Metrics {
    /// Counts one of a kind.
    pub fn count(family: &Family<Kind, Counter>, kind: &'static str, by: u64) {
        if by > 0 {
            family.get_or_create(&Kind { kind }).inc_by(by);
        }
    }

    /// Records how long a call to S3 took.
    pub fn s3_call(&self, operation: &str, status: Option<u16>, took: Duration) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.s3_calls.get_or_create(&Call { operation: operation.to_owned(), status }).observe(took.as_secs_f64());
    }

    /// Records how long a command to MongoDB took.
    pub fn mongodb_command(&self, command: &str, outcome: &'static str, took: Duration) {
        let command = Command { command: command.to_owned(), outcome };
        self.mongodb_commands.get_or_create(&command).observe(took.as_secs_f64());
    }

    /// Returns all of it, of type [`MEDIA_TYPE`].
    #[must_use]
    pub fn text(&self) -> String {
        let mut all = String::new();
        // Writing to a String fails never.
        let _ = text::encode_registry(&mut all, &self.registry);
        let _ = text::encode_registry(&mut all, &self.process);
        let _ = text::encode_eof(&mut all);
        all
    }
}
