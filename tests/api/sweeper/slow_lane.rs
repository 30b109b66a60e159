//! Covers the sweeper's slow lane, for images that take long.

use mongodb::bson::DateTime;

use super::*;

/// One owner has nine images for the lane, which accepts four of an owner: when one is swept, the lane accepts another.
#[tokio::test]
async fn the_slow_lane_has_room_again_when_an_image_is_swept() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let images = app.db.collection::<Document>("images");
    for _ in 0..9 {
        ada.open_upload("a.png", "image/png", &unique_png()).await;
    }
    // An image whose last attempt failed goes to the slow lane.
    let past = DateTime::from_millis(1000);
    let failed = doc! { "due": past, "expiresAt": past, "urlsDieAt": past, "sweepFailures": 1_i64 };
    images.update_many(doc! {}, doc! { "$set": failed }).await.unwrap();
    let _server = TestApp::start_second_server(&app, |config| config.sweep.interval = Duration::from_millis(100)).await;
    let waiting = doc! { "state": "pending" };
    while images.count_documents(waiting.clone()).await.unwrap() > 0 {
        // The sweeper postpones images that the lane does not accept, for longer than a test lasts.
        images.update_many(waiting.clone(), doc! { "$set": { "due": past } }).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
