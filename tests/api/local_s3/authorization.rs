//! Covers the `Authorization` header: its date, and rejections like those of AWS.

use super::{ACCESS, BUCKET, Response, SECRET, Server, expect};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use time::macros::format_description;

/// Header of a request whose body is not signed.
const UNSIGNED: (&str, &str) = ("x-amz-content-sha256", "UNSIGNED-PAYLOAD");

/// Formats a time as `x-amz-date`.
fn basic(at: OffsetDateTime) -> String {
    at.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap()
}

/// Formats a time as `date`.
fn http_date(at: OffsetDateTime) -> String {
    at.format(&Rfc2822).unwrap().replace("+0000", "GMT")
}

/// Returns the `Authorization` of a GET of the object `k` with these headers and the host ("Signature Calculations for the
/// Authorization Header" in the S3 API reference).
fn authorization(server: &Server, at: OffsetDateTime, headers: &[(&str, String)]) -> String {
    let host = server.base.strip_prefix("http://").unwrap();
    let mut signed: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    signed.extend([("host", host), UNSIGNED]);
    signed.sort_unstable();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let request = format!("GET\n/{BUCKET}/k\n\n{lines}\n{names}\nUNSIGNED-PAYLOAD");
    let (time, day) = (basic(at), basic(at)[..8].to_owned());
    let scope = format!("{day}/us-east-1/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(digest(&SHA256, request.as_bytes())));
    let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| mac(&key, part));
    let signature = hex::encode(mac(&key, &text));
    format!("AWS4-HMAC-SHA256 Credential={ACCESS}/{scope}, SignedHeaders={names}, Signature={signature}")
}

/// Requests an object with this `authorization` header and further headers.
async fn get(server: &Server, authorization: &str, headers: &[(&str, String)]) -> Response {
    let request = server.http.get(format!("{}/{BUCKET}/k", server.base)).header("authorization", authorization);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
    request.header(UNSIGNED.0, UNSIGNED.1).send().await.unwrap()
}

#[tokio::test]
async fn date_of_a_signature_may_be_in_either_header() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let now = OffsetDateTime::now_utc();
    let old = now - time::Duration::minutes(20);
    let no_date = "AWS authentication requires a valid Date or x-amz-date header";
    for (case, at, headers, rejection) in [
        ("x-amz-date", now, vec![("x-amz-date", basic(now))], None),
        ("an HTTP date", now, vec![("date", http_date(now))], None),
        ("an ISO 8601 date", now, vec![("date", basic(now))], None),
        ("x-amz-date, which prevails", now, vec![("x-amz-date", basic(now)), ("date", http_date(old))], None),
        ("none", now, vec![], Some(("AccessDenied", no_date))),
        ("text", now, vec![("date", "yesterday".to_owned())], Some(("AccessDenied", no_date))),
        ("an HTTP date as x-amz-date", now, vec![("x-amz-date", http_date(now))], Some(("AccessDenied", no_date))),
        ("an old date", old, vec![("date", http_date(old))], Some(("RequestTimeTooSkewed", "<RequestTime>"))),
        ("an old x-amz-date", old, vec![("x-amz-date", basic(old))], Some(("RequestTimeTooSkewed", "900000"))),
        (
            "another date than signed",
            now,
            vec![("x-amz-date", basic(now - time::Duration::SECOND))],
            Some(("SignatureDoesNotMatch", "")),
        ),
    ] {
        let answer = get(&server, &authorization(&server, at, &headers), &headers).await;
        match rejection {
            None => assert_eq!(answer.status(), 200, "{case}: {}", answer.text().await.unwrap()),
            Some((code, member)) => {
                let text = expect(answer, 403, code).await;
                assert!(text.contains(member), "{case}: {text}");
            }
        }
    }
    server.end().await;
}

#[tokio::test]
async fn malformed_authorization_is_rejected_like_on_aws() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let now = OffsetDateTime::now_utc();
    let headers = [("x-amz-date", basic(now))];
    let valid = authorization(&server, now, &headers);
    let day = basic(now)[..8].to_owned();
    let forged = format!("{}0", &valid[..valid.len() - 1]).replace("Signature=", "Signature=0");
    let malformed = "AuthorizationHeaderMalformed";
    for (case, value, status, code, member) in [
        ("another scheme", "Bearer abc".to_owned(), 400, "InvalidArgument", "Unsupported Authorization Type"),
        ("the algorithm alone", "AWS4-HMAC-SHA256".to_owned(), 400, malformed, "requires three components"),
        ("no signature", valid.split(", Signature").next().unwrap().to_owned(), 400, malformed, "requires three components"),
        ("a short credential", valid.replace("/aws4_request", ""), 400, malformed, "the Credential is mal-formed"),
        ("another service", valid.replace("/s3/", "/sts/"), 400, malformed, "incorrect service &quot;sts&quot;"),
        ("another day", valid.replace(&day, "20200101"), 400, malformed, "Invalid credential date &quot;20200101&quot;"),
        ("another region", valid.replace("us-east-1", "eu-west-1"), 400, malformed, "<Region>us-east-1</Region>"),
        ("a stranger", valid.replace(ACCESS, "AKIANOBODY"), 403, "InvalidAccessKeyId", "<AWSAccessKeyId>AKIANOBODY<"),
        ("another signature", forged, 403, "SignatureDoesNotMatch", "<Message>The request signature we calculated"),
        ("nothing", String::new(), 403, "AccessDenied", ""),
    ] {
        let text = expect(get(&server, &value, &headers).await, status, code).await;
        assert!(text.contains(member), "{case}: {text}");
    }
    let without_digest = server.http.get(format!("{}/{BUCKET}/k", server.base)).header("authorization", &valid);
    let without_digest = without_digest.header("x-amz-date", basic(now));
    let text = expect(without_digest.try_clone().unwrap().send().await.unwrap(), 400, "InvalidRequest").await;
    assert!(text.contains("Missing required header for this request: x-amz-content-sha256"), "{text}");
    let text = expect(without_digest.header("x-amz-content-sha256", "abc").send().await.unwrap(), 400, "InvalidArgument").await;
    assert!(text.contains("<ArgumentName>x-amz-content-sha256</ArgumentName><ArgumentValue>abc</ArgumentValue>"), "{text}");
    assert_eq!(get(&server, &valid, &headers).await.status(), 200);
    // The answer to a HEAD has no body, so a header names the region.
    let elsewhere = valid.replace("us-east-1", "eu-west-1");
    let head = server.http.head(format!("{}/{BUCKET}/k", server.base)).header("authorization", elsewhere);
    let head = head.header("x-amz-date", basic(now)).header("x-amz-content-sha256", "UNSIGNED-PAYLOAD").send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["x-amz-bucket-region"].to_str().unwrap()), (400, "us-east-1"));
    let bucket = server.s3.head_bucket().bucket(BUCKET).send().await.unwrap();
    assert_eq!(bucket.bucket_region(), Some("us-east-1"));
    server.end().await;
}
