//! Multipart uploads: S3's operations and presigned URLs of parts. The rules of parts are in `domain`.

use std::time::Duration;

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use time::OffsetDateTime;

use super::{
    Objects, PresignedPut,
    errors::{error_of, is_absent, status},
    long_timeouts,
};
use crate::{
    model::{ContentType, ObjectKey, PartChecksums, Sha256},
    signer::{PresignRequest, Presigned},
    store::StoreError,
};

/// Deadline of completing: S3 responds when the object is complete.
pub const COMPLETE_DEADLINE: Duration = Duration::from_secs(40);
/// Deadline of a listing, over all of its pages.
const LIST_PARTS_DEADLINE: Duration = Duration::from_secs(20);

/// A part that S3 has received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Number of the part, from 1.
    pub number: u32,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag, with its quotes.
    pub etag: String,
    /// Checksum in base64, if the part has one.
    sha256: Option<String>,
}

/// A part to presign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPart {
    /// Number of the part, from 1.
    pub number: u32,
    /// The exact length in bytes.
    pub length: u64,
    /// The SHA-256 that S3 verifies, if parts have one.
    pub sha256: Option<Sha256>,
}

/// Outcome of completing a multipart upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// S3 created the object.
    Done,
    /// The upload no longer exists, or an object exists already: the caller inspects the object at the key.
    Superseded,
    /// S3 does not have one of the parts as it was listed, because a client sent that part again meanwhile.
    PartChanged,
}

impl Objects {
    /// Opens a multipart upload and returns S3's upload id.
    ///
    /// # Errors
    /// [`StoreError`]; an upload with an unknown id may then be open: [`Objects::abort_multiparts`] finds it.
    pub async fn create_multipart(
        &self,
        key: &ObjectKey,
        content_type: ContentType,
        checksums: PartChecksums,
    ) -> Result<String, StoreError> {
        let algorithm = match checksums {
            PartChecksums::None => None,
            PartChecksums::Sha256 => Some(ChecksumAlgorithm::Sha256),
        };
        let create = self.client.create_multipart_upload().bucket(&self.bucket).key(key.as_str());
        let create = create.content_type(content_type.as_str()).set_checksum_algorithm(algorithm);
        let made = create.send().await.map_err(|error| error_of("CreateMultipartUpload", &error))?;
        made.upload_id.filter(|id| !id.is_empty()).ok_or_else(|| StoreError::Objects {
            operation: "CreateMultipartUpload",
            reason: "the response has no upload id".to_owned(),
        })
    }

    /// Presigns a PUT of one part. Number, upload, length and, if given, digest are signed.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn presign_part(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        part: NewPart,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<PresignedPut, StoreError> {
        let (number, length) = (part.number.to_string(), part.length.to_string());
        let digest = part.sha256.map(|digest| digest.to_string());
        let mut headers = vec![("content-length", length.as_str())];
        headers.extend(digest.as_deref().map(|digest| ("x-amz-checksum-sha256", digest)));
        let query = [("partNumber", number.as_str()), ("uploadId", upload_id)];
        let signed =
            self.presign(&PresignRequest { method: "PUT", key: key.as_str(), headers: &headers, query: &query }, now, ttl)?;
        // HTTP clients add content-length, the first, by themselves.
        Ok(PresignedPut { signed, headers: headers[1..].iter().map(|(name, value)| (*name, (*value).to_owned())).collect() })
    }

    /// Presigns a PUT of one part of any length, for clients that do not declare it.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn presign_any_part(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        number: u32,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<Presigned, StoreError> {
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", upload_id)];
        self.presign(&PresignRequest { method: "PUT", key: key.as_str(), headers: &[], query: &query }, now, ttl)
    }

    /// Returns all parts that S3 has, in order. `None` if the upload does not exist: it was completed or aborted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_parts(&self, key: &ObjectKey, upload_id: &str) -> Result<Option<Vec<StoredPart>>, StoreError> {
        let listing = self.list_all_parts(key, upload_id);
        tokio::time::timeout(LIST_PARTS_DEADLINE, listing)
            .await
            .unwrap_or(Err(StoreError::ObjectsTimeout { operation: "ListParts" }))
    }

    /// Lists the parts page by page.
    async fn list_all_parts(&self, key: &ObjectKey, upload_id: &str) -> Result<Option<Vec<StoredPart>>, StoreError> {
        let mut parts = Vec::new();
        let mut marker = None;
        loop {
            let list = self.client.list_parts().bucket(&self.bucket).key(key.as_str()).upload_id(upload_id);
            let page = match list.set_part_number_marker(marker.clone()).send().await {
                Ok(page) => page,
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(error_of("ListParts", &error)),
            };
            parts.extend(page.parts().iter().filter_map(|part| {
                Some(StoredPart {
                    number: u32::try_from(part.part_number()?).ok()?,
                    size: u64::try_from(part.size()?).ok()?,
                    etag: part.e_tag()?.to_owned(),
                    sha256: part.checksum_sha256().map(str::to_owned),
                })
            }));
            let next = page.next_part_number_marker().filter(|_| page.is_truncated() == Some(true)).map(str::to_owned);
            if next.is_none() || next == marker {
                break;
            }
            marker = next;
        }
        // Some stores do not sort the parts.
        parts.sort_unstable_by_key(|part| part.number);
        Ok(Some(parts))
    }

    /// Makes the parts one object, unless an object exists already.
    ///
    /// # Errors
    /// [`StoreError::ObjectRejected`] when these parts cannot form an object, such as a part below 5 MiB that is not the last
    /// (`EntityTooSmall`, "Amazon S3 multipart upload limits"); else [`StoreError`], and the object may still be created.
    pub async fn complete_multipart(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        parts: Vec<StoredPart>,
    ) -> Result<Completion, StoreError> {
        let completed = parts.into_iter().map(|part| {
            let number = i32::try_from(part.number).ok();
            let made = CompletedPart::builder().set_part_number(number).e_tag(part.etag);
            made.set_checksum_sha256(part.sha256).build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(completed.collect())).build();
        let complete = self.client.complete_multipart_upload().bucket(&self.bucket).key(key.as_str()).upload_id(upload_id);
        let complete =
            complete.if_none_match("*").multipart_upload(parts).customize().config_override(long_timeouts(COMPLETE_DEADLINE));
        let completed = async {
            match complete.send().await {
                Ok(_) => Ok(Completion::Done),
                Err(error) if is_absent(&error) => Ok(Completion::Superseded),
                Err(error) if matches!(status(&error), Some(409 | 412)) => Ok(Completion::Superseded),
                Err(error) if error.code() == Some("InvalidPart") => Ok(Completion::PartChanged),
                Err(error) => Err(error_of("CompleteMultipartUpload", &error)),
            }
        };
        self.await_while_reachable("CompleteMultipartUpload", completed).await
    }
}
