//! Explains why a reservation was refused.

use std::sync::Arc;

use super::OpenError;
use crate::{
    config,
    metrics::METRICS,
    model::{Usage, UserId},
    store::{Store, StoreError},
};

/// Explains refused reservations.
#[derive(Debug)]
pub(in crate::domain) struct Quota {
    pub(in crate::domain) store: Arc<Store>,
    pub(in crate::domain) settings: Arc<config::Uploads>,
}

impl Quota {
    /// Returns why a reservation failed; `Ok` if it would succeed now.
    pub(in crate::domain) async fn explain_refusal(&self, user: UserId, size: u64) -> Result<(), OpenError> {
        let usage = self.store.users.usage(user).await?;
        self.quota_refusal(usage, size).map_or(Ok(()), Err)
    }

    /// Returns why an upload of `bytes` is refused; `None` if it is not.
    pub(super) fn quota_refusal(&self, usage: Option<Usage>, bytes: u64) -> Option<OpenError> {
        let Some(usage) = usage else { return Some(OpenError::NoAccount) };
        let most = self.settings.max_pending;
        let too_many = || (usage.pending >= u64::from(most)).then_some(OpenError::TooManyPending(most));
        self.exceeds_quota(usage, bytes).or_else(too_many)
    }

    /// Returns the user's quota in bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(in crate::domain) async fn owned_quota(&self, user: UserId) -> Result<u64, StoreError> {
        let (usage, of_settings) = (self.store.users.usage(user).await?, self.settings.quota_bytes);
        Ok(usage.map_or(of_settings, |usage| usage.quota(of_settings)))
    }

    /// Returns the refusal of `bytes` that exceed the free quota, and counts it.
    pub(super) fn exceeds_quota(&self, usage: Usage, bytes: u64) -> Option<OpenError> {
        let quota = usage.quota(self.settings.quota_bytes);
        let free = quota.saturating_sub(usage.bytes);
        (bytes > free).then(|| {
            METRICS.quota_refusals.inc();
            OpenError::QuotaExceeded { quota, free }
        })
    }
}
