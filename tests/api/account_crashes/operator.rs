//! Kills `valet passwd` after each of its calls to MongoDB.
//!
//! Commands: valet passwd.

use super::{ABORTED, ExitStatusExt, Fuse, NEW_PASSWORD, PASSWORD, Scene, TestApp, json, log_in, post};
use crate::passwd::passwd_with;

#[tokio::test(flavor = "multi_thread")]
async fn f13_killed_at_every_call_of_valet_passwd() {
    let app = TestApp::start().await;
    let fuse = Fuse::new();
    let settings = fuse.settings(&app);
    let (mut before, mut after) = (0, 0);
    for calls in 1.. {
        assert!(calls < 50, "the command ends after a bounded number of calls");
        let scene = Scene::new(&app).await;
        fuse.set(calls);
        let (status, output) = passwd_with(&settings, &scene.email, NEW_PASSWORD).await;
        fuse.remove();
        assert!(status.success() || status.signal() == Some(ABORTED), "{status} {output}");
        let happened = log_in(&app, &scene.email, NEW_PASSWORD).await.status == 200;
        assert_eq!(log_in(&app, &scene.email, PASSWORD).await.status == 200, !happened, "exactly one password is valid");
        for sign_in in [&scene.own, &scene.other] {
            match happened {
                true => sign_in.assert_ended("setting a password ended every session").await,
                false => assert!(sign_in.is_alive().await, "nothing has happened"),
            }
        }
        if status.success() {
            assert!(happened, "{output}");
            break;
        }
        *(if happened { &mut after } else { &mut before }) += 1;
        let (again, output) = passwd_with(&settings, &scene.email, NEW_PASSWORD).await;
        assert!(again.success(), "{output}");
        assert_eq!(log_in(&app, &scene.email, NEW_PASSWORD).await.status, 200);
        let refresh = post(&app, "/api/auth/refresh", json!({ "refreshToken": scene.own.refresh })).await;
        assert_eq!(refresh.problem(), (401, "session_ended"), "the session has ended after the repeat too");
    }
    assert!(before > 2 && after > 0, "{before} before, {after} after");
}
