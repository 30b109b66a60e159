//! Covers `valet passwd`, as an operator runs it.
//!
//! Commands: valet passwd.

use std::process::{ExitStatus, Stdio};

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{
    app::{PASSWORD, TestApp},
    serve::Settings,
};

/// Runs `valet passwd` with these settings and `line` as its standard input; returns its exit status and output.
pub async fn passwd_with(settings: &Settings, email: &str, line: &str) -> (ExitStatus, String) {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_valet"))
        .args(["passwd", email])
        .envs(settings.0.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // The write fails if the program is killed before it reads.
    let _ = child.stdin.take().unwrap().write_all(line.as_bytes()).await;
    let done = child.wait_with_output().await.unwrap();
    (done.status, String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap())
}

/// Runs `valet passwd` on this application's database; returns whether it succeeded, and its output.
async fn passwd(app: &TestApp, email: &str, line: &str) -> (bool, String) {
    let (status, written) = passwd_with(&Settings::for_app(app).with("LOG_FORMAT", "text"), email, line).await;
    (status.success(), written)
}

#[tokio::test]
async fn a10_operator_sets_a_password_and_every_session_ends() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let log_in = async |password: &str| {
        let answer = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": password })).await;
        (answer.status, answer.json["refreshToken"].as_str().unwrap_or_default().to_owned())
    };
    let (_, token) = log_in(PASSWORD).await;
    let assert_rejected = async |email: &str, line: &str, expected: &str| {
        let (success, message) = passwd(&app, email, line).await;
        assert!(!success && message.contains(expected), "{message}");
    };
    assert_rejected("nobody@example.com", "seven green kites\n", "no account has this email address").await;
    assert_rejected("nobody", "seven green kites\n", "not an email address").await;
    assert_rejected(&ada.email, "short\n", "at least 12 characters").await;
    assert_rejected(&ada.email, "", "at least 12 characters").await;
    assert_eq!(log_in(PASSWORD).await.0, 200);

    let (success, message) = passwd(&app, &ada.email.to_uppercase(), "seven green kites\n").await;
    assert!(success, "{message}");
    assert!(!message.contains("seven green"), "{message}");
    assert_eq!((log_in(PASSWORD).await.0, log_in("seven green kites").await.0), (401, 200));
    let refresh = app.anonymous().post("/api/auth/refresh", json!({ "refreshToken": token })).await;
    assert_eq!(refresh.problem(), (401, "session_ended"));
}
