//! Covers damaged records in the queues of reservations: they delay those of no other user.

use mongodb::bson::Bson;

use super::{DateTime, Document, TestApp, after, doc, user_of};

/// Returns the time an hour ago, when no request that runs now had begun.
fn an_hour_ago() -> DateTime {
    DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000)
}

/// A document is in place of the list in the records of more users than a sweep handles at once (50).
#[tokio::test]
async fn lists_that_are_documents_delay_no_other_user() {
    for field in ["opening", "settling"] {
        let app = TestApp::start().await;
        let users = app.db.collection::<Document>("users");
        let damaged = (0..60).map(|n| {
            let id = uuid::Uuid::now_v7().to_string();
            doc! { "_id": id, field: { "at": DateTime::from_millis(n) }, "registered": true, "images": 0 }
        });
        users.insert_many(damaged.collect::<Vec<_>>()).await.unwrap();
        let ada = app.user().await;
        let id = || uuid::Uuid::now_v7().to_string();
        let entry = doc! {
            "image": id(),
            "step": id(),
            "before": Bson::Null,
            "at": an_hour_ago(),
            "bytes": 0_i64,
            "images": 0_i64,
            "pending": 0_i64,
        };
        users.update_one(doc! { "_id": &ada.id }, doc! { "$set": { field: [entry] } }).await.unwrap();
        app.sweep(after(1)).await;
        assert!(user_of(&ada).await.get_array(field).unwrap().is_empty(), "{field}");
    }
}

/// More users than a sweep handles at once (50) have an entry whose time is a list.
#[tokio::test]
async fn entries_whose_time_is_a_list_delay_no_other_user() {
    for field in ["opening", "settling"] {
        let app = TestApp::start().await;
        let users = app.db.collection::<Document>("users");
        let entry = |at: Bson| {
            let id = || uuid::Uuid::now_v7().to_string();
            doc! { "image": id(), "step": id(), "before": Bson::Null, "at": at, "bytes": 0_i64, "images": 0_i64, "pending": 0_i64 }
        };
        let damaged = (0..60).map(|n| {
            let at = Bson::Array(vec![DateTime::from_millis(n).into()]);
            let id = uuid::Uuid::now_v7().to_string();
            let counters = doc! { "usedBytes": 0_i64, "images": 0_i64, "pending": 0_i64 };
            let mut user = doc! { "_id": id, field: [entry(at)], "registered": true };
            user.extend(counters);
            user
        });
        users.insert_many(damaged.collect::<Vec<_>>()).await.unwrap();
        let ada = app.user().await;
        users.update_one(doc! { "_id": &ada.id }, doc! { "$set": { field: [entry(an_hour_ago().into())] } }).await.unwrap();
        for _ in 0..2 {
            app.sweep(after(1)).await;
        }
        assert!(user_of(&ada).await.get_array(field).unwrap().is_empty(), "{field}");
    }
}

/// The field `reservation` has a list of one reservation.
#[tokio::test]
async fn reservation_that_is_a_list_is_postponed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let reservation = doc! { "place": "pending", "bytes": 1_i64, "due": an_hour_ago() };
    let record =
        doc! { "_id": uuid::Uuid::now_v7().to_string(), "user": &ada.id, "state": "ready", "reservation": [reservation] };
    app.db.collection::<Document>("images").insert_one(record).await.unwrap();
    let now = after(1);
    assert_eq!(app.sweep(now).await.failed, 1);
    assert_eq!(app.sweep(now).await.failed, 0, "it waits for its next attempt");
}
