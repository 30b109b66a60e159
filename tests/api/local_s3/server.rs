//! Covers the server itself: stopping, starting, buckets, logging.

use super::{BUCKET, Duration, LocalS3, SECRET, Server, expect, fresh_root, options, replay};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn stop_waits_for_requests_and_closes_idle_connections() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let host = server.base.strip_prefix("http://").unwrap().to_owned();
    let mut idle = tokio::net::TcpStream::connect(&host).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    let body = vec![1_u8; 4096];
    let signed = server.sign_put("slow", &body).await;
    let pieces: Vec<Vec<u8>> = body.chunks(1024).map(<[u8]>::to_vec).collect();
    let slow = futures_util::stream::unfold(pieces.into_iter(), |mut pieces| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        pieces.next().map(|piece| (Ok::<_, std::io::Error>(piece), pieces))
    });
    let put = tokio::spawn(replay(&server.http, &signed).body(reqwest::Body::wrap_stream(slow)).send());
    // A part of the body has arrived when the server is stopped.
    crate::app::eventually("a part of the body has arrived", async || server.temporary_files() > 0).await;
    let root = server.stop().await;
    assert_eq!(put.await.unwrap().unwrap().status(), 200, "the request in flight was finished");
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(tokio::net::TcpStream::connect(&host).await.is_err());
    std::fs::remove_dir_all(root).unwrap();
}

#[tokio::test]
async fn invalid_folder_is_reported_at_the_start() {
    let root = fresh_root();
    std::fs::write(&root, b"a file").unwrap();
    let error = LocalS3::open(options(&root.join("below"))).unwrap_err().to_string();
    assert!(error.contains("cannot be used") && error.contains("below"), "{error}");
    std::fs::remove_file(&root).unwrap();

    let first = LocalS3::open(options(&root)).unwrap();
    let second = tokio::task::spawn_blocking({
        let root = root.clone();
        move || LocalS3::open(options(&root))
    });
    let error = second.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    for text in [format!("{first:?}"), format!("{:?}", options(&root)), format!("{:#?}", options(&root))] {
        assert!(!text.contains(SECRET), "{text}");
    }
    let mut without_key_id = options(&root);
    without_key_id.access_key.clear();
    assert!(LocalS3::open(without_key_id).is_err());
    drop(first);
    std::fs::remove_dir_all(root).unwrap();
}

#[tokio::test]
async fn bucket_settings_can_be_set_and_read() {
    use aws_sdk_s3::types::{CorsConfiguration, CorsRule, PublicAccessBlockConfiguration};
    let server = Server::start().await;
    server.s3.create_bucket().bucket("another").send().await.unwrap();
    server.s3.create_bucket().bucket("another").send().await.expect("us-east-1 answers success for an existing bucket");
    for bad in ["xn--bucket", "bucket-s3alias", "Bucket", "a..b"] {
        let rejected = server.s3.create_bucket().bucket(bad).send().await.unwrap_err();
        assert_eq!(rejected.code(), Some("InvalidBucketName"), "{bad}");
    }
    let names = server.s3.list_buckets().send().await.unwrap();
    assert_eq!(names.buckets().iter().map(|bucket| bucket.name().unwrap()).collect::<Vec<_>>(), ["another", BUCKET]);
    server.s3.head_bucket().bucket("another").send().await.unwrap();
    server.s3.get_bucket_location().bucket("another").send().await.unwrap();
    assert!(server.s3.head_bucket().bucket("missing").send().await.is_err());
    server.put("k", b"x").await;
    assert_eq!(server.s3.delete_bucket().bucket(BUCKET).send().await.unwrap_err().code(), Some("BucketNotEmpty"));
    server.s3.delete_bucket().bucket("another").send().await.unwrap();
    assert_eq!(server.s3.list_objects_v2().bucket("another").send().await.unwrap_err().code(), Some("NoSuchBucket"));

    let error = server.s3.get_bucket_cors().bucket(BUCKET).send().await.unwrap_err();
    assert_eq!(error.code(), Some("NoSuchCORSConfiguration"));
    let rule = CorsRule::builder().allowed_methods("PUT").allowed_origins("https://a.example").build().unwrap();
    let cors = CorsConfiguration::builder().cors_rules(rule).build().unwrap();
    server.s3.put_bucket_cors().bucket(BUCKET).cors_configuration(cors).send().await.unwrap();
    let block = PublicAccessBlockConfiguration::builder().block_public_acls(true).build();
    server.s3.put_public_access_block().bucket(BUCKET).public_access_block_configuration(block).send().await.unwrap();
    let server = Server::start_at(server.stop().await).await;
    let cors = server.s3.get_bucket_cors().bucket(BUCKET).send().await.unwrap();
    assert_eq!(cors.cors_rules()[0].allowed_origins(), ["https://a.example"]);
    let block = server.s3.get_public_access_block().bucket(BUCKET).send().await.unwrap();
    assert_eq!(block.public_access_block_configuration().unwrap().block_public_acls(), Some(true));
    let tags = server.s3.get_bucket_tagging().bucket(BUCKET).send().await.unwrap_err();
    assert_eq!(tags.raw_response().unwrap().status().as_u16(), 501);
    server.end().await;
}

/// A writer that collects log lines.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The test runs on one thread, so that the subscriber receives everything that the server logs.
#[tokio::test]
async fn presigned_queries_are_not_logged() {
    let server = Server::start().await;
    let signed = server.sign_put("k", b"x").await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("the subscriber works");
    for status in [200, 412] {
        let put = replay(&server.http, &signed).body("x").send().await.unwrap();
        expect(put, status, "").await;
    }
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("the subscriber works"));
    assert!(!text.contains("X-Amz-"), "{text}");
    server.end().await;
}
