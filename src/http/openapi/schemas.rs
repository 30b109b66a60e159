//! Completes the schemas: the limits that the domain enforces, closed request objects, and examples.

use serde_json::{Value, json};

use super::examples;
use crate::{
    domain::{
        app_users::{MAX_LIFETIME, MIN_LIFETIME},
        multipart::MAX_PARTS_PER_REQUEST,
        user_administration::MAX_QUOTA,
    },
    http::batch,
    model::{Caption, PartLayout, Preview, Subject},
};

/// Schemas of request objects, which reject unknown members.
const CLOSED: [&str; 19] = [
    "SignInCredentials",
    "PasswordChange",
    "AccountDeletion",
    "RefreshToken",
    "AppTokenRequest",
    "UserQuota",
    "NewUpload",
    "NewPreview",
    "ImageUpdate",
    "UploadBatch",
    "BatchUpload",
    "ImageIds",
    "NewMultipart",
    "PartsToSign",
    "PartToSign",
    "UppyFile",
    "UppyPartToJoin",
    "UppyPartsToJoin",
    "UppyRequest",
];

/// JSON Schema keywords of a member that some schemas have.
struct Limit {
    schemas: &'static [&'static str],
    member: &'static str,
    keywords: Value,
}

/// Returns the keywords of a member in some schemas.
fn limit(schemas: &'static [&'static str], member: &'static str, keywords: Value) -> Limit {
    Limit { schemas, member, keywords }
}

/// Adds limits, `additionalProperties` and examples to the schemas.
pub(super) fn describe(schemas: &mut Value) {
    for request in CLOSED {
        if let Some(schema) = schemas.get_mut(request).and_then(Value::as_object_mut) {
            schema.insert("additionalProperties".to_owned(), false.into());
        }
    }
    for limit in [accounts(), backend(), uploads(), multipart(), answers(), uppy()].into_iter().flatten() {
        for schema in limit.schemas {
            let member = schemas.pointer_mut(&format!("/{schema}/properties/{}", limit.member)).and_then(Value::as_object_mut);
            if let (Some(member), Value::Object(keywords)) = (member, &limit.keywords) {
                member.extend(keywords.clone());
            }
        }
    }
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        if let Some(example) = examples::of_schema(name) {
            schema["example"] = example;
        }
    }
}

fn accounts() -> Vec<Limit> {
    let new_password = || json!({ "format": "password", "minLength": 12, "maxLength": 1024 });
    vec![
        limit(&["SignInCredentials"], "email", json!({ "minLength": 3, "maxLength": 254 })),
        limit(&["SignInCredentials"], "password", new_password()),
        limit(&["PasswordChange"], "currentPassword", json!({ "format": "password" })),
        limit(&["PasswordChange"], "newPassword", new_password()),
        limit(&["AccountDeletion"], "password", json!({ "format": "password" })),
        limit(&["UserAccount"], "email", json!({ "format": "email" })),
        limit(&["AuthSession"], "tokenType", json!({ "enum": ["Bearer"] })),
    ]
}

fn backend() -> Vec<Limit> {
    vec![
        limit(&["AppTokenRequest"], "subject", json!({ "minLength": 1, "maxLength": Subject::MAX_CHARS })),
        limit(&["AppTokenRequest"], "expiresIn", json!({ "minimum": MIN_LIFETIME, "maximum": MAX_LIFETIME })),
        limit(&["AppTokenRequest", "AdminUser"], "email", json!({ "format": "email" })),
        limit(&["AppToken"], "tokenType", json!({ "enum": ["Bearer"] })),
        limit(&["UserQuota"], "bytes", json!({ "maximum": MAX_QUOTA })),
    ]
}

fn uploads() -> Vec<Limit> {
    const NEW: &[&str] = &["NewUpload", "BatchUpload", "NewMultipart"];
    let sha256 = json!({ "minLength": 44, "maxLength": 44, "pattern": "^[A-Za-z0-9+/]{43}=$" });
    vec![
        limit(NEW, "fileName", json!({ "minLength": 1 })),
        limit(NEW, "size", json!({ "minimum": 1 })),
        limit(&["NewPreview"], "size", json!({ "minimum": 1, "maximum": Preview::MAX_BYTES })),
        // Not `format: byte`: generators disagree on whether they encode, and some compare the number of bytes with the text's
        // limits.
        limit(NEW, "thumbHash", json!({ "minLength": 4, "maxLength": 44, "pattern": "^[A-Za-z0-9+/]+={0,2}$" })),
        limit(NEW, "takenAt", json!({ "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(Z|[+-]\d{2}:\d{2})?$" })),
        limit(&["NewUpload", "BatchUpload", "NewPreview", "PartToSign"], "sha256", sha256),
        limit(&["BatchUpload"], "idempotencyKey", json!({ "minLength": 1, "maxLength": 255 })),
        limit(&["UploadBatch"], "items", json!({ "minItems": 1, "maxItems": batch::MAX_ITEMS })),
        limit(&["ImageIds"], "ids", json!({ "minItems": 1, "maxItems": batch::MAX_ITEMS })),
        limit(NEW, "caption", json!({ "maxLength": Caption::MAX_CHARS })),
        limit(&["ImageUpdate", "UppyRequest"], "caption", json!({ "maxLength": Caption::MAX_CHARS })),
    ]
}

fn multipart() -> Vec<Limit> {
    vec![
        limit(
            &["NewMultipart"],
            "partSize",
            json!({ "minimum": PartLayout::MIN_PART_SIZE, "maximum": PartLayout::MAX_PART_SIZE }),
        ),
        limit(&["PartToSign", "UppyRequest"], "partNumber", part_number()),
        limit(&["PartsToSign"], "parts", json!({ "minItems": 1, "maxItems": MAX_PARTS_PER_REQUEST })),
    ]
}

fn part_number() -> Value {
    json!({ "format": "int32", "minimum": 1, "maximum": PartLayout::MAX_PARTS })
}

/// Returns the keywords of members of responses.
fn answers() -> Vec<Limit> {
    const WITH_URL: &[&str] = &["GalleryImage", "PresignedRequest", "DownloadUrl", "UppyForm", "UppyPartUrl", "UppySignature"];
    vec![
        limit(WITH_URL, "url", json!({ "format": "uri" })),
        limit(&["GalleryImage"], "previewUrl", json!({ "format": "uri" })),
        limit(&["UppyJoined"], "location", json!({ "format": "uri" })),
        limit(&["Problem"], "type", json!({ "format": "uri" })),
        limit(&["Problem"], "status", json!({ "minimum": 400, "maximum": 599 })),
        limit(&["HealthStatus"], "status", json!({ "enum": ["ok"] })),
    ]
}

fn uppy() -> Vec<Limit> {
    vec![
        limit(&["UppyFile"], "filename", json!({ "minLength": 1 })),
        limit(&["UppyRequest"], "size", json!({ "minimum": 1 })),
        limit(&["UppyPartToJoin"], "PartNumber", part_number()),
        limit(&["UppyPartsToJoin"], "parts", json!({ "minItems": 1, "maxItems": PartLayout::MAX_PARTS })),
        limit(&["UppyForm"], "method", json!({ "enum": ["POST"] })),
    ]
}
