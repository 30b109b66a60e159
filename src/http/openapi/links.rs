//! Links: a member of a response that is a parameter of the next request. poem-openapi does not support them; clients read them
//! in the documentation, and stateful tests follow them. There are no links to request bodies: openapi-generator rejects them.

use serde_json::{Value, json};

/// A member of a response that is a parameter of another operation.
struct Link {
    /// Operation that sends the response.
    from: &'static str,
    /// Status of the response.
    status: &'static str,
    /// JSON pointer of the member in the response.
    pointer: &'static str,
    /// The next operation.
    to: &'static str,
    /// Parameter of that operation.
    parameter: &'static str,
}

/// Links between operations: `from` and its status, the member, `to` and its parameter.
const LINKS: &[Link] = &[
    Link { from: "create_upload", status: "201", pointer: "/id", to: "confirm_upload", parameter: "id" },
    Link { from: "create_upload", status: "201", pointer: "/id", to: "renew_upload", parameter: "id" },
    Link { from: "create_upload", status: "201", pointer: "/id", to: "delete_image", parameter: "id" },
    Link { from: "create_upload", status: "200", pointer: "/id", to: "confirm_upload", parameter: "id" },
    Link { from: "renew_upload", status: "200", pointer: "/id", to: "confirm_upload", parameter: "id" },
    Link { from: "create_multipart_upload", status: "201", pointer: "/id", to: "sign_parts", parameter: "id" },
    Link { from: "create_multipart_upload", status: "201", pointer: "/id", to: "list_parts", parameter: "id" },
    Link { from: "create_multipart_upload", status: "201", pointer: "/id", to: "confirm_upload", parameter: "id" },
    Link { from: "create_multipart_upload", status: "201", pointer: "/id", to: "delete_image", parameter: "id" },
    Link { from: "create_multipart_upload", status: "200", pointer: "/id", to: "list_parts", parameter: "id" },
    Link { from: "confirm_upload", status: "200", pointer: "/id", to: "get_image", parameter: "id" },
    Link { from: "confirm_upload", status: "200", pointer: "/id", to: "download_image", parameter: "id" },
    Link { from: "confirm_upload", status: "200", pointer: "/id", to: "update_image", parameter: "id" },
    Link { from: "confirm_upload", status: "200", pointer: "/id", to: "delete_image", parameter: "id" },
    Link { from: "list_pending_uploads", status: "200", pointer: "/nextCursor", to: "list_pending_uploads", parameter: "cursor" },
    Link { from: "list_pending_uploads", status: "200", pointer: "/uploads/0/id", to: "renew_upload", parameter: "id" },
    Link { from: "list_images", status: "200", pointer: "/nextCursor", to: "list_images", parameter: "cursor" },
    Link { from: "list_images", status: "200", pointer: "/images/0/id", to: "get_image", parameter: "id" },
    Link { from: "list_images", status: "200", pointer: "/images/0/id", to: "download_image", parameter: "id" },
    Link { from: "list_images", status: "200", pointer: "/images/0/id", to: "update_image", parameter: "id" },
    Link { from: "list_images", status: "200", pointer: "/images/0/id", to: "delete_image", parameter: "id" },
    Link { from: "list_sessions", status: "200", pointer: "/sessions/0/id", to: "end_session", parameter: "id" },
    Link { from: "create_uppy_session", status: "200", pointer: "/token", to: "uppy_form", parameter: "token" },
    Link { from: "create_uppy_session", status: "200", pointer: "/token", to: "uppy_create_multipart", parameter: "token" },
];

/// Adds an operation's links to its responses.
pub fn add(operation_id: &str, responses: &mut serde_json::Map<String, Value>) {
    for Link { status, pointer, to, parameter, .. } in LINKS.iter().filter(|link| link.from == operation_id) {
        // A test finds links of responses that do not exist.
        let Some(response) = responses.get_mut(*status) else { continue };
        response["links"][*to] = json!({
            "operationId": to,
            "description": format!("`{}` is the `{parameter}` of `{to}`.", pointer.trim_start_matches('/').replace('/', ".")),
            "parameters": { *parameter: format!("$response.body#{pointer}") },
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// [`add`] leaves out a link whose response does not exist, such as a misspelt one.
    #[test]
    fn every_link_is_in_the_document_and_resolves() {
        let document = super::super::document();
        let operations: Vec<_> =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values()).collect();
        let find = |id: &str| *operations.iter().find(|operation| operation["operationId"] == id).unwrap();
        for Link { from, status, pointer, to, parameter } in LINKS {
            let link = &find(from)["responses"][status]["links"][to];
            assert_eq!(link["parameters"][parameter], format!("$response.body#{pointer}"), "{from} {status}");
            assert!(
                find(to)["parameters"].as_array().unwrap().iter().any(|found| found["name"] == *parameter),
                "{to} {parameter}"
            );
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
        pointer.split('/').skip(1).fold(start, |schema, step| {
            // `0` is an array's first item; the schema has one for all items.
            follow(if step == "0" { &schema["items"] } else { &schema["properties"][step] })
        })
    }
}
