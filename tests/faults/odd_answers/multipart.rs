//! Uploads in parts on a store that goes wrong: no part that was sent is forgotten.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use super::{
    super::{
        files::fixture,
        s3_faults::{Answer, Misdeed, Operation, Rule},
        shop::Shop,
    },
    EXPIRED,
};
use Operation::{AbortMultipart, CompleteMultipart, ListParts};

/// All parts of an upload, sent past all faults.
pub(super) async fn sent(shop: &Shop) -> String {
    let mut bytes = fixture("plain.png");
    bytes.extend(uuid::Uuid::new_v4().as_bytes());
    let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": bytes.len() });
    let ticket = shop.post("/api/images/multipart", body).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    let path = format!("/api/images/{}/parts", ticket.id());
    let signed = shop.post(&path, json!({ "parts": [{ "partNumber": 1 }] })).await;
    assert_eq!(shop.put(&signed.json["parts"][0]["request"], bytes).await, 200, "{signed:?}");
    ticket.id()
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_no_odd_answer_forgets_a_part() {
    let shop = Shop::start(&[]).await;
    for (what, rule) in [
        ("404 NoSuchBucket", Rule::all(Misdeed::error(404, "NoSuchBucket"))),
        ("404 of a proxy", Rule::all(Misdeed::Says(Answer::html(404)))),
        ("404 NoSuchBucket to the listing", Rule::new(&[ListParts], Misdeed::error(404, "NoSuchBucket"))),
        ("a page instead of the listing", Rule::new(&[ListParts], Misdeed::Says(Answer::html(200)))),
        ("503", Rule::all(Misdeed::error(503, "SlowDown"))),
        ("403", Rule::all(Misdeed::error(403, "AccessDenied"))),
    ] {
        let id = sent(&shop).await;
        shop.faults.add(rule);
        let path = format!("/api/images/{id}/parts");
        shop.get(&path).await.assert_outage(what);
        shop.confirm(&id).await.assert_outage(what);
        let swept = shop.sweep(8 * EXPIRED).await;
        assert_eq!((swept.expired, swept.rejected), (0, 0), "{what}: {swept:?}");
        shop.faults.heal();
        let parts = shop.get(&path).await;
        assert_eq!(parts.json["parts"][0]["partNumber"], 1, "{what}: {parts:?}");
        assert_eq!(shop.confirm(&id).await.status, 200, "{what}");
    }
}

/// S3 begins to answer 200 before it has completed, and says in the body that it did not.
#[tokio::test(flavor = "multi_thread")]
async fn f10_a_completion_that_failed_with_200_is_no_success() {
    let shop = Shop::start(&[]).await;
    for (what, misdeed) in [
        ("200 with an error", Misdeed::error(200, "InternalError")),
        ("200 with half an answer", Misdeed::Says(Answer::page(200, "application/xml", "<?xml version=\"1.0\"?><Compl"))),
        ("200 with a page", Misdeed::Says(Answer::html(200))),
        ("404 NoSuchBucket", Misdeed::error(404, "NoSuchBucket")),
        ("no answer", Misdeed::HangsUp),
    ] {
        let id = sent(&shop).await;
        let hits = shop.faults.add(Rule::new(&[CompleteMultipart], misdeed));
        shop.confirm(&id).await.assert_outage(what);
        assert!(hits.load(SeqCst) > 0);
        assert_eq!(shop.state(&id).await, "pending", "{what}");
        shop.faults.heal();
        assert_eq!(shop.confirm(&id).await.status, 200, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_a_completion_whose_answer_was_lost_is_found() {
    let shop = Shop::start(&[]).await;
    for (operation, status) in [(CompleteMultipart, 200), (AbortMultipart, 200)] {
        let id = sent(&shop).await;
        shop.faults.add(Rule::new(&[operation], Misdeed::LosesAnswer));
        let mut answer = shop.confirm(&id).await;
        if answer.status != status {
            answer.assert_outage("lost");
            shop.faults.heal();
            answer = shop.confirm(&id).await;
        }
        assert_eq!(answer.status, status, "{answer:?}");
        shop.faults.heal();
    }
}
