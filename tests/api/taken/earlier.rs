//! Covers `valet taken`: images that an earlier version made ready get the time, the camera and the month of their files.
//!
//! Commands: valet taken.

use std::{
    num::NonZeroU32,
    os::unix::process::ExitStatusExt,
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::json;
use valet::domain::capture_backfill::CapturesRead;

use super::{MODEL, ORIGINAL, id, insert_images, list_all_pages, photograph, this_month, timeline::months, upload_taken};
use crate::process_client::Ended;
use crate::{
    app::{TestApp, fixture, sha256, skip_unless_local_s3, unique_png},
    crashes::{ABORTED, CRASHES, Fuse},
    event_streams::Events,
    recount::recount,
    relay::{empty_answer, relay_s3},
};

/// Runs the backfill of `valet taken` at this rate.
async fn read_captures(app: &TestApp, rate: u32) -> CapturesRead {
    app.app.valet.capture_backfill.run(NonZeroU32::new(rate).unwrap()).await.unwrap()
}

/// Changes an image to one that an earlier version made ready. `valet recount` counts it in the month of its upload.
async fn make_earlier_version(app: &TestApp, id: &str) {
    let unset = doc! { "$unset": ["takenAt", "camera", "location", "captureRead"] };
    let update = vec![doc! { "$set": { "takenSort": "$createdAt" } }, unset];
    app.db.collection::<Document>("images").update_one(doc! { "_id": id }, update).await.unwrap();
}

/// Returns the fields `takenAt`, `camera` and `captureRead` of an image's document.
async fn recorded(app: &TestApp, id: &str) -> [Option<Bson>; 3] {
    let image = app.db_image(id).await.unwrap();
    ["takenAt", "camera", "captureRead"].map(|field| image.get(field).cloned())
}

#[tokio::test]
async fn earlier_images_get_the_time_and_the_month_of_their_files() {
    let this_month = this_month().await;
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let taken = id(&ada.upload("a.jpg", "image/jpeg", &photograph(&[(MODEL, "E-M1"), (ORIGINAL, "2003:01:31 23:59:59")])).await);
    let never_counted = upload_taken(&ada, "1999:12:31 23:59:59").await;
    let camera_only = id(&ada.upload("a.jpg", "image/jpeg", &photograph(&[(MODEL, "E-M1")])).await);
    let without_capture = id(&ada.upload("a.png", "image/png", &unique_png()).await);
    let animation = id(&ada.upload("a.gif", "image/gif", &fixture("plain.gif")).await);
    let bobs_image = upload_taken(&bob, "2003:01:01 00:00:00").await;
    let newer = upload_taken(&ada, "2020:02:03 04:05:06").await;
    for (image, lacks_capture) in [(&without_capture, true), (&animation, true), (&newer, false), (&camera_only, false)] {
        let found = recorded(&app, image).await;
        assert_eq!(
            found[2],
            lacks_capture.then_some(Bson::Boolean(true)),
            "a confirm records that it has read a file without a time and a camera: {found:?}"
        );
    }
    let earlier = [&taken, &never_counted, &camera_only, &without_capture, &animation, &bobs_image];
    let before = [recorded(&app, &taken).await, recorded(&app, &camera_only).await];
    for image in earlier {
        make_earlier_version(&app, image).await;
    }
    recount(&app, None).await;
    // `never_counted` becomes an image that `valet recount` has not counted yet.
    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    let month = format!("timeline.{this_month}");
    images.update_one(doc! { "_id": &never_counted }, doc! { "$unset": { "takenSort": "" } }).await.unwrap();
    users.update_one(doc! { "_id": &ada.id }, doc! { "$inc": { month: -1_i64 } }).await.unwrap();
    assert_eq!(months(&ada).await, json!([[this_month, 4], ["2020-02", 1]]));

    assert_eq!(read_captures(&app, 3).await, CapturesRead { read: 6, taken: 3, ..CapturesRead::default() });
    assert_eq!([recorded(&app, &taken).await, recorded(&app, &camera_only).await], before);
    for image in [&without_capture, &animation] {
        assert_eq!(recorded(&app, image).await, [None, None, Some(true.into())]);
    }
    assert_eq!(months(&ada).await, json!([[this_month, 3], ["2020-02", 1], ["2003-01", 1], ["1999-12", 1]]));
    assert_eq!(months(&bob).await, json!([["2003-01", 1]]));
    assert_eq!(recount(&app, None).await.0.repaired, 0);
    let ordered = list_all_pages(&ada, 2).await;
    assert_eq!(ordered[3..], [newer, taken.clone(), never_counted], "in the order of their times");
    assert_eq!(ada.get(&format!("/api/images/{taken}")).await.json["takenAt"], "2003-01-31T23:59:59");
    assert_eq!(read_captures(&app, 3).await, CapturesRead::default(), "there is nothing left to read");
    app.audit().await;
}

#[tokio::test]
async fn event_streams_announce_the_time_of_an_earlier_image() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let image = upload_taken(&ada, "2003:01:31 23:59:59").await;
    make_earlier_version(&app, &image).await;
    let without_capture = id(&ada.upload("a.png", "image/png", &unique_png()).await);
    make_earlier_version(&app, &without_capture).await;
    let (mut events, _) = Events::open(&ada, None).await;
    assert_eq!(read_captures(&app, 10).await.read, 2);
    let updated = events.event().await;
    assert_eq!((updated.event.as_str(), updated.data), ("image.updated", json!({ "id": image }).to_string()));
    assert_eq!(ada.delete(&format!("/api/images/{without_capture}")).await.status, 204);
    assert_eq!(events.event().await.event, "image.deleted", "a file without a time and a camera changes nothing");
}

/// One owner's many images do not delay another's, each file takes one ranged GET, and an error of the store affects only its
/// image.
#[tokio::test(flavor = "multi_thread")]
async fn owners_take_turns_with_one_request_for_each_image() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    // The records of these images have no objects.
    insert_images(&app, &ada).await;
    let (read, failing) = (upload_taken(&bob, "2003:01:01 00:00:00").await, upload_taken(&bob, "2003:02:01 00:00:00").await);
    for image in [&read, &failing] {
        make_earlier_version(&app, image).await;
    }
    recount(&app, None).await;
    let gets = Arc::new(Mutex::new(Vec::new()));
    let (seen, fails) = (gets.clone(), failing.clone());
    let relay = relay_s3(&app, move |request| {
        let (seen, fails) = (seen.clone(), fails.clone());
        async move {
            let path = request.path().to_owned();
            if request.parts.method == "GET" && path.contains("/u/") {
                assert!(request.parts.headers.contains_key("range"), "{path}");
                seen.lock().unwrap().push(path.clone());
            }
            if path.ends_with(&fails) { empty_answer(503) } else { request.forward().await }
        }
    });
    let relay = relay.await;
    let relayed = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(relay.parse().unwrap())).await;
    let done = read_captures(&relayed, 400).await;
    assert_eq!(done, CapturesRead { read: 1, taken: 1, failed: 1, missing: 300, ..CapturesRead::default() });
    let gets = gets.lock().unwrap().clone();
    let gets_of = |id: &str| gets.iter().filter(|path| path.ends_with(id)).count();
    assert_eq!(gets_of(&read), 1);
    let mut paths = gets.clone();
    paths.retain(|path| !path.ends_with(&failing));
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 301, "one for each image");
    // The other owner's turn has a hundred images.
    let position = gets.iter().position(|path| path.ends_with(&read)).unwrap();
    assert!(position < 120, "after the first turn of the other owner: {position}");
    assert_eq!(recorded(&app, &failing).await, [None, None, None]);
    let next = CapturesRead { read: 1, taken: 1, missing: 300, ..CapturesRead::default() };
    assert_eq!(read_captures(&app, 400).await, next, "the next run reads it");
    assert_eq!(months(&bob).await, json!([["2003-02", 1], ["2003-01", 1]]));
}

/// Each image that is not read is counted by its cause, and one that the store refuses to return is not read again.
#[tokio::test(flavor = "multi_thread")]
async fn images_that_the_store_refuses_are_counted_and_read_once() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut images = Vec::new();
    for month in 1..4 {
        images.push(upload_taken(&ada, &format!("2003:0{month}:01 00:00:00")).await);
    }
    for image in &images {
        make_earlier_version(&app, image).await;
    }
    recount(&app, None).await;
    let [read, archived, missing] = &images[..] else { panic!("three images") };
    let key = app.db_image(missing).await.unwrap().get_str("key").unwrap().to_owned();
    app.s3.delete_object().bucket(&app.config.s3.bucket).key(key).send().await.unwrap();
    let requests = Arc::new(Mutex::new(0));
    let (counted, refused) = (requests.clone(), archived.clone());
    let relay = relay_s3(&app, move |request| {
        let (counted, refused) = (counted.clone(), refused.clone());
        async move {
            if request.path().ends_with(&refused) {
                *counted.lock().unwrap() += 1;
                let mut answer = empty_answer(403);
                *answer.body_mut() = "<Error><Code>InvalidObjectState</Code></Error>".into();
                answer
            } else {
                request.forward().await
            }
        }
    });
    let relay = relay.await;
    let relayed = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(relay.parse().unwrap())).await;
    let done = read_captures(&relayed, 10).await;
    assert_eq!(done, CapturesRead { read: 1, taken: 1, failed: 0, refused: 1, missing: 1 });
    assert!(recorded(&app, read).await[0].is_some());
    assert_eq!(recorded(&app, archived).await, [None, None, Some("refused".into())]);
    assert_eq!(recorded(&app, missing).await, [None, None, None]);
    let requests_before = *requests.lock().unwrap();
    assert_eq!(read_captures(&relayed, 10).await, CapturesRead { missing: 1, ..CapturesRead::default() });
    assert_eq!(*requests.lock().unwrap(), requests_before, "the image that the store refused is not read again");

    // docs/database.md: the operator has restored the archived object.
    let unset = doc! { "$unset": { "captureRead": "" } };
    app.db.collection::<Document>("images").update_many(doc! { "captureRead": "refused" }, unset).await.unwrap();
    assert_eq!(read_captures(&app, 10).await, CapturesRead { read: 1, taken: 1, missing: 1, ..CapturesRead::default() });
}

/// The store fails at more objects of one owner in a row than the number of failures that ends a run, and returns all others.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_fail_one_after_the_other_do_not_end_the_run() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let read = upload_taken(&bob, "2003:01:01 00:00:00").await;
    make_earlier_version(&app, &read).await;
    for _ in 0..12 {
        make_earlier_version(&app, &upload_taken(&ada, "2003:02:01 00:00:00").await).await;
    }
    recount(&app, None).await;
    let failing = format!("/u/{}/", ada.id);
    let relay = relay_s3(&app, move |request| {
        let fails = request.path().contains(&failing);
        async move { if fails { empty_answer(403) } else { request.forward().await } }
    });
    let relay = relay.await;
    let relayed = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(relay.parse().unwrap())).await;
    // At one image a second, each image is a read of its own. Eleven failing reads in a row end a run if the store itself fails.
    let done = read_captures(&relayed, 1).await;
    assert_eq!(done, CapturesRead { read: 1, taken: 1, failed: 12, ..CapturesRead::default() });
}

/// A page of records whose `uploadedAt` cannot be read does not end their owner's list, and is not read for ever.
#[tokio::test]
async fn images_behind_a_page_of_damaged_upload_times_are_read() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let images = app.db.collection::<Document>("images");
    let dates =
        vec![DateTime::from_millis(0).into(), DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000).into()];
    for damage in [Bson::Array(dates), DateTime::MAX.into(), DateTime::MIN.into(), Bson::Int32(-7), Bson::Null] {
        let image = upload_taken(&ada, "2003:01:31 23:59:59").await;
        make_earlier_version(&app, &image).await;
        let model = app.db_image(&image).await.unwrap();
        let damaged = (0..120).map(|_| {
            let mut record = model.clone();
            let id = uuid::Uuid::now_v7().to_string();
            record.extend(doc! { "sha256": sha256(id.as_bytes()), "_id": id, "uploadedAt": damage.clone() });
            record
        });
        images.insert_many(damaged.collect::<Vec<_>>()).await.unwrap();
        let done = tokio::time::timeout(Duration::from_secs(60), read_captures(&app, 200)).await.expect("the run ends");
        assert_eq!(done, CapturesRead { read: 1, taken: 1, ..CapturesRead::default() }, "{damage:?}");
        images.delete_many(doc! { "user": &ada.id }).await.unwrap();
    }
}

/// Two backfills run at once, during deletions and confirms of the same user.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_are_each_counted_once() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let ada = app.user().await;
    let mut ids = Vec::new();
    for n in 0..24 {
        ids.push(upload_taken(&ada, &format!("2003:0{}:01 00:00:00", n % 3 + 1)).await);
    }
    for image in &ids {
        make_earlier_version(&app, image).await;
    }
    recount(&app, None).await;
    let deletions = async {
        for pair in ids[..12].chunks(2) {
            let deleted = ada.post("/api/images/delete", json!({ "ids": pair })).await;
            assert_eq!(deleted.status, 200);
            for result in deleted.json["results"].as_array().unwrap() {
                assert_eq!(result["status"], 204, "{deleted:?}");
            }
        }
    };
    let confirms = async {
        for _ in 0..6 {
            upload_taken(&ada, "2004:01:01 00:00:00").await;
        }
    };
    let (one, two, (), ()) = tokio::join!(read_captures(&app, 4), read_captures(&other, 6), deletions, confirms);
    assert_eq!((one.failed, two.failed), (0, 0));
    assert_eq!(months(&ada).await, json!([["2004-01", 6], ["2003-03", 4], ["2003-02", 4], ["2003-01", 4]]));
    assert_eq!(recount(&app, None).await.0.repaired, 0);
    app.sweep_to_the_end().await;
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn command_killed_at_every_call_counts_each_image_once() {
    let _permit = CRASHES.acquire().await.unwrap();
    let app = TestApp::start().await;
    let ada = app.user().await;
    let fuse = Fuse::new();
    let settings = fuse.settings(&app);
    // The first eight calls connect to MongoDB and S3.
    let mut calls = 8;
    loop {
        let image = upload_taken(&ada, "2003:01:31 23:59:59").await;
        make_earlier_version(&app, &image).await;
        recount(&app, None).await;
        calls += 1;
        fuse.set(calls);
        let Ended { status, out, err } = settings.run(&["taken", "--rate", "50"]).wait_for_end(Duration::from_secs(60)).await;
        fuse.remove();
        assert!(status.success() || status.signal() == Some(ABORTED), "{status} {out} {err}");
        let is_recorded = recorded(&app, &image).await[0].is_some();
        assert_eq!(recount(&app, None).await.0.repaired, 0, "after {calls} calls, recorded: {is_recorded}");
        if status.success() {
            assert!(is_recorded && out.contains("1 images read, 1 with the time taken, 0 failed"), "{out}");
            break;
        }
        assert!(calls < 100, "the command never ends");
        read_captures(&app, 50).await;
    }
    assert!(calls > 12, "{calls} calls: the failpoint was never reached");
    assert_eq!(months(&ada).await, json!([["2003-01", calls - 8]]));
    app.audit().await;
}
