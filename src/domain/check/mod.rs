//! The doctor: whether the configured database and bucket give what Valet's promises rest on, found out by trying.
//!
//! Nothing is believed for being documented. What is written lies under `check/<uuid>` in the bucket and in a collection
//! `check-<uuid>`, and is removed. Clocks are what some rules are about, so unlike in the other use cases the time is not
//! a parameter everywhere.

mod database;
mod kinds;
mod lab;
mod multipart;
mod names;
mod objects;
mod report;
pub mod rules;
mod settings;
mod trial;
mod unsigned;
mod uploads;

use std::time::Duration;

use time::OffsetDateTime;

pub use report::{Answer, Finding, Report, Rule, Severity};

use self::lab::Lab;
use super::{
    deployment::{self, PairError},
    finalize::{Guarantees, Unsigned},
    provider::fetch_keys,
};
use crate::{
    config::Config,
    model::DeploymentId,
    store::{Objects, StoreError, objects::wire::Wire, probe::DatabaseProbe},
};

/// Two clocks that differ by more than this do not agree. A `Date` header counts in whole seconds.
const SKEW: Duration = Duration::from_secs(30);

/// What to do besides asking.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Set CORS, the public access block and the lifecycle rule first.
    pub fix: bool,
    /// Loopback origins may upload too: for development.
    pub loopback: bool,
}

/// Examines the database and the bucket. Takes some seconds; every call has its deadline.
pub async fn run(config: &Config, options: Options) -> Report {
    let pair = examine_pair(config).await;
    if let Err(error) = &pair
        && error.is_mismatch()
    {
        // Another deployment's bucket is not written to, and its settings are not changed.
        let mut report = Report::default();
        report.add(&rules::PAIR, Answer::No(error.to_string()));
        return complete(report, "the bucket belongs to another deployment");
    }
    let (database, bucket, provider) =
        tokio::join!(database::examine(&config.mongo), examine_bucket(config, options), examine_provider(config));
    let mut report = bucket;
    report.findings.extend(database.findings);
    report.add(&rules::PROVIDER, provider);
    let is_reachable = |rule: &Rule| matches!(report.answer(rule.name), Some(Answer::Yes(_)));
    let pair = match pair {
        Ok(Some(id)) => Answer::Yes(id.to_string()),
        Ok(None) => Answer::Skipped("the first start of a server ties them".to_owned()),
        // The server would not start either. Where a part is out of reach, the rule about that part says so.
        Err(error) if is_reachable(&rules::DATABASE) && is_reachable(&rules::BUCKET) => Answer::No(error.to_string()),
        Err(error) => Answer::Skipped(error.to_string()),
    };
    report.add(&rules::PAIR, pair);
    complete(report, "depends on a failed check")
}

/// Adds the rules that were not examined, and sorts.
fn complete(mut report: Report, skipped: &str) -> Report {
    for rule in rules::ALL {
        if report.answer(rule.name).is_none() {
            report.add(rule, Answer::Skipped(skipped.to_owned()));
        }
    }
    report.findings.sort_by_key(|finding| rules::ALL.iter().position(|rule| *rule == finding.rule));
    report
}

/// Judges the pair. Writes no id: that is for the first start of a server.
async fn examine_pair(config: &Config) -> Result<Option<DeploymentId>, PairError> {
    let (database, objects) = tokio::try_join!(DatabaseProbe::open(&config.mongo), Objects::connect(&config.s3))?;
    deployment::examine(&database, &objects).await
}

async fn examine_provider(config: &Config) -> Answer {
    let Some(provider) = &config.accounts.provider else { return Answer::Skipped("OIDC_ISSUER is not set".to_owned()) };
    match fetch_keys(provider).await {
        Ok(keys) => Answer::Yes(format!("{} keys", keys.count())),
        Err(reason) => Answer::No(reason),
    }
}

async fn examine_bucket(config: &Config, options: Options) -> Report {
    let mut report = Report::default();
    let connected = async { Ok::<_, StoreError>((Objects::connect(&config.s3).await?, Wire::new()?)) };
    let (objects, wire) = match connected.await {
        Ok(connected) => connected,
        Err(error) => {
            report.add(&rules::CREDENTIALS, Answer::No(error.to_string()));
            return report;
        }
    };
    report.add(&rules::CREDENTIALS, Answer::Yes(String::new()));
    if let Err(error) = objects.probe().await {
        report.add(&rules::BUCKET, Answer::No(error.to_string()));
        return report;
    }
    report.add(&rules::BUCKET, Answer::Yes(config.s3.bucket.clone()));

    let lab = Lab::new(&objects, wire, OffsetDateTime::now_utc());
    if options.fix {
        settings::fix(&lab, config, options.loopback, &mut report).await;
    }
    uploads::examine(&lab, &mut report).await;
    multipart::examine(&lab, &mut report).await;
    settings::examine(&lab, config, options.loopback, &mut report).await;
    report.add(&rules::CLEAN, settled(lab.clean().await));
    report
}

/// What the store does about requests that are not as they were signed, asked at its inner address and by the same questions.
/// Asking takes no longer than `within`, and so does cleaning up.
///
/// # Errors
/// [`StoreError`] when nothing was found out: a store that refuses everything holds to nothing.
pub async fn guarantees(objects: &Objects, now: OffsetDateTime, within: Duration) -> Result<Guarantees, StoreError> {
    try_out(objects, now, within, async |lab| uploads::guarantees(lab).await).await
}

/// The part of [`guarantees`] that decides which uploads are issued.
///
/// # Errors
/// [`StoreError`] when nothing was found out.
pub async fn unsigned_headers(objects: &Objects, now: OffsetDateTime, within: Duration) -> Result<Unsigned, StoreError> {
    try_out(objects, now, within, async |lab| unsigned::unsigned(lab).await).await
}

async fn try_out<T>(
    objects: &Objects,
    now: OffsetDateTime,
    within: Duration,
    ask: impl AsyncFnOnce(&Lab<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let inside = objects.from_inside();
    let lab = Lab::new(&inside, Wire::new()?, now);
    let late = || StoreError::ObjectsTimeout { operation: "presigned PUT" };
    let found = tokio::time::timeout(within, ask(&lab)).await.unwrap_or_else(|_| Err(late()));
    let cleaned = tokio::time::timeout(within, lab.clean()).await;
    if let Err(error) = cleaned.unwrap_or_else(|_| Err(StoreError::ObjectsTimeout { operation: "DeleteObject" })) {
        tracing::warn!(%error, "objects under check/ are left to the next check");
    }
    found
}

/// A question that got no answer is answered no.
fn settled(answer: Result<Answer, StoreError>) -> Answer {
    answer.unwrap_or_else(|error| Answer::No(error.to_string()))
}

fn holds(condition: bool, seen: impl Into<String>) -> Answer {
    if condition { Answer::Yes(seen.into()) } else { Answer::No(seen.into()) }
}

/// How far another clock is from ours, said and judged; `took` is how long its answer was on the way.
fn clock(theirs: OffsetDateTime, ours: OffsetDateTime, took: Duration) -> Answer {
    let ahead = theirs - ours;
    let apart = Duration::try_from(ahead.abs()).unwrap_or(Duration::MAX);
    let way = if ahead.is_negative() { "behind" } else { "ahead" };
    holds(apart <= SKEW + took, format!("{:.1} s {way}", apart.as_secs_f64()))
}
