//! Adapts the document to client generators, so that their types are those that a developer would write. Does not change the
//! requests and responses; each rule states which generators need it.

use serde_json::{Map, Value, json};

use crate::model::{ContentType, Preview};

/// Applies every rule to the whole document.
pub fn adapt(document: &mut Value) {
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        name_media_types(schemas);
        open_enums(schemas);
    }
    walk(document);
}

/// Applies the rules for single objects to a value and to all values in it.
fn walk(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(object) => {
            unwrap_reference(object);
            sign_integer(object);
            restore_header_case(object);
            object.values_mut().for_each(walk);
        }
        _ => {}
    }
}

/// Removes descriptions from `allOf`: for many generators, a reference and a description are a new type without a name; a reference
/// alone is its type. The description is beside `allOf` already.
fn unwrap_reference(schema: &mut Map<String, Value>) {
    if let Some(all) = schema.get_mut("allOf").and_then(Value::as_array_mut) {
        all.retain(|schema| schema.as_object().is_none_or(|members| !members.keys().all(|name| name == "description")));
    }
}

/// Replaces unsigned formats: OpenAPI defines `int32` and `int64`. openapi-generator reads any other integer as 32 bits, and the
/// default quota of 10 GiB does not fit.
fn sign_integer(schema: &mut Map<String, Value>) {
    let format = match schema.get("format").and_then(Value::as_str) {
        Some("uint64") => "int64",
        Some("uint32" | "uint16") => "int32",
        _ => return,
    };
    schema.insert("format".to_owned(), format.into());
    schema.entry("minimum").or_insert_with(|| 0.into());
}

/// Gives response headers their usual case; poem-openapi writes them in capitals.
fn restore_header_case(response: &mut Map<String, Value>) {
    let Some(headers) = response.get_mut("headers").and_then(Value::as_object_mut) else { return };
    for (capitals, name, description) in [
        ("ETAG", "ETag", ""),
        ("CACHE-CONTROL", "Cache-Control", "Keep it for this user alone, and ask each time with `If-None-Match`."),
    ] {
        let Some(mut header) = headers.remove(capitals) else { continue };
        if !description.is_empty() {
            header["description"] = description.into();
        }
        headers.insert(name.to_owned(), header);
    }
}

/// Adds one enum for the media type of all requests, with names for its values: `image/jpeg` would become `imageSlashJpeg`. The
/// `contentType` of a response stays text, so that clients accept later types. The types of previews stay inline: a second `JPEG`
/// would be a second constant of that name in Go.
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

/// Schemas whose list of values may grow.
const EXTENSIBLE: [&str; 2] = ["ProblemCode", "TicketState"];

/// Replaces `enum` in [`EXTENSIBLE`] schemas: a generated enum would fail on a later value. `x-extensible-enum` lists the values
/// for readers and for tools that support it.
fn open_enums(schemas: &mut Map<String, Value>) {
    for name in EXTENSIBLE {
        let Some(schema) = schemas.get_mut(name).and_then(Value::as_object_mut) else { continue };
        if let Some(values) = schema.remove("enum") {
            schema.insert("x-extensible-enum".to_owned(), values);
        }
    }
}

/// Returns the member `contentType` of a schema.
fn content_type_of<'a>(schemas: &'a mut Map<String, Value>, schema: &str) -> Option<&'a mut Map<String, Value>> {
    schemas.get_mut(schema)?.pointer_mut("/properties/contentType")?.as_object_mut()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    /// Go has one namespace for the values of all enums.
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
    fn codes_and_states_are_extensible() {
        let document = super::super::document();
        for name in super::EXTENSIBLE {
            let schema = &document["components"]["schemas"][name];
            assert!(schema["type"] == "string" && schema.get("enum").is_none(), "{schema}");
            assert!(schema["x-extensible-enum"].as_array().is_some_and(|values| values.len() > 1), "{schema}");
        }
    }

    /// Go generates a function `NewUpload` for a schema `Upload`, which must not be a schema's name.
    #[test]
    fn schema_names_differ_from_constructors_of_other_schemas() {
        let document = super::super::document();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for constructed in schemas.keys().filter_map(|name| name.strip_prefix("New")) {
            assert!(!schemas.contains_key(constructed), "{constructed} and New{constructed}");
        }
        assert!(schemas.contains_key("NewUpload"));
    }

    /// Constructs that openapi-generator misreads.
    #[test]
    fn no_construct_is_unknown_to_generators() {
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
