//! Copies an object inside the bucket: the last step of an upload on a store that does not enforce signed headers.

use std::time::Duration;

use aws_sdk_s3::types::{ChecksumAlgorithm, MetadataDirective};

use super::{
    Objects,
    errors::{Failure, classify_error, error_of, is_about_object, is_deleted_or_replaced, reason},
    long_timeouts,
};
use crate::{
    model::{ContentType, ObjectKey},
    store::StoreError,
};

/// Deadline of a copy: S3 responds when the copy is complete.
pub const COPY_DEADLINE: Duration = Duration::from_secs(40);

impl Objects {
    /// Copies the object with this entity tag; the copy has this type and no other metadata. Returns `false` if the object
    /// was deleted or replaced. A store may ignore the condition, so callers must verify the copy.
    ///
    /// # Errors
    /// [`StoreError::ObjectRejected`] when the object cannot be read, such as an archived one; else [`StoreError`], and the copy
    /// may still complete.
    pub async fn copy(
        &self,
        from: &ObjectKey,
        etag: &str,
        to: &ObjectKey,
        content_type: ContentType,
    ) -> Result<bool, StoreError> {
        let copy = self.client.copy_object().bucket(&self.bucket).key(to.as_str()).copy_source(format!("{}/{from}", self.bucket));
        let copy = copy
            .copy_source_if_match(etag)
            .metadata_directive(MetadataDirective::Replace)
            .content_type(content_type.as_str())
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .customize()
            .config_override(long_timeouts(COPY_DEADLINE));
        let copied = async {
            match copy.send().await {
                Ok(_) => Ok(true),
                Err(error) if is_deleted_or_replaced(&error) => Ok(false),
                // The object was readable a moment ago, so the store rejects the way it is copied.
                Err(error) if classify_error(&error) == Failure::Object && !is_about_object(&error) => {
                    Err(StoreError::ObjectsUnsupported { operation: "CopyObject", reason: reason(&error) })
                }
                Err(error) => Err(error_of("CopyObject", &error)),
            }
        };
        self.await_while_reachable("CopyObject", copied).await
    }
}
