//! Covers presigned requests: every signed header and parameter is enforced, and no other `x-amz-*` header is accepted.

use super::{
    ACCESS, BUCKET, ByteStream, Duration, PresigningConfig, SECRET, STANDARD, Server, SystemTime, client, expect, hours, replay,
    sha256,
};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use base64::Engine as _;
use futures_util::stream;

#[tokio::test]
async fn put_is_stored_once_with_its_digest() {
    let server = Server::start().await;
    let body = b"the picture".to_vec();
    let signed = server.sign_put("u/1/a", &body).await;
    let put = replay(&server.http, &signed).body(body.clone()).send().await.unwrap();
    assert_eq!(put.headers()["x-amz-checksum-sha256"], sha256(&body).as_str());
    assert_eq!(put.headers()["x-amz-checksum-type"], "FULL_OBJECT");
    expect(put, 200, "").await;
    let again = replay(&server.http, &signed).body(body.clone()).send().await.unwrap();
    expect(again, 412, "PreconditionFailed").await;

    let head = server.s3.head_object().bucket(BUCKET).key("u/1/a");
    let head = head.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.content_length(), Some(11));
    assert_eq!(head.content_type(), Some("image/jpeg"));
    assert_eq!(head.checksum_sha256(), Some(sha256(&body).as_str()));
    assert_eq!(head.e_tag(), Some("\"3848d71afb6d970a4c43d55e852e5b4a\""));
    assert_eq!(server.read("u/1/a").await, body);

    // After a delete an unexpired URL works again, as on AWS.
    server.s3.delete_object().bucket(BUCKET).key("u/1/a").send().await.unwrap();
    expect(replay(&server.http, &signed).body(body).send().await.unwrap(), 200, "").await;
    server.end().await;
}

#[tokio::test]
async fn other_bytes_are_rejected_and_not_stored() {
    let server = Server::start().await;
    let signed = server.sign_put("k", b"the picture").await;
    let put = replay(&server.http, &signed).body("the Picture").send().await.unwrap();
    expect(put, 400, "BadDigest").await;
    assert!(!server.exists("k").await);
    assert_eq!(server.temporary_files(), 0, "the rejected bytes are deleted");
    server.end().await;
}

#[tokio::test]
async fn content_md5_is_checked() {
    let server = Server::start().await;
    let wrong = STANDARD.encode([7; 16]);
    for (md5, code) in [(wrong.as_str(), "BadDigest"), ("nonsense", "InvalidDigest")] {
        let put = server.s3.put_object().bucket(BUCKET).key("k").content_md5(md5);
        let error = put.body(ByteStream::from_static(b"x")).send().await.unwrap_err();
        assert_eq!(error.code(), Some(code));
    }
    assert!(!server.exists("k").await);
    // The MD5 of "x".
    let right = server.s3.put_object().bucket(BUCKET).key("k").content_md5("ndTkYSaMgDT1yFZOFVxnpg==");
    right.body(ByteStream::from_static(b"x")).send().await.unwrap();
    assert_eq!(server.temporary_files(), 0);
    server.end().await;
}

#[tokio::test]
async fn every_signed_header_is_enforced() {
    let server = Server::start().await;
    let body = b"the picture";
    let signed = server.sign_put("k", body).await;
    let names: Vec<String> = signed.headers().map(|(name, _)| name.to_owned()).collect();
    for needed in ["content-type", "content-length", "x-amz-checksum-sha256", "if-none-match"] {
        assert!(names.iter().any(|name| name == needed), "{needed} is signed: {names:?}");
    }
    let other = sha256(b"another picture");
    for name in &names {
        let value = match name.as_str() {
            "content-type" => "text/html",
            "content-length" => "12",
            "x-amz-checksum-sha256" => other.as_str(),
            "if-none-match" => "\"0\"",
            other => panic!("{other} is signed and untested"),
        };
        let sent = if name == "content-length" { b"the picture!".to_vec() } else { body.to_vec() };
        let headers =
            signed.headers().map(|(signed_name, signed)| (signed_name, if signed_name == name { value } else { signed }));
        let put = headers.fold(server.http.put(signed.uri()), |request, (name, value)| request.header(name, value));
        expect(put.body(sent).send().await.unwrap(), 403, "SignatureDoesNotMatch").await;
        if name != "content-length" {
            let other_headers = signed.headers().filter(|(signed_name, _)| signed_name != name);
            let put = other_headers.fold(server.http.put(signed.uri()), |request, (name, value)| request.header(name, value));
            expect(put.body(body.to_vec()).send().await.unwrap(), 403, "SignatureDoesNotMatch").await;
        }
    }
    assert!(!server.exists("k").await);
    server.end().await;
}

#[tokio::test]
async fn key_method_and_signature_are_enforced() {
    let server = Server::start().await;
    let body = b"the picture".to_vec();
    let signed = server.sign_put("k1", &body).await;
    let headers =
        |request: reqwest::RequestBuilder| signed.headers().fold(request, |request, (name, value)| request.header(name, value));
    let other_key = signed.uri().replace("/k1?", "/k2?");
    expect(headers(server.http.put(other_key)).body(body.clone()).send().await.unwrap(), 403, "SignatureDoesNotMatch").await;
    let at = signed.uri().find("X-Amz-Signature=").unwrap() + "X-Amz-Signature=".len();
    let mut broken = signed.uri().to_owned();
    let digit = if &broken[at..=at] == "0" { "1" } else { "0" };
    broken.replace_range(at..=at, digit);
    expect(headers(server.http.put(broken)).body(body.clone()).send().await.unwrap(), 403, "SignatureDoesNotMatch").await;
    server.put("k1", b"x").await;
    assert_eq!(server.http.get(signed.uri()).send().await.unwrap().status(), 403);
    let stranger = client(&server.base, "someone", SECRET).get_object().bucket(BUCKET).key("k1").send().await;
    assert_eq!(stranger.unwrap_err().code(), Some("InvalidAccessKeyId"));
    let guesser = client(&server.base, ACCESS, "guess").get_object().bucket(BUCKET).key("k1").send().await;
    assert_eq!(guesser.unwrap_err().code(), Some("SignatureDoesNotMatch"));
    expect(server.http.get(format!("{}/{BUCKET}/k1", server.base)).send().await.unwrap(), 403, "AccessDenied").await;
    server.end().await;
}

#[tokio::test]
async fn unsigned_amz_header_is_rejected() {
    let server = Server::start().await;
    let body = b"the picture".to_vec();
    let signed = server.sign_put("k", &body).await;
    for (name, value) in [("x-amz-meta-foo", "bar"), ("X-Amz-Tagging", "a=b"), ("x-amz-acl", "public-read")] {
        let put = replay(&server.http, &signed).header(name, value).body(body.clone()).send().await.unwrap();
        let text = expect(put, 403, "AccessDenied").await;
        assert!(text.contains("not signed") && text.contains(&name.to_ascii_lowercase()), "{text}");
    }
    assert!(!server.exists("k").await);
    // Other extra headers are ignored.
    let put = replay(&server.http, &signed).header("x-custom", "1").body(body).send().await.unwrap();
    expect(put, 200, "").await;
    server.end().await;
}

#[tokio::test]
async fn urls_expire() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let sign = async |start: SystemTime, seconds: u64| {
        let config = PresigningConfig::builder().start_time(start).expires_in(Duration::from_secs(seconds));
        let get = server.s3.get_object().bucket(BUCKET).key("k");
        get.presigned(config.build().unwrap()).await.unwrap().uri().to_owned()
    };
    let get = async |url: String| server.http.get(url).send().await.unwrap();
    expect(get(sign(hours(-1), 3000).await).await, 403, "AccessDenied").await;
    expect(get(sign(hours(-1), 4000).await).await, 200, "").await;
    assert_eq!(get(sign(hours(24), 600).await).await.status(), 403, "a URL signed for tomorrow is rejected");
    expect(get(sign(hours(0), 604_800).await).await, 200, "").await;
    let week = sign(hours(0), 604_800).await;
    for bad in ["604801", "0", "-1", "4294967296", ""] {
        let url = week.replace("X-Amz-Expires=604800", &format!("X-Amz-Expires={bad}"));
        expect(get(url).await, 400, "AuthorizationQueryParametersError").await;
    }
    let v2 = format!("{}/{BUCKET}/k?AWSAccessKeyId={ACCESS}&Expires=4102444800&Signature=abc", server.base);
    expect(get(v2).await, 400, "InvalidRequest").await;
    server.end().await;
}

/// Returns a body that is sent in pieces of 4 bytes, one every 10 ms.
fn slowly(body: &[u8]) -> reqwest::Body {
    let pieces: Vec<Vec<u8>> = body.chunks(4).map(<[u8]>::to_vec).collect();
    reqwest::Body::wrap_stream(stream::unfold(pieces.into_iter(), |mut pieces| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        pieces.next().map(|piece| (Ok::<_, std::io::Error>(piece), pieces))
    }))
}

#[tokio::test]
async fn one_of_two_overlapping_puts_wins() {
    let server = Server::start().await;
    for round in 0..20 {
        let key = format!("k{round}");
        let (a, b) = (b"AAAAAAAAAAAA", b"BBBBBBBBBBBB");
        let (sign_a, sign_b) = (server.sign_put(&key, a).await, server.sign_put(&key, b).await);
        let (put_a, put_b) = tokio::join!(
            replay(&server.http, &sign_a).body(slowly(a)).send(),
            replay(&server.http, &sign_b).body(slowly(b)).send()
        );
        let (a_status, b_status) = (put_a.unwrap().status().as_u16(), put_b.unwrap().status().as_u16());
        let mut statuses = [a_status, b_status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412]);
        let won: &[u8] = if a_status == 200 { a } else { b };
        assert_eq!(server.read(&key).await, won, "the stored bytes are those of the PUT that was answered 200");
    }
    assert_eq!(server.temporary_files(), 0);
    server.end().await;
}

#[tokio::test]
async fn large_rejected_put_gets_its_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = Server::start().await;
    let body = vec![7_u8; 24 << 20];
    server.put("k", b"first").await;
    let signed = server.sign_put("k", &body).await;
    let host = server.base.strip_prefix("http://").unwrap();
    let path = signed.uri().strip_prefix(&server.base).unwrap();
    for (extra, status) in [("", "412"), ("x-amz-meta-a: b\r\n", "403")] {
        let mut head = format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{extra}");
        for (name, value) in signed.headers() {
            head += &format!("{name}: {value}\r\n");
        }
        // Like a browser, the client reads no answer before it has sent the whole body, and fails if the connection is reset.
        let mut socket = tokio::net::TcpStream::connect(host).await.unwrap();
        socket.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        socket.write_all(&body).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn body_needs_a_length_and_must_match_its_hash() {
    let server = Server::start().await;
    let lifetime = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = server.s3.put_object().bucket(BUCKET).key("k");
    let signed = put.presigned(lifetime).await.unwrap();
    let chunked = replay(&server.http, &signed).body(slowly(b"no length"));
    expect(chunked.send().await.unwrap(), 411, "MissingContentLength").await;
    let get = server.sign_get("k").await;
    let hashed = server.http.get(&get).header("x-amz-content-sha256", "0".repeat(64));
    expect(hashed.send().await.unwrap(), 403, "AccessDenied").await;
    assert!(!server.exists("k").await);
    assert_eq!(server.temporary_files(), 0);
    server.end().await;
}

/// Errors have AWS's codes and members, so that experience with this server applies to AWS.
#[tokio::test]
async fn malformed_queries_and_other_regions_are_rejected_like_aws() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let url = server.sign_get("k").await;
    let get = async |url: String| server.http.get(url).send().await.unwrap();
    let url_without = |name: &str| {
        let (head, query) = url.split_once('?').unwrap();
        let others: Vec<_> = query.split('&').filter(|pair| !pair.starts_with(name)).collect();
        format!("{head}?{}", others.join("&"))
    };
    let url_with = |name: &str, value: &str| format!("{}&{name}={value}", url_without(name));
    let scope = |region: &str, service: &str| {
        url_with("X-Amz-Credential", &format!("{ACCESS}%2F20260101%2F{region}%2F{service}%2Faws4_request"))
    };
    for (case, url, expected) in [
        ("no algorithm", url_without("X-Amz-Algorithm"), "requires the X-Amz-Algorithm"),
        ("no credential", url_without("X-Amz-Credential"), "requires the X-Amz-Algorithm"),
        ("no date", url_without("X-Amz-Date"), "requires the X-Amz-Algorithm"),
        ("no signed headers", url_without("X-Amz-SignedHeaders"), "requires the X-Amz-Algorithm"),
        ("no life", url_without("X-Amz-Expires"), "requires the X-Amz-Algorithm"),
        ("algorithm", url_with("X-Amz-Algorithm", "AWS4-HMAC-SHA1"), "only supports"),
        ("date", url_with("X-Amz-Date", "yesterday"), "X-Amz-Date must be"),
        ("day", url_with("X-Amz-Date", "20260101T000000Z"), "This date is not the same as X-Amz-Date: &quot;20260101&quot;"),
        ("credential", url_with("X-Amz-Credential", "abc"), "mal-formed"),
        ("service", scope("us-east-1", "ec2"), "incorrect service"),
        ("region", scope("eu-west-1", "s3"), "the region &apos;eu-west-1&apos; is wrong; expecting &apos;us-east-1&apos;"),
    ] {
        let text = expect(get(url).await, 400, "AuthorizationQueryParametersError").await;
        assert!(text.contains(expected), "{case}: {text}");
        for member in ["<Resource>/photos/k</Resource>", "<RequestId>", "<HostId>"] {
            assert!(text.contains(member), "{case}: {text}");
        }
        assert_eq!(text.contains("<Region>us-east-1</Region>"), case == "region", "{case}: {text}");
    }
    let header = server.http.get(format!("{}/{BUCKET}/k", server.base));
    let header = header.header(
        "authorization",
        format!("AWS4-HMAC-SHA256 Credential={ACCESS}/20260101/US/s3/aws4_request,SignedHeaders=host,Signature=0"),
    );
    let text = expect(header.send().await.unwrap(), 400, "AuthorizationHeaderMalformed").await;
    assert!(text.contains("<Region>us-east-1</Region>"), "{text}");
    server.end().await;
}

#[tokio::test]
async fn times_and_conditions_are_rejected_like_aws() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let get = async |url: String| server.http.get(url).send().await.unwrap();
    let dated = |age: i64, seconds: u64| {
        let config = PresigningConfig::builder().start_time(hours(age)).expires_in(Duration::from_secs(seconds)).build().unwrap();
        server.s3.get_object().bucket(BUCKET).key("k").presigned(config)
    };
    let expired = dated(-1, 600).await.unwrap();
    let text = expect(get(expired.uri().to_owned()).await, 403, "AccessDenied").await;
    assert!(
        text.contains("<X-Amz-Expires>600</X-Amz-Expires>") && text.contains("<ServerTime>") && text.contains("has expired"),
        "{text}"
    );
    let early = dated(1, 600).await.unwrap();
    let text = expect(get(early.uri().to_owned()).await, 403, "AccessDenied").await;
    assert!(text.contains("not yet valid"), "{text}");

    let body = b"the picture".to_vec();
    let put = server.sign_put("once", &body).await;
    expect(replay(&server.http, &put).body(body.clone()).send().await.unwrap(), 200, "").await;
    let text = expect(replay(&server.http, &put).body(body).send().await.unwrap(), 412, "PreconditionFailed").await;
    assert!(text.contains("<Condition>If-None-Match</Condition>"), "{text}");
    server.end().await;
}

/// Returns a presigned URL of the object `k` with further query parameters.
fn sign(signer: &valet::signer::Signer, method: &'static str, query: &[(&'static str, &str)]) -> String {
    let request = valet::signer::PresignRequest { method, key: "k", headers: &[], query };
    signer.presign(&request, time::OffsetDateTime::now_utc(), Duration::from_secs(60)).unwrap().url
}

/// Parameters that a presigner puts into the query instead of headers are obeyed: metadata of a PUT, overrides of a HEAD.
#[tokio::test]
async fn headers_in_the_signed_query_are_obeyed() {
    let server = Server::start().await;
    let keys = valet::signer::Credentials {
        access_key_id: ACCESS.to_owned(),
        secret_access_key: SECRET.into(),
        session_token: None,
        expires_at: None,
    };
    let location = valet::signer::BucketLocation::endpoint(
        &server.base.parse().unwrap(),
        &BUCKET.parse().unwrap(),
        valet::signer::AddressingStyle::Path,
    );
    let signer = valet::signer::Signer::new(location, "us-east-1", keys);
    let sign = |method: &'static str, query: &[(&'static str, &str)]| sign(&signer, method, query);
    let put = server.http.put(sign("PUT", &[("x-amz-meta-place", "Malmo")])).body("ten bytes!").send().await.unwrap();
    expect(put, 200, "").await;
    let head = server.s3.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.metadata().and_then(|metadata| metadata.get("place")).map(String::as_str), Some("Malmo"));
    let query = [("response-cache-control", "no-store"), ("response-content-type", "image/webp")];
    let head = server.http.head(sign("HEAD", &query)).send().await.unwrap();
    assert_eq!(
        (&head.headers()["content-type"], &head.headers()["cache-control"]),
        (&"image/webp".parse().unwrap(), &"no-store".parse().unwrap())
    );
    server.end().await;
}
