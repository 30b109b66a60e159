//! Deletes objects with all versions that a versioned bucket keeps of them.

use aws_sdk_s3::operation::delete_object::DeleteObjectOutput;

use super::{
    Objects,
    errors::{error_of, is_absent, is_bodyless_404, is_unavailable, lists_objects},
};
use crate::{metrics::METRICS, model::ObjectKey, store::StoreError};

/// Version id that S3 gives an object written while the bucket was not versioned.
const NULL_VERSION: &str = "null";
/// Maximum number of pages that one call deletes of one key's versions; a page has up to a thousand.
const MAX_PAGES: usize = 50;

/// The outcome of deleting an object with its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeOutcome {
    /// No version is left.
    Removed,
    /// The store retains versions (Object Lock, or a policy without `s3:DeleteObjectVersion`). A delete marker hides them.
    Hidden,
}

impl Objects {
    /// Deletes the object with all its versions. Succeeds if the object does not exist, and if the store retains versions that are
    /// then hidden.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn purge(&self, key: &ObjectKey) -> Result<PurgeOutcome, StoreError> {
        for _ in 0..MAX_PAGES {
            let list = self.client.list_object_versions().bucket(&self.bucket).prefix(key.as_str());
            let found = match list.send().await {
                Ok(found) => found,
                // A store without versions (Garage responds 501, others list the objects), or a policy without
                // s3:ListBucketVersions.
                Err(error) if is_unavailable(&error) || is_absent(&error) || lists_objects(&error) => {
                    return self.delete(key, None).await.map(|_| PurgeOutcome::Removed);
                }
                Err(error) => return Err(error_of("ListObjectVersions", &error)),
            };
            // The prefix also matches longer keys, which sort later.
            let has_key = |listed: Option<&str>| listed == Some(key.as_str());
            let versions = found.versions().iter().filter(|v| has_key(v.key())).map(|v| v.version_id());
            let markers = found.delete_markers().iter().filter(|m| has_key(m.key())).map(|m| m.version_id());
            let versions: Vec<_> = versions.map(|id| id.unwrap_or(NULL_VERSION)).collect();
            let markers: Vec<_> = markers.map(|id| id.unwrap_or(NULL_VERSION)).collect();
            if versions.is_empty() && markers.is_empty() && self.head(key).await?.is_some() {
                // The listings of some stores lack new objects for a while.
                return self.delete(key, None).await.map(|_| PurgeOutcome::Removed);
            }
            let mut retained = 0_usize;
            for id in versions.iter().copied().filter(|id| *id != NULL_VERSION) {
                retained += usize::from(!self.delete_version(key, id).await?);
            }
            if retained > 0 {
                // The delete markers stay, because they hide the versions below them.
                return self.hide(key, retained).await.map(|()| PurgeOutcome::Hidden);
            }
            for id in markers.iter().copied().filter(|id| *id != NULL_VERSION) {
                self.delete(key, Some(id)).await?;
            }
            let is_done = versions.is_empty() && markers.is_empty();
            if versions.contains(&NULL_VERSION) || markers.contains(&NULL_VERSION) {
                self.delete_unversioned(key).await?;
            }
            if is_done || found.is_truncated() != Some(true) {
                return Ok(PurgeOutcome::Removed);
            }
        }
        let reason = format!("{key} has more versions than are deleted at once");
        Err(StoreError::Objects { operation: "ListObjectVersions", reason })
    }

    /// Deletes a version. Returns `false` if the store rejects that: Object Lock retains the version, or the policy lacks
    /// `s3:DeleteObjectVersion`.
    async fn delete_version(&self, key: &ObjectKey, version: &str) -> Result<bool, StoreError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key.as_str()).version_id(version);
        match delete.send().await {
            Err(error) if is_unavailable(&error) => Ok(false),
            Err(error) if !is_absent(&error) && !is_bodyless_404(&error) => Err(error_of("DeleteObject", &error)),
            Err(error) if is_bodyless_404(&error) => self.probe().await.map(|()| true),
            _ => Ok(true),
        }
    }

    /// Hides versions that cannot be deleted: a DELETE without a version adds a marker, which Object Lock permits, and every
    /// URL of the object stops working at once.
    async fn hide(&self, key: &ObjectKey, retained: usize) -> Result<(), StoreError> {
        METRICS.retained_objects.inc();
        tracing::warn!(%key, retained, "the store retains versions of a deleted object; hiding them with a delete marker");
        if self.head(key).await?.is_some() {
            self.delete(key, None).await?;
        }
        Ok(())
    }

    /// Deletes the version that was written while the bucket was not versioned; every other version of the key is deleted
    /// already.
    async fn delete_unversioned(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let deleted = self.delete(key, None).await?;
        // The bucket is versioned now: the object still exists, under a new delete marker.
        if let Some(marker) = deleted.and_then(|deleted| deleted.version_id.filter(|_| deleted.delete_marker == Some(true))) {
            self.delete(key, Some(NULL_VERSION)).await?;
            self.delete(key, Some(&marker)).await?;
        }
        Ok(())
    }

    /// Deletes the object or one version. Returns `None` if the store reports that it does not exist.
    async fn delete(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<DeleteObjectOutput>, StoreError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key.as_str());
        match delete.set_version_id(version.map(str::to_owned)).send().await {
            Ok(deleted) => Ok(Some(deleted)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) if is_bodyless_404(&error) => self.probe().await.map(|()| None),
            Err(error) => Err(error_of("DeleteObject", &error)),
        }
    }

    /// Deletes each object as [`Objects::purge`] does.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn purge_all(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        for key in keys {
            self.purge(key).await?;
        }
        Ok(())
    }
}
