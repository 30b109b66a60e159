//! Notifications of the store that an object was written, in every form in which they arrive.
//!
//! A notification is not trusted: only the object's key is used, and only to check that object. Forms: S3's
//! records, which Ceph RGW, `MinIO` and others send too ("Event message structure" in the Amazon S3 user guide), also inside a
//! message of SNS or a `CloudEvents` envelope; events of Amazon `EventBridge`; messages of Cloudflare R2.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{KeyOwner, ObjectKey, object_key::PREVIEW_SUFFIX};

/// Maximum bytes of a notification: the limit that SQS, SNS and `EventBridge` had for years. A record has about one KiB.
pub const MAX_NOTIFICATION_BYTES: usize = 256 * 1024;
/// Maximum number of records that are read of a notification. Stores send one.
const MAX_RECORDS: usize = 1000;
/// Maximum number of envelopes around records: `CloudEvents` or SNS inside one another.
const MAX_ENVELOPES: usize = 3;
/// Maximum characters of an encoded key: S3's limit of 1024 bytes, each of them encoded.
const MAX_KEY_CHARS: usize = 3 * 1024;

/// A record of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventRecord {
    /// An object was written under a key of this deployment's form.
    Written(WrittenObject),
    /// A record about no object that this deployment has to check.
    Ignored(IgnoredRecord),
}

/// An object that a client may have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenObject {
    /// The upload that the key names. The record may not exist.
    pub owner: KeyOwner,
    /// The key of the upload: without the suffix of a preview.
    pub upload_key: ObjectKey,
    /// Whether the object is the preview.
    pub is_preview: bool,
    /// When the store sent the record, by the store's clock; for measurements alone.
    pub sent_at: Option<OffsetDateTime>,
}

/// Reason why a record is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IgnoredRecord {
    /// Not a notification in any known form, or one of more than [`MAX_NOTIFICATION_BYTES`].
    Malformed,
    /// A message with which a store or a topic tests or announces the connection.
    Test,
    /// Something other than the creation of an object.
    OtherEvent,
    /// An object in another bucket.
    OtherBucket,
    /// A key that is not one to which clients upload.
    OtherKey,
}

impl IgnoredRecord {
    /// Returns the name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Test => "test",
            Self::OtherEvent => "other_event",
            Self::OtherBucket => "other_bucket",
            Self::OtherKey => "other_key",
        }
    }
}

/// Encoding of keys in a form of notification.
#[derive(Debug, Clone, Copy)]
enum KeyEncoding {
    /// As `application/x-www-form-urlencoded`, with `+` for a space: S3's records.
    Form,
    /// Not encoded: `EventBridge`, R2.
    None,
}

/// Returns the records in a notification, at least one.
#[must_use]
pub fn decode_notification(body: &[u8], bucket: &str) -> Vec<EventRecord> {
    if body.len() > MAX_NOTIFICATION_BYTES {
        return vec![EventRecord::Ignored(IgnoredRecord::Malformed)];
    }
    match serde_json::from_slice(body) {
        Ok(value) => decode_value(&value, bucket, MAX_ENVELOPES),
        Err(_) => vec![EventRecord::Ignored(IgnoredRecord::Malformed)],
    }
}

/// Decodes a notification by its members, inside at most `envelopes` envelopes.
fn decode_value(value: &Value, bucket: &str, envelopes: usize) -> Vec<EventRecord> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let single =
        |record: Result<WrittenObject, IgnoredRecord>| vec![record.map_or_else(EventRecord::Ignored, EventRecord::Written)];
    if let Some(records) = value.get("Records").and_then(Value::as_array).filter(|records| !records.is_empty()) {
        return records.iter().take(MAX_RECORDS).flat_map(|record| single(decode_record(record, bucket))).collect();
    }
    if text("Event") == Some("s3:TestEvent") {
        return single(Err(IgnoredRecord::Test));
    }
    if value.get("s3").is_some() {
        return single(decode_record(value, bucket));
    }
    if value.get("detail").is_some() && text("detail-type").is_some() {
        return single(decode_event_bridge(value, bucket));
    }
    if text("action").is_some() && value.get("object").is_some() {
        return single(decode_r2(value, bucket));
    }
    let Some(envelopes) = envelopes.checked_sub(1) else { return single(Err(IgnoredRecord::Malformed)) };
    match (text("Type"), text("Message")) {
        (Some("Notification"), Some(message)) => {
            return match serde_json::from_str(message) {
                Ok(inner) => decode_value(&inner, bucket, envelopes),
                Err(_) => single(Err(IgnoredRecord::Malformed)),
            };
        }
        (Some("SubscriptionConfirmation" | "UnsubscribeConfirmation"), _) => return single(Err(IgnoredRecord::Test)),
        _ => {}
    }
    match value.get("data").filter(|_| text("specversion").is_some()) {
        Some(data) => decode_value(data, bucket, envelopes),
        None => single(Err(IgnoredRecord::Malformed)),
    }
}

/// Decodes a record of S3. Other stores write `s3:` before the event's name, as in the configuration.
fn decode_record(record: &Value, bucket: &str) -> Result<WrittenObject, IgnoredRecord> {
    let event = text_at(record, "/eventName")?;
    if !event.strip_prefix("s3:").unwrap_or(event).starts_with("ObjectCreated:") {
        return Err(IgnoredRecord::OtherEvent);
    }
    let object = NamedObject { bucket: text_at(record, "/s3/bucket/name")?, key: text_at(record, "/s3/object/key")? };
    decode_object(&object, KeyEncoding::Form, bucket, record.pointer("/eventTime"))
}

/// Decodes an event of Amazon `EventBridge`.
fn decode_event_bridge(event: &Value, bucket: &str) -> Result<WrittenObject, IgnoredRecord> {
    if text_at(event, "/detail-type")? != "Object Created" {
        return Err(IgnoredRecord::OtherEvent);
    }
    let object = NamedObject { bucket: text_at(event, "/detail/bucket/name")?, key: text_at(event, "/detail/object/key")? };
    decode_object(&object, KeyEncoding::None, bucket, event.pointer("/time"))
}

/// Decodes a message of Cloudflare R2.
fn decode_r2(message: &Value, bucket: &str) -> Result<WrittenObject, IgnoredRecord> {
    if !["PutObject", "CompleteMultipartUpload", "CopyObject"].contains(&text_at(message, "/action")?) {
        return Err(IgnoredRecord::OtherEvent);
    }
    let object = NamedObject { bucket: text_at(message, "/bucket")?, key: text_at(message, "/object/key")? };
    decode_object(&object, KeyEncoding::None, bucket, message.pointer("/eventTime"))
}

/// Returns the text at a JSON pointer.
fn text_at<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, IgnoredRecord> {
    value.pointer(pointer).and_then(Value::as_str).ok_or(IgnoredRecord::Malformed)
}

/// Bucket and encoded key of an object, as the notification names them.
struct NamedObject<'a> {
    bucket: &'a str,
    key: &'a str,
}

/// Returns the written object, if it is in `bucket` and clients upload to its key.
fn decode_object(
    object: &NamedObject<'_>,
    encoding: KeyEncoding,
    bucket: &str,
    sent_at: Option<&Value>,
) -> Result<WrittenObject, IgnoredRecord> {
    if object.bucket != bucket {
        return Err(IgnoredRecord::OtherBucket);
    }
    if object.key.len() > MAX_KEY_CHARS {
        return Err(IgnoredRecord::OtherKey);
    }
    let key = match encoding {
        KeyEncoding::Form => form_decoded(object.key).ok_or(IgnoredRecord::OtherKey)?,
        KeyEncoding::None => object.key.to_owned(),
    };
    let owner = KeyOwner::of_key(&key).ok_or(IgnoredRecord::OtherKey)?;
    let uploads = [ObjectKey::final_for(owner.user, owner.image), ObjectKey::incoming(owner.user, owner.image)];
    let base = key.strip_suffix(PREVIEW_SUFFIX).unwrap_or(&key);
    // The key of a copy is ignored: Valet makes copies itself, and a check because of one would make the next.
    let upload_key = uploads.into_iter().find(|upload| upload.as_str() == base).ok_or(IgnoredRecord::OtherKey)?;
    let sent_at = sent_at.and_then(Value::as_str).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    Ok(WrittenObject { owner, is_preview: base.len() < key.len(), upload_key, sent_at })
}

/// Decodes `application/x-www-form-urlencoded`. `None` if an escape is incomplete, or the result is not UTF-8.
fn form_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}
