//! Links: which member of a response is which parameter of the next request. poem-openapi does not support them; clients read them
//! in the documentation, and stateful tests follow them. Without links to bodies, which openapi-generator rejects.

use serde_json::{Value, json};

/// Operation and status of a response, the next operation, its parameter, and the JSON pointer of its value in the response.
type Link = (&'static str, &'static str, &'static str, &'static str, &'static str);

const LINKS: &[Link] = &[
    ("create_upload", "201", "confirm_upload", "id", "/id"),
    ("create_upload", "201", "renew_upload", "id", "/id"),
    ("create_upload", "201", "delete_image", "id", "/id"),
    ("create_upload", "200", "confirm_upload", "id", "/id"),
    ("renew_upload", "200", "confirm_upload", "id", "/id"),
    ("create_multipart_upload", "201", "sign_parts", "id", "/id"),
    ("create_multipart_upload", "201", "list_parts", "id", "/id"),
    ("create_multipart_upload", "201", "confirm_upload", "id", "/id"),
    ("create_multipart_upload", "201", "delete_image", "id", "/id"),
    ("create_multipart_upload", "200", "list_parts", "id", "/id"),
    ("confirm_upload", "200", "get_image", "id", "/id"),
    ("confirm_upload", "200", "download_image", "id", "/id"),
    ("confirm_upload", "200", "update_image", "id", "/id"),
    ("confirm_upload", "200", "delete_image", "id", "/id"),
    ("list_pending_uploads", "200", "list_pending_uploads", "cursor", "/nextCursor"),
    ("list_pending_uploads", "200", "renew_upload", "id", "/uploads/0/id"),
    ("list_images", "200", "list_images", "cursor", "/nextCursor"),
    ("list_images", "200", "get_image", "id", "/images/0/id"),
    ("list_images", "200", "download_image", "id", "/images/0/id"),
    ("list_images", "200", "update_image", "id", "/images/0/id"),
    ("list_images", "200", "delete_image", "id", "/images/0/id"),
    ("list_sessions", "200", "end_session", "id", "/sessions/0/id"),
    ("create_uppy_session", "200", "uppy_form", "token", "/token"),
    ("create_uppy_session", "200", "uppy_create_multipart", "token", "/token"),
];

/// Adds an operation's links to its responses.
pub fn add(operation_id: &str, responses: &mut serde_json::Map<String, Value>) {
    for (_, status, to, name, pointer) in LINKS.iter().filter(|link| link.0 == operation_id) {
        let Some(answer) = responses.get_mut(*status) else { continue };
        answer["links"][*to] = json!({
            "operationId": to,
            "description": format!("`{}` is the `{name}` of `{to}`.", pointer.trim_start_matches('/').replace('/', ".")),
            "parameters": { *name: format!("$response.body#{pointer}") },
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A misspelt link would be left out silently.
    #[test]
    fn every_link_is_in_the_document_and_resolves() {
        let document = super::super::document();
        let operations: Vec<_> =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values()).collect();
        let find = |id: &str| *operations.iter().find(|operation| operation["operationId"] == id).unwrap();
        for (from, status, to, name, pointer) in LINKS {
            let link = &find(from)["responses"][status]["links"][to];
            assert_eq!(link["parameters"][name], format!("$response.body#{pointer}"), "{from} {status}");
            assert!(find(to)["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == *name), "{to} {name}");
            assert!(!resolve(&document, find(from), status, pointer).is_null(), "{from} {status} {pointer}");
        }
    }

    /// Returns the schema at a JSON pointer into a response.
    fn resolve<'a>(document: &'a Value, operation: &'a Value, status: &str, pointer: &str) -> &'a Value {
        let follow = |schema: &'a Value| {
            let target = schema["$ref"].as_str().map(|target| target.trim_start_matches('#'));
            target.map_or(schema, |target| document.pointer(target).unwrap())
        };
        let start = follow(&operation["responses"][status]["content"]["application/json"]["schema"]);
        pointer
            .split('/')
            .skip(1)
            .fold(start, |schema, step| follow(if step == "0" { &schema["items"] } else { &schema["properties"][step] }))
    }
}
