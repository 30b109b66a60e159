//! Completes the schemas: the limits that the domain enforces, closed request objects, and examples.

use serde_json::{Value, json};

use super::examples;
use crate::{
    domain::{
        app_users::{MAX_LIFETIME_SECONDS, MIN_LIFETIME_SECONDS},
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

/// JSON Schema keywords that a member of some schemas gets.
struct MemberKeywords {
    schemas: &'static [&'static str],
    member: &'static str,
    keywords: Value,
}

/// Returns the keywords of a member of some schemas.
fn member(schemas: &'static [&'static str], member: &'static str, keywords: Value) -> MemberKeywords {
    MemberKeywords { schemas, member, keywords }
}

/// Adds limits, `additionalProperties` and examples to the schemas.
pub(super) fn describe(schemas: &mut Value) {
    for request in CLOSED {
        if let Some(schema) = schemas.get_mut(request).and_then(Value::as_object_mut) {
            schema.insert("additionalProperties".to_owned(), false.into());
        }
    }
    for added in [accounts(), backend(), uploads(), multipart(), responses(), uppy()].into_iter().flatten() {
        for schema in added.schemas {
            let member = schemas.pointer_mut(&format!("/{schema}/properties/{}", added.member)).and_then(Value::as_object_mut);
            if let (Some(member), Value::Object(keywords)) = (member, &added.keywords) {
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

/// Returns the keywords of the accounts' operations.
fn accounts() -> Vec<MemberKeywords> {
    let new_password = || json!({ "format": "password", "minLength": 12, "maxLength": 1024 });
    vec![
        member(&["SignInCredentials"], "email", json!({ "minLength": 3, "maxLength": 254 })),
        member(&["SignInCredentials"], "password", new_password()),
        member(&["PasswordChange"], "currentPassword", json!({ "format": "password" })),
        member(&["PasswordChange"], "newPassword", new_password()),
        member(&["AccountDeletion"], "password", json!({ "format": "password" })),
        member(&["UserAccount"], "email", json!({ "format": "email" })),
        member(&["AuthSession"], "tokenType", json!({ "enum": ["Bearer"] })),
    ]
}

/// Returns the keywords of the operations for the app's backend.
fn backend() -> Vec<MemberKeywords> {
    vec![
        member(&["AppTokenRequest"], "subject", json!({ "minLength": 1, "maxLength": Subject::MAX_CHARS })),
        member(&["AppTokenRequest"], "expiresIn", json!({ "minimum": MIN_LIFETIME_SECONDS, "maximum": MAX_LIFETIME_SECONDS })),
        member(&["AppTokenRequest", "AdminUser"], "email", json!({ "format": "email" })),
        member(&["AppToken"], "tokenType", json!({ "enum": ["Bearer"] })),
        member(&["UserQuota"], "bytes", json!({ "maximum": MAX_QUOTA })),
    ]
}

/// Returns the keywords of uploads and images.
fn uploads() -> Vec<MemberKeywords> {
    const NEW: &[&str] = &["NewUpload", "BatchUpload", "NewMultipart"];
    let sha256 = json!({ "minLength": 44, "maxLength": 44, "pattern": "^[A-Za-z0-9+/]{43}=$" });
    vec![
        member(NEW, "fileName", json!({ "minLength": 1 })),
        member(NEW, "size", json!({ "minimum": 1 })),
        member(&["NewPreview"], "size", json!({ "minimum": 1, "maximum": Preview::MAX_BYTES })),
        // Not `format: byte`: generators disagree on whether they encode, and some compare the number of bytes with the text's
        // limits.
        member(NEW, "thumbHash", json!({ "minLength": 4, "maxLength": 44, "pattern": "^[A-Za-z0-9+/]+={0,2}$" })),
        member(NEW, "takenAt", json!({ "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(Z|[+-]\d{2}:\d{2})?$" })),
        member(&["NewUpload", "BatchUpload", "NewPreview", "PartToSign"], "sha256", sha256),
        member(&["BatchUpload"], "idempotencyKey", json!({ "minLength": 1, "maxLength": 255 })),
        member(&["UploadBatch"], "items", json!({ "minItems": 1, "maxItems": batch::MAX_ITEMS })),
        member(&["ImageIds"], "ids", json!({ "minItems": 1, "maxItems": batch::MAX_ITEMS })),
        member(NEW, "caption", json!({ "maxLength": Caption::MAX_CHARS })),
        member(&["ImageUpdate", "UppyRequest"], "caption", json!({ "maxLength": Caption::MAX_CHARS })),
    ]
}

/// Returns the keywords of multipart uploads.
fn multipart() -> Vec<MemberKeywords> {
    vec![
        member(
            &["NewMultipart"],
            "partSize",
            json!({ "minimum": PartLayout::MIN_PART_SIZE, "maximum": PartLayout::MAX_PART_SIZE }),
        ),
        member(&["PartToSign", "UppyRequest"], "partNumber", part_number()),
        member(&["PartsToSign"], "parts", json!({ "minItems": 1, "maxItems": MAX_PARTS_PER_REQUEST })),
    ]
}

/// Returns the keywords of the number of a part.
fn part_number() -> Value {
    json!({ "format": "int32", "minimum": 1, "maximum": PartLayout::MAX_PARTS })
}

/// Returns the keywords of members of responses.
fn responses() -> Vec<MemberKeywords> {
    const WITH_URL: &[&str] = &["GalleryImage", "PresignedRequest", "DownloadUrl", "UppyForm", "UppyPartUrl", "UppySignature"];
    vec![
        member(WITH_URL, "url", json!({ "format": "uri" })),
        member(&["GalleryImage"], "previewUrl", json!({ "format": "uri" })),
        member(&["UppyJoined"], "location", json!({ "format": "uri" })),
        member(&["Problem"], "type", json!({ "format": "uri" })),
        member(&["Problem"], "status", json!({ "minimum": 400, "maximum": 599 })),
        member(&["HealthStatus"], "status", json!({ "enum": ["ok"] })),
    ]
}

/// Returns the keywords of Uppy's operations.
fn uppy() -> Vec<MemberKeywords> {
    vec![
        member(&["UppyFile"], "filename", json!({ "minLength": 1 })),
        member(&["UppyRequest"], "size", json!({ "minimum": 1 })),
        member(&["UppyPartToJoin"], "PartNumber", part_number()),
        member(&["UppyPartsToJoin"], "parts", json!({ "minItems": 1, "maxItems": PartLayout::MAX_PARTS })),
        member(&["UppyForm"], "method", json!({ "enum": ["POST"] })),
    ]
}
