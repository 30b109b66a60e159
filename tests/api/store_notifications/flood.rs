//! Covers floods of notifications: the cost of each record.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use mongodb::bson::{Document, doc};
use reqwest::Method;
use valet::model::{ImageId, UserId};

use super::{Abandoned, Notifier, with_hook};
use crate::{
    app::{TestApp, skip_unless_local_s3, unique_png},
    relay::relay_s3,
    targeting::record_all,
};

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_cost_at_most_one_indexed_query_each() {
    let notifier = Notifier::start().await;
    let ada = notifier.app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    record_all(&notifier.app.db).await;
    let unknown: Vec<_> = (0..150).map(|_| format!("u/{}/{}", UserId::new(), ImageId::new())).collect();
    let foreign: Vec<_> = (0..600).map(|at| format!("photos/{at}.jpg")).collect();
    let sends = unknown.chunks(50).chain(foreign.chunks(200)).map(async |keys| {
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        notifier.notify(&keys).await;
    });
    futures_util::future::join_all(sends).await;
    let profile = notifier.app.db.collection::<Document>("system.profile");
    let queries = doc! { "ns": format!("{}.images", notifier.app.db.name()), "command.findAndModify": "images" };
    assert_eq!(profile.count_documents(queries.clone()).await.unwrap(), 150, "one for each key in the form of an image's");
    let mut costly = queries;
    costly.insert("$or", vec![doc! { "docsExamined": { "$gt": 0 } }, doc! { "keysExamined": { "$gt": 1 } }]);
    assert_eq!(profile.count_documents(costly).await.unwrap(), 0);
    assert_eq!(ada.get("/api/images/gallery").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn object_is_checked_once_a_second_at_most() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let checks = Arc::<AtomicU32>::default();
    let count = checks.clone();
    let endpoint = relay_s3(&app, move |relayed| {
        let is_check = [Method::HEAD, Method::GET].contains(&relayed.parts.method) && relayed.path().contains("/u/");
        count.fetch_add(is_check.into(), Ordering::Relaxed);
        relayed.forward()
    })
    .await;
    let server = TestApp::start_second_server(&app, |config| {
        with_hook(config);
        config.s3.endpoint = Some(endpoint.parse().unwrap());
    });
    let notifier = Notifier::before(server.await).await;
    let upload = Abandoned::open(&app.user().await).await;
    let before = checks.load(Ordering::Relaxed);
    let began = std::time::Instant::now();
    for _ in 0..100 {
        notifier.notify(&[&upload.key, &upload.key]).await;
    }
    upload.put(&app).await;
    notifier.notify(&[&upload.key]).await;
    app.until_state(&upload.id, "ready").await;
    let seconds = u32::try_from(began.elapsed().as_secs()).unwrap() + 2;
    // A check of a missing object is one request; the last check finds the object, and reads it with a few more.
    let made = checks.load(Ordering::Relaxed) - before;
    assert!(made <= seconds + 4, "{made} in {seconds} s");
}
