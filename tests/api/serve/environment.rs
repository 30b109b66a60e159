//! Covers the environment: the shell's AWS settings do not affect a store with an endpoint, and the log names unknown variables
//! that look like misspelled settings.

use super::Settings;
use crate::app::{TestApp, unique_png};

#[tokio::test(flavor = "multi_thread")]
async fn aws_settings_of_the_shell_do_not_affect_a_store_with_an_endpoint() {
    let app = TestApp::start().await;
    let file = std::env::temp_dir().join(format!("valet-aws-{}", uuid::Uuid::new_v4().simple()));
    let profile = "[default]\nuse_fips_endpoint = true\nuse_dualstack_endpoint = true\nendpoint_url = http://127.0.0.1:9\n\
                   s3_us_east_1_regional_endpoint = legacy\nrequest_checksum_calculation = when_required\nmax_attempts = 1\n";
    std::fs::write(&file, profile).unwrap();
    let mut settings = Settings::for_app(&app);
    for (name, value) in [
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9"),
        ("AWS_S3_USE_ARN_REGION", "true"),
        ("AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS", "true"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"),
        ("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_supported"),
        ("AWS_AUTH_SCHEME_PREFERENCE", "sigv4a"),
        ("AWS_SIGV4A_SIGNING_REGION_SET", "*"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("AWS_RETRY_MODE", "adaptive"),
        ("AWS_CONFIG_FILE", file.to_str().unwrap()),
        ("S3_ENDPIONT", "http://127.0.0.1:9"),
        ("UPLOAD_MAX_BYTE", "1KiB"),
    ] {
        settings = settings.with(name, value);
    }
    let (process, mut client) = settings.start_listening().await;
    client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
    client.upload(&unique_png()).await;
    let log = process.err();
    for (slip, meant) in [("S3_ENDPIONT", "S3_ENDPOINT"), ("UPLOAD_MAX_BYTE", "UPLOAD_MAX_BYTES")] {
        assert!(log.lines().any(|line| line.contains(&format!("\"{slip}\"")) && line.contains(&format!("\"{meant}\""))), "{log}");
    }
    assert!(!log.contains("cannot be reached"), "{log}");
    std::fs::remove_file(&file).unwrap();
}

/// An AWS setting that would redirect calls but not URLs stops the start, unless `S3_ENDPOINT` is set.
#[tokio::test]
async fn aws_endpoint_setting_that_urls_would_ignore_stops_the_start() {
    let app = TestApp::start().await;
    let settings = Settings::for_app(&app).without("S3_ENDPOINT").with("AWS_REGION", "us-east-1");
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let start_error = settings.with(name, "http://127.0.0.1:9").start_error().await;
        assert!(start_error.contains(&format!("- {name} ")), "{start_error}");
    }
}

/// The message at the start names the underlying cause.
#[tokio::test]
async fn unreachable_store_is_reported_with_its_cause() {
    let app = TestApp::start().await;
    let start_error = Settings::for_app(&app).with("S3_ENDPOINT", "http://127.0.0.1:9").start_error().await;
    assert!(start_error.contains("S3 cannot be reached") && start_error.to_lowercase().contains("refused"), "{start_error}");
}
