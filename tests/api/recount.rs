//! Covers the recount of users' counters: it repairs planted drift and damaged fields, and is safe under load.
//!
//! Commands: valet recount.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::json;
use valet::{
    domain::recount::{RecountError, Recounted},
    model::Email,
    store::Repair,
};

use super::app::{Caller, PASSWORD, TestApp, unique_png};

/// Recounts the user with this email address, or all users; returns the result and the repairs.
pub async fn recount(app: &TestApp, email: Option<&str>) -> (Recounted, Vec<Repair>) {
    let mut repairs = Vec::new();
    let email = email.map(|text| Email::parse(text).unwrap());
    let done = app.app.valet.recount.run(email.as_ref(), |repair| repairs.push(repair)).await.unwrap();
    (done, repairs)
}

/// Returns bytes, ready images and open uploads of a user.
pub async fn usage(user: &Caller<'_>) -> serde_json::Value {
    let usage = user.get("/api/auth/me").await.json["usage"].clone();
    json!([usage["bytes"], usage["images"], usage["pending"]])
}

#[tokio::test]
async fn recount_repairs_planted_drift_and_nothing_else() {
    let app = TestApp::start().await;
    let (ada, bob, eve) = (app.user().await, app.user().await, app.user().await);
    let mut right = Vec::new();
    for user in [&ada, &bob, &eve] {
        user.upload("a.png", "image/png", &unique_png()).await;
        user.open_upload("b.png", "image/png", &unique_png()).await;
        right.push(usage(user).await);
    }
    assert_eq!(recount(&app, None).await, (Recounted { users: 3, repaired: 0, failed: 0 }, vec![]));

    let users = app.db.collection::<Document>("users");
    // Wrong counts, as from a restored backup.
    let wrong = doc! { "$set": { "usedBytes": 7_i64, "images": 40_i64, "pending": 0_i64 } };
    users.update_one(doc! { "_id": &ada.id }, wrong).await.unwrap();
    // An old reservation without an image, and one of an upload that is just being opened.
    let old = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
    let entry = |at| doc! { "image": uuid::Uuid::now_v7().to_string(), "bytes": 500_i64, "at": at };
    let entries = doc! { "opening": { "$each": [entry(old), entry(DateTime::now())] } };
    let reserved = doc! { "$push": entries, "$inc": { "usedBytes": 1000_i64, "pending": 2_i64 } };
    users.update_one(doc! { "_id": &bob.id }, reserved).await.unwrap();
    let eve_before = users.find_one(doc! { "_id": &eve.id }).await.unwrap().unwrap();

    let (done, mut repairs) = recount(&app, None).await;
    assert_eq!(done, Recounted { users: 3, repaired: 2, failed: 0 });
    // Ada's repair first, then Bob's.
    repairs.sort_by_key(|repair| repair.user.to_string() != ada.id);
    println!("{}\n{}", repairs[0], repairs[1]);
    assert_eq!((repairs[0].was.used_bytes, repairs[0].was.images, repairs[0].was.pending), (7, 40, 0));
    assert_eq!((repairs[0].is.images, repairs[0].is.pending), (1, 1));
    assert_eq!((repairs[1].was.pending, repairs[1].is.pending), (3, 2), "a reservation of an upload that is being opened stays");
    assert_eq!(usage(&ada).await, right[0]);
    assert_eq!(usage(&bob).await, json!([right[1][0].as_i64().unwrap() + 500, 1, 2]));
    assert_eq!(users.find_one(doc! { "_id": &eve.id }).await.unwrap().unwrap(), eve_before);
    assert_eq!(recount(&app, None).await.0.repaired, 0);

    // The repaired reservation is valid: a deletion of the upload releases it.
    let open = ada.get("/api/images/pending").await;
    let id = open.json["uploads"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    assert_eq!(usage(&ada).await[2], json!(0));

    users.update_one(doc! { "_id": &eve.id }, doc! { "$inc": { "usedBytes": 1_i64 } }).await.unwrap();
    assert_eq!(recount(&app, Some(&bob.email)).await.0, Recounted { users: 1, repaired: 0, failed: 0 });
    assert_eq!(recount(&app, Some(&eve.email)).await.0, Recounted { users: 1, repaired: 1, failed: 0 });
    let unknown = Email::parse("nobody@example.com").unwrap();
    assert!(matches!(app.app.valet.recount.run(Some(&unknown), |_| {}).await, Err(RecountError::NotFound)));
}

/// A damaged field counts as zero or as empty, which is its right value for these users. The recount replaces it all the same,
/// because the next update of the user's record would fail.
#[tokio::test]
async fn damaged_fields_are_replaced_where_zero_is_right() {
    let app = TestApp::start().await;
    let users = app.db.collection::<Document>("users");
    for field in ["usedBytes", "images", "pending", "timeline", "opening", "settling", "holds"] {
        for value in [Bson::from("damaged"), Bson::Null, vec![Bson::Null].into(), doc! { "2026-11": "damaged" }.into()] {
            let ada = app.user().await;
            let case = format!("{field}: {value}");
            users.update_one(doc! { "_id": &ada.id }, doc! { "$set": { field: value } }).await.unwrap();
            let login = json!({ "email": ada.email, "password": PASSWORD });
            assert_eq!(app.anonymous().post("/api/auth/login", login).await.status, 200, "{case}: its user can sign in");
            assert_eq!(recount(&app, Some(&ada.email)).await.0.repaired, 1, "{case}");
            ada.upload("a.png", "image/png", &unique_png()).await;
            assert_eq!(recount(&app, None).await.0.repaired, 0, "{case}");
        }
    }
    app.audit().await;
}

/// Covers records of users and images that are unreadable in every way: each is counted as failed or as zero, and none stops the
/// others.
#[tokio::test]
async fn damaged_records_do_not_stop_the_recount_of_others() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    for id in [Bson::from("00000-damaged"), "zzz".into(), "".into(), Bson::Int32(7), doc! { "a": 1 }.into()] {
        users.insert_one(doc! { "_id": id, "holds": [] }).await.unwrap();
    }
    ada.upload("a.png", "image/png", &unique_png()).await;
    let right = usage(&ada).await;
    let wrong =
        doc! { "usedBytes": "many", "images": Bson::Null, "pending": [1], "opening": "damaged", "settling": [7], "holds": [] };
    users.update_one(doc! { "_id": &ada.id }, doc! { "$set": wrong }).await.unwrap();
    // Numbers of every type that a shell or an import writes, and a value that is not a number.
    let mut sizes = 0;
    for size in [Bson::Int32(11), Bson::Int64(13), Bson::Double(17.0), "damaged".into()] {
        let id = eve.upload("b.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
        images.update_one(doc! { "_id": id }, doc! { "$set": { "size": &size } }).await.unwrap();
        // 13 is the only number here that neither `as_f64()` nor `as_i32()` reads.
        sizes += match size {
            Bson::String(_) => 0,
            size => size.as_f64().unwrap_or_else(|| size.as_i32().map_or(13.0, f64::from)) as i64,
        };
    }
    let done = recount(&app, None).await.0;
    assert_eq!((done.users, done.repaired, done.failed), (7, 2, 5), "{done:?}");
    assert_eq!(usage(&ada).await, right);
    assert_eq!(usage(&eve).await, json!([sizes, 4, 0]));
}

/// Uploads, confirms and deletes continue during repeated recounts, which find no drift.
#[tokio::test]
async fn recount_is_safe_under_load() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let work = |n: usize| {
        let ada = &ada;
        async move {
            for round in 0..8 {
                let bytes = unique_png();
                let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
                assert_eq!(ticket.status, 201, "{ticket:?}");
                let path = format!("/api/images/{}", ticket.id());
                match (n + round) % 3 {
                    0 => assert_eq!(ada.delete(&path).await.status, 204),
                    kind => {
                        assert_eq!(ada.app.put(&ticket.json["upload"], bytes).await, 200);
                        assert_eq!(ada.confirm(ticket.id()).await.status, 200);
                        if kind == 1 {
                            assert_eq!(ada.delete(&path).await.status, 204);
                        }
                    }
                }
            }
        }
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let recounts = AtomicU64::new(0);
    let counting = async {
        while !stop.is_cancelled() {
            let (done, repairs) = recount(&app, None).await;
            assert_eq!(done.failed, 0);
            // The recount may repair a reservation that a confirm or a delete is about to finish.
            for repair in repairs {
                assert!(repair.is.pending < repair.was.pending, "{repair}");
            }
            recounts.fetch_add(1, Relaxed);
        }
    };
    let working = async {
        let mut sets = 0;
        while recounts.load(Relaxed) <= 3 {
            futures_util::future::join_all((0..6).map(work)).await;
            sets += 1;
        }
        stop.cancel();
        sets
    };
    let ((), sets) = tokio::join!(counting, working);
    let (done, repairs) = recount(&app, None).await;
    assert_eq!(done, Recounted { users: 1, repaired: 0, failed: 0 }, "{repairs:?}");
    assert_eq!(usage(&ada).await[2], json!(0));
    // A third of the 6 × 8 uploads of a set stays.
    assert_eq!(usage(&ada).await[1], json!(16 * sets));
}
