//! Covers the timeline's counts: their changes with images, their recount, and their cost.
//!
//! Commands: valet recount.

use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};

use super::{ORIGINAL, id, insert_images, list_all_pages, photograph, this_month, upload_taken};
use crate::{
    app::{Caller, TestApp, declaration, sha256, unique_png},
    recount::recount,
};

/// Returns month and count of each entry of the user's timeline.
pub async fn months(caller: &Caller<'_>) -> Value {
    let answer = caller.get("/api/images/timeline").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let months = answer.json["months"].as_array().unwrap();
    months.iter().map(|entry| json!([entry["month"], entry["count"]])).collect()
}

#[tokio::test]
async fn timeline_follows_confirms_and_deletions_of_its_user() {
    let this_month = this_month().await;
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    assert_eq!(months(&ada).await, json!([]));
    let mut ids = Vec::new();
    for at in ["2003:01:31 23:59:59", "2003:02:01 00:00:00", "2003:01:01 00:00:00", "1969:07:20 20:17:40"] {
        ids.push(upload_taken(&ada, at).await);
    }
    ada.upload("a.png", "image/png", &unique_png()).await;
    upload_taken(&bob, "2003:01:01 00:00:00").await;
    ada.open_upload("pending.png", "image/png", &unique_png()).await;
    // The month is that of the local time in the file.
    assert_eq!(months(&ada).await, json!([[this_month, 1], ["2003-02", 1], ["2003-01", 2], ["1969-07", 1]]));
    assert_eq!(months(&bob).await, json!([["2003-01", 1]]));
    assert_eq!(ada.delete(&format!("/api/images/{}", ids[1])).await.status, 204);
    let deleted = ada.post("/api/images/delete", json!({ "ids": [ids[0], ids[2], ids[0]] })).await;
    assert_eq!(deleted.status, 200);
    assert_eq!(months(&ada).await, json!([[this_month, 1], ["1969-07", 1]]));
    assert_eq!(months(&bob).await, json!([["2003-01", 1]]));
    app.sweep_to_the_end().await;
    app.audit().await;
    assert_eq!(recount(&app, None).await.0.repaired, 0);
}

/// An image whose preview is missing has a reservation that ends in a later step: the image counts once all the same.
#[tokio::test]
async fn image_whose_reservation_ends_later_counts_once() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (bytes, preview) = (photograph(&[(ORIGINAL, "2003:01:31 23:59:59")]), photograph(&[]));
    let mut body = declaration("a.jpg", "image/jpeg", &bytes);
    body["preview"] = declaration("x", "image/jpeg", &preview);
    body["preview"].as_object_mut().unwrap().remove("fileName");
    let ticket = ada.post("/api/images/upload", body).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    for _ in 0..2 {
        assert_eq!(ada.confirm(ticket.id()).await.status, 200);
        assert_eq!(months(&ada).await, json!([["2003-01", 1]]));
    }
    assert_eq!(recount(&app, None).await.0.repaired, 0);
    app.sweep_to_the_end().await;
    assert_eq!(months(&ada).await, json!([["2003-01", 1]]));
    app.audit().await;
    assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
    assert_eq!(months(&ada).await, json!([]));
}

#[tokio::test]
async fn recount_repairs_the_timeline_and_counts_images_of_an_earlier_version() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let newer = upload_taken(&ada, "2003:01:31 23:59:59").await;
    let undated = id(&ada.upload("a.png", "image/png", &unique_png()).await);
    let older = upload_taken(&ada, "1969:07:20 20:17:40").await;
    let right = months(&ada).await;
    upload_taken(&bob, "2003:01:01 00:00:00").await;
    assert_eq!(recount(&app, None).await.0.repaired, 0);

    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    images.update_one(doc! { "_id": &undated }, doc! { "$unset": { "takenSort": "" } }).await.unwrap();
    let expected = [newer.clone(), older.clone(), undated.clone()];
    assert_eq!(list_all_pages(&ada, 1).await, expected, "an image without a time of its own comes last");
    for damage in [
        doc! { "$unset": { "timeline": "" } },
        doc! { "$set": { "timeline": { "2003-01": 7_i64, "1970-01": 1_i64 } } },
        doc! { "$set": { "timeline": "damaged" } },
        doc! { "$set": { "timeline": { "2003-01": "many" } } },
    ] {
        users.update_one(doc! { "_id": &ada.id }, damage).await.unwrap();
        let (done, repairs) = recount(&app, None).await;
        assert_eq!((done.repaired, done.failed), (1, 0));
        assert!(repairs[0].has_changed_timeline && repairs[0].to_string().contains("timeline"), "{}", repairs[0]);
        assert_eq!(repairs[0].was, repairs[0].is);
        assert_eq!(months(&ada).await, right);
        assert_eq!(recount(&app, None).await.0.repaired, 0);
    }
    assert_eq!(list_all_pages(&ada, 1).await, [undated, newer, older], "an image without a time is ordered by its upload");

    // A confirm also replaces an unreadable timeline, which then has only the images that are counted from then on.
    users.update_one(doc! { "_id": &ada.id }, doc! { "$set": { "timeline": "damaged" } }).await.unwrap();
    upload_taken(&ada, "2020:02:03 04:05:06").await;
    assert_eq!(months(&ada).await, json!([["2020-02", 1]]));
}

/// There are more images of an earlier version than one transaction counts, and two with times in the year 12000, which has no
/// months.
#[tokio::test]
async fn recount_counts_many_images_of_an_earlier_version_and_leaves_out_damaged_times() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let model = app.db_image(&id(&ada.upload("a.png", "image/png", &unique_png()).await)).await.unwrap();
    let images = app.db.collection::<Document>("images");
    images.delete_one(doc! { "_id": model.get_str("_id").unwrap() }).await.unwrap();
    let year_12000 = DateTime::from_millis(316_516_204_800_000);
    let mut ids = Vec::new();
    let mut records = Vec::new();
    for n in 0..1203 {
        let id = uuid::Uuid::now_v7().to_string();
        let mut record = model.clone();
        record.remove("takenSort");
        // 2003-01-01 and 2004-01-01.
        let created_at = DateTime::from_millis(if n % 3 == 0 { 1_041_379_200_000 } else { 1_073_000_000_000 });
        record.extend(doc! { "_id": &id, "key": format!("u/{}/{id}", ada.id), "createdAt": created_at });
        record.insert("sha256", sha256(id.as_bytes()));
        match n {
            1201 => drop(record.insert("createdAt", year_12000)),
            1202 => drop(record.insert("takenSort", year_12000)),
            _ => {}
        }
        ids.push(id);
        records.push(record);
    }
    images.insert_many(records).await.unwrap();
    let done = recount(&app, None).await.0;
    assert_eq!((done.repaired, done.failed), (1, 0), "{done:?}");
    let counted = json!([["2004-01", 800], ["2003-01", 401]]);
    assert_eq!(months(&ada).await, counted);
    assert_eq!(recount(&app, None).await.0.repaired, 0);
    for id in &ids[1201..] {
        assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204, "the owner can delete the image");
    }
    assert_eq!(months(&ada).await, counted);
    assert_eq!(ada.delete(&format!("/api/images/{}", ids[0])).await.status, 204);
    assert_eq!(months(&ada).await, json!([["2004-01", 800], ["2003-01", 400]]));
}

/// Images that were not counted when they became ready are not subtracted when they are deleted.
#[tokio::test]
async fn deleting_an_image_of_an_earlier_version_does_not_change_the_timeline() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    insert_images(&app, &ada).await;
    let undated = id(&ada.upload("a.png", "image/png", &unique_png()).await);
    upload_taken(&ada, "2003:01:31 23:59:59").await;
    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    images.update_one(doc! { "_id": &undated }, doc! { "$unset": { "takenSort": "" } }).await.unwrap();
    users.update_one(doc! { "_id": &ada.id }, doc! { "$set": { "timeline": { "2003-01": 1_i64 } } }).await.unwrap();
    assert_eq!(ada.delete(&format!("/api/images/{undated}")).await.status, 204);
    assert_eq!(months(&ada).await, json!([["2003-01", 1]]));
}

#[tokio::test]
async fn timeline_reads_one_document() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    upload_taken(&ada, "2003:01:31 23:59:59").await;
    insert_images(&app, &ada).await;
    crate::targeting::record_all(&app.db).await;
    months(&ada).await;
    app.db.run_command(doc! { "profile": 0 }).await.unwrap();
    let profile = app.db.collection::<Document>("system.profile");
    let on_images = doc! { "ns": { "$regex": "images$" }, "command.filter.user": &ada.id };
    assert_eq!(profile.count_documents(on_images).await.unwrap(), 0);
    let found = profile.find_one(doc! { "command.find": "users", "command.projection.timeline": 1 }).await.unwrap().unwrap();
    assert_eq!(found.get_i32("docsExamined").unwrap(), 1, "{found}");
}

/// Two servers confirm and delete images of one user at the same time.
#[tokio::test]
async fn concurrent_changes_are_each_counted_once() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let ada = app.user().await;
    let ada_on_other = Caller { app: &other, ..ada.clone() };
    let work = |n: usize| {
        let (ada, ada_on_other) = (&ada, &ada_on_other);
        async move {
            let id =
                upload_taken(if n.is_multiple_of(2) { ada } else { ada_on_other }, &format!("2003:0{}:01 00:00:00", n % 3 + 1))
                    .await;
            if n >= 6 {
                let path = format!("/api/images/{id}");
                let (one, two) = tokio::join!(ada.delete(&path), ada_on_other.delete(&path));
                assert_eq!((one.status, two.status), (204, 204));
            }
        }
    };
    futures_util::future::join_all((0..12).map(work)).await;
    assert_eq!(months(&ada).await, json!([["2003-03", 2], ["2003-02", 2], ["2003-01", 2]]));
    app.sweep_to_the_end().await;
    app.audit().await;
}
