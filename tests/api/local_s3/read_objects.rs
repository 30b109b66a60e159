//! Covers reading: ranges, conditions, overrides, listings.

use super::{BUCKET, Duration, PresigningConfig, Server, expect, replay};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

#[tokio::test]
async fn ranges_are_served() {
    let server = Server::start().await;
    server.put("k", b"0123456789").await;
    server.put("empty", b"").await;
    let url = server.sign_get("k").await;
    let get = async |range: &str| server.http.get(&url).header("range", range).send().await.unwrap();
    for (range, content_range, body) in [
        ("bytes=0-3", "bytes 0-3/10", "0123"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-4", "bytes 6-9/10", "6789"),
        ("bytes=-40", "bytes 0-9/10", "0123456789"),
        ("bytes=8-99", "bytes 8-9/10", "89"),
    ] {
        let part = get(range).await;
        assert_eq!(part.headers()["content-range"], content_range);
        assert_eq!(part.headers()["content-length"], body.len().to_string().as_str());
        assert_eq!(expect(part, 206, "").await, body);
    }
    for range in ["bytes=10-", "bytes=-0"] {
        let rejected = get(range).await;
        assert_eq!(rejected.headers()["content-range"], "bytes */10");
        expect(rejected, 416, "InvalidRange").await;
    }
    for range in ["bytes=0-1,3-4", "lines=1-2", "bytes=5-2"] {
        assert_eq!(expect(get(range).await, 200, "").await, "0123456789", "{range} is ignored");
    }
    let empty = server.http.get(server.sign_get("empty").await);
    expect(empty.header("range", "bytes=-5").send().await.unwrap(), 416, "InvalidRange").await;
    let whole = server.http.get(&url).send().await.unwrap();
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert_eq!(whole.headers()["content-type"], "application/octet-stream");
    server.end().await;
}

#[tokio::test]
async fn conditional_reads_and_response_overrides_are_obeyed() {
    let server = Server::start().await;
    server.put("k", b"0123456789").await;
    let url = server.sign_get("k").await;
    let first = server.http.get(&url).send().await.unwrap();
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let modified = first.headers()["last-modified"].to_str().unwrap().to_owned();
    let (past, future) = ("Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    for (name, value, status) in [
        ("if-match", etag.as_str(), 200),
        ("if-match", "\"other\"", 412),
        ("if-none-match", &etag, 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", &modified, 304),
        ("if-modified-since", past, 200),
        // A time in the future is ignored.
        ("if-modified-since", future, 200),
        ("if-unmodified-since", future, 200),
        ("if-unmodified-since", past, 412),
    ] {
        let answer = server.http.get(&url).header(name, value).send().await.unwrap();
        if status == 304 {
            assert_eq!(answer.headers()["etag"], etag.as_str());
            assert_eq!(expect(answer, 304, "").await, "");
        } else {
            expect(answer, status, "").await;
        }
        let head = server.http.head(
            server
                .s3
                .head_object()
                .bucket(BUCKET)
                .key("k")
                .presigned(PresigningConfig::expires_in(Duration::from_secs(60)).unwrap())
                .await
                .unwrap()
                .uri(),
        );
        assert_eq!(head.header(name, value).send().await.unwrap().status().as_u16(), status);
    }
    let get = server.s3.get_object().bucket(BUCKET).key("k").response_content_type("image/png");
    let get = get.response_cache_control("private, max-age=300").response_content_disposition("attachment");
    let lifetime = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let answer = server.http.get(get.presigned(lifetime).await.unwrap().uri()).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(answer.headers()["cache-control"], "private, max-age=300");
    assert_eq!(answer.headers()["content-disposition"], "attachment");
    server.end().await;
}

#[tokio::test]
async fn listings_are_paged() {
    let server = Server::start().await;
    for key in ["a/1", "a/2", "b", "c/1", "c/x/1", "d"] {
        server.put(key, b"x").await;
    }
    let mut keys = Vec::new();
    let mut pages = server.s3.list_objects_v2().bucket(BUCKET).delimiter("/").into_paginator().page_size(1).send();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert_eq!(page.key_count(), Some(1));
        keys.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        keys.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
    }
    assert_eq!(keys, ["a/", "b", "c/", "d"]);
    let list = server.s3.list_objects_v2().bucket(BUCKET).prefix("c/").delimiter("/").send().await.unwrap();
    assert_eq!(list.contents().len(), 1);
    assert_eq!(list.common_prefixes()[0].prefix(), Some("c/x/"));
    let after = server.s3.list_objects_v2().bucket(BUCKET).start_after("b").max_keys(2).send().await.unwrap();
    assert_eq!(after.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), ["c/1", "c/x/1"]);
    assert_eq!(after.is_truncated(), Some(true));
    let token = server.s3.list_objects_v2().bucket(BUCKET).continuation_token("???").send().await;
    assert_eq!(token.unwrap_err().code(), Some("InvalidArgument"));

    let mut versions = Vec::new();
    let mut marker = None;
    loop {
        let page = server.s3.list_object_versions().bucket(BUCKET).prefix("c").max_keys(1).set_key_marker(marker);
        let page = page.send().await.unwrap();
        versions.extend(
            page.versions().iter().map(|version| (version.key().unwrap().to_owned(), version.version_id().unwrap().to_owned())),
        );
        if page.is_truncated() != Some(true) {
            break;
        }
        marker = page.next_key_marker().map(str::to_owned);
    }
    assert_eq!(versions, [("c/1".to_owned(), "null".to_owned()), ("c/x/1".to_owned(), "null".to_owned())]);
    let v1 = server.s3.list_objects().bucket(BUCKET).delimiter("/").send().await.unwrap();
    assert_eq!((v1.contents().len(), v1.common_prefixes().len()), (2, 2));

    let id = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let batch = Delete::builder().objects(id("a/1")).objects(id("missing")).objects(id("d")).build().unwrap();
    let done = server.s3.delete_objects().bucket(BUCKET).delete(batch).send().await.unwrap();
    assert_eq!((done.deleted().len(), done.errors().len()), (3, 0));
    let listing = server.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listing.contents().len(), 4);
    server.end().await;
}

#[tokio::test]
async fn list_of_entity_tags_is_parsed() {
    let server = Server::start().await;
    server.put("a", b"ten bytes!").await;
    let tag = server.s3.head_object().bucket(BUCKET).key("a").send().await.unwrap().e_tag().unwrap().to_owned();
    for (listed, status) in [(format!("\"x\", {tag}"), 304), (format!("W/{tag}, \"x\""), 304), ("\"x\", \"y\"".to_owned(), 200)] {
        let answer = server.http.get(server.sign_get("a").await).header("if-none-match", &listed).send().await.unwrap();
        assert_eq!(answer.status(), status, "{listed}");
        let expected = if status == 304 { 200 } else { 412 };
        let answer = server.http.get(server.sign_get("a").await).header("if-match", &listed).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{listed}");
        let head = server.s3.head_object().bucket(BUCKET).key("a").if_match(&listed).send().await;
        assert_eq!(head.is_ok(), expected == 200, "{listed}");
    }
    server.end().await;
}

/// As on AWS, a range that cannot be parsed is ignored, and still part of the signature that covers it.
#[tokio::test]
async fn signed_ranges_are_verified_and_malformed_ones_ignored() {
    let server = Server::start().await;
    server.put("k", b"0123456789").await;
    for (range, status, body) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=7-", 206, "789"),
        ("bytes=-2", 206, "89"),
        ("bytes=10-", 416, ""),
        ("bytes=5-2", 200, "0123456789"),
        ("bytes=0-1,3-4", 200, "0123456789"),
        ("bytes=a-b", 200, "0123456789"),
        ("bytes=", 200, "0123456789"),
        ("lines=1-2", 200, "0123456789"),
        ("none", 200, "0123456789"),
    ] {
        let lifetime = PresigningConfig::expires_in(Duration::from_secs(600)).unwrap();
        let get = || server.s3.get_object().bucket(BUCKET).key("k").range(range);
        let signed = get().presigned(lifetime).await.unwrap();
        assert!(signed.uri().contains("range"), "{}", signed.uri());
        let answer = replay(&server.http, &signed).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers().contains_key("content-range")),
            (status, status != 200),
            "{range}"
        );
        let sent = expect(answer, status, if body.is_empty() { "InvalidRange" } else { "" }).await;
        assert!(body.is_empty() || sent == body, "{range}: {sent}");
        // The SDK signs the same range in `Authorization`.
        match get().send().await {
            Ok(answer) => assert_eq!(answer.body.collect().await.unwrap().to_vec(), body.as_bytes(), "{range}"),
            Err(error) => assert!(body.is_empty(), "{range}: {error:?}"),
        }
        let head = server.s3.head_object().bucket(BUCKET).key("k").range(range).send().await;
        let length = head.ok().and_then(|head| head.content_length()).unwrap_or(0);
        assert_eq!(length, i64::try_from(body.len()).unwrap(), "{range}");
        // A signed range cannot be replaced or left out.
        for other in [None, Some("bytes=b-a"), Some("bytes=0-1")] {
            let request = server.http.get(signed.uri());
            let request = if let Some(other) = other { request.header("range", other) } else { request };
            expect(request.send().await.unwrap(), 403, "").await;
        }
    }
    let mut forged = server.sign_get("k").await;
    let at = forged.find("X-Amz-Signature=").unwrap() + "X-Amz-Signature=".len();
    let other = if forged[at..].starts_with('0') { "1" } else { "0" };
    forged.replace_range(at..=at, other);
    expect(server.http.get(forged).header("range", "lines=1-2").send().await.unwrap(), 403, "").await;
    server.end().await;
}
