//! Covers the request id and trace id in log lines, with any exporter or without one.

use serde_json::Value;

use super::Settings;
use crate::{app::TestApp, process_client::Process};

/// A trace id of W3C Trace Context.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Returns the log lines of the request with this id.
fn lines(process: &Process, id: &str) -> Vec<Value> {
    let log = process.err();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["span"]["id"] == id).collect()
}

#[tokio::test]
async fn every_log_line_of_a_request_has_its_trace_id_and_invalid_traceparents_are_ignored() {
    let app = TestApp::start().await;
    // The span around a request exists at any log level.
    let (process, client) = Settings::for_app(&app).with("RUST_LOG", "valet=info").start_listening().await;
    let send = async |id: &str, parents: &[&str]| {
        let request = client.http.get(format!("{}/livez", client.base)).header("x-request-id", id);
        let request = parents.iter().fold(request, |request, parent| request.header("traceparent", *parent));
        let answer = request.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["x-request-id"].to_str().unwrap()), (200, id));
    };
    let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
    send("valid", &[&valid]).await;
    send("none", &[]).await;
    send("invalid", &[&valid.to_uppercase()]).await;
    send("two", &[&valid, &valid]).await;
    send("canary", &["00-canary"]).await;
    let last_logged = process.wait_for(|process| Some(lines(process, "canary")).filter(|lines| !lines.is_empty()));
    last_logged.await;
    let traces = ["valid", "none", "invalid", "two", "canary"].map(|id| {
        let lines = lines(&process, id);
        let span_field = |field: &str| lines[0]["span"][field].as_str().unwrap().to_owned();
        let (trace, span) = (span_field("trace_id"), span_field("span_id"));
        assert!(trace.len() == 32 && span.len() == 16, "{lines:?}");
        assert!(trace.bytes().chain(span.bytes()).all(|digit| digit.is_ascii_hexdigit()), "{lines:?}");
        assert!(lines.iter().all(|line| line["span"]["trace_id"] == trace.as_str()), "{lines:?}");
        (trace, span)
    });
    assert_eq!(traces[0].0, TRACE);
    assert_ne!(traces[0].1, "00f067aa0ba902b7", "the server makes its own span");
    for (at, (trace, span)) in traces.iter().enumerate().skip(1) {
        assert!(trace != TRACE && trace != &"0".repeat(32) && span != &"0".repeat(16));
        assert!(traces.iter().skip(at + 1).all(|(other, _)| other != trace), "each request begins its own trace: {traces:?}");
    }
    assert!(!process.err().contains("00-canary"));
}

#[tokio::test]
async fn text_log_lines_have_the_ids_too() {
    let app = TestApp::start().await;
    let (process, client) = {
        let settings = Settings::for_app(&app).with("LOG_FORMAT", "text");
        let process = settings.run(&["serve"]);
        let address = |process: &Process| {
            let log = process.err();
            let line = log.lines().find(|line| line.contains(" listening "))?;
            line.split("address=").nth(1).map(|address| address.trim().to_owned())
        };
        let address = process.wait_for(address).await;
        (process, crate::process_client::Client::at(format!("http://{address}")))
    };
    let request = client.http.get(format!("{}/livez", client.base)).header("x-request-id", "for-people");
    assert_eq!(request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-00")).send().await.unwrap().status(), 200);
    let process = process;
    let seek = |process: &Process| process.err().lines().find(|line| line.contains("for-people")).map(str::to_owned);
    let line = process.wait_for(seek).await;
    assert!(line.contains(&format!("trace_id={TRACE}")) && line.contains("span_id="), "{line}");
}
