//! Examples of problems: texts that the server sent in tests. `.ci/problem-examples` writes `problem_examples.json` from them,
//! and compares the two in every run of the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use poem_openapi::types::ToJSON;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::http::problem::{Code, Problem};

/// The texts of one problem; the others follow from its code.
#[derive(Deserialize)]
struct Texts {
    /// Operations that send these texts. Empty for those without texts of their own.
    #[serde(default)]
    operations: BTreeSet<String>,
    detail: String,
    #[serde(default)]
    errors: Vec<FieldTexts>,
}

#[derive(Deserialize)]
struct FieldTexts {
    field: String,
    message: String,
}

/// Recorded texts by code.
static RECORDED: LazyLock<BTreeMap<String, Vec<Texts>>> =
    // A test checks that the file can be parsed.
    LazyLock::new(|| serde_json::from_str(include_str!("problem_examples.json")).unwrap_or_default());

/// Returns a reference to the example of an operation's problem.
pub fn reference(operation: &str, code: Code) -> Option<Value> {
    let texts = texts(code);
    let own = texts.iter().find(|texts| texts.operations.contains(operation));
    let found = own.or_else(|| texts.iter().find(|texts| texts.operations.is_empty()))?;
    let name = name(code, found, is_for_uppy(operation));
    Some(json!({ "$ref": format!("#/components/examples/{name}") }))
}

/// Returns the examples that the document refers to, for its `components`.
pub fn components(document: &Value) -> Map<String, Value> {
    let paths = document["paths"].to_string();
    let all = Code::ALL.iter().flat_map(|code| {
        let variants = texts(*code).iter().flat_map(|texts| [(texts, false), (texts, true)]);
        variants.map(|(texts, for_uppy)| (name(*code, texts, for_uppy), example(*code, texts, for_uppy)))
    });
    all.filter(|(name, _)| paths.contains(&format!("#/components/examples/{name}\""))).collect()
}

/// Returns the recorded texts of a problem code.
fn texts(code: Code) -> &'static [Texts] {
    RECORDED.get(code.as_str()).map_or(&[], Vec::as_slice)
}

/// Returns whether Uppy itself makes the requests of an operation: their problems have `message`.
fn is_for_uppy(operation: &str) -> bool {
    operation.starts_with("uppy_")
}

/// Returns the name of an example.
fn name(code: Code, texts: &Texts, for_uppy: bool) -> String {
    let operation = texts.operations.first().map(|operation| format!("-{operation}"));
    let suffix = if for_uppy { "-for_uppy" } else { "" };
    format!("{}{}{suffix}", code.as_str(), operation.unwrap_or_default())
}

/// Returns the example of a problem.
fn example(code: Code, texts: &Texts, for_uppy: bool) -> Value {
    let problem = Problem::new(code, &texts.detail);
    let problem = texts.errors.iter().fold(problem, |problem, error| problem.field(&error.field, &error.message));
    let problem = if for_uppy { problem.for_uppy() } else { problem };
    json!({ "value": problem.into_body("0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44").to_json() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Calls `check` with every example of a problem: operation, code, problem. Returns the number of examples.
    fn for_each_example(document: &Value, mut check: impl FnMut(&Value, &str, &Value)) -> usize {
        let mut count = 0;
        for operation in document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values()) {
            for answer in operation["responses"].as_object().unwrap().values() {
                let examples = &answer["content"]["application/problem+json"]["examples"];
                for (code, example) in examples.as_object().into_iter().flatten() {
                    let target = example["$ref"].as_str().unwrap().trim_start_matches('#');
                    check(operation, code, &document.pointer(target).unwrap()["value"]);
                    count += 1;
                }
            }
        }
        count
    }

    #[test]
    fn the_file_is_valid_and_has_known_codes() {
        let parsed: BTreeMap<String, Vec<Texts>> = serde_json::from_str(include_str!("problem_examples.json")).unwrap();
        let known: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(parsed.keys().all(|code| known.contains(code.as_str())), "{:?}", parsed.keys());
        assert_eq!(parsed.len(), RECORDED.len());
    }

    #[test]
    fn every_problem_of_every_operation_has_an_example() {
        let document = super::super::document();
        for operation in document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values()) {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let Some(content) = answer["content"].get("application/problem+json") else { continue };
                let listed = answer["description"].as_str().unwrap().matches("`: ").count();
                let shown = content["examples"].as_object().unwrap().len();
                assert!(shown == listed && shown > 0, "{} {status}: {shown} of {listed}", operation["operationId"]);
            }
        }
    }

    #[test]
    fn every_example_fits_the_schema() {
        let document = super::super::document();
        let schemas = &document["components"]["schemas"];
        let examples = for_each_example(&document, |operation, code, problem| {
            let name = format!("{} {code}", operation["operationId"]);
            for required in schemas["Problem"]["required"].as_array().unwrap() {
                assert!(problem.get(required.as_str().unwrap()).is_some(), "{name}: {required} is missing");
            }
            for (member, value) in problem.as_object().unwrap() {
                let schema = &schemas["Problem"]["properties"][member];
                let fits = match schema["type"].as_str() {
                    Some("integer") => value.is_u64(),
                    Some("array") => value.as_array().is_some_and(|items| !items.is_empty()),
                    _ => schema.is_object() && value.as_str().is_some_and(|text| !text.is_empty()),
                };
                assert!(fits, "{name}: {member} is {value}");
            }
            assert_eq!(problem["code"], code, "{name}");
        });
        assert!(examples > 300, "{examples}");
    }

    /// A problem names only members, parameters and headers that the operation has.
    #[test]
    fn every_field_is_one_of_its_operation() {
        let document = super::super::document();
        let mut fields = 0;
        for_each_example(&document, |operation, code, problem| {
            let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
            let schema = schema.map(|path| document.pointer(path.trim_start_matches('#')).unwrap());
            let members = schema.and_then(|schema| schema["properties"].as_object()).into_iter().flat_map(Map::keys).cloned();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameters = parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
            let known: BTreeSet<_> = members.chain(parameters).collect();
            for error in problem["errors"].as_array().into_iter().flatten() {
                let field = error["field"].as_str().unwrap();
                let root = field.split(['.', '[']).next().unwrap();
                fields += 1;
                let is_known = root.is_empty() || known.contains(root) || known.contains(field);
                assert!(is_known, "{} {code}: {field} is not in {known:?}", operation["operationId"]);
                assert_eq!(error.as_object().unwrap().len(), 2, "{error}");
            }
        });
        assert!(fields > 50, "{fields}");
    }
}
