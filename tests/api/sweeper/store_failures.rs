//! Covers failures of the store: the sweeper distinguishes those of one object from an outage, and rejects no upload for an outage.

use super::*;
use crate::relay::{empty_answer, relay_s3};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Starts a second server, whose store answers with the status that `status` returns for a path, and as usual if that is `None`.
async fn start_on_failing_store(app: &TestApp, status: impl Fn(&str) -> Option<u16> + Clone + Send + Sync + 'static) -> TestApp {
    let endpoint = relay_s3(app, move |request| {
        let status = status(request.path());
        async move {
            match status {
                Some(status) => empty_answer(status),
                None => request.forward().await,
            }
        }
    })
    .await;
    TestApp::start_second_server(app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await
}

/// Returns the number of failed sweeps in the image's record.
async fn failures(app: &TestApp, id: &str) -> i64 {
    app.db_image(id).await.unwrap().get_i64("sweepFailures").unwrap_or(0)
}

/// An operator may mend the rights to an object within a week. An outage may last longer.
#[tokio::test]
async fn an_upload_is_rejected_for_a_lasting_failure_of_its_own_and_never_for_an_outage() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut uploads = Vec::new();
    for status in [403, 500, 503] {
        uploads.push((ada.open_upload("a.png", "image/png", &unique_png()).await.id().to_owned(), status));
    }
    let statuses = uploads.clone();
    let status_of = move |path: &str| statuses.iter().find(|(id, _)| path.contains(id)).map(|(_, status)| *status);
    let second_server = start_on_failing_store(&app, status_of).await;
    // The week begins when the upload has expired and the grace period has ended.
    for (waited, rejected) in [(25 * HOUR, 0), (WEEK, 0), (WEEK + 26 * HOUR, 1)] {
        let swept = second_server.sweep(after(waited)).await;
        assert_eq!((swept.rejected, swept.failed), (rejected, 3 - rejected), "after {waited:?}: {swept:?}");
    }
    for (id, status) in &uploads {
        let state = if *status == 403 { "rejected" } else { "pending" };
        assert_eq!(app.db_state(id).await, state, "{status}");
    }
}

/// The store rejects every call, also those to the bucket itself.
#[tokio::test]
async fn an_outage_of_the_store_makes_no_image_stuck_and_rejects_none() {
    for status in [403, 503] {
        let app = TestApp::start().await;
        let ada = app.user().await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(ada.open_upload("a.png", "image/png", &unique_png()).await.id().to_owned());
        }
        // The name of a test's bucket begins with `t-`.
        let second_server = start_on_failing_store(&app, move |path| path.contains("/t-").then_some(status)).await;
        for waited in [25 * HOUR, WEEK + 26 * HOUR] {
            let swept = second_server.sweep(after(waited)).await;
            assert_eq!((swept.failed, swept.rejected), (2, 0), "{status}: {swept:?}");
        }
        for id in &ids {
            assert_eq!((app.db_state(id).await.as_str(), failures(&app, id).await), ("pending", 0), "{status}");
        }
    }
}
