//! Tests the proxy of S3, in front of a small HTTP server that answers with the request's host, path and query.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{Method, Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Answer, Misbehavior, Operation, Rule, S3Faults};

/// Starts a server that answers with the request's Host, path and query.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<_>| async move {
                let host = request.headers()["host"].to_str().unwrap();
                let host_and_uri = format!("{host} {}", request.uri());
                Ok::<_, Infallible>(
                    Response::builder().header("etag", "\"e\"").body(Full::new(bytes::Bytes::from(host_and_uri))).unwrap(),
                )
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// Sends a GET through the proxy; returns the status and the body.
async fn get(faults: &S3Faults, path: &str) -> reqwest::Result<(u16, String)> {
    let answer = reqwest::get(format!("{}{path}", faults.endpoint())).await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[test]
fn operations_are_recognised() {
    let recognised = |method: Method, uri: &str| Operation::of(&Request::builder().method(method).uri(uri).body(()).unwrap());
    assert_eq!(recognised(Method::HEAD, "/bucket/u/1/2"), Operation::HeadObject);
    assert_eq!(recognised(Method::HEAD, "/bucket"), Operation::HeadBucket);
    assert_eq!(recognised(Method::HEAD, "/bucket/"), Operation::HeadBucket);
    assert_eq!(recognised(Method::GET, "/bucket/?versions&prefix=u%2F1"), Operation::ListVersions);
    assert_eq!(recognised(Method::GET, "/bucket/?list-type=2"), Operation::ListObjects);
    assert_eq!(recognised(Method::GET, "/bucket/?uploads"), Operation::ListUploads);
    assert_eq!(recognised(Method::GET, "/bucket/k?x-id=GetObject"), Operation::GetObject);
    assert_eq!(recognised(Method::GET, "/bucket/k?uploadId=1"), Operation::ListParts);
    assert_eq!(recognised(Method::PUT, "/bucket/k"), Operation::PutObject);
    assert_eq!(recognised(Method::PUT, "/bucket/k?partNumber=1&uploadId=1"), Operation::UploadPart);
    assert_eq!(recognised(Method::POST, "/bucket/k?uploads"), Operation::CreateMultipart);
    assert_eq!(recognised(Method::POST, "/bucket/k?uploadId=1"), Operation::CompleteMultipart);
    assert_eq!(recognised(Method::DELETE, "/bucket/k?uploadId=1"), Operation::AbortMultipart);
    assert_eq!(recognised(Method::DELETE, "/bucket/k?versionId=1"), Operation::DeleteObject);
    let copy = Request::builder().method(Method::PUT).uri("/bucket/k").header("x-amz-copy-source", "bucket/j");
    assert_eq!(Operation::of(&copy.body(()).unwrap()), Operation::CopyObject);
}

#[tokio::test]
async fn requests_without_a_rule_pass_with_host_and_query() {
    let faults = S3Faults::start(upstream().await).await;
    let path = "/bucket/u%2F1?a=%20b&c";
    assert_eq!(get(&faults, path).await.unwrap(), (200, format!("{} {path}", faults.address())));
    assert_eq!(faults.take_operations(), [Operation::GetObject]);
}

#[tokio::test]
async fn misbehaviors_apply_to_the_requests_of_their_rules() {
    let faults = S3Faults::start(upstream().await).await;
    let hits = faults.add(Rule::all(Misbehavior::error(403, "AccessDenied")).at_most(1));
    let (status, body) = get(&faults, "/b/k").await.unwrap();
    assert!(status == 403 && body.contains("<Code>AccessDenied</Code>"), "{body}");
    assert_eq!(get(&faults, "/b/k").await.unwrap().0, 200);
    assert_eq!(hits.load(SeqCst), 1);

    faults.add(Rule::new(&[Operation::GetObject], Misbehavior::changes(|answer| answer.set("etag", "\"other\""))));
    let answer = reqwest::get(format!("{}/b/k", faults.endpoint())).await.unwrap();
    assert_eq!(answer.headers()["etag"], "\"other\"");
    for misbehavior in [Misbehavior::LosesAnswer, Misbehavior::HangsUp, Misbehavior::CutsBody(3)] {
        faults.add(Rule::new(&[Operation::GetObject], misbehavior));
        assert!(get(&faults, "/b/k").await.is_err());
        assert_eq!(get(&faults, "/b?list-type=2").await.unwrap().0, 200, "a rule does not apply to other operations");
    }
    for slow in [Misbehavior::Delays(Duration::from_millis(200)), Misbehavior::SlowsBody(100)] {
        faults.heal();
        faults.add(Rule::all(slow));
        let began = Instant::now();
        assert_eq!(get(&faults, "/b/k").await.unwrap().0, 200);
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn share_applies_to_that_percentage_of_requests() {
    let faults = S3Faults::start(upstream().await).await;
    let hits = faults.add(Rule::all(Misbehavior::AnswersWith(Answer::html(503))).share(50));
    for _ in 0..200 {
        get(&faults, "/b/k").await.unwrap();
    }
    assert!((60..140).contains(&hits.load(SeqCst)), "{hits:?}");
}
