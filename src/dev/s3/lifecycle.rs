//! Lifecycle configurations, checked when they are set as AWS checks them ("Lifecycle configuration elements" in the S3 user guide,
//! `PutBucketLifecycleConfiguration` in the API reference). The rules are never applied.

use std::collections::HashSet;

use s3s::dto::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
    NoncurrentVersionExpiration, NoncurrentVersionTransition, Tag, Timestamp, Transition, TransitionStorageClass,
};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use time::{OffsetDateTime, Time, UtcOffset};
use uuid::Uuid;

use super::object::MAX_KEY_BYTES;

/// Maximum number of rules of a bucket.
const MAX_RULES: usize = 1000;
/// Maximum characters of a rule's ID.
const MAX_ID_CHARS: usize = 255;
/// Maximum bytes of a prefix, as of a key.
const MAX_PREFIX_BYTES: usize = MAX_KEY_BYTES;
/// Maximum characters of a tag's key.
const MAX_TAG_KEY_CHARS: usize = 128;
/// Maximum characters of a tag's value.
const MAX_TAG_VALUE_CHARS: usize = 256;
/// Maximum number of noncurrent versions that a rule may keep.
const MAX_VERSIONS: i32 = 100;
/// Storage classes to which objects can be moved.
const CLASSES: [&str; 6] = [
    TransitionStorageClass::STANDARD_IA,
    TransitionStorageClass::ONEZONE_IA,
    TransitionStorageClass::INTELLIGENT_TIERING,
    TransitionStorageClass::GLACIER,
    TransitionStorageClass::GLACIER_IR,
    TransitionStorageClass::DEEP_ARCHIVE,
];
/// Days that an object must be in the standard class before it is moved to one of infrequent access.
const DAYS_BEFORE_INFREQUENT_ACCESS: i32 = 30;

/// Checks the rules, and gives an ID to those without one.
///
/// # Errors
///
/// 400 with the code and message of AWS for the first fault.
pub(super) fn check(configuration: &mut BucketLifecycleConfiguration) -> S3Result<()> {
    if configuration.rules.is_empty() || configuration.rules.len() > MAX_RULES {
        return Err(malformed());
    }
    let mut ids = HashSet::new();
    for rule in &mut configuration.rules {
        check_rule(rule)?;
        let id = rule.id.take().filter(|id| !id.is_empty()).unwrap_or_else(|| Uuid::new_v4().simple().to_string());
        if !ids.insert(id.clone()) {
            return Err(s3_error!(InvalidArgument, "Rule ID must be unique. Found same ID for more than one rule"));
        }
        rule.id = Some(id);
    }
    Ok(())
}

/// Returns the error for a configuration that does not follow the schema.
pub(super) fn malformed() -> S3Error {
    s3_error!(MalformedXML, "The XML you provided was not well-formed or did not validate against our published schema")
}

/// Checks one rule.
fn check_rule(rule: &LifecycleRule) -> S3Result<()> {
    if !matches!(rule.status.as_str(), "Enabled" | "Disabled") {
        return Err(malformed());
    }
    if rule.id.as_ref().is_some_and(|id| id.chars().count() > MAX_ID_CHARS) {
        return Err(s3_error!(InvalidArgument, "ID length should not exceed allowed limit of {MAX_ID_CHARS}"));
    }
    let scope = match (&rule.filter, &rule.prefix) {
        (Some(filter), None) => Scope::of(filter)?,
        (None, Some(prefix)) => Scope { prefix, tags: &[], sizes: (None, None) },
        _ => return Err(malformed()),
    };
    scope.check()?;
    let transitions = rule.transitions.as_deref().unwrap_or_default();
    let noncurrent_transitions = rule.noncurrent_version_transitions.as_deref().unwrap_or_default();
    let has_action = rule.expiration.is_some()
        || rule.noncurrent_version_expiration.is_some()
        || rule.abort_incomplete_multipart_upload.is_some()
        || !transitions.is_empty()
        || !noncurrent_transitions.is_empty();
    if !has_action {
        return Err(s3_error!(InvalidRequest, "At least one action needs to be specified in a rule"));
    }
    if let Some(expiration) = &rule.expiration {
        check_expiration(expiration, &scope)?;
    }
    if let Some(abort) = &rule.abort_incomplete_multipart_upload {
        check_abort(abort, &scope)?;
    }
    if let Some(expiration) = &rule.noncurrent_version_expiration {
        check_noncurrent_expiration(expiration)?;
    }
    check_transitions(transitions, rule.expiration.as_ref(), &scope)?;
    check_noncurrent_transitions(noncurrent_transitions)
}

/// The objects that a rule concerns.
struct Scope<'a> {
    prefix: &'a str,
    tags: &'a [Tag],
    /// Bounds of the size, in bytes; an object is larger than the first and smaller than the second.
    sizes: (Option<i64>, Option<i64>),
}

impl<'a> Scope<'a> {
    /// Returns the objects that a filter selects.
    fn of(filter: &'a LifecycleRuleFilter) -> S3Result<Self> {
        let sizes = (filter.object_size_greater_than, filter.object_size_less_than);
        let is_set = [filter.prefix.is_some(), filter.tag.is_some(), sizes.0.is_some(), sizes.1.is_some(), filter.and.is_some()];
        if is_set.into_iter().filter(|is_set| *is_set).count() > 1 {
            return Err(malformed());
        }
        let Some(and) = &filter.and else {
            let tags = filter.tag.as_slice();
            return Ok(Self { prefix: filter.prefix.as_deref().unwrap_or_default(), tags, sizes });
        };
        let sizes = (and.object_size_greater_than, and.object_size_less_than);
        let tags = and.tags.as_deref().unwrap_or_default();
        if and.prefix.is_none() && tags.is_empty() && sizes == (None, None) {
            return Err(malformed());
        }
        Ok(Self { prefix: and.prefix.as_deref().unwrap_or_default(), tags, sizes })
    }

    /// Checks prefix, tags and sizes.
    fn check(&self) -> S3Result<()> {
        if self.prefix.len() > MAX_PREFIX_BYTES {
            return Err(s3_error!(InvalidRequest, "The maximum size of a prefix is {MAX_PREFIX_BYTES}."));
        }
        let mut keys = HashSet::new();
        for tag in self.tags {
            let (key, value) = (tag.key.as_deref().unwrap_or_default(), tag.value.as_deref().unwrap_or_default());
            if key.is_empty() || key.chars().count() > MAX_TAG_KEY_CHARS {
                return Err(s3_error!(InvalidTag, "The TagKey you have provided is invalid"));
            }
            if value.chars().count() > MAX_TAG_VALUE_CHARS {
                return Err(s3_error!(InvalidTag, "The TagValue you have provided is invalid"));
            }
            if !keys.insert(key) {
                return Err(s3_error!(InvalidRequest, "Duplicate Tag Keys are not allowed."));
            }
        }
        match self.sizes {
            (Some(more), _) if more < 0 => Err(s3_error!(InvalidRequest, "'ObjectSizeGreaterThan' must not be negative")),
            (_, Some(less)) if less < 1 => Err(s3_error!(InvalidRequest, "'ObjectSizeLessThan' must be a positive integer")),
            (Some(more), Some(less)) if less <= more => {
                Err(s3_error!(InvalidRequest, "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'"))
            }
            _ => Ok(()),
        }
    }
}

/// Checks the expiration of current objects.
fn check_expiration(expiration: &LifecycleExpiration, scope: &Scope<'_>) -> S3Result<()> {
    match (&expiration.days, &expiration.date, expiration.expired_object_delete_marker) {
        (Some(days), None, None) => check_positive(*days, "Days", "Expiration"),
        (None, Some(date), None) => check_midnight(date),
        (None, None, Some(_)) if !scope.tags.is_empty() => {
            Err(s3_error!(InvalidRequest, "ExpiredObjectDeleteMarker cannot be specified with Tags."))
        }
        (None, None, Some(_)) => Ok(()),
        _ => Err(malformed()),
    }
}

/// Checks the action that aborts incomplete multipart uploads.
fn check_abort(abort: &AbortIncompleteMultipartUpload, scope: &Scope<'_>) -> S3Result<()> {
    const ACTION: &str = "AbortIncompleteMultipartUpload";
    check_positive(abort.days_after_initiation.ok_or_else(malformed)?, "DaysAfterInitiation", ACTION)?;
    if !scope.tags.is_empty() {
        return Err(s3_error!(InvalidRequest, "{ACTION} cannot be specified with Tags."));
    }
    if scope.sizes != (None, None) {
        return Err(s3_error!(InvalidRequest, "{ACTION} cannot be specified with Object Size."));
    }
    Ok(())
}

/// Checks the expiration of noncurrent versions.
fn check_noncurrent_expiration(expiration: &NoncurrentVersionExpiration) -> S3Result<()> {
    const ACTION: &str = "NoncurrentVersionExpiration";
    check_positive(expiration.noncurrent_days.ok_or_else(malformed)?, "NoncurrentDays", ACTION)?;
    check_versions(expiration.newer_noncurrent_versions, ACTION)
}

/// Checks the number of noncurrent versions that an action keeps.
fn check_versions(kept: Option<i32>, action: &str) -> S3Result<()> {
    match kept {
        Some(kept) if kept > MAX_VERSIONS => Err(s3_error!(
            InvalidArgument,
            "'NewerNoncurrentVersions' for {action} action must not be greater than {MAX_VERSIONS}"
        )),
        Some(kept) => check_positive(kept, "NewerNoncurrentVersions", action),
        None => Ok(()),
    }
}

/// Checks the transitions of current objects, and that the expiration comes after them.
fn check_transitions(transitions: &[Transition], end: Option<&LifecycleExpiration>, scope: &Scope<'_>) -> S3Result<()> {
    check_classes(transitions.iter().map(|transition| transition.storage_class.as_ref()), "Transition")?;
    for transition in transitions {
        match (&transition.days, &transition.date) {
            (Some(days), None) => check_days(*days, transition.storage_class.as_ref())?,
            (None, Some(date)) => check_midnight(date)?,
            _ => return Err(malformed()),
        }
    }
    let has_transitions = !transitions.is_empty();
    let by_date = transitions.iter().any(|transition| transition.date.is_some())
        || (has_transitions && end.is_some_and(|end| end.date.is_some()));
    let by_days = transitions.iter().any(|transition| transition.days.is_some())
        || (has_transitions && end.is_some_and(|end| end.days.is_some()));
    let prefix = scope.prefix;
    if by_date && by_days {
        return Err(s3_error!(
            InvalidRequest,
            "Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle rule for prefix '{prefix}'"
        ));
    }
    let too_soon = |name: &str, order: &str| {
        s3_error!(
            InvalidArgument,
            "'{name}' in the Expiration action for filter '(prefix={prefix})' must be {order} than '{name}' in the Transition action"
        )
    };
    match end {
        Some(LifecycleExpiration { days: Some(end), .. })
            if transitions.iter().any(|transition| transition.days >= Some(*end)) =>
        {
            Err(too_soon("Days", "greater"))
        }
        Some(LifecycleExpiration { date: Some(end), .. })
            if transitions.iter().any(|transition| transition.date.as_ref() >= Some(end)) =>
        {
            Err(too_soon("Date", "later"))
        }
        _ => Ok(()),
    }
}

/// Checks the days before a transition to a storage class.
fn check_days(days: i32, class: Option<&TransitionStorageClass>) -> S3Result<()> {
    let class = class.map(TransitionStorageClass::as_str).unwrap_or_default();
    if days < 0 {
        return Err(s3_error!(InvalidArgument, "'Days' in Transition action must be nonnegative"));
    }
    if class.ends_with("_IA") && days < DAYS_BEFORE_INFREQUENT_ACCESS {
        return Err(s3_error!(
            InvalidArgument,
            "'Days' in Transition action must be greater than or equal to {DAYS_BEFORE_INFREQUENT_ACCESS} for storageClass '{class}'"
        ));
    }
    Ok(())
}

/// Checks the transitions of noncurrent versions.
fn check_noncurrent_transitions(transitions: &[NoncurrentVersionTransition]) -> S3Result<()> {
    const ACTION: &str = "NoncurrentVersionTransition";
    check_classes(transitions.iter().map(|transition| transition.storage_class.as_ref()), ACTION)?;
    for transition in transitions {
        if transition.noncurrent_days.ok_or_else(malformed)? < 0 {
            return Err(s3_error!(InvalidArgument, "'NoncurrentDays' in {ACTION} action must be nonnegative"));
        }
        check_versions(transition.newer_noncurrent_versions, ACTION)?;
    }
    Ok(())
}

/// Checks that the storage classes of the transitions are known and different.
fn check_classes<'a>(classes: impl Iterator<Item = Option<&'a TransitionStorageClass>>, action: &str) -> S3Result<()> {
    let mut seen = HashSet::new();
    for class in classes {
        let class = class.map(TransitionStorageClass::as_str).filter(|class| CLASSES.contains(class)).ok_or_else(malformed)?;
        if !seen.insert(class) {
            return Err(s3_error!(InvalidRequest, "'StorageClass' must be different for '{action}' actions in same 'Rule'"));
        }
    }
    Ok(())
}

/// Checks that a number of an action is positive.
fn check_positive(count: i32, name: &str, action: &str) -> S3Result<()> {
    if count > 0 {
        return Ok(());
    }
    Err(S3Error::with_message(S3ErrorCode::InvalidArgument, format!("'{name}' for {action} action must be a positive integer")))
}

/// Checks that a date is at midnight in UTC.
fn check_midnight(date: &Timestamp) -> S3Result<()> {
    if OffsetDateTime::from(date.clone()).to_offset(UtcOffset::UTC).time() == Time::MIDNIGHT {
        return Ok(());
    }
    Err(s3_error!(InvalidArgument, "'Date' must be at midnight GMT"))
}
