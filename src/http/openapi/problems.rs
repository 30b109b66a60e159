//! The problems of each operation in the document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::problem_examples;
use crate::http::{operations, problem::Code};

/// Returns the problems of an operation: its own, and those that follow from its shape.
pub(super) fn codes_of(method: &str, id: &str, operation: &Value) -> Vec<Code> {
    let metadata = operations::find(id);
    let mut codes: BTreeSet<_> = metadata.into_iter().flat_map(|operation| operation.problems.concat()).collect();
    // Every operation rejects repeated headers and parameters, an unexpected body, and a Content-Encoding.
    codes.extend([Code::InvalidRequest, Code::UnsupportedMediaType]);
    if matches!(method, "post" | "put" | "patch") {
        codes.extend([Code::RequestTimeout, Code::PayloadTooLarge]);
    }
    let has_scheme = |scheme: &str| operation["security"][0].get(scheme).is_some();
    if has_scheme("accessToken") || has_scheme("serviceKey") {
        codes.extend([Code::TokenMissing, Code::TokenInvalid, Code::TokenExpired]);
    }
    if has_scheme("accessToken") {
        codes.extend([Code::SessionEnded, Code::AccountSuspended]);
    }
    if has_scheme("serviceKey") {
        codes.insert(Code::InsufficientScope);
    }
    if metadata.is_some_and(|operation| !operation.rate_limits.is_empty()) {
        codes.insert(Code::RateLimited);
    }
    if id != "get_liveness" {
        codes.extend([Code::Internal, Code::Unavailable, Code::Timeout]);
    }
    codes.into_iter().collect()
}

/// Returns the response of one status: its codes, an example of each, and the headers for waiting.
pub(super) fn response(id: &str, codes: &[Code]) -> Value {
    let listed: Vec<_> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
    let example = |code: &Code| Some((code.as_str().to_owned(), problem_examples::reference(id, *code)?));
    let examples: Map<_, _> = codes.iter().filter_map(example).collect();
    let mut response = json!({
        "description": listed.join(" "),
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" }, "examples": examples } },
    });
    let header = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    match codes.first().map(|code| code.status().as_u16()) {
        Some(401) => response["headers"]["www-authenticate"] = header("`Bearer`, with an error code if a token was sent."),
        Some(status @ (429 | 503 | 504)) => {
            response["headers"]["retry-after"] = json!({
                "description": "Seconds to wait before repeating the request.", "schema": { "type": "integer", "format": "int32", "minimum": 1 },
            });
            if status == 429 {
                let limits: Vec<_> = operations::find(id)
                    .into_iter()
                    .flat_map(|operation| operation.rate_limits)
                    .map(|name| format!("`{name}`"))
                    .collect();
                response["description"] = format!("{} Limits: {}.", listed.join(" "), limits.join(", ")).into();
                response["headers"]["ratelimit-policy"] = header("The limit: its name, and `q` requests in `w` seconds.");
                response["headers"]["ratelimit"] =
                    header("The limit's name, the `r` requests left, and the `t` seconds until the next one is allowed.");
            }
        }
        _ => {}
    }
    response
}
