//! Covers the messages of `valet check`, and of a server that does not start, about an unusable bucket: one sentence for each
//! cause, with S3's own code, the address and the remedy.

use std::convert::Infallible;

use hyper::{Response, StatusCode};
use secrecy::ExposeSecret;
use tokio::net::TcpSocket;
use valet::domain::doctor::{self, Answer, Options, Report};

use crate::process_client::Ended;
use crate::{
    app::{TestApp, skip_unless_local_s3},
    relay::{Answer as Http, listen},
    serve::Settings,
    tls::{TlsFront, authority},
};

/// Rule whose finding names the cause.
const RULE: &str = "S3: bucket reachable";

/// Returns the description and the remedy in the finding about the bucket.
fn cause(report: &Report) -> (String, &'static str) {
    let finding = report.findings.iter().find(|finding| finding.rule.name == RULE).unwrap();
    let Answer::No(seen) = &finding.answer else { panic!("{report}") };
    assert!(!report.is_sound() && !seen.contains("X-Amz-"), "{seen}");
    (seen.clone(), finding.remedy)
}

/// Starts a server that answers every request with this status, headers and body; returns its address.
async fn always(status: u16, headers: &'static [(&str, &str)], body: &'static str) -> String {
    listen(move |_| async move {
        let mut answer: Http = Response::new(body.into());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            answer.headers_mut().insert(*name, value.parse().unwrap());
        }
        Ok::<_, Infallible>(answer)
    })
    .await
}

#[tokio::test]
async fn every_cause_has_its_own_message_and_remedy() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let s3 = app.config.s3.endpoint.as_deref().unwrap().to_owned();
    // Bound and not listening: the system refuses connections, and no other test gets the port.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = format!("http://{}", bound.local_addr().unwrap());
    let mongod = app.config.mongo.uri.expose_secret().replace("mongodb://", "http://");
    let mongod = mongod.split(['/', '?']).take(3).collect::<Vec<_>>().join("/");
    let tls = TlsFront::start(s3.trim_start_matches("http://").parse().unwrap()).await;
    let https = format!("https://localhost:{}", tls.address().port());
    let html: &[(&str, &str)] = &[("content-type", "text/html; charset=utf-8")];
    const MALFORMED: &str = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong</Message>\
                             <Region>eu-west-3</Region></Error>";
    const WRAPPED: &str = "<ErrorResponse><Error><Code>ExpiredToken</Code><Message>Over.</Message></Error></ErrorResponse>";
    for (endpoint, cause_text, remedy) in [
        (closed, "S3 cannot be reached: the connection was refused", "host and port"),
        ("http://no-such-host.invalid".to_owned(), "S3 cannot be reached: the host name does not resolve", "DNS"),
        (mongod, "not S3", "S3_ENDPOINT"),
        (s3.replace("http://", "https://"), "S3 cannot be reached: the port does not speak TLS", "http://"),
        (https.replace("https://", "http://"), "S3 cannot be reached: the port does not speak HTTP", "https://"),
        (https.clone(), "the certificate's authority is not trusted", "AWS_CA_BUNDLE"),
        (app.base.clone(), "the server is not S3", "S3_ENDPOINT"),
        (always(404, html, "<html>nothing here</html>").await, "is not S3 (text/html) (HTTP 404)", "S3_ENDPOINT"),
        (always(403, html, "<html>no</html>").await, "refused without an S3 error code", "firewall"),
        (
            always(307, &[("location", "https://other.example/x?y=z")], "").await,
            "redirects to https://other.example (",
            "AWS_REGION",
        ),
        (always(301, &[("x-amz-bucket-region", "eu-west-2")], "").await, "is in the region eu-west-2", "AWS_REGION"),
        (always(400, &[], MALFORMED).await, "is in the region eu-west-3", "AWS_REGION"),
        (always(400, &[], WRAPPED).await, "session token is not valid, or has expired (HTTP 400, ExpiredToken, Over.)", "renew"),
        (always(503, &[], "").await, "the store fails, or is overloaded (HTTP 503)", "check the store"),
    ] {
        let mut config = app.config.clone();
        config.s3.endpoint = Some(endpoint.parse().unwrap());
        config.s3.public_endpoint = Some(endpoint.parse().unwrap());
        let (seen, remedy_seen) = cause(&doctor::run(&config, Options::default()).await);
        assert!(seen.contains(cause_text) && seen.starts_with(&endpoint), "{endpoint}: {seen}");
        assert!(remedy_seen.contains(remedy), "{endpoint}: {remedy_seen}");
    }
}

#[tokio::test]
async fn error_code_of_s3_is_read_with_a_get() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    for (code, change) in [
        ("NoSuchBucket", (|config| config.s3.bucket = "no-such-bucket".parse().unwrap()) as fn(&mut valet::config::Config)),
        ("SignatureDoesNotMatch", |config| config.s3.credentials.as_mut().unwrap().secret_access_key = "wrong".into()),
        ("InvalidAccessKeyId", |config| config.s3.credentials.as_mut().unwrap().access_key_id = "nobody".to_owned()),
        ("AuthorizationHeaderMalformed", |config| config.s3.region = Some("eu-west-1".to_owned())),
    ] {
        let mut config = app.config.clone();
        change(&mut config);
        let report = doctor::run(&config, Options::default()).await;
        let (seen, _) = cause(&report);
        assert!(seen.contains(code), "{code}: {seen}");
        let finding = report.findings.iter().find(|finding| finding.rule.name == RULE).unwrap();
        assert!(finding.details.contains(&("s3Code", code.to_owned())), "{:?}", finding.details);
    }
}

#[tokio::test]
async fn server_that_does_not_start_reports_the_cause() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    for (name, value, cause_text) in
        [("AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch"), ("S3_BUCKET", "no-such-bucket", "NoSuchBucket")]
    {
        let start_error = Settings::for_app(&app).with(name, value).start_error().await;
        assert!(
            start_error.contains(cause_text)
                && start_error.contains(&format!("check {name}")) | start_error.contains("create the bucket"),
            "{start_error}"
        );
    }
}

/// `valet check` trusts the certificate authorities in the file that either variable names.
#[tokio::test]
async fn private_certificate_authority_is_named_in_a_variable() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start().await;
    let upstream = app.config.s3.endpoint.as_deref().unwrap().trim_start_matches("http://").parse().unwrap();
    let tls = TlsFront::start(upstream).await;
    let https = format!("https://localhost:{}", tls.address().port());
    let settings = Settings::for_app(&app).with("S3_ENDPOINT", &https);
    let pem = authority().to_str().unwrap().to_owned();
    let run = async |settings: &Settings| {
        let Ended { status, out, err } =
            settings.run(&["check", "--json"]).wait_for_end(std::time::Duration::from_secs(60)).await;
        let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        (status.code(), report)
    };
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let (status, report) = run(&settings.with(name, &pem)).await;
        assert_eq!((status, &report["sound"]), (Some(0), &true.into()), "{name}: {report}");
    }
    tls.set_expired(true);
    let (status, report) = run(&settings.with("AWS_CA_BUNDLE", &pem)).await;
    assert_eq!(status, Some(1));
    assert!(report.to_string().contains("the certificate has expired"), "{report}");
    // Without the file, the server does not start.
    let start_error = settings.with("AWS_CA_BUNDLE", "/no/such/file").start_error().await;
    assert!(start_error.contains("- AWS_CA_BUNDLE must be the path of a readable file"), "{start_error}");
}
