//! `valet passwd`: the program itself, as an operator runs it.

use std::process::Stdio;

use secrecy::ExposeSecret;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::app::{PASSWORD, TestApp};

/// Runs `valet passwd` with `line` as its standard input: its success and all it said.
async fn passwd(app: &TestApp, email: &str, line: &str) -> (bool, String) {
    let s3 = &app.config.s3;
    let keys = s3.credentials.as_ref().unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_valet"))
        .args(["passwd", email])
        .env("MONGODB_URI", app.config.mongo.uri.expose_secret())
        .env("MONGODB_DATABASE", &app.config.mongo.database)
        .env("S3_BUCKET", &s3.bucket)
        .env("S3_ENDPOINT", s3.endpoint.as_ref().unwrap())
        .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.expose_secret())
        .env("JWT_SECRET", app.config.tokens.secret.expose_secret())
        .env("LOG_FORMAT", "text")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(line.as_bytes()).await.unwrap();
    let done = child.wait_with_output().await.unwrap();
    (done.status.success(), String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap())
}

#[tokio::test]
async fn a10_the_operator_sets_a_password_and_every_session_ends() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let log_in = async |password: &str| {
        let answer = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": password })).await;
        (answer.status, answer.json["refreshToken"].as_str().unwrap_or_default().to_owned())
    };
    let (_, token) = log_in(PASSWORD).await;
    let refused = async |email: &str, line: &str, says: &str| {
        let (success, said) = passwd(&app, email, line).await;
        assert!(!success && said.contains(says), "{said}");
    };
    refused("nobody@example.com", "seven green kites\n", "no account has this email address").await;
    refused("nobody", "seven green kites\n", "not an email address").await;
    refused(&ada.email, "short\n", "at least 12 characters").await;
    refused(&ada.email, "", "at least 12 characters").await;
    assert_eq!(log_in(PASSWORD).await.0, 200);

    let (success, said) = passwd(&app, &ada.email.to_uppercase(), "seven green kites\n").await;
    assert!(success, "{said}");
    assert!(!said.contains("seven green"), "{said}");
    assert_eq!((log_in(PASSWORD).await.0, log_in("seven green kites").await.0), (401, 200));
    let refresh = app.anonymous().post("/api/auth/refresh", json!({ "refreshToken": token })).await;
    assert_eq!(refresh.problem(), (401, "session_ended"));
}
