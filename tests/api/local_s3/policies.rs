//! Covers POST policies that the test signs: conditions that AWS accepts, and rejections of others like those of AWS.

use super::{ACCESS, BUCKET, Duration, Response, SECRET, STANDARD, Server, expect, forms};
use aws_lc_rs::hmac;
use base64::Engine as _;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

/// Object key of the forms.
const KEY: &str = "in/a";
/// Content of the forms' file: 10 bytes.
const FILE: &str = "ten bytes!";

/// A form: its policy, its fields besides those of the signature, and the scope of the signature.
struct Post {
    /// `expiration` of the policy; null leaves it out.
    expiration: Value,
    conditions: Vec<Value>,
    fields: Vec<(&'static str, &'static str)>,
    access_key: &'static str,
    region: &'static str,
    service: &'static str,
}

impl Post {
    /// Returns a form that is accepted.
    fn new() -> Self {
        let at = OffsetDateTime::now_utc() + Duration::from_secs(600);
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000Z");
        Self {
            expiration: json!(at.format(format).unwrap()),
            conditions: vec![json!({"bucket": BUCKET}), json!({"key": KEY})],
            fields: vec![("key", KEY)],
            access_key: ACCESS,
            region: "us-east-1",
            service: "s3",
        }
    }

    /// Adds a condition to the policy, and fields to the form.
    fn with(mut self, condition: Value, fields: &[(&'static str, &'static str)]) -> Self {
        self.conditions.push(condition);
        self.fields.extend(fields);
        self
    }

    /// Returns the policy as JSON, all fields except the policy and the signature, and the scope.
    fn unsigned(&self) -> (Value, Vec<(String, String)>, String) {
        let now = OffsetDateTime::now_utc();
        let date = now.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap();
        let scope = format!("{}/{}/{}/aws4_request", &date[..8], self.region, self.service);
        let signing = [
            ("x-amz-algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("x-amz-credential", format!("{}/{scope}", self.access_key)),
            ("x-amz-date", date),
        ];
        let mut conditions = self.conditions.clone();
        conditions.extend(signing.iter().map(|(name, value)| json!({ *name: value })));
        let mut policy = json!({ "expiration": self.expiration, "conditions": conditions });
        if self.expiration.is_null() {
            policy.as_object_mut().unwrap().remove("expiration");
        }
        let mut fields: Vec<_> = self.fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        fields.extend(signing.map(|(name, value)| (name.to_owned(), value)));
        (policy, fields, scope)
    }

    /// Returns the fields of the signed form.
    fn signed(&self) -> Vec<(String, String)> {
        let (policy, fields, scope) = self.unsigned();
        sign(fields, &scope, policy.to_string().as_bytes())
    }
}

/// Signs a policy by the algorithm of AWS, and adds the signature to the fields.
fn sign(mut fields: Vec<(String, String)>, scope: &str, policy: &[u8]) -> Vec<(String, String)> {
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{SECRET}").as_bytes());
    let key =
        scope.split('/').fold(first, |key, step| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, step.as_bytes()).as_ref()));
    let policy = STANDARD.encode(policy);
    let signature = hmac::sign(&key, policy.as_bytes());
    let signature = signature.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    fields.extend([("policy".to_owned(), policy), ("x-amz-signature".to_owned(), signature)]);
    fields
}

/// Posts a form with [`FILE`].
async fn send(server: &Server, fields: &[(String, String)]) -> Response {
    forms::send_form(&server.http, server, fields, FILE).await
}

#[tokio::test]
async fn policy_conditions_are_interpreted_like_aws() {
    let server = Server::start().await;
    let type_prefix = json!(["starts-with", "$Content-Type", "image/"]);
    let range = |min: Value, max: Value| json!(["content-length-range", min, max]);
    let meta = |name: &'static str| json!(["starts-with", name, "b"]);
    let cases = [
        // Bounds are numbers, or the same numbers as strings.
        (range(json!(1), json!(10)), &[][..], 204, ""),
        (range(json!("1"), json!("10")), &[], 204, ""),
        (range(json!("1"), json!(10)), &[], 204, ""),
        (range(json!("1"), json!("9")), &[], 400, "EntityTooLarge"),
        (range(json!("11"), json!("20")), &[], 400, "EntityTooSmall"),
        (range(json!(0), json!(0)), &[], 400, "EntityTooLarge"),
        (range(json!(20), json!(10)), &[], 400, "InvalidPolicyDocument"),
        (range(json!("-1"), json!("10")), &[], 400, "InvalidPolicyDocument"),
        (range(json!(-1), json!(10)), &[], 400, "InvalidPolicyDocument"),
        (range(json!("one"), json!("ten")), &[], 400, "InvalidPolicyDocument"),
        (range(json!(1.5), json!(10)), &[], 400, "InvalidPolicyDocument"),
        (json!(["content-length-range", 0]), &[], 400, "InvalidPolicyDocument"),
        // Every type in a list must have the prefix, and the field must exist.
        (type_prefix.clone(), &[("Content-Type", "image/png")], 204, ""),
        (type_prefix.clone(), &[("Content-Type", "image/png, image/webp")], 204, ""),
        (type_prefix.clone(), &[("Content-Type", "image/png,text/html")], 403, "AccessDenied"),
        (type_prefix.clone(), &[("Content-Type", "text/html,image/png")], 403, "AccessDenied"),
        (type_prefix.clone(), &[("CONTENT-TYPE", "image/png")], 204, ""),
        (type_prefix, &[], 403, "AccessDenied"),
        (json!(["starts-with", "$Content-Type", ""]), &[], 403, "AccessDenied"),
        // Only content types are lists.
        (meta("$x-amz-meta-a"), &[("x-amz-meta-a", "b,c")], 204, ""),
        (meta("$X-Amz-Meta-A"), &[("x-amz-meta-a", "bc")], 204, ""),
        (meta("$x-amz-meta-a"), &[("x-amz-meta-a", "c")], 403, "AccessDenied"),
        (meta("$x-amz-meta-a"), &[("x-amz-meta-a", "b"), ("x-amz-meta-b", "b")], 403, "AccessDenied"),
        (meta("$x-amz-meta-a"), &[("x-amz-meta-a", "b"), ("x-ignore-b", "b")], 204, ""),
        (meta("$x-amz-meta-a"), &[("x-amz-meta-a", "b"), ("submit", "b")], 403, "AccessDenied"),
        (json!(["StArTs-WiTh", "$x-amz-meta-a", "b"]), &[("x-amz-meta-a", "b")], 204, ""),
        (json!(["ends-with", "$x-amz-meta-a", "b"]), &[("x-amz-meta-a", "b")], 400, "InvalidPolicyDocument"),
        (json!({"x-amz-meta-a": 1}), &[("x-amz-meta-a", "1")], 400, "InvalidPolicyDocument"),
        (json!({}), &[], 400, "InvalidPolicyDocument"),
        (json!({"x-amz-meta-a": "1", "x-amz-meta-b": "2"}), &[], 400, "InvalidPolicyDocument"),
        (json!("key"), &[], 400, "InvalidPolicyDocument"),
        (json!({"x-amz-meta-a": "1"}), &[("x-amz-meta-a", "1"), ("x-amz-meta-a", "2")], 400, "InvalidArgument"),
    ];
    for (condition, fields, status, code) in cases {
        println!("{condition} with {fields:?}");
        expect(send(&server, &Post::new().with(condition, fields).signed()).await, status, code).await;
    }
    // The bucket counts as a field of every form.
    let mut post = Post::new();
    post.conditions.remove(0);
    let error = expect(send(&server, &post.signed()).await, 403, "AccessDenied").await;
    assert!(error.contains("Extra input fields: bucket"), "{error}");
    assert_eq!(server.temporary_files(), 0);
    server.end().await;
}

#[tokio::test]
async fn rejected_form_names_the_bound_or_condition() {
    let server = Server::start().await;
    let form_with = |condition: Value| Post::new().with(condition, &[]).signed();
    for (condition, code, member) in [
        (json!(["content-length-range", 1, 9]), "EntityTooLarge", "<MaxSizeAllowed>9</MaxSizeAllowed>"),
        (json!(["content-length-range", "11", "20"]), "EntityTooSmall", "<MinSizeAllowed>11</MinSizeAllowed>"),
        (json!({"acl": "private"}), "AccessDenied", "Policy Condition failed: [\"eq\", \"$acl\", \"private\"]"),
    ] {
        let text = expect(send(&server, &form_with(condition)).await, if code == "AccessDenied" { 403 } else { 400 }, code).await;
        assert!(text.replace("&quot;", "\"").contains(member), "{text}");
    }
    server.end().await;
}

#[tokio::test]
async fn policy_expiry_is_a_time_in_utc() {
    let server = Server::start().await;
    for (expiration, status, code) in [
        (json!("2099-01-01T00:00:00Z"), 204, ""),
        (json!("2099-01-01T00:00:00.123Z"), 204, ""),
        (json!("2099-01-01 00:00:00+00:00"), 400, "InvalidPolicyDocument"),
        (json!("2099-01-01"), 400, "InvalidPolicyDocument"),
        (json!("tomorrow"), 400, "InvalidPolicyDocument"),
        (json!(4_070_908_800_u32), 400, "InvalidPolicyDocument"),
        (Value::Null, 400, "InvalidPolicyDocument"),
        (json!("2020-01-01T00:00:00Z"), 403, "AccessDenied"),
    ] {
        println!("{expiration}");
        let post = Post { expiration, ..Post::new() };
        expect(send(&server, &post.signed()).await, status, code).await;
    }
    for policy in [&b"{"[..], b"[]", b"\"policy\"", b"\xff", br#"{"expiration": "2099-01-01T00:00:00Z"}"#] {
        let (_, fields, scope) = Post::new().unsigned();
        expect(send(&server, &sign(fields, &scope, policy)).await, 400, "InvalidPolicyDocument").await;
    }
    server.end().await;
}

#[tokio::test]
async fn form_of_another_signer_is_rejected_with_the_reason() {
    let server = Server::start().await;
    let unknown = Post { access_key: "AKIANOBODY", ..Post::new() };
    let text = expect(send(&server, &unknown.signed()).await, 403, "InvalidAccessKeyId").await;
    assert!(text.contains("<AWSAccessKeyId>AKIANOBODY</AWSAccessKeyId>"), "{text}");
    let elsewhere = Post { region: "eu-west-1", ..Post::new() };
    let text = expect(send(&server, &elsewhere.signed()).await, 400, "InvalidArgument").await;
    assert!(text.contains("the region &apos;eu-west-1&apos; is wrong") && text.contains("<Region>us-east-1</Region>"), "{text}");
    expect(send(&server, &Post { service: "ec2", ..Post::new() }.signed()).await, 400, "InvalidArgument").await;

    let signed = Post::new().signed();
    for (name, value, status, code) in [
        ("x-amz-signature", Some("00"), 403, "SignatureDoesNotMatch"),
        ("x-amz-signature", Some("zz"), 403, "SignatureDoesNotMatch"),
        ("x-amz-signature", None, 400, "InvalidArgument"),
        ("x-amz-credential", Some("local-access"), 400, "InvalidArgument"),
        ("x-amz-credential", None, 400, "InvalidArgument"),
        ("x-amz-algorithm", Some("AWS4-HMAC-SHA1"), 400, "InvalidArgument"),
        ("x-amz-algorithm", None, 400, "InvalidArgument"),
        ("x-amz-date", Some("yesterday"), 400, "InvalidArgument"),
        ("x-amz-date", None, 400, "InvalidArgument"),
        ("policy", Some("%%%"), 403, "SignatureDoesNotMatch"),
        ("policy", None, 403, "AccessDenied"),
    ] {
        println!("{name} {value:?}");
        let mut fields = signed.clone();
        fields.retain(|(given, _)| given != name);
        fields.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        expect(send(&server, &fields).await, status, code).await;
    }
    assert!(!server.exists(KEY).await);
    server.end().await;
}

#[tokio::test]
async fn file_name_is_replaced_in_every_field_before_the_policy_is_checked() {
    let server = Server::start().await;
    let mut post = Post::new().with(json!({"x-amz-meta-name": "a.png"}), &[("x-amz-meta-name", "${filename}")]);
    post.conditions[1] = json!({"key": "u/a.png"});
    post.fields[0] = ("key", "u/${filename}");
    expect(send(&server, &post.signed()).await, 204, "").await;
    let head = server.s3.head_object().bucket(BUCKET).key("u/a.png").send().await.unwrap();
    assert_eq!(head.metadata().unwrap()["name"], "a.png");
    server.end().await;
}

#[tokio::test]
async fn fields_before_the_file_are_limited() {
    let server = Server::start().await;
    let mut fields = Post::new().signed();
    fields.push(("x-ignore-a".to_owned(), "x".repeat(20 * 1024)));
    expect(send(&server, &fields).await, 400, "MaxPostPreDataLengthExceeded").await;
    server.end().await;
}
