//! Covers the reservations of Uppy's uploads of undeclared size.

use super::{MIB, TestApp, json};

/// A file of undeclared size reserves a share of the user's own quota, not of the server's.
#[tokio::test]
async fn file_of_unknown_size_fits_into_a_users_own_quota() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let users = app.db.collection::<mongodb::bson::Document>("users");
    for quota in [500 * MIB, 40 * MIB, 12 * MIB] {
        let update = mongodb::bson::doc! { "$set": { "quotaBytes": i64::try_from(quota).unwrap() } };
        users.update_one(mongodb::bson::doc! { "_id": &ada.id }, update).await.unwrap();
        let upload = ada.open_for_uppy(json!({})).await;
        let bytes = ada.get("/api/auth/me").await.json["usage"]["bytes"].as_u64().unwrap();
        assert!(bytes <= quota && bytes > 0, "{bytes} of {quota}");
        upload.abort().await;
        let form = ada.form("filename=a.png&type=image/png").await;
        assert_eq!(form.status, 200, "{form:?}");
        app.sweep_to_the_end().await;
    }
}

/// A user with a quota of zero can open no upload, not even one of undeclared size.
#[tokio::test]
async fn quota_of_zero_rejects_files_of_undeclared_size() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let users = app.db.collection::<mongodb::bson::Document>("users");
    let update = mongodb::bson::doc! { "$set": { "quotaBytes": 0_i64 } };
    users.update_one(mongodb::bson::doc! { "_id": &ada.id }, update).await.unwrap();
    assert_eq!(ada.form("filename=a.png&type=image/png").await.problem(), (409, "quota_exceeded"));
    let token = ada.uppy().await;
    let body = json!({ "filename": "big.png", "type": "image/png", "metadata": {} });
    let opened = app.anonymous().post(&format!("/uppy/{token}/s3/multipart"), body).await;
    assert_eq!(opened.problem(), (409, "quota_exceeded"));
}
