//! F7, F9, F10, F25 and similar faults, one step at a time, without load: false answers of a store, or of a proxy in front of it.
//!
//! No such answer decides about an upload: the client gets 503 or 504 in time, or 409 if the store does not find the object
//! (F9), the upload stays pending, the sweeper neither rejects nor expires nor deletes it, and the next confirm after the fault
//! answers 200.

mod clearing;
mod copying;
mod deleting;
mod multipart;
mod refusals;

use std::time::Duration;

use futures_util::future::join_all;

use super::{
    files::{declaration, fixture},
    s3_faults::{Answer, Misbehavior, Operation, Rule},
    single_server::SingleServer,
};

/// Time after which every current upload has expired, and the last check of a current tombstone is due.
pub const AFTER_LAST_CHECK: Duration = Duration::from_secs(26 * 60 * 60);

use Operation::{GetObject, HeadObject};

/// Returns false answers to the calls that confirm makes for a pending upload, each with its description.
fn faulty_answers() -> Vec<(&'static str, Rule)> {
    let all = |misbehavior| Rule::all(misbehavior);
    let head = |misbehavior| Rule::new(&[HeadObject], misbehavior);
    let get = |misbehavior| Rule::new(&[GetObject], misbehavior);
    let page = |status| Misbehavior::AnswersWith(Answer::html(status));
    let answers = Misbehavior::AnswersWith;
    vec![
        ("403 AccessDenied", all(Misbehavior::error(403, "AccessDenied"))),
        ("403 RequestTimeTooSkewed", all(Misbehavior::error(403, "RequestTimeTooSkewed"))),
        ("400 ExpiredToken", all(Misbehavior::error(400, "ExpiredToken"))),
        ("404 NoSuchBucket", all(Misbehavior::error(404, "NoSuchBucket"))),
        ("404 of a proxy", all(page(404))),
        ("404 without a body", all(answers(Answer::page(404, "text/plain", "")))),
        ("400 to HEAD", head(Misbehavior::error(400, "BadRequest"))),
        ("405 to HEAD", head(Misbehavior::error(405, "MethodNotAllowed"))),
        ("301", all(answers(Answer::error(301, "PermanentRedirect").with("location", "http://127.0.0.1:9/")))),
        ("307", all(answers(Answer::error(307, "TemporaryRedirect").with("location", "http://127.0.0.1:9/")))),
        ("429", all(Misbehavior::error(429, "TooManyRequests"))),
        ("500 InternalError", all(Misbehavior::error(500, "InternalError"))),
        ("501 NotImplemented", all(Misbehavior::error(501, "NotImplemented"))),
        ("502 of a proxy", all(page(502))),
        ("503 SlowDown", all(Misbehavior::error(503, "SlowDown"))),
        ("507", all(Misbehavior::error(507, "XMinioStorageFull"))),
        ("a page instead of HEAD's answer", head(answers(Answer::html(200).with("content-length", "84")))),
        ("a page with an entity tag", all(answers(Answer::html(200).with("etag", "\"5f1e\"").with("content-length", "84")))),
        ("HEAD without a length", head(Misbehavior::changes(|answer| answer.remove("content-length")))),
        ("HEAD with another length", head(Misbehavior::changes(|answer| answer.set("content-length", "9")))),
        ("HEAD with another type", head(Misbehavior::changes(|answer| answer.set("content-type", "application/octet-stream")))),
        (
            "HEAD of a compressing proxy",
            head(Misbehavior::changes(|answer| {
                answer.set("content-encoding", "gzip");
                answer.set("content-length", "70");
            })),
        ),
        ("HEAD without an entity tag", head(Misbehavior::changes(|answer| answer.remove("etag")))),
        ("HEAD with an empty entity tag", head(Misbehavior::changes(|answer| answer.set("etag", "")))),
        ("404 NoSuchBucket to GET", get(Misbehavior::error(404, "NoSuchBucket"))),
        ("404 of a proxy to GET", get(page(404))),
        ("a page instead of GET's answer", get(page(200))),
        ("the range ends early", get(Misbehavior::changes(|answer| answer.body = answer.body.slice(..9)))),
        ("another range", get(Misbehavior::changes(|answer| answer.set("content-range", "bytes 9-70/99")))),
        ("a range of another length", get(Misbehavior::changes(|answer| answer.set("content-range", "bytes 0-9/10")))),
        ("no range that can be read", get(Misbehavior::changes(|answer| answer.set("content-range", "bytes */99")))),
        ("GET of another object", get(Misbehavior::changes(|answer| answer.set("etag", "\"other\"")))),
        (
            "GET of a compressing proxy",
            get(Misbehavior::changes(|answer| {
                answer.set("content-encoding", "gzip");
                answer.body = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"[..].into();
            })),
        ),
        ("the body breaks off", get(Misbehavior::CutsBody(20))),
        ("hung up on HEAD", head(Misbehavior::HangsUp)),
        ("hung up on GET", get(Misbehavior::HangsUp)),
        ("hung up after the request was executed", all(Misbehavior::LosesAnswer)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_false_answers_decide_nothing_about_an_upload() {
    // The cases share a few servers, because each server needs a database with its indexes.
    const SERVERS: usize = 6;
    let mut shares: Vec<Vec<_>> = (0..SERVERS).map(|_| Vec::new()).collect();
    for (n, case) in faulty_answers().into_iter().enumerate() {
        shares[n % SERVERS].push(case);
    }
    let shares = shares.into_iter().map(|cases| async {
        let server = SingleServer::start(&[]).await;
        for (label, rule) in cases {
            let id = server.send_upload().await;
            let hits = server.faults.add(rule);
            server.confirm(&id).await.assert_outage(label);
            assert!(hits.load(std::sync::atomic::Ordering::SeqCst) > 0, "{label}: the fault was not used");
            assert_eq!(server.state(&id).await, "pending", "{label}");
            let swept = server.sweep(AFTER_LAST_CHECK).await;
            assert_eq!((swept.expired, swept.rejected, swept.removals), (0, 0, 0), "{label}: {swept:?}");
            assert_eq!(server.state(&id).await, "pending", "{label}");
            server.faults.heal();
            assert!(server.keys().await.iter().any(|key| key.ends_with(&id)), "{label}: the object is gone");
            let after = server.confirm(&id).await;
            assert_eq!(after.status, 200, "{label}: {after:?}");
        }
        // Nothing of these uploads is counted or stored twice.
        server.sweep(AFTER_LAST_CHECK).await;
        let usage = server.get("/api/auth/me").await.json["usage"].clone();
        assert_eq!((usage["images"].as_u64(), usage["pending"].as_u64()), (Some(server.keys().await.len() as u64), Some(0)));
    });
    join_all(shares).await;
}

/// Unusual answers that contain all necessary values are accepted.
#[tokio::test(flavor = "multi_thread")]
async fn unusual_but_complete_answers_are_accepted() {
    let server = SingleServer::start(&[]).await;
    let whole = Misbehavior::changes(|answer| {
        answer.status = 200;
        answer.remove("content-range");
    });
    let id = server.send_upload().await;
    server.faults.add(Rule::new(&[GetObject], whole));
    assert_eq!(server.confirm(&id).await.status, 200, "a store without ranges");
    server.faults.heal();
    // Without a checksum the server hashes the bytes.
    let id = server.send_upload().await;
    server.faults.add(Rule::new(&[HeadObject], Misbehavior::changes(|answer| answer.remove("x-amz-checksum-sha256"))));
    assert_eq!(server.confirm(&id).await.status, 200);
    let (id, short) = (server.send_upload().await, Misbehavior::changes(|answer| answer.body = answer.body.slice(..40)));
    server.faults.add(Rule::new(&[GetObject], short));
    server.confirm(&id).await.assert_outage("half of the bytes to hash");
    server.faults.heal();
    assert_eq!(server.confirm(&id).await.status, 200);
}

/// F9: HEAD does not find an object that the store has accepted.
#[tokio::test(flavor = "multi_thread")]
async fn f9_object_not_visible_yet_is_reported_missing_and_confirmed_later() {
    let server = SingleServer::start(&[]).await;
    let id = server.send_upload().await;
    for also_get in [false, true] {
        let hidden = if also_get { vec![HeadObject, GetObject] } else { vec![HeadObject] };
        server.faults.add(Rule::new(&hidden, Misbehavior::error(404, "NoSuchKey")));
        let early = server.confirm(&id).await;
        assert_eq!(early.problem(), (409, "object_missing"), "{early:?}");
        assert_eq!(server.state(&id).await, "pending");
        if !also_get {
            // The sweeper sends a GET too before it expires an upload, because expiry is final: the GET finds the object.
            let swept = server.sweep(AFTER_LAST_CHECK).await;
            assert_eq!((swept.expired, swept.rejected, swept.removals), (0, 0, 0), "{swept:?}");
            assert_eq!(server.state(&id).await, "pending");
        }
        server.faults.heal();
    }
    assert_eq!(server.confirm(&id).await.status, 200);
}

/// F7: the store rejects half of all calls. The SDK's retries succeed, or the client gets 503 and repeats its call.
#[tokio::test(flavor = "multi_thread")]
async fn f7_uploads_work_while_half_of_the_calls_get_slow_down() {
    let server = SingleServer::start(&[]).await;
    let hits = server.faults.add(Rule::all(Misbehavior::error(503, "SlowDown")).share(50));
    for _ in 0..6 {
        let id = server.send_upload().await;
        let mut tries = 0;
        loop {
            let answer = server.confirm(&id).await;
            if answer.status == 200 {
                break;
            }
            answer.assert_outage("slowed down");
            tries += 1;
            assert!(tries < 20);
        }
    }
    assert!(hits.load(std::sync::atomic::Ordering::SeqCst) > 3);
}

/// The problem of `/readyz` names the bucket, and the server becomes ready again without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn f10_server_refused_by_its_bucket_is_not_ready() {
    let server = SingleServer::start(&[]).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    for misbehavior in [
        Misbehavior::error(403, "AccessDenied"),
        Misbehavior::error(404, "NoSuchBucket"),
        Misbehavior::AnswersWith(Answer::html(404)),
    ] {
        server.faults.add(Rule::all(misbehavior));
        // The result of the readiness check is cached for a second.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let answer = server.get("/readyz").await;
        answer.assert_outage("not ready");
        assert!(answer.json["detail"].as_str().unwrap().contains("bucket"), "{answer:?}");
        assert_eq!(server.get("/livez").await.status, 200);
        server.faults.heal();
    }
    // The result of the readiness check is cached for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(server.get("/readyz").await.status, 200);
}

/// F25: an unresolvable name is an outage like any other.
#[tokio::test(flavor = "multi_thread")]
async fn f25_unresolvable_store_name_is_an_outage() {
    let server = SingleServer::start(&[("S3_ENDPOINT", "http://store.invalid")]).await;
    // No probe of the store has succeeded, so the server does not know whether the store enforces signed headers.
    let bytes = fixture("plain.png");
    server.post("/api/images/upload", declaration("a.png", "image/png", &bytes)).await.assert_outage("no such name");
    let swept = server.sweep(AFTER_LAST_CHECK).await;
    assert_eq!(swept.expired, 0, "{swept:?}");
}
