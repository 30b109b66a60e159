//! Servers that die while an account is deleted: at every point where one can wait, and by SIGKILL.

use std::{future::poll_fn, pin::pin, task::Poll};

use super::*;
use crate::serve::Settings;

/// Runs a future until it has been polled so often, then drops it: what a crash at that point leaves.
async fn crashing<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn a_sweeper_may_die_at_every_point_where_it_waits() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    fill(&app, &ada).await;
    assert_eq!(delete_account(&ada, PASSWORD).await.status, 204);
    let mut now = OffsetDateTime::now_utc();
    let mut crashes = 0;
    // Each time a little further than the time before, until one gets to its end with nothing left to do.
    for polls in 1.. {
        match crashing(app.app.valet.sweep_once(now), polls).await {
            Some(Ok((_, false))) if live_documents(&app, &ada.id).await.is_empty() => break,
            Some(_) => {}
            None => crashes += 1,
        }
        // What the dead one had claimed is due again after its lease.
        now += Duration::from_secs(301);
        assert!(polls < 2000, "it does not converge");
    }
    assert!(crashes >= 10, "{crashes}");
    sweep_all(&app, later() + (now - OffsetDateTime::now_utc())).await;
    assert_nothing_is_left(&app, &ada.id).await;
}

#[tokio::test]
async fn the_claim_is_all_or_nothing_wherever_its_server_dies() {
    let app = TestApp::start().await;
    let client = valet::domain::throttle::Client { address: "127.0.0.1".parse().unwrap(), device: None };
    let (mut claimed, mut untouched) = (0, 0);
    for polls in (1..40).step_by(2) {
        let ada = app.user().await;
        ada.upload("mine.png", "image/png", &unique_png()).await;
        let now = OffsetDateTime::now_utc();
        let caller = app.app.valet.authenticate(ada.token.as_ref().unwrap(), now).await.unwrap();
        let done = crashing(app.app.valet.delete_account(caller, Some(PASSWORD), &client, now), polls).await;
        // What the driver has sent may still be applied.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let user = app.db.collection::<Document>("users").find_one(doc! { "_id": &ada.id }).await.unwrap().unwrap();
        let login = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await.status;
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

/// Real processes, killed a little later each time after they were told to delete.
#[tokio::test]
async fn killed_servers_leave_nothing_that_the_next_does_not_finish() {
    let app = TestApp::start().await;
    let settings = Settings::of(&app).but("SWEEP_INTERVAL", "1s").but("RATE_LIMIT", "off");
    let mut deleted = Vec::new();
    for step in 0..8 {
        let ada = app.user().await;
        fill(&app, &ada).await;
        let (process, mut client) = settings.listening().await;
        client.token = ada.token.clone();
        assert_eq!(client.post("/api/auth/me/delete", &json!({ "password": PASSWORD })).await.0, 204);
        tokio::time::sleep(Duration::from_millis(200 * step)).await;
        process.signal("-KILL");
        drop(process);
        deleted.push(ada.id);
    }
    let now = OffsetDateTime::now_utc();
    sweep_all(&app, now).await;
    sweep_all(&app, now + Duration::from_secs(301)).await;
    sweep_all(&app, later()).await;
    for user in deleted {
        assert_nothing_is_left(&app, &user).await;
    }
}
