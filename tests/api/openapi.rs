//! Covers the OpenAPI document: the committed file equals the served document, has no repeated keys, and is complete enough for
//! client generators. Other modules get the operations of the document here.
//!
//! Routes: all.
//! Commands: valet openapi.

use std::{collections::BTreeSet, path::Path, sync::OnceLock};

use reqwest::Method;
use serde_json::Value;

use super::app::TestApp;

/// An operation of the document.
pub struct Operation {
    pub method: Method,
    /// Path template, with `{id}`.
    pub path: String,
    /// The operation's object in the document.
    pub described: &'static Value,
}

impl Operation {
    /// Returns the path with this id in place of each id.
    pub fn path_of(&self, id: &str) -> String {
        ["{id}", "{user}", "{image}"].iter().fold(self.path.clone(), |path, name| path.replace(name, id))
    }

    /// Returns whether the operation requires a token.
    pub fn is_protected(&self) -> bool {
        self.described["security"].as_array().is_some_and(|schemes| !schemes.is_empty())
    }

    /// Returns whether the operation is for service keys.
    pub fn is_admin(&self) -> bool {
        self.described["security"].as_array().is_some_and(|all| all.iter().any(|scheme| scheme.get("serviceKey").is_some()))
    }

    /// Returns whether the operation takes a token in its path.
    pub fn is_by_path_token(&self) -> bool {
        self.path.starts_with("/uppy/{token}/")
    }

    /// Returns the example of the operation's JSON body.
    pub fn body(&self) -> Option<&'static Value> {
        self.described.get("requestBody").map(|body| &body["content"]["application/json"]["example"])
    }
}

/// Returns the generated document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(valet::http::openapi::document)
}

/// Returns every operation of the document.
pub fn operations() -> Vec<Operation> {
    let paths = document()["paths"].as_object().unwrap();
    let operations: Vec<_> = paths
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(|(method, described)| Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                described,
            })
        })
        .collect();
    // Tests that loop over the operations would pass without any.
    assert!(operations.len() >= 14, "{}", operations.len());
    operations
}

#[test]
fn committed_document_equals_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == valet::http::openapi::text(),
        "openapi/openapi.json differs from the code. Run: cargo run -- openapi > openapi/openapi.json"
    );
}

#[tokio::test]
async fn committed_document_is_served() {
    let app = TestApp::start().await;
    let answer = app.anonymous().get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.text, valet::http::openapi::text());
}

/// JSON parsers silently keep the last of two equal keys, so two answers with one status, or one path in two blocks of handlers,
/// would lose one. Such a text gets shorter when it is parsed and printed again in the same order.
#[test]
fn document_repeats_no_key() {
    let keeps_all = |raw: &str| {
        let parsed: Value = serde_json::from_str(raw).unwrap();
        serde_json::to_string_pretty(&parsed).unwrap() == raw
    };
    assert!(!keeps_all("{\n  \"a\": 1,\n  \"a\": 1\n}"), "a repeated key is found");
    assert!(keeps_all(&valet::http::openapi::service().spec()));
}

#[test]
fn every_operation_has_a_name_and_examples() {
    let mut ids = BTreeSet::new();
    for operation in operations() {
        let (name, described) = (format!("{} {}", operation.method, operation.path), operation.described);
        let text = |member: &str| described[member].as_str().unwrap_or_default();
        assert!(!text("summary").is_empty() && !text("description").is_empty(), "{name} is not described");
        assert!(!text("operationId").is_empty() && ids.insert(text("operationId")), "{name}: a missing or repeated operationId");
        if described.get("requestBody").is_some() {
            let content = described["requestBody"]["content"].as_object().unwrap();
            assert_eq!(content.keys().collect::<Vec<_>>(), ["application/json"], "{name}");
            assert!(operation.body().unwrap().is_object(), "{name}: its body has no example");
        }
        check_answers(&name, described["responses"].as_object().unwrap());
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            assert!(!parameter["description"].as_str().unwrap_or_default().is_empty(), "{name}: {parameter}");
        }
        let protected = operation.is_protected();
        assert_eq!(protected, described["responses"]["401"].to_string().contains("token_missing"), "{name}");
        assert_eq!(operation.is_admin(), operation.path.starts_with("/api/admin/"), "{name}");
        let public = ["/api/auth/signup", "/api/auth/login", "/api/auth/refresh", "/api/auth/logout", "/livez", "/readyz"];
        // Uppy's own calls carry a token in their path, which OpenAPI cannot describe as security.
        let by_path = operation.is_by_path_token();
        assert_eq!(protected, !public.contains(&operation.path.as_str()) && !by_path, "{name}");
        assert!(!by_path || described["responses"]["401"].to_string().contains("session_ended"), "{name}");
    }
}

/// Asserts that an operation describes a success and a problem, each with an example.
fn check_answers(name: &str, answers: &serde_json::Map<String, Value>) {
    assert!(answers.keys().any(|status| status.starts_with('2')), "{name}: no success");
    // Only the probe of the process itself cannot fail.
    assert!(name == "GET /livez" || answers.keys().any(|status| !status.starts_with('2')), "{name}: no problem");
    for (status, answer) in answers {
        assert!(!answer["description"].as_str().unwrap_or_default().is_empty(), "{name} {status} is not described");
        let content = answer["content"].as_object().cloned().unwrap_or_default();
        let types: Vec<_> = content.keys().map(String::as_str).collect();
        if types == ["text/event-stream"] {
            assert!(name == "GET /api/events" && content["text/event-stream"]["example"].is_string(), "{name} {status}");
            continue;
        }
        if status.starts_with('2') {
            assert!(types == ["application/json"] || (types.is_empty() && status == "204"), "{name} {status}: {types:?}");
            let is_shown = |media: &Value| media["example"].is_object() || media["example"][0].is_object();
            assert!(content.values().all(is_shown), "{name} {status}: no example");
            continue;
        }
        if status == "304" {
            assert!(types.is_empty() && answer["headers"]["ETag"].is_object(), "{name} {status}: {types:?}");
            continue;
        }
        assert_eq!(types, ["application/problem+json"], "{name} {status}");
        let codes = content["application/problem+json"]["examples"].as_object().unwrap();
        assert!(!codes.is_empty(), "{name} {status}: no code");
        for (code, example) in codes {
            let example = resolve(example)["value"].clone();
            assert_eq!(
                (example["code"].as_str(), example["status"].to_string()),
                (Some(code.as_str()), status.clone()),
                "{name}"
            );
            assert!(answer["description"].as_str().unwrap().contains(&format!("`{code}`")), "{name} {status}: {code}");
        }
    }
}

/// Follows a reference within the document.
fn resolve(value: &Value) -> &Value {
    let target = value["$ref"].as_str().map(|path| document().pointer(path.trim_start_matches('#')).unwrap());
    target.unwrap_or(value)
}

/// Generators treat `application/json; charset=utf-8` as another media type than `application/json`.
#[test]
fn media_types_have_no_parameters() {
    let text = valet::http::openapi::text();
    assert!(!text.contains("charset"), "{:?}", text.lines().find(|line| line.contains("charset")));
}

/// Covers constructs that break generators: null in place of an object, and references without a target.
#[test]
fn document_has_no_nulls_and_no_broken_references() {
    let (mut refs, mut wrong) = (0, Vec::new());
    let mut unvisited = vec![(String::new(), document())];
    while let Some((pointer, value)) = unvisited.pop() {
        match value {
            Value::Null => wrong.push(pointer),
            Value::Array(items) => unvisited.extend(items.iter().enumerate().map(|(n, item)| (format!("{pointer}/{n}"), item))),
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                    refs += 1;
                    let found = document().pointer(target.trim_start_matches('#'));
                    if found.is_none_or(|found| found.get("type").is_none() && found.get("value").is_none()) {
                        wrong.push(format!("{pointer} → {target}"));
                    }
                }
                unvisited.extend(members.iter().map(|(name, member)| (format!("{pointer}/{name}"), member)));
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty() && refs > 100, "{refs} references; {wrong:?}");
    for schema in ["Problem", "ProblemCode", "FieldError"] {
        assert!(document()["components"]["schemas"][schema]["type"].is_string(), "{schema}");
    }
}
