//! Checks the bucket's settings: CORS, lifecycle rules and the public access block, and sets them with `--fix`.

use bytes::Bytes;

use super::{
    Answer, Options, Report, answer_if, answer_or_no,
    probe_context::{BODY, ProbeContext},
    rules,
};
use crate::{
    config::Config,
    signer::PresignRequest,
    store::{
        StoreError,
        objects::{
            http_probe::Method,
            lifecycle::{AffectedKeys, BucketLifecycle},
            settings::{AccessBlock, Change, Setting},
        },
    },
};

/// Origins of development pages, as they are set in the bucket's CORS. `*` is S3's wildcard, for a port. Apps in web views use
/// `localhost` without a port.
const LOOPBACK: [&str; 6] = [
    "http://localhost",
    "http://localhost:*",
    "http://127.0.0.1:*",
    "http://[::1]:*",
    "https://localhost",
    "https://localhost:*",
];
/// Origins that are probed in their place.
const LOOPBACK_PAGES: [&str; 2] = ["http://localhost:3000", "http://127.0.0.1:3000"];

/// Sets CORS, the lifecycle rule and the public access block, and adds a line for each to the report.
pub(super) async fn fix(context: &ProbeContext<'_>, config: &Config, options: Options, report: &mut Report) {
    let mut origins = config.cors.exact.clone();
    if options.loopback {
        origins.extend(LOOPBACK.map(str::to_owned));
    }
    report.changes.push(if origins.is_empty() {
        "CORS: not changed, CORS_ORIGINS is empty".to_owned()
    } else {
        outcome("CORS", context.objects.set_allowed_origins(&origins).await)
    });
    let days = abandoned_after(config);
    report.changes.push(outcome("lifecycle rule for abandoned multiparts", context.objects.abort_abandoned_after(days).await));
    report.changes.push(outcome("public access block", block_access(context).await));
}

/// Describes a change.
pub(super) fn outcome(setting: &str, change: Result<Change, StoreError>) -> String {
    match change {
        Ok(Change::Made) => format!("{setting}: set"),
        Ok(Change::None) => format!("{setting}: was set already"),
        Ok(Change::Unsupported) => format!("{setting}: this store has no such setting"),
        Err(error) => format!("{setting}: not set: {error}"),
    }
}

/// Sets the public access block. Ceph RGW refuses every PUT once `BlockPublicAcls` is set; the other three flags suffice then. If
/// these three are set already, nothing is changed: an attempt with all four could make uploads of clients fail meanwhile.
async fn block_access(context: &ProbeContext<'_>) -> Result<Change, StoreError> {
    if matches!(context.objects.access_block().await, Ok(Setting::Set(block)) if block.suffices()) {
        return Ok(Change::None);
    }
    let before = context.put(&context.key("before-block"), |_| {}).await?;
    let change = context.objects.set_access_block(AccessBlock::ALL).await?;
    if change == Change::Made && before.is_success() && !context.put(&context.key("after-block"), |_| {}).await?.is_success() {
        return context.objects.set_access_block(AccessBlock { block_acls: false, ..AccessBlock::ALL }).await;
    }
    Ok(change)
}

/// Checks the rules about the bucket's settings.
pub(super) async fn examine(context: &ProbeContext<'_>, config: &Config, options: Options, report: &mut Report) {
    let mut origins: Vec<_> = config.cors.exact.iter().map(String::as_str).collect();
    if options.loopback {
        origins.extend(LOOPBACK_PAGES);
    }
    if origins.is_empty() {
        for rule in [&rules::CORS, &rules::EXPOSED] {
            report.add(rule, Answer::Skipped("CORS_ORIGINS is empty: no page of another origin uploads".to_owned()));
        }
    } else {
        report.add(&rules::CORS, answer_or_no(preflights(context, &origins).await));
        report.add(&rules::EXPOSED, answer_or_no(exposes_etag(context, &origins).await));
    }
    lifecycle(context, abandoned_after(config), report).await;
    let blocked = match context.objects.access_block().await {
        Ok(Setting::Set(block)) => {
            answer_if(block.suffices(), if block == AccessBlock::ALL { "all four flags" } else { "not all flags" })
        }
        Ok(Setting::Unset) => Answer::No("none".to_owned()),
        other => Answer::Skipped(unknown(other)),
    };
    report.add(&rules::ACCESS_BLOCK, blocked);
}

/// Checks the lifecycle rules. Uploads are open for less than `needed` days.
async fn lifecycle(context: &ProbeContext<'_>, needed: i32, report: &mut Report) {
    let found = match context.objects.lifecycle_effects().await {
        Ok(Setting::Set(found)) => found,
        Ok(Setting::Unset) => BucketLifecycle::default(),
        other => {
            let why = unknown(other);
            for rule in [&rules::LIFECYCLE, &rules::LIFECYCLE_EARLY, &rules::EXPIRING, &rules::ARCHIVING] {
                report.add(rule, Answer::Skipped(why.clone()));
            }
            return;
        }
    };
    let after = |days: Option<i32>, none: &str| days.map_or_else(|| none.to_owned(), |days| format!("after {days} days"));
    let no_rule = if found.aborts_any_after.is_some() { "no rule for all of them" } else { "no rule" };
    report.add(&rules::LIFECYCLE, answer_if(found.aborts_all_after.is_some(), after(found.aborts_all_after, no_rule)));
    let is_early = found.aborts_any_after.is_some_and(|days| days < needed);
    report.add(&rules::LIFECYCLE_EARLY, answer_if(!is_early, after(found.aborts_any_after, "no rule")));
    // An upload that is older than `needed` days is never confirmed, so a rule may delete it.
    let expires_after_use =
        |affected: &AffectedKeys| affected.prefixes == ["in/"] && affected.days.is_some_and(|days| days >= needed);
    let expiring: Vec<_> = found.expiring.iter().filter(|affected| !expires_after_use(affected)).map(describe).collect();
    let archiving: Vec<_> = found.archiving.iter().map(describe).collect();
    for (rule, affected) in [(&rules::EXPIRING, expiring), (&rules::ARCHIVING, archiving)] {
        report.add(rule, answer_if(affected.is_empty(), affected.join("; ")));
    }
}

/// Returns a lifecycle rule with its prefixes and time as a text.
fn describe(AffectedKeys { rule, prefixes, days }: &AffectedKeys) -> String {
    let when = days.map_or_else(|| "at a date".to_owned(), |days| format!("after {days} days"));
    format!("rule {rule:?}: {} {when}", prefixes.join(", "))
}

/// Returns why a setting is unknown.
pub(super) fn unknown<T>(setting: Result<Setting<T>, StoreError>) -> String {
    match setting {
        Ok(Setting::Denied) => "the credentials lack permission to read it".to_owned(),
        Ok(_) => "the store has no such setting".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Returns the days after which an upload is certainly closed, in S3's whole days: no lifecycle rule may abort one sooner.
fn abandoned_after(config: &Config) -> i32 {
    let longest = config.uploads.ttl.max(config.uploads.multipart_ttl).as_secs();
    i32::try_from(longest.div_ceil(24 * 60 * 60) + 1).unwrap_or(i32::MAX)
}

/// Checks that each origin may send a PUT with the headers of an upload.
async fn preflights(context: &ProbeContext<'_>, origins: &[&str]) -> Result<Answer, StoreError> {
    let presigned = context.presigned_put(&context.key("preflight"), BODY)?;
    let names: Vec<_> = presigned.headers.iter().map(|(name, _)| *name).collect();
    let put_headers = names.join(",");
    let mut refused = Vec::new();
    for origin in origins {
        let headers = [
            ("origin", *origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", put_headers.as_str()),
        ];
        let answer = context.http.send(Method::OPTIONS, &presigned.url, &headers, Bytes::new()).await?;
        let allows = |name: &str, wanted: &str| answer.list(name).iter().any(|item| item == "*" || item == wanted);
        let missing: Vec<_> = names.iter().copied().filter(|header| !allows("access-control-allow-headers", header)).collect();
        let is_allowed = ["*", *origin].contains(&answer.header("access-control-allow-origin"));
        if !answer.is_success() || !is_allowed || !allows("access-control-allow-methods", "put") {
            refused.push(format!("{origin} ({})", answer.describe()));
        } else if !missing.is_empty() {
            refused.push(format!("{origin} (without {})", missing.join(", ")));
        }
    }
    let seen = if refused.is_empty() { origins.join(", ") } else { refused.join(", ") };
    Ok(answer_if(refused.is_empty(), seen))
}

/// Checks that pages of each origin may read the entity tag.
async fn exposes_etag(context: &ProbeContext<'_>, origins: &[&str]) -> Result<Answer, StoreError> {
    let key = context.key("exposed");
    context.put(&key, |_| {}).await?;
    let url = context.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &[] })?;
    let mut hidden = Vec::new();
    for origin in origins {
        let answer = context.get(&url, &[("origin", origin)]).await?;
        if !answer.list("access-control-expose-headers").iter().any(|item| item == "*" || item == "etag") {
            hidden.push(*origin);
        }
    }
    Ok(answer_if(hidden.is_empty(), if hidden.is_empty() { String::new() } else { format!("not to {}", hidden.join(", ")) }))
}
