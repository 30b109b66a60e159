//! Plants in the bucket, and in the records with it.

use mongodb::bson::doc;

use super::Field;
use crate::{
    files::{fixture, sha256},
    workload::users::MARKER,
};

/// As many bytes as these, of a PNG, and others.
fn others(bytes: &[u8]) -> Vec<u8> {
    let mut others = bytes.to_vec();
    let last = others.len() - 1;
    others[last] ^= 0xff;
    others
}

pub async fn plant(field: &Field) {
    let image = field.acknowledged();
    let (bytes, content_type) = &field.bytes[image.key()];

    field.rewrite(&image, &others(bytes), content_type).await;
    field.reports("an acknowledged image has other bytes, and a record that agrees", &[1]).await;

    field.delete_object(image.key()).await;
    field.reports("an acknowledged image's object is gone", &[1, 2]).await;

    field.put(image.key(), content_type, &others(bytes)).await;
    field.reports("an acknowledged image's bytes are others", &[1, 2]).await;

    field.rewrite(&image, &others(bytes), content_type).await;
    field.is_remembered("bytes are not what they were at an earlier look", &[1, 6]).await;

    let settled = field.settled();
    let (bytes, _) = &field.bytes[settled.key()];
    let mut html = b"<!doctype html>".to_vec();
    html.resize(bytes.len(), b' ');
    field.rewrite(&settled, &html, "image/png").await;
    field.reports("an image is no image", &[15]).await;

    field.put(settled.key(), "text/html", bytes).await;
    field.reports("an image is served as HTML", &[15]).await;

    field.put(&format!("u/{}/{}", image.user(), uuid::Uuid::now_v7()), "image/png", bytes).await;
    field.reports("an object is nobody's", &[3, 17]).await;

    let key = format!("u/{}/{}", image.user(), uuid::Uuid::now_v7());
    field.cluster.s3.create_multipart_upload().bucket(&field.cluster.bucket).key(key).send().await.unwrap();
    field.reports("S3 holds an upload open for nobody", &[3]).await;

    let deleted = field.deleted();
    field.put(deleted.key(), "image/png", bytes).await;
    field.reports("a deleted image's object is back", &[3, 5, 17]).await;

    let put = field.cluster.s3.put_object().bucket(&field.cluster.bucket).key(image.key()).content_type(content_type);
    let put = put.metadata("note", format!("{MARKER} word")).body(field.bytes[image.key()].0.clone().into());
    put.send().await.unwrap();
    field.reports("a password is in an object's metadata", &[11]).await;

    // All of it, as if its owner had never deleted it; it may never have been ready, and have no dimensions.
    let bytes = fixture("plain.png");
    let etag = field.put(deleted.key(), "image/png", &bytes).await;
    let size = i64::try_from(bytes.len()).unwrap();
    let set = doc! { "state": "ready", "live": true, "uploadedAt": mongodb::bson::DateTime::now(), "etag": etag, "sha256": sha256(&bytes),
    "size": size, "contentType": "image/png", "kind": "single", "width": 3_i64, "height": 2_i64 };
    let unset = doc! { "due": "", "goneAt": "", "goneFrom": "", "preview": "", "strays": "", "uploadId": "" };
    field.update("images", deleted.id(), doc! { "$set": set, "$unset": unset }).await;
    field.update("users", deleted.user(), doc! { "$inc": { "usedBytes": size, "images": 1_i64 } }).await;
    field.reports("a deleted image is ready again", &[5]).await;

    // Moved to another's place, the record with it.
    let foreign = format!("u/{}/{}", field.user_but(image.user()), image.id());
    let (bytes, content_type) = &field.bytes[image.key()];
    field.put(&foreign, content_type, bytes).await;
    field.delete_object(image.key()).await;
    field.update("images", image.id(), doc! { "$set": { "key": foreign } }).await;
    field.reports("an image lies at another's key", &[7, 17]).await;

    uncounted(field).await;

    // All of it gone, by nobody's wish.
    let size = settled.size();
    field.delete_object(settled.key()).await;
    let gone = doc! { "$set": { "state": "gone", "goneAt": mongodb::bson::DateTime::now() }, "$unset": { "live": "", "idemKey": "", "idemHash": "" } };
    field.update("images", settled.id(), gone).await;
    field.update("users", settled.user(), doc! { "$inc": { "usedBytes": -size, "images": -1_i64 } }).await;
    field.is_remembered("a ready image disappeared", &[16]).await;

    // The same bytes twice, each right by itself.
    let twin = uuid::Uuid::now_v7().to_string();
    let key = format!("u/{}/{twin}", image.user());
    field.put(&key, content_type, bytes).await;
    let images = field.collection("images");
    images.drop_index("liveBytes").await.unwrap();
    let mut document = image.0.clone();
    document.extend(doc! { "_id": &twin, "key": key });
    document.remove("idemKey");
    document.remove("idemHash");
    images.insert_one(document).await.unwrap();
    field.update("users", image.user(), doc! { "$inc": { "usedBytes": image.size(), "images": 1_i64 } }).await;
    field.reports("the same bytes are there twice", &[4]).await;
    // As the server makes it when it starts.
    field.cluster.servers[0].kill().await;
    field.cluster.servers[0].start().await;
    let names = images.list_index_names().await.unwrap();
    assert!(names.iter().any(|name| name == "liveBytes"), "{names:?}");
}

/// More than is counted, at a key that the record names; and what a deleted account left.
async fn uncounted(field: &Field) {
    let image = field.acknowledged();
    let user = field.base.users.iter().find(|user| user.get_str("_id").ok() == Some(image.user())).unwrap();
    let more = usize::try_from(user.get_i64("usedBytes").unwrap()).unwrap() + 1;
    let source = format!("in/{}/{}", image.user(), image.id());
    field.put(&source, "image/png", &vec![0; more]).await;
    let later = mongodb::bson::DateTime::from_millis(i64::from(u32::MAX) * 1000);
    field.update("images", image.id(), doc! { "$set": { "strays": [&source], "due": later } }).await;
    field.reports("more lies there than is counted", &[17]).await;

    let stranger = uuid::Uuid::now_v7().to_string();
    field.put(&format!("u/{stranger}/{}", uuid::Uuid::now_v7()), "image/png", b"left").await;
    field.reports("an object of a deleted account is left", &[3, 17, 18]).await;

    let mut left = field.deleted().0;
    let id = uuid::Uuid::now_v7().to_string();
    left.extend(doc! { "_id": &id, "user": &stranger, "key": format!("u/{stranger}/{id}"), "state": "rejected", "due": later });
    for field in ["goneAt", "goneFrom", "idemKey", "idemHash"] {
        left.remove(field);
    }
    field.collection("images").insert_one(left).await.unwrap();
    field.reports("a tombstone of a deleted account is left", &[18]).await;
}
