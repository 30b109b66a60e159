//! The OpenAPI document: its only source.
//!
//! poem-openapi writes operations and schemas; [`document`] adds, in one pass, what it cannot say: every operation's problems
//! with their codes, examples, limits that are the domain's, closed request objects. Built without any service running.

mod examples;

use poem_openapi::{LicenseObject, OpenApiService, ServerObject};
use serde_json::{Map, Value, json};

use super::{
    auth::{self, Auth},
    gallery::{self, Gallery},
    health::{self, Health},
    multipart::{self, Multipart},
    problem::Code,
    uploads::{self, Uploads},
};
use crate::{
    domain::multipart::MAX_SIGNED,
    model::{Caption, ContentType, FileName, Multipart as Parts},
};

/// Everything that is documented.
pub type Api = (Auth, Uploads, Multipart, Gallery, Health);

const DESCRIPTION: &str = "\
Direct uploads to a private bucket: this service hands out narrow, short-lived keys, and the bytes go straight to S3.

1. **Sign up or log in** and send the `token` as `Authorization: Bearer …`.
2. **Open an upload** with the file's name, type, size and SHA-256: the answer holds a presigned PUT.
3. **PUT the bytes** to that URL with exactly the headers it names, without the token.
4. **Confirm**: the service checks what S3 holds, and the image is in the gallery.
5. **Read**: every image comes with a presigned GET.

Clients' rules for the PUT: 200 or 412: confirm. 409, 5xx or no answer: repeat the PUT. 403: renew the upload once. 400: the \
bytes changed, open a new upload. A confirm that gets 503, 504 or no answer is repeated.

Errors are `application/problem+json` (RFC 9457); decide by `code`, which is stable. Times are RFC 3339 in UTC, in whole \
seconds. Ids are opaque. Optional members are left out, never null; unknown members of a request are refused. EXIF stays in \
the image as it was uploaded, GPS position included: remove it before uploading where it must not be kept.";

/// The service that answers the documented operations.
#[must_use]
pub fn service() -> OpenApiService<Api, ()> {
    OpenApiService::new((Auth, Uploads, Multipart, Gallery, Health), "Valet", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(LicenseObject::new("MIT OR Apache-2.0").url("https://spdx.org/licenses/"))
        .server(ServerObject::new("/").description("This server"))
}

/// The document as it is served and committed: pretty JSON with a newline at its end.
#[must_use]
pub fn text() -> String {
    // A `Value` always serialises.
    serde_json::to_string_pretty(&document()).unwrap_or_default() + "\n"
}

/// The document.
#[must_use]
pub fn document() -> Value {
    // poem-openapi's keys end in a charset, which generators take for another media type.
    let raw = service().spec().replace("; charset=utf-8", "");
    let mut document: Value = serde_json::from_str(&raw).unwrap_or_default();
    describe_schemas(&mut document["components"]["schemas"]);
    document["components"]["responses"] = problem_responses();
    if let Some(paths) = document["paths"].as_object_mut() {
        for (method, operation) in paths.values_mut().filter_map(Value::as_object_mut).flatten() {
            describe_operation(method, operation);
        }
    }
    document
}

/// Limits that the domain enforces, and request objects that refuse unknown members.
fn describe_schemas(schemas: &mut Value) {
    for request in ["Credentials", "NewUpload", "NewMultipart", "PartsToSign", "PartToSign", "ImageUpdate"] {
        schemas[request]["additionalProperties"] = false.into();
    }
    let types: Vec<_> = ContentType::ALL.iter().map(|known| known.as_str()).collect();
    let mut limit = |schema: &str, member: &str, limits: Value| {
        if let (Some(member), Value::Object(limits)) = (schemas[schema]["properties"][member].as_object_mut(), limits) {
            member.extend(limits);
        }
    };
    limit("Credentials", "email", json!({ "minLength": 3, "maxLength": 254 }));
    limit("Credentials", "password", json!({ "format": "password", "minLength": 12, "maxLength": 1024 }));
    limit("User", "email", json!({ "format": "email" }));
    limit("Session", "tokenType", json!({ "enum": ["Bearer"] }));
    for schema in ["NewUpload", "NewMultipart"] {
        limit(schema, "fileName", json!({ "minLength": 1, "maxLength": FileName::MAX_BYTES }));
        limit(schema, "contentType", json!({ "enum": types }));
        limit(schema, "size", json!({ "minimum": 1 }));
    }
    for schema in ["NewUpload", "PartToSign"] {
        let digest = json!({ "format": "byte", "minLength": 44, "maxLength": 44, "pattern": "^[A-Za-z0-9+/]{43}=$" });
        limit(schema, "sha256", digest);
    }
    limit("NewMultipart", "partSize", json!({ "minimum": Parts::MIN_PART_SIZE, "maximum": Parts::MAX_PART_SIZE }));
    limit("PartToSign", "partNumber", json!({ "minimum": 1, "maximum": Parts::MAX_PARTS }));
    limit("PartsToSign", "parts", json!({ "minItems": 1, "maxItems": MAX_SIGNED }));
    for schema in ["NewUpload", "NewMultipart", "ImageUpdate"] {
        limit(schema, "caption", json!({ "maxLength": Caption::MAX_CHARS }));
    }
    for (schema, member) in [("Image", "url"), ("PresignedRequest", "url"), ("Download", "url"), ("Problem", "type")] {
        limit(schema, member, json!({ "format": "uri" }));
    }
    limit("Status", "status", json!({ "enum": ["ok"] }));
    limit("Problem", "status", json!({ "minimum": 400, "maximum": 599 }));
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        if let Some(example) = examples::of_schema(name) {
            schema["example"] = example;
        }
    }
}

/// A problem's own words, and its codes as a table of this operation.
fn describe_operation(method: &str, operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.iter_mut().for_each(describe_parameter);
    }
    for media in operation["requestBody"]["content"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        set_example(media);
    }
    let codes = codes_of(method, &id, operation);
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for media in responses.values_mut().filter_map(|answer| answer["content"].as_object_mut()).flat_map(Map::values_mut) {
        set_example(media);
    }
    let statuses: std::collections::BTreeSet<_> = codes.iter().map(|code| code.status().as_u16()).collect();
    for status in statuses {
        let here: Vec<_> = codes.iter().copied().filter(|code| code.status().as_u16() == status).collect();
        responses.insert(status.to_string(), problem_response(&here));
    }
}

/// The problems an operation can answer with: its own, and those that follow from its shape.
fn codes_of(method: &str, id: &str, operation: &Value) -> Vec<Code> {
    let own = [auth::PROBLEMS, uploads::PROBLEMS, multipart::PROBLEMS, gallery::PROBLEMS, health::PROBLEMS].concat();
    let mut codes = own.into_iter().find(|(known, _)| *known == id).map_or_else(Vec::new, |(_, codes)| codes.to_vec());
    let has_parameters = operation["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["in"] == "query"));
    if operation.get("requestBody").is_some() || has_parameters {
        codes.push(Code::InvalidRequest);
    }
    if method != "get" {
        codes.extend([Code::RequestTimeout, Code::PayloadTooLarge, Code::UnsupportedMediaType]);
        if !codes.contains(&Code::InvalidRequest) {
            codes.push(Code::InvalidRequest);
        }
    }
    if operation.get("security").is_some() {
        codes.extend([Code::TokenMissing, Code::TokenInvalid, Code::TokenExpired]);
        if id == "get_me" {
            codes.push(Code::SessionEnded);
        }
    }
    if id != "get_liveness" {
        codes.extend([Code::Internal, Code::Unavailable, Code::Timeout]);
    }
    codes
}

fn problem_response(codes: &[Code]) -> Value {
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
        Some(429 | 503) => response["headers"]["retry-after"] = header("Seconds to wait before asking again."),
        _ => {}
    }
    response
}

/// For paths and methods that are no operation, which have no place of their own in the document.
fn problem_responses() -> Value {
    json!({
        "NotFound": problem_response(&[Code::NotFound]),
        "MethodNotAllowed": problem_response(&[Code::MethodNotAllowed]),
    })
}

fn describe_parameter(parameter: &mut Value) {
    match parameter["name"].as_str() {
        Some("limit") => {
            parameter["schema"] =
                json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": super::page::MAX_LIMIT, "default": 50 });
            parameter["example"] = 50.into();
        }
        Some("id") => {
            parameter["description"] = "The image's id.".into();
            parameter["example"] = examples::IMAGE.into();
        }
        _ => {}
    }
}

fn set_example(media: &mut Value) {
    let name = media["schema"]["$ref"].as_str().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    if let Some(example) = name.as_deref().and_then(examples::of_schema) {
        media["example"] = example;
    }
}
