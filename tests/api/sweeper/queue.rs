//! Covers the sweeper's queue: a bad record, a slow file or an owner with many records does not delay others.

use mongodb::bson::{Bson, DateTime};
use valet::config::SweepSchedule;

use super::*;
use crate::relay::{empty_answer, relay_s3};

/// Puts records with every kind of damage in every field at the head of the queue.
#[tokio::test]
async fn unreadable_records_are_counted_and_postponed_without_blocking_others() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let model = ada.open_upload("a.png", "image/png", &unique_png()).await;
    let intact = app.db_image(model.id()).await.unwrap();
    let images = app.db.collection::<Document>("images");
    let mut damaged = Vec::new();
    for field in intact.keys().filter(|field| *field != "due") {
        for value in [Bson::Int32(-7), Bson::String("\u{1}".to_owned()), Bson::Array(vec![]), Bson::Null] {
            let mut record = intact.clone();
            // Keeps the record out of both unique indexes.
            for unique in ["live", "idemKey"] {
                record.remove(unique);
            }
            let id = uuid::Uuid::now_v7().to_string();
            record.extend(doc! { "key": format!("u/{}/{id}", ada.id), "_id": id });
            record
                .insert(field.clone(), if field == "_id" { Bson::String(uuid::Uuid::now_v7().to_string() + "x") } else { value });
            record.insert("due", DateTime::from_millis(1000));
            damaged.push(record);
        }
    }
    images.insert_many(&damaged).await.unwrap();
    let good = ada.open_upload("b.png", "image/png", &unique_png()).await;
    // Twice: postponed records do not block the next round either.
    let now = after(25 * HOUR);
    let first = app.sweep(now).await;
    assert!(first.failed >= 35, "{first:?}");
    assert_eq!(app.db_state(good.id()).await, "expired");
    let second = app.sweep(now).await;
    assert_eq!(second.failed, 0, "each waits for its next attempt: {second:?}");
    // The delay grows with the number of failures.
    let due = |record: Document| record.get_datetime("due").unwrap().timestamp_millis();
    let stuck = doc! { "sweepFailures": { "$gte": 1 } };
    let record = images.find_one(stuck.clone()).await.unwrap().unwrap();
    let id = record.get("_id").unwrap().clone();
    let mut waits = Vec::new();
    let mut at = now;
    for _ in 0..8 {
        let before = due(images.find_one(doc! { "_id": &id }).await.unwrap().unwrap());
        at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(before) * 1_000_000).unwrap();
        app.sweep(at).await;
        let due_after = due(images.find_one(doc! { "_id": &id }).await.unwrap().unwrap());
        waits.push((due_after - before) / 60_000);
    }
    assert!(at > now && waits.is_sorted() && waits[7] > 60, "{waits:?}");
}

/// MongoDB's index of due times also contains times that Valet cannot read, and the elements of lists.
#[tokio::test]
async fn record_whose_due_time_cannot_be_read_is_swept() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for due in [Bson::from(DateTime::MIN), Bson::Array(vec![DateTime::from_millis(1000).into(), Bson::Null])] {
        let ticket = ada.open_upload("a.png", "image/png", &unique_png()).await;
        let damage = doc! { "$set": { "due": &due } };
        app.db.collection::<Document>("images").update_one(doc! { "_id": ticket.id() }, damage).await.unwrap();
        app.sweep(after(25 * HOUR)).await;
        assert_eq!(app.db_state(ticket.id()).await, "expired", "{due}");
    }
}

/// More than five thousand records are due; one, two, three or ten owners have all of them but three, in equal shares.
#[tokio::test]
async fn owners_of_many_images_do_not_delay_an_owner_of_few() {
    for owners in [1, 2, 3, 10] {
        assert_owner_of_few_is_not_delayed(owners).await;
    }
}

/// Sweeps the images of Ada, who has three, beside those of `owners` other users.
async fn assert_owner_of_few_is_not_delayed(owners: usize) {
    const RECORDS: usize = 5600;
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut models = Vec::new();
    for _ in 0..owners {
        let eve = app.user().await;
        let model = eve.open_upload("a.png", "image/png", &unique_png()).await;
        let mut record = app.db_image(model.id()).await.unwrap();
        for field in ["live", "reservation"] {
            record.remove(field);
        }
        record.insert("state", "deleting");
        models.push((eve.id.clone(), record));
    }
    let others_images: Vec<_> = (0..RECORDS)
        .map(|n| {
            let (eve, mut record) = models[n % owners].clone();
            let id = uuid::Uuid::now_v7().to_string();
            record.insert("key", format!("u/{eve}/{id}"));
            record.insert("_id", id);
            record.insert("due", DateTime::from_millis(1000 + n as i64));
            record
        })
        .collect();
    let images = app.db.collection::<Document>("images");
    images.insert_many(&others_images).await.unwrap();
    let mut adas_images = Vec::new();
    for _ in 0..3 {
        adas_images.push(ada.open_upload("b.png", "image/png", &unique_png()).await.id().to_owned());
    }
    let now = after(25 * HOUR);
    for round in 0.. {
        app.sweep(now).await;
        let mut open = 0;
        for id in &adas_images {
            open += u32::from(app.db_state(id).await == "pending");
        }
        if open == 0 {
            break;
        }
        assert!(round < 2, "{open} of Ada's images wait for those of {owners} owners");
    }
    let not_swept = doc! { "user": { "$ne": &ada.id }, "due": { "$lt": DateTime::from_millis(1000 + RECORDS as i64) } };
    let not_swept = images.count_documents(not_swept).await.unwrap();
    assert!(not_swept > 4000, "the sweeps ended before the other images: {not_swept}");
}

/// A sweeper whose clock is an hour behind still claims until later than the present.
#[tokio::test]
async fn claim_lasts_a_lease_from_the_moment_it_is_made() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = ada.open_upload("a.png", "image/png", &unique_png()).await;
    let images = app.db.collection::<Document>("images");
    images
        .update_one(doc! { "_id": ticket.id() }, doc! { "$set": { "due": DateTime::from_millis(1000), "sha256": "damaged" } })
        .await
        .unwrap();
    let past = OffsetDateTime::now_utc() - HOUR;
    assert_eq!(app.sweep(past).await.failed, 1);
    let record = app.db_image(ticket.id()).await.unwrap();
    assert!(record.get_datetime("due").unwrap().timestamp_millis() > DateTime::now().timestamp_millis(), "{record}");
}

/// The store does not answer calls for three images at the head of the queue.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_calls_do_not_delay_other_images() {
    if crate::store_rules::skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut hanging = Vec::new();
    for _ in 0..3 {
        hanging.push(ada.open_upload("a.png", "image/png", &unique_png()).await.id().to_owned());
    }
    for _ in 0..100 {
        ada.open_upload("b.png", "image/png", &unique_png()).await;
    }
    let endpoint = relay_s3(&app, move |request| {
        let is_hanging = hanging.iter().any(|id| request.path().contains(id));
        async move {
            if is_hanging {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            request.forward().await
        }
    })
    .await;
    let second_server = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await;
    let swept = second_server.sweep(after(25 * HOUR)).await;
    assert_eq!((swept.expired, swept.failed), (100, 3), "{swept:?}");
    let counted = app.db.collection::<Document>("images").count_documents(doc! { "sweepFailures": 1 }).await.unwrap();
    assert_eq!(counted, 3, "the store answers, so only these images fail");
}

/// The store answers, but with errors for these images: their failures are counted, and their attempts become rarer.
#[tokio::test]
async fn failures_of_images_on_a_working_store_are_counted_and_repeated_less_often() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut failing = Vec::new();
    for status in [403, 500, 502, 503] {
        failing.push((ada.open_upload("a.png", "image/png", &unique_png()).await.id().to_owned(), status));
    }
    let statuses = failing.clone();
    let endpoint = relay_s3(&app, move |request| {
        let status = statuses.iter().find(|(id, _)| request.path().contains(id)).map(|(_, status)| *status);
        async move {
            match status {
                Some(status) => empty_answer(status),
                None => request.forward().await,
            }
        }
    })
    .await;
    let second_server = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await;
    let mut now = after(25 * HOUR);
    for failures in 1..=6 {
        assert_eq!(second_server.sweep(now).await.failed, 4, "{failures}");
        for (id, status) in &failing {
            assert_eq!(app.db_image(id).await.unwrap().get_i64("sweepFailures").unwrap(), failures, "{status}");
        }
        now += Duration::from_secs(60) * 2_u32.pow(u32::try_from(failures).unwrap()) + Duration::from_secs(1);
    }
}

/// While hundreds of one owner's images wait for hanging calls, a server's own sweeper settles another owner's image as soon as
/// that is due.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_calls_of_one_owner_do_not_delay_others() {
    if crate::store_rules::skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let (eve, ada) = (app.user().await, app.user().await);
    let images = app.db.collection::<Document>("images");
    let model = app.db_image(eve.open_upload("a.png", "image/png", &unique_png()).await.id()).await.unwrap();
    let adas_image = ada.open_upload("b.png", "image/png", &unique_png()).await.id().to_owned();
    let eves_images = (0..400).map(|_| {
        let mut record = model.clone();
        for field in ["live", "reservation"] {
            record.remove(field);
        }
        let id = uuid::Uuid::now_v7().to_string();
        record.extend(doc! { "key": format!("u/{}/{id}", eve.id), "_id": id, "due": DateTime::from_millis(1000) });
        record
    });
    images.insert_many(eves_images).await.unwrap();
    let (hung, mut hangs) = tokio::sync::mpsc::unbounded_channel();
    let eve_id = eve.id.clone();
    let endpoint = relay_s3(&app, move |request| {
        let (is_eves, hung) = (request.path().contains(&eve_id), hung.clone());
        async move {
            if is_eves {
                let _ = hung.send(());
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
            request.forward().await
        }
    })
    .await;
    let _second_server = TestApp::start_second_server(&app, |config| {
        config.s3.endpoint = Some(endpoint.parse().unwrap());
        config.sweep.schedule = SweepSchedule::Prompt;
    })
    .await;
    for _ in 0..3 {
        hangs.recv().await.unwrap();
    }
    // Ada's image is made due only now, so that no earlier batch contains it.
    let expired = doc! { "due": DateTime::from_millis(1000), "expiresAt": DateTime::from_millis(1000), "urlsDieAt": DateTime::from_millis(1000) };
    images.update_one(doc! { "_id": &adas_image }, doc! { "$set": expired }).await.unwrap();
    let began = std::time::Instant::now();
    while app.db_state(&adas_image).await != "expired" {
        // One after another, Eve's images would take minutes.
        assert!(began.elapsed() < Duration::from_secs(60), "Ada's image does not wait for Eve's");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let settled = images.count_documents(doc! { "user": &eve.id, "state": { "$ne": "pending" } }).await.unwrap();
    assert_eq!(settled, 0);
}
