//! Covers records without a due time, which are not in the sweeper's queue although they should be.

use futures_util::TryStreamExt;

use super::*;

/// The sweeper finds one record of each kind among many settled images, without reading the settled ones.
#[tokio::test]
async fn records_without_a_due_time_are_found_by_their_indexes() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let images = app.db.collection::<Document>("images");
    let ready = ada.upload("ready.png", "image/png", &unique_png()).await;
    let pending = ada.open_upload("a.png", "image/png", &unique_png()).await;
    let html = b"<html>".to_vec();
    let rejected = ada.open_upload("b.png", "image/png", &html).await;
    assert_eq!(app.put(&rejected.json["upload"], html).await, 200);
    assert_eq!(ada.confirm(rejected.id()).await.status, 422);
    let deleted = ada.open_upload("c.png", "image/png", &unique_png()).await;
    assert_eq!(ada.delete(&format!("/api/images/{}", deleted.id())).await.status, 204);
    let expired = ada.open_upload("d.png", "image/png", &unique_png()).await;
    images
        .update_one(doc! { "_id": expired.id() }, doc! { "$set": { "state": "expired" }, "$unset": { "live": "" } })
        .await
        .unwrap();
    let copied = ada.upload("e.png", "image/png", &unique_png()).await;
    let leftover = format!("in/{}/{}", ada.id, copied["id"].as_str().unwrap());
    app.bucket_put(&leftover, "image/png", vec![1]).await;
    let leftovers = doc! { "$set": { "strays": [&leftover] } };
    images.update_one(doc! { "_id": copied["id"].as_str().unwrap() }, leftovers).await.unwrap();
    let model = app.db_image(ready["id"].as_str().unwrap()).await.unwrap();
    let settled = (0..300).map(|_| {
        let mut record = model.clone();
        record.extend(doc! { "_id": uuid::Uuid::now_v7().to_string(), "sha256": uuid::Uuid::new_v4().to_string() });
        for field in ["due", "reservation", "strays"] {
            record.remove(field);
        }
        record
    });
    images.insert_many(settled).await.unwrap();
    images.update_many(doc! {}, doc! { "$unset": { "due": "" } }).await.unwrap();

    // Without the majority read concern of `app.db`: the profiler's log is not replicated.
    let database = app.db.client().database(app.db.name());
    crate::targeting::record_all(&database).await;
    app.app.valet.sweeper.sweep().await.unwrap();
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    let profile = database.collection::<Document>("system.profile");
    let image_updates = doc! { "op": "update", "ns": format!("{}.images", app.db.name()) };
    let updates: Vec<Document> = profile.find(image_updates).await.unwrap().try_collect().await.unwrap();
    assert!(updates.len() >= 4, "{updates:?}");
    for update in &updates {
        let plan = update.get_str("planSummary").unwrap_or_default();
        let examined = update.get_i32("docsExamined").unwrap_or_default();
        assert!(!plan.contains("COLLSCAN") && examined <= 3, "{update}");
    }

    for id in [pending.id(), rejected.id(), deleted.id(), expired.id()] {
        let record = app.db_image(id).await.unwrap();
        assert!(record.get_datetime("due").is_ok() || record.get_str("state").unwrap() == "gone", "{record}");
    }
    assert!(!app.all_bucket_keys().await.contains(&leftover));
    let with_due = doc! { "state": "ready", "due": { "$exists": true }, "_id": { "$ne": copied["id"].as_str().unwrap() } };
    assert_eq!(images.count_documents(with_due).await.unwrap(), 0, "images that are settled stay out of the queue");
    assert_eq!(app.sweep(after(26 * HOUR)).await.expired, 1, "the pending image expires in its time");
}
