//! Covers failed attempts of a worker: recorded names of failures, repeated attempts, and outages, which do not count as attempts.

use mongodb::bson::{Bson, DateTime, Document, doc};

use super::{
    super::{
        app::{Caller, TestApp, fixture, skip_unless_local_s3, unique_png},
        relay::{empty_answer, relay_s3},
    },
    Duration, OffsetDateTime, Renderer, id, read, render, render_after, renderer, rendering_of, start, use_workers,
};

/// Renders again and again, 4000 s apart (longer than any delay between attempts), until the image is no longer due; returns the
/// number of attempts and the failure's name.
pub(super) async fn attempts_until_failure(app: &TestApp, image: &str, renderer: &Renderer) -> (i64, String) {
    for round in 0..20 {
        let found = rendering_of(app, image).await;
        if !found.contains_key("due") {
            return (found.get_i64("attempts").unwrap(), found.get_str("failure").unwrap().to_owned());
        }
        render_after(app, renderer, Duration::from_secs(round * 4000)).await;
    }
    panic!("the attempts do not end: {}", rendering_of(app, image).await);
}

/// A damaged time at which an image is due neither hides the image from workers nor keeps it at the head of their queue.
#[tokio::test(flavor = "multi_thread")]
async fn image_whose_due_time_cannot_be_read_gets_previews() {
    let app = start().await;
    let ada = app.user().await;
    let date = Bson::from(DateTime::from_millis(1000));
    for (field, due) in [
        ("rendering.due", Bson::from(DateTime::MIN)),
        ("rendering.due", Bson::Array(vec![date.clone()])),
        ("rendering", Bson::Array(vec![doc! { "due": date, "attempts": 1 }.into()])),
    ] {
        let image = ready(&ada).await;
        let damage = doc! { "$set": { field: &due } };
        app.db.collection::<Document>("images").update_one(doc! { "_id": &image }, damage).await.unwrap();
        assert_eq!(render(&app).await, 1, "{due}");
        assert_eq!(rendering_of(&app, &image).await, doc! { "written": true }, "{due}");
    }
}

/// Uploads a unique image; returns its id.
async fn ready(ada: &Caller<'_>) -> String {
    id(&ada.upload("a.png", "image/png", &unique_png()).await).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_image_has_a_named_failure_at_once() {
    let app = start().await;
    let ada = app.user().await;
    let heic = ada.upload("a.heic", "image/heic", &fixture("plain.heic")).await;
    let mut png = unique_png();
    let pixels = png.windows(4).position(|bytes| bytes == b"IDAT").unwrap() + 4;
    png[pixels..pixels + 8].fill(0xff);
    let corrupt = ada.upload("b.png", "image/png", &png).await;
    assert_eq!(render(&app).await, 2);
    for (image, failure) in [(&heic, "unsupported"), (&corrupt, "corrupt")] {
        assert_eq!(attempts_until_failure(&app, id(image), &renderer()).await, (1, failure.to_owned()));
        let found = read(&ada, id(image)).await;
        assert!(found.get("previews").is_none() && found["url"].is_string(), "{found}");
    }
    assert_eq!(app.bucket_keys().await.len(), 2, "no picture was written");
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashing_decoder_is_tried_four_times() {
    let app = start().await;
    let ada = app.user().await;
    let image = ready(&ada).await;
    // A child that ends with status 1 instead of a result.
    let crashing = Renderer::new("/bin/false".into());
    let (worker, began) = (&app.app.valet.preview_worker, OffsetDateTime::now_utc());
    worker.render_due(&crashing, began).await.unwrap();
    let first = rendering_of(&app, &image).await;
    assert_eq!(first.get_i64("attempts").unwrap(), 1, "{first}");
    assert_eq!(worker.render_due(&crashing, began + Duration::from_secs(20)).await.unwrap(), 0);
    assert_eq!(rendering_of(&app, &image).await, first, "no attempt is made before its time");
    assert_eq!(attempts_until_failure(&app, &image, &crashing).await, (4, "crashed".to_owned()));
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_attempt_may_succeed() {
    let app = start().await;
    let ada = app.user().await;
    let image = ready(&ada).await;
    render_after(&app, &Renderer::new("/bin/false".into()), Duration::ZERO).await;
    assert_eq!(render_after(&app, &renderer(), Duration::from_secs(60)).await, 1);
    assert!(read(&ada, &image).await["previewUrl"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_object_is_a_named_failure() {
    let app = start().await;
    let ada = app.user().await;
    let image = ready(&ada).await;
    let key = app.db_image(&image).await.unwrap().get_str("key").unwrap().to_owned();
    app.s3.delete_object().bucket(&app.config.s3.bucket).key(key).send().await.unwrap();
    assert_eq!(attempts_until_failure(&app, &image, &renderer()).await, (4, "missing".to_owned()));
}

/// The store cannot read one object, such as one on a broken disk, while the bucket answers.
#[tokio::test(flavor = "multi_thread")]
async fn object_that_a_working_store_cannot_read_is_a_named_failure() {
    if skip_unless_local_s3() {
        return;
    }
    for status in [403, 500, 503] {
        let app = start().await;
        let ada = app.user().await;
        let image = ready(&ada).await;
        for is_outage in [true, false] {
            // Each request has a slash in its path.
            let path = if is_outage { "/".to_owned() } else { image.clone() };
            let relay = relay_s3(&app, move |request| {
                let fails = request.path().contains(&path) && matches!(request.parts.method.as_str(), "GET" | "HEAD");
                async move { if fails { empty_answer(status) } else { request.forward().await } }
            });
            let relay = relay.await;
            let server = TestApp::start_second_server(&app, |config| {
                use_workers(config);
                config.s3.endpoint = Some(relay.parse().unwrap());
            });
            let server = server.await;
            if is_outage {
                render_after(&server, &renderer(), Duration::from_secs(60)).await;
                let found = rendering_of(&app, &image).await;
                assert!(found.get_i64("attempts").unwrap() == 0 && found.contains_key("due"), "{status}: {found}");
            } else {
                assert_eq!(attempts_until_failure(&server, &image, &renderer()).await, (4, "unreadable".to_owned()), "{status}");
            }
        }
    }
}

/// Neither a worker that cannot start children nor a store that fails uses up an image's attempts.
#[tokio::test(flavor = "multi_thread")]
async fn outages_do_not_count_as_attempts() {
    if skip_unless_local_s3() {
        return;
    }
    let app = start().await;
    let ada = app.user().await;
    let image = ready(&ada).await;
    let relay = relay_s3(&app, |request| async move {
        if request.parts.method == "PUT" { empty_answer(503) } else { request.forward().await }
    });
    let relay = relay.await;
    let broken = TestApp::start_second_server(&app, |config| {
        use_workers(config);
        config.s3.endpoint = Some(relay.parse().unwrap());
    });
    let broken = broken.await;
    let no_program = Renderer::new("/no/such/program".into());
    for round in 0..3 {
        let after = Duration::from_secs(round * 4000);
        render_after(&app, &no_program, after).await;
        render_after(&broken, &renderer(), after + Duration::from_secs(2000)).await;
    }
    let found = rendering_of(&app, &image).await;
    assert!(found.get_i64("attempts").unwrap() == 0 && found.contains_key("due"), "{found}");
    assert_eq!(render_after(&app, &renderer(), Duration::from_secs(40_000)).await, 1);
    assert!(read(&ada, &image).await["previewUrl"].is_string());
    app.audit().await;
}

/// While the worker writes a picture, its lease ends and another worker claims the image.
#[tokio::test(flavor = "multi_thread")]
async fn worker_whose_lease_has_ended_records_nothing() {
    if skip_unless_local_s3() {
        return;
    }
    let app = start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let images = app.db.collection::<Document>("images");
    let later_lease_end = DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000);
    let image_id = id(&image).to_owned();
    let relay = relay_s3(&app, move |request| {
        let (images, image_id) = (images.clone(), image_id.clone());
        async move {
            if request.parts.method == "PUT" && request.path().contains("-w640") {
                let claim = doc! { "$set": { "rendering.due": later_lease_end } };
                images.update_one(doc! { "_id": image_id }, claim).await.unwrap();
            }
            request.forward().await
        }
    });
    let relay = relay.await;
    let slow = TestApp::start_second_server(&app, |config| {
        use_workers(config);
        config.s3.endpoint = Some(relay.parse().unwrap());
    });
    render(&slow.await).await;
    let record = app.db_image(id(&image)).await.unwrap();
    assert_eq!(record.get_document("rendering").unwrap().get_datetime("due").unwrap(), &later_lease_end, "{record}");
    assert!(!record.contains_key("pictures"), "{record}");
    assert_eq!(render_after(&app, &renderer(), Duration::from_secs(3700)).await, 1);
    assert!(read(&ada, id(&image)).await["previewUrl"].is_string());
}
