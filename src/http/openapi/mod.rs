//! The OpenAPI document.
//!
//! poem-openapi writes operations and schemas; [`document`] adds everything that it has no attributes for: the problems of every
//! operation with their codes, examples, the domain's limits, closed request objects, links, and types that generators handle
//! well. Needs no running service.

mod examples;
mod generators;
mod links;
mod problem_examples;
mod problems;
mod schemas;
mod service;
mod spec;

use serde_json::{Map, Value, json};

pub use self::{
    service::{Api, ApiWithoutUppy, service, service_without_uppy},
    spec::{DocumentedOperation, Offered, operations},
};
use super::pagination;
use crate::model::PartLayout;

/// Tags in reading order.
const TAGS: [&str; 7] = ["Accounts", "Uploads", "Gallery", "Batches", "Backend", "Uppy", "Health"];

/// Returns the document as it is served and committed: pretty JSON with a newline at its end.
#[must_use]
pub fn text() -> String {
    pretty(&document())
}

/// Returns the document that is served with `UPPY=off`.
#[must_use]
pub fn text_without_uppy() -> String {
    pretty(&described(&service_without_uppy().spec()))
}

/// Formats the document as it is committed.
fn pretty(document: &Value) -> String {
    // A `Value` always serialises.
    serde_json::to_string_pretty(document).unwrap_or_default() + "\n"
}

/// Returns the document with all operations.
#[must_use]
pub fn document() -> Value {
    described(&service().spec())
}

/// Parses the text of poem-openapi, and completes it to the document.
fn described(spec: &str) -> Value {
    // poem-openapi adds a charset, which generators read as another media type.
    let raw = spec.replace("; charset=utf-8", "");
    let mut document: Value = serde_json::from_str(&raw).unwrap_or_default();
    schemas::describe(&mut document["components"]["schemas"]);
    // poem-openapi includes unused tags, and sorts them by name.
    let operations = document["paths"].as_object().into_iter().flat_map(Map::values).filter_map(Value::as_object);
    let used: Vec<_> = operations.flat_map(Map::values).map(|operation| operation["tags"][0].clone()).collect();
    if let Some(tags) = document.get_mut("tags").and_then(Value::as_array_mut) {
        tags.retain(|tag| used.contains(&tag["name"]));
        tags.sort_by_key(|tag| TAGS.iter().position(|name| tag["name"] == *name));
    }
    let schemas = document["components"]["schemas"].clone();
    // `get_mut` throughout: indexing a mutable value inserts a missing member as null.
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for (method, operation) in paths.values_mut().filter_map(Value::as_object_mut).flatten() {
            describe_operation(method, operation, &schemas);
        }
    }
    document["components"]["examples"] = problem_examples::components(&document).into();
    generators::adapt(&mut document);
    document
}

/// Completes an operation: descriptions and examples of its parameters, bodies and answers, its problems, its links.
fn describe_operation(method: &str, operation: &mut Value, schemas: &Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    // Not by `[]`, which inserts null for a missing member.
    if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
        parameters.iter_mut().for_each(|parameter| describe_parameter(&id, parameter));
    }
    for media in
        operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
    {
        set_example(media);
    }
    let codes = problems::codes_of(method, &id, operation);
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    // The response that `Problem` registers so that the document has its schemas; each status gets its own response below.
    responses.remove("default");
    for answer in responses.values_mut() {
        if answer["description"].as_str().is_some_and(str::is_empty) {
            answer["description"] = description_of(answer, schemas).into();
        }
        for media in answer.get_mut("content").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            set_example(media);
        }
        if let Some(media) = answer.pointer_mut("/content/text~1event-stream") {
            media["example"] = EVENTS.into();
        }
    }
    let statuses: std::collections::BTreeSet<_> = codes.iter().map(|code| code.status().as_u16()).collect();
    for status in statuses {
        let codes_of_status: Vec<_> = codes.iter().copied().filter(|code| code.status().as_u16() == status).collect();
        responses.insert(status.to_string(), problems::response(&id, &codes_of_status));
    }
    links::add(&id, responses);
    // An explicit empty list: these operations need no token.
    if operation.get("security").is_none() {
        operation["security"] = json!([]);
    }
}

/// Adds description, example and limits of a parameter, by its name.
fn describe_parameter(operation: &str, parameter: &mut Value) {
    match parameter["name"].as_str() {
        Some("id") if operation == "end_session" => {
            parameter["description"] = "The session's id.".into();
            parameter["example"] = examples::SESSION.into();
        }
        Some("limit") => {
            let (maximum, default) = (pagination::MAX_LIMIT, pagination::DEFAULT_LIMIT);
            parameter["schema"] =
                json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": maximum, "default": default });
            parameter["example"] = default.into();
        }
        Some("Idempotency-Key") => {
            parameter["schema"] = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" });
            parameter["example"] = "\"0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44\"".into();
        }
        Some("Last-Event-ID") => {
            parameter["example"] = examples::EVENT_POSITION.into();
        }
        Some("token") => {
            parameter["description"] = "The token of `POST /api/uppy/session`.".into();
            parameter["example"] = examples::UPPY_TOKEN.into();
        }
        Some("uploadId") => {
            parameter["description"] = "The `uploadId` of the answer that opened the upload.".into();
            parameter["example"] = examples::IMAGE.into();
        }
        Some("key") => {
            parameter["description"] = "The `key` of the answer that opened the upload.".into();
            parameter["example"] = examples::UPPY_KEY.into();
            parameter["required"] = true.into();
        }
        Some("partNumber") => {
            parameter["schema"] = json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": PartLayout::MAX_PARTS });
            parameter["example"] = 1.into();
        }
        Some("partNumbers") => {
            parameter["example"] = "1,2,3".into();
            parameter["required"] = true.into();
        }
        Some("filename") => {
            parameter["example"] = "beach.jpg".into();
            parameter["required"] = true.into();
        }
        Some("user") => {
            parameter["description"] = "The user's id.".into();
            parameter["example"] = examples::USER.into();
        }
        Some("id" | "image") => {
            parameter["description"] = "The image's id.".into();
            parameter["example"] = examples::IMAGE.into();
        }
        _ => {}
    }
}

/// Example of an event stream: an event and a heartbeat.
const EVENTS: &str = "id: 1764412345-7-1\nevent: image.ready\ndata: {\"id\":\"01980a3c-5b7e-7c11-9f3a-2d4e6b8c0a1f\"}\n\n:\nid: 1764412365-1-0\n\n";

/// Returns the description of an answer's schema, for an answer without its own.
fn description_of(answer: &Value, schemas: &Value) -> String {
    let media = answer["content"].as_object().and_then(|content| content.values().next());
    let schema_name = |schema: &Value| schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    let name = media.and_then(|media| schema_name(&media["schema"]).or_else(|| schema_name(media["schema"].get("items")?)));
    name.and_then(|name| schemas[&name]["description"].as_str()).unwrap_or_default().to_owned()
}

/// Adds the example of a body's schema.
fn set_example(media: &mut Value) {
    let name = media["schema"]["$ref"].as_str().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    if let Some(example) = name.as_deref().and_then(examples::of_schema) {
        media["example"] = example;
    }
    let item = media["schema"].get("items").and_then(|items| items["$ref"].as_str()?.rsplit('/').next()).map(str::to_owned);
    if let Some(example) = item.as_deref().and_then(examples::of_schema) {
        media["example"] = json!([example]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::Code;

    /// Calls `visit` with each value in `value` and its JSON pointer.
    fn walk(value: &Value, pointer: &str, visit: &mut impl FnMut(&str, &Value)) {
        visit(pointer, value);
        match value {
            Value::Object(members) => members.iter().for_each(|(name, member)| walk(member, &format!("{pointer}/{name}"), visit)),
            Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| walk(item, &format!("{pointer}/{n}"), visit)),
            _ => {}
        }
    }

    #[test]
    fn the_operations_are_those_of_the_document() {
        let document = document();
        let mut documented: Vec<_> = document["paths"]
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(path, methods)| methods.as_object().into_iter().flatten().map(move |operation| (path, operation)))
            .map(|(path, (method, described))| DocumentedOperation {
                path: path.clone(),
                method: method.to_uppercase(),
                id: described["operationId"].as_str().unwrap_or_default().to_owned(),
                has_body: described.get("requestBody").is_some(),
            })
            .collect();
        let sorted = |offered| {
            let mut all = operations(offered);
            all.sort_by(|a, b| (&a.path, &a.method).cmp(&(&b.path, &b.method)));
            all
        };
        documented.sort_by(|a, b| (&a.path, &a.method).cmp(&(&b.path, &b.method)));
        assert!(documented.len() > 30, "{documented:?}");
        assert_eq!(sorted(Offered::All), documented);
        documented.retain(|operation| !operation.path.starts_with("/uppy/") && !operation.path.starts_with("/api/uppy/"));
        assert_eq!(sorted(Offered::WithoutUppy), documented);
    }

    #[test]
    fn nothing_is_null_and_every_reference_resolves() {
        let document = document();
        let mut references = 0;
        walk(&document, "", &mut |at, value| {
            assert!(!value.is_null(), "null at {at}");
            if let Some(target) = value.as_str().filter(|_| at.ends_with("/$ref")) {
                references += 1;
                assert!(document.pointer(target.trim_start_matches('#')).is_some_and(Value::is_object), "{at}: {target}");
            }
        });
        assert!(references > 50, "{references}");
        assert_eq!(
            document["components"]["schemas"]["ProblemCode"]["x-extensible-enum"].as_array().map(Vec::len),
            Some(Code::ALL.len())
        );
    }
}
