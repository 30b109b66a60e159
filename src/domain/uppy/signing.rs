//! Signs requests of Uppy's own S3 client, which opens, sends, lists, completes and aborts uploads by itself.
//!
//! Until they expire, these URLs can open and complete uploads repeatedly. So its objects are written under `in/`, and a copy is
//! confirmed.

use std::time::Duration;

use time::OffsetDateTime;

use super::{
    UppyMetadata, UppyUploads,
    part_limits::{PART_CHECK_INTERVAL, PART_URL_TTL},
    parts::part_number,
    require_open_or_ready,
};
use crate::{
    domain::{
        arrival_polling::FIRST_POLL_DELAY,
        multipart::{InvalidPart, PartsError},
        store_capabilities::UploadClass,
        unavailable_upload::UnavailableUpload,
        uploads::OpenError,
    },
    model::{Image, ImageId, ImageState, Lifetimes, ObjectKey, PartLayout, UploadKind, UserId},
    signer::{Presigned, SignedForm},
    store::{StoreError, objects::MultipartCall},
};

/// Maximum length of an upload id; stores use far shorter ones.
const MAX_UPLOAD_ID_BYTES: usize = 1024;

/// Returns whether a text can be an upload id: base64 in either alphabet, hexadecimal, or a few other characters.
fn is_upload_id(text: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    (1..=MAX_UPLOAD_ID_BYTES).contains(&text.len()) && text.bytes().all(is_legal) && !text.contains("..")
}

/// A request that Uppy wants to sign.
#[derive(Debug, Clone, Copy)]
pub enum UppyCall<'a> {
    /// Uploads a file in one request.
    Put(UppyMetadata<'a>),
    /// Opens a multipart upload.
    Create(UppyMetadata<'a>),
    /// Sends a request about the open multipart upload `upload_id` at `key`.
    Open {
        /// Object key from an earlier response.
        key: &'a str,
        /// S3's upload id.
        upload_id: &'a str,
        /// The request.
        call: PartsCall,
    },
}

/// A request about an open multipart upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartsCall {
    /// Uploads the part with this number.
    Part(i64),
    /// Lists its parts.
    List,
    /// Completes it.
    Complete,
    /// Aborts it.
    Abort,
}

/// A signed request, for Uppy to send.
#[derive(Debug)]
pub enum SignedCall {
    /// A form with a POST policy.
    Form(SignedForm),
    /// A presigned URL of the object at this key.
    Url(Presigned, ObjectKey),
}

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The upload was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The upload cannot be continued.
    #[error(transparent)]
    Parts(#[from] PartsError),
}

impl From<UnavailableUpload> for SignError {
    fn from(error: UnavailableUpload) -> Self {
        Self::Parts(error.into())
    }
}

impl From<StoreError> for SignError {
    fn from(error: StoreError) -> Self {
        Self::Parts(error.into())
    }
}

impl UppyUploads {
    /// Signs a request of Uppy's own S3 client. The signature is valid for `max_ttl` at most.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn sign(
        &self,
        user: UserId,
        call: UppyCall<'_>,
        max_ttl: Option<Duration>,
        now: OffsetDateTime,
    ) -> Result<SignedCall, SignError> {
        let ttl = max_ttl.map_or(self.settings.url_ttl, |max_ttl| max_ttl.min(self.settings.url_ttl));
        match call {
            UppyCall::Put(metadata) => Ok(SignedCall::Form(self.open_form(user, &metadata, now).await?)),
            UppyCall::Create(metadata) => self.sign_create(user, &metadata, ttl, now).await,
            UppyCall::Open { key, upload_id, call } => self.sign_call(user, key, upload_id, call, ttl, now).await,
        }
    }

    /// Signs the call that opens a multipart upload.
    async fn sign_create(
        &self,
        user: UserId,
        metadata: &UppyMetadata<'_>,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<SignedCall, SignError> {
        self.capabilities.require_support(UploadClass::WithoutDigest).map_err(OpenError::from)?;
        let upload = self.validate_parts(user, metadata).await?;
        let id = ImageId::new();
        let key = ObjectKey::incoming(user, id);
        let url = self.objects.presign_multipart_call(&key, MultipartCall::Create, now, ttl)?;
        let expires_at = now + self.opening.uppy_parts_ttl();
        let lifetimes = Lifetimes { created_at: now, expires_at, urls_expire_at: url.expires_at };
        self.reserve_and_insert(&Image::pending(user, id, key.clone(), upload, None, lifetimes), now + FIRST_POLL_DELAY, now)
            .await?;
        Ok(SignedCall::Url(url, key))
    }

    /// Signs another call about an open upload.
    async fn sign_call(
        &self,
        user: UserId,
        key: &str,
        upload_id: &str,
        call: PartsCall,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<SignedCall, SignError> {
        let id = key.rsplit('/').next().and_then(ImageId::parse).ok_or(UnavailableUpload::NotFound)?;
        let found = self.store.images.find_owned(user, id).await?;
        let has_key =
            |image: &Image| image.key.as_str() == key || image.leftover_keys.iter().any(|leftover| leftover.as_str() == key);
        let is_named = |image: &Image| image.upload.kind == UploadKind::UndeclaredParts && has_key(image);
        let image = require_open_or_ready(found.filter(is_named).ok_or(UnavailableUpload::NotFound)?, now)?;
        if image.state() == ImageState::Ready {
            return Err(PartsError::Complete.into());
        }
        if !is_upload_id(upload_id) {
            return Err(UnavailableUpload::NotFound.into());
        }
        if matches!(call, PartsCall::Part(_) | PartsCall::Complete) {
            self.capabilities.require_support(UploadClass::WithoutDigest).map_err(PartsError::from)?;
        }
        if image.upload_id.is_none() {
            self.record_upload_id(&image, upload_id).await?;
        }
        let url = match call {
            PartsCall::Part(number) => {
                let broken = || PartsError::InvalidParts(vec![InvalidPart::Number(0, PartLayout::MAX_PARTS)]);
                let number = part_number(number).ok_or_else(broken)?;
                self.part_limits.enforce_reservation(&image, 1, now).await?;
                self.objects.presign_any_part(&image.key, upload_id, number, now, ttl.min(PART_URL_TTL))
            }
            PartsCall::List => self.objects.presign_multipart_call(&image.key, MultipartCall::List(upload_id), now, ttl),
            PartsCall::Complete => self.objects.presign_multipart_call(&image.key, MultipartCall::Complete(upload_id), now, ttl),
            PartsCall::Abort => self.objects.presign_multipart_call(&image.key, MultipartCall::Abort(upload_id), now, ttl),
        }?;
        // The update does not postpone the next sweep of the upload: the sweeper polls for the upload in any case.
        if !self.store.images.raise_owned_part_urls(user, id, url.expires_at, now + PART_CHECK_INTERVAL).await? {
            // Another request changed the image's state meanwhile: the new state determines the answer.
            let current = self.store.images.find_owned(user, id).await?.filter(is_named).ok_or(UnavailableUpload::NotFound)?;
            return Err(match require_open_or_ready(current, now)?.state() {
                ImageState::Ready => PartsError::Complete.into(),
                _ => PartsError::from(StoreError::Contention { subject: "a multipart upload" }).into(),
            });
        }
        match call {
            // The client's request aborts the upload in S3. If it is never sent, the sweeper aborts the upload.
            PartsCall::Abort => drop(self.lifecycle.delete_pending(&image, now).await?),
            PartsCall::Complete => {
                self.store.images.schedule_sweep_by(&image, now + FIRST_POLL_DELAY).await?;
                self.arrival_poller.schedule();
            }
            PartsCall::Part(_) | PartsCall::List => {}
        }
        Ok(SignedCall::Url(url, image.key))
    }

    /// Records S3's upload id, so that the sweeper can abort the upload on a store that cannot list uploads. An id that S3 does
    /// not know is rejected.
    async fn record_upload_id(&self, image: &Image, upload_id: &str) -> Result<(), PartsError> {
        self.throttle.count_s3_calls(image.user, 1)?;
        match self.objects.list_parts(&image.key, upload_id).await {
            Ok(Some(_)) => Ok(self.store.images.set_upload_id(image, upload_id, None).await.map(drop)?),
            Ok(None) => Err(UnavailableUpload::NotFound.into()),
            Err(error) if error.is_final() => Err(UnavailableUpload::NotFound.into()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_ids_are_accepted_as_stores_issue_them() {
        for given in [
            "VXBsb2FkIElEIGZvciA2aWWpbmcncyBteS1tb3ZpZS5tMnRzIHVwbG9hZA",
            "2~9NkZGtT8mJkJvC0k_PbSgmZdVN8iQxU",
            "4b8e4a1c-62c6-4a7f-9a0e-b3a1f3c5d6e7.b1",
            "AKGr+x/Lo9==",
            "0123456789abcdef0123456789abcdef01234567_7d2a",
        ] {
            assert!(is_upload_id(given), "{given}");
        }
        let long = "a".repeat(MAX_UPLOAD_ID_BYTES + 1);
        for other in
            ["", "../../x?y#z%00", "..", "a/../b", "\0", "a\nb", "a b", "ü", "' \" <>", "a&b", "a?b", "a%2e", long.as_str()]
        {
            assert!(!is_upload_id(other), "{other}");
        }
    }
}
