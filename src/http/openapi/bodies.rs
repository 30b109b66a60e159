//! Which operations take a body, without the work of the document.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::service;

/// Path and method, in capitals, of every operation that takes no body.
#[must_use]
pub fn without_body() -> Vec<(String, String)> {
    #[derive(Deserialize)]
    struct Spec {
        paths: BTreeMap<String, BTreeMap<String, Operation>>,
    }
    #[derive(Deserialize)]
    struct Operation {
        #[serde(rename = "requestBody")]
        body: Option<IgnoredAny>,
    }
    let spec: Option<Spec> = serde_json::from_str(&service().spec()).ok();
    let all = spec.into_iter().flat_map(|spec| spec.paths);
    let of_path = |(path, operations): (String, BTreeMap<String, Operation>)| {
        let bodiless = operations.into_iter().filter(|(_, operation)| operation.body.is_none());
        bodiless.map(move |(method, _)| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
    };
    all.flat_map(of_path).collect()
}
