//! Covers reservations: the counted bytes of a user are never less than the bytes in the bucket, except for the bounds in
//! docs/quota.md, and no user's reservations delay those of another. `earlier_version` covers records of an earlier version,
//! `unfinished_steps` steps that a server began and did not finish, `damaged` records that cannot be settled, `answers` the writes
//! that a request waits for.
//!
//! Routes: POST /api/images/upload, POST /api/images/multipart, POST /api/images/{id}/confirm.

mod answers;
mod damaged;
mod earlier_version;
mod unfinished_steps;

use std::{collections::HashSet, time::Duration};

use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::domain::sweeper::Swept;

use super::app::{Answer, Caller, PASSWORD, TestApp, declaration, fixture, sha256, unique_png};

/// Returns the time in `seconds` seconds.
fn after(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(seconds)
}

/// Returns bytes, ready images and open uploads of a user.
async fn usage(ada: &Caller<'_>) -> (i64, i64, i64) {
    let usage = ada.get("/api/auth/me").await.json["usage"].clone();
    let number = |name: &str| usage[name].as_i64().unwrap();
    (number("bytes"), number("images"), number("pending"))
}

/// Returns the user's document.
async fn user_of(ada: &Caller<'_>) -> Document {
    ada.app.db.collection::<Document>("users").find_one(doc! { "_id": &ada.id }).await.unwrap().unwrap()
}

impl TestApp {
    /// Returns the bytes of this user's objects at final keys, and of those that wait to be copied.
    async fn bucket_bytes(&self, user: &str) -> (i64, i64) {
        let listed = self.s3.list_objects_v2().bucket(&self.config.s3.bucket).send().await.unwrap();
        let bytes_under = |prefix: &str| {
            let prefix = format!("{prefix}/{user}/");
            let mine = listed.contents().iter().filter(|object| object.key().unwrap().starts_with(&prefix));
            mine.map(|object| object.size().unwrap()).sum::<i64>()
        };
        (bytes_under("u"), bytes_under("in"))
    }

    /// Moves the expiry of the image's URLs, its creation and its due time two hours into the past.
    async fn db_expire_urls(&self, id: &str) {
        let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 2 * 3_600_000);
        let set = doc! { "$set": { "urlsDieAt": past, "createdAt": past, "due": past } };
        self.db.collection::<Document>("images").update_one(doc! { "_id": id }, set).await.unwrap();
    }
}

/// Asserts the documented bound: objects that wait to be copied may take as many bytes again as are counted.
async fn assert_counted(ada: &Caller<'_>, when: &str) {
    let ((stored, incoming), (counted, ..)) = (ada.app.bucket_bytes(&ada.id).await, usage(ada).await);
    assert!(
        stored <= counted && incoming <= counted,
        "{when}: {stored} bytes at final keys, {incoming} to be copied, {counted} counted"
    );
}

/// Ways in which an upload ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadEnd {
    Deleted,
    DeletedUnconfirmed,
    Rejected,
    Confirmed,
}

/// Ways to send an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    WithPreview,
    /// A preview is declared, and sent only after the upload has ended.
    PreviewTooLate,
    Form,
    Parts,
}

impl Kind {
    /// Opens an upload of this kind.
    async fn open(self, ada: &Caller<'_>, bytes: &[u8], preview: &[u8]) -> Answer {
        match self {
            Self::Put => ada.open_upload("a.png", "image/png", bytes).await,
            Self::WithPreview | Self::PreviewTooLate => {
                let mut body = declaration("a.png", "image/png", bytes);
                body["preview"] = json!({ "contentType": "image/jpeg", "size": preview.len(), "sha256": sha256(preview) });
                ada.post("/api/images/upload", body).await
            }
            Self::Form => {
                let session = ada.post_empty("/api/uppy/session").await;
                let path = session.json["path"].as_str().unwrap();
                let size = bytes.len() + 1000;
                ada.get(&format!("{path}/s3/params?filename=a.png&type=image/png&metadata[size]={size}")).await
            }
            Self::Parts => {
                let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": bytes.len() });
                ada.post("/api/images/multipart", body).await
            }
        }
    }

    /// Returns the id of the ticket's image.
    fn id(self, ticket: &Answer) -> String {
        match self {
            Self::Form => ticket.json["fields"]["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned(),
            _ => ticket.id().to_owned(),
        }
    }

    /// Sends everything that the upload's URLs allow, ignoring S3's answers. `parts` has the URLs of parts; for a form, it is null
    /// only at the first sending.
    async fn send(self, ada: &Caller<'_>, ticket: &Value, parts: &Value, (bytes, preview): (&[u8], &[u8])) {
        let app = ada.app;
        match self {
            Self::Put | Self::PreviewTooLate => drop(app.put(&ticket["upload"], bytes.to_vec()).await),
            Self::WithPreview => {
                app.put(&ticket["previewUpload"], preview.to_vec()).await;
                app.put(&ticket["upload"], bytes.to_vec()).await;
            }
            Self::Form => {
                // Sent again: a different, longer file, as the form allows.
                let longer = [bytes, &[0; 900]].concat();
                let sent = if parts.is_null() { bytes } else { &longer };
                app.post_form(ticket, sent).await;
            }
            Self::Parts => drop(app.put(&parts["parts"][0]["request"], bytes.to_vec()).await),
        }
    }
}

/// Uses every kind of URL again after every end of its upload. The stored bytes are counted until the URLs expire; then the
/// objects are deleted, and their bytes are no longer counted.
#[tokio::test]
async fn bytes_of_every_kind_of_url_are_counted_until_it_expires() {
    for kind in [Kind::Put, Kind::WithPreview, Kind::PreviewTooLate, Kind::Form, Kind::Parts] {
        for end in [UploadEnd::Deleted, UploadEnd::DeletedUnconfirmed, UploadEnd::Rejected, UploadEnd::Confirmed] {
            assert_bytes_sent_again_are_counted(kind, end).await;
        }
    }
}

/// Ends an upload of this kind in this way, sends its bytes again, and asserts that they are counted until its URL expires.
async fn assert_bytes_sent_again_are_counted(kind: Kind, end: UploadEnd) {
    let (app, when) = (TestApp::start().await, format!("{kind:?}, {end:?}"));
    let ada = app.user().await;
    let html = || [b"<html>", &uuid::Uuid::new_v4().as_bytes()[..]].concat();
    let (bytes, preview) = (if end == UploadEnd::Rejected { html() } else { unique_png() }, fixture("plain.jpg"));
    let ticket = kind.open(&ada, &bytes, &preview).await;
    assert!(matches!(ticket.status, 200 | 201), "{when}: {ticket:?}");
    let (id, reserved) = (kind.id(&ticket), usage(&ada).await.0);
    let signing = json!({ "parts": [{ "partNumber": 1 }] });
    let parts = if kind == Kind::Parts { ada.post(&format!("/api/images/{id}/parts"), signing).await.json } else { Value::Null };
    kind.send(&ada, &ticket.json, &parts, (&bytes, &preview)).await;
    assert_counted(&ada, &when).await;
    if end != UploadEnd::DeletedUnconfirmed {
        let confirmed = ada.confirm(&id).await;
        assert_eq!(confirmed.status, if end == UploadEnd::Rejected { 422 } else { 200 }, "{when}: {confirmed:?}");
    }
    if matches!(end, UploadEnd::Deleted | UploadEnd::DeletedUnconfirmed) {
        assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    }
    for round in 0..3 {
        kind.send(&ada, &ticket.json, &json!({ "parts": parts["parts"].clone() }), (&bytes, &preview)).await;
        if kind == Kind::PreviewTooLate {
            app.put(&ticket.json["previewUpload"], preview.clone()).await;
        }
        assert_counted(&ada, &format!("{when}, sent again")).await;
        app.sweep(after(round)).await;
        assert_counted(&ada, &format!("{when}, swept")).await;
    }
    let (counted, images, pending) = usage(&ada).await;
    assert_eq!((images, pending), ((end == UploadEnd::Confirmed).into(), 0), "{when}");
    let urls_can_write = end != UploadEnd::Confirmed || matches!(kind, Kind::Form | Kind::PreviewTooLate);
    assert_eq!(counted, if urls_can_write { reserved } else { counted }, "{when}: the whole reservation, while URLs are valid");
    app.sweep_after_url_expiry().await;
    app.audit().await;
    let served = if end == UploadEnd::Confirmed { app.db_image(&id).await.unwrap() } else { Document::new() };
    let image_bytes = served.get_i64("size").unwrap_or_default()
        + served.get_document("preview").and_then(|preview| preview.get_i64("size")).unwrap_or_default();
    assert_eq!(usage(&ada).await.0, image_bytes, "{when}: only the image, after the URLs have expired");
    assert_eq!(app.bucket_bytes(&ada.id).await, (image_bytes, 0), "{when}");
}

/// Deleting an image whose URLs have expired frees its bytes at once.
#[tokio::test]
async fn delete_frees_bytes_at_once_if_no_url_is_valid() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let id = image["id"].as_str().unwrap();
    app.db_expire_urls(id).await;
    assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    assert_eq!(usage(&ada).await, (0, 0, 0));
    app.audit().await;
}

/// A user's open uploads do not make the next one more expensive: the record that every reservation rewrites does not grow.
#[tokio::test]
async fn user_record_does_not_grow_with_open_uploads() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let items: Vec<_> = (0..100).map(|_| declaration("a.png", "image/png", &unique_png())).collect();
        let batch = ada.post("/api/images/upload/batch", json!({ "items": items })).await;
        assert!(batch.json["results"].as_array().unwrap().iter().all(|result| result["status"] == 201));
        sizes.push(mongodb::bson::serialize_to_vec(&user_of(&ada).await).unwrap().len());
    }
    assert_eq!(usage(&ada).await.2, 500);
    assert!(sizes.iter().all(|size| size.abs_diff(sizes[0]) < 100), "{sizes:?}");
    for n in 0..5 {
        assert_eq!(ada.open_upload("a.png", "image/png", &unique_png()).await.status, 201);
        assert!(user_of(&ada).await.get_array("opening").unwrap().len() <= 1, "{n}");
    }
    app.sweep(after(180)).await;
    assert!(user_of(&ada).await.get_array("opening").unwrap().is_empty());
    app.audit().await;
}

/// One user opens, confirms and deletes uploads concurrently on two servers: the counts are exact, and no call is rejected.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_of_one_user_are_counted_exactly() {
    let app = TestApp::start().await;
    let other = TestApp::start_second_server(&app, |_| {}).await;
    let ada = app.user().await;
    let ada_on_other = Caller { app: &other, ..ada.clone() };
    let work = |n: usize| {
        let ada = if n.is_multiple_of(2) { &ada } else { &ada_on_other };
        async move {
            let bytes = unique_png();
            let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
            assert_eq!(ticket.status, 201, "{ticket:?}");
            if n.is_multiple_of(3) {
                assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
                return;
            }
            assert_eq!(ada.app.put(&ticket.json["upload"], bytes).await, 200);
            assert_eq!(ada.confirm(ticket.id()).await.status, 200);
            if n % 3 == 1 {
                assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
            }
        }
    };
    futures_util::future::join_all((0..60).map(work)).await;
    let (_, images, pending) = usage(&ada).await;
    assert_eq!((images, pending), (20, 0));
    app.audit().await;
    app.sweep_after_url_expiry().await;
    app.audit().await;
}

/// The account's record is deleted only when no image can be inserted for the account any more.
#[tokio::test]
async fn deleted_account_opens_no_uploads() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let id = uuid::Uuid::now_v7().to_string();
    let entry = doc! { "image": &id, "bytes": 500_i64, "at": DateTime::now() };
    let counted = doc! { "$push": { "opening": entry }, "$inc": { "usedBytes": 500_i64, "pending": 1_i64 } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, counted).await.unwrap();
    // A step that a server began and did not finish.
    let step = doc! { "image": &id, "step": uuid::Uuid::now_v7().to_string(), "at": DateTime::now(), "bytes": 0_i64, "images": 0_i64, "pending": 0_i64 };
    let begun = doc! { "$push": { "settling": step } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, begun).await.unwrap();
    assert_eq!(ada.post("/api/auth/me/delete", json!({ "password": PASSWORD })).await.status, 204);
    app.sweep_to_the_end().await;
    assert!(app.db_all("users").await.is_empty());
    let late = app.db.collection::<Document>("images").insert_one(doc! { "_id": &id, "state": "pending" }).await;
    assert!(late.is_err(), "a tombstone has this id");
}

/// Unreadable records of every kind that the sweeper handles: each is counted as failed, and none stops the others.
#[tokio::test]
async fn unreadable_records_of_one_user_do_not_stop_others() {
    let app = TestApp::start().await;
    let (eve, ada) = (app.user().await, app.user().await);
    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
    // Eve has an unreadable pending image, an unreadable ready image with a reservation, and unreadable entries in her record.
    let ticket = eve.open_upload("a.png", "image/png", &unique_png()).await;
    let ready = eve.upload("b.png", "image/png", &unique_png()).await;
    images.update_one(doc! { "_id": ticket.id() }, doc! { "$set": { "sha256": "damaged" } }).await.unwrap();
    let unreadable = doc! { "sha256": "damaged, too", "reservation": { "bytes": 9_i64, "place": "pending", "due": past } };
    images.update_one(doc! { "_id": ready["id"].as_str().unwrap() }, doc! { "$set": unreadable }).await.unwrap();
    let broken = [
        doc! { "image": ticket.id(), "bytes": 1_i64, "at": past },
        doc! { "image": "no id", "bytes": 1_i64, "at": past },
        doc! { "image": uuid::Uuid::now_v7().to_string(), "bytes": "many", "at": past },
        doc! { "at": past },
    ];
    let set = doc! { "opening": broken.to_vec(), "holds": broken[1..].to_vec(), "settling": broken.to_vec() };
    users.update_one(doc! { "_id": &eve.id }, doc! { "$set": set }).await.unwrap();
    // Ada has one readable entry in `opening` and one in `holds`.
    let entry = |field: &str| doc! { field: { "image": uuid::Uuid::now_v7().to_string(), "bytes": 500_i64, "at": past } };
    let mut push = entry("opening");
    push.extend(entry("holds"));
    let counted = doc! { "$push": push, "$inc": { "usedBytes": 1000_i64, "pending": 1_i64 } };
    users.update_one(doc! { "_id": &ada.id }, counted).await.unwrap();
    let bob = app.user().await;
    assert_eq!(bob.post("/api/auth/me/delete", json!({ "password": PASSWORD })).await.status, 204);
    let swept = app.sweep(after(1)).await;
    assert_eq!((swept.reservations, swept.accounts), (2, 1), "{swept:?}");
    assert!(swept.failed >= 10, "three entries, four steps, three holds, an image: {swept:?}");
    assert_eq!(usage(&ada).await, (0, 0, 0));
    // A failed record is tried again later, not at once.
    assert!(app.sweep(after(2)).await.failed <= 3, "at most the three holds are tried again at once");
}

/// A thousand reservations of one user are settled in slices, beside one of another user.
#[tokio::test]
async fn many_reservations_of_one_user_do_not_delay_other_users() {
    let app = TestApp::start().await;
    let (eve, ada) = (app.user().await, app.user().await);
    let users = app.db.collection::<Document>("users");
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
    let entries = |count: usize| -> Vec<Document> {
        (0..count).map(|_| doc! { "image": uuid::Uuid::now_v7().to_string(), "bytes": 5_i64, "at": past }).collect()
    };
    for (user, count) in [(&eve, 1000), (&ada, 1)] {
        let set = doc! { "opening": entries(count), "usedBytes": 5 * count as i64, "pending": count as i64 };
        users.update_one(doc! { "_id": &user.id }, doc! { "$set": set }).await.unwrap();
    }
    let first = app.sweep(after(1)).await;
    assert_eq!(usage(&ada).await, (0, 0, 0), "in the first sweep: {first:?}");
    assert!(first.reservations < 200, "a slice: {first:?}");
    let mut usages_seen = HashSet::new();
    while app.sweep(after(300)).await != Swept::default() {
        assert!(usages_seen.insert(usage(&eve).await), "every sweep frees some of the reservations");
    }
    assert_eq!(usage(&eve).await, (0, 0, 0));
}
