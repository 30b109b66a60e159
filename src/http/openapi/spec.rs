//! Lists the operations of the API, from the text of poem-openapi: faster than from the whole document.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::service::{service, service_without_uppy};

/// An operation as poem-openapi describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentedOperation {
    /// The path, with its parameters in braces.
    pub path: String,
    /// The method, in capitals.
    pub method: String,
    /// The `operationId`.
    pub id: String,
    /// Whether the operation takes a request body.
    pub has_body: bool,
}

#[derive(Deserialize)]
struct Spec {
    paths: BTreeMap<String, BTreeMap<String, SpecOperation>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecOperation {
    operation_id: String,
    request_body: Option<IgnoredAny>,
}

/// The operations that a server offers, by the setting `UPPY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// All operations.
    All,
    /// All operations except Uppy's.
    WithoutUppy,
}

/// Returns every operation that is offered, without building the document.
#[must_use]
pub fn operations(offered: Offered) -> Vec<DocumentedOperation> {
    let text = match offered {
        Offered::All => service().spec(),
        Offered::WithoutUppy => service_without_uppy().spec(),
    };
    // poem-openapi's text always has this form; a test compares the result with the document.
    let spec: Option<Spec> = serde_json::from_str(&text).ok();
    let operations_of = |(path, methods): (String, BTreeMap<String, SpecOperation>)| {
        methods.into_iter().map(move |(method, operation)| DocumentedOperation {
            path: path.clone(),
            method: method.to_uppercase(),
            id: operation.operation_id,
            has_body: operation.request_body.is_some(),
        })
    };
    spec.into_iter().flat_map(|spec| spec.paths).flat_map(operations_of).collect()
}
