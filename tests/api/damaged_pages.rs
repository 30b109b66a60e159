//! Covers lists of the API and walks of the sweeper that meet a whole page of unreadable records: the records after it are found.
//!
//! Routes: GET /api/images/gallery, GET /api/images/pending, GET /api/auth/sessions, GET /api/admin/users,
//! GET /api/admin/users/{user}/images.

use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, Timestamp, doc, oid::ObjectId};
use time::OffsetDateTime;
use valet::model::Scope;

use super::app::{Caller, TestApp, sha256, unique_png};

/// Returns the time in `seconds` seconds.
fn after(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(seconds)
}

/// Returns the time an hour ago.
fn past() -> DateTime {
    DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000)
}

/// Reads all pages of a list, whose items are in `member`; returns the ids of the items.
async fn list_all_pages(caller: &Caller<'_>, path: &str, member: &str) -> Vec<String> {
    let (mut seen, mut next) = (Vec::new(), path.to_owned());
    for _ in 0..100 {
        let page = caller.get(&next).await;
        assert_eq!(page.status, 200, "{page:?}");
        seen.extend(page.json[member].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.json["nextCursor"].as_str() else { return seen };
        next = format!("{path}&cursor={cursor}");
    }
    panic!("{path} has no end");
}

/// Returns a list with a time long ago and a time in an hour: a comparison matches it if it matches one of them.
fn list_of_times() -> Bson {
    Bson::Array(vec![
        DateTime::from_millis(0).into(),
        DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000).into(),
    ])
}

/// Returns values of the field, and of `_id`, that make a record unreadable.
fn damages(field: &str) -> Vec<(String, Bson)> {
    let field = |value: Bson| (field.to_owned(), value);
    let id = |value: Bson| ("_id".to_owned(), value);
    vec![
        field(Bson::Int32(-7)),
        field(Bson::Timestamp(Timestamp { time: u32::MAX, increment: 1 })),
        field(Bson::Null),
        field(list_of_times()),
        id(Bson::String("~ after all ids".to_owned())),
        id(Bson::String(String::new())),
        id(Bson::String("01".to_owned())),
        id(Bson::ObjectId(ObjectId::new())),
        id(Bson::Int64(7)),
    ]
}

/// Returns `count` copies of a record, with the ids after `id`, and with another value in the field. If the field is `_id`, the
/// copies have distinct ids of the value's type.
fn copies(model: &Document, id: uuid::Uuid, (field, value): &(String, Bson), count: u128) -> Vec<Document> {
    let copy = |n: u128| {
        let mut record = model.clone();
        record.insert("_id", uuid::Uuid::from_u128(id.as_u128() + n).to_string());
        let value = match (field.as_str(), value) {
            ("_id", Bson::String(text)) => Bson::String(format!("{text}{n:04}")),
            ("_id", Bson::ObjectId(_)) => Bson::ObjectId(ObjectId::new()),
            ("_id", Bson::Int64(first)) => Bson::Int64(first + n as i64),
            (_, value) => value.clone(),
        };
        record.insert(field.clone(), value);
        record
    };
    (1..=count).map(copy).collect()
}

/// Returns a readable document of an image in this state.
fn image(id: &str, user: &str, state: &str) -> Document {
    let at = DateTime::now();
    let mut record = doc! { "_id": id, "user": user, "key": format!("u/{user}/{id}"), "state": state, "live": true,
    "fileName": "a.png", "contentType": "image/png", "size": 9_i64, "sha256": sha256(id.as_bytes()),
    "createdAt": at, "expiresAt": at, "urlsDieAt": at };
    if state == "ready" {
        record.extend(doc! { "etag": "\"x\"", "width": 1_i64, "height": 1_i64, "uploadedAt": at });
    }
    record
}

/// Five readable images, of the same millisecond, around 130 unreadable ones.
#[tokio::test]
async fn images_behind_a_page_of_unreadable_ones_are_listed() {
    let app = TestApp::start().await;
    let (ada, key) = (app.user().await, app.create_service_key(&Scope::ALL).await);
    let images = app.db.collection::<Document>("images");
    let admin_path = format!("/api/admin/users/{}/images?limit", ada.id);
    for (state, count) in [("ready", 40), ("pending", 130)] {
        let fields = if state == "ready" { &["contentType", "uploadedAt"][..] } else { &["contentType"] };
        // Dates of other years than the program has.
        let dates = [DateTime::MAX, DateTime::MIN].map(|at| ("uploadedAt".to_owned(), Bson::DateTime(at)));
        let dates = dates.into_iter().filter(|_| state == "ready");
        for damage in fields.iter().flat_map(|field| damages(field)).chain(dates) {
            images.delete_many(doc! {}).await.unwrap();
            let middle = uuid::Uuid::now_v7();
            // Newest first. Unreadable images whose id is undamaged come between the second and the third.
            let readable: Vec<_> =
                [5000, 4000, 0, -1, -2].map(|n| uuid::Uuid::from_u128(middle.as_u128().wrapping_add_signed(n))).into();
            let readable: Vec<_> = readable.iter().map(ToString::to_string).collect();
            let first = image(&readable[0], &ada.id, state);
            let mut records = copies(&first, middle, &damage, count);
            for id in &readable {
                let mut record = first.clone();
                record.extend(doc! { "_id": id, "key": format!("u/{}/{id}", ada.id) });
                records.push(record);
            }
            for (n, record) in records.iter_mut().enumerate() {
                record.insert("sha256", sha256(&n.to_be_bytes()));
            }
            images.insert_many(records).await.unwrap();
            for limit in [1, 2, 50] {
                let case = format!("{state} by {limit}, {damage:?}");
                if state == "pending" {
                    assert_eq!(
                        list_all_pages(&ada, &format!("/api/images/pending?limit={limit}"), "uploads").await,
                        readable,
                        "{case}"
                    );
                } else {
                    assert_eq!(
                        list_all_pages(&ada, &format!("/api/images/gallery?limit={limit}"), "images").await,
                        readable,
                        "{case}"
                    );
                    assert_eq!(list_all_pages(&key, &format!("{admin_path}={limit}"), "images").await, readable, "{case}");
                }
            }
        }
    }
}

/// Images with an unreadable time have an arbitrary position in the list; all other images are listed in the order of their times.
#[tokio::test]
async fn images_behind_a_page_of_damaged_times_are_listed_in_the_order_of_times() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let images = app.db.collection::<Document>("images");
    let more =
        [DateTime::MAX.into(), DateTime::MIN.into(), Bson::MaxKey, Bson::MinKey, "2026".into(), true.into(), doc! {}.into()];
    let damaged = damages("takenSort").into_iter().filter(|(field, _)| field == "takenSort").map(|(_, value)| value);
    for value in damaged.chain(more) {
        images.delete_many(doc! {}).await.unwrap();
        let middle = uuid::Uuid::now_v7();
        // Newest first. The ids of the damaged images are between the second and the third.
        let readable: Vec<_> =
            [5000, 4000, 0, -1, -2].map(|n| uuid::Uuid::from_u128(middle.as_u128().wrapping_add_signed(n))).into();
        let readable: Vec<_> = readable.iter().map(ToString::to_string).collect();
        let first = image(&readable[0], &ada.id, "ready");
        let mut records = copies(&first, middle, &("takenSort".to_owned(), value.clone()), 40);
        for (n, id) in readable.iter().enumerate() {
            let mut record = first.clone();
            let at = DateTime::from_millis(1_000_000_000_000 - n as i64);
            record.extend(doc! { "_id": id, "key": format!("u/{}/{id}", ada.id), "takenSort": at });
            records.push(record);
        }
        for (n, record) in records.iter_mut().enumerate() {
            record.insert("sha256", sha256(&n.to_be_bytes()));
        }
        images.insert_many(records).await.unwrap();
        for limit in [1, 7, 50] {
            let seen = list_all_pages(&ada, &format!("/api/images/gallery?order=taken&limit={limit}"), "images").await;
            let seen: Vec<_> = seen.into_iter().filter(|id| readable.contains(id)).collect();
            assert_eq!(seen, readable, "{value:?} by {limit}");
        }
    }
}

/// One query reads a page of users with their usage, however many are on it.
#[tokio::test]
async fn users_behind_a_page_of_unreadable_ones_are_listed() {
    let app = TestApp::start().await;
    let key = app.create_service_key(&Scope::ALL).await;
    let users = app.db.collection::<Document>("users");
    let mut readable = vec![app.user().await.id];
    let model = users.find_one(doc! { "_id": &readable[0] }).await.unwrap().unwrap();
    let middle = uuid::Uuid::now_v7();
    // Values that are not numbers: a timestamp and null, and a timestamp.
    let counters = [&damages("usedBytes")[1..3], &damages("pending")[1..2]].concat();
    let damaged = damages("createdAt").into_iter().chain(counters);
    for (n, damage) in (0_u128..).zip(damaged) {
        let mut records = copies(&model, uuid::Uuid::from_u128(middle.as_u128() + 100 * n), &damage, 9);
        for (m, record) in (0..).zip(&mut records) {
            record.insert("emailKey", format!("{n} {m}"));
        }
        users.insert_many(records).await.unwrap();
    }
    let mut with_odd_holds = model.clone();
    with_odd_holds.extend(doc! { "_id": uuid::Uuid::now_v7().to_string(), "emailKey": "odd", "holds": "no list" });
    users.insert_one(&with_odd_holds).await.unwrap();
    readable.push(with_odd_holds.get_str("_id").unwrap().to_owned());
    readable.push(app.user().await.id);
    for limit in [1, 2, 3, 100] {
        assert_eq!(list_all_pages(&key, &format!("/api/admin/users?limit={limit}"), "users").await, readable, "by {limit}");
    }
    let email = model.get_str("email").unwrap();
    assert_eq!(list_all_pages(&key, &format!("/api/admin/users?limit=1&email={email}"), "users").await, readable[..2]);
    crate::targeting::record_all(&app.db).await;
    assert_eq!(key.get("/api/admin/users?limit=100").await.json["users"].as_array().unwrap().len(), 3);
    app.db.run_command(doc! { "profile": 0 }).await.unwrap();
    let reads = doc! { "ns": format!("{}.users", app.db.name()), "op": "query" };
    assert_eq!(app.db.collection::<Document>("system.profile").count_documents(reads).await.unwrap(), 1);
}

#[tokio::test]
async fn sessions_and_keys_behind_a_thousand_unreadable_ones_are_listed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let sessions = app.db.collection::<Document>("sessions");
    let model = sessions.find_one(doc! { "user": &ada.id }).await.unwrap().unwrap();
    let own = model.get_str("_id").unwrap().to_owned();
    let id = uuid::Uuid::parse_str(&own).unwrap();
    for damage in [("tokenHash".to_owned(), Bson::Int32(7)), ("_id".to_owned(), Bson::String("z".to_owned()))] {
        sessions.insert_many(copies(&model, id, &damage, 1001)).await.unwrap();
        assert_eq!(list_all_pages(&ada, "/api/auth/sessions?", "sessions").await, [own.as_str()], "{damage:?}");
        sessions.delete_many(doc! { "_id": { "$ne": &own } }).await.unwrap();
    }
    // A login ends sessions beyond a thousand, and with them all whose time is unreadable.
    sessions.insert_many(copies(&model, id, &("lastUsedAt".to_owned(), Bson::Int32(7)), 1001)).await.unwrap();
    let credentials = serde_json::json!({ "email": ada.email, "password": super::app::PASSWORD });
    assert_eq!(app.anonymous().post("/api/auth/login", credentials).await.status, 200);
    assert_eq!(sessions.count_documents(doc! {}).await.unwrap(), 2);

    app.create_service_key(&Scope::ALL).await;
    let keys = app.db.collection::<Document>("serviceKeys");
    let key = keys.find_one(doc! {}).await.unwrap().unwrap();
    keys.insert_many(copies(&key, uuid::Uuid::from_u128(1), &("hash".to_owned(), Bson::Int32(7)), 1001)).await.unwrap();
    let listed = app.app.valet.service_keys.list().await.unwrap();
    let readable: Vec<_> = listed.iter().flatten().map(|key| key.id.to_string()).collect();
    assert_eq!((listed.len(), readable), (1002, vec![key.get_str("_id").unwrap().to_owned()]));
}

/// Each walk of the sweeper meets more unreadable records than it reads at once, and after them one that it must process. A step
/// reads 500 images or keys, 50 users, and 100 holds of a user.
#[tokio::test]
async fn sweeper_reaches_the_records_behind_unreadable_ones() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let records = |name: &str| app.db.collection::<Document>(name);
    let hold = |image: &str| doc! { "image": image, "bytes": 500_i64, "at": past() };

    // Reservations of images whose ids are numbers.
    let ready = ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    let reserved = doc! { "bytes": 9_i64, "place": "pending", "due": past() };
    let unreadable = |n: i64| doc! { "_id": n, "user": &ada.id, "state": "ready", "reservation": reserved.clone() };
    records("images").insert_many((0..501).map(unreadable)).await.unwrap();
    let later = doc! { "bytes": 700_i64, "place": "pending", "due": DateTime::from_millis(past().timestamp_millis() + 1) };
    records("images").update_one(doc! { "_id": &ready }, doc! { "$set": { "reservation": later } }).await.unwrap();

    // Holds of an earlier version: of users whose id is unreadable, and one after a user's unreadable holds.
    let with_unreadable_id = |n: i64| doc! { "_id": format!("0 {n:03}"), "emailKey": format!("{n}"), "holds": [hold("no id")] };
    records("users").insert_many((0..51).map(with_unreadable_id)).await.unwrap();
    let mut holds = vec![hold("no id"); 101];
    holds.push(hold(&uuid::Uuid::now_v7().to_string()));
    records("users")
        .update_one(doc! { "_id": &ada.id }, doc! { "$set": { "holds": holds }, "$inc": { "usedBytes": 500_i64 } })
        .await
        .unwrap();

    // Keys of addresses: ids that are numbers, and after them the key of an account that was never inserted.
    let taken = |n: i64| doc! { "_id": n, "user": &ada.id, "at": past(), "due": past() };
    records("emails").insert_many((0..501).map(taken)).await.unwrap();
    let lost = doc! { "_id": "lost@example.com", "user": uuid::Uuid::now_v7().to_string(), "at": past(), "due": DateTime::from_millis(past().timestamp_millis() + 1) };
    records("emails").insert_one(lost).await.unwrap();

    // Accounts of an earlier version: the key of the first one's address is unreadable.
    let (eve, bob) = (app.user().await, app.user().await);
    records("emails").update_one(doc! { "user": &eve.id }, doc! { "$set": { "user": 7 } }).await.unwrap();
    records("emails").delete_one(doc! { "user": &bob.id }).await.unwrap();
    let unregistered = doc! { "_id": { "$in": [&eve.id, &bob.id] } };
    records("users").update_many(unregistered, doc! { "$unset": { "registered": "" } }).await.unwrap();

    for round in 1..6 {
        app.sweep(after(120 * round)).await;
    }
    let image = app.db_image(&ready).await.unwrap();
    assert!(!image.contains_key("reservation"), "{image}");
    let user = records("users").find_one(doc! { "_id": &ada.id }).await.unwrap().unwrap();
    let left = user.get_array("holds").unwrap();
    assert!(
        left.len() == 101 && left.iter().all(|hold| hold.as_document().unwrap().get_str("image").unwrap() == "no id"),
        "{user}"
    );
    assert_eq!(records("emails").count_documents(doc! { "_id": "lost@example.com" }).await.unwrap(), 0);
    assert_eq!(records("emails").count_documents(doc! { "user": &bob.id }).await.unwrap(), 1);
}
