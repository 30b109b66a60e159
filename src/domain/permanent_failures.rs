//! Distinguishes permanent failures from temporary ones.

use crate::store::{Objects, StoreError};

/// Returns whether a failure concerns only this image or account: it is permanent, or the bucket answers a probe although S3
/// failed.
pub(super) async fn concerns_only_record(objects: &Objects, error: &StoreError) -> bool {
    match error {
        StoreError::Objects { .. } | StoreError::ObjectsTimeout { .. } | StoreError::ObjectNotVisible => {
            objects.probe().await.is_ok()
        }
        error => is_permanent(objects, error).await,
    }
}

/// Returns whether a failure is permanent, so that an upload may be rejected for it. Timeouts and 5xx responses are
/// not permanent, however long they last. A wrong configuration is permanent only if the bucket answers a probe.
pub(super) async fn is_permanent(objects: &Objects, error: &StoreError) -> bool {
    match error {
        StoreError::ObjectsMisconfigured { .. } => objects.probe().await.is_ok(),
        error => !error.is_temporary(),
    }
}
