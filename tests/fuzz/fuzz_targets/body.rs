//! Fuzzes JSON bodies, parsed as every type that clients send. The input is a body.
#![no_main]

use std::{collections::HashSet, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use valet::http::{fuzzing::BODIES, problem::Code};

/// The OpenAPI document; problems contain the names of its members and the values of its enums.
const DOCUMENT: &str = include_str!("../../../openapi/openapi.json");

/// Words of problem texts that are not in [`DOCUMENT`]. Any other word in a problem was copied from the body, which must not
/// happen.
const WORDS: &str = "
    Problem code InvalidRequest detail errors FieldError field message headers is for uppy false
    The request body is not valid JSON
    A required member is missing is required
    A member appears more than once must appear once
    A string contains half of a UTF-16 surrogate pair Send whole characters must contain whole characters
    The request body has an unknown member must have no other members than or one of
    A member has a value of the wrong type must be
    a string an integer an object a sequence a map any valid JSON value PUT POST GET or DELETE
    PartNumber ETag checksum sha
";

/// All words that a problem may contain.
static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let mut known = words(WORDS).map(str::to_owned).collect();
    add_schema_words(&serde_json::from_str(DOCUMENT).expect("the committed document is JSON"), &mut known);
    known
});

/// Adds the names of members and the values of enums of all schemas in `value`.
fn add_schema_words(value: &Value, known: &mut HashSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                known.extend(properties.keys().flat_map(|name| words(name)).map(str::to_owned));
            }
            if let Some(Value::Array(values)) = members.get("enum") {
                known.extend(values.iter().filter_map(Value::as_str).flat_map(words).map(str::to_owned));
            }
            members.values().for_each(|member| add_schema_words(member, known));
        }
        Value::Array(items) => items.iter().for_each(|item| add_schema_words(item, known)),
        _ => {}
    }
}

/// Returns the words of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii_punctuation() || c.is_ascii_digit() || c.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
}

fuzz_target!(|bytes: &[u8]| {
    for read in BODIES {
        match read(bytes) {
            Ok(()) => {
                let value: Value = serde_json::from_slice(bytes).expect("an accepted body is JSON");
                assert!(value.is_object());
            }
            Err(problem) => {
                assert_eq!(problem.code, Code::InvalidRequest);
                let text = format!("{problem:?}");
                let unknown = words(&text).find(|word| !KNOWN.contains(*word));
                assert_eq!(unknown, None, "the problem repeats a word of the body: {text}");
            }
        }
    }
});
