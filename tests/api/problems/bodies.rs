//! Covers request bodies that are malformed, of the wrong types, too large, or of another media type.

use bytes::Bytes;
use reqwest::{Body, Method};
use serde_json::{Map, Value, json};

use super::{CANARY, assert_refused};
use crate::{
    app::{Caller, PASSWORD, TestApp},
    openapi::{Operation, document, operations},
};

/// Sends a body with the media type of JSON.
async fn send(caller: &Caller<'_>, operation: &Operation, body: impl Into<Body>) -> crate::app::Answer {
    let path = operation.path_of(&uuid::Uuid::now_v7().to_string());
    let caller = caller.for_operation(operation).await;
    caller.send(operation.method.clone(), &path, |request| request.header("content-type", "application/json").body(body)).await
}

/// Returns all operations with a body, and the example of the body.
fn with_bodies() -> Vec<(Operation, &'static Map<String, Value>)> {
    let found: Vec<_> = operations().into_iter().filter_map(|o| o.body().map(|body| (o, body.as_object().unwrap()))).collect();
    assert!(found.len() >= 4, "{}", found.len());
    found
}

#[tokio::test]
async fn malformed_json_is_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (operation, example) in with_bodies() {
        let good = Value::Object(example.clone()).to_string();
        let first_text = [":\"", "[\"", "{\""].into_iter().find(|text| good.contains(text)).unwrap();
        let spoiled = good.replacen(first_text, &format!("{first_text}{CANARY}"), 1);
        let bodies: Vec<(&str, Vec<u8>)> = vec![
            ("empty", vec![]),
            ("a word", CANARY.into()),
            ("cut", spoiled[..spoiled.len() - 1].into()),
            ("a second value", format!("{spoiled}{{\"{CANARY}\":1}}").into()),
            ("a trailing comma", format!("{},}}", &spoiled[..spoiled.len() - 1]).into()),
            ("single quotes", format!("{{'{CANARY}':'{CANARY}'}}").into()),
            ("a byte order mark", [b"\xef\xbb\xbf", spoiled.as_bytes()].concat()),
            ("bad UTF-8", spoiled.bytes().map(|b| if b == b'-' { 0xff } else { b }).collect()),
            ("UTF-16", spoiled.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("a lone surrogate", spoiled.replacen("canary", "canary\\ud800", 1).into()),
            ("a control character", spoiled.replacen("canary", "canary\u{1}", 1).into()),
            ("NaN", format!("{{\"{}\":NaN}}", example.keys().next().unwrap()).into()),
            ("depth", ["[".repeat(8000), "]".repeat(8000)].concat().replace("[]", &format!("[\"{CANARY}\"]")).into()),
            ("depth of objects", "{\"canary\":".repeat(1400).into()),
        ];
        for (case, body) in bodies {
            // Auth routes accept only 4 KiB.
            let long = operation.path.starts_with("/api/auth") && body.len() > 4096;
            let expected = if long { (413, "payload_too_large") } else { (400, "invalid_request") };
            assert_refused(&send(&ada, &operation, body).await, expected, &format!("{} {case}", operation.path));
        }
        for (case, body) in [("null", "null"), ("an array", "[\"canary\"]"), ("a number", "1"), ("a text", "\"canary\"")] {
            assert_refused(&send(&ada, &operation, body).await, (400, "invalid_request"), &format!("{} {case}", operation.path));
        }
        let nested = format!("{}\"canary\"{}", "[".repeat(1500), "]".repeat(1500));
        let nested = good.replacen(&example.values().next().unwrap().to_string(), &nested, 1);
        assert_refused(&send(&ada, &operation, nested).await, (400, "invalid_request"), &format!("{} nested", operation.path));
    }
}

/// Returns values that a member of this schema, with this example, does not accept: operators, other types, and null.
fn wrong_values(schema: &Value, example: &Value) -> Vec<Value> {
    let mut values = vec![
        json!({ "$gt": "" }),
        json!({ "$ne": null }),
        json!({ "$regex": CANARY }),
        json!({ "$where": format!("'{CANARY}'") }),
        json!({ "$numberLong": "1" }),
        json!({ "canary": { "$gt": CANARY } }),
        json!([CANARY]),
        json!([{ "$gt": "" }]),
        json!(true),
        Value::Null,
    ];
    values.extend(if example.is_string() { vec![json!(7), json!(1.5)] } else { vec![json!(CANARY), json!("7"), json!(1.5)] });
    // An item of a list must be an object, not an array of the object's values, from which serde could read a struct.
    values.extend(example[0].as_object().map(|item| json!([item.values().collect::<Vec<_>>()])));
    // Clients may send any object where additional properties are allowed.
    let is_free = schema["additionalProperties"].is_object();
    values.retain(|wrong| !(is_free && wrong.is_object()));
    // A list of texts accepts any text.
    values.retain(|wrong| !(example[0].is_string() && wrong[0].is_string()));
    values
}

/// Covers every member with operators, wrong types and null in its place; and every member missing, repeated, or unknown.
#[tokio::test]
async fn every_member_must_have_its_type() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut members = 0;
    for (operation, example) in with_bodies() {
        let schema = operation.described["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
        let schema = &document()["components"]["schemas"][schema.rsplit('/').next().unwrap()];
        let required = |name: &str| schema["required"].as_array().into_iter().flatten().any(|one| one == name);
        assert_eq!(
            schema["properties"].as_object().unwrap().keys().collect::<Vec<_>>(),
            example.keys().collect::<Vec<_>>(),
            "the example shows every member"
        );
        for (name, value) in example {
            members += 1;
            let case = |how: &Value| format!("{} {name}: {how}", operation.path);
            for wrong in wrong_values(&schema["properties"][name], value) {
                let mut body = example.clone();
                body[name] = wrong.clone();
                let answer = send(&ada, &operation, Value::Object(body).to_string()).await;
                assert_refused(&answer, (400, "invalid_request"), &case(&wrong));
                assert!(!answer.text.contains("struct"), "the answer contains no names of types: {answer:?}");
                let field = answer.json["errors"][0]["field"].as_str().unwrap_or_else(|| panic!("{}: {answer:?}", case(&wrong)));
                let inside = field.starts_with(&format!("{name}[")) || field.starts_with(&format!("{name}."));
                assert!(field == name || inside, "{}: the answer names {field:?}", case(&wrong));
            }
            if required(name) {
                let mut body = example.clone();
                body.remove(name);
                let answer = send(&ada, &operation, Value::Object(body).to_string()).await;
                assert_refused(&answer, (400, "invalid_request"), &case(&json!("missing")));
                assert_eq!(answer.json["errors"], json!([{ "field": name, "message": "is required" }]));
            }
            let twice = Value::Object(example.clone()).to_string();
            let twice = format!("{},\"{name}\":{value}}}", &twice[..twice.len() - 1]);
            assert_refused(&send(&ada, &operation, twice).await, (400, "invalid_request"), &case(&json!("twice")));
        }
        for unknown in ["canary", "$where", "__proto__", "email.$gt", "expected `canary`", "at line canary", "caption ", ""] {
            let mut body = example.clone();
            body.insert(unknown.to_owned(), json!(CANARY));
            let answer = send(&ada, &operation, Value::Object(body).to_string()).await;
            assert_refused(&answer, (400, "invalid_request"), &format!("{} with {unknown:?}", operation.path));
            assert!(!unknown.starts_with('$') || !answer.text.contains('$'), "{answer:?}");
        }
    }
    assert!(members >= 10, "{members}");
    let usage = &ada.get("/api/auth/me").await.json["usage"];
    assert_eq!((usage["pending"].as_u64(), usage["bytes"].as_u64()), (Some(0), Some(0)), "a rejected body has no effect");
}

/// Returns `size` bytes of JSON: a valid body, padded with white space.
fn padded(body: &Value, size: usize) -> String {
    let text = body.to_string();
    format!("{}{text}", " ".repeat(size - text.len()))
}

#[tokio::test]
async fn body_size_is_limited() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let log_in = json!({ "email": ada.email, "password": PASSWORD });
    for (path, limit, body, expected_status) in [
        ("/api/images/upload", 16 * 1024, crate::app::declaration("a.png", "image/png", &[1]), 201),
        ("/api/auth/login", 4 * 1024, log_in, 200),
    ] {
        for (size, chunked) in [(limit, false), (limit, true), (limit + 1, false), (limit + 1, true), (1 << 20, true)] {
            let text = padded(&body, size);
            let answer = ada
                .send(Method::POST, path, |request| {
                    let request = request.header("content-type", "application/json");
                    if !chunked {
                        return request.body(text);
                    }
                    let pieces: Vec<_> =
                        text.as_bytes().chunks(1000).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
                    request.body(Body::wrap_stream(futures_util::stream::iter(pieces)))
                })
                .await;
            let case = format!("{path} {size} chunked={chunked}");
            if size > limit {
                assert_refused(&answer, (413, "payload_too_large"), &case);
                assert!(answer.json["detail"].as_str().unwrap().contains(&limit.to_string()), "{case}: {answer:?}");
            } else {
                // The second of two equal uploads is already known.
                assert!(answer.status == expected_status || (chunked && answer.status == 200), "{case}: {answer:?}");
            }
        }
    }
    for (operation, _) in with_bodies() {
        let answer = send(&ada, &operation, " ".repeat((1 << 20) + 1)).await;
        assert_refused(&answer, (413, "payload_too_large"), &operation.path);
    }
    // Rejected by its declared length alone, before any byte of the body is sent.
    let answer = raw(
        &app,
        "POST /api/auth/login HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 999999999\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// Sends text and returns the first bytes that are received, at most 4096, within half a minute.
async fn raw(app: &TestApp, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let read = tokio::time::timeout(std::time::Duration::from_secs(30), stream.read(&mut buffer)).await;
    String::from_utf8_lossy(&buffer[..read.expect("an answer").unwrap()]).into_owned()
}

#[tokio::test]
async fn other_media_types_get_415_with_instructions() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let form = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"canary.png\"\r\ncontent-type: image/png\r\n\r\ncanary\r\n--b--\r\n";
    for (operation, example) in with_bodies() {
        let json = Value::Object(example.clone()).to_string();
        let path = operation.path_of(&uuid::Uuid::now_v7().to_string());
        for (content_type, body) in [
            (Some("multipart/form-data; boundary=b"), form.to_owned()),
            (Some("application/x-www-form-urlencoded"), "email=canary&password=canary".to_owned()),
            (Some("text/plain"), json.clone()),
            (Some("text/json"), json.clone()),
            (Some("application/octet-stream"), json.clone()),
            (Some("image/png; x=application/json"), json.clone()),
            (Some("canary/canary"), json.clone()),
            (Some("\u{e9}"), json.clone()),
            (Some(""), json.clone()),
            (None, json.clone()),
        ] {
            let answer = ada
                .send(operation.method.clone(), &path, |request| match content_type {
                    Some(value) => request.header("content-type", value).body(body),
                    None => request.body(body),
                })
                .await;
            assert_refused(&answer, (415, "unsupported_media_type"), &format!("{path} {content_type:?}"));
            if path == "/api/images/upload" {
                let detail = answer.json["detail"].as_str().unwrap();
                for step in ["fileName", "contentType", "size", "sha256", "PUT", "upload.url", "headers", "/confirm"] {
                    assert!(detail.contains(step), "{step} is not in {detail}");
                }
            }
        }
    }
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"] {
        let body = crate::app::declaration("a.png", "image/png", &[1]).to_string();
        let answer =
            ada.send(Method::POST, "/api/images/upload", |request| request.header("content-type", content_type).body(body)).await;
        assert!(matches!(answer.status, 200 | 201), "{content_type}: {answer:?}");
    }
}

/// A server knows whether a body without a length is empty only after it has read it. Clients that send every POST chunked can
/// call operations without a body.
#[tokio::test]
async fn operations_without_a_body_accept_an_empty_one_in_any_framing() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for path in ["/api/uppy/session".to_owned(), format!("/api/images/{}/confirm", uuid::Uuid::now_v7())] {
        let plain = ada.send(Method::POST, &path, |request| request).await.status;
        for content_type in [None, Some("application/json"), Some("text/plain")] {
            for framed in ["nothing", "no length", "a length of zero"] {
                let answer = ada
                    .send(Method::POST, &path, |request| {
                        let request = match content_type {
                            Some(value) => request.header("content-type", value),
                            None => request,
                        };
                        let empty = futures_util::stream::iter([Ok::<_, std::io::Error>(Vec::new())]);
                        match framed {
                            "nothing" => request,
                            "no length" => request.body(Body::wrap_stream(empty)),
                            _ => request.header("content-length", "0"),
                        }
                    })
                    .await;
                assert_eq!(answer.status, plain, "{path} {content_type:?} {framed}: {answer:?}");
            }
        }
        let filled = futures_util::stream::iter([Ok::<_, std::io::Error>(b"canary".to_vec())]);
        let answer = ada.send(Method::POST, &path, |request| request.body(Body::wrap_stream(filled))).await;
        assert_refused(&answer, (415, "unsupported_media_type"), &path);
    }
}
