//! The bucket settings that Valet needs: CORS, the public access block, the lifecycle rule for abandoned multipart uploads.
//!
//! Other rules stay: Valet replaces only rules that have its name.

use std::collections::BTreeSet;

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::get_bucket_lifecycle_configuration::GetBucketLifecycleConfigurationOutput,
    types::{
        AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, CorsConfiguration, CorsRule, ExpirationStatus,
        LifecycleRule, LifecycleRuleFilter, PublicAccessBlockConfiguration,
    },
};

use super::{
    Objects, StoreError,
    errors::{error_of, lists_objects, status},
    lifecycle::{BucketLifecycle, aborts_all_after},
};
use crate::model::cors::{BUCKET_MAX_AGE, BUCKET_METHODS, BUCKET_REQUEST_HEADERS, BUCKET_RESPONSE_HEADERS};

/// Name of Valet's rules.
const RULE_NAME: &str = "valet";

/// A setting of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting<T> {
    /// The bucket has the setting.
    Set(T),
    /// The bucket does not have the setting.
    Unset,
    /// The store has no such setting.
    Unsupported,
    /// The credentials do not permit reading it.
    Denied,
}

/// Outcome of a change of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The setting had the value already.
    None,
    /// The setting was changed.
    Made,
    /// The store has no such setting.
    Unsupported,
}

/// The four flags of a public access block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessBlock {
    /// Rejects new public ACLs. With it, Ceph RGW rejects every PUT.
    pub block_acls: bool,
    /// Ignores existing public ACLs.
    pub ignore_acls: bool,
    /// Rejects new public policies.
    pub block_policy: bool,
    /// Ignores existing public policies.
    pub restrict_buckets: bool,
}

impl AccessBlock {
    /// All four flags.
    pub const ALL: Self = Self { block_acls: true, ignore_acls: true, block_policy: true, restrict_buckets: true };

    /// Returns whether the bucket cannot become public: the flag for new ACLs adds nothing to the one that ignores them.
    #[must_use]
    pub fn suffices(self) -> bool {
        self.ignore_acls && self.block_policy && self.restrict_buckets
    }
}

impl Objects {
    /// Returns the effects of the bucket's lifecycle rules on Valet's keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lifecycle_effects(&self) -> Result<Setting<BucketLifecycle>, StoreError> {
        self.lifecycle_configuration().await?.try_map(|lifecycle| Ok(BucketLifecycle::from_rules(lifecycle.rules())))
    }

    /// Sets a rule that aborts multipart uploads older than `days`; every other rule stays as it is.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is written when the present rules cannot be read.
    pub async fn abort_abandoned_after(&self, days: i32) -> Result<Change, StoreError> {
        let present = match self.lifecycle_configuration().await? {
            Setting::Set(present) => Some(present),
            Setting::Unset => None,
            Setting::Unsupported => return Ok(Change::Unsupported),
            Setting::Denied => return Err(read_denied("GetBucketLifecycleConfiguration")),
        };
        let abort_rule = LifecycleRule::builder()
            .id(RULE_NAME)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix("").build())
            .abort_incomplete_multipart_upload(AbortIncompleteMultipartUpload::builder().days_after_initiation(days).build())
            .build()
            .map_err(|_| build_error("PutBucketLifecycleConfiguration"))?;
        let rules = present.as_ref().map(GetBucketLifecycleConfigurationOutput::rules).unwrap_or_default();
        if rules.iter().any(|rule| rule.id() == Some(RULE_NAME) && aborts_all_after(rule) == Some(days)) {
            return Ok(Change::None);
        }
        let others = rules.iter().filter(|rule| rule.id() != Some(RULE_NAME)).cloned();
        let configuration = BucketLifecycleConfiguration::builder()
            .set_rules(Some(others.chain([abort_rule]).collect()))
            .build()
            .map_err(|_| build_error("PutBucketLifecycleConfiguration"))?;
        let minimum = present.as_ref().and_then(|present| present.transition_default_minimum_object_size()).cloned();
        let put = self.client.put_bucket_lifecycle_configuration().bucket(&self.bucket).lifecycle_configuration(configuration);
        let put = put.set_transition_default_minimum_object_size(minimum);
        change_outcome("PutBucketLifecycleConfiguration", put.send().await)
    }

    /// Returns the lifecycle configuration.
    async fn lifecycle_configuration(&self) -> Result<Setting<GetBucketLifecycleConfigurationOutput>, StoreError> {
        let got = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await;
        setting("GetBucketLifecycleConfiguration", Absence::Code("NoSuchLifecycleConfiguration"), got)
    }

    /// Returns the public access block.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn access_block(&self) -> Result<Setting<AccessBlock>, StoreError> {
        let got = self.client.get_public_access_block().bucket(&self.bucket).send().await;
        setting("GetPublicAccessBlock", Absence::Code("NoSuchPublicAccessBlockConfiguration"), got)?.try_map(|got| {
            let flags = got.public_access_block_configuration();
            let flag = |read: fn(&PublicAccessBlockConfiguration) -> Option<bool>| flags.and_then(read).unwrap_or(false);
            Ok(AccessBlock {
                block_acls: flag(PublicAccessBlockConfiguration::block_public_acls),
                ignore_acls: flag(PublicAccessBlockConfiguration::ignore_public_acls),
                block_policy: flag(PublicAccessBlockConfiguration::block_public_policy),
                restrict_buckets: flag(PublicAccessBlockConfiguration::restrict_public_buckets),
            })
        })
    }

    /// Sets the public access block.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_access_block(&self, block: AccessBlock) -> Result<Change, StoreError> {
        match self.access_block().await? {
            Setting::Set(present) if present == block => return Ok(Change::None),
            Setting::Unsupported => return Ok(Change::Unsupported),
            _ => {}
        }
        let flags = PublicAccessBlockConfiguration::builder()
            .block_public_acls(block.block_acls)
            .ignore_public_acls(block.ignore_acls)
            .block_public_policy(block.block_policy)
            .restrict_public_buckets(block.restrict_buckets)
            .build();
        let put = self.client.put_public_access_block().bucket(&self.bucket).public_access_block_configuration(flags);
        change_outcome("PutPublicAccessBlock", put.send().await)
    }

    /// Permits pages of these origins to use presigned URLs; other rules stay, after this one.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is written when the present rules cannot be read.
    pub async fn set_allowed_origins(&self, origins: &[String]) -> Result<Change, StoreError> {
        let strings = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        let ours = CorsRule::builder()
            .id(RULE_NAME)
            .set_allowed_origins(Some(origins.to_vec()))
            .set_allowed_methods(strings(&BUCKET_METHODS))
            .set_allowed_headers(strings(&BUCKET_REQUEST_HEADERS))
            .set_expose_headers(strings(&BUCKET_RESPONSE_HEADERS))
            .max_age_seconds(BUCKET_MAX_AGE)
            .build()
            .map_err(|_| build_error("PutBucketCors"))?;
        let got = self.client.get_bucket_cors().bucket(&self.bucket).send().await;
        let present = match setting("GetBucketCors", Absence::Code("NoSuchCORSConfiguration"), got)? {
            Setting::Set(got) => got.cors_rules().to_vec(),
            Setting::Unset => Vec::new(),
            Setting::Unsupported => return Ok(Change::Unsupported),
            Setting::Denied => return Err(read_denied("GetBucketCors")),
        };
        if present.first().is_some_and(|first| is_same(first, &ours)) {
            return Ok(Change::None);
        }
        let others = present.into_iter().filter(|rule| rule.id() != Some(RULE_NAME));
        let rules = [ours].into_iter().chain(others).collect();
        let wanted =
            CorsConfiguration::builder().set_cors_rules(Some(rules)).build().map_err(|_| build_error("PutBucketCors"))?;
        let put = self.client.put_bucket_cors().bucket(&self.bucket).cors_configuration(wanted);
        change_outcome("PutBucketCors", put.send().await)
    }
}

/// Returns whether two rules are equal. Ceph RGW returns their lists in another order.
fn is_same(one: &CorsRule, other: &CorsRule) -> bool {
    let lists = |rule: &CorsRule| {
        let lists = [rule.allowed_origins(), rule.allowed_methods(), rule.allowed_headers(), rule.expose_headers()];
        lists.map(|list| list.iter().cloned().collect::<BTreeSet<_>>())
    };
    (one.id(), one.max_age_seconds(), lists(one)) == (other.id(), other.max_age_seconds(), lists(other))
}

impl<T> Setting<T> {
    /// Maps the value of a setting that is set.
    pub(super) fn try_map<U>(self, map: impl FnOnce(T) -> Result<U, StoreError>) -> Result<Setting<U>, StoreError> {
        Ok(match self {
            Self::Set(value) => Setting::Set(map(value)?),
            Self::Unset => Setting::Unset,
            Self::Unsupported => Setting::Unsupported,
            Self::Denied => Setting::Denied,
        })
    }
}

/// The answer of a store to a call that reads a setting which is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// A 404 with this code ("Error responses" in the S3 API reference; the same on `MinIO`, Ceph RGW and `SeaweedFS`), or an empty
    /// answer (Garage).
    Code(&'static str),
    /// Only an empty answer.
    Empty,
}

/// Returns the setting that was read. A 404 without the code for its absence may come from a gateway that does not know the
/// call: if it counted as an absent setting, `valet check --fix` would replace the operator's other rules.
pub(super) fn setting<T, E>(
    operation: &'static str,
    absence: Absence,
    answer: Result<T, SdkError<E>>,
) -> Result<Setting<T>, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(value) => Ok(Setting::Set(value)),
        Err(error) => match status(&error) {
            Some(404) if matches!(absence, Absence::Code(code) if error.code() == Some(code)) => Ok(Setting::Unset),
            Some(501 | 405) => Ok(Setting::Unsupported),
            Some(403) => Ok(Setting::Denied),
            _ if lists_objects(&error) => Ok(Setting::Unsupported),
            _ => Err(error_of(operation, &error)),
        },
    }
}

/// Returns the outcome of a call that changes a setting.
pub(super) fn change_outcome<T, E>(operation: &'static str, answer: Result<T, SdkError<E>>) -> Result<Change, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(_) => Ok(Change::Made),
        Err(error) if matches!(status(&error), Some(501 | 405)) => Ok(Change::Unsupported),
        Err(error) => Err(error_of(operation, &error)),
    }
}

/// Returns the error of a request that could not be built.
pub(super) fn build_error(operation: &'static str) -> StoreError {
    StoreError::Objects { operation, reason: "the request could not be built".to_owned() }
}

/// Returns the error of a setting that may not be read.
pub(super) fn read_denied(operation: &'static str) -> StoreError {
    StoreError::Objects {
        operation,
        reason: "403: the credentials do not permit reading the setting, so it is not replaced".to_owned(),
    }
}
