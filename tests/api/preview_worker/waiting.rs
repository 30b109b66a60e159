//! Covers the finding of `valet check` about images that wait for a worker.
//!
//! Commands: valet check.

use mongodb::bson::{DateTime, Document, doc};
use valet::domain::doctor::{self, Answer, Options};

use super::{
    super::app::{TestApp, unique_png},
    id, render, start,
};

/// Runs the check; returns the answer to the question about workers, and the finding in JSON.
async fn answer(app: &TestApp) -> (Answer, serde_json::Value) {
    let report = doctor::run(&app.config, Options::default()).await;
    let json = report.to_json();
    let finding = json["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == "preview_workers");
    (report.answer("previews: workers keep up").unwrap().clone(), finding.unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_images_that_no_worker_takes() {
    let app = start().await;
    let ada = app.user().await;
    assert_eq!(answer(&app).await.0, Answer::Yes("no image waits".to_owned()));
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let (just_now, json) = answer(&app).await;
    assert!(matches!(&just_now, Answer::Yes(seen) if seen.contains("0 min")), "{just_now:?}");
    assert_eq!(json["verdict"], "ok");

    let at = DateTime::from_millis(DateTime::now().timestamp_millis() - 16 * 60_000);
    let waiting = doc! { "$set": { "rendering.due": at, "rendering.since": at } };
    app.db.collection::<Document>("images").update_one(doc! { "_id": id(&image) }, waiting).await.unwrap();
    let (late, json) = answer(&app).await;
    assert!(matches!(&late, Answer::No(seen) if seen.contains("16 min")), "{late:?}");
    assert_eq!(json["verdict"], "warning");
    assert!(json["details"]["remedy"].as_str().unwrap().contains("valet worker"), "{json}");

    assert_eq!(render(&app).await, 1);
    assert_eq!(answer(&app).await.0, Answer::Yes("no image waits".to_owned()));
    let without_workers = TestApp::start().await;
    assert!(matches!(answer(&without_workers).await.0, Answer::Skipped(_)), "PREVIEWS is off");
}
