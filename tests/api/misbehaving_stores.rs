//! Covers false answers of stores, and of proxies in front of them: none of them makes the server lose, reject or keep an upload
//! permanently.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::{
    config::Finalize,
    domain::doctor::{self, Answer, Options},
};

use super::{
    app::{TestApp, fixture, sha256, skip_unless_local_s3, unique_png},
    doctor::store_defects::{Defect, Proxy},
};

/// Returns a server on the store itself, one on the store with this defect, and the proxy that has the defect; `None` if the run's
/// store is not the local one.
async fn start_on_defect(defect: Defect, finalize: Finalize) -> Option<(TestApp, TestApp, Proxy)> {
    if skip_unless_local_s3() {
        return None;
    }
    let store = TestApp::start().await;
    let proxy = Proxy::start(&store, defect).await;
    let app = TestApp::start_second_server(&store, |config| {
        config.s3.finalize = finalize;
        config.s3.endpoint = Some(proxy.endpoint.parse().unwrap());
        config.s3.public_endpoint = Some(proxy.endpoint.parse().unwrap());
        config.uploads.url_ttl = Duration::from_secs(60);
        config.uploads.ttl = Duration::from_secs(60);
        config.uploads.multipart_ttl = Duration::from_secs(60);
    })
    .await;
    Some((store, app, proxy))
}

/// Returns a time after the expiry and the grace period of every URL.
fn after_all_urls() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(3 * 3600)
}

/// Deletes the image and sweeps until it is purged; returns the keys that are left in the bucket.
async fn delete(app: &TestApp, caller: &super::app::Caller<'_>, id: &str) -> Vec<String> {
    assert_eq!(caller.delete(&format!("/api/images/{id}")).await.status, 204);
    app.sweep(after_all_urls()).await;
    assert_eq!(app.db_state(id).await, "gone");
    app.bucket_keys().await
}

#[tokio::test]
async fn objects_are_deleted_on_a_store_that_lists_objects_instead_of_versions() {
    let Some((_store, app, _proxy)) = start_on_defect(Defect::ListsObjectsInstead, Finalize::InPlace).await else { return };
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    assert_eq!(delete(&app, &ada, image["id"].as_str().unwrap()).await, Vec::<String>::new());

    let size = 6 << 20;
    let ticket =
        ada.post("/api/images/multipart", json!({ "fileName": "b.png", "contentType": "image/png", "size": size })).await;
    assert_eq!(delete(&app, &ada, ticket.id()).await, Vec::<String>::new());

    let report = doctor::run(&app.config, Options { fix: true, loopback: true }).await;
    println!("{report}");
    assert!(report.changes.iter().all(|change| change.ends_with("this store has no such setting")), "{:?}", report.changes);
    for name in ["object: versions listed", "bucket: abandoned multiparts aborted", "bucket: public access block"] {
        assert!(matches!(report.answer(name), Some(Answer::Skipped(_))), "{name}");
    }
    assert!(matches!(report.answer("object: delete"), Some(Answer::Yes(_))));
    assert!(matches!(report.answer("check: nothing left behind"), Some(Answer::Yes(_))));
}

/// On a versioned bucket a plain DELETE only hides the object; objects from before versioning have the version `null`.
#[tokio::test]
async fn object_from_before_versioning_is_deleted() {
    let Some((_store, app, _proxy)) = start_on_defect(Defect::HasVersionsSinceLately, Finalize::InPlace).await else { return };
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    assert_eq!(delete(&app, &ada, image["id"].as_str().unwrap()).await, Vec::<String>::new());
}

/// With Object Lock, the URLs of a deleted image stop working, before and after the sweep, and the image counts as purged.
#[tokio::test]
async fn image_whose_version_is_retained_is_hidden() {
    let Some((store, app, _proxy)) = start_on_defect(Defect::RetainsVersions, Finalize::InPlace).await else { return };
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let id = image["id"].as_str().unwrap();
    let read = async || app.http.get(image["url"].as_str().unwrap()).send().await.unwrap().status();
    assert_eq!(read().await, 200);
    assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    assert_eq!(read().await, 404);
    for later in [0, 600] {
        let swept = app.sweep(after_all_urls() + Duration::from_secs(later)).await;
        assert_eq!(swept.failed, 0, "{swept:?}");
        assert_eq!(read().await, 404, "the delete marker stays");
    }
    assert_eq!(app.db_state(id).await, "gone");
    let objects = store.bucket_keys().await.into_iter().filter(|key| key.starts_with("u/")).count();
    assert_eq!(objects, 1, "the object exists below the delete marker");
    let report = doctor::run(&app.config, Options::default()).await;
    assert!(matches!(report.answer("object: delete"), Some(Answer::Yes(_))), "{report}");
    assert!(matches!(report.answer("object: versions deleted"), Some(Answer::No(_))), "{report}");
    assert!(report.to_string().contains("retention"), "{report}");
}

/// An account's record stays, and counts the failures, while versions of its images are retained; it is deleted when the retention
/// ends.
#[tokio::test]
async fn account_record_stays_while_versions_are_retained() {
    let Some((store, app, proxy)) = start_on_defect(Defect::RetainsVersions, Finalize::InPlace).await else { return };
    let ada = app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    let password = json!({ "password": super::app::PASSWORD });
    assert_eq!(ada.post("/api/auth/me/delete", password).await.status, 204);
    let users = app.db.collection::<mongodb::bson::Document>("users");
    let mut failures = Vec::new();
    // The sweeper repeats a failed deletion at least once a day.
    for day in 0..8 {
        let swept = app.sweep(after_all_urls() + day * Duration::from_secs(25 * 3600)).await;
        assert_eq!(swept.accounts, 0, "{swept:?}");
        let record = users.find_one(mongodb::bson::doc! { "_id": &ada.id }).await.unwrap().expect("the record stays");
        failures.push(record.get_i64("deletionFailures").unwrap());
    }
    assert!(failures.is_sorted() && failures[7] >= 6, "failures are counted for the alert: {failures:?}");
    proxy.repair();
    let swept = app.sweep(after_all_urls() + Duration::from_secs(10 * 25 * 3600)).await;
    assert_eq!(swept.accounts, 1, "{swept:?}");
    // Probe objects were retained too, so only the account's objects are counted.
    let objects = store.bucket_keys().await.into_iter().filter(|key| key.contains(&ada.id)).count();
    assert_eq!(objects, 0);
}

#[tokio::test]
async fn records_end_on_a_store_that_cannot_abort_uploads() {
    let Some((_store, app, _proxy)) = start_on_defect(Defect::AbortsNothing, Finalize::InPlace).await else { return };
    let ada = app.user().await;
    let open = json!({ "fileName": "b.png", "contentType": "image/png", "size": 6 << 20 });
    let ticket = ada.post("/api/images/multipart", open).await;
    delete(&app, &ada, ticket.id()).await;
}

/// Every second image is larger than the range that confirm reads of it.
#[tokio::test]
async fn unusual_ranges_and_checksums_do_not_stop_a_confirm() {
    for defect in [Defect::RejectsLongRanges, Defect::SendsWrongChecksums, Defect::IgnoresRanges] {
        let Some((_store, app, _proxy)) = start_on_defect(defect, Finalize::InPlace).await else { return };
        let ada = app.user().await;
        for mut bytes in [unique_png(), unique_png()] {
            ada.upload("a.png", "image/png", &bytes).await;
            bytes.resize(300_000, 0);
            ada.upload("b.png", "image/png", &bytes).await;
        }
        ada.upload("deep.jpg", "image/jpeg", &fixture("deep.jpg")).await;
    }
}

/// The client did not cause the other type, so the upload is not rejected.
#[tokio::test]
async fn type_changed_by_the_store_rejects_nothing() {
    let Some((_store, app, _proxy)) = start_on_defect(Defect::TypesAsItLikes, Finalize::Copy).await else { return };
    let ada = app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    // Headers that the client itself had to send are still compared.
    let ticket = ada.open_upload("b.png", "image/png", &unique_png()).await;
    app.bucket_put(&format!("in/{}/{}", ada.id, ticket.id()), "image/webp", unique_png()).await;
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (422, "object_mismatch"));
}

/// Metadata that the store adds to copies is ignored; metadata that the client sent is not.
#[tokio::test]
async fn metadata_added_by_the_store_rejects_no_copy() {
    let Some((_store, app, _proxy)) = start_on_defect(Defect::DatesCopies, Finalize::Copy).await else { return };
    let ada = app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    let Some((_store, in_place, _proxy)) = start_on_defect(Defect::DatesCopies, Finalize::InPlace).await else { return };
    let eve = in_place.user().await;
    let bytes = unique_png();
    let ticket = eve.open_upload("b.png", "image/png", &bytes).await;
    assert_eq!(in_place.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(eve.confirm(ticket.id()).await.problem(), (422, "object_mismatch"));
}

#[tokio::test]
async fn parts_without_listed_checksums_are_completed() {
    let Some((_store, app, _proxy)) = start_on_defect(Defect::HidesPartChecksums, Finalize::Auto).await else { return };
    let ada = app.user().await;
    let bytes = [unique_png(), vec![0; 5 << 20]].concat();
    let open = json!({ "fileName": "b.png", "contentType": "image/png", "size": bytes.len(), "partChecksums": "sha256" });
    let ticket = ada.post("/api/images/multipart", open).await;
    let size = usize::try_from(ticket.json["partSize"].as_u64().unwrap()).unwrap();
    let parts = bytes.chunks(size).enumerate();
    let wanted: Vec<_> = parts.map(|(at, part)| json!({ "partNumber": at + 1, "sha256": sha256(part) })).collect();
    let signed = ada.post(&format!("/api/images/{}/parts", ticket.id()), json!({ "parts": wanted })).await;
    for (part, bytes) in signed.json["parts"].as_array().unwrap().iter().zip(bytes.chunks(size)) {
        let mut wrong = bytes.to_vec();
        wrong[7] ^= 1;
        assert_eq!(app.put(&part["request"], wrong).await, 400, "the checksum of each part is verified");
        assert_eq!(app.put(&part["request"], bytes.to_vec()).await, 200);
    }
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
}

/// A missing member does not prove that the object differs: a rejection would be final.
#[tokio::test]
async fn incomplete_head_response_rejects_nothing() {
    for defect in [Defect::OmitsLength, Defect::OmitsEntityTag] {
        let Some((_store, app, proxy)) = start_on_defect(defect, Finalize::InPlace).await else { return };
        let ada = app.user().await;
        let bytes = unique_png();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        assert_eq!(ada.confirm(ticket.id()).await.problem(), (503, "unavailable"), "{defect:?}");
        app.sweep(after_all_urls()).await;
        assert_eq!(app.db_state(ticket.id()).await, "pending", "{defect:?}");
        proxy.repair();
        assert_eq!(ada.confirm(ticket.id()).await.status, 200, "{defect:?}");
    }
}

/// If HEAD answers 404 and GET finds the object, the upload must not expire.
#[tokio::test]
async fn object_that_only_get_finds_does_not_expire() {
    let Some((_store, app, proxy)) = start_on_defect(Defect::HeadFindsNothing, Finalize::InPlace).await else { return };
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.problem(), (409, "object_missing"));
    let swept = app.sweep(after_all_urls()).await;
    assert_eq!((swept.expired, app.db_state(ticket.id()).await.as_str()), (0, "pending"), "{swept:?}");
    proxy.repair();
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
}

/// 404 for every request does not mean that a single object is missing.
#[tokio::test]
async fn nothing_expires_while_the_bucket_is_missing() {
    let Some((store, app, proxy)) = start_on_defect(Defect::IsLost, Finalize::InPlace).await else { return };
    proxy.repair();
    app.app.valet.prober.probe(OffsetDateTime::now_utc()).await;
    let ada = app.user().await;
    let (bytes, big) = (unique_png(), [unique_png(), vec![0; 5 << 20]].concat());
    let single = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&single.json["upload"], bytes).await, 200);
    let open = json!({ "fileName": "b.png", "contentType": "image/png", "size": big.len() });
    let multipart = ada.post("/api/images/multipart", open).await;
    let path = format!("/api/images/{}/parts", multipart.id());
    let numbers: Vec<_> = (1..=multipart.json["partCount"].as_u64().unwrap()).map(|n| json!({ "partNumber": n })).collect();
    let signed = ada.post(&path, json!({ "parts": numbers })).await;
    let size = usize::try_from(multipart.json["partSize"].as_u64().unwrap()).unwrap();
    for (part, bytes) in signed.json["parts"].as_array().unwrap().iter().zip(big.chunks(size)) {
        assert_eq!(app.put(&part["request"], bytes.to_vec()).await, 200);
    }

    let lost_store = Proxy::start(&store, Defect::IsLost).await;
    let server_on_lost_store =
        TestApp::start_second_server(&store, |config| config.s3.endpoint = Some(lost_store.endpoint.parse().unwrap())).await;
    let swept = server_on_lost_store.sweep(after_all_urls()).await;
    assert_eq!((swept.expired, swept.failed), (0, 2), "{swept:?}");
    assert_eq!(server_on_lost_store.db_state(single.id()).await, "pending");
    let listed = super::app::Caller { app: &server_on_lost_store, ..ada.clone() }.get(&path).await;
    assert_eq!(listed.problem(), (503, "unavailable"), "no other multipart upload is opened instead");

    lost_store.repair();
    let swept = server_on_lost_store.sweep(after_all_urls() + Duration::from_secs(600)).await;
    assert_eq!((swept.expired, swept.confirmed), (0, 2), "{swept:?}");
}

/// Failures of a store during the probe do not count as missing capabilities: the store is probed again, so that its uploads are
/// not copied for ever.
#[tokio::test]
async fn failing_store_is_probed_again() {
    let Some((_store, app, proxy)) = start_on_defect(Defect::IsOverloaded, Finalize::Auto).await else { return };
    let ada = app.user().await;
    let is_copied = |ticket: &Value| ticket["upload"]["url"].as_str().unwrap().contains("/in/");
    // Nothing is known yet: the store may accept unsigned copy sources in any URL.
    let multipart = json!({ "fileName": "a.png", "contentType": "image/png", "size": 6 << 20 });
    assert_eq!(ada.open_upload("a.png", "image/png", &unique_png()).await.problem(), (503, "unavailable"));
    assert_eq!(ada.post("/api/images/multipart", multipart).await.problem(), (503, "unavailable"));
    assert_eq!(ada.post_empty("/api/uppy/session").await.problem(), (503, "unavailable"));
    proxy.repair();
    app.sweep(OffsetDateTime::now_utc()).await;
    assert!(!is_copied(&ada.open_upload("a.png", "image/png", &unique_png()).await.json));
}

#[tokio::test]
async fn distant_store_is_probed_in_time() {
    let Some((_store, app, _proxy)) = start_on_defect(Defect::IsFarAway, Finalize::Auto).await else { return };
    let ticket = app.user().await.open_upload("a.png", "image/png", &unique_png()).await;
    assert!(!ticket.json["upload"]["url"].as_str().unwrap().contains("/in/"));
}

#[tokio::test]
async fn listing_that_repeats_its_page_ends() {
    let Some((_store, app, _proxy)) = start_on_defect(Defect::ListsTheSameAgain, Finalize::InPlace).await else { return };
    let before = OffsetDateTime::now_utc() - Duration::from_millis(50);
    assert!(app.app.valet.orphans.find(before, &mut |_| {}).await.is_err());
    let report = doctor::run(&app.config, Options::default()).await;
    assert!(matches!(report.answer("check: nothing left behind"), Some(Answer::No(_))), "{report}");
}

/// A server was killed during a probe: the next probe aborts the old multipart uploads that it left open, and no others.
#[tokio::test]
async fn uploads_left_by_a_killed_probe_are_aborted() {
    if skip_unless_local_s3() {
        return;
    }
    let store = TestApp::start().await;
    let run = uuid::Uuid::new_v4();
    let probes = [format!("check/{run}/object"), format!("check/{run}/part-nothing")];
    let others = ["check/report".to_owned(), format!("check/{run}/report.pdf"), format!("u/{run}/object")];
    for key in probes.iter().chain(&others) {
        store.s3.create_multipart_upload().bucket(&store.config.s3.bucket).key(key).send().await.unwrap();
    }
    let open = async || {
        let listed = store.s3.list_multipart_uploads().bucket(&store.config.s3.bucket).send().await.unwrap();
        listed.uploads().iter().map(|upload| upload.key().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = open().await;
    let second_server = TestApp::start_second_server(&store, |_| {}).await;
    assert_eq!(open().await, all, "open uploads may belong to a running probe");
    drop(second_server);
    // Through this relay, the listing has old dates.
    let endpoint = super::relay::relay_s3(&store, move |request| async move {
        let is_listing = request.query().contains("uploads");
        let mut answer = request.forward().await;
        if is_listing {
            let text = http_body_util::BodyExt::collect(std::mem::take(answer.body_mut())).await.unwrap().to_bytes();
            let text = String::from_utf8(text.to_vec()).unwrap().replace("<Initiated>20", "<Initiated>19");
            answer.headers_mut().remove("content-length");
            *answer.body_mut() = bytes::Bytes::from(text).into();
        }
        answer
    })
    .await;
    TestApp::start_second_server(&store, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await;
    let mut open_uploads = open().await;
    open_uploads.sort();
    let mut expected = others.to_vec();
    expected.sort();
    assert_eq!(open_uploads, expected);
}
