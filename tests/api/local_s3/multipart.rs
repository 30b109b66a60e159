//! Covers multipart uploads.

use super::{BUCKET, ByteStream, Duration, PresigningConfig, STANDARD, Server, expect, replay, sha256};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;

/// Bytes of a part: the minimum for one that is not the last.
const PART_BYTES: usize = 5 << 20;

impl Server {
    /// Opens a multipart upload with checksums; returns its id.
    pub(super) async fn create(&self, key: &str) -> String {
        let create = self.s3.create_multipart_upload().bucket(BUCKET).key(key).content_type("image/tiff").metadata("a", "b");
        create.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap().upload_id.unwrap()
    }

    /// Uploads a part with its checksum; returns the part for the completion.
    pub(super) async fn part(&self, key: &str, id: &str, number: i32, body: &[u8]) -> CompletedPart {
        let sum = sha256(body);
        let part = self.s3.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number).checksum_sha256(&sum);
        let done = part.body(ByteStream::from(body.to_vec())).send().await.unwrap();
        CompletedPart::builder().part_number(number).set_e_tag(done.e_tag).checksum_sha256(sum).build()
    }

    /// Completes an upload if no object has its key; returns the entity tag or the error code.
    pub(super) async fn complete(&self, key: &str, id: &str, parts: Vec<CompletedPart>) -> Result<String, String> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self.s3.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).if_none_match("*");
        match complete.multipart_upload(parts).send().await {
            Ok(done) => Ok(done.e_tag.unwrap()),
            Err(error) => Err(error.code().unwrap_or_default().to_owned()),
        }
    }
}

#[tokio::test]
async fn parts_become_one_object() {
    let server = Server::start().await;
    let (first_bytes, second_bytes) = (vec![1_u8; PART_BYTES], b"the end".to_vec());
    let id = server.create("m").await;
    let second = server.part("m", &id, 2, &second_bytes).await;
    server.part("m", &id, 1, b"sent twice").await;
    let first = server.part("m", &id, 1, &first_bytes).await;
    assert!(!server.exists("m").await);

    let listed = server.s3.list_parts().bucket(BUCKET).key("m").upload_id(&id).max_parts(1).send().await.unwrap();
    assert_eq!((listed.is_truncated(), listed.parts().len()), (Some(true), 1));
    assert_eq!(listed.parts()[0].size(), Some(PART_BYTES as i64));
    let rest = server.s3.list_parts().bucket(BUCKET).key("m").upload_id(&id);
    let rest = rest.part_number_marker(listed.next_part_number_marker().unwrap()).send().await.unwrap();
    assert_eq!(rest.parts().iter().map(|part| part.part_number().unwrap()).collect::<Vec<_>>(), [2]);
    assert_eq!(rest.parts()[0].checksum_sha256(), Some(sha256(&second_bytes).as_str()));
    let uploads = server.s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert_eq!(uploads.uploads()[0].upload_id(), Some(id.as_str()));

    let etag = server.complete("m", &id, vec![first.clone(), second.clone()]).await.unwrap();
    assert!(etag.ends_with("-2\""), "{etag}");
    assert_eq!(server.complete("m", &id, vec![first, second]).await.unwrap_err(), "NoSuchUpload");
    assert!(server.s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().is_empty());

    let head = server.s3.head_object().bucket(BUCKET).key("m").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.content_length(), Some((PART_BYTES + 7) as i64));
    assert_eq!(head.content_type(), Some("image/tiff"));
    assert_eq!(head.metadata().unwrap()["a"], "b");
    assert_eq!(head.e_tag(), Some(etag.as_str()));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::Composite));
    let digests = [STANDARD.decode(sha256(&first_bytes)).unwrap(), STANDARD.decode(sha256(&second_bytes)).unwrap()].concat();
    assert_eq!(head.checksum_sha256(), Some(format!("{}-2", sha256(&digests)).as_str()));
    assert_eq!(server.read("m").await, [first_bytes, second_bytes.clone()].concat());
    let part = server.s3.get_object().bucket(BUCKET).key("m").part_number(2).send().await.unwrap();
    assert_eq!(part.parts_count(), Some(2));
    assert_eq!(part.body.collect().await.unwrap().to_vec(), second_bytes);
    assert_eq!(server.temporary_files(), 0);
    server.end().await;
}

#[tokio::test]
async fn part_must_match_its_signature() {
    let server = Server::start().await;
    let id = server.create("m").await;
    let part = server.s3.upload_part().bucket(BUCKET).key("m").upload_id(&id).part_number(1).content_length(4);
    let lifetime = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let signed = part.checksum_sha256(sha256(b"good")).presigned(lifetime.clone()).await.unwrap();
    let put = replay(&server.http, &signed).body("evil").send().await.unwrap();
    expect(put, 400, "BadDigest").await;
    assert!(server.s3.list_parts().bucket(BUCKET).key("m").upload_id(&id).send().await.unwrap().parts().is_empty());
    assert_eq!(server.temporary_files(), 0);
    let put = replay(&server.http, &signed).body("good").send().await.unwrap();
    expect(put, 200, "").await;
    // The upload has a checksum algorithm: a part without a checksum of that algorithm is rejected.
    let without_checksum = server.s3.upload_part().bucket(BUCKET).key("m").upload_id(&id).part_number(2);
    let without_checksum = without_checksum.presigned(lifetime).await.unwrap();
    expect(replay(&server.http, &without_checksum).body("good").send().await.unwrap(), 400, "InvalidRequest").await;
    for number in [0, 10_001] {
        let part = server.s3.upload_part().bucket(BUCKET).key("m").upload_id(&id).part_number(number);
        let error = part.checksum_sha256(sha256(b"x")).body(ByteStream::from_static(b"x")).send().await.unwrap_err();
        assert_eq!(error.code(), Some("InvalidArgument"));
    }
    server.end().await;
}

#[tokio::test]
async fn uploads_without_checksums_can_be_completed_and_aborted() {
    let server = Server::start().await;
    let create = server.s3.create_multipart_upload().bucket(BUCKET).key("m").send().await.unwrap();
    let id = create.upload_id.unwrap();
    let lifetime = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let part = server.s3.upload_part().bucket(BUCKET).key("m").upload_id(&id).part_number(1);
    let signed = part.presigned(lifetime).await.unwrap();
    let put = replay(&server.http, &signed).body("123456789").send().await.unwrap();
    let etag = put.headers()["etag"].to_str().unwrap().to_owned();
    expect(put, 200, "").await;
    let done = CompletedPart::builder().part_number(1).e_tag(etag).build();
    server.complete("m", &id, vec![done]).await.unwrap();
    let head = server.s3.head_object().bucket(BUCKET).key("m").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some("rosUhgp5mIg="), "the checksum is that of the whole object, as on AWS");
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));

    let id = server.create("gone").await;
    server.part("gone", &id, 1, b"x").await;
    let abort = || server.s3.abort_multipart_upload().bucket(BUCKET).key("gone").upload_id(&id).send();
    abort().await.unwrap();
    assert_eq!(abort().await.unwrap_err().code(), Some("NoSuchUpload"));
    let parts = server.s3.list_parts().bucket(BUCKET).key("gone").upload_id(&id).send().await;
    assert_eq!(parts.unwrap_err().code(), Some("NoSuchUpload"));
    assert!(!server.exists("gone").await);
    server.end().await;
}
