//! Covers unreadable records: every operation that meets one answers 500, never 404 and never 503.
//!
//! Routes: all.

use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};

use super::{
    app::{Answer, Caller, PASSWORD, TestApp, declaration, unique_png},
    isolation::{call_with, takes_an_id},
    openapi::operations,
};

/// Fields and damaged values: one that the field's type allows but its rules do not, ones of another type, and the key of another
/// program's object.
const DAMAGES: [(&str, &str); 4] =
    [("fileName", ""), ("urlsDieAt", "damaged"), ("key", "u/holiday/beach.jpg"), ("takenAt", "2026")];

/// Returns an image of each kind that operations distinguish.
async fn images_of(ada: &Caller<'_>) -> Vec<(&'static str, String)> {
    let ready = ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    let pending = ada.open_upload("b.png", "image/png", &unique_png()).await.id().to_owned();
    let declaration = json!({ "fileName": "c.png", "contentType": "image/png", "size": 12 << 20, "partSize": 6 << 20 });
    let parts = ada.post("/api/images/multipart", declaration).await.id().to_owned();
    let in_uppys_parts = json!({ "filename": "d.png", "type": "image/png", "metadata": {} });
    let in_uppys_parts = ada.app.anonymous().post(&format!("/uppy/{}/s3/multipart", ada.uppy().await), in_uppys_parts).await;
    let in_uppys_parts = in_uppys_parts.json["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    vec![("ready", ready), ("pending", pending), ("in parts", parts), ("in Uppy's parts", in_uppys_parts)]
}

/// Returns whether the answer is the problem of an internal error.
fn is_internal_error(answer: &Answer) -> bool {
    answer.status == 500 && answer.json["code"] == "internal"
}

#[tokio::test]
async fn unreadable_image_is_a_500_on_every_operation_that_names_it() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let readable = ada.upload("whole.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    let images = app.db.collection::<Document>("images");
    let named: Vec<_> = operations()
        .into_iter()
        .filter(|one| takes_an_id(one) && !one.path.starts_with("/api/auth/") && !one.is_admin())
        .collect();
    assert!(named.len() >= 16, "{}", named.len());
    for (state, id) in images_of(&ada).await {
        let record = app.db_image(&id).await.unwrap();
        for (field, value) in DAMAGES {
            // A ready image with a damaged `takenAt` is readable, and is shown without the time.
            if (field, state) == ("takenAt", "ready") {
                continue;
            }
            images.update_one(doc! { "_id": &id }, doc! { "$set": { field: value } }).await.unwrap();
            let damaged = app.db_image(&id).await.unwrap();
            for operation in &named {
                let case = format!("{} {} of an image {state}, damaged in {field}", operation.method, operation.path);
                let answer = call_with(&ada, operation, &id).await;
                match answer.json["results"].as_array() {
                    Some(results) => {
                        let result = &results[0];
                        assert!(result["status"] == 500 && result["problem"]["code"] == "internal", "{case}: {answer:?}");
                    }
                    // Only ready images have a caption to change, and the state is readable.
                    None if operation.method == reqwest::Method::PATCH && state != "ready" => {
                        assert_eq!(answer.problem(), (404, "not_found"), "{case}");
                    }
                    None => assert!(is_internal_error(&answer), "{case}: {answer:?}"),
                }
            }
            let after = app.db_image(&id).await.unwrap();
            assert_eq!(after.get("state"), damaged.get("state"), "no operation changes its state");
            // A damaged item of a batch does not affect the others.
            for (path, status) in [("/api/images/read", 200), ("/api/images/confirm", 200), ("/api/images/renew", 200)] {
                let answer = ada.post(path, json!({ "ids": [&id, &readable] })).await;
                let statuses: Vec<_> = answer.json["results"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
                assert_eq!(statuses, [&json!(500), &json!(status)], "{path}: {answer:?}");
            }
            if field == "key" {
                let listed = ada.get("/api/images/gallery").await.json;
                let shows = |id: &str| listed["images"].as_array().unwrap().iter().any(|one| one["id"] == id);
                assert!(shows(&readable) && !shows(&id), "{state}: no page serves an object that is not the image's own");
            }
            images.replace_one(doc! { "_id": &id }, &record).await.unwrap();
        }
    }
    let deleted = ada.post("/api/images/delete", json!({ "ids": [&readable] })).await;
    assert_eq!(deleted.json["results"][0]["status"], 204, "{deleted:?}");
}

/// Bytes whose record is unreadable are neither uploaded a second time nor reported as a lost race.
#[tokio::test]
async fn upload_that_meets_an_unreadable_image_fails_only_that_item() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ready = ada.upload("a.png", "image/png", &bytes).await;
    let images = app.db.collection::<Document>("images");
    for (field, value) in DAMAGES {
        images.update_one(doc! { "_id": ready["id"].as_str().unwrap() }, doc! { "$set": { field: value } }).await.unwrap();
        let answer = ada.open_upload("a.png", "image/png", &bytes).await;
        assert!(is_internal_error(&answer), "{answer:?}");
        let item = |bytes: &[u8]| declaration("a.png", "image/png", bytes);
        let answer = ada.post("/api/images/upload/batch", json!({ "items": [item(&bytes), item(&unique_png())] })).await;
        let statuses: Vec<_> = answer.json["results"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
        assert_eq!(statuses, [&json!(500), &json!(201)], "{answer:?}");
    }
}

/// Covers records of accounts and sessions with values of wrong types.
#[tokio::test]
async fn unreadable_account_or_session_is_a_500_and_not_an_outage() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let credentials = json!({ "email": ada.email, "password": PASSWORD });
    let log_in = async || app.anonymous().post("/api/auth/login", credentials.clone()).await;
    let token = log_in().await.json["refreshToken"].clone();
    let refresh = async || app.anonymous().post("/api/auth/refresh", json!({ "refreshToken": token })).await;
    let sessions = app.db.collection::<Document>("sessions");
    sessions.update_many(doc! {}, doc! { "$set": { "createdAt": "damaged" } }).await.unwrap();
    let answer = refresh().await;
    assert!(is_internal_error(&answer), "{answer:?}");
    sessions.update_many(doc! {}, doc! { "$set": { "createdAt": DateTime::now() } }).await.unwrap();
    app.db.collection::<Document>("users").update_many(doc! {}, doc! { "$set": { "createdAt": "damaged" } }).await.unwrap();
    for answer in [ada.get("/api/auth/me").await, log_in().await, refresh().await] {
        assert!(is_internal_error(&answer), "{answer:?}");
    }
    assert_eq!(ada.get("/api/images/gallery").await.json["images"], Value::Array(Vec::new()));
}
