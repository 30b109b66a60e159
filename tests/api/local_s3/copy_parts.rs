//! Covers parts that are copied from objects, and object attributes.

use super::{BUCKET, Server};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ObjectAttributes};

#[tokio::test]
async fn parts_are_copied_from_ranges_of_objects() {
    let server = Server::start().await;
    let source: Vec<u8> = (0..6 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    server.put("source", &source).await;
    let made = server.s3.create_multipart_upload().bucket(BUCKET).key("copy").send().await.unwrap();
    let id = made.upload_id().unwrap();
    let copy = |number: i32, range: Option<&str>| {
        let copy = server.s3.upload_part_copy().bucket(BUCKET).key("copy").upload_id(id).part_number(number);
        copy.copy_source(format!("{BUCKET}/source")).set_copy_source_range(range.map(str::to_owned)).send()
    };
    let mut parts = Vec::new();
    for (number, range) in [(1, None), (2, Some("bytes=5-9"))] {
        let copied = copy(number, range).await.unwrap();
        let etag = copied.copy_part_result().unwrap().e_tag().unwrap().to_owned();
        parts.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
    }
    for (range, code) in [
        ("bytes=0-6291456", "InvalidRequest"),
        ("bytes=9-5", "InvalidRequest"),
        ("bytes=5-", "InvalidArgument"),
        ("5-9", "InvalidArgument"),
    ] {
        assert_eq!(copy(3, Some(range)).await.unwrap_err().code(), Some(code), "{range}");
    }
    assert_eq!(copy(10_001, None).await.unwrap_err().code(), Some("InvalidArgument"));
    let other = server.s3.upload_part_copy().bucket(BUCKET).key("copy").upload_id(id).part_number(3);
    let other = other.copy_source(format!("{BUCKET}/source")).copy_source_if_match("\"another\"").send().await;
    assert_eq!(other.unwrap_err().code(), Some("PreconditionFailed"));
    let missing = server.s3.upload_part_copy().bucket(BUCKET).key("copy").upload_id(id).part_number(3);
    let missing = missing.copy_source(format!("{BUCKET}/missing")).send().await;
    assert_eq!(missing.unwrap_err().code(), Some("NoSuchKey"));

    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let done = server.s3.complete_multipart_upload().bucket(BUCKET).key("copy").upload_id(id).multipart_upload(parts);
    done.send().await.unwrap();
    assert!(server.read("copy").await == [source.as_slice(), &source[5..10]].concat());
    assert_attributes(&server).await;
    assert_eq!(server.temporary_files(), 0);
    server.end().await;
}

/// The AWS CLI reads the tags of an object before it copies the object in parts.
#[tokio::test]
async fn no_object_has_tags() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let tags = server.s3.get_object_tagging().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(tags.tag_set().is_empty());
    let missing = server.s3.get_object_tagging().bucket(BUCKET).key("missing").send().await.unwrap_err();
    assert_eq!(missing.code(), Some("NoSuchKey"));
    let version = server.s3.get_object_tagging().bucket(BUCKET).key("k").version_id("another").send().await.unwrap_err();
    assert_eq!(version.code(), Some("NoSuchVersion"));
    server.end().await;
}

/// Asserts the attributes of the object in two parts, of its source, and of a missing object.
async fn assert_attributes(server: &Server) {
    let all = [
        ObjectAttributes::Etag,
        ObjectAttributes::Checksum,
        ObjectAttributes::ObjectParts,
        ObjectAttributes::ObjectSize,
        ObjectAttributes::StorageClass,
    ];
    let get = |key: &str, names: &[ObjectAttributes]| {
        let get = server.s3.get_object_attributes().bucket(BUCKET).key(key);
        get.set_object_attributes(Some(names.to_vec())).send()
    };
    let attributes = get("copy", &all).await.unwrap();
    assert_eq!(
        (attributes.object_size(), attributes.object_parts().and_then(|parts| parts.total_parts_count())),
        (Some((6 << 20) + 5), Some(2))
    );
    assert!(attributes.checksum().unwrap().checksum_crc64_nvme().is_some() && attributes.last_modified().is_some());
    let head = server.s3.head_object().bucket(BUCKET).key("copy").send().await.unwrap();
    assert_eq!(attributes.e_tag().unwrap().trim_matches('"'), head.e_tag().unwrap().trim_matches('"'));
    let size = get("source", &[ObjectAttributes::ObjectSize]).await.unwrap();
    assert_eq!((size.object_size(), size.e_tag(), size.object_parts()), (Some(6 << 20), None, None));
    assert_eq!(get("missing", &all).await.unwrap_err().code(), Some("NoSuchKey"));
}
