//! Uploads that are copied at confirm on a misbehaving store: one copy remains, or no copy.

use super::{
    super::{
        s3_faults::{Answer, Misbehavior, Operation, Rule},
        single_server::SingleServer,
    },
    AFTER_LAST_CHECK,
};
use Operation::{CopyObject, GetObject, HeadObject};

#[tokio::test(flavor = "multi_thread")]
async fn f10_false_answers_to_a_copy_confirm_nothing() {
    // With this setting, the server copies without a probe of the store.
    let server = SingleServer::start(&[("S3_FINALIZE", "copy")]).await;
    for (case, rule) in [
        ("200 with an error", Rule::new(&[CopyObject], Misbehavior::error(200, "InternalError"))),
        ("200 with a page", Rule::new(&[CopyObject], Misbehavior::AnswersWith(Answer::html(200)))),
        (
            "200, and nothing was copied",
            Rule::new(&[CopyObject], Misbehavior::AnswersWith(Answer::page(200, "application/xml", "<CopyObjectResult/>"))),
        ),
        ("404 NoSuchBucket", Rule::new(&[CopyObject], Misbehavior::error(404, "NoSuchBucket"))),
        ("404 of a proxy", Rule::all(Misbehavior::AnswersWith(Answer::html(404)))),
        ("403", Rule::new(&[CopyObject], Misbehavior::error(403, "AccessDenied"))),
        ("HEAD with another length", Rule::new(&[HeadObject], Misbehavior::changes(|answer| answer.set("content-length", "9")))),
        (
            "half of the bytes to hash",
            Rule::new(&[GetObject], Misbehavior::changes(|answer| answer.body = answer.body.slice(..40))),
        ),
        ("hung up", Rule::new(&[CopyObject], Misbehavior::HangsUp)),
    ] {
        let id = server.send_upload().await;
        server.faults.add(rule);
        let answer = server.confirm(&id).await;
        if case.contains("nothing was copied") {
            assert!(matches!(answer.status, 409 | 503), "{case}: {answer:?}");
        } else {
            answer.assert_outage(case);
        }
        assert_eq!(server.state(&id).await, "pending", "{case}");
        let swept = server.sweep(AFTER_LAST_CHECK).await;
        assert_eq!((swept.expired, swept.rejected), (0, 0), "{case}: {swept:?}");
        server.faults.heal();
        assert_eq!(server.confirm(&id).await.status, 200, "{case}");
    }
    // The uploaded object and every unused copy are removed in the end.
    server.sweep(AFTER_LAST_CHECK).await;
    server.sweep(2 * AFTER_LAST_CHECK).await;
    let images = server.get("/api/auth/me").await.json["usage"]["images"].as_u64().unwrap();
    assert_eq!(server.keys().await.len() as u64, images, "{:?}", server.keys().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_lost_answer_to_a_copy_leaves_one_copy() {
    let server = SingleServer::start(&[("S3_FINALIZE", "copy")]).await;
    let id = server.send_upload().await;
    server.faults.add(Rule::new(&[CopyObject], Misbehavior::LosesAnswer).at_most(3));
    let mut answer = server.confirm(&id).await;
    if answer.status != 200 {
        answer.assert_outage("lost");
        answer = server.confirm(&id).await;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    server.faults.heal();
    server.sweep(AFTER_LAST_CHECK).await;
    server.sweep(2 * AFTER_LAST_CHECK).await;
    assert_eq!(server.keys().await.len(), 1, "{:?}", server.keys().await);
}
