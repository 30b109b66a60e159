//! Covers objects of the local S3 server (`src/dev/s3`): metadata, reading, conditions, copying, deleting, listing, names.

use std::collections::BTreeSet;

use super::{BUCKET, ByteStream, Duration, PathBuf, PresigningConfig, Server, expect, replay, sha256};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, MetadataDirective};

#[tokio::test]
async fn headers_metadata_and_checksums_are_kept() {
    let server = Server::start().await;
    let put = server.s3.put_object().bucket(BUCKET).key("k").content_type("image/png");
    let put = put.cache_control("max-age=9").content_disposition("attachment; filename=\"a.png\"");
    let put = put.content_language("de").metadata("camera", "Grün 7").checksum_algorithm(ChecksumAlgorithm::Crc32C);
    put.body(ByteStream::from_static(b"123456789")).send().await.unwrap();

    let head = server.s3.head_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.content_type(), Some("image/png"));
    assert_eq!(head.cache_control(), Some("max-age=9"));
    assert_eq!(head.content_disposition(), Some("attachment; filename=\"a.png\""));
    assert_eq!(head.content_language(), Some("de"));
    assert_eq!(head.content_encoding(), None, "aws-chunked is a transfer coding and is not stored");
    assert_eq!(head.metadata().unwrap()["camera"], "=?UTF-8?B?R3LDvG4gNw==?=", "RFC 2047, as AWS");
    assert_eq!(head.checksum_crc32_c(), Some("4waSgw=="), "the check value of CRC-32C");
    assert_eq!(head.checksum_sha256(), None, "AWS returns only the algorithm that the upload used");
    assert_eq!(head.e_tag(), Some("\"25f9e794323b453885f5181f1b624d0b\""));
    let plain = server.s3.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(plain.checksum_crc32_c(), None);
    server.end().await;
}

/// The server does not ignore a header that would change how AWS stores the object.
#[tokio::test]
async fn headers_without_an_effect_here_are_rejected() {
    let server = Server::start().await;
    server.s3.put_object().bucket(BUCKET).key("source").body(ByteStream::from_static(b"1")).send().await.unwrap();
    let rejected = [
        ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", "id=\"someone\""),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-rename-source", "/source"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-storage-class", "GLACIER"),
        ("x-amz-tagging", "a=b"),
        ("x-amz-website-redirect-location", "/elsewhere"),
    ];
    let accepted = [("x-amz-acl", "private"), ("x-amz-server-side-encryption", "AES256"), ("x-amz-storage-class", "STANDARD")];
    for (name, value) in rejected.into_iter().chain(accepted) {
        let is_rejected = rejected.contains(&(name, value));
        let add = move |request: &mut aws_sdk_s3::config::http::HttpRequest| drop(request.headers_mut().insert(name, value));
        let put = server.s3.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"1"));
        let put = put.customize().mutate_request(add).send().await;
        let copy = server.s3.copy_object().bucket(BUCKET).key("k").copy_source(format!("{BUCKET}/source"));
        let copy = copy.customize().mutate_request(add).send().await;
        let create = server.s3.create_multipart_upload().bucket(BUCKET).key("k");
        let create = create.customize().mutate_request(add).send().await;
        let codes = [
            put.err().map(|error| error.code().map(str::to_owned)),
            copy.err().map(|error| error.code().map(str::to_owned)),
            create.err().map(|error| error.code().map(str::to_owned)),
        ];
        let is_acl = name == "x-amz-acl" || name == "x-amz-grant-read";
        let code = if is_acl { "AccessControlListNotSupported" } else { "NotImplemented" };
        let expected = is_rejected.then(|| Some(code.to_owned()));
        assert!(codes.iter().all(|code| *code == expected), "{name}: {value}: {codes:?}");
        let stored = server.s3.head_object().bucket(BUCKET).key("k").send().await;
        assert_eq!(stored.is_err(), is_rejected, "{name}: {value}");
        server.s3.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    }
    server.end().await;
}

#[tokio::test]
async fn each_checksum_algorithm_is_verified() {
    let server = Server::start().await;
    let right = [
        ("x-amz-checksum-crc32", "y/Q5Jg=="),
        ("x-amz-checksum-crc32c", "4waSgw=="),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
        ("x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
    ];
    for (header, value) in right {
        let mut put = server.s3.put_object().bucket(BUCKET).key("k");
        put = match header {
            "x-amz-checksum-crc32" => put.checksum_crc32(value),
            "x-amz-checksum-crc32c" => put.checksum_crc32_c(value),
            "x-amz-checksum-crc64nvme" => put.checksum_crc64_nvme(value),
            "x-amz-checksum-sha1" => put.checksum_sha1(value),
            _ => put.checksum_sha256(value),
        };
        let signed = put.presigned(PresigningConfig::expires_in(Duration::from_secs(60)).unwrap()).await.unwrap();
        let rejected = replay(&server.http, &signed).body("12345678X").send().await.unwrap();
        expect(rejected, 400, "BadDigest").await;
        let stored = replay(&server.http, &signed).body("123456789").send().await.unwrap();
        assert_eq!(stored.headers()[header], value);
        expect(stored, 200, "").await;
    }
    server.end().await;
}

#[tokio::test]
async fn if_match_is_enforced_on_writes() {
    let server = Server::start().await;
    server.put("k", b"one").await;
    let etag = server.s3.head_object().bucket(BUCKET).key("k").send().await.unwrap().e_tag().unwrap().to_owned();
    let put =
        |tag: &str| server.s3.put_object().bucket(BUCKET).key("k").if_match(tag).body(ByteStream::from_static(b"two")).send();
    assert_eq!(put("\"other\"").await.unwrap_err().code(), Some("PreconditionFailed"));
    put(&etag).await.unwrap();
    assert_eq!(server.read("k").await, b"two");
    let delete = |tag: &str| server.s3.delete_object().bucket(BUCKET).key("k").if_match(tag).send();
    assert_eq!(delete(&etag).await.unwrap_err().code(), Some("PreconditionFailed"));
    assert!(server.exists("k").await);
    server.s3.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    server.s3.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(!server.exists("k").await);
    server.end().await;
}

#[tokio::test]
async fn copies_keep_bytes_and_metadata_unless_replaced() {
    let server = Server::start().await;
    let put = server.s3.put_object().bucket(BUCKET).key("in/ä b").content_type("image/png").metadata("a", "1");
    let etag = put.body(ByteStream::from_static(b"bytes")).send().await.unwrap().e_tag.unwrap();
    let copy = || server.s3.copy_object().bucket(BUCKET).copy_source(format!("{BUCKET}/in/%C3%A4%20b"));
    let error = copy().key("out").copy_source_if_match("\"other\"").send().await.unwrap_err();
    assert_eq!(error.code(), Some("PreconditionFailed"));
    assert!(!server.exists("out").await);
    let done = copy().key("out").copy_source_if_match(&etag).if_none_match("*").checksum_algorithm(ChecksumAlgorithm::Sha256);
    let done = done.send().await.unwrap();
    assert_eq!(done.copy_object_result().unwrap().checksum_sha256(), Some(sha256(b"bytes").as_str()));
    let head = server.s3.head_object().bucket(BUCKET).key("out").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.content_type(), Some("image/png"));
    assert_eq!(head.metadata().unwrap()["a"], "1");
    assert_eq!(head.checksum_sha256(), Some(sha256(b"bytes").as_str()));
    let error = copy().key("out").if_none_match("*").send().await.unwrap_err();
    assert_eq!(error.code(), Some("PreconditionFailed"));
    let replaced = copy().key("out").metadata_directive(MetadataDirective::Replace).content_type("image/webp");
    replaced.send().await.unwrap();
    let head = server.s3.head_object().bucket(BUCKET).key("out").send().await.unwrap();
    assert_eq!(head.content_type(), Some("image/webp"));
    assert!(head.metadata().is_none_or(|metadata| metadata.is_empty()));
    let error = server.s3.copy_object().bucket(BUCKET).key("x").copy_source(format!("{BUCKET}/nope")).send().await;
    assert_eq!(error.unwrap_err().code(), Some("NoSuchKey"));
    server.end().await;
}

/// Returns legal keys that are unusual as paths of files.
fn odd_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "../../etc/passwd",
        "..",
        ".",
        "/",
        "//",
        "/abs",
        "a//b",
        "a/../b",
        "a/./b",
        "a/",
        "a",
        "dir/",
        "%2e%2e/x",
        "a b+c",
        "A",
        "é",
        "e\u{301}",
        "\u{10348}",
        "tab\tkey",
        "q?x=1&y#z",
        "100%",
        "trail.",
        "con",
        "~*'()!",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.push("k".repeat(1024));
    keys.push("ü".repeat(512));
    keys
}

#[tokio::test]
async fn any_legal_key_is_stored_inside_the_folder() {
    let server = Server::start().await;
    let before: BTreeSet<PathBuf> =
        std::fs::read_dir(server.root.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for key in odd_keys() {
        let put = server.s3.put_object().bucket(BUCKET).key(&key).body(ByteStream::from(key.clone().into_bytes()));
        put.send().await.unwrap_or_else(|error| panic!("{key:?}: {error:?}"));
    }
    for key in odd_keys() {
        assert_eq!(server.read(&key).await, key.as_bytes(), "{key:?}");
    }
    let listed = server.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    let listed: Vec<String> = listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect();
    let mut sorted = odd_keys();
    sorted.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    assert_eq!(listed, sorted);
    let after: BTreeSet<PathBuf> =
        std::fs::read_dir(server.root.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let outside: Vec<_> = after
        .difference(&before)
        .filter(|path| odd_keys().iter().any(|key| path.file_name().is_some_and(|name| key.contains(&*name.to_string_lossy()))))
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
    let too_long = server.s3.put_object().bucket(BUCKET).key("k".repeat(1025)).send().await;
    assert_eq!(too_long.unwrap_err().code(), Some("KeyTooLongError"));
    server.end().await;
}
