//! Builds a request for each operation of the OpenAPI document from the document's own examples.

use std::sync::OnceLock;

use reqwest::Method;
use serde_json::Value;

/// An operation with an example request.
#[derive(Debug, Clone)]
pub struct Operation {
    /// `operationId` in the document.
    pub id: String,
    pub method: Method,
    /// Path template in the document.
    pub template: String,
    /// Path with the examples of its parameters, except for Uppy's `{token}`.
    pub path: String,
    /// Example of the JSON body.
    pub body: Option<Value>,
    /// Whether the operation requires an access token.
    pub is_signed: bool,
}

impl Operation {
    /// Returns whether the operation is for service keys.
    pub fn is_admin(&self) -> bool {
        self.template.starts_with("/api/admin/")
    }
}

/// Returns the OpenAPI document.
fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(valet::http::openapi::document)
}

/// Returns a string without its quotes, and any other value as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the operation with the examples of its parameters filled in.
fn operation(template: &str, method: &str, described: &Value) -> Operation {
    let (mut path, mut query) = (template.to_owned(), Vec::new());
    for parameter in described["parameters"].as_array().into_iter().flatten() {
        let (name, example) = (parameter["name"].as_str().unwrap(), text(&parameter["example"]));
        match parameter["in"].as_str() {
            Some("path") if name != "token" => path = path.replace(&format!("{{{name}}}"), &example),
            Some("query") if parameter["required"] == true => query.push(format!("{name}={}", example.replace('/', "%2F"))),
            _ => {}
        }
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    Operation {
        id: described["operationId"].as_str().unwrap().to_owned(),
        method: method.to_uppercase().parse().unwrap(),
        template: template.to_owned(),
        path,
        body: described.pointer("/requestBody/content/application~1json/example").cloned(),
        is_signed: described["security"].as_array().is_some_and(|all| !all.is_empty()),
    }
}

/// Returns all operations of the document.
pub fn operations() -> Vec<Operation> {
    let paths = document()["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, operations)| {
        operations.as_object().unwrap().iter().map(move |(method, described)| operation(path, method, described))
    });
    all.collect()
}
