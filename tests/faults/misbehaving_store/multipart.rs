//! Multipart uploads on a misbehaving store: no sent part is lost.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use super::{
    super::{
        files::fixture,
        s3_faults::{Answer, Misbehavior, Operation, Rule},
        single_server::SingleServer,
    },
    AFTER_LAST_CHECK,
};
use Operation::{CompleteMultipart, ListParts};

/// Opens a multipart upload and sends its only part, bypassing all faults; returns its id.
pub(super) async fn send_upload(server: &SingleServer) -> String {
    let mut bytes = fixture("plain.png");
    bytes.extend(uuid::Uuid::new_v4().as_bytes());
    let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": bytes.len() });
    let ticket = server.post("/api/images/multipart", body).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    let path = format!("/api/images/{}/parts", ticket.id());
    let signed = server.post(&path, json!({ "parts": [{ "partNumber": 1 }] })).await;
    assert_eq!(server.put(&signed.json["parts"][0]["request"], bytes).await, 200, "{signed:?}");
    ticket.id()
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_false_answers_lose_no_part() {
    let server = SingleServer::start(&[]).await;
    for (case, rule) in [
        ("404 NoSuchBucket", Rule::all(Misbehavior::error(404, "NoSuchBucket"))),
        ("404 of a proxy", Rule::all(Misbehavior::AnswersWith(Answer::html(404)))),
        ("404 NoSuchBucket to the listing", Rule::new(&[ListParts], Misbehavior::error(404, "NoSuchBucket"))),
        ("a page instead of the listing", Rule::new(&[ListParts], Misbehavior::AnswersWith(Answer::html(200)))),
        ("503", Rule::all(Misbehavior::error(503, "SlowDown"))),
        ("403", Rule::all(Misbehavior::error(403, "AccessDenied"))),
    ] {
        let id = send_upload(&server).await;
        server.faults.add(rule);
        let path = format!("/api/images/{id}/parts");
        server.get(&path).await.assert_outage(case);
        server.confirm(&id).await.assert_outage(case);
        let swept = server.sweep(8 * AFTER_LAST_CHECK).await;
        assert_eq!((swept.expired, swept.rejected), (0, 0), "{case}: {swept:?}");
        server.faults.heal();
        let parts = server.get(&path).await;
        assert_eq!(parts.json["parts"][0]["partNumber"], 1, "{case}: {parts:?}");
        assert_eq!(server.confirm(&id).await.status, 200, "{case}");
    }
}

/// S3 starts to answer 200 before it has completed, and reports the failure in the body.
#[tokio::test(flavor = "multi_thread")]
async fn f10_completion_that_fails_with_status_200_is_not_a_success() {
    let server = SingleServer::start(&[]).await;
    for (case, misbehavior) in [
        ("200 with an error", Misbehavior::error(200, "InternalError")),
        (
            "200 with half an answer",
            Misbehavior::AnswersWith(Answer::page(200, "application/xml", "<?xml version=\"1.0\"?><Compl")),
        ),
        ("200 with a page", Misbehavior::AnswersWith(Answer::html(200))),
        ("404 NoSuchBucket", Misbehavior::error(404, "NoSuchBucket")),
        ("no answer", Misbehavior::HangsUp),
    ] {
        let id = send_upload(&server).await;
        let hits = server.faults.add(Rule::new(&[CompleteMultipart], misbehavior));
        server.confirm(&id).await.assert_outage(case);
        assert!(hits.load(SeqCst) > 0);
        assert_eq!(server.state(&id).await, "pending", "{case}");
        server.faults.heal();
        assert_eq!(server.confirm(&id).await.status, 200, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_completion_with_a_lost_answer_is_found() {
    let server = SingleServer::start(&[]).await;
    let id = send_upload(&server).await;
    server.faults.add(Rule::new(&[CompleteMultipart], Misbehavior::LosesAnswer));
    let mut answer = server.confirm(&id).await;
    server.faults.heal();
    if answer.status != 200 {
        answer.assert_outage("lost");
        answer = server.confirm(&id).await;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
}
