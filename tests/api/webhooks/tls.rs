//! Covers receivers with TLS: their certificate is verified, by the authorities in `SSL_CERT_FILE` if that is set.

use super::*;
use crate::tls::{TlsFront, authority};

#[tokio::test(flavor = "multi_thread")]
async fn certificate_must_be_trusted_valid_and_of_the_host() {
    let app = start().await;
    let receiver = Receiver::start(|_| status(204)).await;
    let upstream = receiver.url.split('/').nth(2).unwrap().parse().unwrap();
    let front = TlsFront::start(upstream).await;
    let port = front.address().port();
    let settings = Settings::for_app(&app)
        .with("WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef")
        .with("WEBHOOK_ALLOW", "127.0.0.0/8,::1/128")
        .with("LOG_FORMAT", "text");
    let trusting = settings.with("SSL_CERT_FILE", authority().to_str().unwrap());
    let test = async |settings: &Settings, host: &str| {
        let endpoint = add(&app, &format!("https://{host}:{port}/"), &[]).await.id;
        let Ended { status, out, err } =
            settings.run(&["webhook", "test", &endpoint]).wait_for_end(Duration::from_secs(30)).await;
        if status.success() { Ok(out) } else { Err(err) }
    };
    let is_tls_error = |outcome: Result<String, String>| outcome.is_err_and(|err| err.contains("there was no answer: tls"));
    for host in ["localhost", "127.0.0.1"] {
        assert!(test(&trusting, host).await.is_ok_and(|out| out.starts_with("delivered: status 204")), "{host}");
    }
    assert!(is_tls_error(test(&trusting, "[::ffff:127.0.0.1]").await), "the certificate does not name this address");
    assert!(is_tls_error(test(&settings, "localhost").await), "the system does not trust this authority");
    front.set_expired(true);
    assert!(is_tls_error(test(&trusting, "localhost").await), "the certificate is expired");
    assert_eq!(receiver.messages().len(), 2);
}
