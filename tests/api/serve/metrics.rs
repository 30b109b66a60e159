//! What an operator's tools see on `ADMIN_BIND`, and that the dashboard and the alerts ask for nothing else.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use super::*;
use crate::app::{declared, unique_png};

const DASHBOARD: &str = include_str!("../../../deploy/grafana.json");
const ALERTS: &str = include_str!("../../../deploy/alerts.yaml");

/// A server with metrics, and where they are.
async fn measured(app: &TestApp) -> (Process, Client, String) {
    let settings = Settings::of(app).but("ADMIN_BIND", "127.0.0.1:0").but("SWEEP_INTERVAL", "1s");
    let (process, client) = settings.listening().await;
    let said = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "metrics are at /metrics").then(|| line["address"].as_str().map(str::to_owned))?
    };
    let address = process.find(|process| process.err().lines().find_map(said)).await;
    (process, client, format!("http://{address}"))
}

async fn scrape(client: &Client, admin: &str) -> String {
    let answer = client.http.get(format!("{admin}/metrics")).send().await.unwrap();
    let media_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(media_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer.text().await.unwrap()
}

/// The value of a line that begins with this name and has all of these labels.
fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    text.lines().find(fits).and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// Uploads and fails, so that every instrument has something to say.
async fn exercise(client: &mut Client) {
    client.enter("signup", "ada@example.com").await;
    let bytes = unique_png();
    let (image, _) = client.upload(&bytes).await;
    let (status, _) = client.post("/api/images/upload", &declared("no", "image/png", &unique_png())).await;
    assert_eq!(status, 201);
    let (status, _) = client.post("/api/images/upload", &json!({ "fileName": "x" })).await;
    assert_eq!(status, 400);
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    assert_eq!(client.call(reqwest::Method::DELETE, &path, None).await.0, 204);
    assert_eq!(client.get(&path).await.0, 404);
    assert_eq!(client.get("/nowhere/at/all").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_requests_calls_states_and_queues_are_counted_on_an_address_of_its_own() {
    let app = TestApp::start().await;
    let (process, mut client, admin) = measured(&app).await;
    exercise(&mut client).await;
    let began = Instant::now();
    let text = loop {
        let text = scrape(&client, &admin).await;
        if value(&text, "valet_sweep_finished_seconds", &[]) > 0.0 {
            break text;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no sweep went through: {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let request = |route: &str, method: &str, status: &str| {
        let labels = [format!("route=\"{route}\""), format!("method=\"{method}\""), format!("status=\"{status}\"")];
        value(&text, "valet_http_request_duration_seconds_count", &labels.each_ref().map(String::as_str))
    };
    assert_eq!(request("/api/images/upload", "POST", "201"), 2.0, "{text}");
    assert_eq!(request("/api/images/upload", "POST", "400"), 1.0);
    assert_eq!(request("/api/images/{id}", "GET", "404"), 1.0);
    assert_eq!(request("/api/images/{id}/confirm", "POST", "200"), 1.0);
    assert_eq!(request("other", "GET", "404"), 1.0);
    let images = |state: &str| value(&text, "valet_images_total", &[&format!("kind=\"{state}\"")]);
    assert_eq!((images("pending"), images("ready"), images("deleting")), (2.0, 1.0, 1.0));
    // Those of the store's try-out at start among them.
    assert!(value(&text, "valet_signed_total", &["kind=\"PUT\""]) >= 2.0);
    assert!(text.contains("valet_swept_total{kind=\"confirmed\"} 0\n"), "what has not happened yet is zero, not absent");
    assert!(value(&text, "valet_signed_total", &["kind=\"GET\""]) >= 3.0);
    assert!(value(&text, "valet_s3_call_duration_seconds_count", &["HeadObject", "status=\"200\""]) >= 1.0);
    assert!(value(&text, "valet_mongodb_command_duration_seconds_count", &["command=\"insert\"", "outcome=\"ok\""]) >= 1.0);
    assert!(value(&text, "valet_mongodb_connections", &[]) >= 1.0);
    assert!(value(&text, "valet_tasks", &[]) >= 1.0);
    assert_eq!(value(&text, "valet_http_requests_in_flight", &[]), 0.0);
    assert!(text.ends_with("# EOF\n"));
    for leak in ["ada@example.com", "X-Amz", image_id(&text).as_str()] {
        assert!(leak.is_empty() || !text.contains(leak), "{leak} in the metrics");
    }

    // The clients' address has no metrics, and the operators' no API.
    assert_eq!(client.get("/metrics").await.0, 404);
    assert_eq!(client.http.get(format!("{admin}/api/auth/me")).send().await.unwrap().status(), 404);
    for probe in ["livez", "readyz"] {
        assert_eq!(client.http.get(format!("{admin}/{probe}")).send().await.unwrap().status(), 200);
    }
    drop(process);
}

/// Something that looks like an id of ours.
fn image_id(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 36 && uuid::Uuid::parse_str(word).is_ok();
    text.split(|c: char| !c.is_ascii_hexdigit() && c != '-').find(is_id).unwrap_or_default().to_owned()
}

/// The names of metrics in an expression of PromQL, without what Prometheus adds to a histogram's or counter's.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    expression.split(word).filter(|word| word.starts_with("valet_"))
}

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
async fn o6_the_dashboard_and_the_alerts_ask_for_metrics_that_exist() {
    let app = TestApp::start().await;
    let (_process, mut client, admin) = measured(&app).await;
    exercise(&mut client).await;
    let text = scrape(&client, &admin).await;
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

    let mut asked = Vec::new();
    expressions_of_dashboard(&serde_json::from_str(DASHBOARD).unwrap(), &mut asked);
    assert!(asked.len() >= 10, "the dashboard shows something");
    let alerts = YamlLoader::load_from_str(ALERTS).unwrap();
    let rules: Vec<&Yaml> =
        alerts[0]["groups"].as_vec().unwrap().iter().flat_map(|group| group["rules"].as_vec().unwrap()).collect();
    assert!(rules.len() >= 5, "something is worth an alert");
    for rule in rules {
        asked.push(rule["expr"].as_str().unwrap().to_owned());
        for needed in
            [&rule["alert"], &rule["labels"]["severity"], &rule["annotations"]["summary"], &rule["annotations"]["action"]]
        {
            assert!(needed.as_str().is_some_and(|text| !text.is_empty()), "{rule:?}");
        }
    }
    for expression in &asked {
        for name in names(expression) {
            assert!(known.contains(name), "{name} in {expression}: not among {known:?}");
        }
    }
}
