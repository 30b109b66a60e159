//! Covers the removal of the objects that `valet check` writes, also if it is interrupted.

use std::{sync::Arc, time::Duration};

use hyper::Method;
use tokio::sync::Notify;
use valet::domain::doctor::{self, Answer, Options};

use super::store_defects::{Defect, Proxy};
use crate::{
    app::{TestApp, skip_unless_local_s3},
    relay::relay_s3,
};

/// Rule that the check removes its objects.
const CLEAN: &str = "check: nothing left behind";

/// A check that is interrupted makes no further requests and removes the objects that it wrote.
#[tokio::test]
async fn interrupted_check_removes_its_objects() {
    let app = TestApp::start().await;
    let written = async {
        while app.bucket_keys().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let report = doctor::run_until(&app.config, Options::default(), written).await;
    println!("{report}");
    assert_eq!(app.bucket_keys().await, Vec::<String>::new());
    assert!(matches!(report.answer(CLEAN), Some(Answer::Yes(_))));
    let Some(Answer::Skipped(why)) = report.answer("object: delete") else { panic!("the check was not interrupted") };
    assert!(why.contains("interrupted") && !report.is_sound(), "an interrupted check has no certain answers");
}

/// A store may process a PUT whose sender has closed its connection. Therefore an interrupted check waits for the response before
/// it lists and removes objects. This store delays the PUT for a second, or until objects are listed.
#[tokio::test]
async fn interrupted_check_removes_the_object_of_a_request_in_flight() {
    let mut app = TestApp::start().await;
    let (received, listed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let endpoint = relay_s3(&app, {
        let received = Arc::clone(&received);
        move |request| {
            let (received, listed) = (Arc::clone(&received), Arc::clone(&listed));
            // Unlike the relay's own future, the task continues after the sender has closed its connection.
            let stored = tokio::spawn(async move {
                if request.parts.method == Method::PUT && request.query().contains("X-Amz-Signature") {
                    received.notify_one();
                    let _ = tokio::time::timeout(Duration::from_secs(1), listed.notified()).await;
                }
                let is_listing = request.query().contains("prefix=check");
                let answer = request.forward().await;
                if is_listing {
                    listed.notify_one();
                }
                answer
            });
            async move { stored.await.unwrap() }
        }
    })
    .await;
    app.config.s3.endpoint = Some(endpoint.parse().unwrap());
    app.config.s3.public_endpoint = app.config.s3.endpoint.clone();
    let report = doctor::run_until(&app.config, Options::default(), received.notified()).await;
    assert!(report.cut_short.is_some(), "{report}");
    // A check that had not waited for the PUT would leave its object, which the store has written by then.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(app.bucket_keys().await, Vec::<String>::new(), "{report}");
    assert!(matches!(report.answer(CLEAN), Some(Answer::Yes(_))), "{report}");
}

/// With credentials that may write and delete but not list, the check removes the objects that it remembers.
#[tokio::test]
async fn check_without_list_permission_removes_its_objects() {
    if skip_unless_local_s3() {
        return;
    }
    let mut app = TestApp::start().await;
    app.bucket_put("check/another/object", "image/png", vec![1]).await;
    let proxy = Proxy::start(&app, Defect::ListsNothing).await;
    app.config.s3.endpoint = Some(proxy.endpoint.parse().unwrap());
    let report = doctor::run(&app.config, Options::default()).await;
    println!("{report}");
    assert_eq!(app.bucket_keys().await, ["check/another/object"]);
    let Some(Answer::Yes(seen)) = report.answer(CLEAN) else { panic!("{report}") };
    assert!(seen.contains("cannot be listed"), "{seen}");
}

/// In a bucket that retains objects by default, the check writes nothing.
#[tokio::test]
async fn check_writes_nothing_into_a_bucket_that_retains_objects() {
    if skip_unless_local_s3() {
        return;
    }
    let mut app = TestApp::start().await;
    let proxy = Proxy::start(&app, Defect::LocksByDefault).await;
    app.config.s3.endpoint = Some(proxy.endpoint.parse().unwrap());
    let report = doctor::run(&app.config, Options { fix: true, loopback: true }).await;
    let Some(Answer::No(seen)) = report.answer("bucket: no default retention") else { panic!("{report}") };
    assert_eq!(seen, "COMPLIANCE for 30 days");
    assert!(report.changes.is_empty() && !report.is_sound());
    assert_eq!(app.bucket_keys().await, Vec::<String>::new());
    assert!(matches!(report.answer("upload: presigned PUT accepted"), Some(Answer::Skipped(_))), "{report}");
}
