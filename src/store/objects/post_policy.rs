//! Presigned forms and multipart calls for upload libraries in browsers, which send these requests to S3 themselves.

use std::time::Duration;

use time::OffsetDateTime;

use super::Objects;
use crate::{
    metrics::{METRICS, Metrics},
    model::{ContentType, ObjectKey},
    signer::{PostPolicy, PresignRequest, Presigned, SignedForm},
    store::StoreError,
};

/// A request of a multipart upload that a client sends to S3 itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultipartCall<'a> {
    /// Opens an upload.
    Create,
    /// Lists the parts of the upload with this id.
    List(&'a str),
    /// Completes the upload with this id.
    Complete(&'a str),
    /// Aborts the upload with this id.
    Abort(&'a str),
}

impl Objects {
    /// Signs a form for one file of this type and at most `max_bytes` bytes. While it is valid, it can be sent again, and then
    /// replaces the object.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn sign_form(
        &self,
        key: &ObjectKey,
        content_type: ContentType,
        max_bytes: u64,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<SignedForm, StoreError> {
        let fields = [("key", key.as_str()), ("content-type", content_type.as_str()), ("success_action_status", "201")];
        let form = PostPolicy { fields: &fields, prefixes: &[], length: 1..=max_bytes };
        Metrics::count(&METRICS.presigned_urls, "POST", 1);
        let ahead = self.clock.ahead();
        let signed = self.signer().sign_form(&form, now + ahead, ttl);
        let signed = signed.map_err(|error| StoreError::Credentials { reason: error.to_string() })?;
        Ok(SignedForm { expires_at: signed.expires_at - ahead, ..signed })
    }

    /// Presigns a URL for this request of a multipart upload.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn presign_multipart_call(
        &self,
        key: &ObjectKey,
        call: MultipartCall<'_>,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<Presigned, StoreError> {
        let (method, query) = match call {
            MultipartCall::Create => ("POST", ("uploads", "")),
            MultipartCall::List(upload_id) => ("GET", ("uploadId", upload_id)),
            MultipartCall::Complete(upload_id) => ("POST", ("uploadId", upload_id)),
            MultipartCall::Abort(upload_id) => ("DELETE", ("uploadId", upload_id)),
        };
        self.presign(&PresignRequest { method, key: key.as_str(), headers: &[], query: &[query] }, now, ttl)
    }

    /// Returns the bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }
}
