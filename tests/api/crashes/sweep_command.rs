//! Kills `valet sweep` after each of its calls.
//!
//! Commands: valet sweep.

use super::{
    ABORTED, CONVERGED, CRASHES, Caller, DateTime, Document, Duration, ExitStatusExt, Fuse, LANES, TestApp, converge, doc,
    join_all, sent, sent_in_parts, unique_png,
};

/// Creates one of each thing that a sweep handles, due now; returns its id and its final state.
async fn left_behind(ada: &Caller<'_>) -> Vec<(String, &'static str)> {
    let app = ada.app;
    let html = [b"<html>", &uuid::Uuid::new_v4().as_bytes()[..]].concat();
    let (came, wrong) = (sent(ada, unique_png()).await, sent(ada, html).await);
    let missing = ada.open_upload("a.png", "image/png", &unique_png()).await;
    // A repeated PUT after a delete.
    let bytes = unique_png();
    let deleted = sent(ada, bytes.clone()).await;
    assert_eq!(ada.delete(&format!("/api/images/{}", deleted.id())).await.status, 204);
    assert_eq!(app.put(&deleted.json["upload"], bytes).await, 200);
    let in_parts = sent_in_parts(ada).await;
    let ends = vec![
        (came.id().to_owned(), "ready"),
        (wrong.id().to_owned(), "gone"),
        (missing.id().to_owned(), "gone"),
        (deleted.id().to_owned(), "gone"),
        (in_parts, "ready"),
    ];
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 2 * 3_600_000);
    let ids: Vec<_> = ends.iter().map(|(id, _)| id.as_str()).collect();
    let over = doc! { "$set": { "urlsDieAt": past, "expiresAt": past, "due": past } };
    app.db.collection::<Document>("images").update_many(doc! { "_id": { "$in": ids } }, over).await.unwrap();
    // A server died between the two writes that open an upload.
    let hold = doc! { "image": uuid::Uuid::now_v7().to_string(), "bytes": 500_i64, "at": past };
    let stray = doc! { "$push": { "opening": hold }, "$inc": { "usedBytes": 500_i64, "pending": 1_i64 } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, stray).await.unwrap();
    ends
}

/// Number of sweeps that share a database and a bucket: each audit reads everything that the earlier ones left.
const AMONG_THEMSELVES: u32 = 8;

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
        for _ in 0..AMONG_THEMSELVES {
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

/// Kills a sweep after so many calls and lets other sweeps finish. Returns whether it ended before the kill.
async fn killed_after(calls: u32, ada: &Caller<'_>) -> bool {
    let _turn = CRASHES.acquire().await.unwrap();
    let (app, fuse) = (ada.app, Fuse::new());
    let ends = left_behind(ada).await;
    fuse.set(calls);
    let process = fuse.settings(app).run(&["sweep"]);
    let (status, stdout, log) = process.end(Duration::from_secs(60)).await;
    fuse.remove();
    assert!(status.success() || status.signal() == Some(ABORTED), "{status} {stdout} {log}");
    converge(app, CONVERGED).await;
    app.audit().await;
    // An interrupted completion is examined when it can no longer write the key. So is a copy; its tombstone waits as long once
    // more.
    for times in [1, 2] {
        converge(app, CONVERGED + (2 * Duration::from_secs(40 + 900)) * times).await;
        app.audit().await;
    }
    for (id, end) in &ends {
        assert_eq!(app.db_state(id).await, *end, "killed after {calls} calls");
    }
    status.success()
}
