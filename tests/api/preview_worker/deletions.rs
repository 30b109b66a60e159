//! Covers deletions: the pictures of an image are deleted with it, at every moment of a worker's attempt.

use std::time::Instant;

use mongodb::bson::{Document, doc};
use serde_json::json;

use super::{
    super::{
        app::{Caller, PASSWORD, TestApp, skip_unless_local_s3, unique_png},
        relay::relay_s3,
    },
    Duration, OffsetDateTime, id, read, render, render_after, renderer, rendering_of, start, use_workers,
};

/// Returns the keys of pictures that workers made.
async fn pictures(app: &TestApp) -> Vec<String> {
    let mut keys = app.bucket_keys().await;
    keys.retain(|key| key.ends_with("-w640") || key.ends_with("-w1600"));
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_image_and_account_leave_no_pictures() {
    let app = start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    ada.upload("b.png", "image/png", &unique_png()).await;
    let kept = bob.upload("c.png", "image/png", &unique_png()).await;
    assert_eq!(render(&app).await, 3);
    assert_eq!(pictures(&app).await.len(), 3);
    let url = read(&ada, id(&image)).await["previewUrl"].as_str().unwrap().to_owned();
    assert_eq!(ada.delete(&format!("/api/images/{}", id(&image))).await.status, 204);
    assert_eq!(app.http.get(url).send().await.unwrap().status(), 404, "deleted at once");
    assert_eq!(pictures(&app).await.len(), 2);
    let deleted = ada.post("/api/auth/me/delete", json!({ "password": PASSWORD })).await;
    assert!(deleted.status < 300, "{deleted:?}");
    app.sweep_to_the_end().await;
    assert_eq!(pictures(&app).await, [format!("u/{}/{}-w640", bob.id, id(&kept))]);
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphan_scan_reports_only_unrecorded_pictures() {
    let app = start().await;
    let ada = app.user().await;
    let (rendered, unsupported) = (
        ada.upload("a.png", "image/png", &unique_png()).await,
        ada.upload("b.heic", "image/heic", &super::fixture("plain.heic")).await,
    );
    assert_eq!(render(&app).await, 2);
    let orphan = format!("u/{}/{}-w640", ada.id, id(&unsupported));
    app.bucket_put(&orphan, "image/jpeg", b"no worker wrote this".to_vec()).await;
    // S3's times are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before = OffsetDateTime::now_utc() - Duration::from_millis(50);
    let found = app.app.valet.orphans.find(before, &mut |_| {}).await.unwrap();
    let orphans: Vec<_> = found.orphans.first.iter().map(|listed| listed.key.as_str()).collect();
    assert_eq!(orphans, [orphan.as_str()]);
    assert!(rendering_of(&app, id(&rendered)).await.contains_key("written"));
}

/// The image is deleted after the worker was permitted to write, and before it has written.
#[tokio::test(flavor = "multi_thread")]
async fn image_that_is_deleted_while_a_picture_is_written_leaves_none() {
    if skip_unless_local_s3() {
        return;
    }
    let app = start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let (http, url) = (app.http.clone(), format!("{}/api/images/{}", app.base, id(&image)));
    let token = ada.token.clone().unwrap();
    let relay = relay_s3(&app, move |request| {
        let (http, url, token) = (http.clone(), url.clone(), token.clone());
        async move {
            if request.parts.method == "PUT" && request.path().ends_with("-w640") {
                assert_eq!(http.delete(url).bearer_auth(token).send().await.unwrap().status(), 204);
            }
            request.forward().await
        }
    });
    let relay = relay.await;
    let slow = TestApp::start_second_server(&app, |config| {
        use_workers(config);
        config.s3.endpoint = Some(relay.parse().unwrap());
    });
    let slow = slow.await;
    render(&slow).await;
    assert_eq!(app.db_state(id(&image)).await, "deleting");
    assert_eq!(pictures(&app).await, [""; 0], "the worker removed what it wrote");
    // As if the worker had died after a late write: at the end of the tombstone, the sweeper deletes the object.
    app.bucket_put(&format!("u/{}/{}-w640", ada.id, id(&image)), "image/jpeg", b"late".to_vec()).await;
    app.sweep_to_the_end().await;
    app.audit().await;
}

/// Deletes images at random times of the attempt to make their pictures. `VALET_TEST_ROUNDS` (50) is the number of rounds.
#[tokio::test(flavor = "multi_thread")]
async fn deletion_and_worker_race_consistently() {
    let app = start().await;
    let ada = app.user().await;
    let rounds = std::env::var("VALET_TEST_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    let (mut longest, mut kept) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let image = ada.upload("a.png", "image/png", &unique_png()).await;
        let path = format!("/api/images/{}", id(&image));
        // Up to a quarter longer than the longest attempt, so that some deletes come after it.
        let delay = longest.mul_f64(f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 200.0);
        let began = Instant::now();
        let work = async {
            let done = render(&app).await;
            longest = longest.max(began.elapsed().min(Duration::from_secs(2)));
            done
        };
        let delete = async {
            tokio::time::sleep(delay).await;
            if round % 5 == 0 { None } else { Some(ada.delete(&path).await.status) }
        };
        let (_, deleted) = tokio::join!(work, delete);
        assert!(matches!(deleted, None | Some(204)), "{deleted:?}");
        kept += u32::from(deleted.is_none());
        let found = ada.get(&path).await;
        assert_eq!(found.status, if deleted.is_some() { 404 } else { 200 });
        assert!(deleted.is_some() || found.json["previewUrl"].is_string(), "{found:?}");
    }
    let count = async |filter: Document| app.db.collection::<Document>("images").count_documents(filter).await.unwrap();
    let exists = doc! { "$exists": true };
    let with_pictures =
        count(doc! { "state": "deleting", "rendering.written": exists.clone(), "pictures": exists.clone() }).await;
    let during_write = count(doc! { "state": "deleting", "rendering.written": exists, "pictures": null }).await;
    println!(
        "{rounds} rounds: {kept} images kept, {with_pictures} deleted with pictures, {during_write} while pictures were written"
    );
    render_after(&app, &renderer(), Duration::from_secs(3600)).await;
    app.sweep_to_the_end().await;
    assert_eq!(pictures(&app).await.len(), kept as usize);
    app.audit().await;
}

/// Another server records objects after the delete has read the image, and before the delete makes the tombstone. Here the relay
/// records them while the delete removes the object that it has read.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_recorded_during_a_delete_are_removed_at_once() {
    if skip_unless_local_s3() {
        return;
    }
    let app = start().await;
    let ada = app.user().await;
    for is_picture in [true, false] {
        let image = id(&ada.upload("a.png", "image/png", &unique_png()).await).to_owned();
        let key = app.db_image(&image).await.unwrap().get_str("key").unwrap().to_owned();
        let suffix = if is_picture { "w640".to_owned() } else { uuid::Uuid::new_v4().simple().to_string() };
        let late = format!("u/{}/{image}-{suffix}", ada.id);
        let record = if is_picture {
            doc! { "rendering.written": true }
        } else {
            doc! { "strays": [&late] }
        };
        let (images, s3, bucket) = (app.db.collection::<Document>("images"), app.s3.clone(), app.config.s3.bucket.to_string());
        let (filter, change) = (doc! { "_id": &image }, doc! { "$set": record });
        let relay = relay_s3(&app, move |request| {
            let put = s3.put_object().bucket(&bucket).key(&late).body(b"late".to_vec().into());
            let (images, filter, change) = (images.clone(), filter.clone(), change.clone());
            let is_delete = request.parts.method == "DELETE" && request.path().ends_with(&key);
            async move {
                if is_delete {
                    images.update_one(filter, change).await.unwrap();
                    put.send().await.unwrap();
                }
                request.forward().await
            }
        });
        let relay = relay.await;
        let server = TestApp::start_second_server(&app, |config| {
            use_workers(config);
            config.s3.endpoint = Some(relay.parse().unwrap());
        });
        let server = server.await;
        let ada = Caller { app: &server, ..ada.clone() };
        assert_eq!(ada.delete(&format!("/api/images/{image}")).await.status, 204);
        assert_eq!(app.bucket_keys().await, [""; 0], "a picture: {is_picture}");
    }
    app.sweep_to_the_end().await;
    app.audit().await;
}
