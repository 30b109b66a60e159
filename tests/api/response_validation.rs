//! Validates every answer of every test against the OpenAPI document: the operation documents the status, and a problem's code
//! with an example. `VALET_TEST_PROBLEMS` names a file to which the problems are appended, for `.ci/problem-examples`.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{LazyLock, Mutex, OnceLock},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::app::Answer;

/// Returns the OpenAPI document.
fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(valet::http::openapi::document)
}

/// Returns the path's operations; literal segments take precedence over parameters.
fn operations(path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap();
    let segments: Vec<_> = path.split('/').collect();
    let paths = document()["paths"].as_object().unwrap();
    let fits = |template: &str| {
        let template: Vec<_> = template.split('/').collect();
        template.len() == segments.len()
            && template.iter().zip(&segments).all(|(known, given)| known == given || known.starts_with('{'))
    };
    let mut fitting: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
    fitting.sort_by_key(|(template, _)| template.matches('{').count());
    fitting.first().map(|(_, operations)| *operations)
}

/// Asserts that an answer has a request id and is one that the document describes for this operation.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let id = answer.header("x-request-id");
    assert!(!id.is_empty(), "no x-request-id: {answer:?}");
    if answer.status >= 400 {
        assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
        let problem = &answer.json;
        assert_eq!(problem["status"], answer.status, "{answer:?}");
        assert_eq!(problem["requestId"], id, "{answer:?}");
        assert!(problem["type"].as_str().unwrap().ends_with(answer.code()), "{answer:?}");
        assert!(!problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty(), "{answer:?}");
        assert_eq!(
            answer.status == 401 || answer.code() == "insufficient_scope",
            !answer.header("www-authenticate").is_empty(),
            "{answer:?}"
        );
        assert_eq!(answer.status == 405, !answer.header("allow").is_empty(), "{answer:?}");
        assert_eq!(matches!(answer.status, 429 | 503 | 504), !answer.header("retry-after").is_empty(), "{answer:?}");
    }
    let operation = operations(path).map(|all| &all[method.as_str().to_lowercase()]).filter(|operation| !operation.is_null());
    let Some(operation) = operation else {
        // Not an operation: a page, or an undocumented path or method.
        assert!(matches!(answer.status, 200 | 204 | 307 | 404 | 405 | 413 | 415), "{method} {path}: {answer:?}");
        return;
    };
    let documented = &operation["responses"][answer.status.to_string()];
    assert!(documented.is_object(), "{method} {path} does not document {}: {answer:?}", answer.status);
    if answer.status >= 400 {
        let listed = documented["description"].as_str().unwrap().contains(&format!("`{}`", answer.code()));
        assert!(listed, "{method} {path} does not document {}: {answer:?}", answer.code());
        if !record(operation["operationId"].as_str().unwrap(), &answer.json) {
            let examples = documented["content"]["application/problem+json"]["examples"].as_object().unwrap();
            assert!(examples.contains_key(answer.code()), "{method} {path} has no example of {}: {answer:?}", answer.code());
        }
    } else if let Some(name) = documented["content"]["application/json"]["schema"]["$ref"].as_str() {
        check_members(name, &answer.json, path);
    } else if let Some(name) = documented["content"]["application/json"]["schema"]["items"]["$ref"].as_str() {
        let items = answer.json.as_array().unwrap_or_else(|| panic!("{path}: not a list: {answer:?}"));
        items.iter().for_each(|item| check_members(name, item, path));
    } else if documented["content"]["text/event-stream"].is_object() {
        // A HEAD has the same headers and no body.
        assert!(answer.text.is_empty() || answer.text.starts_with("retry: "), "{method} {path}: {answer:?}");
    } else {
        assert!(answer.text.is_empty(), "{method} {path}: {answer:?}");
    }
}

/// Appends an operation's problem to the file that `VALET_TEST_PROBLEMS` names, each text once. Returns whether the variable is
/// set.
pub fn record(operation: &str, problem: &Value) -> bool {
    static RECORDED: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);
    let Some(file) = std::env::var_os("VALET_TEST_PROBLEMS") else { return false };
    let line = json!({
        "operation": operation, "code": problem["code"], "detail": problem["detail"], "errors": problem["errors"],
    });
    let line = format!("{line}\n");
    let mut recorded = RECORDED.lock().unwrap();
    if recorded.insert(line.clone()) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
    true
}

/// Asserts that required members exist, no member is null, and every member is documented.
fn check_members(reference: &str, value: &Value, path: &str) {
    let schema = &document()["components"]["schemas"][reference.rsplit('/').next().unwrap()];
    let members = value.as_object().unwrap_or_else(|| panic!("{path}: not an object: {value}"));
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(members.contains_key(required.as_str().unwrap()), "{path}: {required} is missing in {value}");
    }
    for (name, member) in members {
        let documented = &schema["properties"][name];
        assert!(documented.is_object(), "{path}: {name} is not documented");
        assert!(!member.is_null(), "{path}: {name} is null");
        let reference =
            |schema: &Value| schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str()).map(str::to_owned);
        if let (Some(reference), Value::Object(_)) = (reference(documented), member) {
            check_members(&reference, member, path);
        }
        if let (Some(reference), Value::Array(items)) = (reference(&documented["items"]), member) {
            items.iter().for_each(|item| check_members(&reference, item, path));
        }
    }
}
