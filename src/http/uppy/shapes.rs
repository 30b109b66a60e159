//! What Uppy sends and reads, by its own names: those of Companion, some of them S3's.

use std::collections::BTreeMap;

use poem_openapi::{Enum, Object};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::super::{body, view::whole_seconds};
use crate::domain::uppy::{self, ListedPart, SignedForm};

/// What lets Uppy in.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct UppySession {
    /// Stands in `path`. Good for Uppy's calls alone; a secret like any token.
    pub token: String,
    /// What Uppy's `companionEndpoint` (6) or `endpoint` (5) is, behind this server's address. Add no slash at its end.
    pub path: String,
    /// When the token stops working; it ends with the session that it was made in, too. Ask for another before each batch.
    pub expires_at: OffsetDateTime,
    /// Seconds until then.
    pub expires_in: u64,
    /// The most bytes of a file that comes in one form: let Uppy use parts above it (`shouldUseMultipart`).
    pub max_form_bytes: u64,
    /// The most bytes of a file in parts: for `restrictions.maxFileSize`.
    pub max_bytes: u64,
    /// Media types that are accepted: for `restrictions.allowedFileTypes`.
    pub types: Vec<String>,
}

impl UppySession {
    /// As clients see it.
    pub fn new(session: &uppy::PathToken, now: OffsetDateTime) -> Self {
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
    /// The bucket: where to POST multipart/form-data.
    pub url: String,
    /// What to send before the field `file`. `key` ends in the image's id.
    pub fields: BTreeMap<String, String>,
    /// Seconds until S3 stops taking it.
    pub expires: u64,
}

impl UppyForm {
    /// As Uppy takes it.
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

/// A file that is to come in parts.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields, skip_serializing_if_is_none)]
#[serde(deny_unknown_fields)]
pub struct UppyFile {
    /// The name to show and to save under.
    pub filename: String,
    /// The media type; where Uppy knows none, the name's extension decides.
    #[oai(rename = "type")]
    #[serde(default, rename = "type", deserialize_with = "body::present")]
    pub kind: Option<String>,
    /// What the page keeps with the file. `size` in bytes reserves exactly so much of the quota; `caption` becomes the image's; the
    /// rest is ignored.
    #[serde(default, deserialize_with = "body::present")]
    pub metadata: Option<BTreeMap<String, Value>>,
}

impl UppyFile {
    /// A member of `metadata` as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.metadata.as_ref()?.get(name)?.as_str()
    }

    /// A member of `metadata` as a number, which pages keep as text, too.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        let value = self.metadata.as_ref()?.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }
}

/// An upload in parts that is open.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct UppyUpload {
    /// Goes with every call of this upload; ends in the image's id.
    pub key: String,
    /// Names the upload, and the image from now on.
    pub upload_id: String,
    /// The bucket.
    pub bucket: String,
}

/// A part that S3 has.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub struct UppyPart {
    /// From 1.
    #[oai(rename = "PartNumber")]
    pub number: u32,
    /// With its quotes.
    #[oai(rename = "ETag")]
    pub etag: String,
    /// Bytes. Not known any more once the parts are one object.
    #[oai(rename = "Size")]
    pub size: Option<u64>,
}

impl From<ListedPart> for UppyPart {
    fn from(part: ListedPart) -> Self {
        Self { number: part.number, etag: part.etag, size: part.size }
    }
}

/// Where to PUT a part.
#[derive(Object)]
pub struct UppyPartUrl {
    /// The whole URL; no headers are needed.
    pub url: String,
    /// Seconds until S3 begins no request with it any more.
    pub expires: u64,
}

/// Where to PUT parts.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct UppyPartUrls {
    /// By the part's number.
    pub presigned_urls: BTreeMap<String, String>,
}

/// A part that belongs to the file.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct UppyPartToJoin {
    /// From 1.
    #[oai(rename = "PartNumber")]
    #[serde(rename = "PartNumber", deserialize_with = "body::integer")]
    pub number: i64,
    /// What S3 answered to the part's PUT, with or without its quotes.
    #[oai(rename = "ETag")]
    #[serde(rename = "ETag")]
    pub etag: String,
}

/// The parts of the file.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct UppyPartsToJoin {
    /// All of them.
    #[serde(deserialize_with = "body::objects")]
    pub parts: Vec<UppyPartToJoin>,
}

/// The parts are an image.
#[derive(Object)]
pub struct UppyJoined {
    /// A presigned GET of the image, for as long as those of the gallery.
    pub location: String,
    /// Ends in the image's id.
    pub key: String,
    /// The bucket.
    pub bucket: String,
}

/// Nothing to say.
#[derive(Object)]
pub struct UppyAborted {}

/// Which kind of request is to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(try_from = "String")]
pub enum UppyMethod {
    /// A file, or with `uploadId` and `partNumber` a part.
    #[oai(rename = "PUT")]
    Put,
    /// Opens an upload in parts, or with `uploadId` completes one.
    #[oai(rename = "POST")]
    Post,
    /// With `uploadId`: lists its parts.
    #[oai(rename = "GET")]
    Get,
    /// With `uploadId`: aborts it.
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

/// What Uppy gives to `signRequest`, and what the page may add.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields, skip_serializing_if_is_none)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UppyRequest {
    /// Which call of S3.
    pub method: UppyMethod,
    /// Of an upload that is open, the `key` of the answer that opened it. Else anything that ends in the file's name; a UUID before
    /// it is taken off.
    pub key: String,
    /// S3's, for the calls of an upload that is open.
    #[serde(default, deserialize_with = "body::present")]
    pub upload_id: Option<String>,
    /// From 1 to 10000.
    #[serde(default, deserialize_with = "body::present_integer")]
    pub part_number: Option<i64>,
    /// The file's media type. Uppy gives it where it sends a file; add it where it opens an upload in parts, or the name's
    /// extension decides.
    #[serde(default, deserialize_with = "body::present")]
    pub content_type: Option<String>,
    /// Seconds for which the answer is to work, at most; the server's own limit holds besides.
    #[serde(default, deserialize_with = "body::present_integer")]
    pub expires_in: Option<i64>,
    /// Added by the page: the file's name, if not that in `key`.
    #[serde(default, deserialize_with = "body::present")]
    pub file_name: Option<String>,
    /// Added by the page: the file's bytes. Exactly so much of the quota is then reserved.
    #[serde(default, deserialize_with = "body::present_integer")]
    pub size: Option<i64>,
    /// Added by the page: words to show with the image.
    #[serde(default, deserialize_with = "body::present")]
    pub caption: Option<String>,
}

impl UppyRequest {
    /// The file's name: Uppy's own keys are `<UUID>-<name>`.
    #[must_use]
    pub fn name(&self) -> &str {
        let named = self.file_name.as_deref();
        let from_key = || match self.key.split_at_checked(36) {
            Some((id, rest)) if uuid::Uuid::try_parse(id).is_ok() => rest.strip_prefix('-').unwrap_or(&self.key),
            _ => &self.key,
        };
        named.unwrap_or_else(from_key)
    }
}

/// What `signRequest` gives to Uppy.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub struct UppySignature {
    /// Where to send it.
    pub url: String,
    /// What lies there is called so; ends in the image's id.
    pub key: String,
    /// Of a file in one request: send a form with these fields, not a PUT.
    pub fields: Option<BTreeMap<String, String>>,
}

/// Whole seconds that are left.
pub fn seconds_until(end: OffsetDateTime, now: OffsetDateTime) -> u64 {
    u64::try_from((end - whole_seconds(now)).whole_seconds()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_uppys_keys() {
        let name = |key: &str| serde_json::from_value::<UppyRequest>(serde_json::json!({ "method": "PUT", "key": key })).unwrap();
        for (key, expected) in [
            ("0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44-beach.jpg", "beach.jpg"),
            ("beach.jpg", "beach.jpg"),
            ("a/b/beach.jpg", "a/b/beach.jpg"),
            ("0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44", "0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44"),
            ("ÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄ.jpg", "ÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄ.jpg"),
        ] {
            assert_eq!(name(key).name(), expected);
        }
    }
}
