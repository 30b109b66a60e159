//! Deleting objects, with all that a bucket with versions keeps of them.

use aws_sdk_s3::operation::delete_object::DeleteObjectOutput;

use super::{
    Objects,
    errors::{failed, is_absent, is_withheld, is_wordless, lists_objects},
};
use crate::{model::ObjectKey, store::StoreError};

/// What S3 calls the version of an object that was written while the bucket had none.
const UNVERSIONED: &str = "null";
/// The most pages of one key's versions that are deleted in one go: a thousand each.
const PAGES: usize = 50;

impl Objects {
    /// Deletes the object with all its versions. Done when nothing is there.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        for _ in 0..PAGES {
            let list = self.client.list_object_versions().bucket(&self.bucket).prefix(key.as_str());
            let found = match list.send().await {
                Ok(found) => found,
                // A store without versions (Garage answers 501, others list the objects), or a policy without
                // s3:ListBucketVersions.
                Err(error) if is_withheld(&error) || lists_objects(&error) => {
                    return self.delete(key, None).await.map(drop);
                }
                Err(error) => return Err(failed("ListObjectVersions", &error)),
            };
            // The prefix also matches longer keys, which come later.
            let is_ours = |listed: Option<&str>| listed == Some(key.as_str());
            let versions = found.versions().iter().filter(|v| is_ours(v.key())).map(|v| v.version_id());
            let markers = found.delete_markers().iter().filter(|m| is_ours(m.key())).map(|m| m.version_id());
            let ids: Vec<_> = versions.chain(markers).map(|id| id.unwrap_or(UNVERSIONED)).collect();
            if ids.is_empty() && self.head(key).await?.is_some() {
                // Not every store's listing is as fresh as its objects.
                return self.delete(key, None).await.map(drop);
            }
            for id in ids.iter().copied().filter(|id| *id != UNVERSIONED) {
                self.delete(key, Some(id)).await?;
            }
            if ids.contains(&UNVERSIONED) {
                self.delete_unversioned(key).await?;
            }
            if ids.is_empty() || found.is_truncated() != Some(true) {
                return Ok(());
            }
        }
        let reason = format!("{key} has more versions than are deleted at once");
        Err(StoreError::Objects { operation: "ListObjectVersions", reason })
    }

    /// Deletes what was written while the bucket had no versions; every other version of the key is deleted already.
    async fn delete_unversioned(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let deleted = self.delete(key, None).await?;
        // It has versions now: the object is still there, under a marker that says it is not.
        if let Some(marker) = deleted.and_then(|deleted| deleted.version_id.filter(|_| deleted.delete_marker == Some(true))) {
            self.delete(key, Some(UNVERSIONED)).await?;
            self.delete(key, Some(&marker)).await?;
        }
        Ok(())
    }

    /// `None` when the store says that there is nothing.
    async fn delete(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<DeleteObjectOutput>, StoreError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key.as_str());
        match delete.set_version_id(version.map(str::to_owned)).send().await {
            Ok(deleted) => Ok(Some(deleted)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) if is_wordless(&error) => self.probe().await.map(|()| None),
            Err(error) => Err(failed("DeleteObject", &error)),
        }
    }

    /// [`Objects::purge`] of each.
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
