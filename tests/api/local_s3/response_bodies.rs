//! Covers the bodies of answers: members of errors, of listings and of object attributes.

use super::{ACCESS, BUCKET, ByteStream, Duration, SECRET, Server, expect, sha256};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart};
use valet::signer::{AddressingStyle, BucketLocation, Credentials, PresignRequest, Signer};

/// Returns a signer with the server's keys.
pub(super) fn signer(server: &Server) -> Signer {
    let keys =
        Credentials { access_key_id: ACCESS.to_owned(), secret_access_key: SECRET.into(), session_token: None, expires_at: None };
    Signer::new(
        BucketLocation::endpoint(&server.base.parse().unwrap(), &BUCKET.parse().unwrap(), AddressingStyle::Path),
        "us-east-1",
        keys,
    )
}

/// Returns the presigned URL of a request, which is valid for a minute.
pub(super) fn sign(signer: &Signer, request: &PresignRequest<'_>) -> String {
    signer.presign(request, time::OffsetDateTime::now_utc(), Duration::from_secs(60)).unwrap().url
}

#[tokio::test]
async fn errors_name_the_requested_resource() {
    let server = Server::start().await;
    server.put("k", b"0123456789").await;
    let own_signer = signer(&server);
    let get = |key, query| sign(&own_signer, &PresignRequest { method: "GET", key, headers: &[], query });
    let anywhere = |path: &str| format!("{}/{path}", server.base);
    let missing = get("a b/é", &[]);
    let long = "k".repeat(1025);
    let stranger = missing.replace(ACCESS, "AKIANOBODY");
    for (url, status, code, members) in [
        (missing, 404, "NoSuchKey", &["<Key>a b/é</Key>"][..]),
        (stranger, 403, "InvalidAccessKeyId", &["<AWSAccessKeyId>AKIANOBODY</AWSAccessKeyId>"]),
        (get("k", &[("versionId", "7")]), 404, "NoSuchVersion", &["<Key>k</Key>", "<VersionId>7</VersionId>"]),
        (get("k", &[("uploadId", "7")]), 404, "NoSuchUpload", &["<UploadId>7</UploadId>"]),
        (get("k", &[("partNumber", "2")]), 416, "InvalidPartNumber", &[]),
        // Without a signature, the error names only what does not exist.
        (anywhere("photos/k"), 403, "AccessDenied", &["<Message>Access Denied</Message>"]),
        (anywhere("photos"), 403, "AccessDenied", &[]),
        (anywhere(""), 403, "AccessDenied", &[]),
        (anywhere("no-such-bucket/k"), 404, "NoSuchBucket", &["<BucketName>no-such-bucket</BucketName>"]),
        (get(long.as_str(), &[]), 400, "KeyTooLongError", &["<Message>", "<MaxSizeAllowed>1024<", "<Size>1025<"]),
    ] {
        let text = expect(server.http.get(&url).send().await.unwrap(), status, code).await;
        for member in members.iter().chain(&["<Resource>", "<RequestId>", "<HostId>"]) {
            assert!(text.contains(member), "{member} in {text}");
        }
    }
    let range = server.http.get(get("k", &[])).header("range", "bytes=10-").send().await.unwrap();
    assert!(range.headers().contains_key("x-amz-id-2"));
    let text = expect(range, 416, "InvalidRange").await;
    assert!(text.contains("<RangeRequested>bytes=10-</RangeRequested><ActualObjectSize>10</ActualObjectSize>"), "{text}");
    let put = PresignRequest { method: "PUT", key: "md5", headers: &[], query: &[] };
    let empty = server.http.put(sign(&own_signer, &put)).header("content-md5", "").body("x").send().await.unwrap();
    expect(empty, 400, "InvalidDigest").await;

    for (method, key, query, body, status, code, members) in [
        ("PATCH", "k", None, "", 405, "MethodNotAllowed", ["<Method>PATCH</Method>", "<ResourceType>OBJECT<"]),
        ("POST", "k", None, "", 405, "MethodNotAllowed", ["<Method>POST</Method>", "is not allowed against this resource."]),
        ("POST", "k", Some(("uploadId", "7")), "text", 400, "MalformedXML", ["<Message>", "did not validate"]),
        ("PUT", "k", None, "other bytes than signed", 403, "SignatureDoesNotMatch", ["<Message>", "<SignatureProvided>"]),
    ] {
        let signed: &[(&str, &str)] = if status == 403 { &[("content-length", "4")] } else { &[] };
        let query: Vec<_> = query.into_iter().collect();
        let url = sign(&own_signer, &PresignRequest { method, key, headers: signed, query: &query });
        let answer = server.http.request(method.parse().unwrap(), url).body(body).send().await.unwrap();
        let text = expect(answer, status, code).await;
        assert!(members.iter().all(|member| text.contains(member)), "{text}");
    }
    server.end().await;
}

#[tokio::test]
async fn listings_contain_owners_and_the_request_parameters() {
    let server = Server::start().await;
    server.put("a", b"x").await;
    let owner = server.s3.list_buckets().send().await.unwrap().owner.unwrap();
    assert!(owner.id().is_some_and(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    let first = server.s3.list_objects().bucket(BUCKET).delimiter("").send().await.unwrap();
    assert_eq!((first.marker(), first.delimiter(), first.contents()[0].owner()), (Some(""), None, Some(&owner)));
    for wants_owner in [true, false] {
        let second = server.s3.list_objects_v2().bucket(BUCKET).delimiter("").fetch_owner(wants_owner).send().await.unwrap();
        assert_eq!((second.delimiter(), second.contents()[0].owner()), (None, wants_owner.then_some(&owner)));
    }
    let error = server.s3.list_objects_v2().bucket(BUCKET).encoding_type("base64".into()).send().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Some("InvalidArgument"), Some("Invalid Encoding Method specified in Request")));
    let copy = server.s3.copy_object().bucket(BUCKET).key("b").copy_source("photos/a").metadata_directive("MERGE".into());
    let error = copy.send().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Some("InvalidArgument"), Some("Unknown metadata directive.")));
    server.end().await;
}

#[tokio::test]
async fn parts_keep_their_checksums() {
    let server = Server::start().await;
    let made = server.s3.create_multipart_upload().bucket(BUCKET).key("k").checksum_algorithm(ChecksumAlgorithm::Sha256);
    let made = made.send().await.unwrap();
    let id = made.upload_id().unwrap();
    let bodies = [vec![1_u8; 5 << 20], vec![2; 5 << 20], b"end".to_vec()];
    let mut parts = Vec::new();
    for (number, body) in (1..).zip(&bodies) {
        let put = server.s3.upload_part().bucket(BUCKET).key("k").upload_id(id).part_number(number);
        let put = put.checksum_sha256(sha256(body)).body(ByteStream::from(body.clone())).send().await.unwrap();
        let part = CompletedPart::builder().part_number(number).e_tag(put.e_tag().unwrap()).checksum_sha256(sha256(body));
        parts.push(part.build());
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let done = server.s3.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(id).multipart_upload(parts);
    let whole = done.send().await.unwrap().checksum_sha256().unwrap().to_owned();

    for (number, body) in (1..).zip(&bodies) {
        let part = server.s3.get_object().bucket(BUCKET).key("k").part_number(number).checksum_mode(ChecksumMode::Enabled);
        let part = part.send().await.unwrap();
        assert_eq!((part.checksum_sha256(), part.parts_count()), (Some(sha256(body).as_str()), Some(3)));
    }
    let beyond = server.s3.get_object().bucket(BUCKET).key("k").part_number(4).send().await.unwrap_err();
    assert_eq!(beyond.code(), Some("InvalidPartNumber"));

    // Most clients send the list in one line.
    let own_signer = signer(&server);
    for (names, has_parts) in [("ETag,ObjectSize, ObjectParts,Checksum", true), ("ObjectSize", false)] {
        let (headers, query) = ([("x-amz-object-attributes", names)], [("attributes", "")]);
        let url = sign(&own_signer, &PresignRequest { method: "GET", key: "k", headers: &headers, query: &query });
        let text = expect(server.http.get(url).header("x-amz-object-attributes", names).send().await.unwrap(), 200, "").await;
        assert!(text.contains("<ObjectSize>10485763</ObjectSize>"), "{text}");
        assert_eq!(text.contains("<ObjectParts>"), has_parts, "{text}");
        assert_eq!(text.contains(&whole), has_parts, "{text}");
        assert_eq!(text.contains("-3</ETag>"), has_parts, "without quotes: {text}");
        assert!(bodies.iter().all(|body| text.contains(&sha256(body)) == has_parts), "{text}");
    }
    let page = server.s3.get_object_attributes().bucket(BUCKET).key("k").max_parts(1).part_number_marker("1");
    let page = page.object_attributes(aws_sdk_s3::types::ObjectAttributes::ObjectParts).send().await.unwrap();
    let listed = page.object_parts().unwrap();
    assert_eq!(
        (listed.is_truncated(), listed.next_part_number_marker(), listed.total_parts_count()),
        (Some(true), Some("2"), Some(3))
    );
    assert_eq!(
        listed.parts().iter().map(|part| (part.part_number(), part.size())).collect::<Vec<_>>(),
        [(Some(2), Some(5 << 20))]
    );
    server.end().await;
}
