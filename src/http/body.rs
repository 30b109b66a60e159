//! Reads JSON request bodies strictly. Problems name the member and the rule, but no value.

use poem::{FromRequest, Request, RequestBody, Result};
use poem_openapi::{
    impl_apirequest_for_payload,
    payload::{ParsePayload, Payload},
    registry::{MetaSchemaRef, Registry},
    types::Type,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_path_to_error::Segment;

use super::problem::{Code, Problem};

/// A JSON body of type `T`. Unlike poem-openapi's own payload it is read by serde, whose errors have the member's path.
pub struct Body<T>(pub T);

impl<T> std::ops::Deref for Body<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Type> Payload for Body<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        is_json(content_type)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: DeserializeOwned + Send> ParsePayload for Body<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, body: &mut RequestBody) -> Result<Self> {
        let bytes = Vec::<u8>::from_request(request, body).await?;
        Ok(Self(read(&bytes)?))
    }
}

impl_apirequest_for_payload!(Body<T>, T: Type + DeserializeOwned + Send);

/// Returns whether a media type is JSON (RFC 8259, RFC 6839) in UTF-8, the only encoding that RFC 8259 section 8.1 allows. Neither
/// RFC defines a `charset`; one that is sent must be UTF-8.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_utf8 = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset") || ["utf-8", "utf8"].iter().any(|known| value.eq_ignore_ascii_case(known))
    };
    if !parts.all(is_utf8) {
        return false;
    }
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads JSON of the documented format.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| explain(error.inner(), &error.path().iter().collect::<Vec<_>>()))?;
    json.end().map_err(|error| explain(&error, &[]))?;
    Ok(value)
}

/// Accepts only JSON objects: serde also reads a struct from an array of its members' values, in their order.
struct Object<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(std::marker::PhantomData<T>);
        impl<'de, T: DeserializeOwned> serde::de::Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(members)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}

/// Reads a list of objects.
pub fn objects<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|Object(item)| item).collect())
}

/// Members whose own members have arbitrary names (`additionalProperties` in the OpenAPI document).
const FREE_MEMBERS: [&str; 4] = ["fields", "headers", "metadata", "presignedUrls"];

/// Returns the path of a member, such as `items[2].size`, without arbitrary names; empty for the whole body.
fn path_text(segments: &[&Segment]) -> String {
    let mut text = String::new();
    for segment in segments {
        match segment {
            Segment::Seq { index } => text.extend(["[", &index.to_string(), "]"]),
            Segment::Map { key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
                if FREE_MEMBERS.contains(&key.as_str()) {
                    break;
                }
            }
            _ => {}
        }
    }
    text
}

/// Returns the segments without the last one if that is an unknown member, whose name is the caller's.
fn without_unknown<'a, 'b>(segments: &'a [&'b Segment], message: &str) -> &'a [&'b Segment] {
    match segments.split_last() {
        Some((Segment::Map { key }, parents)) if message.starts_with(&format!("unknown field `{key}`")) => parents,
        _ => segments,
    }
}

/// Returns the problem for an error of `serde_json`. Parses the English text of its message, whose beginning may repeat the
/// caller's value; only the end, with the expected type, is used. Tests pin the texts of the locked version.
fn explain(error: &serde_json::Error, segments: &[&Segment]) -> Problem {
    let problem = |detail: &str| Problem::new(Code::InvalidRequest, detail);
    let message = error.to_string();
    // The grammar of JSON allows a lone surrogate (RFC 8259 section 8.2), but no UTF-8 text has one. Only messages of syntax errors
    // can be searched: those of data errors repeat names and values of the body.
    if error.is_syntax() && (message.contains("surrogate") || message.contains("unexpected end of hex escape")) {
        return problem("A string contains half of a UTF-16 surrogate pair. Send whole characters.")
            .field(path_text(segments), "must contain whole characters");
    }
    if !error.is_data() {
        return problem("The request body is not valid JSON.");
    }
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let path = path_text(segments);
    let quoted = |text: &str| text.split('`').nth(1).unwrap_or_default().to_owned();
    let child = |member: String| if path.is_empty() { member } else { format!("{path}.{member}") };
    if message.starts_with("missing field") {
        problem("A required member is missing.").field(child(quoted(message)), "is required")
    } else if message.starts_with("duplicate field") {
        problem("A member appears more than once.").field(child(quoted(message)), "must appear once")
    } else if message.starts_with("unknown field") {
        let known = message.rsplit_once("expected ").map_or("", |(_, known)| known).replace('`', "");
        problem("The request body has an unknown member.")
            .field(path_text(without_unknown(segments, message)), format!("must have no other members than {known}"))
    } else {
        let wanted = message.rsplit_once("expected ").map_or("another value", |(_, wanted)| wanted);
        problem("A member has a value of the wrong type.").field(path, format!("must be {wanted}"))
    }
}

/// Reads an optional member, which may be left out but not null.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads an optional object, which may be left out but not null.
pub fn present_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Object::<T>::deserialize(deserializer).map(|Object(value)| Some(value))
}

/// Reads an optional integer, which may be left out but not null.
pub fn present_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    integer(deserializer).map(Some)
}

/// Reads an integer of any size: one beyond `i64` is clamped, and the domain's limits reject it. JSON does not distinguish 5 from
/// 5.0.
pub fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Integer;
    impl serde::de::Visitor<'_> for Integer {
        type Value = i64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an integer")
        }

        fn visit_i64<E>(self, n: i64) -> Result<i64, E> {
            Ok(n)
        }

        fn visit_u64<E>(self, n: u64) -> Result<i64, E> {
            Ok(i64::try_from(n).unwrap_or(i64::MAX))
        }

        fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<i64, E> {
            // `as` saturates, which is the intended clamping.
            #[expect(clippy::cast_possible_truncation)]
            if n.fract() == 0.0 { Ok(n as i64) } else { Err(E::invalid_type(serde::de::Unexpected::Float(n), &self)) }
        }
    }
    deserializer.deserialize_any(Integer)
}

/// Reads an integer that is not negative, as [`integer`] does. A negative one becomes the largest, which the domain's limits
/// reject too.
pub fn unsigned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    integer(deserializer).map(|number| u64::try_from(number).unwrap_or(u64::MAX))
}

/// Reads an optional integer that is not negative, which may be left out but not null.
pub fn present_unsigned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    unsigned(deserializer).map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Sample {
        file_name: String,
        #[serde(deserialize_with = "integer")]
        size: i64,
        #[serde(default, deserialize_with = "present")]
        caption: Option<String>,
    }

    #[derive(Deserialize)]
    struct WithFreeNames {
        #[serde(rename = "metadata")]
        _metadata: std::collections::BTreeMap<String, String>,
    }

    #[test]
    fn arbitrary_names_are_not_repeated() {
        for json in [
            r#"{"metadata":{"canary":1}}"#,
            r#"{"metadata":{"canary":"\ud800"}}"#,
            r#"{"metadata":{"canary":{"canary":1}}}"#,
            r#"{"metadata":{"\ud800":"canary"}}"#,
        ] {
            let text = format!("{:?}", read::<WithFreeNames>(json.as_bytes()).err().unwrap());
            assert!(text.contains("\"metadata\""), "{json}: {text}");
            assert!(!text.contains("canary"), "{json}: {text}");
        }
    }

    #[test]
    fn every_free_member_of_the_document_is_listed() {
        /// Adds the members of a schema that have `additionalProperties`.
        fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
            if let Some(properties) = value["properties"].as_object() {
                let free = properties.iter().filter(|(_, schema)| schema["additionalProperties"].is_object());
                found.extend(free.map(|(name, _)| name.clone()));
            }
        }
        let document: serde_json::Value = serde_json::from_str(include_str!("../../openapi/openapi.json")).unwrap();
        let mut found = Vec::new();
        for schema in document["components"]["schemas"].as_object().unwrap().values() {
            collect(schema, &mut found);
        }
        found.sort();
        found.dedup();
        assert_eq!(found, FREE_MEMBERS);
    }

    /// Reads a [`Sample`] that must be rejected, and returns the problem as text.
    fn rejection_text(json: &str) -> String {
        let problem = read::<Sample>(json.as_bytes()).err().unwrap();
        assert_eq!(problem.code, Code::InvalidRequest);
        format!("{problem:?}")
    }

    #[test]
    fn members_are_named_and_values_are_not_repeated() {
        for (json, expected) in [
            (r#"{"size":1}"#, "\"fileName\""),
            (r#"{"fileName":"a","size":"canary"}"#, "must be an integer"),
            (r#"{"fileName":"a","size":1.5}"#, "must be an integer"),
            (r#"{"fileName":{"$gt":"canary"},"size":1}"#, "must be a string"),
            (r#"{"fileName":"a","size":1,"canary":1}"#, "fileName, size, caption"),
            (r#"{"fileName":"a","size":1,"expected canary":1}"#, "must have no other members"),
            (r#"{"fileName":"a","size":1,"caption":null}"#, "must be a string"),
            (r#"{"fileName":"a","size":1,"canary surrogate":1}"#, "must have no other members"),
            (r#"{"fileName":"a","size":1,"unexpected end of hex escape canary":1}"#, "must have no other members"),
            (r#"{"fileName":"a","size":"surrogate canary at line 1"}"#, "must be an integer"),
            (r#"{"fileName":"a","fileName":"canary","size":1}"#, "must appear once"),
            (r#"{"fileName":"a","size":1,"size":1}"#, "must appear once"),
            (r#"["canary", 1]"#, "must be an object"),
            (r#"["canary",1,"canary"]"#, "must be an object"),
            ("null", ""),
            (r#"{"fileName":"canary\ud83d.png","size":1}"#, "\"fileName\""),
            (r#"{"fileName":"canary\ud83d\u0041","size":1}"#, "\"fileName\""),
            (r#"{"fileName":"a","size":1,"caption":"canary\udc00"}"#, "\"caption\""),
            ("{\"fileName\":\"canary", "not valid JSON"),
            ("", "not valid JSON"),
            (r#"{"fileName":"a","size":1} canary"#, "not valid JSON"),
            ("\u{feff}{}", "not valid JSON"),
        ] {
            let text = rejection_text(json);
            assert!(text.contains(expected), "{json}: {text}");
            assert!(!text.contains("canary"), "{json}: {text}");
        }
        assert!(rejection_text(&"[".repeat(100_000)).contains("wrong type"), "nested arrays are not read");
    }

    #[test]
    fn integers_of_any_size_are_read() {
        let size =
            |n: &str| read::<Sample>(format!(r#"{{"fileName":"a","size":{n}}}"#).as_bytes()).map(|sample| sample.size).ok();
        assert_eq!(
            [size("0"), size("-1"), size("9223372036854775808"), size("1e30"), size("5.0")],
            [Some(0), Some(-1), Some(i64::MAX), Some(i64::MAX), Some(5)]
        );
        let sample = read::<Sample>(br#"{"fileName":"a","size":1,"caption":"c"}"#).ok().unwrap();
        assert_eq!((sample.file_name.as_str(), sample.caption.as_deref()), ("a", Some("c")));
    }

    #[test]
    fn json_is_in_utf_8() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/problem+json; profile=x; charset=utf8",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/json",
            "application/json; charset=utf-16",
            "application/json;Charset = \"iso-8859-1\"",
            "application/json; charset",
            "application/json; charset=utf-8; charset=utf-16",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
