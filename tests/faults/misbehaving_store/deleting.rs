//! F11, F19: deletes on a misbehaving store. The owner's delete succeeds at once; the sweeper removes the object as soon as the
//! store accepts its delete.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{
    super::{
        files::{declaration, fixture},
        s3_faults::{Answer, Misbehavior, Operation, Rule},
        single_server::SingleServer,
    },
    AFTER_LAST_CHECK,
};
use Operation::{DeleteObject, ListVersions};

#[tokio::test(flavor = "multi_thread")]
async fn f11_tombstone_stays_until_the_store_confirms_the_delete() {
    let server = SingleServer::start(&[]).await;
    for (case, rule) in [
        ("404 NoSuchBucket", Rule::all(Misbehavior::error(404, "NoSuchBucket"))),
        ("404 of a proxy", Rule::all(Misbehavior::AnswersWith(Answer::html(404)))),
        ("404 NoSuchBucket to the delete", Rule::new(&[DeleteObject], Misbehavior::error(404, "NoSuchBucket"))),
        ("403", Rule::all(Misbehavior::error(403, "AccessDenied"))),
        ("expired credentials, for the listing", Rule::new(&[ListVersions], Misbehavior::error(400, "ExpiredToken"))),
        ("503", Rule::all(Misbehavior::error(503, "SlowDown"))),
        ("no answer", Rule::all(Misbehavior::HangsUp)),
        ("HTML with 200", Rule::all(Misbehavior::AnswersWith(Answer::html(200)))),
    ] {
        let id = server.upload_ready().await;
        server.faults.add(rule);
        assert_eq!(server.delete(&id).await.status, 204, "{case}");
        assert_eq!(server.get(&format!("/api/images/{id}")).await.status, 404, "{case}: the owner does not see the image");
        let swept = server.sweep(AFTER_LAST_CHECK).await;
        assert_eq!((swept.purged, server.state(&id).await.as_str()), (0, "deleting"), "{case}: {swept:?}");
        server.faults.heal();
        let swept = server.sweep(2 * AFTER_LAST_CHECK).await;
        assert_eq!((swept.purged, server.state(&id).await.as_str()), (1, "gone"), "{case}: {swept:?}");
        assert!(server.keys().await.is_empty(), "{case}");
    }
}

/// The store deletes, but its answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn f11_delete_with_a_lost_answer_is_repeated() {
    let server = SingleServer::start(&[]).await;
    let id = server.upload_ready().await;
    // More than the three attempts of the SDK, so that the first delete gets no answer at all.
    let hits = server.faults.add(Rule::new(&[DeleteObject], Misbehavior::LosesAnswer).at_most(4));
    assert_eq!(server.delete(&id).await.status, 204);
    assert_eq!(server.delete(&id).await.status, 204);
    while hits.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(server.keys().await.is_empty());
    server.faults.heal();
    server.sweep(AFTER_LAST_CHECK).await;
    assert_eq!(server.state(&id).await, "gone");
}

/// The listing does not contain the object yet, or reports no versions.
#[tokio::test(flavor = "multi_thread")]
async fn d2_object_missing_from_the_listing_is_deleted() {
    let server = SingleServer::start(&[]).await;
    let empty = "<?xml version=\"1.0\"?><ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>";
    for answer in
        [Answer::page(200, "application/xml", empty), Answer::error(501, "NotImplemented"), Answer::error(403, "AccessDenied")]
    {
        let id = server.upload_ready().await;
        server.faults.add(Rule::new(&[ListVersions], Misbehavior::AnswersWith(answer)));
        assert_eq!(server.delete(&id).await.status, 204);
        assert!(server.keys().await.is_empty());
        server.faults.heal();
    }
}

/// F19: S3 checks a URL's expiry only when a PUT begins. A PUT in progress when its upload is deleted still arrives, is not
/// shown, and is removed by the tombstone's last check.
#[tokio::test(flavor = "multi_thread")]
async fn f19_put_that_ends_after_the_delete_leaves_nothing() {
    let server = SingleServer::start(&[]).await;
    let bytes = fixture("plain.png");
    let ticket = server.post("/api/images/upload", declaration("a.png", "image/png", &bytes)).await;
    let (resume_tx, resume_rx) = tokio::sync::oneshot::channel::<()>();
    let (first, rest) = (bytes[..10].to_vec(), bytes[10..].to_vec());
    let rest = stream::once(async move {
        let _ = resume_rx.await;
        Ok(rest)
    });
    let body = stream::iter([Ok::<_, std::io::Error>(first)]).chain(rest);
    let upload = &ticket.json["upload"];
    let mut put = server.http.put(upload["url"].as_str().unwrap()).header("content-length", bytes.len());
    for (name, value) in upload["headers"].as_object().unwrap() {
        put = put.header(name, value.as_str().unwrap());
    }
    let put = tokio::spawn(put.body(reqwest::Body::wrap_stream(body)).send());
    // The first bytes reach the store while the upload's URL is valid.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let id = ticket.id();
    assert_eq!(server.delete(&id).await.status, 204);
    resume_tx.send(()).unwrap();
    assert_eq!(put.await.unwrap().unwrap().status(), 200);
    assert_eq!(server.keys().await.len(), 1, "the object has arrived");
    assert_eq!(server.confirm(&id).await.problem(), (404, "not_found"));
    server.sweep(AFTER_LAST_CHECK).await;
    assert_eq!((server.keys().await.len(), server.state(&id).await.as_str()), (0, "gone"));
}
