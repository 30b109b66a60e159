//! Requests and responses of Uppy's operations, with the names that Companion and S3 use.

use std::collections::BTreeMap;

use poem_openapi::{Enum, Object};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    domain::uppy::{self, ListedPart, SignedForm},
    http::{body, responses::whole_seconds},
};

/// A session for Uppy.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct UppySession {
    /// Part of `path`. Valid for Uppy's operations only; as secret as any token.
    pub token: String,
    /// Append it to this server's address and give that to Uppy as `companionEndpoint` (6) or `endpoint` (5), without a slash at
    /// the end.
    pub path: String,
    /// When the token expires; it ends earlier if the user's session ends. Request another before each batch of files.
    pub expires_at: OffsetDateTime,
    /// Seconds until `expiresAt`.
    pub expires_in: u64,
    /// Largest file that one form takes, in bytes: let Uppy use multipart uploads above it (`shouldUseMultipart`).
    pub max_form_bytes: u64,
    /// Largest file of a multipart upload, in bytes: for `restrictions.maxFileSize`.
    pub max_bytes: u64,
    /// Accepted media types: for `restrictions.allowedFileTypes`.
    pub types: Vec<String>,
}

impl UppySession {
    /// Converts a session.
    pub fn new(session: &uppy::UppyToken, now: OffsetDateTime) -> Self {
        use secrecy::ExposeSecret;
        let token = session.token.expose_secret();
        Self {
            token: token.to_owned(),
            path: format!("/uppy/{token}"),
            expires_at: whole_seconds(session.expires_at),
            expires_in: seconds_until(session.expires_at, now),
            max_form_bytes: session.max_form_bytes,
            max_bytes: session.max_bytes,
            types: session.types.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A form for one file.
#[derive(Object)]
pub struct UppyForm {
    /// `POST`.
    pub method: String,
    /// URL of the bucket, to POST multipart/form-data to.
    pub url: String,
    /// Fields to send before the field `file`. `key` ends in the image's id.
    pub fields: BTreeMap<String, String>,
    /// Seconds until S3 refuses the form.
    pub expires: u64,
}

impl UppyForm {
    /// Converts a form.
    #[must_use]
    pub fn new(form: SignedForm, now: OffsetDateTime) -> Self {
        Self {
            method: "POST".to_owned(),
            url: form.url,
            fields: form.fields.into_iter().collect(),
            expires: seconds_until(form.expires_at, now),
        }
    }
}

/// A file to upload as a multipart upload.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields, skip_serializing_if_is_none)]
#[serde(deny_unknown_fields)]
pub struct UppyFile {
    /// The name to show and to save under.
    pub filename: String,
    /// The media type; if Uppy does not know it, the name's extension decides.
    #[oai(rename = "type")]
    #[serde(default, rename = "type", deserialize_with = "body::present")]
    pub kind: Option<String>,
    /// The file's metadata in Uppy. `size`, in bytes, reserves exactly this much of the quota; `caption` becomes the image's
    /// caption; other members are ignored.
    #[serde(default, deserialize_with = "body::present")]
    pub metadata: Option<BTreeMap<String, Value>>,
}

impl UppyFile {
    /// Returns a member of `metadata` that is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.metadata.as_ref()?.get(name)?.as_str()
    }

    /// Returns a member of `metadata` that is a number, or text with one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        let value = self.metadata.as_ref()?.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }
}

/// An open multipart upload.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct UppyUpload {
    /// Send it with every request of this upload; ends in the image's id.
    pub key: String,
    /// Identifies the upload, and later the image.
    pub upload_id: String,
    /// Name of the bucket.
    pub bucket: String,
}

/// A part that S3 has.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub struct UppyPart {
    /// The part's number, from 1.
    #[oai(rename = "PartNumber")]
    pub number: u32,
    /// The part's `ETag`, with its quotes.
    #[oai(rename = "ETag")]
    pub etag: String,
    /// Size in bytes. Absent after the upload was completed.
    #[oai(rename = "Size")]
    pub size: Option<u64>,
}

impl From<ListedPart> for UppyPart {
    fn from(part: ListedPart) -> Self {
        Self { number: part.number, etag: part.etag, size: part.size }
    }
}

/// The URL to PUT a part to.
#[derive(Object)]
pub struct UppyPartUrl {
    /// The presigned URL; no headers are needed.
    pub url: String,
    /// Seconds until S3 refuses requests with this URL.
    pub expires: u64,
}

/// The URLs to PUT parts to.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct UppyPartUrls {
    /// The presigned URLs by part number.
    pub presigned_urls: BTreeMap<String, String>,
}

/// A part of the file.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct UppyPartToJoin {
    /// The part's number, from 1.
    #[oai(rename = "PartNumber")]
    #[serde(rename = "PartNumber", deserialize_with = "body::integer")]
    pub number: i64,
    /// The `ETag` of S3's answer to the part's PUT, with or without its quotes.
    #[oai(rename = "ETag")]
    #[serde(rename = "ETag")]
    pub etag: String,
}

/// The parts to assemble the file from.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct UppyPartsToJoin {
    /// All parts of the file.
    #[serde(deserialize_with = "body::objects")]
    pub parts: Vec<UppyPartToJoin>,
}

/// The completed upload.
#[derive(Object)]
pub struct UppyJoined {
    /// A presigned GET URL of the image, valid as long as those of the gallery.
    pub location: String,
    /// Key of the upload; ends in the image's id.
    pub key: String,
    /// Name of the bucket.
    pub bucket: String,
}

/// An empty object.
#[derive(Object)]
pub struct UppyAborted {}

/// Method of the request to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(try_from = "String")]
pub enum UppyMethod {
    /// Uploads a file; with `uploadId` and `partNumber`, a part.
    #[oai(rename = "PUT")]
    Put,
    /// Opens a multipart upload; with `uploadId`, completes it.
    #[oai(rename = "POST")]
    Post,
    /// With `uploadId`: lists the parts.
    #[oai(rename = "GET")]
    Get,
    /// With `uploadId`: aborts the upload.
    #[oai(rename = "DELETE")]
    Delete,
}

impl TryFrom<String> for UppyMethod {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "PUT" => Ok(Self::Put),
            "POST" => Ok(Self::Post),
            "GET" => Ok(Self::Get),
            "DELETE" => Ok(Self::Delete),
            _ => Err("expected PUT, POST, GET or DELETE"),
        }
    }
}

/// The arguments of Uppy's `signRequest`, and members that the page may add.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields, skip_serializing_if_is_none)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UppyRequest {
    /// Method of the S3 request.
    pub method: UppyMethod,
    /// For an open upload, the `key` of the answer that opened it. Otherwise any text that ends in the file's name; a UUID before
    /// the name is removed.
    pub key: String,
    /// S3's upload id, for requests of an open multipart upload.
    #[serde(default, deserialize_with = "body::present")]
    pub upload_id: Option<String>,
    /// From 1 to 10000.
    #[serde(default, deserialize_with = "body::present_integer")]
    pub part_number: Option<i64>,
    /// The file's media type. Uppy passes it when it uploads a file; add it when it opens a multipart upload, or the name's
    /// extension decides.
    #[serde(default, deserialize_with = "body::present")]
    pub content_type: Option<String>,
    /// Longest wanted lifetime of the answer, in seconds; the server's own limit applies too.
    #[serde(default, deserialize_with = "body::present_integer")]
    pub expires_in: Option<i64>,
    /// Added by the page: the file's name, if it is not the one in `key`.
    #[serde(default, deserialize_with = "body::present")]
    pub file_name: Option<String>,
    /// Added by the page: the file's size in bytes. Exactly this much of the quota is then reserved.
    #[serde(default, deserialize_with = "body::present_integer")]
    pub size: Option<i64>,
    /// Added by the page: a caption.
    #[serde(default, deserialize_with = "body::present")]
    pub caption: Option<String>,
}

impl UppyRequest {
    /// Returns the file's name: Uppy's own keys are `<UUID>-<name>`.
    #[must_use]
    pub fn file_name(&self) -> &str {
        // A UUID has 36 characters.
        let from_key = || match self.key.split_at_checked(36) {
            Some((id, rest)) if uuid::Uuid::try_parse(id).is_ok() => rest.strip_prefix('-').unwrap_or(&self.key),
            _ => &self.key,
        };
        self.file_name.as_deref().unwrap_or_else(from_key)
    }
}

/// The result of `signRequest`.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub struct UppySignature {
    /// The URL to send the request to.
    pub url: String,
    /// The object's key; ends in the image's id.
    pub key: String,
    /// For a file in one request: POST a form with these fields instead of a PUT.
    pub fields: Option<BTreeMap<String, String>>,
}

/// Returns the whole seconds from `now` to `end`.
pub fn seconds_until(end: OffsetDateTime, now: OffsetDateTime) -> u64 {
    u64::try_from((end - whole_seconds(now)).whole_seconds()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_found_in_uppys_keys() {
        let request =
            |key: &str| serde_json::from_value::<UppyRequest>(serde_json::json!({ "method": "PUT", "key": key })).unwrap();
        for (key, expected) in [
            ("0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44-beach.jpg", "beach.jpg"),
            ("beach.jpg", "beach.jpg"),
            ("a/b/beach.jpg", "a/b/beach.jpg"),
            ("0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44", "0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44"),
            ("ÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄ.jpg", "ÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄ.jpg"),
        ] {
            assert_eq!(request(key).file_name(), expected);
        }
    }
}
