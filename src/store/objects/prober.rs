//! Calls of `valet check` through the server's own S3 client; their responses are its findings.
//!
//! A status that is a failure elsewhere is a finding here, so most of these functions return it.

use std::time::Duration;

use aws_sdk_s3::{
    error::SdkError,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use time::OffsetDateTime;

use super::{
    Objects, StoreError,
    errors::{error_of, is_absent, lists_objects, status},
    settings::{Absence, Setting, setting},
};
use crate::{
    model::{ObjectKey, PartChecksums},
    signer::{PresignRequest, Presigned},
};

/// Runs probes against the bucket.
#[derive(Debug, Clone, Copy)]
pub struct Prober<'a>(&'a Objects);

/// A part as S3 lists it.
#[derive(Debug, Clone)]
pub struct ListedPart {
    /// Size in bytes.
    pub size: u64,
    /// Entity tag, with its quotes.
    pub etag: String,
    /// Whether the part has a SHA-256.
    pub has_sha256: bool,
}

impl Objects {
    /// Returns the probes for `valet check`.
    #[must_use]
    pub fn prober(&self) -> Prober<'_> {
        Prober(self)
    }
}

impl Prober<'_> {
    /// Presigns any request, for the endpoint that clients use.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn presign(&self, request: &PresignRequest<'_>, at: OffsetDateTime, ttl: Duration) -> Result<Presigned, StoreError> {
        self.0.presign(request, at, ttl)
    }

    /// Returns the number of versions of the key. `None` if the store has no versions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn versions(&self, key: &ObjectKey) -> Result<Option<usize>, StoreError> {
        match self.0.client.list_object_versions().bucket(&self.0.bucket).prefix(key.as_str()).send().await {
            Ok(listed) => Ok(Some(listed.versions().len())),
            Err(error) if matches!(status(&error), Some(501 | 405)) || lists_objects(&error) => Ok(None),
            Err(error) => Err(error_of("ListObjectVersions", &error)),
        }
    }

    /// Returns the retention that Object Lock gives every new version, such as `COMPLIANCE for 1 days`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn default_retention(&self) -> Result<Setting<String>, StoreError> {
        let read = self.0.client.get_object_lock_configuration().bucket(&self.0.bucket).send().await;
        let absence = Absence::Code("ObjectLockConfigurationNotFoundError");
        let read = match setting("GetObjectLockConfiguration", absence, read)? {
            Setting::Set(read) => read,
            Setting::Denied => return Ok(Setting::Denied),
            Setting::Unset | Setting::Unsupported => return Ok(Setting::Unset),
        };
        let lock = read.object_lock_configuration();
        let Some(retention) = lock.and_then(|lock| lock.rule()?.default_retention()) else { return Ok(Setting::Unset) };
        let mode = retention.mode().map_or("some mode", |mode| mode.as_str());
        let (days, years) = (retention.days().unwrap_or(0), retention.years().unwrap_or(0));
        Ok(Setting::Set(if years > 0 { format!("{mode} for {years} years") } else { format!("{mode} for {days} days") }))
    }

    /// Returns the value of `x-amz-copy-source` for an object of this bucket.
    #[must_use]
    pub fn copy_source(&self, key: &ObjectKey) -> String {
        format!("{}/{key}", self.0.bucket)
    }

    /// Copies the object with this entity tag, and returns the status of the response.
    ///
    /// # Errors
    /// [`StoreError`] without a response.
    pub async fn copy(&self, from: &ObjectKey, etag: &str, to: &ObjectKey) -> Result<u16, StoreError> {
        let copy = self.0.client.copy_object().bucket(&self.0.bucket).key(to.as_str()).copy_source(self.copy_source(from));
        status_of_response("CopyObject", copy.copy_source_if_match(etag).send().await)
    }

    /// Begins a multipart upload with these checksums of its parts, and returns its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(&self, key: &ObjectKey, checksums: PartChecksums) -> Result<String, StoreError> {
        let create = self.0.client.create_multipart_upload().bucket(&self.0.bucket).key(key.as_str());
        let create = create.set_checksum_algorithm((checksums == PartChecksums::Sha256).then_some(ChecksumAlgorithm::Sha256));
        let begun = create.send().await.map_err(|error| error_of("CreateMultipartUpload", &error))?;
        begun.upload_id().map(str::to_owned).ok_or_else(|| StoreError::Objects {
            operation: "CreateMultipartUpload",
            reason: "the response has no upload id".to_owned(),
        })
    }

    /// Returns the parts that S3 has. `None` if the upload does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn parts(&self, key: &ObjectKey, upload: &str) -> Result<Option<Vec<ListedPart>>, StoreError> {
        match self.0.client.list_parts().bucket(&self.0.bucket).key(key.as_str()).upload_id(upload).send().await {
            Ok(listed) => {
                let size = |part: &aws_sdk_s3::types::Part| part.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                let part = |part: &aws_sdk_s3::types::Part| ListedPart {
                    size: size(part),
                    etag: part.e_tag().map(str::to_owned).unwrap_or_default(),
                    has_sha256: part.checksum_sha256().is_some(),
                };
                Ok(Some(listed.parts().iter().map(part).collect()))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error_of("ListParts", &error)),
        }
    }

    /// Completes an upload of one part, unless the key is taken, and returns the status of the response.
    ///
    /// # Errors
    /// [`StoreError`] without a response.
    pub async fn complete_once(&self, key: &ObjectKey, upload: &str, part_etag: &str) -> Result<u16, StoreError> {
        let part = CompletedPart::builder().part_number(1).e_tag(part_etag).build();
        let parts = CompletedMultipartUpload::builder().parts(part).build();
        let complete = self.0.client.complete_multipart_upload().bucket(&self.0.bucket).key(key.as_str()).upload_id(upload);
        status_of_response("CompleteMultipartUpload", complete.multipart_upload(parts).if_none_match("*").send().await)
    }

    /// Aborts an upload. Succeeds if it does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn abort(&self, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
        let abort = self.0.client.abort_multipart_upload().bucket(&self.0.bucket).key(key.as_str()).upload_id(upload);
        match abort.send().await {
            Err(error) if !is_absent(&error) => Err(error_of("AbortMultipartUpload", &error)),
            _ => Ok(()),
        }
    }
}

/// Returns the status of the response, also a status of failure; only a missing response is an error.
fn status_of_response<T, E>(operation: &'static str, answer: Result<T, SdkError<E>>) -> Result<u16, StoreError>
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(_) => Ok(200),
        Err(error) => status(&error).ok_or_else(|| error_of(operation, &error)),
    }
}
