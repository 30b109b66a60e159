//! Conditional requests (RFC 9110, section 13): on writes by the entity tag, on reads by tag and time.

use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use s3s::dto::{ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Error, S3Result, s3_error};

use super::object::{Meta, millis};

/// Condition on the current object for a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WriteCondition {
    /// No condition.
    Always,
    /// No object exists (`If-None-Match: *`).
    Absent,
    /// An object exists (`If-Match: *`).
    Present,
    /// The object has this entity tag.
    Matches(String),
}

impl WriteCondition {
    /// Reads the request's headers. S3 does not support a tag in If-None-Match on writes.
    pub(super) fn new(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<Self> {
        match (if_match, if_none_match) {
            (None, None) => Ok(Self::Always),
            (None, Some(ETagCondition::Any)) => Ok(Self::Absent),
            (Some(ETagCondition::Any), None) => Ok(Self::Present),
            (Some(ETagCondition::ETag(tag)), None) => Ok(Self::Matches(tag.value().to_owned())),
            _ => Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")),
        }
    }

    /// Returns 412 unless the condition holds; 404 for `If-Match` and a missing object, as AWS answers.
    pub(super) fn check(&self, current: Option<&Meta>) -> S3Result<()> {
        match (self, current) {
            (Self::Always, _) | (Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Matches(tag), Some(meta)) if *tag == meta.etag => Ok(()),
            (Self::Matches(_) | Self::Present, None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            _ => Err(failed()),
        }
    }
}

/// Returns the 412 for a condition that does not hold.
pub(super) fn failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

/// Sets the condition of an `If-Match` or `If-None-Match` with several tags, which `s3s` does not parse, to the object's tag if it
/// is among them.
pub(super) fn read_list(header: Option<&HeaderValue>, current: Option<&Meta>, condition: &mut Option<ETagCondition>) {
    let (Some(tags), Some(meta)) = (header.and_then(|tags| tags.to_str().ok()), current) else { return };
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    if tags.contains(',') && tags.split(',').any(|tag| bare(tag) == meta.etag) {
        *condition = Some(ETagCondition::ETag(meta.e_tag()));
    }
}

/// The four conditions of a read, or of a copy's source.
#[derive(Debug, Default)]
pub(super) struct ReadConditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    /// Checks the conditions in RFC 9110's order: a tag takes precedence over the time beside it. A time in the future has no
    /// effect, as on AWS.
    ///
    /// # Errors
    ///
    /// 412 or 304.
    pub(super) fn check(&self, meta: &Meta, now_ms: i64) -> S3Result<()> {
        // HTTP dates have whole seconds.
        let modified = meta.modified.div_euclid(1000);
        let seconds = |t: &Timestamp| millis(t).div_euclid(1000);
        let matches = |c: &ETagCondition| c.as_etag().is_none_or(|tag| tag.value() == meta.etag);

        let is_unchanged = match (&self.if_match, &self.if_unmodified_since) {
            (Some(tag), _) => matches(tag),
            (None, Some(t)) => modified <= seconds(t),
            (None, None) => true,
        };
        if !is_unchanged {
            return Err(failed());
        }
        let is_known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(tag), _) => matches(tag),
            (None, Some(t)) => modified <= seconds(t) && millis(t) <= now_ms,
            (None, None) => false,
        };
        if is_known { Err(not_modified(meta)) } else { Ok(()) }
    }
}

/// Returns the 304, with the headers of the object that caches need.
fn not_modified(meta: &Meta) -> S3Error {
    let mut headers = HeaderMap::new();
    let mut stamp = Vec::new();
    let _ = meta.last_modified().format(TimestampFormat::HttpDate, &mut stamp);
    let texts = [
        (ETAG, format!("\"{}\"", meta.etag).into_bytes()),
        (LAST_MODIFIED, stamp),
        (CACHE_CONTROL, meta.headers.cache_control.clone().unwrap_or_default().into_bytes()),
    ];
    for (name, value) in texts {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(&value)) {
            headers.insert(name, value);
        }
    }
    let mut error = s3_error!(NotModified, "Not Modified");
    error.set_headers(headers);
    error
}
