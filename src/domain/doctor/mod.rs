//! The doctor (`valet check`): probes whether the configured database and bucket give the guarantees that Valet needs.
//!
//! Every guarantee is probed, even a documented one. Probes write under `check/<uuid>` in the bucket and to a collection
//! `check-<uuid>`, and remove their data afterwards. Some rules are about clocks, so unlike in the other use cases the time is not
//! always a parameter.
//!
//! `rules` lists the rules. Their probes: `uploads` (PUTs, such as a second one under If-None-Match), `probe_matrix`,
//! `deviation_probes` and `unsigned` (requests that differ from what was signed), `objects`, `multipart`, `settings` (CORS,
//! lifecycle, access block, and `--fix`), `imgproxy`, `workers`, `notifications` and `database`. `probe_context` makes and removes
//! the objects, whose names `probe_names` lists; `report` writes the result.

mod database;
mod deviation_probes;
mod imgproxy;
mod multipart;
mod notifications;
mod objects;
mod probe_context;
mod probe_matrix;
mod probe_names;
mod report;
pub mod rules;
mod settings;
mod unsigned;
mod uploads;
mod workers;

use std::{future::Future, time::Duration};

use time::OffsetDateTime;

pub use report::{Answer, Finding, Report, Rule, Severity, Verdict};

use self::probe_context::ProbeContext;
use super::{
    deployment::{self, Pair, PairError, RestoredSide},
    identity_provider::fetch_keys,
    store_capabilities::{StoreCapabilities, UnsignedHeaders},
};
use crate::{
    config::{Config, Problems},
    model::DeploymentId,
    store::{
        Objects, StoreError,
        database_probe::DatabaseProbe,
        objects::{Diagnosis, http_probe::ProbeClient, settings::Setting},
    },
};

/// Maximum difference between two clocks, beside the duration of the response.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// Time limit of the probes. Shorter than the age at which later checks remove the objects.
const CHECK_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// Actions besides probing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether to set CORS, the public access block, the lifecycle rule and notifications before probing.
    pub fix: bool,
    /// Whether loopback origins may upload too, for development.
    pub loopback: bool,
}

/// Returns the report for settings that cannot be read, without which no other rule can be checked.
#[must_use]
pub fn unreadable(problems: &Problems) -> Report {
    let mut report = Report::default();
    report.add(&rules::SETTINGS, Answer::No(problems.list().join("; ")));
    complete(report, "depends on a failed check")
}

/// Checks the database and the bucket. Takes some seconds; every call has a time limit.
pub async fn run(config: &Config, options: Options) -> Report {
    run_until(config, options, std::future::pending()).await
}

/// Checks like [`run`], but stops probing when `stop` ends; the objects of the probes are removed nevertheless.
pub async fn run_until(config: &Config, options: Options, stop: impl Future<Output = ()>) -> Report {
    let reached = connect(config).await;
    let pair = match &reached {
        Ok(reached) => Some(examine_pair(config, &reached.objects).await),
        Err(_) => None,
    };
    let mut report = Report::default();
    report.add(&rules::SETTINGS, Answer::Yes(String::new()));
    if let Some(Err(error)) = &pair
        && error.is_mismatch()
    {
        // Nothing is written to the bucket of another deployment, and its settings are not changed.
        report.add(&rules::PAIR, Answer::No(error.to_string()));
        return complete(report, "the bucket belongs to another deployment");
    }
    let bucket = async {
        match reached {
            Ok(reached) => examine_bucket(&reached, config, options, stop, &mut report).await,
            Err(unusable) => unusable.add_to(&mut report),
        }
    };
    let workers = workers::examine(config, OffsetDateTime::now_utc());
    let (database, (), provider, workers) =
        tokio::join!(database::examine(&config.mongo), bucket, examine_provider(config), workers);
    report.findings.extend(database.findings);
    report.add(&rules::PROVIDER, provider);
    report.add(&rules::WORKERS, workers);
    let is_reachable = |rule: &Rule| matches!(report.answer(rule.name), Some(Answer::Yes(_)));
    match pair {
        None => {}
        Some(Ok(Some((id, pair)))) => {
            report.add(&rules::PAIR, Answer::Yes(id.to_string()));
            report.add(&rules::STAMPS, stamps_answer(pair));
        }
        Some(Ok(None)) => report.add(&rules::PAIR, Answer::Skipped("the first start of a server pairs them".to_owned())),
        // A server would not start either. If the database is unreachable, its own rule reports that.
        Some(Err(error)) if is_reachable(&rules::DATABASE) => report.add(&rules::PAIR, Answer::No(error.to_string())),
        Some(Err(error)) => report.add(&rules::PAIR, Answer::Skipped(error.to_string())),
    }
    complete(report, "depends on a failed check")
}

/// Adds the rules that were not checked, with the reason `skipped`, and sorts the findings.
fn complete(mut report: Report, skipped: &str) -> Report {
    for rule in rules::ALL {
        if report.answer(rule.name).is_none() {
            report.add(rule, Answer::Skipped(report.cut_short.unwrap_or(skipped).to_owned()));
        }
    }
    report.findings.sort_by_key(|finding| rules::ALL.iter().position(|rule| *rule == finding.rule));
    report
}

/// Checks that bucket and database belong together. Writes no id: the first start of a server does.
async fn examine_pair(config: &Config, objects: &Objects) -> Result<Option<(DeploymentId, Pair)>, PairError> {
    deployment::examine(&DatabaseProbe::open(&config.mongo).await?, objects).await
}

/// Returns the answer of the rule about stamps.
fn stamps_answer(pair: Pair) -> Answer {
    match pair.restored_side() {
        Some(RestoredSide::Database) => Answer::No(format!("the database was restored from a backup: {}", pair.stamps)),
        Some(RestoredSide::Bucket) => Answer::No(format!("the bucket was restored from a backup: {}", pair.stamps)),
        None if pair.stamps.bucket.is_none() => Answer::Skipped("no server has stamped them yet".to_owned()),
        None => Answer::Yes(pair.stamps.to_string()),
    }
}

/// Checks that the identity provider's keys can be fetched.
async fn examine_provider(config: &Config) -> Answer {
    let Some(provider) = &config.accounts.provider else { return Answer::Skipped("OIDC_ISSUER is not set".to_owned()) };
    match fetch_keys(provider).await {
        Ok(keys) => Answer::Yes(format!("{} keys", keys.count())),
        Err(reason) => Answer::No(reason),
    }
}

/// A bucket that answers.
struct Reached {
    objects: Objects,
    http: ProbeClient,
    /// The bucket's region, if the store reports it.
    region: Option<String>,
}

/// Why a bucket cannot be checked.
enum Unusable {
    /// The client could not be created.
    NoClient(StoreError),
    /// The bucket does not answer, or refuses.
    Refused(Diagnosis),
}

impl Unusable {
    /// Adds the findings about the bucket.
    fn add_to(&self, report: &mut Report) {
        match self {
            Self::NoClient(error) => report.add(&rules::CREDENTIALS, Answer::No(error.to_string())),
            Self::Refused(diagnosis) => {
                report.add(&rules::CREDENTIALS, Answer::Yes(String::new()));
                report.add_cause(&rules::BUCKET, diagnosis.to_string(), diagnosis.remedy(), details(diagnosis));
            }
        }
    }
}

/// Connects to the bucket, and reads its region.
async fn connect(config: &Config) -> Result<Reached, Unusable> {
    let objects = Objects::connect(&config.s3).await.map_err(Unusable::NoClient)?;
    let http = objects.probe_client().map_err(Unusable::NoClient)?;
    let region = objects.diagnose().await.map_err(Unusable::Refused)?;
    Ok(Reached { objects, http, region })
}

/// Checks the bucket until `stop` or [`CHECK_DEADLINE`], then removes the objects of the probes.
async fn examine_bucket(
    reached: &Reached,
    config: &Config,
    options: Options,
    stop: impl Future<Output = ()>,
    report: &mut Report,
) {
    report.add(&rules::CREDENTIALS, Answer::Yes(String::new()));
    report.add(&rules::BUCKET, Answer::Yes(config.s3.bucket.to_string()));
    report.add(&rules::REGION, region_answer(reached));
    let context = ProbeContext::new(&reached.objects, reached.http.clone(), OffsetDateTime::now_utc());
    let cut_short = tokio::select! {
        () = run_checks(&context, config, options, report) => None,
        () = stop => Some("the check was interrupted"),
        () = tokio::time::sleep(CHECK_DEADLINE) => Some("the check took too long"),
    };
    report.cut_short = cut_short;
    report.add(&rules::CLEAN, answer_or_no(context.clean().await));
}

/// Changes the bucket's settings if the options say so, and checks all rules that need the bucket.
async fn run_checks(context: &ProbeContext<'_>, config: &Config, options: Options, report: &mut Report) {
    let retention = context.prober.default_retention().await;
    let is_retained = matches!(retention, Ok(Setting::Set(_)));
    report.add(
        &rules::RETENTION,
        match retention {
            Ok(Setting::Set(retention)) => Answer::No(retention),
            Ok(Setting::Unset | Setting::Unsupported) => Answer::Yes(String::new()),
            Ok(Setting::Denied) => Answer::Skipped("the credentials lack permission to read it".to_owned()),
            Err(error) => Answer::Skipped(error.to_string()),
        },
    );
    if is_retained {
        // Objects of probes could not be removed.
        return;
    }
    if options.fix {
        settings::fix(context, config, options, report).await;
        report.changes.extend(notifications::fix(context, &config.store_events).await);
    }
    uploads::examine(context, config.uploads.max_bytes, report).await;
    multipart::examine(context, report).await;
    settings::examine(context, config, options, report).await;
    imgproxy::examine(context, config, report).await;
    report.add(&rules::NOTIFICATIONS, notifications::examine(context, &config.store_events).await);
}

/// Returns the answer of the rule about the bucket's region.
fn region_answer(reached: &Reached) -> Answer {
    let ours = reached.objects.region();
    match reached.region.clone() {
        None => Answer::Skipped("the store does not report it".to_owned()),
        Some(region) if region == ours => Answer::Yes(region),
        Some(region) => Answer::No(format!("the bucket is in {region}, requests are signed for {ours}")),
    }
}

/// Returns the values of a diagnosis for the JSON report, by name.
fn details(diagnosis: &Diagnosis) -> Vec<(&'static str, String)> {
    let Diagnosis { address, status, code, message, request_id, .. } = diagnosis;
    let values = [
        ("address", Some(address.clone())),
        ("httpStatus", status.map(|status| status.to_string())),
        ("s3Code", code.clone()),
        ("s3Message", message.clone()),
        ("s3RequestId", request_id.clone()),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Probes how the store treats requests that deviate from their signature, through its internal endpoint and with the same
/// probes as [`run`]. Probing takes at most `deadline`, and so does removing its objects.
///
/// # Errors
/// [`StoreError`] when the probes have no result: a store that refuses every request proves nothing.
pub async fn probe_capabilities(
    objects: &Objects,
    now: OffsetDateTime,
    deadline: Duration,
) -> Result<StoreCapabilities, StoreError> {
    probe_within(objects, now, deadline, async |context| uploads::probe_capabilities(context).await).await
}

/// Runs the part of [`probe_capabilities`] that decides which uploads are opened.
///
/// # Errors
/// [`StoreError`] when the probes have no result.
pub async fn probe_unsigned_headers(
    objects: &Objects,
    now: OffsetDateTime,
    deadline: Duration,
) -> Result<UnsignedHeaders, StoreError> {
    probe_within(objects, now, deadline, async |context| unsigned::probe_headers(context).await).await
}

/// Runs a probe through the internal endpoint, for `deadline` at most, then removes its objects within the same time.
async fn probe_within<T>(
    objects: &Objects,
    now: OffsetDateTime,
    deadline: Duration,
    probe: impl AsyncFnOnce(&ProbeContext<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let inside = objects.for_internal_use();
    let context = ProbeContext::new(&inside, objects.probe_client()?, now);
    let late = || StoreError::ObjectsTimeout { operation: "presigned PUT" };
    let found = tokio::time::timeout(deadline, probe(&context)).await.unwrap_or_else(|_| Err(late()));
    let cleaned = tokio::time::timeout(deadline, context.clean()).await;
    if let Err(error) = cleaned.unwrap_or_else(|_| Err(StoreError::ObjectsTimeout { operation: "DeleteObject" })) {
        tracing::warn!(%error, "failed to remove objects under check/; the next check retries");
    }
    found
}

/// Returns the answer of a probe; a probe that failed answers no.
fn answer_or_no(answer: Result<Answer, StoreError>) -> Answer {
    answer.unwrap_or_else(|error| Answer::No(error.to_string()))
}

/// Returns yes if the condition holds, else no, with the observation.
fn answer_if(condition: bool, seen: impl Into<String>) -> Answer {
    if condition { Answer::Yes(seen.into()) } else { Answer::No(seen.into()) }
}

/// Compares another clock with the server's; `took` is the duration of the response.
fn compare_clocks(theirs: OffsetDateTime, ours: OffsetDateTime, took: Duration) -> Answer {
    let ahead = theirs - ours;
    let apart = Duration::try_from(ahead.abs()).unwrap_or(Duration::MAX);
    let direction = if ahead.is_negative() { "behind" } else { "ahead" };
    answer_if(apart <= CLOCK_TOLERANCE + took, format!("{:.1} s {direction}", apart.as_secs_f64()))
}
