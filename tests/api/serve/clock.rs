//! Covers a server whose clock differs from S3's.

use time::{
    OffsetDateTime, PrimitiveDateTime,
    format_description::well_known::{Rfc2822, Rfc3339},
    macros::format_description,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Duration, Settings, TcpListener, TestApp};
use crate::app::{declaration, unique_png};

/// Starts a relay to the store that adds this many seconds to every `Date` of the store, so that the server's clock appears to be
/// wrong; returns its address.
async fn start_shifted_store(seconds: i64, store: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = store.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&store).await.unwrap();
            tokio::spawn(async move {
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut chunk = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_server.read(&mut chunk).await {
                    shift(&mut chunk[..length], seconds);
                    if to_client.write_all(&chunk[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

/// Adds seconds to the date after `date: ` in the bytes, if there is one; its length is fixed (RFC 9110).
fn shift(bytes: &mut [u8], seconds: i64) {
    const LENGTH: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();
    let Some(at) = bytes.windows(6).position(|window| window.eq_ignore_ascii_case(b"date: ")) else { return };
    let Some(date) = bytes.get_mut(at + 6..at + 6 + LENGTH) else { return };
    let Ok(store_time) = OffsetDateTime::parse(std::str::from_utf8(date).unwrap(), &Rfc2822) else { return };
    let format = format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    date.copy_from_slice((store_time + time::Duration::seconds(seconds)).format(format).unwrap().as_bytes());
}

/// Returns the signing time in the URL.
fn signed_at(url: &str) -> OffsetDateTime {
    let url = url::Url::parse(url).unwrap();
    let date = url.query_pairs().find(|(name, _)| name == "X-Amz-Date").unwrap().1;
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    PrimitiveDateTime::parse(&date, format).unwrap().assume_utc()
}

/// Returns whether two times differ by less than ten seconds.
fn near(a: OffsetDateTime, b: OffsetDateTime) -> bool {
    (a - b).unsigned_abs() < Duration::from_secs(10)
}

#[tokio::test]
async fn o9_urls_are_signed_with_the_time_of_s3_and_a_large_difference_makes_the_server_unready() {
    let app = TestApp::start().await;
    let store = app.config.s3.endpoint.as_deref().unwrap().to_owned();
    for (seconds, ready_status) in [(-90, 200), (90, 200), (-400, 503), (400, 503)] {
        let settings = Settings::for_app(&app)
            .with("S3_ENDPOINT", &start_shifted_store(seconds, &store).await)
            .with("S3_PUBLIC_ENDPOINT", &store)
            .with("UPLOAD_URL_TTL", "300s");
        let (process, mut client) = settings.start_listening().await;
        let (status, readiness) = client.get("/readyz").await;
        assert_eq!(status.as_u16(), ready_status, "{seconds} s: {readiness}");
        assert!(ready_status == 200 || readiness["detail"].as_str().unwrap().contains("clock"), "{readiness}");
        let alarm = process.err().lines().any(|line| line.contains("ERROR") && line.contains("correct it (NTP)"));
        assert!(alarm, "{seconds} s: {}", process.err());

        client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
        let (status, ticket) = client.post("/api/images/upload", &declaration("sea.png", "image/png", &unique_png())).await;
        if ready_status == 503 && status.as_u16() == 503 {
            // The store, whose clock is right, may reject the signatures of the probe; without a probe, no upload is opened.
            continue;
        }
        let now = OffsetDateTime::now_utc();
        let signed = signed_at(ticket["upload"]["url"].as_str().unwrap());
        assert!(near(signed, now + time::Duration::seconds(seconds)), "{seconds} s: signed at {signed}");
        let ends = OffsetDateTime::parse(ticket["upload"]["expiresAt"].as_str().unwrap(), &Rfc3339).unwrap();
        assert!(near(ends, now + Duration::from_secs(300)), "its expiry is given by the server's own clock: {ends}");
    }
}

/// Covers a clock that libfaketime makes wrong; `VALET_TEST_FAKETIME` has the path of that library.
#[tokio::test]
async fn f20_uploads_work_with_a_clock_that_is_an_hour_off() {
    let Ok(library) = std::env::var("VALET_TEST_FAKETIME") else {
        return crate::skipping::skip("VALET_TEST_FAKETIME is not set");
    };
    let app = TestApp::start().await;
    for offset in ["-3600", "+3600", "-900", "+900"] {
        let settings = Settings::for_app(&app).with("LD_PRELOAD", &library).with("FAKETIME", offset);
        let settings = settings.with("FAKETIME_DONT_FAKE_MONOTONIC", "1").with("SWEEP_INTERVAL", "1s");
        let (process, mut client) = settings.start_listening().await;
        client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
        let (status, readiness) = client.get("/readyz").await;
        assert_eq!((status.as_u16(), readiness["detail"].as_str().unwrap().contains("clock")), (503, true), "{readiness}");
        let (_, ticket) = client.post("/api/images/upload", &declaration("sea.png", "image/png", &unique_png())).await;
        let signed = signed_at(ticket["upload"]["url"].as_str().unwrap());
        assert!(near(signed, OffsetDateTime::now_utc()), "{offset}: signed at {signed}");
        let (image, _) = client.upload(&unique_png()).await;
        // The sweeper of a server with a wrong clock must not expire an upload in progress.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(app.db_state(ticket["id"].as_str().unwrap()).await, "pending", "{offset}");
        assert_eq!(app.db_state(image["id"].as_str().unwrap()).await, "ready", "{offset}");
        drop(process);
    }
}
