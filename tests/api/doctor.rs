//! Covers `valet check`: on the run's servers it confirms every rule, and it reports every planted defect of a store.
//!
//! Commands: valet check.

mod causes;
mod cleanup;
mod gateway_pages;
mod json;
mod lifecycle;
pub mod store_defects;

use std::time::Duration;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
};
use valet::domain::doctor::{self, Answer, Options, Report, Severity, rules};

use super::app::{TestApp, skip_unless_local_s3};
use futures_util::{StreamExt, stream};
use store_defects::{Defect, Proxy};

/// The only origin in the server's settings.
const ORIGIN: &str = "https://app.example";

/// Starts a server whose only allowed origin is [`ORIGIN`].
async fn app() -> TestApp {
    TestApp::start_with(|config| config.cors.exact = vec![ORIGIN.to_owned()]).await
}

/// Runs all probes and prints the report.
async fn run_check(app: &TestApp) -> Report {
    let report = doctor::run(&app.config, Options::default()).await;
    println!("{report}");
    report
}

/// Removes the public access block, with which AWS and LocalStack create each bucket. The local S3 creates none, and cannot remove
/// one.
async fn without_access_block(app: &TestApp) {
    let _ = app.s3.delete_public_access_block().bucket(&app.config.s3.bucket).send().await;
}

/// Returns whether the store knows public access blocks; Garage does not, and answers 501.
async fn has_access_block(app: &TestApp) -> bool {
    let setting = app.s3.get_public_access_block().bucket(&app.config.s3.bucket).send().await;
    setting.err().and_then(|error| error.raw_response().map(|answer| answer.status().as_u16())) != Some(501)
}

/// Returns the names of the rules that are answered with no.
fn failed_rules(report: &Report) -> Vec<&'static str> {
    let is_no = |finding: &&doctor::Finding| matches!(finding.answer, Answer::No(_));
    report.findings.iter().filter(is_no).map(|finding| finding.rule.name).collect()
}

/// Rules that the development servers do not satisfy: mongod 6.0.5 is old, and the bucket is not configured.
const EXPECTED_FAILURES: [&str; 3] =
    ["MongoDB: without known holes", "bucket: abandoned multiparts aborted", "bucket: public access block"];

#[tokio::test]
async fn local_servers_satisfy_the_rules_and_nothing_is_left_behind() {
    if skip_unless_local_s3() {
        return;
    }
    let app = app().await;
    let report = run_check(&app).await;
    assert_eq!(failed_rules(&report), EXPECTED_FAILURES);
    assert!(report.is_sound());
    assert_eq!(report.findings.len(), rules::ALL.len(), "every rule has a line");
    assert_eq!(app.bucket_keys().await, Vec::<String>::new());
    let open = app.s3.list_multipart_uploads().bucket(&app.config.s3.bucket).send().await.unwrap();
    assert_eq!(open.uploads().len(), 0);
    let collections = app.db.list_collection_names().await.unwrap();
    assert!(!collections.iter().any(|name| name.starts_with("check")), "{collections:?}");
    let table = report.to_string();
    assert!(!table.contains("X-Amz-"), "no presigned query: {table}");
    // The answers of all lines are aligned in one column.
    let width = rules::ALL.iter().map(|rule| rule.name.chars().count()).max().unwrap();
    for line in table.lines().filter(|line| rules::ALL.iter().any(|rule| line.starts_with(rule.name))) {
        let column: String = line.chars().skip(width + 2).take(7).collect();
        assert!(["yes", "no", "skipped"].contains(&column.trim()), "{line}");
    }
}

#[tokio::test]
async fn objects_of_other_checks_and_programs_are_not_removed() {
    let app = app().await;
    app.bucket_put("check/another/object", "image/png", vec![1]).await;
    app.bucket_put("u/somebody/else", "image/png", vec![1]).await;
    run_check(&app).await;
    assert_eq!(app.bucket_keys().await, ["check/another/object", "u/somebody/else"], "another check may be running");
}

#[tokio::test]
async fn every_planted_defect_is_reported() {
    if skip_unless_local_s3() {
        return;
    }
    stream::iter(store_defects::ALL).for_each_concurrent(2, |(defect, expected)| assert_finds(*defect, expected)).await;
}

/// Asserts that a store with this defect fails exactly the `expected` rules.
async fn assert_finds(defect: Defect, expected: &[&str]) {
    let mut app = app().await;
    let proxy = Proxy::start(&app, defect).await;
    app.config.s3.public_endpoint = Some(proxy.endpoint.parse().unwrap());
    app.config.s3.endpoint = Some(proxy.endpoint.parse().unwrap());
    let report = run_check(&app).await;
    let mut found = failed_rules(&report);
    found.retain(|name| !EXPECTED_FAILURES.contains(name));
    assert_eq!(found, expected, "{defect:?}");
    let broken =
        report.findings.iter().any(|finding| expected.contains(&finding.rule.name) && finding.rule.severity == Severity::Broken);
    assert_eq!(report.is_sound(), !broken, "{defect:?}");
}

/// A store that rejects every request must not pass as one that rejects only invalid requests.
#[tokio::test]
async fn store_that_rejects_everything_satisfies_no_rule() {
    let mut app = app().await;
    let proxy = Proxy::start(&app, Defect::StripsIfNoneMatch).await;
    app.config.s3.public_endpoint = Some(proxy.endpoint.parse().unwrap());
    let report = run_check(&app).await;
    assert!(failed_rules(&report).contains(&"upload: presigned PUT accepted"));
    for name in ["upload: signature verified", "upload: checksum enforced", "object: anonymous access refused"] {
        assert!(matches!(report.answer(name), Some(Answer::Skipped(_))), "{name}");
    }
    assert!(!report.is_sound());
}

#[tokio::test]
async fn unreachable_database_and_wrong_keys_are_findings_not_errors() {
    let mut app = app().await;
    app.config.mongo.uri = "mongodb://user:canary@127.0.0.1:1/?directConnection=true".into();
    app.config.s3.bucket = "no-such-bucket".parse().unwrap();
    let report = run_check(&app).await;
    assert_eq!(failed_rules(&report), ["MongoDB: reachable", "S3: bucket reachable"]);
    assert_eq!(report.findings.len(), rules::ALL.len());
    assert!(matches!(report.answer("MongoDB: transaction"), Some(Answer::Skipped(_))));
    assert!(!report.is_sound() && !report.to_string().contains("canary"));
}

#[tokio::test]
async fn origin_missing_in_the_buckets_cors_is_named() {
    if skip_unless_local_s3() {
        return;
    }
    let mut app = app().await;
    app.config.cors.exact.push("https://other.example".to_owned());
    let report = run_check(&app).await;
    let Some(Answer::No(seen)) = report.answer("CORS: every origin may upload") else { panic!("{report}") };
    assert!(seen.contains("https://other.example") && !seen.contains(ORIGIN), "{seen}");
    assert!(!report.is_sound());
}

#[tokio::test]
async fn fix_adds_missing_settings_and_removes_none() {
    let app = app().await;
    if !has_access_block(&app).await {
        crate::skipping::skip("needs a store with public access blocks");
        return;
    }
    without_access_block(&app).await;
    let bucket = &app.config.s3.bucket;
    let foreign = LifecycleRule::builder()
        .id("foreign")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("logs/").build())
        .expiration(LifecycleExpiration::builder().days(30).build())
        .build()
        .unwrap();
    let rules = BucketLifecycleConfiguration::builder().rules(foreign.clone()).build().unwrap();
    app.s3.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(rules).send().await.unwrap();
    let foreign_cors = aws_sdk_s3::types::CorsRule::builder()
        .id("foreign")
        .allowed_origins("https://foreign.example")
        .allowed_methods("GET")
        .build()
        .unwrap();
    let cors = aws_sdk_s3::types::CorsConfiguration::builder().cors_rules(foreign_cors).build().unwrap();
    app.s3.put_bucket_cors().bucket(bucket).cors_configuration(cors).send().await.unwrap();

    let options = Options { fix: true, loopback: true };
    let report = doctor::run(&app.config, options).await;
    println!("{report}");
    assert_eq!(report.changes.len(), 3, "{:?}", report.changes);
    assert!(report.changes.iter().all(|change| change.ends_with(": set")), "{:?}", report.changes);
    for name in [
        "CORS: every origin may upload",
        "CORS: ETag exposed",
        "bucket: abandoned multiparts aborted",
        "bucket: live multiparts left alone",
        "bucket: public access block",
    ] {
        assert!(matches!(report.answer(name), Some(Answer::Yes(_))), "{name}");
    }
    let lifecycle = app.s3.get_bucket_lifecycle_configuration().bucket(bucket).send().await.unwrap();
    let ids: Vec<_> = lifecycle.rules().iter().filter_map(|rule| rule.id()).collect();
    assert_eq!(ids, ["foreign", "valet"]);
    assert_eq!(lifecycle.rules()[0].expiration(), foreign.expiration());
    let cors = app.s3.get_bucket_cors().bucket(bucket).send().await.unwrap();
    let [own_rule, foreign_rule] = cors.cors_rules() else { panic!("{cors:?}") };
    for origin in [ORIGIN, "http://localhost:*"] {
        assert!(own_rule.allowed_origins().contains(&origin.to_owned()));
    }
    assert_eq!(foreign_rule.allowed_origins(), ["https://foreign.example"]);

    let again = doctor::run(&app.config, options).await;
    assert!(again.changes.iter().all(|change| change.ends_with("was set already")), "{:?}", again.changes);
}

/// Ceph RGW rejects every PUT once `BlockPublicAcls` is set, and uses a root element of its own for the setting.
#[tokio::test]
async fn fix_reverts_the_flag_that_would_stop_uploads() {
    let mut app = app().await;
    if !has_access_block(&app).await {
        crate::skipping::skip("needs a store with public access blocks");
        return;
    }
    without_access_block(&app).await;
    let proxy = Proxy::start(&app, Defect::RejectsPutsUnderBlockPublicAcls).await;
    app.config.s3.public_endpoint = Some(proxy.endpoint.parse().unwrap());
    app.config.s3.endpoint = Some(proxy.endpoint.parse().unwrap());
    for change in ["public access block: set", "public access block: was set already"] {
        let report = doctor::run(&app.config, Options { fix: true, loopback: false }).await;
        assert!(matches!(report.answer("upload: presigned PUT accepted"), Some(Answer::Yes(_))), "{report}");
        assert_eq!(report.changes.last().map(String::as_str), Some(change));
        let Some(Answer::Yes(flags)) = report.answer("bucket: public access block") else { panic!("{report}") };
        assert_eq!(flags, "not all flags", "the flag that stops uploads is reverted");
    }
}

/// The lifecycle rule of another program aborts uploads sooner than Valet does.
#[tokio::test]
async fn lifecycle_rule_that_aborts_live_uploads_is_reported() {
    let app = app().await;
    let hasty = LifecycleRule::builder()
        .id("hasty")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .abort_incomplete_multipart_upload(
            aws_sdk_s3::types::AbortIncompleteMultipartUpload::builder().days_after_initiation(1).build(),
        )
        .build()
        .unwrap();
    let rules = BucketLifecycleConfiguration::builder().rules(hasty).build().unwrap();
    app.s3
        .put_bucket_lifecycle_configuration()
        .bucket(&app.config.s3.bucket)
        .lifecycle_configuration(rules)
        .send()
        .await
        .unwrap();
    let report = run_check(&app).await;
    assert!(failed_rules(&report).contains(&"bucket: live multiparts left alone"));
    assert!(!failed_rules(&report).contains(&"bucket: abandoned multiparts aborted"));
}

/// The command prints a table on standard output, and its exit status is for scripts.
#[tokio::test]
async fn command_prints_the_table_and_exits_with_its_result() {
    if skip_unless_local_s3() {
        return;
    }
    let app = app().await;
    let keys = app.config.s3.credentials.clone().unwrap();
    let run = |bucket: String| {
        use secrecy::ExposeSecret;
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_valet"));
        command.arg("check").env_clear().kill_on_drop(true);
        command.env("MONGODB_URI", app.config.mongo.uri.expose_secret()).env("MONGODB_DATABASE", &app.config.mongo.database);
        command.env("S3_BUCKET", bucket).env("S3_ENDPOINT", app.config.s3.endpoint.as_deref().unwrap());
        command.env("S3_FORCE_PATH_STYLE", "true").env("JWT_SECRET", super::app::JWT_SECRET).env("CORS_ORIGINS", ORIGIN);
        command.env("AWS_ACCESS_KEY_ID", &keys.access_key_id);
        command.env("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.expose_secret());
        async move { tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap() }
    };
    let (sound, broken) = tokio::join!(run(app.config.s3.bucket.to_string()), run("no-such-bucket".to_owned()));
    let text = String::from_utf8(sound.stdout).unwrap();
    assert!(sound.status.success(), "{text}{}", String::from_utf8_lossy(&sound.stderr));
    assert!(text.contains("upload: checksum enforced") && text.contains("0 broken"), "{text}");
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8(broken.stdout).unwrap().contains("do: create the bucket, or check S3_BUCKET"));
}
