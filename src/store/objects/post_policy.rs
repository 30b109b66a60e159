//! Presigned forms and multipart calls for upload libraries in browsers, which make these requests themselves.

use std::time::Duration;

use time::OffsetDateTime;

use super::Objects;
use crate::{
    metrics::{METRICS, Metrics},
    model::{ContentType, ObjectKey},
    signer::{PostPolicy, PresignRequest, Presigned, SignedForm},
    store::StoreError,
};

/// A request of a multipart upload that a client makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultipartCall<'a> {
    /// Opens an upload.
    Create,
    /// Lists the parts of this one.
    List(&'a str),
    /// Makes the parts of this one an object.
    Complete(&'a str),
    /// Aborts this one.
    Abort(&'a str),
}

impl Objects {
    /// Signs a form for one file of this type and at most `max_bytes` bytes. While it is valid, it can be sent again, and then
    /// replaces the object.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when there is nothing valid to sign with.
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

    /// Presigns a URL for this request.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when there is nothing valid to sign with.
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
