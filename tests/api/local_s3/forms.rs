//! Covers POST policies: form uploads of browsers.

use std::ops::RangeInclusive;

use super::{ACCESS, BUCKET, Duration, Response, SECRET, Server, expect, hours};
use secrecy::SecretString;
use time::OffsetDateTime;
use valet::signer::{self, AddressingStyle, BucketLocation, PostPolicy, Signer};

/// Returns a form signed `age` hours ago, valid for another hour, for keys under `in/` and 5 to 20 bytes.
fn form(server: &Server, age: i64, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    form_of(server, age, fields, 5..=20)
}

/// Returns a signed form whose policy allows keys under `in/`, images and any success status.
fn form_of(server: &Server, age: i64, fields: &[(&str, &str)], length: RangeInclusive<u64>) -> Vec<(String, String)> {
    form_with(server, age, fields, length, &[("key", "in/"), ("content-type", "image/"), ("success_action_status", "")])
}

/// Returns a signed form whose policy allows these prefixes of fields.
fn form_with(
    server: &Server,
    age: i64,
    fields: &[(&str, &str)],
    length: RangeInclusive<u64>,
    prefixes: &[(&str, &str)],
) -> Vec<(String, String)> {
    let keys = signer::Credentials {
        access_key_id: ACCESS.to_owned(),
        secret_access_key: SecretString::from(SECRET),
        session_token: None,
        expires_at: None,
    };
    let signer = Signer::new(
        BucketLocation::endpoint(&server.base.parse().unwrap(), &BUCKET.parse().unwrap(), AddressingStyle::Path),
        "us-east-1",
        keys,
    );
    let form = PostPolicy { fields: &[], prefixes, length };
    let ttl = Duration::from_secs(3600 * u64::try_from(age + 1).unwrap());
    let signed = signer.sign_form(&form, OffsetDateTime::from(hours(-age)), ttl).unwrap();
    assert_eq!(signed.url, format!("{}/{BUCKET}", server.base));
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    fields.iter().map(owned).chain(signed.fields).collect()
}

/// Posts a form with a file named `a.png`.
async fn post(server: &Server, fields: &[(String, String)], file: &str) -> Response {
    send_form(&server.http, server, fields, file).await
}

/// Posts a form by this HTTP client, with a file named `a.png`.
pub(super) async fn send_form(http: &reqwest::Client, server: &Server, fields: &[(String, String)], file: &str) -> Response {
    send_named(http, server, fields, ("a.png", file)).await
}

/// Posts a form with a file of this name.
async fn send_named(
    http: &reqwest::Client,
    server: &Server,
    fields: &[(String, String)],
    (name, file): (&str, &str),
) -> Response {
    let mut body = String::new();
    for (field, value) in fields {
        body += &format!("--BB\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
    }
    body += &format!(
        "--BB\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: image/png\r\n\r\n{file}\r\n--BB--\r\n"
    );
    let post = http.post(format!("{}/{BUCKET}", server.base)).header("content-type", "multipart/form-data; boundary=BB");
    post.header("origin", "http://localhost:5173").body(body).send().await.unwrap()
}

#[tokio::test]
async fn form_within_its_policy_is_stored() {
    let server = Server::start().await;
    let fields = |status| form(&server, 0, &[("key", "in/a"), ("content-type", "image/png"), ("success_action_status", status)]);
    for (requested, status) in [("201", 201), ("200", 200), ("204", 204)] {
        let done = post(&server, &fields(requested), "ten bytes!").await;
        assert_eq!(done.headers()["location"], format!("{}/{BUCKET}/in/a", server.base).as_str());
        assert_eq!(done.headers()["access-control-allow-origin"], "http://localhost:5173");
        assert!(done.headers().contains_key("etag"));
        let text = expect(done, status, "").await;
        assert_eq!(text.contains("<Key>in/a</Key>"), status == 201);
    }
    assert_eq!(server.read("in/a").await, b"ten bytes!");
    let head = server.s3.head_object().bucket(BUCKET).key("in/a").send().await.unwrap();
    assert_eq!(head.content_type(), Some("image/png"));
    // A policy is valid until its own expiry, however old its signing time.
    let old = form(&server, 2, &[("key", "in/old"), ("content-type", "image/png"), ("success_action_status", "204")]);
    expect(post(&server, &old, "ten bytes!").await, 204, "").await;
    server.end().await;
}

#[tokio::test]
async fn file_may_contain_delimiters_at_any_split() {
    let server = Server::start().await;
    for (name, text) in [("in/returns", "\r"), ("in/almost", "\r\n--B"), ("in/dashes", "\r\n-")] {
        // 4 to 6 MiB, so that the server reads the file in many pieces.
        let file = text.repeat(4 << 20 >> text.len().ilog2());
        let fields = [("key", name), ("content-type", "image/png"), ("success_action_status", "204")];
        expect(post(&server, &form_of(&server, 0, &fields, 1..=16 << 20), &file).await, 204, "").await;
        assert!(server.read(name).await == file.as_bytes(), "{name}");
    }
    server.end().await;
}

#[tokio::test]
async fn form_outside_its_policy_is_rejected() {
    let server = Server::start().await;
    let valid = form(&server, 0, &[("key", "in/a"), ("content-type", "image/png"), ("success_action_status", "204")]);
    expect(post(&server, &valid, &"x".repeat(21)).await, 400, "EntityTooLarge").await;
    expect(post(&server, &valid, "x").await, 400, "EntityTooSmall").await;
    let with_field = |name: &str, value: &str| {
        let mut fields = valid.clone();
        fields.retain(|(field, _)| field != name);
        fields.push((name.to_owned(), value.to_owned()));
        fields
    };
    for (name, value) in [("key", "elsewhere"), ("content-type", "text/html"), ("x-amz-meta-a", "b"), ("bucket", "another")] {
        assert_eq!(post(&server, &with_field(name, value), "ten bytes!").await.status(), 403, "{name}");
    }
    let forged = with_field("x-amz-signature", &"0".repeat(64));
    expect(post(&server, &forged, "ten bytes!").await, 403, "SignatureDoesNotMatch").await;
    let mut unsigned = valid.clone();
    unsigned.retain(|(field, _)| field == "key");
    expect(post(&server, &unsigned, "ten bytes!").await, 403, "AccessDenied").await;
    let mut without_key = valid.clone();
    without_key.retain(|(field, _)| field != "key");
    expect(post(&server, &without_key, "ten bytes!").await, 400, "InvalidArgument").await;
    let fields =
        valid.iter().map(|(name, value)| format!("--BB\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
    let without_file =
        server.http.post(format!("{}/{BUCKET}", server.base)).header("content-type", "multipart/form-data; boundary=BB");
    let without_file = without_file.body(fields.collect::<String>() + "--BB--\r\n").send().await.unwrap();
    expect(without_file, 400, "InvalidArgument").await;
    assert!(!server.exists("in/a").await);
    assert_eq!(server.temporary_files(), 0);
    server.end().await;
}

#[tokio::test]
async fn redirect_leads_to_the_forms_address() {
    let server = Server::start().await;
    let fields = [("key", "in/a"), ("content-type", "image/png"), ("success_action_status", "204")];
    let mut prefixes = vec![("key", "in/"), ("content-type", "image/"), ("success_action_status", "")];
    prefixes.push(("success_action_redirect", "https://app.example/"));
    let mut form = form_with(&server, 0, &fields, 5..=20, &prefixes);
    form.insert(0, ("success_action_redirect".to_owned(), "https://app.example/done?step=2".to_owned()));
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let done = send_form(&http, &server, &form, "ten bytes!").await;
    // The entity tag is the MD5 of the file.
    assert_eq!(
        done.headers()["location"],
        "https://app.example/done?step=2&bucket=photos&key=in%2Fa&etag=%227df74d02c12d70f2b09a1f70a316145e%22"
    );
    expect(done, 303, "").await;
    server.end().await;
}

#[tokio::test]
async fn file_name_replaces_the_placeholder_in_the_key() {
    let server = Server::start().await;
    let fields =
        form(&server, 0, &[("key", "in/u/${filename}"), ("content-type", "image/png"), ("success_action_status", "204")]);
    for (sent, key) in [("my pic.png", "in/u/my pic.png"), ("C:\\photos\\b.png", "in/u/b.png"), ("../c.png", "in/u/c.png")] {
        let done = send_named(&server.http, &server, &fields, (sent, "ten bytes!")).await;
        expect(done, 204, "").await;
        assert_eq!(server.read(key).await, b"ten bytes!", "{sent}");
    }
    assert!(!server.exists("in/u/${filename}").await);
    server.end().await;
}
