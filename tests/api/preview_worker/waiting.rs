//! Covers images that wait for a worker: the finding of `valet check` about them, and the metric.
//!
//! Commands: valet check.

use mongodb::bson::{DateTime, Document, doc};
use valet::domain::doctor::{self, Answer, Options};

use super::{
    super::{
        app::{TestApp, eventually, skip_unless_local_s3, unique_png},
        relay::{empty_answer, relay_s3},
    },
    Duration,
    command::{metrics_address, settings},
    id, render, render_after, renderer, rendering_of, start, use_workers,
};

/// Runs `valet check`; returns the answer to the question about workers, and the finding in JSON.
async fn check_workers(app: &TestApp) -> (Answer, serde_json::Value) {
    let report = doctor::run(&app.config, Options::default()).await;
    let json = report.to_json();
    let finding = json["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == "preview_workers");
    (report.answer("previews: workers keep up").unwrap().clone(), finding.unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_images_that_no_worker_takes() {
    let app = start().await;
    let ada = app.user().await;
    assert_eq!(check_workers(&app).await.0, Answer::Yes("no image waits".to_owned()));
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let (just_now, json) = check_workers(&app).await;
    assert!(matches!(&just_now, Answer::Yes(seen) if seen.contains("0 min")), "{just_now:?}");
    assert_eq!(json["verdict"], "ok");

    // A minute longer than the check tolerates.
    let at = DateTime::from_millis(DateTime::now().timestamp_millis() - 16 * 60_000);
    let waiting = doc! { "$set": { "rendering.due": at, "rendering.since": at } };
    app.db.collection::<Document>("images").update_one(doc! { "_id": id(&image) }, waiting).await.unwrap();
    let (late, json) = check_workers(&app).await;
    assert!(matches!(&late, Answer::No(seen) if seen.contains("16 min")), "{late:?}");
    assert_eq!(json["verdict"], "warning");
    assert!(json["details"]["remedy"].as_str().unwrap().contains("valet worker"), "{json}");

    assert_eq!(render(&app).await, 1);
    assert_eq!(check_workers(&app).await.0, Answer::Yes("no image waits".to_owned()));
    let without_workers = TestApp::start().await;
    assert!(matches!(check_workers(&without_workers).await.0, Answer::Skipped(_)), "PREVIEWS is off");
}

/// The store lets workers read the images and write no pictures, so that each attempt postpones its image by a minute.
#[tokio::test(flavor = "multi_thread")]
async fn wait_of_an_image_is_measured_from_its_request_despite_outages() {
    if skip_unless_local_s3() {
        return;
    }
    let app = start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let at = DateTime::from_millis(DateTime::now().timestamp_millis() - 16 * 60_000);
    let requested = doc! { "$set": { "rendering.since": at } };
    app.db.collection::<Document>("images").update_one(doc! { "_id": id(&image) }, requested).await.unwrap();
    let relay = relay_s3(&app, |request| async move {
        let is_picture = request.path().contains("-w640");
        if is_picture && request.parts.method == "PUT" { empty_answer(403) } else { request.forward().await }
    });
    let relay = relay.await;
    let server = TestApp::start_second_server(&app, |config| {
        use_workers(config);
        config.s3.endpoint = Some(relay.parse().unwrap());
    });
    let server = server.await;
    assert_eq!(render_after(&server, &renderer(), Duration::ZERO).await, 0);
    let found = rendering_of(&app, id(&image)).await;
    assert!(found.get_datetime("due").unwrap() > &DateTime::now(), "postponed: {found}");
    let (late, _) = check_workers(&app).await;
    assert!(matches!(&late, Answer::No(seen) if seen.contains("16 min")), "{late:?}");

    let worker = settings(&server).with("ADMIN_BIND", "127.0.0.1:0").run(&["worker"]);
    let address = metrics_address(&worker).await;
    eventually("the metric counts from the request", async || {
        let metrics = app.http.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
        let lag = metrics.lines().find_map(|line| line.strip_prefix("valet_preview_lag_seconds ")).unwrap_or("0");
        lag.parse::<f64>().unwrap() > 900.0
    })
    .await;
    worker.signal("-TERM");
    assert!(worker.wait_for_end(Duration::from_secs(60)).await.status.success());
    assert_eq!(render_after(&app, &renderer(), Duration::from_secs(600)).await, 1);
    assert_eq!(check_workers(&app).await.0, Answer::Yes("no image waits".to_owned()));
}
