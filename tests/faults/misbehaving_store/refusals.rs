//! Permanent errors of S3 become one final answer for the client, and the sweeper ends the upload. After errors that an operator
//! can fix, and after temporary ones, the upload stays pending.

use serde_json::json;

use super::{
    super::{
        s3_faults::{Misbehavior, Operation, Rule},
        single_server::{Answer, SingleServer},
    },
    AFTER_LAST_CHECK,
    multipart::send_upload as send_multipart_upload,
};
use Operation::{CompleteMultipart, CopyObject, CreateMultipart, GetObject, HeadObject, ListParts};

/// A call to S3 that fails.
struct Case {
    operation: Operation,
    /// Status and code of S3's error.
    error: (u16, &'static str),
    /// Status and code of Valet's answer to the client.
    answer: (u16, &'static str),
    /// State of the upload after a sweep past its expiry; empty if no upload is opened.
    final_state: &'static str,
}

/// Returns a case, in one line.
fn case(operation: Operation, error: (u16, &'static str), answer: (u16, &'static str), final_state: &'static str) -> Case {
    Case { operation, error, answer, final_state }
}

/// Asserts the expected problem, with `Retry-After` exactly if it is a 503: longer if an operator has to act.
fn assert_answer(answer: &Answer, case: &Case) {
    let label = format!("{:?} {:?}", case.operation, case.error);
    assert_eq!(answer.problem(), case.answer, "{label}: {answer:?}");
    assert_eq!(answer.content_type, "application/problem+json", "{label}: {answer:?}");
    assert_eq!(answer.retry_after.is_some(), answer.status == 503, "{label}: {answer:?}");
    if case.answer.0 == 503 {
        let is_for_operator = matches!(case.error.1, "AccessDenied" | "KMS.DisabledException" | "NoSuchBucket");
        assert_eq!(answer.retry_after.as_deref(), Some(if is_for_operator { "30" } else { "2" }), "{label}");
    }
}

const MISMATCH: (u16, &str) = (422, "object_mismatch");
const PARTS: (u16, &str) = (422, "invalid_parts");
const UNSUPPORTED: (u16, &str) = (409, "not_supported_by_store");
const OUTAGE: (u16, &str) = (503, "unavailable");

#[tokio::test(flavor = "multi_thread")]
async fn permanently_failing_read_rejects_the_object_but_an_outage_does_not() {
    for finalize in ["in-place", "copy"] {
        let server = SingleServer::start(&[("S3_FINALIZE", finalize)]).await;
        let mut cases = vec![
            case(GetObject, (403, "InvalidObjectState"), MISMATCH, "rejected"),
            // The store rejects this request for every object, so the object is not at fault.
            case(GetObject, (400, "InvalidRequest"), UNSUPPORTED, "pending"),
            case(GetObject, (403, "AccessDenied"), OUTAGE, "pending"),
            case(GetObject, (400, "KMS.DisabledException"), OUTAGE, "pending"),
            case(GetObject, (400, "ExpiredToken"), OUTAGE, "pending"),
            case(GetObject, (503, "SlowDown"), OUTAGE, "pending"),
        ];
        if finalize == "copy" {
            cases.push(case(CopyObject, (403, "InvalidObjectState"), MISMATCH, "rejected"));
            cases.push(case(CopyObject, (400, "InvalidRequest"), UNSUPPORTED, "pending"));
            cases.push(case(CopyObject, (501, "NotImplemented"), UNSUPPORTED, "pending"));
            cases.push(case(CopyObject, (403, "AccessDenied"), OUTAGE, "pending"));
            cases.push(case(CopyObject, (503, "SlowDown"), OUTAGE, "pending"));
        }
        for case in cases {
            let (confirmed, swept) = (server.send_upload().await, server.send_upload().await);
            server.faults.add(Rule::new(&[case.operation], Misbehavior::error(case.error.0, case.error.1)));
            assert_answer(&server.confirm(&confirmed).await, &case);
            assert_eq!(server.state(&confirmed).await, case.final_state, "{:?}", case.error);
            server.sweep(AFTER_LAST_CHECK).await;
            let state = server.state(&swept).await;
            assert_eq!(state, case.final_state, "the sweeper, {:?} {:?}", case.operation, case.error);
            server.faults.heal();
            if case.final_state == "pending" {
                assert_eq!(server.confirm(&confirmed).await.status, 200, "a failed read decides nothing about the upload");
                assert_eq!(server.confirm(&swept).await.status, 200, "a failed read decides nothing about the upload");
            } else {
                assert_eq!(server.confirm(&confirmed).await.problem(), case.answer, "a repeat gets the same answer");
                server.sweep(AFTER_LAST_CHECK + AFTER_LAST_CHECK).await;
            }
        }
    }
}

/// An object encrypted with a key of the client (SSE-C): S3 answers 400 to HEAD and GET of this object.
#[tokio::test(flavor = "multi_thread")]
async fn object_encrypted_with_a_client_key_is_rejected() {
    for finalize in ["in-place", "copy"] {
        let server = SingleServer::start(&[("S3_FINALIZE", finalize)]).await;
        let id = server.send_upload().await;
        server.faults.add(Rule::new(&[HeadObject], Misbehavior::error(400, "")));
        server.faults.add(Rule::new(&[GetObject], Misbehavior::error(400, "InvalidRequest")).only_for(&id));
        assert_eq!(server.confirm(&id).await.problem(), MISMATCH, "{finalize}");
        assert_eq!(server.state(&id).await, "rejected");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_cannot_be_completed_get_a_final_answer_and_expire() {
    let server = SingleServer::start(&[]).await;
    for case in [
        case(CompleteMultipart, (400, "EntityTooSmall"), PARTS, "expired"),
        case(CompleteMultipart, (400, "EntityTooLarge"), PARTS, "expired"),
        case(CompleteMultipart, (400, "InvalidPart"), PARTS, "expired"),
        case(CompleteMultipart, (400, "InvalidPartOrder"), PARTS, "expired"),
        case(CompleteMultipart, (400, "InvalidRequest"), PARTS, "expired"),
        case(CompleteMultipart, (200, "EntityTooSmall"), PARTS, "expired"),
        case(CompleteMultipart, (200, "InternalError"), OUTAGE, "pending"),
        case(CompleteMultipart, (501, "NotImplemented"), UNSUPPORTED, "pending"),
        case(CompleteMultipart, (403, "AccessDenied"), OUTAGE, "pending"),
        case(CompleteMultipart, (404, "NoSuchBucket"), OUTAGE, "pending"),
        case(CompleteMultipart, (503, "SlowDown"), OUTAGE, "pending"),
        case(ListParts, (400, "InvalidArgument"), PARTS, "expired"),
        case(ListParts, (501, "NotImplemented"), UNSUPPORTED, "pending"),
        case(ListParts, (403, "AccessDenied"), OUTAGE, "pending"),
        case(ListParts, (503, "SlowDown"), OUTAGE, "pending"),
    ] {
        let id = send_multipart_upload(&server).await;
        server.faults.add(Rule::new(&[case.operation], Misbehavior::error(case.error.0, case.error.1)));
        assert_answer(&server.confirm(&id).await, &case);
        assert_eq!(server.state(&id).await, "pending", "{:?}: parts may be sent again", case.error);
        let many = server.post("/api/images/confirm", json!({ "ids": [id] })).await;
        assert_eq!(many.json["results"][0]["problem"]["code"], case.answer.1, "{:?}: {many:?}", case.error);
        server.sweep(8 * AFTER_LAST_CHECK).await;
        let state = server.state(&id).await;
        assert_eq!(state, case.final_state, "the sweeper, {:?} {:?}", case.operation, case.error);
        server.faults.heal();
        if case.final_state == "pending" {
            assert_eq!(server.confirm(&id).await.status, 200, "{:?}: nothing was decided", case.error);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart_upload_that_the_store_rejects_reserves_nothing() {
    let server = SingleServer::start(&[]).await;
    for case in [
        case(CreateMultipart, (501, "NotImplemented"), UNSUPPORTED, ""),
        case(CreateMultipart, (405, "MethodNotAllowed"), UNSUPPORTED, ""),
        case(CreateMultipart, (400, "InvalidRequest"), UNSUPPORTED, ""),
        case(CreateMultipart, (403, "AccessDenied"), OUTAGE, ""),
        case(CreateMultipart, (503, "SlowDown"), OUTAGE, ""),
    ] {
        server.faults.add(Rule::new(&[CreateMultipart], Misbehavior::error(case.error.0, case.error.1)));
        let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": 6 << 20 });
        assert_answer(&server.post("/api/images/multipart", body).await, &case);
        let path = server.post("/api/uppy/session", json!(null)).await.json["path"].as_str().unwrap().to_owned();
        let file = json!({ "filename": "a.png", "type": "image/png", "metadata": { "size": "6000000" } });
        assert_answer(&server.post(&format!("{path}/s3/multipart"), file).await, &case);
        server.faults.heal();
        let usage = server.get("/api/auth/me").await.json["usage"].clone();
        assert_eq!((usage["bytes"].as_u64(), usage["pending"].as_u64()), (Some(0), Some(0)), "{:?}", case.error);
    }
}
