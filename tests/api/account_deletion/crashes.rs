//! Kills servers during the deletion of an account: at every await point, and after every call of a real process.

use std::{future::poll_fn, os::unix::process::ExitStatusExt, pin::pin, task::Poll};

use super::{
    Caller, Document, Duration, OffsetDateTime, PASSWORD, TestApp, assert_forgotten, assert_nothing_is_left, delete_account, doc,
    fill, join_all, json, later, live_documents, sweep_all, unique_png,
};
use crate::crashes::{ABORTED, CRASHES, Fuse, LANES};
use crate::process_client::Ended;

/// Polls a future at most this many times, then drops it, like a crash at that point. Returns its output if it ended before.
async fn poll_at_most<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut polls_left = polls;
    poll_fn(move |context| {
        if polls_left == 0 {
            return Poll::Ready(None);
        }
        polls_left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn sweeper_may_die_at_every_await_point() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    fill(&app, &ada).await;
    assert_eq!(delete_account(&ada, PASSWORD).await.status, 204);
    let mut now = OffsetDateTime::now_utc();
    let mut crashes = 0;
    // Each round is polled a little further, until one finishes with nothing left to do.
    for polls in 1.. {
        match poll_at_most(app.app.valet.sweeper.sweep_once(now), polls).await {
            Some(Ok(round)) if !round.may_have_more && live_documents(&app, &ada.id).await.is_empty() => break,
            Some(_) => {}
            None => crashes += 1,
        }
        // Records that the dropped sweeper claimed are due again after their lease of 120 s.
        now += Duration::from_secs(121);
        assert!(polls < 2000, "the deletion ends within 2000 sweeps");
    }
    assert!(crashes >= 10, "{crashes}");
    sweep_all(&app, later() + (now - OffsetDateTime::now_utc())).await;
    assert_forgotten(&app, &ada.id).await;
}

#[tokio::test]
async fn deletion_request_is_all_or_nothing_wherever_its_server_dies() {
    let app = TestApp::start().await;
    let client = valet::domain::throttle::ClientInfo { address: "127.0.0.1".parse().unwrap(), device: None };
    let (mut claimed, mut untouched) = (0, 0);
    for polls in (1..40).step_by(2) {
        let ada = app.user().await;
        ada.upload("mine.png", "image/png", &unique_png()).await;
        let now = OffsetDateTime::now_utc();
        let caller = app.app.valet.sessions.authenticate(ada.token.as_ref().unwrap(), now).await.unwrap();
        let done = poll_at_most(app.app.valet.account_deletion.delete_account(caller, Some(PASSWORD), &client, now), polls).await;
        // A command that the driver has sent may still be applied, at the latest between two equal reads.
        let read = async || app.db.collection::<Document>("users").find_one(doc! { "_id": &ada.id }).await.unwrap().unwrap();
        let (user, login) = loop {
            let before = read().await.contains_key("deletedAt");
            tokio::time::sleep(Duration::from_millis(100)).await;
            let login = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await.status;
            let user = read().await;
            if user.contains_key("deletedAt") == before {
                break (user, login);
            }
        };
        if user.contains_key("deletedAt") {
            claimed += 1;
            assert!(["email", "emailKey", "passwordHash"].iter().all(|field| !user.contains_key(field)), "{user}");
            assert_eq!(login, 401);
            sweep_all(&app, OffsetDateTime::now_utc()).await;
            assert_nothing_is_left(&app, &ada.id).await;
            assert_eq!(ada.get("/api/auth/me").await.problem(), (401, "session_ended"));
        } else {
            untouched += 1;
            assert!(done.is_none());
            assert_eq!((login, ada.get("/api/images/gallery").await.json["images"].as_array().unwrap().len()), (200, 1));
        }
    }
    assert!(claimed > 0 && untouched > 0, "{claimed} claimed, {untouched} untouched");
}

/// Returns a user who has a ready image and an upload whose bytes are in the store.
async fn user_with_images(app: &TestApp) -> Caller<'_> {
    let ada = app.user().await;
    ada.upload("mine.png", "image/png", &unique_png()).await;
    let sent = unique_png();
    let ticket = ada.open_upload("mine.png", "image/png", &sent).await;
    assert_eq!(app.put(&ticket.json["upload"], sent).await, 200);
    ada
}

/// A real server is killed after each of its calls to MongoDB: the account is either unchanged or marked for deletion.
#[tokio::test(flavor = "multi_thread")]
async fn d9_f13_killed_at_every_call_of_a_deletion() {
    let app = TestApp::start().await;
    let fuse = Fuse::new();
    let settings = fuse.settings(&app);
    let (mut calls, mut unchanged, mut busy) = (1, 0, 0);
    loop {
        let ada = user_with_images(&app).await;
        let (process, mut client) = settings.start_listening().await;
        client.token = ada.token.clone();
        fuse.set(calls);
        let request = client.http.post(format!("{}/api/auth/me/delete", client.base)).bearer_auth(ada.token.as_ref().unwrap());
        let answer = request.json(&json!({ "password": PASSWORD })).send().await;
        fuse.remove();
        if let Ok(answer) = &answer
            && matches!(answer.status().as_u16(), 503 | 504)
            && busy < 10
        {
            // MongoDB did not answer in time: the same call is tried again, with another user.
            busy += 1;
            continue;
        }
        if let Ok(answer) = &answer {
            assert_eq!(answer.status(), 204);
            // The process's own sweep may be in progress.
            drop(process);
        } else {
            let Ended { status, err: log, .. } = process.wait_for_end(Duration::from_secs(30)).await;
            assert_eq!(status.signal(), Some(ABORTED), "{log}");
        }
        if ada.get("/api/images/gallery").await.status == 200
            && app.app.valet.sweeper.sweep_once(OffsetDateTime::now_utc()).await.is_ok()
        {
            let user = app.db.collection::<Document>("users").find_one(doc! { "_id": &ada.id }).await.unwrap();
            if user.is_some_and(|user| !user.contains_key("deletedAt")) {
                unchanged += 1;
                assert_eq!(ada.get("/api/images/gallery").await.json["images"].as_array().unwrap().len(), 1);
                assert_eq!(delete_account(&ada, PASSWORD).await.status, 204, "a repeated request succeeds");
            }
        }
        sweep_all(&app, OffsetDateTime::now_utc()).await;
        // The leases (120 s) of the killed server have ended by then.
        sweep_all(&app, OffsetDateTime::now_utc() + Duration::from_secs(180)).await;
        assert_nothing_is_left(&app, &ada.id).await;
        app.audit().await;
        if answer.is_ok() {
            break;
        }
        calls += 1;
        assert!(calls < 50, "the command ends after a bounded number of calls");
    }
    assert!(calls > 4 && unchanged > 1, "{calls} calls; after {unchanged} of them the account was unchanged");
}

/// The command `valet sweep` is killed after each of its calls while it finishes a deletion.
#[tokio::test(flavor = "multi_thread")]
async fn d9_f13_killed_at_every_call_of_the_sweep_that_finishes_it() {
    let calls = join_all((1..=LANES).map(kill_sweeps_in_lane)).await.into_iter().min().unwrap();
    assert!(calls > 15, "{calls} calls: the failpoint was never reached");
}

/// Kills sweeps after `first`, `first + LANES`, `first + 2 * LANES` … calls. Returns the number after which a sweep had ended.
async fn kill_sweeps_in_lane(first: u32) -> u32 {
    let app = TestApp::start().await;
    let fuse = Fuse::new();
    let settings = fuse.settings(&app);
    let mut calls = first;
    loop {
        let _permit = CRASHES.acquire().await.unwrap();
        let ada = user_with_images(&app).await;
        assert_eq!(delete_account(&ada, PASSWORD).await.status, 204);
        fuse.set(calls);
        let Ended { status, out: stdout, err: log } = settings.run(&["sweep"]).wait_for_end(Duration::from_secs(60)).await;
        fuse.remove();
        assert!(status.success() || status.signal() == Some(ABORTED), "{status} {stdout} {log}");
        sweep_all(&app, OffsetDateTime::now_utc()).await;
        sweep_all(&app, OffsetDateTime::now_utc() + Duration::from_secs(180)).await;
        assert_nothing_is_left(&app, &ada.id).await;
        app.audit().await;
        if status.success() {
            return calls;
        }
        calls += LANES;
        assert!(calls < 100, "the command ends after a bounded number of calls");
    }
}
