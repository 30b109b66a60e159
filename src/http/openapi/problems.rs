//! The problems of each operation, as the document lists them.

use serde_json::{Map, Value, json};

use super::examples;
use crate::http::{auth, batch, budgets, gallery, health, multipart, problem::Code, sessions, uploads, uppy};

/// The problems an operation can answer with: its own, and those that follow from its shape.
pub(super) fn codes_of(method: &str, id: &str, operation: &Value) -> Vec<Code> {
    let own = [
        auth::PROBLEMS,
        sessions::PROBLEMS,
        uploads::PROBLEMS,
        batch::PROBLEMS,
        multipart::PROBLEMS,
        gallery::PROBLEMS,
        uppy::PROBLEMS,
        health::PROBLEMS,
    ]
    .concat();
    let mut codes = own.into_iter().find(|(known, _)| *known == id).map_or_else(Vec::new, |(_, codes)| codes.to_vec());
    // Of every call: a header or a parameter that is given twice, a body where none is wanted, a coded one.
    codes.extend([Code::InvalidRequest, Code::UnsupportedMediaType]);
    if matches!(method, "post" | "put" | "patch") {
        codes.extend([Code::RequestTimeout, Code::PayloadTooLarge]);
    }
    if operation.get("security").is_some() {
        codes.extend([Code::TokenMissing, Code::TokenInvalid, Code::TokenExpired, Code::SessionEnded]);
    }
    if !budgets::limits_of(id).is_empty() {
        codes.push(Code::RateLimited);
    }
    if id != "get_liveness" {
        codes.extend([Code::Internal, Code::Unavailable, Code::Timeout]);
    }
    let mut seen = std::collections::BTreeSet::new();
    codes.retain(|code| seen.insert(*code));
    codes
}

/// The answers of one status: its codes, an example of each, and the headers that tell when to come back.
pub(super) fn response(id: &str, codes: &[Code]) -> Value {
    let listed: Vec<_> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
    let examples: Map<_, _> =
        codes.iter().map(|code| (code.as_str().to_owned(), json!({ "value": examples::of_problem(*code) }))).collect();
    let mut response = json!({
        "description": listed.join(" "),
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" }, "examples": examples } },
    });
    let header = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    match codes.first().map(|code| code.status().as_u16()) {
        Some(401) => response["headers"]["www-authenticate"] = header("`Bearer`, with an error code when a token was sent."),
        Some(status @ (429 | 503 | 504)) => {
            response["headers"]["retry-after"] = json!({
                "description": "Seconds to wait before asking again.", "schema": { "type": "integer", "format": "int32", "minimum": 1 },
            });
            if status == 429 {
                let limits: Vec<_> = budgets::limits_of(id).iter().map(|name| format!("`{name}`")).collect();
                response["description"] = format!("{} Limits: {}.", listed.join(" "), limits.join(", ")).into();
                response["headers"]["ratelimit-policy"] = header("The limit: its name, requests `q` in `w` seconds.");
                response["headers"]["ratelimit"] =
                    header("The limit's name, requests `r` left, and `t` seconds until there is one.");
            }
        }
        _ => {}
    }
    response
}
