//! The quotas of users: their bytes, and the reason why a reservation was rejected.

use std::sync::Arc;

use super::OpenError;
use crate::{
    config,
    metrics::METRICS,
    model::{Usage, UserId},
    store::{Store, StoreError},
};

/// Reads quotas, and explains rejected reservations.
#[derive(Debug)]
pub(in crate::domain) struct Quota {
    pub(in crate::domain) store: Arc<Store>,
    pub(in crate::domain) settings: Arc<config::Uploads>,
}

impl Quota {
    /// Returns, as the error, why a reservation of `bytes` was rejected; `Ok` if it would succeed now.
    pub(in crate::domain) async fn explain_rejection(&self, user: UserId, bytes: u64) -> Result<(), OpenError> {
        let usage = self.store.usage(user).await?;
        self.quota_error(usage, bytes).map_or(Ok(()), Err)
    }

    /// Returns why an upload of `bytes` is rejected; `None` if it would be accepted.
    pub(super) fn quota_error(&self, usage: Option<Usage>, bytes: u64) -> Option<OpenError> {
        let Some(usage) = usage else { return Some(OpenError::NoAccount) };
        let max_pending = self.settings.max_pending;
        let too_many = || (usage.pending >= u64::from(max_pending)).then_some(OpenError::TooManyPending(max_pending));
        self.excess_error(usage, bytes).or_else(too_many)
    }

    /// Returns the user's quota in bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(in crate::domain) async fn owned_quota(&self, user: UserId) -> Result<u64, StoreError> {
        let (usage, default_quota) = (self.store.usage(user).await?, self.settings.quota_bytes);
        Ok(usage.map_or(default_quota, |usage| usage.quota(default_quota)))
    }

    /// Returns the error if `bytes` exceed the free quota, and counts it in the metrics.
    pub(super) fn excess_error(&self, usage: Usage, bytes: u64) -> Option<OpenError> {
        let quota = usage.quota(self.settings.quota_bytes);
        let free = quota.saturating_sub(usage.bytes);
        (bytes > free).then(|| {
            METRICS.quota_refusals.inc();
            OpenError::QuotaExceeded { quota, free }
        })
    }
}
