//! Kills `valet sweep` after each of its calls to MongoDB and S3.
//!
//! Commands: valet sweep.

use super::{
    ABORTED, CONVERGED, CRASHES, Caller, DateTime, Document, Duration, ExitStatusExt, Fuse, LANES, TestApp, converge, doc,
    join_all, put_parts, put_upload, unique_png,
};
use crate::process_client::Ended;

/// Creates an upload of each kind that a sweep handles, due now, and a leftover reservation. Returns the uploads' ids and their
/// final states.
async fn left_behind(ada: &Caller<'_>) -> Vec<(String, &'static str)> {
    let app = ada.app;
    let html = [b"<html>", &uuid::Uuid::new_v4().as_bytes()[..]].concat();
    let (received, wrong) = (put_upload(ada, unique_png()).await, put_upload(ada, html).await);
    let missing = ada.open_upload("a.png", "image/png", &unique_png()).await;
    // An image whose bytes are sent again after its deletion.
    let bytes = unique_png();
    let deleted = put_upload(ada, bytes.clone()).await;
    assert_eq!(ada.delete(&format!("/api/images/{}", deleted.id())).await.status, 204);
    assert_eq!(app.put(&deleted.json["upload"], bytes).await, 200);
    let in_parts = put_parts(ada).await;
    let final_states = vec![
        (received.id().to_owned(), "ready"),
        (wrong.id().to_owned(), "gone"),
        (missing.id().to_owned(), "gone"),
        (deleted.id().to_owned(), "gone"),
        (in_parts, "ready"),
    ];
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 2 * 3_600_000);
    let ids: Vec<_> = final_states.iter().map(|(id, _)| id.as_str()).collect();
    let expired = doc! { "$set": { "urlsDieAt": past, "expiresAt": past, "due": past } };
    app.db.collection::<Document>("images").update_many(doc! { "_id": { "$in": ids } }, expired).await.unwrap();
    // The reservation of a server that died between the two writes that open an upload.
    let hold = doc! { "image": uuid::Uuid::now_v7().to_string(), "bytes": 500_i64, "at": past };
    let leftover = doc! { "$push": { "opening": hold }, "$inc": { "usedBytes": 500_i64, "pending": 1_i64 } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, leftover).await.unwrap();
    final_states
}

/// Number of sweeps that share a database and a bucket: each audit reads everything that the earlier sweeps left.
const SWEEPS_PER_BUCKET: u32 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn d2_f13_killed_at_every_call_of_a_sweep() {
    let calls = join_all((1..=LANES).map(kill_in_lane)).await.into_iter().min().unwrap();
    assert!(calls > 40, "{calls} calls: the failpoint was never reached");
}

/// Kills sweeps after `first`, `first + LANES`, `first + 2 * LANES` … calls. Returns the number after which a sweep had ended.
async fn kill_in_lane(first: u32) -> u32 {
    let mut calls = first;
    loop {
        let app = TestApp::start().await;
        let ada = app.user().await;
        let mut has_ended = false;
        for _ in 0..SWEEPS_PER_BUCKET {
            assert!(calls < 200, "the command ends after a bounded number of calls");
            has_ended = killed_after(calls, &ada).await;
            if has_ended {
                break;
            }
            calls += LANES;
        }
        app.sweep_to_the_end().await;
        app.audit().await;
        if has_ended {
            return calls;
        }
    }
}

/// Kills a sweep after `calls` calls and lets other sweeps finish. Returns whether the first sweep ended before the kill.
async fn killed_after(calls: u32, ada: &Caller<'_>) -> bool {
    let _permit = CRASHES.acquire().await.unwrap();
    let (app, fuse) = (ada.app, Fuse::new());
    let final_states = left_behind(ada).await;
    fuse.set(calls);
    let process = fuse.settings(app).run(&["sweep"]);
    let Ended { status, out: stdout, err: log } = process.wait_for_end(Duration::from_secs(60)).await;
    fuse.remove();
    assert!(status.success() || status.signal() == Some(ABORTED), "{status} {stdout} {log}");
    converge(app, CONVERGED).await;
    app.audit().await;
    // An interrupted completion or copy is examined when it can no longer write the key: after its deadline (40 s) and the grace
    // period (900 s), here doubled. The tombstone of a copy waits as long once more.
    for times in [1, 2] {
        converge(app, CONVERGED + (2 * Duration::from_secs(40 + 900)) * times).await;
        app.audit().await;
    }
    for (id, end) in &final_states {
        assert_eq!(app.db_state(id).await, *end, "killed after {calls} calls");
    }
    status.success()
}
