//! Plants violations in the bucket, and in the matching records.

use mongodb::bson::doc;

use super::CleanCluster;
use crate::{
    files::{fixture, sha256},
    workload::users::MARKER,
};

/// Returns the bytes with another last byte.
fn different_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut others = bytes.to_vec();
    let last = others.len() - 1;
    others[last] ^= 0xff;
    others
}

/// Plants violations in the objects of the bucket.
pub async fn plant(clean: &CleanCluster) {
    plant_other_bytes(clean).await;
    plant_html(clean).await;
    plant_unowned_objects(clean).await;
    plant_password_in_metadata(clean).await;
    plant_revived_image(clean).await;
    plant_key_of_another_user(clean).await;
    plant_uncounted(clean).await;
    plant_lost_image(clean).await;
    plant_duplicate(clean).await;
}

async fn plant_other_bytes(clean: &CleanCluster) {
    let image = clean.acknowledged_image();
    let (bytes, content_type) = &clean.bytes[image.key()];

    clean.rewrite(&image, &different_bytes(bytes), content_type).await;
    clean.assert_reports("an acknowledged image has other bytes, and a record that agrees", &[1]).await;

    clean.delete_object(image.key()).await;
    clean.assert_reports("an acknowledged image's object is missing", &[1, 2]).await;

    clean.put(image.key(), content_type, &different_bytes(bytes)).await;
    clean.assert_reports("an acknowledged image has other bytes", &[1, 2]).await;

    clean.rewrite(&image, &different_bytes(bytes), content_type).await;
    clean.assert_reports_with_history("an image has other bytes than in an earlier sample", &[1, 6]).await;
}

async fn plant_html(clean: &CleanCluster) {
    let image = clean.image_confirmed_by_sweeper();
    let (bytes, _) = &clean.bytes[image.key()];

    let mut html = b"<!doctype html>".to_vec();
    html.resize(bytes.len(), b' ');
    clean.rewrite(&image, &html, "image/png").await;
    clean.assert_reports("an object is not an image", &[15]).await;

    clean.put(image.key(), "text/html", bytes).await;
    clean.assert_reports("an image is served as HTML", &[15]).await;
}

async fn plant_unowned_objects(clean: &CleanCluster) {
    let unowned_key = || format!("u/{}/{}", clean.acknowledged_image().user(), uuid::Uuid::now_v7());
    let (bytes, _) = &clean.bytes[clean.image_confirmed_by_sweeper().key()];

    clean.put(&unowned_key(), "image/png", bytes).await;
    clean.assert_reports("an object has no owner", &[3, 17]).await;

    clean.cluster.s3.create_multipart_upload().bucket(&clean.cluster.bucket).key(unowned_key()).send().await.unwrap();
    clean.assert_reports("an open multipart upload has no owner", &[3]).await;

    clean.put(clean.deleted_image().key(), "image/png", bytes).await;
    clean.assert_reports("a deleted image has an object again", &[3, 5, 17]).await;
}

async fn plant_password_in_metadata(clean: &CleanCluster) {
    let image = clean.acknowledged_image();
    let (bytes, content_type) = &clean.bytes[image.key()];
    let put = clean.cluster.s3.put_object().bucket(&clean.cluster.bucket).key(image.key()).content_type(content_type);
    put.metadata("note", format!("{MARKER} word")).body(bytes.clone().into()).send().await.unwrap();
    clean.assert_reports("a password is in an object's metadata", &[11]).await;
}

/// Restores a deleted image completely, as if its owner had never deleted it. The image may never have been ready,
/// so the update sets its dimensions too.
async fn plant_revived_image(clean: &CleanCluster) {
    let deleted = clean.deleted_image();
    let bytes = fixture("plain.png");
    let etag = clean.put(deleted.key(), "image/png", &bytes).await;
    let size = i64::try_from(bytes.len()).unwrap();
    let set = doc! { "state": "ready", "live": true, "uploadedAt": mongodb::bson::DateTime::now(), "etag": etag, "sha256": sha256(&bytes),
    "size": size, "contentType": "image/png", "kind": "single", "width": 3_i64, "height": 2_i64 };
    let unset = doc! { "due": "", "goneAt": "", "goneFrom": "", "preview": "", "strays": "", "uploadId": "" };
    clean.update("images", deleted.id(), doc! { "$set": set, "$unset": unset }).await;
    clean.update("users", deleted.user(), doc! { "$inc": { "usedBytes": size, "images": 1_i64 } }).await;
    clean.assert_reports("a deleted image is ready again", &[5]).await;
}

/// Moves an image and its record under another user's prefix.
async fn plant_key_of_another_user(clean: &CleanCluster) {
    let image = clean.acknowledged_image();
    let foreign = format!("u/{}/{}", clean.user_other_than(image.user()), image.id());
    let (bytes, content_type) = &clean.bytes[image.key()];
    clean.put(&foreign, content_type, bytes).await;
    clean.delete_object(image.key()).await;
    clean.update("images", image.id(), doc! { "$set": { "key": foreign } }).await;
    // Galleries omit an image whose key is not under its owner's prefix, which violates I10.
    clean.assert_reports("an image has the key of another user", &[7, 10, 17]).await;
}

/// Removes an image completely without its owner's request.
async fn plant_lost_image(clean: &CleanCluster) {
    let image = clean.image_confirmed_by_sweeper();
    clean.delete_object(image.key()).await;
    let gone = doc! { "$set": { "state": "gone", "goneAt": mongodb::bson::DateTime::now() }, "$unset": { "live": "", "idemKey": "", "idemHash": "" } };
    clean.update("images", image.id(), gone).await;
    clean.update("users", image.user(), doc! { "$inc": { "usedBytes": -image.size(), "images": -1_i64 } }).await;
    clean.assert_reports_with_history("a ready image disappeared", &[16]).await;
}

/// Stores the same bytes as two images, each of them valid. The server must restart afterwards, to create the unique index again.
async fn plant_duplicate(clean: &CleanCluster) {
    let image = clean.acknowledged_image();
    let (bytes, content_type) = &clean.bytes[image.key()];
    let duplicate = uuid::Uuid::now_v7().to_string();
    let key = format!("u/{}/{duplicate}", image.user());
    clean.put(&key, content_type, bytes).await;
    let images = clean.collection("images");
    images.drop_index("liveBytes").await.unwrap();
    let mut document = image.0.clone();
    document.extend(doc! { "_id": &duplicate, "key": key });
    document.remove("idemKey");
    document.remove("idemHash");
    images.insert_one(document).await.unwrap();
    clean.update("users", image.user(), doc! { "$inc": { "usedBytes": image.size(), "images": 1_i64 } }).await;
    clean.assert_reports("the same bytes are stored twice", &[4]).await;

    clean.cluster.servers[0].kill().await;
    clean.cluster.servers[0].start().await;
    let names = images.list_index_names().await.unwrap();
    assert!(names.iter().any(|name| name == "liveBytes"), "{names:?}");
}

/// Plants more bytes than are counted, at a key that the record names, and the remains of a deleted account.
async fn plant_uncounted(clean: &CleanCluster) {
    let image = clean.acknowledged_image();
    let user = clean.base.users.iter().find(|user| user.get_str("_id").ok() == Some(image.user())).unwrap();
    let byte_count = usize::try_from(user.get_i64("usedBytes").unwrap()).unwrap() + 1;
    let source = format!("in/{}/{}", image.user(), image.id());
    clean.put(&source, "image/png", &vec![0; byte_count]).await;
    // In the year 2106.
    let later = mongodb::bson::DateTime::from_millis(i64::from(u32::MAX) * 1000);
    clean.update("images", image.id(), doc! { "$set": { "strays": [&source], "due": later } }).await;
    clean.assert_reports("more bytes are stored than counted", &[17]).await;

    let stranger = uuid::Uuid::now_v7().to_string();
    clean.put(&format!("u/{stranger}/{}", uuid::Uuid::now_v7()), "image/png", b"left").await;
    clean.assert_reports("an object of a deleted account is left", &[3, 17, 18]).await;

    let mut left = clean.deleted_image().0;
    let id = uuid::Uuid::now_v7().to_string();
    left.extend(doc! { "_id": &id, "user": &stranger, "key": format!("u/{stranger}/{id}"), "state": "rejected", "due": later });
    for field in ["goneAt", "goneFrom", "idemKey", "idemHash"] {
        left.remove(field);
    }
    clean.collection("images").insert_one(left).await.unwrap();
    clean.assert_reports("a tombstone of a deleted account is left", &[18]).await;
}
