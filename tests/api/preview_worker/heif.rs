//! Covers HEIC and AVIF, which the operator's command (`PREVIEW_HEIF_COMMAND`) decodes for a worker: pictures, names of failures,
//! and images that failed before there was a command. libheif's commands are in Debian's package libheif-examples.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    super::{
        app::{TestApp, eventually, fixture, unique_png},
        heif_commands::{libheif, script},
        serve::Settings,
        skipping::skip,
    },
    CancellationToken, Document, Duration, Value,
    attempts::attempts_until_failure,
    doc, id, read, render, render_after, renderer, rendering_of, start, unique_jpeg,
};
use crate::process_client::Ended;

/// Returns the settings of a worker with this command.
fn settings(app: &TestApp, command: &Path) -> Settings {
    Settings::for_app(app).with("PREVIEWS", "worker").with("PREVIEW_HEIF_COMMAND", command.to_str().unwrap())
}

/// Makes the previews that are due with `valet worker --once` and this command.
async fn work_once(app: &TestApp, command: &Path) {
    let Ended { status, out, err } =
        settings(app, command).run(&["worker", "--once"]).wait_for_end(Duration::from_secs(120)).await;
    assert!(status.success(), "{status} {out} {err}");
}

/// Returns the widths and heights of an image's previews.
fn sizes(image: &Value) -> Vec<(u64, u64)> {
    let side = |picture: &Value, name: &str| picture[name].as_u64().unwrap();
    let pictures = image["previews"].as_array().into_iter().flatten();
    pictures.map(|picture| (side(picture, "width"), side(picture, "height"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn heic_and_avif_have_both_pictures() {
    let Some(command) = libheif() else {
        return skip("needs libheif's heif-dec or heif-convert");
    };
    let app = start().await;
    let ada = app.user().await;
    let mut images = Vec::new();
    for (name, content_type) in [("large.heic", "image/heic"), ("large.avif", "image/avif")] {
        images.push(id(&ada.upload(name, content_type, &fixture(name)).await).to_owned());
    }
    let process = settings(&app, &command).run(&["worker"]);
    for image in &images {
        eventually("the image has previews", async || read(&ada, image).await["previews"].is_array()).await;
        let found = read(&ada, image).await;
        assert_eq!(sizes(&found), [(640, 480), (800, 600)], "{found}");
        assert!(found["thumbHash"].is_string(), "{found}");
        for preview in found["previews"].as_array().unwrap() {
            let loaded = app.http.get(preview["url"].as_str().unwrap()).send().await.unwrap();
            assert_eq!((loaded.status().as_u16(), loaded.headers()["content-type"].to_str().unwrap()), (200, "image/jpeg"));
        }
    }
    process.signal("-TERM");
    let Ended { status, err, .. } = process.wait_for_end(Duration::from_secs(60)).await;
    assert!(status.success() && !err.contains("panicked"), "{status} {err}");
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_a_command_have_names() {
    let app = start().await;
    let ada = app.user().await;
    let jpeg = std::env::temp_dir().join(format!("valet-other-{}.jpg", uuid::Uuid::new_v4().simple()));
    std::fs::write(&jpeg, unique_jpeg(64, 64)).unwrap();
    let other_picture = format!("cp {} $2", jpeg.display());
    for (command, case) in [
        ("exit 3", "a command that fails"),
        ("exit 0", "no picture"),
        ("echo rubbish > $2", "rubbish"),
        ("cp $1 $2", "no JPEG"),
        (&other_picture, "a picture of another size"),
    ] {
        let image = ada.upload("a.heic", "image/heic", &fixture("plain.heic")).await;
        work_once(&app, &script(command)).await;
        let found = rendering_of(&app, id(&image)).await;
        assert_eq!(found, doc! { "attempts": 1_i64, "failure": "corrupt" }, "{case}");
        assert!(read(&ada, id(&image)).await.get("previews").is_none(), "{case}");
        assert_eq!(ada.delete(&format!("/api/images/{}", id(&image))).await.status, 204);
    }
    std::fs::remove_file(jpeg).unwrap();
    // Each attempt ends at its deadline: 2 s here, 30 s in a worker.
    let image = ada.upload("a.heic", "image/heic", &fixture("plain.heic")).await;
    let hanging = renderer().with_heif_command(script("exec sleep 600")).with_deadline(Duration::from_secs(2));
    assert_eq!(attempts_until_failure(&app, id(&image), &hanging).await, (4, "crashed".to_owned()));
    // A command that cannot be executed does not use up an attempt.
    let image = ada.upload("b.heic", "image/heic", &fixture("iphone.heic")).await;
    render_after(&app, &renderer().with_heif_command("/no/such/command".into()), Duration::ZERO).await;
    let found = rendering_of(&app, id(&image)).await;
    assert!(found.get_i64("attempts").unwrap() == 0 && found.contains_key("due"), "{found}");
    app.sweep_to_the_end().await;
    app.audit().await;
}

/// A worker with a command tries each image once more that failed without one.
#[tokio::test(flavor = "multi_thread")]
async fn images_that_waited_for_a_command_are_tried_again_once() {
    let app = start().await;
    let ada = app.user().await;
    let heic = ada.upload("a.heic", "image/heic", &fixture("plain.heic")).await;
    let avif = ada.upload("b.avif", "image/avif", &fixture("plain.avif")).await;
    let deleted = ada.upload("c.heic", "image/heic", &fixture("iphone.heic")).await;
    let png = ada.upload("d.png", "image/png", &unique_png()).await;
    assert_eq!(render(&app).await, 4);
    assert_eq!(ada.delete(&format!("/api/images/{}", id(&deleted))).await.status, 204);
    // Recorded as if no decoder could read the PNG: a command for HEIF does not help.
    let images = app.db.collection::<Document>("images");
    let unsupported = doc! { "$set": { "rendering.failure": "unsupported" } };
    images.update_one(doc! { "_id": id(&png) }, unsupported).await.unwrap();
    let png_record = rendering_of(&app, id(&png)).await;
    let worker = &app.app.valet.preview_worker;
    let run_until = async |renderer: &super::Renderer, ended: &(dyn Fn(&Document) -> bool + Sync)| {
        let stop = CancellationToken::new();
        let watch = async {
            for image in [&heic, &avif] {
                eventually("the worker has the result", async || ended(&rendering_of(&app, id(image)).await)).await;
            }
            stop.cancel();
        };
        tokio::join!(worker.run_until(renderer, stop.clone()), watch);
    };
    let failed_as =
        |name: &'static str| move |rendering: &Document| rendering.get_str("failure").is_ok_and(|failure| failure == name);

    run_until(&renderer(), &failed_as("unsupported")).await;
    assert_eq!(
        rendering_of(&app, id(&heic)).await,
        doc! { "attempts": 1_i64, "failure": "unsupported" },
        "there is still no command"
    );
    run_until(&renderer().with_heif_command(script("exit 3")), &failed_as("corrupt")).await;
    let after = rendering_of(&app, id(&heic)).await;
    assert_eq!(after, doc! { "attempts": 1_i64, "failure": "corrupt" });
    assert_eq!(worker.queue_conversions().await.unwrap(), 0, "an image that a command failed at is not tried again");
    assert_eq!(rendering_of(&app, id(&png)).await, png_record);
    assert_eq!(app.db_state(id(&deleted)).await, "deleting");
    if let Some(command) = libheif() {
        let unsupported = doc! { "$set": { "rendering.failure": "unsupported" } };
        images.update_many(doc! { "rendering.failure": "corrupt" }, unsupported).await.unwrap();
        run_until(&renderer().with_heif_command(command), &|rendering| rendering.contains_key("written")).await;
        for image in [&heic, &avif] {
            eventually("the image has a picture", async || sizes(&read(&ada, id(image)).await) == [(120, 80)]).await;
            assert_eq!(rendering_of(&app, id(image)).await, doc! { "written": true });
        }
    }
    app.sweep_to_the_end().await;
    app.audit().await;
}

/// A killed process cannot remove its temporary files.
#[tokio::test(flavor = "multi_thread")]
async fn worker_removes_the_images_that_a_killed_one_left_in_temporary_files() {
    let app = start().await;
    let ada = app.user().await;
    let temporary = std::env::temp_dir().join(format!("valet-temporary-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&temporary).unwrap();
    let settings = settings(&app, &script("exec sleep 25")).with("TMPDIR", temporary.to_str().unwrap());
    let images = || -> BTreeSet<PathBuf> {
        let folders = std::fs::read_dir(&temporary).unwrap().map(|folder| folder.unwrap().path());
        folders.map(|folder| folder.join("image.heic")).filter(|image| image.exists()).collect()
    };
    const MESSAGE: &str = "removed temporary files of a worker that was killed";

    ada.upload("a.heic", "image/heic", &fixture("plain.heic")).await;
    let killed = settings.run(&["worker"]);
    eventually("the first worker converts", async || images().len() == 1).await;
    let left = images();
    killed.signal("-KILL");
    killed.wait_for_end(Duration::from_secs(10)).await;
    assert_eq!(images(), left);

    ada.upload("b.heic", "image/heic", &fixture("iphone.heic")).await;
    let second = settings.run(&["worker"]);
    eventually("the second worker converts", async || !images().is_empty() && images().is_disjoint(&left)).await;
    assert!(second.err().contains(MESSAGE), "{}", second.err());
    // The second worker still uses its folder, or has removed it.
    let Ended { status, err, .. } = settings.run(&["worker", "--once"]).wait_for_end(Duration::from_secs(60)).await;
    assert!(status.success() && !err.contains(MESSAGE), "{status} {err}");
    drop(second);
    std::fs::remove_dir_all(temporary).unwrap();
    app.audit().await;
}
