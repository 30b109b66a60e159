//! Examples by schema, all with the same user and image; a test compares each with its schema.

use serde_json::{Value, json};

/// Id of the image in all examples.
pub const IMAGE: &str = "01980a3c-5b7e-7c11-9f3a-2d4e6b8c0a1f";
/// Id of the session in all examples.
pub const SESSION: &str = "01980a3b-2c41-7a90-b1f2-3e4d5c6b7a89";
/// Uppy token in all examples.
pub const UPPY_TOKEN: &str =
    "eyJ0eXAiOiJ1cHB5K2p3dCIsImFsZyI6IkhTMjU2Iiwia2lkIjoiODFmM2MwYTIifQ.eyJzdWIiOiIwMTk4MGEzYiJ9.EXAMPLE";
/// Key of the object in all examples.
pub const UPPY_KEY: &str = "u/01980a3b-1f20-7d42-8a6b-7c9d0e1f2a3b/01980a3c-5b7e-7c11-9f3a-2d4e6b8c0a1f";
/// Id of the user in all examples.
pub const USER: &str = "01980a3b-1f20-7d42-8a6b-7c9d0e1f2a3b";
/// Position of an event stream in all examples.
pub const EVENT_POSITION: &str = "1764412345-7-1";
/// Refresh token in all examples.
const REFRESH_TOKEN: &str = "AQGYCjssQXqQsfI-TVxreolkb24ndCByZWFkIHRoaXMgYXMgYSBzZWNyZXQhIQ";
/// Entity tag of a part in all examples.
const PART_ETAG: &str = "\"9b2cf535f27731c974343645a3985328\"";
/// `ThumbHash` in all examples.
const THUMB_HASH: &str = "1QcSHQRnh493V4dIh4eXh1h4kJUI";
/// SHA-256 of a file in all examples.
const SHA256: &str = "r9PVvUP6NGm6W8Mw5fWJ5F0q6ItZu4Qn4mlR4l8vZf4=";

/// Returns the example of a schema.
pub fn of_schema(name: &str) -> Option<Value> {
    [accounts, uploads, multipart, gallery, backend, uppy].into_iter().find_map(|examples| examples(name))
}

/// Returns a presigned GET URL of the image.
fn image_url() -> String {
    format!(
        "https://photos.s3.eu-central-1.amazonaws.com/u/{USER}/{IMAGE}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261122%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date=20261122T100000Z\
         &X-Amz-Expires=300&X-Amz-SignedHeaders=host&response-cache-control=private%2C%20max-age%3D300%2C%20immutable&response-content-type=image%2Fjpeg&X-Amz-Signature=98ac7d4ea2c5b1f00c8b1d2f3e4a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c"
    )
}

/// Returns a presigned PUT URL of the image.
fn put_url() -> String {
    format!(
        "https://photos.s3.eu-central-1.amazonaws.com/u/{USER}/{IMAGE}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261122%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date=20261122T100000Z\
         &X-Amz-Expires=3600&X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost%3Bif-none-match%3Bx-amz-checksum-sha256&X-Amz-Signature=98ac7d4ea2c5b1f00c8b1d2f3e4a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c"
    )
}

fn user() -> Value {
    json!({ "id": USER, "email": "ada@example.com", "createdAt": "2026-11-22T09:58:00Z" })
}

fn image() -> Value {
    let image_url = image_url();
    json!({
        "id": IMAGE, "fileName": "beach.jpg", "contentType": "image/jpeg", "size": 2_482_113, "sha256": SHA256, "width": 3024, "height": 4032,
        "caption": "The sea, finally", "url": image_url, "previewUrl": image_url.replace('?', "-preview?"), "thumbHash": THUMB_HASH, "takenAt": "2026-11-21T17:42:09+01:00",
        "camera": "Apple iPhone 15 Pro", "urlExpiresAt": "2026-11-22T10:05:00Z", "createdAt": "2026-11-22T10:00:00Z",
        "uploadedAt": "2026-11-22T10:00:04Z",
    })
}

fn preview() -> Value {
    json!({ "contentType": "image/jpeg", "size": 9_812, "sha256": SHA256 })
}

fn presigned_put() -> Value {
    json!({
        "method": "PUT", "url": put_url(),
        "headers": { "content-type": "image/jpeg", "if-none-match": "*", "x-amz-checksum-sha256": SHA256 },
        "expiresAt": "2026-11-22T11:00:00Z", "expiresIn": 3600,
    })
}

/// Returns a form for Uppy.
fn form() -> Value {
    json!({
        "method": "POST", "url": "https://photos.s3.eu-central-1.amazonaws.com", "expires": 3600,
        "fields": {
            "key": UPPY_KEY.replacen("u/", "in/", 1), "content-type": "image/jpeg", "success_action_status": "201",
            "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20261122/eu-central-1/s3/aws4_request",
            "x-amz-date": "20261122T100000Z", "policy": "eyJleHBpcmF0aW9uIjoiMjAyNi0xMS0yMlQxMTowMDowMFoiLCJjb25kaXRpb25zIjpb…",
            "x-amz-signature": "98ac7d4ea2c5b1f00c8b1d2f3e4a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c",
        },
    })
}

/// Returns the examples of accounts and sessions.
fn accounts(name: &str) -> Option<Value> {
    Some(match name {
        "SignInCredentials" => json!({ "email": "ada@example.com", "password": "three small blue boats" }),
        "AuthSession" => {
            json!({ "token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiJ9.…", "tokenType": "Bearer", "expiresIn": 7200,
                "refreshToken": REFRESH_TOKEN, "refreshExpiresIn": 2_592_000, "user": user() })
        }
        "PasswordChange" => {
            json!({ "currentPassword": "three small blue boats", "newPassword": "seven green kites over the bay" })
        }
        "AccountDeletion" => json!({ "password": "three small blue boats" }),
        "RefreshToken" => json!({ "refreshToken": REFRESH_TOKEN }),
        "SessionList" => json!({ "sessions": [{
            "id": SESSION, "device": "Mozilla/5.0 (iPhone; CPU iPhone OS 26_1 like Mac OS X)", "createdAt": "2026-11-22T09:58:00Z",
            "lastUsedAt": "2026-11-22T09:58:00Z", "expiresAt": "2026-12-22T09:58:00Z", "current": true,
        }] }),
        "UserAccount" => {
            let mut me = user();
            me["usage"] = json!({ "bytes": 2_482_113, "quotaBytes": 10_737_418_240_u64, "images": 1, "pending": 0 });
            me
        }
        _ => return None,
    })
}

/// Returns the examples of uploads with one PUT.
fn uploads(name: &str) -> Option<Value> {
    Some(match name {
        "NewUpload" => json!({
            "fileName": "beach.jpg", "contentType": "image/jpeg", "size": 2_482_113, "sha256": SHA256, "caption": "The sea, finally",
            "preview": preview(), "thumbHash": THUMB_HASH, "takenAt": "2026-11-21T17:42:09+01:00",
        }),
        "UploadBatch" => json!({ "items": [{
            "fileName": "beach.jpg", "contentType": "image/jpeg", "size": 2_482_113, "sha256": SHA256,
            "idempotencyKey": "0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44",
        }] }),
        "NewPreview" => preview(),
        "UploadTicket" => {
            json!({ "id": IMAGE, "state": "pending", "expiresAt": "2026-11-23T10:00:00Z", "upload": presigned_put() })
        }
        "PresignedRequest" => presigned_put(),
        "PendingUploads" => json!({ "uploads": [{
            "id": IMAGE, "kind": "single", "fileName": "beach.jpg", "contentType": "image/jpeg", "size": 2_482_113, "sha256": SHA256,
            "createdAt": "2026-11-22T10:00:00Z", "expiresAt": "2026-11-23T10:00:00Z",
        }] }),
        "UploadResults" => json!({ "results": [{
            "status": 201, "ticket": { "id": IMAGE, "state": "pending", "expiresAt": "2026-11-23T10:00:00Z", "upload": presigned_put() },
        }] }),
        _ => return None,
    })
}

/// Returns the examples of multipart uploads.
fn multipart(name: &str) -> Option<Value> {
    Some(match name {
        "NewMultipart" => json!({
            "fileName": "panorama.jpg", "contentType": "image/jpeg", "size": 41_943_040, "partSize": 8_388_608,
            "partChecksums": "sha256", "caption": "From the lighthouse", "thumbHash": THUMB_HASH, "takenAt": "2026-11-21T17:42:09",
        }),
        "MultipartTicket" => {
            json!({ "id": IMAGE, "partSize": 8_388_608, "partCount": 5, "expiresAt": "2026-11-29T10:00:00Z" })
        }
        "PartsToSign" => json!({ "parts": [{ "partNumber": 2, "sha256": SHA256 }] }),
        "SignedParts" => json!({ "parts": [{ "partNumber": 2, "request": {
            "method": "PUT",
            "url": put_url().replace("content-type%3B", "").replace("if-none-match%3B", "").replace("&X-Amz-Signature", "&partNumber=2&uploadId=2~Vt3sQhVbYx0Yc1kEXAMPLE&X-Amz-Signature"),
            "headers": { "x-amz-checksum-sha256": SHA256 }, "expiresAt": "2026-11-22T11:00:00Z", "expiresIn": 3600,
        } }] }),
        "StoredParts" => json!({ "parts": [{ "partNumber": 1, "size": 8_388_608 }, { "partNumber": 3, "size": 8_388_608 }] }),
        _ => return None,
    })
}

/// Returns the examples of the gallery and of batches of images.
fn gallery(name: &str) -> Option<Value> {
    Some(match name {
        "GalleryImage" => image(),
        "ImagePage" => json!({ "images": [image()], "nextCursor": "AAABmk2bY4ABmAo8W358EZ86LU5rjAofYw3N0m1oV2s" }),
        "ImageTimeline" => json!({ "months": [{ "month": "2026-11", "count": 12 }, { "month": "2026-08", "count": 340 }] }),
        "DownloadUrl" => json!({
            "url": image_url().replace("cache-control=private%2C%20max-age%3D300%2C%20immutable", "content-disposition=attachment%3B%20filename%3D%22beach.jpg%22%3B%20filename%2A%3DUTF-8%27%27beach.jpg"),
            "expiresAt": "2026-11-22T10:05:00Z",
        }),
        "ImageIds" => json!({ "ids": [IMAGE] }),
        "ImageResults" => json!({ "results": [{ "id": IMAGE, "status": 200, "image": image() }] }),
        "DeleteResults" => json!({ "results": [{ "id": IMAGE, "status": 204 }] }),
        "ImageUpdate" => json!({ "caption": "The sea, finally" }),
        "HealthStatus" => json!({ "status": "ok" }),
        _ => return None,
    })
}

/// Returns the examples of operations for the app's backend.
fn backend(name: &str) -> Option<Value> {
    let user = json!({
        "id": USER, "email": "ada@example.com", "issuer": "app", "subject": "user-42", "createdAt": "2026-11-22T09:58:00Z",
        "usage": { "bytes": 2_482_113, "quotaBytes": 10_737_418_240_u64, "images": 1, "pending": 0 },
    });
    Some(match name {
        "AppTokenRequest" => json!({ "subject": "user-42", "expiresIn": 3600, "email": "ada@example.com" }),
        "AppToken" => {
            json!({ "token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiJ9.…", "tokenType": "Bearer", "expiresIn": 3600, "user": self::user() })
        }
        "AdminUser" => user,
        "UserPage" => json!({ "users": [user], "nextCursor": "AZgKOx8gfUKKa3ydDh8qOwxk0Wg0V5Ct" }),
        "UserQuota" => json!({ "bytes": 53_687_091_200_u64 }),
        _ => return None,
    })
}

/// Returns the examples of Uppy's operations.
fn uppy(name: &str) -> Option<Value> {
    let part_url = put_url().replace(
        "content-length%3Bcontent-type%3Bhost%3Bif-none-match%3Bx-amz-checksum-sha256",
        "host&partNumber=1&uploadId=2~Vt3sQhVbYx0Yc1kEXAMPLE",
    );
    Some(match name {
        "UppySession" => json!({
            "token": UPPY_TOKEN, "path": format!("/uppy/{UPPY_TOKEN}"), "expiresAt": "2026-11-22T11:00:00Z", "expiresIn": 3600,
            "maxFormBytes": 52_428_800, "maxBytes": 5_368_709_120_u64,
            "types": ["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/heic", "image/heif"],
        }),
        "UppyForm" => form(),
        "UppyFile" => json!({
            "filename": "panorama.jpg", "type": "image/jpeg",
            "metadata": { "name": "panorama.jpg", "type": "image/jpeg", "size": 209_715_200 },
        }),
        "UppyUpload" => json!({ "key": UPPY_KEY, "uploadId": IMAGE, "bucket": "photos" }),
        "UppyPart" => json!({ "PartNumber": 1, "ETag": PART_ETAG, "Size": 5_242_880 }),
        "UppyPartUrl" => json!({ "url": part_url, "expires": 3600 }),
        "UppyPartUrls" => json!({ "presignedUrls": { "1": part_url } }),
        "UppyPartToJoin" => json!({ "PartNumber": 1, "ETag": PART_ETAG }),
        "UppyPartsToJoin" => json!({ "parts": [{ "PartNumber": 1, "ETag": PART_ETAG }] }),
        "UppyJoined" => json!({ "location": image_url(), "key": UPPY_KEY, "bucket": "photos" }),
        "UppyAborted" => json!({}),
        "UppyRequest" => json!({
            "method": "PUT", "key": UPPY_KEY.replacen("u/", "in/", 1), "uploadId": "2~Vt3sQhVbYx0Yc1kEXAMPLE", "partNumber": 1,
            "contentType": "image/jpeg", "expiresIn": 900, "fileName": "beach.jpg", "size": 2_482_113, "caption": "The sea, finally",
        }),
        "UppySignature" => {
            let form = form();
            json!({ "url": form["url"], "key": form["fields"]["key"], "fields": form["fields"] })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns the names of the schemas of all bodies of requests and of successful answers.
    fn schemas_of_bodies(document: &Value) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let operations = document["paths"].as_object().into_iter().flatten().flat_map(|(_, path)| path.as_object()).flatten();
        for (_, operation) in operations {
            let answers = operation["responses"].as_object().into_iter().flatten();
            let successes = answers.filter(|(status, _)| status.starts_with('2')).map(|(_, answer)| answer);
            for body in successes.chain([&operation["requestBody"]]) {
                for schema in body["content"].as_object().into_iter().flatten().map(|(_, content)| &content["schema"]) {
                    let reference = schema["$ref"].as_str().or(schema["items"]["$ref"].as_str());
                    names.extend(reference.and_then(|reference| reference.rsplit('/').next()).map(str::to_owned));
                }
            }
        }
        names
    }

    #[test]
    fn every_schema_of_a_body_has_an_example_of_its_shape() {
        let document = super::super::document();
        let bodies = schemas_of_bodies(&document);
        let lacking: Vec<_> = bodies.iter().filter(|name| of_schema(name).is_none()).collect();
        assert!(lacking.is_empty() && bodies.len() > 20, "no example: {lacking:?} of {bodies:?}");
        let schemas = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
        for (name, schema) in &schemas {
            let Some(example) = of_schema(name) else { continue };
            let members = example.as_object().cloned().unwrap_or_default();
            for member in members.keys() {
                assert!(schema["properties"].get(member).is_some(), "{name} has no member {member}");
            }
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(required.as_str().unwrap_or_default()), "the example of {name} lacks {required}");
            }
        }
    }
}
