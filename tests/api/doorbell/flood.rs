//! Covers floods of notifications: the cost of a hint, and that other work goes on.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use mongodb::bson::{Document, doc};
use reqwest::Method;
use valet::model::{ImageId, UserId};

use super::{Abandoned, Bell, with_hook};
use crate::{
    app::{TestApp, skip_unless_local_s3, unique_png},
    relay::relay_s3,
    targeting::record_all,
};

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_cost_at_most_one_indexed_query_each() {
    let bell = Bell::start().await;
    let ada = bell.app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    record_all(&bell.app.db).await;
    let unknown: Vec<_> = (0..150).map(|_| format!("u/{}/{}", UserId::new(), ImageId::new())).collect();
    let foreign: Vec<_> = (0..600).map(|at| format!("photos/{at}.jpg")).collect();
    let sends = unknown.chunks(50).chain(foreign.chunks(200)).map(async |keys| {
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        bell.ring(&keys).await;
    });
    futures_util::future::join_all(sends).await;
    let profile = bell.app.db.collection::<Document>("system.profile");
    let queries = doc! { "ns": format!("{}.images", bell.app.db.name()), "command.findAndModify": "images" };
    assert_eq!(profile.count_documents(queries.clone()).await.unwrap(), 150, "one for each key of our form");
    let mut costly = queries;
    costly.insert("$or", vec![doc! { "docsExamined": { "$gt": 0 } }, doc! { "keysExamined": { "$gt": 1 } }]);
    assert_eq!(profile.count_documents(costly).await.unwrap(), 0);
    assert_eq!(ada.get("/api/images/gallery").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn object_is_looked_at_at_most_once_a_second() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let looks = Arc::<AtomicU32>::default();
    let count = looks.clone();
    let endpoint = relay_s3(&app, move |relayed| {
        let is_look = [Method::HEAD, Method::GET].contains(&relayed.parts.method) && relayed.path().contains("/u/");
        count.fetch_add(is_look.into(), Ordering::Relaxed);
        relayed.forward()
    })
    .await;
    let behind = TestApp::start_second_server(&app, |config| {
        with_hook(config);
        config.s3.endpoint = Some(endpoint.parse().unwrap());
    });
    let bell = Bell::before(behind.await).await;
    let upload = Abandoned::open(&app.user().await).await;
    let before = looks.load(Ordering::Relaxed);
    let began = std::time::Instant::now();
    for _ in 0..100 {
        bell.ring(&[&upload.key, &upload.key]).await;
    }
    upload.put(&app).await;
    bell.ring(&[&upload.key]).await;
    app.until_state(&upload.id, "ready").await;
    let seconds = u32::try_from(began.elapsed().as_secs()).unwrap() + 2;
    // A look at an object that is not there is one request; the last look finds it, and reads it in a few.
    let made = looks.load(Ordering::Relaxed) - before;
    assert!(made <= seconds + 4, "{made} in {seconds} s");
}
