//! Covers `valet check --json`: one document on standard output with documented, stable names.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use valet::domain::doctor::rules;

use crate::process_client::Ended;
use crate::{app::TestApp, serve::Settings};

/// Runs the program; returns its exit status and its standard output.
async fn run(settings: &Settings, arguments: &[&str]) -> (Option<i32>, String) {
    let Ended { status, out, .. } = settings.run(arguments).wait_for_end(Duration::from_secs(60)).await;
    (status.code(), out)
}

/// Returns the names of all findings.
fn names(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["name"].as_str().unwrap()).collect()
}

/// Returns the finding of this name.
fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == name).unwrap()
}

#[tokio::test]
async fn json_has_every_finding_and_the_tables_exit_status() {
    let app = TestApp::start().await;
    let settings_of_app = Settings::for_app(&app);
    let all: Vec<_> = rules::ALL.iter().map(|rule| rule.id).collect();
    for (settings, expected) in [(settings_of_app.clone(), "ok"), (settings_of_app.with("S3_BUCKET", "no-such-bucket"), "broken")]
    {
        let ((table_status, _), (status, out)) = tokio::join!(run(&settings, &["check"]), run(&settings, &["check", "--json"]));
        assert_eq!(status, table_status);
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(names(&report), all);
        assert_eq!(report["sound"], status == Some(0));
        let mut counts = [("ok", 0), ("warning", 0), ("broken", 0), ("skipped", 0)];
        for finding in report["findings"].as_array().unwrap() {
            let verdict = finding["verdict"].as_str().unwrap();
            counts.iter_mut().find(|(known, _)| *known == verdict).unwrap().1 += 1;
            assert!(!finding["sentence"].as_str().unwrap().is_empty() && finding["details"].is_object(), "{finding}");
            let is_no = ["warning", "broken"].contains(&verdict);
            assert_eq!(finding["details"]["remedy"].is_string(), is_no, "{finding}");
        }
        for (verdict, count) in counts {
            assert_eq!(report["counts"][verdict], count, "{verdict}");
        }
        assert_eq!(finding(&report, "s3_bucket")["verdict"], expected);
        if expected == "broken" {
            let details = &finding(&report, "s3_bucket")["details"];
            assert_eq!((&details["s3Code"], &details["httpStatus"]), (&"NoSuchBucket".into(), &"404".into()));
            assert!(details["address"].as_str().unwrap().ends_with("/no-such-bucket"), "{details}");
        }
    }
}

#[tokio::test]
async fn unreadable_settings_are_a_finding() {
    let app = TestApp::start().await;
    let (status, out) = run(&Settings::for_app(&app).with("UPLOAD_TTL", "canary"), &["check", "--json"]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &report["sound"]), (Some(1), &false.into()));
    assert_eq!(names(&report).len(), rules::ALL.len());
    let settings = finding(&report, "settings");
    assert_eq!(settings["verdict"], "broken");
    assert!(settings["sentence"].as_str().unwrap().contains("UPLOAD_TTL must be") && !out.contains("canary"), "{settings}");
}

/// `docs/check.md` has exactly one row for each rule.
#[test]
fn every_rule_name_is_documented() {
    let docs = include_str!("../../../docs/check.md");
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: Vec<_> = rows.map(|(name, _)| name).collect();
    let known: Vec<_> = rules::ALL.iter().map(|rule| rule.id).collect();
    assert_eq!(documented, known);
    assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), known.len(), "each name once");
}
