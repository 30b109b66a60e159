//! Shapes that client generators turn into the types a developer would have written. Nothing here changes what goes over the
//! wire; each rule says which generators need it.

use serde_json::{Map, Value, json};

use crate::model::{ContentType, Preview};

/// Applies every rule to the whole document.
pub fn tidy(document: &mut Value) {
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        name_media_types(schemas);
        describe_batch(schemas);
        open_enums(schemas);
    }
    walk(document);
}

fn walk(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(object) => {
            unwrap_reference(object);
            sign_integer(object);
            write_headers_as_people_do(object);
            object.values_mut().for_each(walk);
        }
        _ => {}
    }
}

/// `allOf` of a reference and a description is a new, nameless type for many; of a reference alone, it is that type. The
/// description stands beside it already.
fn unwrap_reference(schema: &mut Map<String, Value>) {
    if let Some(all) = schema.get_mut("allOf").and_then(Value::as_array_mut) {
        all.retain(|one| one.as_object().is_none_or(|members| !members.keys().all(|name| name == "description")));
    }
}

/// OpenAPI knows `int32` and `int64`. Of any other integer openapi-generator makes one of 32 bits, and the default quota of
/// 10 GiB is no such number.
fn sign_integer(schema: &mut Map<String, Value>) {
    let format = match schema.get("format").and_then(Value::as_str) {
        Some("uint64") => "int64",
        Some("uint32" | "uint16") => "int32",
        _ => return,
    };
    schema.insert("format".to_owned(), format.into());
    schema.entry("minimum").or_insert_with(|| 0.into());
}

/// poem-openapi shouts them.
fn write_headers_as_people_do(answer: &mut Map<String, Value>) {
    let Some(headers) = answer.get_mut("headers").and_then(Value::as_object_mut) else { return };
    for (shouted, name, description) in [
        ("ETAG", "ETag", ""),
        ("CACHE-CONTROL", "Cache-Control", "Keep it for this user alone, and ask each time with `If-None-Match`."),
    ] {
        let Some(mut header) = headers.remove(shouted) else { continue };
        if !description.is_empty() {
            header["description"] = description.into();
        }
        headers.insert(name.to_owned(), header);
    }
}

/// One enum for all requests that name a type, with names for its values: `image/jpeg` would become `imageSlashJpeg`. An
/// image's own `contentType` stays a text, so that a client bears types that come later. A preview's few types stay where
/// they are: a second `JPEG` would be a second constant of that name in Go.
fn name_media_types(schemas: &mut Map<String, Value>) {
    let values = |types: &[ContentType]| types.iter().map(|known| known.as_str()).collect::<Vec<_>>();
    let names = |types: &[ContentType]| {
        types.iter().map(|known| known.as_str().trim_start_matches("image/").to_uppercase()).collect::<Vec<_>>()
    };
    schemas.insert(
        "ImageType".to_owned(),
        json!({
            "type": "string", "title": "ImageType", "description": "A media type that may be uploaded.",
            "enum": values(&ContentType::ALL), "x-enum-varnames": names(&ContentType::ALL),
        }),
    );
    schemas.sort_keys();
    for schema in ["NewUpload", "BatchUpload", "NewMultipart"] {
        if let Some(member) = content_type_of(schemas, schema) {
            member.remove("type");
            member.insert("allOf".to_owned(), json!([{ "$ref": "#/components/schemas/ImageType" }]));
        }
    }
    if let Some(member) = content_type_of(schemas, "NewPreview") {
        member.insert("enum".to_owned(), json!(values(&Preview::TYPES)));
        member.insert("x-enum-varnames".to_owned(), json!(names(&Preview::TYPES)));
    }
}

/// The values that these schemas have today are no closed list: a generated enum would fail on a later one. `x-extensible-enum`
/// lists them for people and for tools that know it.
const OPEN: [&str; 2] = ["ProblemCode", "TicketState"];

fn open_enums(schemas: &mut Map<String, Value>) {
    for name in OPEN {
        let Some(schema) = schemas.get_mut(name).and_then(Value::as_object_mut) else { continue };
        if let Some(values) = schema.remove("enum") {
            schema.insert("x-extensible-enum".to_owned(), values);
        }
    }
}

/// A member of a batch's item is described where it stands, not by a look elsewhere.
fn describe_batch(schemas: &mut Map<String, Value>) {
    let single = schemas.get("NewUpload").map(|schema| schema["properties"].clone()).unwrap_or_default();
    let members = schemas.get_mut("BatchUpload").and_then(|schema| schema["properties"].as_object_mut());
    for (name, member) in members.into_iter().flatten() {
        if let Some(description) = single.get(name).and_then(|member| member.get("description")) {
            member["description"] = description.clone();
        }
    }
}

fn content_type_of<'a>(schemas: &'a mut Map<String, Value>, schema: &str) -> Option<&'a mut Map<String, Value>> {
    schemas.get_mut(schema)?.pointer_mut("/properties/contentType")?.as_object_mut()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    /// Go has one space of names for the values of all enums.
    #[test]
    fn no_two_enums_share_a_name() {
        let document = super::super::document();
        let mut names = BTreeSet::new();
        for (schema, described) in document["components"]["schemas"].as_object().unwrap() {
            let named = described.get("x-enum-varnames").or_else(|| described.get("enum"));
            for name in named.and_then(Value::as_array).into_iter().flatten() {
                assert!(names.insert(name.as_str().unwrap().to_uppercase()), "{name} of {schema}");
            }
        }
        assert!(names.contains("JPEG") && names.contains("MULTIPART"), "{names:?}");
    }

    #[test]
    fn codes_and_states_are_open() {
        let document = super::super::document();
        for name in super::OPEN {
            let schema = &document["components"]["schemas"][name];
            assert!(schema["type"] == "string" && schema.get("enum").is_none(), "{schema}");
            assert!(schema["x-extensible-enum"].as_array().is_some_and(|values| values.len() > 1), "{schema}");
        }
    }

    /// Go makes a function `NewUpload` for a schema `Upload`, which must not be a schema's name.
    #[test]
    fn no_schema_is_named_as_the_maker_of_another() {
        let document = super::super::document();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for made in schemas.keys().filter_map(|name| name.strip_prefix("New")) {
            assert!(!schemas.contains_key(made), "{made} and New{made}");
        }
        assert!(schemas.contains_key("NewUpload"));
    }

    /// Constructs that openapi-generator misreads.
    #[test]
    fn every_shape_is_known_to_generators() {
        let text = super::super::text();
        for unknown in ["\"uint", "\"format\": \"byte\"", "\"oneOf\"", "\"anyOf\"", "\"nullable\"", "\"ETAG\""] {
            assert!(!text.contains(unknown), "{unknown}");
        }
        let document = super::super::document();
        let quota = &document["components"]["schemas"]["StorageUsage"]["properties"]["quotaBytes"];
        assert_eq!((quota["format"].as_str(), quota["minimum"].as_i64()), (Some("int64"), Some(0)), "{quota}");
        let state = &document["components"]["schemas"]["UploadTicket"]["properties"]["state"];
        assert_eq!(state["allOf"].as_array().map(Vec::len), Some(1), "{state}");
        assert!(state["description"].is_string(), "{state}");
    }
}
