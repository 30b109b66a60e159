//! Covers `valet serve` as a process: start, error messages, stop, and contents of its logs. All modules that start a process get
//! its settings from [`Settings::for_app`] here.
//!
//! Routes: GET /livez, GET /readyz.
//! Commands: valet serve.

mod audit;
mod clock;
mod credentials;
mod environment;
mod metrics;
mod secrets;
mod stopping;
mod tracing;

use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use valet::dev::mongod::{Mongod, MongodOptions};

pub use super::process_client::Settings;
use super::{
    app::{JWT_SECRET, TestApp},
    dev_mongod::within,
    process_client::{Client, Ended, Process, listening_at},
};

impl Settings {
    /// Returns the settings of a server on this application's database and bucket.
    pub fn for_app(app: &TestApp) -> Self {
        let (s3, keys) = (&app.config.s3, app.config.s3.credentials.as_ref().unwrap());
        Self(vec![
            ("BIND", "127.0.0.1:0".to_owned()),
            ("MONGODB_URI", app.config.mongo.uri.expose_secret().to_owned()),
            ("MONGODB_DATABASE", app.config.mongo.database.clone()),
            ("S3_BUCKET", s3.bucket.to_string()),
            ("S3_ENDPOINT", s3.endpoint.as_deref().unwrap().to_owned()),
            ("S3_FORCE_PATH_STYLE", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", keys.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.expose_secret().to_owned()),
            // Without keys, the AWS SDK would look for those of an instance.
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("JWT_SECRET", JWT_SECRET.to_owned()),
        ])
    }

    /// Starts the server with these settings.
    fn start(&self) -> Process {
        self.run(&["serve"])
    }

    /// Starts a server and waits until it listens.
    pub async fn start_listening(&self) -> (Process, Client) {
        let process = self.start();
        let address = process.wait_for(|process| listening_at(&process.err())).await;
        (process, Client::at(format!("http://{address}")))
    }

    /// Returns the single error message of a process that must fail within 15 s.
    pub async fn start_error(&self) -> String {
        let began = Instant::now();
        let Ended { status, out, err } = self.start().wait_for_end(Duration::from_secs(20)).await;
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}: {err}", began.elapsed());
        assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
        let messages: Vec<_> = err.lines().filter(|line| line.starts_with("valet: ")).collect();
        assert_eq!(messages.len(), 1, "{err}");
        assert!(!err.contains("canary") && !err.contains("panicked"), "{err}");
        err
    }
}

#[tokio::test]
async fn o2_every_missing_setting_is_named() {
    let message = Settings(vec![]).start_error().await;
    for name in ["MONGODB_URI", "S3_BUCKET", "JWT_SECRET"] {
        assert!(message.contains(&format!("- {name} is not set")), "{name}: {message}");
    }
    assert!(message.contains("3 problems"), "{message}");
}

#[tokio::test]
async fn o2_weak_secrets_are_rejected_and_not_repeated() {
    let app = TestApp::start().await;
    let good = Settings::for_app(&app);
    for weak in ["canary", "changeme-canary", &"canary".repeat(5), &"x".repeat(64)] {
        let message = good.with("JWT_SECRET", weak).start_error().await;
        assert!(message.contains("- JWT_SECRET ") && message.contains("32"), "{message}");
    }
    let message =
        good.with("JWT_PREVIOUS_SECRETS", "canary").with("UPLOAD_TTL", "canary").with("BIND", "canary").start_error().await;
    for name in ["JWT_PREVIOUS_SECRETS", "UPLOAD_TTL", "BIND"] {
        assert!(message.contains(&format!("- {name} ")), "{name}: {message}");
    }
}

/// The AWS SDK also reads variables that users set in their shells for other programs.
#[tokio::test]
async fn variables_of_other_programs_cause_no_panic() {
    let app = TestApp::start().await;
    let good = Settings::for_app(&app)
        .with("AWS_MAX_ATTEMPTS", "0")
        .with("AWS_APP_NAME", "what ever")
        .with("AWS_REQUEST_CHECKSUM_CALCULATION", "x");
    for mode in ["legacy", "adaptive", ""] {
        drop(good.with("AWS_RETRY_MODE", mode).start_listening().await);
    }
    let message = good.with("AWS_USE_FIPS_ENDPOINT", "maybe").start_error().await;
    assert!(message.contains("- AWS_USE_FIPS_ENDPOINT must be true or false"), "{message}");
}

/// Environment variables may contain any bytes.
#[tokio::test]
async fn setting_that_is_not_utf_8_is_rejected() {
    use std::os::unix::ffi::OsStrExt;
    let broken = std::ffi::OsStr::from_bytes(b"of\xff");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_valet"));
    let done = command.arg("serve").env_clear().env("UPPY", broken).output().await.unwrap();
    let message = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(1) && message.contains("- UPPY must be UTF-8"), "{message}");
}

/// Opens a port on which no request is ever answered; returns the listener and the address.
async fn open_silent_port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[tokio::test]
async fn unreachable_database_is_named() {
    let app = TestApp::start().await;
    let good = Settings::for_app(&app);
    let (_held, silent) = open_silent_port().await;
    let start_errors = ["mongodb://user:canary@127.0.0.1:1", &format!("mongodb://{silent}"), "canary", "mongodb://"].map(|uri| {
        let settings = good.with("MONGODB_URI", uri);
        async move { settings.start_error().await }
    });
    for message in futures_util::future::join_all(start_errors).await {
        assert!(message.contains("MONGODB_URI"), "{message}");
    }
}

#[tokio::test]
async fn unreachable_bucket_is_named() {
    let app = TestApp::start().await;
    let good = Settings::for_app(&app);
    let (_held, silent) = open_silent_port().await;
    let start_errors = [
        ("S3_ENDPOINT", "http://127.0.0.1:1"),
        ("S3_ENDPOINT", &format!("http://{silent}")),
        ("S3_BUCKET", "no-such-bucket"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
        ("AWS_ACCESS_KEY_ID", ""),
    ]
    .map(|(name, value)| {
        let settings = good.with(name, value);
        // LocalStack does not check the secret of a header's signature.
        let is_checked = super::app::s3_is_local() || name != "AWS_SECRET_ACCESS_KEY";
        async move { (name, if is_checked { settings.start_error().await } else { name.to_owned() }) }
    });
    for (name, message) in futures_util::future::join_all(start_errors).await {
        assert!(message.contains(name) || message.contains("AWS credentials"), "{name}: {message}");
    }
}

#[tokio::test]
async fn port_in_use_is_named() {
    let app = TestApp::start().await;
    let (_held, taken) = open_silent_port().await;
    let message = Settings::for_app(&app).with("BIND", &taken).start_error().await;
    assert!(message.contains("BIND") && message.contains(&taken), "{message}");
}

/// The server is live whatever its database does, and ready only while the database answers; `/readyz` names the failing part.
#[tokio::test(flavor = "multi_thread")]
async fn server_is_ready_while_its_database_answers() {
    let app = TestApp::start().await;
    let folder = std::env::temp_dir().join(format!("valet-ready-{}", uuid::Uuid::new_v4().simple()));
    let mongod = Mongod::start(MongodOptions::new(&folder)).await.unwrap();
    let (process, client) = Settings::for_app(&app).with("MONGODB_URI", &mongod.uri()).start_listening().await;
    assert_eq!(client.get("/livez").await.0, 200);
    assert_eq!(client.get("/readyz").await.0, 200);

    let signal = |name: &str| {
        let kill = std::process::Command::new("kill").args([name, &mongod.pid().to_string()]).status();
        assert!(kill.unwrap().success());
    };
    signal("-STOP");
    // The server caches the answer of `/readyz` for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let began = Instant::now();
    let (status, problem) = client.get("/readyz").await;
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!((status.as_u16(), problem["code"].as_str()), (503, Some("unavailable")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("database"), "{problem}");
    assert_eq!(client.get("/livez").await.0, 200);
    signal("-CONT");
    let resumed_at = Instant::now();
    while client.get("/readyz").await.0 != 200 {
        assert!(resumed_at.elapsed() < Duration::from_secs(30), "{}", process.err());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(process);
    mongod.stop().await.unwrap();
    assert!(within(Duration::from_secs(30), || std::fs::remove_dir_all(&folder).is_ok()).await);
}

#[tokio::test]
async fn openapi_command_needs_no_settings() {
    let Ended { status, out, err } = Process::start(&["openapi"], &[]).wait_for_end(Duration::from_secs(60)).await;
    assert!(status.success() && err.is_empty(), "{err}");
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    assert!(out == std::fs::read_to_string(committed).unwrap(), "run: cargo run -- openapi > openapi/openapi.json");
}
