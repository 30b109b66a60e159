//! Covers metrics on `ADMIN_BIND`, and asserts that dashboard and alerts use only existing metrics.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use super::{Client, Duration, Instant, Mongod, MongodOptions, Process, Settings, TestApp, within};
use crate::app::{declaration, unique_png};

const DASHBOARD: &str = include_str!("../../../deploy/grafana.json");
const ALERTS: &str = include_str!("../../../deploy/alerts.yaml");
const METRICS_DOCUMENT: &str = include_str!("../../../docs/metrics.md");
const ALERT_TESTS: &str = include_str!("../../../deploy/alerts.test.yaml");

/// Starts a server with metrics; returns their address too.
pub(super) async fn measured(settings: Settings) -> (Process, Client, String) {
    let settings = settings.with("ADMIN_BIND", "127.0.0.1:0").with("SWEEP_INTERVAL", "1s");
    let (process, client) = settings.start_listening().await;
    let metrics_address = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "metrics are at /metrics").then(|| line["address"].as_str().map(str::to_owned))?
    };
    let address = process.wait_for(|process| process.err().lines().find_map(metrics_address)).await;
    (process, client, format!("http://{address}"))
}

/// Returns the metrics of the admin address.
pub(super) async fn scrape(client: &Client, admin: &str) -> String {
    let answer = client.http.get(format!("{admin}/metrics")).send().await.unwrap();
    let media_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(media_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer.text().await.unwrap()
}

/// Returns the value of the line with this name and all of these labels, or 0.
pub(super) fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    text.lines().find(fits).and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// Returns the metrics when a sweep has succeeded and counted the images, and no call of the server's own waits for a connection.
async fn scrape_after_census(client: &Client, admin: &str) -> String {
    let began = Instant::now();
    loop {
        let text = scrape(client, admin).await;
        let has_swept = value(&text, "valet_sweep_last_success_timestamp_seconds", &[]) > 0.0;
        let has_counted = text.contains("valet_images{state=\"ready\"}") && text.contains("valet_image_bytes{state=\"pending\"}");
        if has_swept && has_counted && value(&text, "valet_mongodb_calls_waiting", &[]) == 0.0 {
            return text;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no sweep succeeded and counted, or calls wait: {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes calls that succeed and calls that fail, so that every metric has a value.
async fn exercise(client: &mut Client) {
    client.sign_in("signup", "ada@example.com").await;
    let bytes = unique_png();
    let (image, _) = client.upload(&bytes).await;
    let (status, _) = client.post("/api/images/upload", &declaration("no", "image/png", &unique_png())).await;
    assert_eq!(status, 201);
    let (status, _) = client.post("/api/images/upload", &json!({ "fileName": "x" })).await;
    assert_eq!(status, 400);
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    assert_eq!(client.call(reqwest::Method::DELETE, &path, None).await.0, 204);
    assert_eq!(client.get(&path).await.0, 404);
    assert_eq!(client.get("/nowhere/at/all").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_requests_calls_states_and_queues_are_counted_on_the_admin_address() {
    let app = TestApp::start().await;
    let (process, mut client, admin) = measured(Settings::for_app(&app)).await;
    exercise(&mut client).await;
    let text = scrape_after_census(&client, &admin).await;
    let request = |route: &str, method: &str, status: &str| {
        let labels = [format!("route=\"{route}\""), format!("method=\"{method}\""), format!("status=\"{status}\"")];
        value(&text, "valet_http_request_duration_seconds_count", &labels.each_ref().map(String::as_str))
    };
    assert_eq!(request("/api/images/upload", "POST", "201"), 2.0, "{text}");
    assert_eq!(request("/api/images/upload", "POST", "400"), 1.0);
    assert_eq!(request("/api/images/{id}", "GET", "404"), 1.0);
    assert_eq!(request("/api/images/{id}/confirm", "POST", "200"), 1.0);
    assert_eq!(request("other", "GET", "404"), 1.0);
    let images = |state: &str| value(&text, "valet_image_transitions_total", &[&format!("to=\"{state}\"")]);
    assert_eq!((images("pending"), images("ready"), images("deleting")), (2.0, 1.0, 1.0));
    // The probe of the store at the start is included.
    assert!(value(&text, "valet_presigned_urls_total", &["method=\"PUT\""]) >= 2.0);
    assert!(text.contains("valet_sweep_items_total{outcome=\"confirmed\"} 0\n"), "counters start at zero and are not absent");
    assert!(value(&text, "valet_presigned_urls_total", &["method=\"GET\""]) >= 3.0);
    assert!(value(&text, "valet_s3_call_duration_seconds_count", &["HeadObject", "status=\"200\""]) >= 1.0);
    assert!(value(&text, "valet_mongodb_command_duration_seconds_count", &["command=\"insert\"", "outcome=\"ok\""]) >= 1.0);
    assert!(value(&text, "valet_mongodb_connections", &[]) >= 1.0);
    assert_eq!(value(&text, "valet_mongodb_connections_max", &[]), 64.0);
    assert_eq!(value(&text, "valet_s3_credentials_expiry_timestamp_seconds", &[]), 0.0, "static credentials do not expire");
    assert!(value(&text, "valet_trace_spans_total", &["dropped"]) == 0.0 && text.contains("valet_trace_spans_total"));
    if cfg!(target_os = "linux") {
        let started = value(&text, "process_start_time_seconds", &[]);
        let now = time::OffsetDateTime::now_utc().unix_timestamp() as f64;
        assert!((now - 600.0..=now + 5.0).contains(&started), "{started} at {now}");
        assert!(value(&text, "process_resident_memory_bytes", &[]) > 1e6 && value(&text, "process_cpu_seconds_total", &[]) > 0.0);
        let (open, most) = (value(&text, "process_open_fds", &[]), value(&text, "process_max_fds", &[]));
        assert!(open > 5.0 && open < most && value(&text, "process_threads", &[]) >= 1.0, "{open} of {most}");
    }
    assert!(value(&text, "valet_tokio_alive_tasks", &[]) >= 1.0);
    assert_eq!(value(&text, "valet_http_requests_in_flight", &[]), 0.0);
    assert!(text.ends_with("# EOF\n"));
    for leak in ["ada@example.com", "X-Amz", image_id(&text).as_str()] {
        assert!(leak.is_empty() || !text.contains(leak), "{leak} in the metrics");
    }

    // The clients' address serves no metrics, and the operators' address no API.
    assert_eq!(client.get("/metrics").await.0, 404);
    assert_eq!(client.http.get(format!("{admin}/api/auth/me")).send().await.unwrap().status(), 404);
    for probe in ["livez", "readyz"] {
        assert_eq!(client.http.get(format!("{admin}/{probe}")).send().await.unwrap().status(), 200);
    }
    drop(process);
}

/// The driver reports no event for a wait that a deadline ended.
#[tokio::test(flavor = "multi_thread")]
async fn waits_for_a_connection_are_counted_until_they_end() {
    let app = TestApp::start().await;
    let folder = std::env::temp_dir().join(format!("valet-pool-{}", uuid::Uuid::new_v4().simple()));
    let mongod = Mongod::start(MongodOptions::new(&folder)).await.unwrap();
    let uri = format!("{}&maxPoolSize=2", mongod.uri());
    let (process, mut client, admin) = measured(Settings::for_app(&app).with("MONGODB_URI", &uri)).await;
    client.sign_in("signup", "ada@example.com").await;
    let waiting = async || value(&scrape(&client, &admin).await, "valet_mongodb_calls_waiting", &[]);
    let signal = |name: &str| {
        let kill = std::process::Command::new("kill").args([name, &mongod.pid().to_string()]).status();
        assert!(kill.unwrap().success());
    };
    signal("-STOP");
    let began = Instant::now();
    let mut seen = false;
    // The calls wait only for a few seconds, in which a busy machine may not read the metric: then they are repeated.
    while !seen {
        let calls = futures_util::future::join_all((0..8).map(|_| client.get("/api/auth/me")));
        let read_metric = async {
            while !seen {
                assert!(began.elapsed() < Duration::from_secs(60), "no call waits: {}", process.err());
                seen = waiting().await >= 4.0;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            std::future::pending::<()>().await;
        };
        let answers = tokio::select! { answers = calls => answers, () = read_metric => unreachable!() };
        assert!(answers.iter().all(|(status, _)| matches!(status.as_u16(), 503 | 504)), "{answers:?}");
    }
    signal("-CONT");
    let began = Instant::now();
    while client.get("/api/auth/me").await.0 != 200 || waiting().await != 0.0 {
        assert!(began.elapsed() < Duration::from_secs(30), "{} still wait: {}", waiting().await, process.err());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(process);
    mongod.stop().await.unwrap();
    assert!(within(Duration::from_secs(30), || std::fs::remove_dir_all(&folder).is_ok()).await);
}

/// Returns the first word of the metrics in the shape of an image id, or an empty text.
fn image_id(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 36 && uuid::Uuid::parse_str(word).is_ok();
    text.split(|c: char| !c.is_ascii_hexdigit() && c != '-').find(is_id).unwrap_or_default().to_owned()
}

/// Returns the names of the program's metrics in a PromQL expression, with the suffixes of histograms and counters.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let is_separator = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    expression.split(is_separator).filter(|word| word.starts_with("valet_") || word.starts_with("process_"))
}

/// Adds all queries of a part of the dashboard to `found`.
fn expressions_of_dashboard(part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(text) if name == "expr" => found.push(text.to_owned()),
                    _ => expressions_of_dashboard(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions_of_dashboard(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_dashboard_and_alerts_use_existing_metrics() {
    let app = TestApp::start().await;
    let (_process, mut client, admin) = measured(Settings::for_app(&app)).await;
    exercise(&mut client).await;
    let text = scrape_after_census(&client, &admin).await;
    let known: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .flat_map(|(name, kind)| match kind {
            "counter" => vec![format!("{name}_total")],
            "histogram" => ["bucket", "count", "sum"].map(|part| format!("{name}_{part}")).to_vec(),
            "info" => vec![format!("{name}_info")],
            _ => vec![name.to_owned()],
        })
        .collect();
    assert!(known.len() > 20, "{known:?}");

    let mut expressions = Vec::new();
    expressions_of_dashboard(&serde_json::from_str(DASHBOARD).unwrap(), &mut expressions);
    assert!(expressions.len() >= 10, "the dashboard shows something");
    let alerts = YamlLoader::load_from_str(ALERTS).unwrap();
    let rules: Vec<&Yaml> =
        alerts[0]["groups"].as_vec().unwrap().iter().flat_map(|group| group["rules"].as_vec().unwrap()).collect();
    assert!(rules.len() >= 5, "the rules have at least five alerts");
    let alert_tests = YamlLoader::load_from_str(ALERT_TESTS).unwrap();
    let alert_tests: Vec<&Yaml> =
        alert_tests[0]["tests"].as_vec().unwrap().iter().flat_map(|test| test["alert_rule_test"].as_vec().unwrap()).collect();
    for rule in rules {
        expressions.push(rule["expr"].as_str().unwrap().to_owned());
        // A rule with `record` computes a metric; it has no alert.
        if !rule["record"].is_badvalue() {
            continue;
        }
        let tests_of_rule = alert_tests.iter().filter(|test| test["alertname"] == rule["alert"]);
        let expects_none: Vec<_> = tests_of_rule.map(|test| test["exp_alerts"].as_vec().unwrap().is_empty()).collect();
        assert!(
            expects_none.contains(&true) && expects_none.contains(&false),
            "{:?} has tests in alerts.test.yaml in which it fires, and does not",
            rule["alert"]
        );
        for needed in
            [&rule["alert"], &rule["labels"]["severity"], &rule["annotations"]["summary"], &rule["annotations"]["action"]]
        {
            assert!(needed.as_str().is_some_and(|text| !text.is_empty()), "{rule:?}");
        }
    }
    for expression in &expressions {
        for name in names(expression) {
            assert!(known.contains(name), "{name} in {expression}: not among {known:?}");
        }
    }
    let shown: BTreeSet<_> = expressions.iter().flat_map(|expression| names(expression)).collect();
    let is_shown = |name: &str| ["", "_total", "_info", "_bucket"].iter().any(|part| shown.contains(&*format!("{name}{part}")));
    let metrics = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for metric in metrics {
        assert!(is_shown(metric), "{metric} is on no panel and in no alert");
        let is_documented = METRICS_DOCUMENT.contains(&format!("`{metric}"));
        assert!(is_documented || metric == "valet_build", "{metric} is not in docs/metrics.md");
    }
}
