//! Lifecycle configurations, checked when they are set as AWS checks them ("Lifecycle configuration elements" in the S3 user guide,
//! `PutBucketLifecycleConfiguration` in the API reference). None is ever run.

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
/// Longest ID of a rule, in characters.
const MAX_ID: usize = 255;
/// Longest prefix, in bytes, as of a key.
const MAX_PREFIX: usize = MAX_KEY_BYTES;
/// Longest key and value of a tag, in characters.
const MAX_TAG: (usize, usize) = (128, 256);
/// Largest number of versions that a rule may keep.
const MAX_VERSIONS: i32 = 100;
/// Storage classes that objects can be moved to.
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

/// Returns the refusal of a configuration that does not follow the schema.
pub(super) fn malformed() -> S3Error {
    s3_error!(MalformedXML, "The XML you provided was not well-formed or did not validate against our published schema")
}

fn check_rule(rule: &LifecycleRule) -> S3Result<()> {
    if !matches!(rule.status.as_str(), "Enabled" | "Disabled") {
        return Err(malformed());
    }
    if rule.id.as_ref().is_some_and(|id| id.chars().count() > MAX_ID) {
        return Err(s3_error!(InvalidArgument, "ID length should not exceed allowed limit of {MAX_ID}"));
    }
    let scope = match (&rule.filter, &rule.prefix) {
        (Some(filter), None) => Scope::of(filter)?,
        (None, Some(prefix)) => Scope { prefix, tags: &[], sizes: (None, None) },
        _ => return Err(malformed()),
    };
    scope.check()?;
    let moves = rule.transitions.as_deref().unwrap_or_default();
    let old_moves = rule.noncurrent_version_transitions.as_deref().unwrap_or_default();
    let acts = rule.expiration.is_some()
        || rule.noncurrent_version_expiration.is_some()
        || rule.abort_incomplete_multipart_upload.is_some()
        || !moves.is_empty()
        || !old_moves.is_empty();
    if !acts {
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
    check_transitions(moves, rule.expiration.as_ref(), &scope)?;
    check_noncurrent_transitions(old_moves)
}

/// The objects that a rule concerns.
struct Scope<'a> {
    prefix: &'a str,
    tags: &'a [Tag],
    /// Bounds of the size, in bytes; an object is larger than the first and smaller than the second.
    sizes: (Option<i64>, Option<i64>),
}

impl<'a> Scope<'a> {
    fn of(filter: &'a LifecycleRuleFilter) -> S3Result<Self> {
        let sizes = (filter.object_size_greater_than, filter.object_size_less_than);
        let given = [filter.prefix.is_some(), filter.tag.is_some(), sizes.0.is_some(), sizes.1.is_some(), filter.and.is_some()];
        if given.into_iter().filter(|given| *given).count() > 1 {
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

    fn check(&self) -> S3Result<()> {
        if self.prefix.len() > MAX_PREFIX {
            return Err(s3_error!(InvalidRequest, "The maximum size of a prefix is {MAX_PREFIX}."));
        }
        let mut keys = HashSet::new();
        for tag in self.tags {
            let (key, value) = (tag.key.as_deref().unwrap_or_default(), tag.value.as_deref().unwrap_or_default());
            if key.is_empty() || key.chars().count() > MAX_TAG.0 {
                return Err(s3_error!(InvalidTag, "The TagKey you have provided is invalid"));
            }
            if value.chars().count() > MAX_TAG.1 {
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

fn check_noncurrent_expiration(expiration: &NoncurrentVersionExpiration) -> S3Result<()> {
    const ACTION: &str = "NoncurrentVersionExpiration";
    check_positive(expiration.noncurrent_days.ok_or_else(malformed)?, "NoncurrentDays", ACTION)?;
    check_versions(expiration.newer_noncurrent_versions, ACTION)
}

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

fn check_transitions(moves: &[Transition], end: Option<&LifecycleExpiration>, scope: &Scope<'_>) -> S3Result<()> {
    check_classes(moves.iter().map(|one| one.storage_class.as_ref()), "Transition")?;
    for one in moves {
        match (&one.days, &one.date) {
            (Some(days), None) => check_days(*days, one.storage_class.as_ref())?,
            (None, Some(date)) => check_midnight(date)?,
            _ => return Err(malformed()),
        }
    }
    let by_date = moves.iter().any(|one| one.date.is_some()) || (!moves.is_empty() && end.is_some_and(|end| end.date.is_some()));
    let by_days = moves.iter().any(|one| one.days.is_some()) || (!moves.is_empty() && end.is_some_and(|end| end.days.is_some()));
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
        Some(LifecycleExpiration { days: Some(end), .. }) if moves.iter().any(|one| one.days >= Some(*end)) => {
            Err(too_soon("Days", "greater"))
        }
        Some(LifecycleExpiration { date: Some(end), .. }) if moves.iter().any(|one| one.date.as_ref() >= Some(end)) => {
            Err(too_soon("Date", "later"))
        }
        _ => Ok(()),
    }
}

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

fn check_noncurrent_transitions(moves: &[NoncurrentVersionTransition]) -> S3Result<()> {
    const ACTION: &str = "NoncurrentVersionTransition";
    check_classes(moves.iter().map(|one| one.storage_class.as_ref()), ACTION)?;
    for one in moves {
        if one.noncurrent_days.ok_or_else(malformed)? < 0 {
            return Err(s3_error!(InvalidArgument, "'NoncurrentDays' in {ACTION} action must be nonnegative"));
        }
        check_versions(one.newer_noncurrent_versions, ACTION)?;
    }
    Ok(())
}

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

fn check_positive(count: i32, name: &str, action: &str) -> S3Result<()> {
    if count > 0 {
        return Ok(());
    }
    Err(S3Error::with_message(S3ErrorCode::InvalidArgument, format!("'{name}' for {action} action must be a positive integer")))
}

fn check_midnight(date: &Timestamp) -> S3Result<()> {
    if OffsetDateTime::from(date.clone()).to_offset(UtcOffset::UTC).time() == Time::MIDNIGHT {
        return Ok(());
    }
    Err(s3_error!(InvalidArgument, "'Date' must be at midnight GMT"))
}
