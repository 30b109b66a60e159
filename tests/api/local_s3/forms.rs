//! POST policies: browsers' form uploads.

use super::*;
use aws_lc_rs::hmac;
use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;

/// A form signed by a policy, `age` hours old, for keys under `in/` of 5 to 20 bytes.
fn form(age: i64, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let now = OffsetDateTime::from(hours(-age));
    let date = now.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap();
    let day = &date[..8];
    let end = OffsetDateTime::from(hours(1)).format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z"));
    let credential = format!("{ACCESS}/{day}/us-east-1/s3/aws4_request");
    let mut conditions = vec![
        json!(["starts-with", "$key", "in/"]),
        json!(["content-length-range", 5, 20]),
        json!(["starts-with", "$content-type", "image/"]),
        json!(["starts-with", "$success_action_status", ""]),
    ];
    let fixed = [
        ("bucket", BUCKET),
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-credential", credential.as_str()),
        ("x-amz-date", date.as_str()),
    ];
    conditions.extend(fixed.map(|(n, v)| json!({ n: v })));
    let policy = STANDARD.encode(json!({ "expiration": end.unwrap(), "conditions": conditions }).to_string());
    let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let first = sign(format!("AWS4{SECRET}").as_bytes(), day);
    let key = ["us-east-1", "s3", "aws4_request"].iter().fold(first, |k, t| sign(&k, t));
    let signature: String = sign(&key, &policy).iter().map(|b| format!("{b:02x}")).collect();
    let mut all: Vec<(String, String)> = fields.iter().chain(&fixed).map(|(n, v)| ((*n).into(), (*v).into())).collect();
    all.extend([("policy".into(), policy), ("x-amz-signature".into(), signature)]);
    all
}

async fn post(server: &Server, fields: &[(String, String)], file: &str) -> Response {
    let mut body = String::new();
    for (name, value) in fields {
        body += &format!("--BB\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    body += &format!(
        "--BB\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n{file}\r\n--BB--\r\n"
    );
    let post = server.http.post(format!("{}/{BUCKET}", server.base)).header("content-type", "multipart/form-data; boundary=BB");
    post.header("origin", "http://localhost:5173").body(body).send().await.unwrap()
}

#[tokio::test]
async fn a_form_is_stored_within_its_policy() {
    let server = Server::start().await;
    let fields = |status| form(0, &[("key", "in/a"), ("content-type", "image/png"), ("success_action_status", status)]);
    for (asked, got) in [("201", 201), ("200", 200), ("204", 204)] {
        let done = post(&server, &fields(asked), "ten bytes!").await;
        assert_eq!(done.headers()["location"], format!("{}/{BUCKET}/in/a", server.base).as_str());
        assert_eq!(done.headers()["access-control-allow-origin"], "http://localhost:5173");
        assert!(done.headers().contains_key("etag"));
        let text = expect(done, got, "").await;
        assert_eq!(text.contains("<Key>in/a</Key>"), got == 201);
    }
    assert_eq!(server.read("in/a").await, b"ten bytes!");
    let head = server.s3.head_object().bucket(BUCKET).key("in/a").send().await.unwrap();
    assert_eq!(head.content_type(), Some("image/png"));
    // A policy lives until its own expiry, however old the signing time.
    let old = form(2, &[("key", "in/old"), ("content-type", "image/png"), ("success_action_status", "204")]);
    expect(post(&server, &old, "ten bytes!").await, 204, "").await;
    server.end().await;
}

#[tokio::test]
async fn a_form_outside_its_policy_is_refused() {
    let server = Server::start().await;
    let good = form(0, &[("key", "in/a"), ("content-type", "image/png"), ("success_action_status", "204")]);
    expect(post(&server, &good, &"x".repeat(21)).await, 400, "EntityTooLarge").await;
    expect(post(&server, &good, "x").await, 400, "EntityTooSmall").await;
    let with = |name: &str, value: &str| {
        let mut fields = good.clone();
        fields.retain(|(n, _)| n != name);
        fields.push((name.to_owned(), value.to_owned()));
        fields
    };
    for (name, value) in [("key", "elsewhere"), ("content-type", "text/html"), ("x-amz-meta-a", "b"), ("bucket", "another")] {
        assert_eq!(post(&server, &with(name, value), "ten bytes!").await.status(), 403, "{name}");
    }
    let forged = with("x-amz-signature", &"0".repeat(64));
    expect(post(&server, &forged, "ten bytes!").await, 403, "SignatureDoesNotMatch").await;
    let mut bare = good.clone();
    bare.retain(|(n, _)| n == "key");
    expect(post(&server, &bare, "ten bytes!").await, 403, "AccessDenied").await;
    assert!(!server.exists("in/a").await);
    assert_eq!(server.temps(), 0);
    server.end().await;
}
