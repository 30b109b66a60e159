//! Covers remains of a deleted account besides readable images: the account's record is deleted after all of them, not before.

use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadOutput;
use mongodb::bson::{Bson, DateTime};

use super::{
    Document, Duration, OffsetDateTime, PASSWORD, TestApp, delete_account, doc, keys_of, multiparts_of, sweep_all, unique_png,
};

/// Remains of an account.
#[derive(Debug, Clone)]
enum Remainder {
    /// An object with a valid key that no record names: the parts of the key before the user and after the image's id.
    UnrecordedObject { root: &'static str, end: &'static str },
    /// An open multipart upload that no record names.
    OpenUpload,
    /// The record of a ready or pending image with another value in a field.
    Record { is_ready: bool, field: &'static str, value: Bson },
    /// The record of the ready image under an invalid id.
    OtherId(Bson),
    /// Another value in a field of the user's record.
    Account { field: &'static str, value: Bson },
    /// An object of another program, whose key is not Valet's.
    Foreign,
}

/// Returns remainders of every kind, readable and damaged.
fn remainders() -> Vec<Remainder> {
    use Remainder::{Account, Foreign, OpenUpload, OtherId, Record, UnrecordedObject};
    let text = || Bson::from("damaged");
    let past = DateTime::from_millis(1000);
    let entry = || Bson::from(doc! { "image": "no id", "bytes": 5, "at": past });
    let readable = || doc! { "image": uuid::Uuid::now_v7().to_string(), "bytes": 5_i64, "at": past };
    let step = || doc! { "step": uuid::Uuid::now_v7().to_string(), "bytes": 0, "images": 0, "pending": 0 };
    let with_step = || readable().into_iter().chain(step()).collect::<Document>();
    let mut all = vec![Foreign, OpenUpload, OtherId(text()), OtherId(Bson::Int32(7))];
    for root in ["u", "in"] {
        all.extend(["", "-preview"].map(|end| UnrecordedObject { root, end }));
    }
    all.push(UnrecordedObject { root: "u", end: "-0123456789ab4def8123456789abcdef" });
    for is_ready in [true, false] {
        for field in ["state", "urlsDieAt", "expiresAt", "createdAt", "key", "kind", "size", "due"] {
            all.extend([text(), Bson::Null, Bson::Int32(-1)].map(|value| Record { is_ready, field, value }));
        }
        all.push(Record { is_ready, field: "state", value: "trashed".into() });
    }
    for field in ["usedBytes", "images", "pending", "passwordVersion", "createdAt", "deletedAt", "deletionFailures"] {
        all.extend([text(), Bson::Null, Bson::Array(vec![])].map(|value| Account { field, value }));
    }
    for field in ["opening", "settling", "holds"] {
        all.extend([text(), Bson::Null, vec![entry()].into(), vec![Bson::Null].into()].map(|value| Account { field, value }));
        all.push(Account { field, value: vec![Bson::from(with_step()), entry()].into() });
    }
    all
}

impl TestApp {
    /// Opens a multipart upload in the bucket without going through the server.
    async fn bucket_open(&self, key: &str) -> CreateMultipartUploadOutput {
        self.s3.create_multipart_upload().bucket(&self.config.s3.bucket).key(key).send().await.unwrap()
    }
}

/// Creates a user with a ready image and an open upload, deletes the account and adds the remainder. Returns the user's id and
/// the keys that must stay.
async fn leave(app: &TestApp, remainder: &Remainder) -> (String, Vec<String>) {
    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    let ada = app.user().await;
    let ready = ada.upload("mine.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    let pending = ada.open_upload("mine.png", "image/png", &unique_png()).await.id().to_owned();
    let (user, id) = (ada.id.clone(), uuid::Uuid::now_v7());
    let foreign = format!("u/{user}/holiday.jpg");
    let mut kept_keys = Vec::new();
    match remainder {
        Remainder::Foreign => {
            app.bucket_put(&foreign, "image/jpeg", vec![1]).await;
            kept_keys.push(foreign);
        }
        Remainder::UnrecordedObject { root, end } => {
            app.bucket_put(&format!("{root}/{user}/{id}{end}"), "image/png", vec![1]).await
        }
        Remainder::OpenUpload => drop(app.bucket_open(&format!("u/{user}/{id}")).await),
        Remainder::Record { is_ready, field, value } => {
            let filter = doc! { "_id": if *is_ready { &ready } else { &pending } };
            images.update_one(filter, doc! { "$set": { *field: value } }).await.unwrap();
        }
        Remainder::OtherId(other) => {
            let mut record = images.find_one_and_delete(doc! { "_id": &ready }).await.unwrap().unwrap();
            record.insert("_id", other);
            images.insert_one(record).await.unwrap();
        }
        Remainder::Account { .. } => {}
    }
    assert_eq!(delete_account(&ada, PASSWORD).await.status, 204, "{remainder:?}");
    if let Remainder::Account { field, value } = remainder {
        users.update_one(doc! { "_id": &user }, doc! { "$set": { *field: value } }).await.unwrap();
    }
    (user, kept_keys)
}

/// Each remainder has an account of its own. When the record of an account has been deleted, so has everything else of the account;
/// in the end every record is deleted.
#[tokio::test]
async fn account_record_is_removed_only_after_every_kind_of_remainder() {
    let app = TestApp::start().await;
    let mut leftovers = Vec::new();
    for remainder in remainders() {
        let (user, kept) = leave(&app, &remainder).await;
        leftovers.push((remainder, user, kept));
    }
    // A sweep adds its own duration to `now`, so the next step of an account is often due a moment after `now`.
    let (minutes, day) = (|minutes: u64| Duration::from_secs(60 * minutes), Duration::from_secs(25 * 60 * 60));
    let waits = [Duration::ZERO, day].into_iter().chain([minutes(10); 8]).chain([8 * day, day, day, day]);
    let mut at = OffsetDateTime::now_utc();
    for wait in waits {
        at += wait;
        sweep_all(&app, at).await;
        let mut waiting = Vec::new();
        for (remainder, user, kept) in leftovers {
            let record = app.db.collection::<Document>("users").find_one(doc! { "_id": &user }).await.unwrap();
            if record.is_some() {
                waiting.push((remainder, user, kept));
                continue;
            }
            assert_eq!(keys_of(&app, &user).await, kept, "{remainder:?}");
            assert_eq!(multiparts_of(&app, &user).await, 0, "{remainder:?}");
            let not_purged = doc! { "user": &user, "state": { "$ne": "gone" } };
            assert_eq!(app.db.collection::<Document>("images").find_one(not_purged).await.unwrap(), None, "{remainder:?}");
        }
        leftovers = waiting;
    }
    assert!(leftovers.is_empty(), "accounts whose records are not deleted: {leftovers:#?}");
}
