//! Tests of the signer: the published vectors, forms, expiry, addresses, redaction in `Debug`, and equality with aws-sdk-s3's
//! presigner over random inputs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use aws_sdk_s3::{
    config::{BehaviorVersion, Region},
    presigning::PresigningConfig,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use secrecy::SecretString;
use time::{OffsetDateTime, macros::datetime};

use super::{
    AddressingStyle, AwsEndpoint, BucketLocation, BucketName, Credentials, CredentialsExpired, PostPolicy, PresignRequest,
    Presigned, Signer,
};

/// Parses the name of a bucket.
fn name(bucket: &str) -> BucketName {
    bucket.parse().unwrap()
}

/// Returns path style, or virtual-host style.
fn style(path_style: bool) -> AddressingStyle {
    if path_style { AddressingStyle::Path } else { AddressingStyle::VirtualHost }
}

/// Returns the location of a bucket at an endpoint.
fn at(endpoint: &str, bucket: &str, path_style: bool) -> BucketLocation {
    BucketLocation::endpoint(&endpoint.parse().unwrap(), &name(bucket), style(path_style))
}

/// Returns the credentials of the AWS documents, with this session token.
fn credentials(token: Option<&str>) -> Credentials {
    Credentials {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key: SecretString::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        session_token: token.map(SecretString::from),
        expires_at: None,
    }
}

#[test]
fn published_url_of_the_aws_document_is_signed() {
    let location = at("https://s3.amazonaws.com", "examplebucket", false);
    let signer = Signer::new(location, "us-east-1", credentials(None));
    let request = PresignRequest { method: "GET", key: "test.txt", headers: &[], query: &[] };
    let signed = signer.presign(&request, datetime!(2013-05-24 00:00 UTC), Duration::from_secs(86_400)).unwrap();
    assert_eq!(
        signed.url,
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z\
         &X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
    assert_eq!(signed.expires_at, datetime!(2013-05-25 00:00 UTC));
}

/// Presigns a request, and asserts that a series makes the same URL.
fn signed(signer: &Signer, request: &PresignRequest<'_>, signed_at: OffsetDateTime, ttl: Duration) -> Presigned {
    let alone = signer.presign(request, signed_at, ttl).unwrap();
    let series = signer.series(&PresignRequest { key: "another", ..*request }, signed_at, ttl).unwrap();
    let mut urls = b"before".to_vec();
    series.push_url(request.key, &mut urls);
    series.push_url(request.key, &mut urls);
    assert_eq!(String::from_utf8(urls).unwrap(), format!("before{url}{url}", url = alone.url));
    assert_eq!(series.expires_at(), alone.expires_at);
    alone
}

/// Signs the policy of the AWS document "Example: Browser-Based Upload using HTTP POST", byte for byte.
#[test]
fn published_policy_of_the_aws_document_is_signed() {
    let policy = [
        r#"{ "expiration": "2015-12-30T12:00:00.000Z","#,
        r#"  "conditions": ["#,
        r#"    {"bucket": "sigv4examplebucket"},"#,
        r#"    ["starts-with", "$key", "user/user1/"],"#,
        r#"    {"acl": "public-read"},"#,
        r#"    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},"#,
        r#"    ["starts-with", "$Content-Type", "image/"],"#,
        r#"    {"x-amz-meta-uuid": "14365123651274"},"#,
        r#"    {"x-amz-server-side-encryption": "AES256"},"#,
        r#"    ["starts-with", "$x-amz-meta-tag", ""],"#,
        "",
        r#"    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},"#,
        r#"    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},"#,
        r#"    {"x-amz-date": "20151229T000000Z" }"#,
        "  ]",
        "}",
    ];
    let signer = Signer::new(
        BucketLocation::aws("us-east-1", &name("sigv4examplebucket"), AddressingStyle::VirtualHost, AwsEndpoint::default())
            .unwrap(),
        "us-east-1",
        credentials(None),
    );
    let day = signer.day(datetime!(2015-12-29 00:00 UTC));
    assert_eq!(day.credential, "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request");
    assert_eq!(
        super::post_policy::sign_policy(&day.key, &STANDARD.encode(policy.join("\r\n"))),
        "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"
    );
}

#[test]
fn policy_of_a_form_has_a_condition_for_each_field() {
    let keys = Credentials { expires_at: Some(datetime!(2026-11-22 10:04 UTC)), ..credentials(Some("to/ken")) };
    let signer = Signer::new(at("http://localhost:9000", "bucket", true), "eu-west-3", keys);
    let fields = [("key", "in/a \"1\".png"), ("content-type", "image/png")];
    let form = PostPolicy { fields: &fields, prefixes: &[("x-amz-meta-name", "")], length: 1..=50 };
    let signed = signer.sign_form(&form, datetime!(2026-11-22 10:00:00.5 UTC), Duration::from_secs(3600)).unwrap();
    assert_eq!(signed.url, "http://localhost:9000/bucket");
    assert_eq!(signed.expires_at, datetime!(2026-11-22 10:04 UTC), "the form expires with the credentials");
    let names: Vec<_> = signed.fields.iter().map(|(name, _)| name.as_str()).collect();
    let signature_fields =
        ["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-security-token", "policy", "x-amz-signature"];
    assert_eq!(names, [["key", "content-type"].as_slice(), &signature_fields].concat());
    let policy = &signed.fields[6].1;
    assert_eq!(signed.fields[7].1, super::post_policy::sign_policy(&signer.day(datetime!(2026-11-22 23:59 UTC)).key, policy));
    let policy: serde_json::Value = serde_json::from_slice(&STANDARD.decode(policy).unwrap()).unwrap();
    assert_eq!(
        policy,
        serde_json::json!({ "expiration": "2026-11-22T10:04:00Z", "conditions": [
            { "bucket": "bucket" }, { "key": "in/a \"1\".png" }, { "content-type": "image/png" },
            { "x-amz-algorithm": "AWS4-HMAC-SHA256" },
            { "x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20261122/eu-west-3/s3/aws4_request" },
            { "x-amz-date": "20261122T100000Z" }, { "x-amz-security-token": "to/ken" },
            ["starts-with", "$x-amz-meta-name", ""], ["content-length-range", 1, 50],
        ] })
    );
    let late = signer.sign_form(&form, datetime!(2026-11-22 10:04 UTC), Duration::from_secs(60));
    assert_eq!(late.unwrap_err(), CredentialsExpired);
}

#[test]
fn urls_of_several_days_are_appended_with_the_values_of_their_days() {
    let signer = Signer::new(
        BucketLocation::aws("us-east-1", &name("bucket"), AddressingStyle::VirtualHost, AwsEndpoint::default()).unwrap(),
        "us-east-1",
        credentials(None),
    );
    let request = PresignRequest { method: "GET", key: "k", headers: &[], query: &[] };
    let days = [datetime!(2026-11-21 23:59:59 UTC), datetime!(2026-11-22 00:00 UTC), datetime!(2026-11-23 00:00 UTC)];
    let ttl = Duration::from_secs(300);
    let urls: Vec<_> = days
        .map(|at| {
            let fresh = Signer::new(signer.location.clone(), "us-east-1", credentials(None));
            fresh.presign(&request, at, ttl).unwrap().url
        })
        .into();
    let mut out = b"before ".to_vec();
    for day in [0, 1, 0, 1, 2, 0] {
        signer.presign_into(&request, days[day], ttl, &mut out).unwrap();
        assert!(out.ends_with(urls[day].as_bytes()), "day {day}");
    }
    assert!(out.starts_with(format!("before {}{}{}", urls[0], urls[1], urls[0]).as_bytes()));
}

#[test]
fn a_url_does_not_outlive_its_credentials() {
    let now = datetime!(2026-11-22 10:00 UTC);
    let signer = |lifetime: Duration| {
        let credentials = Credentials { expires_at: Some(now + lifetime), ..credentials(Some("token")) };
        Signer::new(
            BucketLocation::aws("eu-central-1", &name("bucket"), AddressingStyle::VirtualHost, AwsEndpoint::default()).unwrap(),
            "eu-central-1",
            credentials,
        )
    };
    let request = PresignRequest { method: "GET", key: "k", headers: &[], query: &[] };
    let short = signer(Duration::from_secs(60)).presign(&request, now, Duration::from_secs(300)).unwrap();
    assert_eq!(short.expires_at, now + Duration::from_secs(60));
    assert!(short.url.contains("X-Amz-Expires=60&X-Amz-Security-Token=token"));
    assert_eq!(signer(Duration::ZERO).presign(&request, now, Duration::from_secs(300)), Err(CredentialsExpired));
    let long = signer(Duration::from_secs(10_000_000)).presign(&request, now, Duration::from_secs(9_000_000)).unwrap();
    assert_eq!(long.expires_at, now + super::MAX_EXPIRES, "S3 rejects more than seven days");
}

#[test]
fn location_follows_from_endpoint_bucket_and_style() {
    let at = |endpoint, bucket, path_style| {
        let location = at(endpoint, bucket, path_style);
        (format!("{}{}", location.origin(), location.path()), location.host().to_owned())
    };
    assert_eq!(at("http://localhost:9000", "bucket", true), ("http://localhost:9000/bucket/".into(), "localhost:9000".into()));
    assert_eq!(at("http://127.0.0.1:9000/", "bkt", false), ("http://127.0.0.1:9000/bkt/".into(), "127.0.0.1:9000".into()));
    assert_eq!(at("http://[::1]:9000", "bkt", false), ("http://[::1]:9000/bkt/".into(), "[::1]:9000".into()));
    assert_eq!(at("https://s3.example:443", "bkt", false), ("https://bkt.s3.example/".into(), "bkt.s3.example".into()));
    assert_eq!(at("https://s3.example/", "a.b", false), ("https://s3.example/a.b/".into(), "s3.example".into()));
    for bad in ["", "us east", "us/east", "US-EAST-1", "us.east@evil"] {
        assert!(BucketLocation::aws(bad, &name("bucket"), AddressingStyle::Path, AwsEndpoint::default()).is_err(), "{bad}");
    }
}

/// Compares the addresses with those that aws-sdk-s3 calls.
#[test]
fn endpoints_of_aws_are_those_of_the_sdk() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // One of each partition, and one that is not known yet.
    let regions = [
        "us-east-1",
        "us-gov-west-1",
        "eu-central-1",
        "cn-north-1",
        "eusc-de-east-1",
        "us-iso-east-1",
        "us-isob-east-1",
        "us-isof-south-1",
        "eu-isoe-west-1",
        "eu-isoe-north-9",
        "ap-somewhere-7",
    ];
    for region in regions {
        for (fips, dualstack) in [(false, false), (true, false), (false, true), (true, true)] {
            for (bucket, path_style) in [("bucket", false), ("bucket", true), ("my.bucket", false)] {
                let ours =
                    BucketLocation::aws(region, &name(bucket), style(path_style), AwsEndpoint { fips, dualstack }).unwrap();
                let config = aws_sdk_s3::Config::builder()
                    .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
                    .region(aws_sdk_s3::config::Region::new(region))
                    .credentials_provider(aws_sdk_s3::config::Credentials::new("k", "s", None, None, "test"))
                    .use_fips(fips)
                    .use_dual_stack(dualstack)
                    .force_path_style(path_style)
                    .build();
                let expiry = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
                let get = aws_sdk_s3::Client::from_conf(config).get_object().bucket(bucket).key("k");
                let Ok(theirs) = runtime.block_on(get.presigned(expiry)) else {
                    // The partition has no FIPS or dual-stack endpoints.
                    assert!(fips || dualstack, "{region} {fips} {dualstack}");
                    continue;
                };
                let theirs = theirs.uri().split('?').next().unwrap().to_owned();
                assert_eq!(format!("{}{}k", ours.origin(), ours.path()), theirs);
            }
        }
    }
}

#[test]
fn debug_shows_no_secret_and_no_query() {
    let signer = Signer::new(
        BucketLocation::aws("us-east-1", &name("bucket"), AddressingStyle::VirtualHost, AwsEndpoint::default()).unwrap(),
        "us-east-1",
        credentials(Some("canary-token")),
    );
    let request = PresignRequest { method: "GET", key: "k", headers: &[], query: &[] };
    let signed = signer.presign(&request, datetime!(2026-11-22 10:00 UTC), Duration::from_secs(300)).unwrap();
    let text = format!("{signer:?} {signed:?} {:?}", signer.credentials);
    let form = signer.sign_form(
        &PostPolicy { fields: &[], prefixes: &[], length: 0..=1 },
        datetime!(2026-11-22 10:00 UTC),
        Duration::from_secs(300),
    );
    let text = format!("{text} {form:?}");
    for secret in ["wJalr", "canary-token", "X-Amz"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Returns the path, and the query as a set of raw pairs.
fn parts(url: &str) -> (String, BTreeSet<String>) {
    let (path, query) = url.split_once('?').unwrap();
    (path.to_owned(), query.split('&').map(str::to_owned).collect())
}

/// Returns an endpoint with this port; the URL omits the default port of the scheme.
fn endpoint(port: u16) -> String {
    if port == 80 { "http://s3.example".to_owned() } else { format!("http://s3.example:{port}") }
}

/// Returns a client of aws-sdk-s3 with the same credentials and region.
fn client(token: Option<String>, path_style: bool, port: u16) -> aws_sdk_s3::Client {
    let keys = aws_credential_types::Credentials::new(
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        token,
        None,
        "test",
    );
    aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-3"))
            .endpoint_url(endpoint(port))
            .force_path_style(path_style)
            .credentials_provider(keys)
            .build(),
    )
}

/// The call to sign.
#[derive(Debug, Clone, Copy)]
enum Call {
    Get,
    Put,
    Part,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    /// Every signed part equals that of aws-sdk-s3, for any key, digest, part, override, token, port and time.
    #[test]
    fn urls_equal_those_of_the_sdk_presigner(
        // The SDK rejects a key of only spaces.
        key in "[!-~äß漢🦀][ -~äß漢🦀]{0,60}",
        disposition in proptest::option::of("[ -~é]{1,30}"),
        token in proptest::option::of("[A-Za-z0-9+/=]{1,80}"),
        path_style: bool,
        call in prop_oneof![Just(Call::Get), Just(Call::Put), Just(Call::Part)],
        number in 1i32..=10_000,
        upload_id in "[!-~]{1,120}",
        has_digest: bool,
        size in 1u64..5_000_000_000,
        port in prop_oneof![Just(80u16), 1024u16..],
        instant in 0i64..4_000_000_000,
        ttl in 1u64..604_800,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let signed_at = OffsetDateTime::from_unix_timestamp(instant).unwrap();
        let config = PresigningConfig::builder()
            .start_time(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(instant).unwrap()))
            .expires_in(Duration::from_secs(ttl)).build().unwrap();
        let location = BucketLocation::endpoint(&endpoint(port).parse().unwrap(), &name("bucket"), style(path_style));
        let keys = Credentials { session_token: token.clone().map(SecretString::from), ..credentials(None) };
        let signer = Signer::new(location, "eu-west-3", keys);
        let sdk = client(token, path_style, port);
        let size = size.to_string();
        let digest = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let (theirs, ours) = if let Call::Part = call {
            let part = sdk.upload_part().bucket("bucket").key(&key).upload_id(&upload_id).part_number(number)
                .content_length(size.parse().unwrap()).set_checksum_sha256(has_digest.then(|| digest.to_owned()));
            let mut headers = vec![("content-length", size.as_str())];
            headers.extend(has_digest.then_some(("x-amz-checksum-sha256", digest)));
            let theirs = runtime.block_on(part.presigned(config)).unwrap();
            prop_assert_eq!(theirs.headers().collect::<Vec<_>>(), headers.clone());
            let number = number.to_string();
            let query = [("uploadId", upload_id.as_str()), ("x-id", "UploadPart"), ("partNumber", number.as_str())];
            let request = PresignRequest { method: "PUT", key: &key, headers: &headers, query: &query };
            (theirs, signed(&signer, &request, signed_at, Duration::from_secs(ttl)))
        } else if let Call::Put = call {
            let put = sdk.put_object().bucket("bucket").key(&key).content_type("image/jpeg").content_length(size.parse().unwrap())
                .checksum_sha256(digest).if_none_match("*");
            let (length, checksum) = (("content-length", size.as_str()), ("x-amz-checksum-sha256", digest));
            let headers = [length, ("content-type", "image/jpeg"), ("if-none-match", "*"), checksum];
            let theirs = runtime.block_on(put.presigned(config)).unwrap();
            let sent: BTreeSet<_> = theirs.headers().collect();
            prop_assert_eq!(sent, BTreeSet::from(headers));
            let request = PresignRequest { method: "PUT", key: &key, headers: &headers, query: &[("x-id", "PutObject")] };
            (theirs, signed(&signer, &request, signed_at, Duration::from_secs(ttl)))
        } else {
            let get = sdk.get_object().bucket("bucket").key(&key).set_response_content_disposition(disposition.clone());
            let theirs = runtime.block_on(get.response_content_type("image/png").presigned(config)).unwrap();
            let mut query = vec![("x-id", "GetObject"), ("response-content-type", "image/png")];
            query.extend(disposition.as_deref().map(|value| ("response-content-disposition", value)));
            let request = PresignRequest { method: "GET", key: &key, headers: &[], query: &query };
            (theirs, signed(&signer, &request, signed_at, Duration::from_secs(ttl)))
        };
        prop_assert_eq!(parts(theirs.uri()), parts(&ours.url));
    }
}
