//! Covers OTLP traces of a real process: their contents, data that must not be in them, and unresponsive collectors.

mod collector;

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpListener;

use self::collector::{Collector, Span};
use super::{
    app::{PASSWORD, TestApp, declaration, unique_png},
    process_client::{Client, Ended, Process},
    serve::Settings,
};

/// Trace id of a caller.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// Span id of the caller.
const CALLER: &str = "b7ad6b7169203331";
/// Text in requests that must not be exported.
const CANARY: &str = "canary-5d1e";

/// Uploads an image, and confirms it as part of a caller's trace.
async fn confirm_in_a_trace(client: &mut Client, email: &str) {
    client.sign_in("signup", email).await;
    let bytes = unique_png();
    let (status, ticket) = client.post("/api/images/upload", &declaration("sea.png", "image/png", &bytes)).await;
    assert_eq!(status, 201, "{ticket}");
    let mut put = client.http.put(ticket["upload"]["url"].as_str().unwrap());
    for (name, value) in ticket["upload"]["headers"].as_object().unwrap() {
        put = put.header(name, value.as_str().unwrap());
    }
    assert_eq!(put.body(bytes).send().await.unwrap().status(), 200);
    let url = format!("{}/api/images/{}/confirm?x={CANARY}", client.base, ticket["id"].as_str().unwrap());
    let confirm = client.http.post(url).bearer_auth(client.token.as_ref().unwrap());
    let confirm = confirm.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).header("tracestate", "vendor=1");
    let answer = confirm.header("x-request-id", "confirm-1").header("user-agent", CANARY).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-request-id"].to_str().unwrap()), (200, "confirm-1"));
}

/// Returns the spans whose parent is this one.
fn children<'a>(spans: &'a [Span], parent: &'a Span) -> impl Iterator<Item = &'a Span> {
    spans.iter().filter(|span| span.parent == parent.id && span.trace == parent.trace)
}

/// Returns the span of this name.
fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let names = || spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>();
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {:?}", names()))
}

/// Returns an attribute of a span; empty if it has none.
fn attribute<'a>(span: &'a Span, name: &str) -> &'a str {
    span.attributes.get(name).map_or("", String::as_str)
}

/// Returns the settings of a server that exports traces to this endpoint.
fn settings_with_traces(app: &TestApp, endpoint: &str) -> Settings {
    // Spans are sent only when the process stops.
    Settings::for_app(app).with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).with("OTEL_BSP_SCHEDULE_DELAY", "600000")
}

/// Stops the process; returns its log.
async fn stop(process: Process) -> String {
    process.signal("-TERM");
    let Ended { status, err: log, .. } = process.wait_for_end(Duration::from_secs(30)).await;
    assert!(status.success(), "{status} {log}");
    log
}

/// Asserts that a span has these attributes.
fn assert_attributes(span: &Span, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(attribute(span, name), *value, "{name} of {span:?}");
    }
}

/// Asserts that the confirm's span is a child of the caller's and describes the request.
fn assert_request_of_confirm(confirm: &Span) {
    assert_eq!((confirm.trace.as_str(), confirm.parent.as_str(), confirm.state.as_str()), (TRACE, CALLER, "vendor=1"));
    assert_eq!((confirm.kind, confirm.status), (2, 0), "the kind is server, and there is no error");
    assert_attributes(
        confirm,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/api/images/{id}/confirm"),
            ("http.response.status_code", "200"),
            ("valet.request_id", "confirm-1"),
        ],
    );
    assert!(attribute(confirm, "url.path").ends_with("/confirm"), "{confirm:?}");
}

/// Asserts that the confirm's calls to S3 and MongoDB have spans within its own.
fn assert_calls_of_confirm(spans: &[Span], confirm: &Span, database: &str) {
    let calls: Vec<_> = children(spans, confirm).cloned().collect();
    for call in &calls {
        assert!(call.kind == 3 && call.status == 0, "{call:?}");
        assert!(confirm.began <= call.began && call.began <= call.ended && call.ended <= confirm.ended, "{call:?}");
    }
    let head = named(&calls, "S3.HeadObject");
    assert_attributes(head, &[("rpc.system", "aws-api"), ("rpc.method", "HeadObject"), ("http.response.status_code", "200")]);
    assert!(!super::app::s3_is_local() || !attribute(head, "aws.request_id").is_empty(), "{head:?}");
    assert_attributes(named(&calls, "S3.GetObject"), &[("http.response.status_code", "206")]);
    assert_attributes(
        named(&calls, "findAndModify images"),
        &[
            ("db.system.name", "mongodb"),
            ("db.operation.name", "findAndModify"),
            ("db.collection.name", "images"),
            ("db.namespace", database),
            ("server.address", "127.0.0.1"),
        ],
    );
}

/// Asserts that a password is hashed within its request's trace, and that a sweep and a request with an invalid traceparent start
/// new traces.
fn assert_other_traces(spans: &[Span]) {
    let signup = named(spans, "POST /api/auth/signup");
    let calls: Vec<_> = children(spans, signup).cloned().collect();
    assert_eq!(named(&calls, "hash password").kind, 1);
    let sweep = named(spans, "sweep");
    assert!(sweep.parent.is_empty() && children(spans, sweep).any(|call| call.name == "find images"), "{sweep:?}");
    let unknown = named(spans, "GET");
    assert!(unknown.parent.is_empty() && unknown.trace != TRACE && unknown.status == 0, "{unknown:?}");
    assert_attributes(unknown, &[("http.response.status_code", "404")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn confirm_joins_its_callers_trace_with_child_spans_for_its_calls() {
    let (app, collector) = (TestApp::start().await, Collector::start().await);
    let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
    let settings = settings_with_traces(&app, &collector.endpoint)
        .with("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ours")
        .with("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .with("RUST_LOG", "warn,valet=info");
    let (process, mut client) = settings.start_listening().await;
    confirm_in_a_trace(&mut client, &email).await;
    let unknown = client.http.get(format!("{}/nowhere/at/all", client.base)).header("traceparent", format!("00-{TRACE}-0-01"));
    assert_eq!(unknown.send().await.unwrap().status(), 404);
    assert!(collector.spans().is_empty(), "no span was sent yet");
    let token = client.token.clone().unwrap();
    let log = stop(process).await;
    let spans = collector.spans();

    let confirm = named(&spans, "POST /api/images/{id}/confirm");
    assert_request_of_confirm(confirm);
    assert_calls_of_confirm(&spans, confirm, &app.config.mongo.database);
    assert_other_traces(&spans);

    let resource = &confirm.resource;
    assert_eq!((resource["service.name"].as_str(), resource["deployment.environment.name"].as_str()), ("valet", "test"));
    assert!(resource.contains_key("service.version"));
    let headers = collector.headers();
    assert!(headers.iter().all(|headers| headers["x-tenant"] == "ours"));
    assert!(headers.iter().all(|headers| headers["content-type"] == "application/x-protobuf"));
    for secret in [PASSWORD, CANARY, &email, &token, "X-Amz", "127.0.0.1:0", "sea.png"] {
        assert!(!collector.has_received(secret), "{secret} was exported");
    }

    // The log lines contain the trace id.
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line = lines.iter().find(|line| line["message"] == "request completed" && line["span"]["id"] == "confirm-1").unwrap();
    assert_eq!((line["span"]["trace_id"].as_str(), line["span"]["span_id"].as_str()), (Some(TRACE), Some(confirm.id.as_str())));
    assert!(!log.contains("S3.HeadObject"), "spans are not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_call_marks_its_span_and_its_request_as_errors() {
    let (app, collector) = (TestApp::start().await, Collector::start().await);
    let (process, mut client) = settings_with_traces(&app, &collector.endpoint).start_listening().await;
    client.sign_in("signup", "ada@example.com").await;
    let bytes = unique_png();
    let (_, ticket) = client.post("/api/images/upload", &declaration("sea.png", "image/png", &bytes)).await;
    // An unreadable image makes the server answer 500.
    let id = ticket["id"].as_str().unwrap();
    let damage = mongodb::bson::doc! { "$set": { "state": "nonsense" } };
    app.db.collection::<mongodb::bson::Document>("images").update_one(mongodb::bson::doc! { "_id": id }, damage).await.unwrap();
    let (status, problem) = client.call(Method::POST, &format!("/api/images/{id}/confirm"), None).await;
    assert_eq!(status.as_u16() / 100, 5, "{problem}");
    // The log and the span contain the request id of a failed S3 call.
    let marker = app.s3.delete_object().bucket(&app.config.s3.bucket).key(valet::store::objects::marker::KEY);
    marker.send().await.unwrap();
    app.s3.delete_bucket().bucket(&app.config.s3.bucket).send().await.unwrap();
    assert_eq!(client.get("/readyz").await.0, 503);
    let log = stop(process).await;
    let spans = collector.spans();
    let failed: Vec<_> = spans.iter().filter(|span| span.status == 2).cloned().collect();
    let failed = named(&failed, "S3.HeadBucket");
    assert_eq!((attribute(failed, "error.type"), attribute(failed, "http.response.status_code")), ("404", "404"), "{failed:?}");
    assert!(log.contains(&format!("S3 request {}", attribute(failed, "aws.request_id"))), "{failed:?}: {log}");
    assert_eq!(failed.parent, named(&spans, "GET /readyz").id);
    let confirm = named(&spans, "POST /api/images/{id}/confirm");
    assert_eq!((confirm.status, attribute(confirm, "error.type")), (2, status.as_str()), "{confirm:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_collector_delays_no_request() {
    let app = TestApp::start().await;
    // Connections are accepted by the system, and are never answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for endpoint in [format!("http://{}", silent.local_addr().unwrap()), "http://127.0.0.1:1".to_owned()] {
        let settings = settings_with_traces(&app, &endpoint)
            .with("OTEL_BSP_SCHEDULE_DELAY", "100")
            .with("OTEL_BSP_MAX_QUEUE_SIZE", "8")
            .with("OTEL_EXPORTER_OTLP_TIMEOUT", "120000")
            .with("ADMIN_BIND", "127.0.0.1:0");
        let (process, client) = settings.start_listening().await;
        let metrics_address = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "metrics are at /metrics").then(|| line["address"].as_str().map(str::to_owned))?
        };
        let admin = process.wait_for(|process| process.err().lines().find_map(metrics_address)).await;
        let began = Instant::now();
        for _ in 0..100 {
            assert_eq!(client.get("/nowhere").await.0, 404);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "less than the exporter's timeout of 120 s: {:?}", began.elapsed());
        let metrics = client.http.get(format!("http://{admin}/metrics")).send().await.unwrap().text().await.unwrap();
        let span_count = |outcome: &str| {
            let name = format!("valet_trace_spans_total{{outcome=\"{outcome}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
        };
        assert!(span_count("dropped") + span_count("failed") >= 50 && span_count("exported") == 0, "{metrics}");
        let began = Instant::now();
        stop(process).await;
        assert!(began.elapsed() < Duration::from_secs(20), "the last flush is bounded: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_have_trace_ids_with_traces_switched_off() {
    let (app, collector) = (TestApp::start().await, Collector::start().await);
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_TRACES_SAMPLER", "always_off")]
    {
        let (process, client) = settings_with_traces(&app, &collector.endpoint).with(name, value).start_listening().await;
        let request = client.http.get(format!("{}/livez", client.base));
        let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
        assert_eq!(request.send().await.unwrap().status(), 200);
        let log = stop(process).await;
        assert!(log.contains(&format!("\"trace_id\":\"{TRACE}\"")), "{log}");
    }
    assert!(collector.spans().is_empty() && collector.headers().is_empty());
}
