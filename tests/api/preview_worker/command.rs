//! Covers `valet worker` as a process: settings that it rejects, its metrics, its stop, and a kill after each of its calls to
//! MongoDB and S3.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use serde_json::Value;

use super::{
    super::{
        app::{TestApp, eventually, unique_png},
        crashes::{ABORTED, CRASHES, Fuse},
        process_client::Process,
        serve::Settings,
    },
    id, read, render_after, renderer, rendering_of, start, unique_jpeg,
};
use crate::process_client::Ended;

/// Waits until a process serves its metrics; returns their address.
pub(super) async fn metrics_address(process: &Process) -> String {
    let address = process.wait_for(|process| {
        process.err().lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "metrics are at /metrics").then(|| line["address"].as_str().map(str::to_owned))?
        })
    });
    address.await
}

/// Returns the settings of a worker.
pub(super) fn settings(app: &TestApp) -> Settings {
    Settings::for_app(app).with("PREVIEWS", "worker")
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_makes_previews_until_it_is_stopped() {
    let app = start().await;
    let ada = app.user().await;
    let process = settings(&app).with("ADMIN_BIND", "127.0.0.1:0").run(&["worker"]);
    let address = metrics_address(&process).await;
    let image = ada.upload("a.jpg", "image/jpeg", &unique_jpeg(800, 600)).await;
    eventually("the image has previews", async || read(&ada, id(&image)).await["previews"].is_array()).await;
    eventually("the attempt is counted", async || {
        let metrics = app.http.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
        metrics.contains("valet_preview_attempts_total{outcome=\"made\"} 1")
    })
    .await;
    assert_eq!(app.http.get(format!("http://{address}/readyz")).send().await.unwrap().status(), 200);
    process.signal("-TERM");
    let Ended { status, err, .. } = process.wait_for_end(Duration::from_secs(60)).await;
    assert!(status.success() && !err.contains("panicked"), "{status} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_without_its_settings_does_not_start() {
    let app = TestApp::start().await;
    for (settings, named) in [
        (Settings::for_app(&app), "PREVIEWS"),
        (settings(&app).with("PREVIEW_HEIF_COMMAND", "/no/such/command"), "PREVIEW_HEIF_COMMAND"),
    ] {
        let Ended { status, err, .. } = settings.run(&["worker"]).wait_for_end(Duration::from_secs(30)).await;
        assert!(status.code() == Some(1) && err.contains(named), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_at_every_call_loses_no_preview() {
    let _permit = CRASHES.acquire().await.unwrap();
    let app = start().await;
    let ada = app.user().await;
    let (fuse, mut image_ids) = (Fuse::new(), Vec::new());
    let settings = fuse.settings(&app).with("PREVIEWS", "worker");
    // The first eight calls connect to MongoDB and S3.
    let mut calls = 8;
    loop {
        let (image, other) =
            (ada.upload("a.png", "image/png", &unique_png()).await, ada.upload("b.png", "image/png", &unique_png()).await);
        calls += 1;
        fuse.set(calls);
        let Ended { status, out, err } = settings.run(&["worker", "--once"]).wait_for_end(Duration::from_secs(60)).await;
        fuse.remove();
        assert!(status.success() || status.signal() == Some(ABORTED), "{status} {out} {err}");
        assert_eq!(ada.delete(&format!("/api/images/{}", id(&other))).await.status, 204);
        image_ids.push(id(&image).to_owned());
        if status.success() {
            break;
        }
        assert!(calls < 150, "the command ends after a bounded number of calls");
    }
    assert!(calls > 15, "{calls} calls: the failpoint was never reached");
    render_after(&app, &renderer(), Duration::from_secs(3600)).await;
    app.sweep_to_the_end().await;
    app.audit().await;
    for image in &image_ids {
        assert!(!rendering_of(&app, image).await.contains_key("due"));
        let preview = read(&ada, image).await["previewUrl"].as_str().unwrap().to_owned();
        assert_eq!(app.http.get(preview).send().await.unwrap().status(), 200);
    }
}
