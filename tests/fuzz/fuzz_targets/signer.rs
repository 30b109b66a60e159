//! Fuzzes presigned URLs and form policies, compared with aws-sigv4, the signer of AWS's own SDK. The input is text in parts
//! separated by NUL: endpoint, key, session token, upload id, two overrides of the answer's headers (disposition, language), media
//! type, digest; missing parts are empty.
#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials as Keys;
use aws_lc_rs::hmac;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::signer::{
    AddressingStyle, AwsEndpoint, BucketLocation, BucketName, Credentials, MAX_EXPIRES, PostPolicy, PresignRequest, Signer,
};

/// Access key id and secret of AWS's documentation.
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// Region of every URL.
const REGION: &str = "eu-west-3";

/// Returns the SigV4 signing key of a day, by an independent implementation.
fn day_key(day: &str) -> hmac::Key {
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{SECRET}").as_bytes());
    [day, REGION, "s3", "aws4_request"]
        .iter()
        .fold(first, |key, step| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, step.as_bytes()).as_ref()))
}

/// Encodes bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes percent-encoding.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().expect("an encoded value is UTF-8").into_owned()
}

/// Returns the graphic ASCII characters of a text, which are a header value as Valet signs it.
fn value(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}

/// Returns the name of the bucket.
fn bucket() -> BucketName {
    "bucket".parse().expect("a good name")
}

/// Location that is used if the input has no valid endpoint.
static PLAIN: LazyLock<BucketLocation> = LazyLock::new(|| {
    BucketLocation::aws(REGION, &bucket(), AddressingStyle::VirtualHost, AwsEndpoint::default()).expect("a good region")
});

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\0');
    let mut next = || parts.next().unwrap_or_default();
    let (endpoint, key, token, upload_id, disposition, language) = (next(), next(), next(), next(), next(), next());
    let (content_type, digest) = (value(next()), value(next()));
    let Some(key_start) = key.chars().next() else { return };
    let style = if key_start.is_ascii_lowercase() { AddressingStyle::Path } else { AddressingStyle::VirtualHost };
    let at_endpoint = |endpoint| BucketLocation::endpoint(&endpoint, &bucket(), style);
    let location = endpoint.parse().map_or_else(|_| PLAIN.clone(), at_endpoint);

    // Time and lifetime are derived from the text too.
    let seed = text.bytes().fold(17_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let signed_at = OffsetDateTime::from_unix_timestamp((seed % 4_000_000_000) as i64).expect("a time");
    let ttl = Duration::from_secs(1 + (seed >> 32) % MAX_EXPIRES.as_secs());
    let credentials = Credentials {
        access_key_id: ID.to_owned(),
        secret_access_key: SECRET.into(),
        session_token: (!token.is_empty()).then(|| token.into()),
        expires_at: None,
    };
    let signer = Signer::new(location.clone(), REGION, credentials);

    let size = seed.to_string();
    let headers = [("content-length", &*size), ("content-type", &*content_type), ("x-amz-checksum-sha256", &*digest)];
    let headers = &headers[..(seed % 4) as usize];
    let query = [
        ("uploadId", upload_id),
        ("response-content-disposition", disposition),
        ("partNumber", "7"),
        ("response-content-language", language),
    ];
    let query = &query[..(seed / 4 % 5) as usize];
    let method = ["GET", "PUT", "HEAD", "POST"][(seed / 32 % 4) as usize];
    let request = PresignRequest { method, key, headers, query };
    let presigned = signer.presign(&request, signed_at, ttl).expect("these credentials do not end");
    assert!(
        presigned.url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'>')),
        "{}",
        presigned.url
    );
    assert_eq!(presigned.expires_at, signed_at + ttl);

    // The URL contains exactly the requested values.
    let (address, pairs) = presigned.url.split_once('?').expect("a query");
    let path = address.strip_prefix(location.origin()).expect("the origin");
    assert_eq!(decoded(path.strip_prefix(location.path()).expect("the bucket's path")), key);
    let pairs: Vec<(String, String)> = pairs
        .split('&')
        .map(|pair| pair.split_once('=').expect("a pair"))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let find = |name: &str| {
        let mut found = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = found.next();
        assert_eq!(found.next(), None, "{name} twice");
        first
    };
    for (name, value) in query {
        assert_eq!(find(name), Some(*value));
    }
    let signature_pairs = pairs.iter().filter(|(name, _)| name.starts_with("X-Amz-")).count();
    assert_eq!(pairs.len(), query.len() + signature_pairs, "nothing else is signed");

    // A header without a value is signed without a line of its own, as sealed PUTs need it: AWS's signer does not support that.
    if headers.iter().any(|(_, value)| value.is_empty()) {
        return;
    }
    // The same request signed by AWS's signer.
    let requested_query =
        presigned.url[address.len() + 1..].split('&').filter(|pair| !pair.starts_with("X-Amz-")).collect::<Vec<_>>().join("&");
    let bare = if requested_query.is_empty() { address.to_owned() } else { format!("{address}?{requested_query}") };
    let identity = Keys::new(ID, SECRET, (!token.is_empty()).then(|| token.to_owned()), None, "fuzz").into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    settings.expires_in = Some(ttl);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(signed_at.unix_timestamp().unsigned_abs());
    let params = v4::SigningParams::builder().identity(&identity).region(REGION).name("s3").time(time).settings(settings).build();
    let params = params.expect("all is given").into();
    let Ok(signable) = SignableRequest::new(method, bare, headers.iter().copied(), SignableBody::UnsignedPayload) else { return };
    let Ok(by_aws) = sign(signable, &params) else { return };
    for (name, value) in by_aws.output().params() {
        assert_eq!(find(name), Some(&**value), "{name}");
    }
    assert_eq!(by_aws.output().params().len(), signature_pairs);

    // A form allows only its own fields, under a separate signature.
    let fields = [("key", key), ("content-type", &*content_type)];
    let prefixes = [("x-amz-meta-name", disposition)];
    let form = PostPolicy { fields: &fields, prefixes: &prefixes, length: 1..=seed };
    let signed = signer.sign_form(&form, signed_at, ttl).expect("these credentials do not end");
    let field = |name: &str| signed.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let policy = field("policy").expect("a policy");
    let stamp = field("x-amz-date").expect("a date");
    assert_eq!(
        field("x-amz-signature").map(str::to_owned),
        Some(hex(hmac::sign(&day_key(&stamp[..8]), policy.as_bytes()).as_ref()))
    );
    let policy: Value = serde_json::from_slice(&STANDARD.decode(policy).expect("base64")).expect("JSON");
    let mut expected = vec![
        json!({ "bucket": "bucket" }),
        json!({ "key": key }),
        json!({ "content-type": content_type }),
        json!({ "x-amz-algorithm": "AWS4-HMAC-SHA256" }),
        json!({ "x-amz-credential": format!("{ID}/{}/{REGION}/s3/aws4_request", &stamp[..8]) }),
        json!({ "x-amz-date": stamp }),
        json!(["starts-with", "$x-amz-meta-name", disposition]),
        json!(["content-length-range", 1, seed]),
    ];
    if !token.is_empty() {
        expected.insert(6, json!({ "x-amz-security-token": token }));
    }
    assert_eq!(policy["conditions"], Value::Array(expected));
});
