//! Covers the completion of multipart uploads: its checks, and that only one completion creates the object.

use super::{BUCKET, Server, sha256};
use aws_sdk_s3::{error::ProvideErrorMetadata, types::CompletedPart};

#[tokio::test]
async fn completion_checks_parts_and_conditions() {
    let server = Server::start().await;
    let id = server.create("m").await;
    let small = server.part("m", &id, 1, b"small").await;
    let last = server.part("m", &id, 2, b"last").await;
    let edit = |part: &CompletedPart| {
        let copy = CompletedPart::builder().part_number(part.part_number().unwrap());
        copy.set_e_tag(part.e_tag.clone()).set_checksum_sha256(part.checksum_sha256.clone())
    };
    let complete = async |parts: Vec<CompletedPart>| server.complete("m", &id, parts).await.unwrap_err();
    assert_eq!(complete(vec![small.clone(), last.clone()]).await, "EntityTooSmall");
    assert_eq!(complete(vec![last.clone(), small.clone()]).await, "InvalidPartOrder");
    assert_eq!(complete(vec![last.clone(), last.clone()]).await, "InvalidPartOrder");
    assert_eq!(complete(vec![edit(&last).e_tag("\"other\"").build()]).await, "InvalidPart");
    assert_eq!(complete(vec![edit(&last).checksum_sha256(sha256(b"other")).build()]).await, "InvalidPart");
    assert_eq!(complete(vec![edit(&last).set_checksum_sha256(None).build()]).await, "InvalidRequest");
    assert_eq!(complete(vec![edit(&last).part_number(7).build()]).await, "InvalidPart");
    assert_eq!(server.complete("other", &id, vec![last.clone()]).await.unwrap_err(), "NoSuchUpload");
    assert_eq!(server.complete("m", "../../x", vec![last.clone()]).await.unwrap_err(), "NoSuchUpload");
    server.put("m", b"there first").await;
    assert_eq!(complete(vec![last.clone()]).await, "PreconditionFailed");
    assert_eq!(server.read("m").await, b"there first");
    server.s3.delete_object().bucket(BUCKET).key("m").send().await.unwrap();
    server.complete("m", &id, vec![last]).await.unwrap();
    assert_eq!(server.read("m").await, b"last");
    server.end().await;
}

#[tokio::test]
async fn concurrent_completions_make_one_object() {
    let server = Server::start().await;
    for round in 0..10 {
        let key = format!("m{round}");
        let id = server.create(&key).await;
        let part = server.part(&key, &id, 1, &vec![3; 2 << 20]).await;
        let (a, b) = tokio::join!(server.complete(&key, &id, vec![part.clone()]), server.complete(&key, &id, vec![part]));
        let lost = if a.is_ok() { b } else { a };
        let lost = lost.unwrap_err();
        assert!(["NoSuchUpload", "PreconditionFailed"].contains(&lost.as_str()), "{lost}");
        assert!(server.exists(&key).await);
    }
    assert_eq!(server.temporary_files(), 0);
    server.end().await;
}

/// The parts of an upload end with it: a request that began before finds them, or no upload.
#[tokio::test]
async fn requests_beside_a_completion_find_all_parts_or_no_upload() {
    let server = Server::start().await;
    for round in 0..100 {
        let key = format!("m{round}");
        let id = server.create(&key).await;
        let part = server.part(&key, &id, 1, b"small").await;
        let complete = || server.complete(&key, &id, vec![part.clone()]);
        let list = || server.s3.list_parts().bucket(BUCKET).key(&key).upload_id(&id).send();
        let (a, b, c, d, e) = tokio::join!(complete(), list(), complete(), list(), complete());
        let completions = [a, c, e];
        assert!(completions.iter().any(Result::is_ok), "{completions:?}");
        let refusals = completions.iter().filter_map(|completion| completion.as_ref().err());
        refusals.for_each(|code| assert!(["NoSuchUpload", "PreconditionFailed"].contains(&code.as_str()), "{code}"));
        for listed in [b, d] {
            match listed {
                Ok(listed) => assert_eq!(listed.parts().len(), 1),
                Err(error) => assert_eq!(error.code(), Some("NoSuchUpload")),
            }
        }
    }
    server.end().await;
}

/// A client that lost the answer repeats the completion, without a condition on the existing object.
#[tokio::test]
async fn completion_can_be_repeated() {
    let server = Server::start().await;
    let id = server.create("m").await;
    let part = server.part("m", &id, 1, b"all of it").await;
    let complete = async |id: &str, part: &CompletedPart| {
        let parts = aws_sdk_s3::types::CompletedMultipartUpload::builder().parts(part.clone()).build();
        let done = server.s3.complete_multipart_upload().bucket(BUCKET).key("m").upload_id(id).multipart_upload(parts);
        done.send().await.map_err(|error| error.into_service_error().meta().code().unwrap_or_default().to_owned())
    };
    let first = complete(&id, &part).await.unwrap();
    let again = complete(&id, &part).await.unwrap();
    assert_eq!((first.e_tag(), first.checksum_sha256()), (again.e_tag(), again.checksum_sha256()));
    let other = CompletedPart::builder().part_number(1).e_tag("\"00000000000000000000000000000000\"").build();
    assert_eq!(complete(&id, &other).await.unwrap_err(), "NoSuchUpload");
    assert_eq!(
        server.complete("m", &id, vec![part.clone()]).await.unwrap_err(),
        "NoSuchUpload",
        "with If-None-Match a repeat is rejected"
    );
    server.put("m", b"another object").await;
    assert_eq!(complete(&id, &part).await.unwrap_err(), "NoSuchUpload");
    assert_eq!(server.read("m").await, b"another object");
    server.end().await;
}
