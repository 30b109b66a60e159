//! The effects of the bucket's lifecycle rules on Valet's keys ("Lifecycle configuration elements" in the Amazon S3 user
//! guide).

use aws_sdk_s3::types::{ExpirationStatus, LifecycleExpiration, LifecycleRule, TransitionStorageClass};

/// Prefixes of Valet's keys: images, uploads that are copied at confirm, and the deployment's id.
const KEY_PREFIXES: [&str; 3] = ["u/", "in/", "valet/"];

/// Prefixes of the keys at which clients open multipart uploads.
const MULTIPART_PREFIXES: [&str; 2] = ["u/", "in/"];

/// Effects of lifecycle rules on Valet's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketLifecycle {
    /// Days after which every unfinished multipart upload is aborted; `None` if some are not.
    pub aborts_all_after: Option<i32>,
    /// Days after which the first unfinished multipart upload is aborted; `None` if none is.
    pub aborts_any_after: Option<i32>,
    /// Rules that delete current objects.
    pub expiring: Vec<AffectedKeys>,
    /// Rules that move objects to a storage class from which they cannot be read at once.
    pub archiving: Vec<AffectedKeys>,
}

/// The keys that a rule affects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedKeys {
    /// The rule's name.
    pub rule: String,
    /// The prefixes of Valet's keys among them.
    pub prefixes: Vec<&'static str>,
    /// Days until the rule applies; `None` if it applies at a date.
    pub days: Option<i32>,
}

/// The objects that a rule applies to.
#[derive(Debug, Default)]
struct Scope<'a> {
    prefix: &'a str,
    /// Whether the rule requires tags. Valet's objects have no tags.
    tagged: bool,
    /// Whether the rule is limited by size, so that it does not apply to every object.
    sized: bool,
}

impl<'a> Scope<'a> {
    /// Reads the scope of a rule from its filter, or from its own prefix if it has no filter.
    fn new(rule: &'a LifecycleRule) -> Self {
        #[expect(deprecated, reason = "rules of before 2016 still have their prefix there")]
        let old_prefix = rule.prefix();
        let Some(filter) = rule.filter() else {
            return Self { prefix: old_prefix.unwrap_or_default(), ..Self::default() };
        };
        let and = filter.and();
        let sizes = [filter.object_size_greater_than(), filter.object_size_less_than()];
        let sizes_of_and = and.map(|and| [and.object_size_greater_than(), and.object_size_less_than()]).unwrap_or_default();
        Self {
            prefix: filter.prefix().or_else(|| and?.prefix()).unwrap_or_default(),
            tagged: filter.tag().is_some() || and.is_some_and(|and| !and.tags().is_empty()),
            sized: sizes.iter().chain(&sizes_of_and).any(Option::is_some),
        }
    }

    /// Returns the prefixes of Valet's keys in its scope.
    fn valet_prefixes(&self) -> Vec<&'static str> {
        let may_share_keys = |ours: &&&'static str| ours.starts_with(self.prefix) || self.prefix.starts_with(**ours);
        if self.tagged { Vec::new() } else { KEY_PREFIXES.iter().filter(may_share_keys).copied().collect() }
    }

    /// Returns whether every multipart upload at keys with this prefix is in its scope.
    fn has_all_under(&self, prefix: &str) -> bool {
        !self.tagged && !self.sized && prefix.starts_with(self.prefix)
    }

    /// Returns whether a multipart upload of Valet may be in its scope.
    fn has_any_multipart(&self) -> bool {
        self.valet_prefixes().iter().any(|ours| MULTIPART_PREFIXES.contains(ours))
    }
}

impl BucketLifecycle {
    /// Summarizes the enabled rules.
    pub(super) fn from_rules(rules: &[LifecycleRule]) -> Self {
        let min_days = |applies: &dyn Fn(&Scope<'_>) -> bool| {
            rules.iter().filter(|rule| applies(&Scope::new(rule))).filter_map(abort_days).min()
        };
        let days_by_prefix = MULTIPART_PREFIXES.map(|prefix| min_days(&|scope| scope.has_all_under(prefix)));
        let mut summary = Self {
            aborts_all_after: days_by_prefix.into_iter().collect::<Option<Vec<_>>>().and_then(|days| days.into_iter().max()),
            aborts_any_after: min_days(&|scope| scope.has_any_multipart()),
            ..Self::default()
        };
        for rule in rules.iter().filter(|rule| *rule.status() == ExpirationStatus::Enabled) {
            let scope = Scope::new(rule);
            let affected = |days| AffectedKeys {
                rule: rule.id().unwrap_or("without a name").to_owned(),
                prefixes: scope.valet_prefixes(),
                days,
            };
            let has_time = |expiration: &&LifecycleExpiration| expiration.days().is_some() || expiration.date().is_some();
            if let Some(expiration) = rule.expiration().filter(has_time) {
                summary.expiring.push(affected(expiration.days()));
            }
            let archived = rule.transitions().iter().filter(|to| to.storage_class().is_some_and(is_archive));
            summary.archiving.extend(archived.map(|to| affected(to.days())));
        }
        for affected in [&mut summary.expiring, &mut summary.archiving] {
            affected.retain(|keys| !keys.prefixes.is_empty());
        }
        summary
    }
}

/// Returns the days after which the rule by itself aborts every multipart upload.
pub(super) fn aborts_all_after(rule: &LifecycleRule) -> Option<i32> {
    BucketLifecycle::from_rules(std::slice::from_ref(rule)).aborts_all_after
}

/// Returns the days after which the rule aborts multipart uploads, if it is enabled.
fn abort_days(rule: &LifecycleRule) -> Option<i32> {
    let is_enabled = *rule.status() == ExpirationStatus::Enabled;
    rule.abort_incomplete_multipart_upload().filter(|_| is_enabled)?.days_after_initiation()
}

/// Returns whether objects of the storage class must be restored before they can be read.
fn is_archive(class: &TransitionStorageClass) -> bool {
    matches!(class, TransitionStorageClass::Glacier | TransitionStorageClass::DeepArchive)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_sdk_s3::types::{
        AbortIncompleteMultipartUpload, LifecycleRuleAndOperator, LifecycleRuleFilter, NoncurrentVersionExpiration, Tag,
        Transition,
    };

    use super::*;

    /// Begins an enabled rule that is not Valet's.
    fn rule(filter: LifecycleRuleFilter) -> aws_sdk_s3::types::builders::LifecycleRuleBuilder {
        LifecycleRule::builder().id("theirs").status(ExpirationStatus::Enabled).filter(filter)
    }

    /// Returns the filter of a rule for keys with this prefix.
    fn prefix(text: &str) -> LifecycleRuleFilter {
        LifecycleRuleFilter::builder().prefix(text).build()
    }

    #[test]
    fn rules_that_delete_images_are_distinguished_from_others() {
        let days = |n| LifecycleExpiration::builder().days(n).build();
        let tag = Tag::builder().key("a").value("b").build().unwrap();
        let and = |operator: LifecycleRuleAndOperator| LifecycleRuleFilter::builder().and(operator).build();
        let expiring = |filter| BucketLifecycle::from_rules(&[rule(filter).expiration(days(3)).build().unwrap()]).expiring;
        for (text, wanted) in [
            ("", vec!["u/", "in/", "valet/"]),
            ("u", vec!["u/"]),
            ("u/0123", vec!["u/"]),
            ("in/", vec!["in/"]),
            ("v", vec!["valet/"]),
        ] {
            assert_eq!(expiring(prefix(text))[0].prefixes, wanted, "{text}");
        }
        for text in ["logs/", "user/", "check/", "U/"] {
            assert_eq!(expiring(prefix(text)), [], "{text}");
        }
        assert_eq!(expiring(LifecycleRuleFilter::builder().tag(tag.clone()).build()), []);
        assert_eq!(expiring(and(LifecycleRuleAndOperator::builder().prefix("u/").tags(tag).build())), []);
        let large = LifecycleRuleAndOperator::builder().prefix("u/").object_size_greater_than(1).build();
        assert_eq!(expiring(and(large)).len(), 1, "some images are large");

        let marker = LifecycleExpiration::builder().expired_object_delete_marker(true).build();
        let old = NoncurrentVersionExpiration::builder().noncurrent_days(1).build();
        let off = rule(prefix("")).status(ExpirationStatus::Disabled).expiration(days(1)).build().unwrap();
        let harmless = [
            rule(prefix("")).expiration(marker).build().unwrap(),
            rule(prefix("")).noncurrent_version_expiration(old).build().unwrap(),
            off,
        ];
        assert_eq!(BucketLifecycle::from_rules(&harmless), BucketLifecycle::default());
    }

    #[test]
    fn classes_that_need_a_restore_are_distinguished_from_others() {
        use TransitionStorageClass::{DeepArchive, Glacier, GlacierIr, IntelligentTiering, OnezoneIa, StandardIa};
        for (class, archives) in [
            (Glacier, true),
            (DeepArchive, true),
            (GlacierIr, false),
            (IntelligentTiering, false),
            (StandardIa, false),
            (OnezoneIa, false),
        ] {
            let to = Transition::builder().days(30).storage_class(class.clone()).build();
            let found = BucketLifecycle::from_rules(&[rule(prefix("u/")).transitions(to).build().unwrap()]);
            assert_eq!(!found.archiving.is_empty(), archives, "{class}");
            assert_eq!(found.expiring, []);
        }
    }

    #[test]
    fn rules_for_some_multiparts_are_distinguished_from_those_for_all() {
        let abort = |filter, n| {
            let days = AbortIncompleteMultipartUpload::builder().days_after_initiation(n).build();
            rule(filter).abort_incomplete_multipart_upload(days)
        };
        let sized = || LifecycleRuleFilter::builder().object_size_greater_than(1).build();
        let tagged = || LifecycleRuleFilter::builder().tag(Tag::builder().key("a").value("b").build().unwrap()).build();
        for (rules, all, any) in [
            (vec![], None, None),
            (vec![(prefix(""), 9)], Some(9), Some(9)),
            (vec![(prefix(""), 9), (prefix(""), 2)], Some(2), Some(2)),
            (vec![(prefix("u/"), 9)], None, Some(9)),
            (vec![(prefix("in/"), 1)], None, Some(1)),
            (vec![(prefix("u/"), 9), (prefix("in/"), 3)], Some(9), Some(3)),
            (vec![(prefix(""), 9), (prefix("in/"), 1)], Some(9), Some(1)),
            (vec![(prefix(""), 9), (prefix("u/0123"), 1)], Some(9), Some(1)),
            (vec![(sized(), 1)], None, Some(1)),
            (vec![(prefix("logs/"), 1), (prefix("valet/"), 1), (tagged(), 1)], None, None),
        ] {
            let made: Vec<_> = rules.iter().map(|(filter, days)| abort(filter.clone(), *days).build().unwrap()).collect();
            let found = BucketLifecycle::from_rules(&made);
            assert_eq!((found.aborts_all_after, found.aborts_any_after), (all, any), "{rules:?}");
        }
        let off = abort(prefix(""), 9).status(ExpirationStatus::Disabled).build().unwrap();
        assert_eq!(BucketLifecycle::from_rules(&[off]), BucketLifecycle::default());
    }
}
