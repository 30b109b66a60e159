//! Covers failures of a store during the probe: they count as an outage, and not as a capability.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{Method, http::request::Parts};
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::config::Finalize;

use super::{at, at_endpoint};
use crate::{
    app::{Caller, TestApp, skip_unless_local_s3, unique_png},
    relay::{empty_answer, relay_s3},
};

/// A function that selects the requests that the relay answers itself.
type IsHit = fn(&Parts) -> bool;

/// Problem of a call that depends on a failed probe.
const UNAVAILABLE: (u16, &str) = (503, "unavailable");

/// A relay that answers some requests under `check/` itself until it is repaired.
struct FailingProbes {
    endpoint: String,
    is_repaired: Arc<AtomicBool>,
}

impl FailingProbes {
    /// Starts a relay that answers probes for which `is_hit` is true with this status, until it is repaired.
    async fn start(store: &TestApp, status: u16, is_hit: IsHit) -> Self {
        let is_repaired = Arc::<AtomicBool>::default();
        let repaired = Arc::clone(&is_repaired);
        let endpoint = relay_s3(store, move |request| {
            let is_probe = request.path().contains("/check/") && request.query().contains("X-Amz-");
            let fails = is_probe && is_hit(&request.parts) && !repaired.load(Ordering::Relaxed);
            async move { if fails { empty_answer(status) } else { request.forward().await } }
        });
        Self { endpoint: endpoint.await, is_repaired }
    }
}

/// Returns whether the request has a header.
fn has(parts: &Parts, header: &str) -> bool {
    parts.headers.contains_key(header)
}

/// Returns whether the request has a query parameter.
fn has_query(parts: &Parts, name: &str) -> bool {
    parts.uri.query().unwrap_or_default().split('&').any(|pair| pair.split('=').next() == Some(name))
}

/// Requests an upload with a digest, then a multipart upload and an Uppy session, which have none.
async fn declared_and_undeclared(caller: &Caller<'_>) -> [super::Answer; 3] {
    let multipart = json!({ "fileName": "a.png", "contentType": "image/png", "size": 6 << 20 });
    [
        caller.open_upload("a.png", "image/png", &unique_png()).await,
        caller.post("/api/images/multipart", multipart).await,
        caller.post_empty("/api/uppy/session").await,
    ]
}

#[tokio::test]
async fn failure_during_the_probe_is_an_outage() {
    if skip_unless_local_s3() {
        return;
    }
    let failures: [(&str, u16, IsHit); 6] = [
        ("an overloaded copy", 503, |parts| has(parts, "x-amz-copy-source")),
        ("a throttled copy", 429, |parts| has(parts, "x-amz-copy-source")),
        ("a failed ACL", 500, |parts| has(parts, "x-amz-acl")),
        ("a late grant", 408, |parts| has(parts, "x-amz-grant-read")),
        ("a failing gateway for reads", 502, |parts| parts.method == Method::GET),
        ("rejections after the first PUT", 403, |parts| parts.method == Method::PUT && !parts.uri.path().ends_with("source")),
    ];
    let store = TestApp::start().await;
    let ada = store.user().await;
    let mut cases: Vec<_> = failures.into_iter().map(|failure| (Finalize::Auto, failure)).collect();
    cases.push((Finalize::InPlace, failures[0]));
    for (finalize, (failure, status, is_hit)) in cases {
        let relay = FailingProbes::start(&store, status, is_hit).await;
        let app = at_endpoint(&store, &relay.endpoint, finalize).await;
        let ada = at(&app, &ada);
        for answer in declared_and_undeclared(&ada).await {
            assert_eq!(answer.problem(), UNAVAILABLE, "{failure}, {finalize:?}");
        }
        relay.is_repaired.store(true, Ordering::Relaxed);
        app.sweep(OffsetDateTime::now_utc()).await;
        for answer in declared_and_undeclared(&ada).await {
            assert!(matches!(answer.status, 200 | 201), "{failure}, {finalize:?}: {answer:?}");
        }
    }
}

/// Uploads that do not need the failing calls continue.
#[tokio::test]
async fn failure_of_part_probes_stops_only_uploads_without_a_digest() {
    if skip_unless_local_s3() {
        return;
    }
    let store = TestApp::start().await;
    let ada = store.user().await;
    let open = json!({ "fileName": "b.png", "contentType": "image/png", "size": 6 << 20 });
    let open = ada.post("/api/images/multipart", open).await;
    let relay = FailingProbes::start(&store, 503, |parts| has_query(parts, "partNumber")).await;
    let app = at_endpoint(&store, &relay.endpoint, Finalize::Auto).await;
    let ada = at(&app, &ada);
    let [declared, multipart, session] = declared_and_undeclared(&ada).await;
    assert_eq!((declared.status, multipart.problem(), session.problem()), (201, UNAVAILABLE, UNAVAILABLE));

    // However late it is, an outage rejects and expires nothing.
    let late = OffsetDateTime::now_utc() + Duration::from_secs(60 * 24 * 60 * 60);
    let swept = app.sweep(late).await;
    assert!(swept.failed > 0, "{swept:?}");
    assert_eq!(app.db_state(open.id()).await, "pending");
    assert_eq!(ada.confirm(open.id()).await.problem(), UNAVAILABLE);
    relay.is_repaired.store(true, Ordering::Relaxed);
    app.sweep(late + Duration::from_secs(60 * 60)).await;
    assert_eq!(app.db_state(open.id()).await, "expired");
    let sent: Vec<Value> = declared_and_undeclared(&ada).await.into_iter().map(|answer| answer.json).collect();
    assert!(sent[2]["path"].is_string(), "{sent:?}");
}
