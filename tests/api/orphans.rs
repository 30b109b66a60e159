//! Covers `valet sweep --orphans`: objects without a record and records without an object, which the
//! tests put into the bucket and the database directly.
//!
//! Commands: valet sweep.

use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::json;
use time::OffsetDateTime;
use valet::{
    domain::orphans::{Consent, CountedItems, OrphanError, Orphans},
    model::{ImageId, ObjectKey, UserId},
    store::objects::list::ListedObject,
};

use super::{
    app::{Caller, TestApp, unique_png},
    recount::{recount, usage},
};

/// Starts a server on a bucket and a database that belong together, as a deletion requires.
async fn start_paired() -> TestApp {
    let app = TestApp::start().await;
    app.app.valet.deployment.verify_pair().await.unwrap();
    app
}

/// Returns a time that is later than everything that exists at the call. Waits for it: S3's times are whole seconds.
async fn just_now() -> OffsetDateTime {
    tokio::time::sleep(Duration::from_millis(1100)).await;
    OffsetDateTime::now_utc() - Duration::from_millis(50)
}

/// Scans for orphans that are older than now.
async fn scan(app: &TestApp) -> Orphans {
    app.app.valet.orphans.find(just_now().await, &mut |_| {}).await.unwrap()
}

/// Scans for orphans and deletes all that are found.
async fn delete(app: &TestApp) -> Orphans {
    let before = just_now().await;
    let found = app.app.valet.orphans.find(before, &mut |_| {}).await.unwrap();
    app.app.valet.orphans.delete(before, &found, Consent::Number(found.number())).await.unwrap()
}

/// Returns the keys of the listed orphans.
fn keys(found: &CountedItems<ListedObject>) -> Vec<&str> {
    found.first.iter().map(|listed| listed.key.as_str()).collect()
}

/// Returns the object key of a user's image.
fn key_of(user: &Caller<'_>, id: &str) -> String {
    format!("u/{}/{id}", user.id)
}

/// Keys of other programs, under the same prefixes as Valet's.
const FOREIGN: [&str; 3] = ["in/invoices/2026.pdf", "u/holiday/beach.jpg", "u/readme.txt"];

/// Keys in a bucket that has an object of every kind that a scan distinguishes.
struct Planted {
    /// Keys of a ready image, a pending image, and a tombstone.
    owned: [String; 3],
    /// Key of a ready image whose object was deleted.
    missing: String,
    /// Keys without a record, in the order of keys.
    orphans: Vec<String>,
}

impl Planted {
    /// Creates images of two users, orphans of each kind, and keys of other programs.
    async fn plant(app: &TestApp) -> Self {
        let (ada, bob) = (app.user().await, app.user().await);
        let ready = ada.upload("a.png", "image/png", &unique_png()).await;
        let missing = bob.upload("b.png", "image/png", &unique_png()).await;
        let bytes = unique_png();
        let pending = bob.open_upload("c.png", "image/png", &bytes).await;
        assert_eq!(app.put(&pending.json["upload"], bytes).await, 200);
        let tombstone = ada.upload("d.png", "image/png", &unique_png()).await;
        assert_eq!(ada.delete(&format!("/api/images/{}", tombstone["id"].as_str().unwrap())).await.status, 204);
        // A repeated PUT at a tombstone's key is removed by the sweeper and is not an orphan.
        let tombstone = app.db_key(tombstone["id"].as_str().unwrap()).await;
        app.bucket_put(&tombstone, "image/png", vec![1; 10]).await;

        let missing = app.db_key(missing["id"].as_str().unwrap()).await;
        app.s3.delete_object().bucket(&app.config.s3.bucket).key(&missing).send().await.unwrap();
        let purged = ada.upload("e.png", "image/png", &unique_png()).await;
        let purged = purged["id"].as_str().unwrap();
        // If uploads are copied at confirm, removes the objects that were copied.
        app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
        // Purged, although its object exists: the object is an orphan.
        let purge = doc! { "$set": { "state": "gone" } };
        app.db.collection::<Document>("images").update_one(doc! { "_id": purged }, purge).await.unwrap();

        let incoming = ObjectKey::incoming(UserId::new(), ImageId::new()).to_string();
        let unknown = key_of(&ada, &uuid::Uuid::now_v7().to_string());
        // The image exists but belongs to another user.
        let other_users_key = key_of(&ada, pending.id());
        let mut orphans = vec![incoming, unknown, other_users_key];
        for key in &orphans {
            app.bucket_put(key, "image/png", vec![1; 10]).await;
        }
        orphans.push(app.db_key(purged).await);
        orphans.sort();
        for key in FOREIGN.into_iter().chain(["logs/1", "check/x", "users.csv"]) {
            app.bucket_put(key, "text/plain", vec![1]).await;
        }
        let (ready, pending) = (app.db_key(ready["id"].as_str().unwrap()).await, app.db_key(pending.id()).await);
        Self { owned: [ready, pending, tombstone], missing, orphans }
    }
}

#[tokio::test]
async fn d7_orphans_are_found_both_ways_and_deleted_only_on_request() {
    let app = start_paired().await;
    let planted = Planted::plant(&app).await;
    let images = app.db.collection::<Document>("images");
    let before = app.bucket_keys().await;
    let documents = images.count_documents(doc! {}).await.unwrap();
    let found = scan(&app).await;
    println!("{found}");
    assert_eq!(keys(&found.orphans), planted.orphans);
    assert_eq!(found.missing.first.iter().map(ObjectKey::as_str).collect::<Vec<_>>(), [planted.missing.as_str()]);
    assert_eq!(found.foreign.first.iter().map(ObjectKey::as_str).collect::<Vec<_>>(), FOREIGN);
    assert_eq!((found.orphans.count, found.missing.count, found.deleted, found.young), (4, 1, 0, 0));
    assert_eq!(app.bucket_keys().await, before, "a dry run");

    let hour_ago = OffsetDateTime::now_utc() - Duration::from_secs(3600);
    let young = app.app.valet.orphans.find(hour_ago, &mut |_| {}).await.unwrap();
    assert_eq!((young.orphans.count, young.young), (0, 4), "young objects are not examined");
    let future = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    assert!(matches!(app.app.valet.orphans.find(future, &mut |_| {}).await, Err(OrphanError::NotPast)));
    assert_eq!(app.bucket_keys().await, before);

    let deleted = delete(&app).await;
    assert_eq!((deleted.orphans.count, deleted.deleted, deleted.failed), (4, 4, 0));
    let mut left: Vec<_> = before.into_iter().filter(|key| !planted.orphans.contains(key)).collect();
    left.sort();
    assert_eq!(app.bucket_keys().await, left);
    for key in &planted.owned {
        assert!(left.contains(key), "{key} is not an orphan");
    }
    assert_eq!(images.count_documents(doc! {}).await.unwrap(), documents, "records are never deleted");
    assert_eq!(delete(&app).await.orphans.count, 0);
}

/// Covers open multipart uploads: of a pending image, of a ready one, without an image, and of other programs.
#[tokio::test]
async fn open_uploads_without_an_image_are_orphans() {
    let app = start_paired().await;
    let ada = app.user().await;
    let ready = ada.upload("a.png", "image/png", &unique_png()).await;
    let declaration = json!({ "fileName": "b.png", "contentType": "image/png", "size": 12 << 20 });
    let pending = ada.post("/api/images/multipart", declaration).await;
    // If uploads are copied at confirm, removes the objects that were copied.
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(2 * 3600)).await;
    let (ready, pending) = (app.db_key(ready["id"].as_str().unwrap()).await, app.db_key(pending.id()).await);
    let open = async |key: &str| {
        app.s3.create_multipart_upload().bucket(&app.config.s3.bucket).key(key).send().await.unwrap();
    };
    let unowned = ObjectKey::incoming(UserId::new(), ImageId::new()).to_string();
    for key in [ready.as_str(), &unowned, &unowned, "u/holiday/beach.jpg", "check/x", "other"] {
        open(key).await;
    }
    let list = async || {
        let listed = app.s3.list_multipart_uploads().bucket(&app.config.s3.bucket).send().await.unwrap();
        let mut keys: Vec<_> = listed.uploads().iter().map(|upload| upload.key().unwrap().to_owned()).collect();
        keys.sort();
        keys
    };
    let hour_ago = OffsetDateTime::now_utc() - Duration::from_secs(3600);
    let young = app.app.valet.orphans.find(hour_ago, &mut |_| {}).await.unwrap();
    assert_eq!((young.number(), young.young), (0, 3));
    let before = just_now().await;
    let mut shown = Vec::new();
    let found = app.app.valet.orphans.find(before, &mut |orphan| shown.push(orphan.to_string())).await.unwrap();
    let mut orphans: Vec<_> = found.uploads.first.iter().map(|upload| upload.key.to_string()).collect();
    orphans.sort();
    let mut expected = vec![unowned.clone(), unowned.clone(), ready];
    expected.sort();
    assert_eq!((orphans, found.orphans.count, found.open), (expected, 0, 4), "{found}");
    assert!(shown.len() == 3 && shown.iter().all(|line| line.starts_with("orphaned multipart upload: ")), "{shown:?}");
    // The orphans are more than a tenth of all objects and open uploads.
    let rejected = app.app.valet.orphans.delete(before, &found, Consent::Given).await;
    assert!(matches!(rejected, Err(OrphanError::NumberWanted { orphans: 3, .. })), "{rejected:?}");
    // An upload that was not in the report stays.
    open(&unowned).await;
    let deleted = app.app.valet.orphans.delete(just_now().await, &found, Consent::Number(3)).await.unwrap();
    assert_eq!((deleted.deleted, deleted.failed, deleted.new), (3, 0, 1), "{deleted}");
    let mut expected_keys = vec!["check/x".to_owned(), unowned, "other".to_owned(), pending, "u/holiday/beach.jpg".to_owned()];
    expected_keys.sort();
    assert_eq!(list().await, expected_keys);
}

/// A collection without records, as after a partial restore, makes `recount` and the sweeper fail; they change nothing.
#[tokio::test]
async fn missing_collection_is_not_taken_as_empty() {
    let app = start_paired().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    ada.open_upload("b.png", "image/png", &unique_png()).await;
    let usage_before = usage(&ada).await;
    // Old enough for the sweeper to remove it.
    let old = DateTime::from_millis(1000);
    let opening = doc! { "image": uuid::Uuid::now_v7().to_string(), "bytes": 5_i64, "at": old };
    app.db.collection::<Document>("users").update_one(doc! {}, doc! { "$set": { "opening": [opening] } }).await.unwrap();
    for missing in ["images", "users"] {
        let collection = app.db.collection::<Document>(missing);
        let records = app.db_all(missing).await;
        collection.delete_many(doc! {}).await.unwrap();
        let rejected = app.app.valet.recount.run(None, |repair| panic!("{repair}")).await.unwrap_err();
        assert!(rejected.to_string().contains(missing), "{rejected}");
        let swept = app.sweep(OffsetDateTime::now_utc()).await;
        assert_eq!((swept.failed, swept.reservations), (1, 0), "{missing}: {swept:?}");
        collection.insert_many(&records).await.unwrap();
    }
    assert_eq!(usage(&ada).await, usage_before);
    assert_eq!(app.db_state(image["id"].as_str().unwrap()).await, "ready");
    assert_eq!(recount(&app, None).await.0.failed, 0);
}

/// Covers each way in which database and bucket are not a confirmed pair: nothing is deleted.
#[tokio::test]
async fn orphans_stay_if_database_and_bucket_are_not_a_confirmed_pair() {
    let app = start_paired().await;
    let ada = app.user().await;
    for _ in 0..3 {
        ada.upload("a.png", "image/png", &unique_png()).await;
    }
    let images = app.db.collection::<Document>("images");
    let all: Vec<Document> = futures_util::TryStreamExt::try_collect(images.find(doc! {}).await.unwrap()).await.unwrap();
    let objects = app.bucket_keys().await;
    let delete = async |consent: Consent| {
        let before = just_now().await;
        let found = app.app.valet.orphans.find(before, &mut |_| {}).await.unwrap();
        app.app.valet.orphans.delete(before, &found, consent).await
    };

    images.delete_many(doc! {}).await.unwrap();
    for consent in [Consent::Given, Consent::Number(3)] {
        assert!(matches!(delete(consent).await, Err(OrphanError::NoRecords { objects: 3 })), "an empty database");
    }
    images.insert_one(&all[0]).await.unwrap();
    let rejected = delete(Consent::Given).await;
    assert!(matches!(rejected, Err(OrphanError::NumberWanted { orphans: 2, objects: 3 })), "{rejected:?}");
    assert!(matches!(delete(Consent::Number(3)).await, Err(OrphanError::OtherNumber { orphans: 2 })));
    // An unreadable record may own its object, or a preview.
    images.insert_one(&all[1]).await.unwrap();
    let id = all[2].get_str("_id").unwrap();
    for (field, value) in [
        ("state", Bson::from("unheard-of")),
        ("state", Bson::from(7)),
        ("key", Bson::from("cut")),
        ("key", Bson::from(format!("u/{}/{}", ada.id, uuid::Uuid::now_v7()))),
        ("key", Bson::from(7)),
        ("preview", Bson::from("cut")),
        ("preview", Bson::Null),
        ("user", Bson::from("cut")),
    ] {
        let mut broken = all[2].clone();
        broken.insert(field, value.clone());
        images.replace_one(doc! { "_id": id }, &broken).upsert(true).await.unwrap();
        let found = scan(&app).await;
        assert_eq!((found.orphans.count, found.unreadable), (0, 1), "{field}: {value}");
    }
    assert_eq!(app.bucket_keys().await, objects);
    assert_eq!(delete(Consent::Given).await.unwrap().deleted, 0);

    // The database is replaced by an older one while the operator reads the report about the only orphan: now that object has a
    // record, and the others have none.
    images.delete_many(doc! {}).await.unwrap();
    images.insert_many(&all[..2]).await.unwrap();
    let before = just_now().await;
    let found = app.app.valet.orphans.find(before, &mut |_| {}).await.unwrap();
    images.delete_many(doc! {}).await.unwrap();
    images.insert_one(&all[2]).await.unwrap();
    let deleted = app.app.valet.orphans.delete(before, &found, Consent::Number(1)).await.unwrap();
    assert_eq!((found.orphans.count, deleted.deleted, deleted.new), (1, 0, 2));
    assert_eq!(app.bucket_keys().await, objects, "only reported orphans are deleted");
}

/// MongoDB closes cursors that are idle for ten minutes, which one page of S3's listing may take.
#[tokio::test]
async fn inventory_continues_after_mongodb_has_closed_its_cursor() {
    let app = start_paired().await;
    let ada = app.user().await;
    let kept_image = ada.upload("a.png", "image/png", &unique_png()).await;
    let images = app.db.collection::<Document>("images");
    let mut record = app.db_image(kept_image["id"].as_str().unwrap()).await.unwrap();
    record.remove("live");
    let copies = (0..2500).map(|_| {
        let id = uuid::Uuid::now_v7().to_string();
        record.insert("key", key_of(&ada, &id));
        record.insert("_id", id);
        record.clone()
    });
    images.insert_many(copies.collect::<Vec<_>>()).await.unwrap();
    let store = valet::store::Store::open(&app.config.mongo).await.unwrap();
    let mut inventory = store.images.inventory().await.unwrap();
    let (mut seen, mut closed) = (Vec::new(), 0);
    while let Some(entry) = inventory.next().await.unwrap() {
        seen.push(entry.key);
        if [10, 1500].contains(&seen.len()) {
            closed += close_cursors(&app).await;
        }
    }
    assert_eq!((closed, seen.len()), (2, 2501));
    assert!(seen.is_sorted_by(|a, b| a.as_str() < b.as_str()), "each record once, in the order of keys");
}

/// Closes idle cursors on the images; returns their number.
async fn close_cursors(app: &TestApp) -> usize {
    let namespace = format!("{}.images", app.config.mongo.database);
    let idle = [
        doc! { "$currentOp": { "idleCursors": true, "allUsers": true } },
        doc! { "$match": { "type": "idleCursor", "ns": namespace } },
    ];
    let found = app.db.client().database("admin").aggregate(idle).await.unwrap();
    let found: Vec<Document> = futures_util::TryStreamExt::try_collect(found).await.unwrap();
    let ids: Vec<i64> = found.iter().map(|op| op.get_document("cursor").unwrap().get_i64("cursorId").unwrap()).collect();
    app.db.run_command(doc! { "killCursors": "images", "cursors": &ids }).await.unwrap();
    ids.len()
}

/// More orphans than a page of S3's listing (1000), and more records without an object than the scan looks up at once (500).
#[tokio::test]
async fn d7_orphans_beyond_one_page_are_found() {
    let app = start_paired().await;
    let ada = app.user().await;
    let kept_image = ada.upload("a.png", "image/png", &unique_png()).await;
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
    let puts = (0..1100).map(|_| {
        let key = key_of(&ada, &uuid::Uuid::now_v7().to_string());
        let app = &app;
        async move { app.bucket_put(&key, "image/png", vec![1]).await }
    });
    futures_util::StreamExt::collect::<Vec<_>>(futures_util::StreamExt::buffer_unordered(futures_util::stream::iter(puts), 16))
        .await;
    // Records without an object.
    let images = app.db.collection::<Document>("images");
    let mut record = app.db_image(kept_image["id"].as_str().unwrap()).await.unwrap();
    record.remove("live");
    let records: Vec<Document> = (0..700)
        .map(|_| {
            let id = uuid::Uuid::now_v7().to_string();
            record.insert("key", key_of(&ada, &id));
            record.insert("_id", id);
            record.clone()
        })
        .collect();
    images.insert_many(records).await.unwrap();
    let found = delete(&app).await;
    assert_eq!((found.orphans.count, found.orphans.first.len(), found.deleted), (1100, 100, 1100));
    assert_eq!((found.missing.count, found.missing.first.len(), found.objects), (700, 100, 1101));
    assert!(found.to_string().contains("… and 1000 more"), "the report lists a bounded number of orphans");
    assert_eq!(app.bucket_keys().await, [app.db_key(kept_image["id"].as_str().unwrap()).await]);
}
