//! Covers settings of a bucket: rejections of lifecycle and CORS configurations, of regions, ACLs, and bodies without a digest.

use super::response_bodies::{sign, signer};
use super::{BUCKET, Response, STANDARD, Server, expect, sha256};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{BucketCannedAcl, BucketLocationConstraint, CreateBucketConfiguration};
use base64::Engine as _;
use valet::signer::PresignRequest;

/// Name and value of a header with a digest.
type Digest = (&'static str, String);

/// Sends a signed request about the bucket with an XML body, and with this digest if there is one.
async fn send(server: &Server, method: &'static str, query: &'static str, digest: Option<Digest>, body: &str) -> Response {
    let signed: Vec<(&'static str, &str)> = digest.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let url = sign(&signer(server), &PresignRequest { method, key: "", headers: &signed, query: &[(query, "")] });
    let request = server.http.request(method.parse().unwrap(), url);
    let request = signed.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(body.to_owned()).send().await.unwrap()
}

/// Returns the checksum header for a body.
fn digest_of(body: &str) -> Option<Digest> {
    Some(("x-amz-checksum-sha256", sha256(body.as_bytes())))
}

/// Sends a PUT of a bucket's setting with a correct checksum.
async fn put(server: &Server, query: &'static str, body: &str) -> Response {
    send(server, "PUT", query, digest_of(body), body).await
}

/// Error code and message for XML that does not match the schema.
const SCHEMA: (&str, &str) = ("MalformedXML", "did not validate against our published schema");
/// Error code and message for a number that is not positive.
const POSITIVE: (&str, &str) = ("InvalidArgument", "must be a positive integer");
/// An expiration after a day.
const DAY: &str = "<Expiration><Days>1</Days></Expiration>";
/// An action that aborts multipart uploads after a day.
const ABORT: &str =
    "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
const TAG: &str = "<Tag><Key>k</Key><Value>v</Value></Tag>";
const GLACIER: &str = "<StorageClass>GLACIER</StorageClass>";

/// Returns an enabled lifecycle rule with this content of its filter and these actions.
fn rule(filter: &str, actions: &str) -> String {
    format!("<Rule><Status>Enabled</Status><Filter>{filter}</Filter>{actions}</Rule>")
}

/// Returns a transition to another storage class as XML.
fn transition(content: &str) -> String {
    format!("<Transition>{content}</Transition>")
}

/// Sets the bucket's lifecycle rules.
async fn set_rules(server: &Server, rules: &str) -> Response {
    put(server, "lifecycle", &format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>")).await
}

/// Start of an enabled rule.
const HEAD: &str = "<Rule><Status>Enabled</Status>";

/// Returns a lifecycle rule for all keys with this expiration.
fn expires(content: &str) -> String {
    rule("", &format!("<Expiration>{content}</Expiration>"))
}

/// Returns cases of lifecycle rules that AWS rejects as malformed XML.
fn rules_against_the_schema() -> Vec<(&'static str, String)> {
    vec![
        ("no rules", String::new()),
        ("too many rules", rule("", DAY).repeat(1001)),
        ("no status", format!("<Rule><Filter/>{DAY}</Rule>")),
        ("a status in lower case", format!("<Rule><Status>enabled</Status><Filter/>{DAY}</Rule>")),
        ("neither filter nor prefix", format!("{HEAD}{DAY}</Rule>")),
        ("filter and prefix", format!("{HEAD}<Filter/><Prefix>a</Prefix>{DAY}</Rule>")),
        ("two members of a filter", rule(&format!("<Prefix>a</Prefix>{TAG}"), DAY)),
        ("an empty And", rule("<And/>", DAY)),
        ("an unknown element", rule("", "<Delete/>")),
        ("days in words", expires("<Days>ten</Days>")),
        ("days and date", expires("<Days>1</Days><Date>2030-01-01T00:00:00Z</Date>")),
        ("days and a marker", expires("<Days>1</Days><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>")),
        ("an empty expiration", expires("")),
        ("a date without dashes", expires("<Date>20300101</Date>")),
        ("an empty abort", rule("", "<AbortIncompleteMultipartUpload/>")),
        ("a move to nowhere", rule("", &transition("<Days>30</Days>"))),
        ("a move to the standard class", rule("", &transition("<Days>30</Days><StorageClass>STANDARD</StorageClass>"))),
        ("a move at no time", rule("", &transition(GLACIER))),
        ("old versions at no time", rule("", "<NoncurrentVersionExpiration/>")),
    ]
}

/// Description of a case, its rules, and the expected error code and message.
type RejectedRules = (&'static str, String, (&'static str, &'static str));

/// Returns cases of lifecycle rules whose values AWS rejects.
fn rules_of_wrong_values() -> Vec<RejectedRules> {
    let rule_with_id = |id: &str| format!("{HEAD}<ID>{id}</ID><Filter/>{DAY}</Rule>");
    let and = |content: &str| format!("<And><Prefix>a</Prefix>{content}</And>");
    let small = "<ObjectSizeLessThan>5</ObjectSizeLessThan>";
    let glacier = |time: &str| transition(&format!("{time}{GLACIER}"));
    let marker = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
    vec![
        ("a long ID", rule_with_id(&"a".repeat(256)), ("InvalidArgument", "ID length should not exceed allowed limit of 255")),
        ("one ID twice", rule_with_id("a").repeat(2), ("InvalidArgument", "Rule ID must be unique.")),
        ("no action", rule("", ""), ("InvalidRequest", "At least one action needs to be specified in a rule")),
        ("0 days", expires("<Days>0</Days>"), POSITIVE),
        ("a date at noon", expires("<Date>2030-01-01T12:00:00Z</Date>"), ("InvalidArgument", "'Date' must be at midnight GMT")),
        ("abort after 0 days", rule("", &ABORT.replace('1', "0")), POSITIVE),
        ("abort by tag", rule(TAG, ABORT), ("InvalidRequest", "cannot be specified with Tags.")),
        ("abort by size", rule(small, ABORT), ("InvalidRequest", "cannot be specified with Object Size.")),
        ("markers by tag", rule(TAG, marker), ("InvalidRequest", "cannot be specified with Tags.")),
        ("a tag twice", rule(&and(&TAG.repeat(2)), DAY), ("InvalidRequest", "Duplicate Tag Keys are not allowed.")),
        ("a long prefix", rule(&format!("<Prefix>{}</Prefix>", "a".repeat(1025)), DAY), ("InvalidRequest", "size of a prefix")),
        (
            "no size between",
            rule(&and(&format!("<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>{small}")), DAY),
            ("InvalidRequest", "'ObjectSizeLessThan' has to be a value greater than"),
        ),
        (
            "one class twice",
            rule("", &glacier("<Days>9</Days>").repeat(2)),
            ("InvalidRequest", "'StorageClass' must be different"),
        ),
        (
            "an early move",
            rule("", &transition("<Days>29</Days><StorageClass>STANDARD_IA</StorageClass>")),
            ("InvalidArgument", "greater than or equal to 30 for storageClass 'STANDARD_IA'"),
        ),
        ("a move in the past", rule("", &glacier("<Days>-1</Days>")), ("InvalidArgument", "must be nonnegative")),
        (
            "a move by date and an end by days",
            rule("", &format!("{DAY}{}", glacier("<Date>2030-01-01T00:00:00Z</Date>"))),
            ("InvalidRequest", "Found mixed 'Date' and 'Days'"),
        ),
        (
            "a move after the end",
            rule("", &format!("{DAY}{}", glacier("<Days>1</Days>"))),
            ("InvalidArgument", "must be greater"),
        ),
        (
            "old versions after 0 days",
            rule("", "<NoncurrentVersionExpiration><NoncurrentDays>0</NoncurrentDays></NoncurrentVersionExpiration>"),
            POSITIVE,
        ),
    ]
}

#[tokio::test]
async fn lifecycle_rules_are_rejected_like_on_aws() {
    let server = Server::start().await;
    let schema = rules_against_the_schema().into_iter().map(|(case, rules)| (case, rules, SCHEMA));
    for (case, rules, (code, message)) in schema.chain(rules_of_wrong_values()) {
        let text = expect(set_rules(&server, &rules).await, 400, code).await;
        assert!(text.contains(&message.replace('\'', "&apos;")), "{case}: {text}");
    }
    let error = server.s3.get_bucket_lifecycle_configuration().bucket(BUCKET).send().await.unwrap_err();
    assert_eq!(error.code(), Some("NoSuchLifecycleConfiguration"), "rejected rules are not stored");
    server.end().await;
}

#[tokio::test]
async fn lifecycle_rules_without_an_id_get_one() {
    let server = Server::start().await;
    let all = "<And><Prefix>a</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And>";
    let ends = format!("<Expiration><Days>31</Days></Expiration>{}", transition(&format!("<Days>30</Days>{GLACIER}")));
    let disabled_rule = format!("<Rule><ID>ours</ID><Status>Disabled</Status><Prefix>a</Prefix>{ABORT}</Rule>");
    let rules = [disabled_rule, rule("", ABORT), rule(all, &ends), rule(TAG, DAY)].concat();
    expect(set_rules(&server, &rules).await, 200, "").await;
    let stored = server.s3.get_bucket_lifecycle_configuration().bucket(BUCKET).send().await.unwrap();
    let ids: Vec<_> = stored.rules().iter().map(|rule| rule.id().unwrap().to_owned()).collect();
    assert_eq!((ids[0].as_str(), ids.len()), ("ours", 4));
    assert!(ids[1..].iter().all(|id| id.len() >= 16), "{ids:?}");
    assert!(ids[1] != ids[2] && ids[2] != ids[3], "{ids:?}");
    server.end().await;
}

#[tokio::test]
async fn cors_rules_are_rejected_like_on_aws() {
    let server = Server::start().await;
    let allow = "<AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin>";
    let rule = |more: &str| format!("<CORSRule>{allow}{more}</CORSRule>");
    for (case, rules, (code, message)) in [
        ("no rules", String::new(), SCHEMA),
        ("too many rules", rule("").repeat(101), SCHEMA),
        ("no method", "<CORSRule><AllowedOrigin>*</AllowedOrigin></CORSRule>".to_owned(), SCHEMA),
        ("no origin", "<CORSRule><AllowedMethod>GET</AllowedMethod></CORSRule>".to_owned(), SCHEMA),
        ("an unknown element", rule("<AllowCredentials>true</AllowCredentials>"), SCHEMA),
        ("a negative age", rule("<MaxAgeSeconds>-1</MaxAgeSeconds>"), SCHEMA),
        (
            "a method",
            rule("<AllowedMethod>PATCH</AllowedMethod>"),
            ("InvalidRequest", "Found unsupported HTTP method in CORS config. Unsupported method is PATCH"),
        ),
        ("a method in lower case", rule("<AllowedMethod>put</AllowedMethod>"), ("InvalidRequest", "Unsupported method is put")),
        (
            "two wildcards in an origin",
            rule("<AllowedOrigin>https://*.example.*</AllowedOrigin>"),
            ("InvalidRequest", "AllowedOrigin &quot;https://*.example.*&quot; can not have more than one wildcard."),
        ),
        (
            "two wildcards in a header",
            rule("<AllowedHeader>x-*-*</AllowedHeader>"),
            ("InvalidRequest", "AllowedHeader &quot;x-*-*&quot; can not have more than one wildcard."),
        ),
        (
            "a wildcard in an exposed header",
            rule("<ExposeHeader>x-amz-*</ExposeHeader>"),
            ("InvalidRequest", "We currently do not support wildcard for ExposeHeader."),
        ),
        ("a long ID", rule(&format!("<ID>{}</ID>", "a".repeat(256))), ("InvalidRequest", "ID length should not exceed")),
    ] {
        let answer = put(&server, "cors", &format!("<CORSConfiguration>{rules}</CORSConfiguration>")).await;
        let text = expect(answer, 400, code).await;
        assert!(text.contains(message), "{case}: {text}");
    }
    let error = server.s3.get_bucket_cors().bucket(BUCKET).send().await.unwrap_err();
    assert_eq!(error.code(), Some("NoSuchCORSConfiguration"), "rejected rules are not stored");
    expect(put(&server, "cors", &format!("<CORSConfiguration>{}</CORSConfiguration>", rule(""))).await, 200, "").await;
    server.end().await;
}

/// The SDKs send a digest with these requests. Programs that sign them without an SDK get the error here, and not first from AWS.
#[tokio::test]
async fn bodies_that_need_a_digest_are_verified() {
    let server = Server::start().await;
    let block = "<PublicAccessBlockConfiguration/>";
    let delete = "<Delete><Object><Key>k</Key></Object></Delete>";
    let cors = "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule>\
                </CORSConfiguration>";
    let lifecycle = format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", rule("", DAY));
    for (method, query, body) in [
        ("POST", "delete", delete),
        ("PUT", "cors", cors),
        ("PUT", "lifecycle", lifecycle.as_str()),
        ("PUT", "publicAccessBlock", block),
    ] {
        server.put("k", b"x").await;
        let send = async |digest| send(&server, method, query, digest, body).await;
        let error = expect(send(None).await, 400, "InvalidRequest").await;
        assert!(error.contains("Missing required header for this request: Content-MD5"), "{query}: {error}");
        for (name, value, code) in [
            ("content-md5", STANDARD.encode([7; 16]), "BadDigest"),
            ("content-md5", "nonsense".to_owned(), "InvalidDigest"),
            ("x-amz-checksum-sha256", sha256(b"other"), "BadDigest"),
            ("x-amz-checksum-crc32", "AAAAAA==".to_owned(), "BadDigest"),
            ("x-amz-checksum-crc32", "nonsense".to_owned(), "InvalidRequest"),
        ] {
            expect(send(Some((name, value))).await, 400, code).await;
        }
        assert!(server.exists("k").await, "{query}");
        let sent = send(digest_of(body)).await;
        assert!(sent.status().is_success(), "{query}: {sent:?}");
    }
    server.put("k", b"x").await;
    let long = format!("<Delete>{}</Delete>", " ".repeat(3 << 20));
    expect(send(&server, "POST", "delete", None, &long).await, 400, "MaxMessageLengthExceeded").await;
    let empty = send(&server, "PUT", "lifecycle", digest_of(""), "").await;
    expect(empty, 400, "MissingRequestBodyError").await;
    server.end().await;
}

#[tokio::test]
async fn buckets_are_created_in_the_region_of_the_server_and_without_acls() {
    let server = Server::start().await;
    for (region, code) in [("eu-west-1", "IllegalLocationConstraintException"), ("us-east-1", "InvalidLocationConstraint")] {
        let configuration =
            CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build();
        let rejected =
            server.s3.create_bucket().bucket("another").create_bucket_configuration(configuration).send().await.unwrap_err();
        assert_eq!(rejected.code(), Some(code), "{region}");
    }
    let public = server.s3.create_bucket().bucket("another").acl(BucketCannedAcl::PublicRead).send().await.unwrap_err();
    assert_eq!(public.code(), Some("InvalidBucketAclWithObjectOwnership"));
    let without_region = CreateBucketConfiguration::builder().build();
    server.s3.create_bucket().bucket("another").create_bucket_configuration(without_region).send().await.unwrap();
    server.end().await;
}
