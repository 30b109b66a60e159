//! Copies an upload to a fresh key, for which no URL was ever signed, and inspects the copy. Used on stores that allow an object to
//! be replaced while its URL is alive, or that do not verify checksums.
//!
//! The copy's key is recorded before the copy is made, so a crash between two steps leaves no object that the image's record does
//! not name. A claim, shared with completing parts, allows one attempt at a time. An attempt that outlives its claim does no harm,
//! since each attempt has its own key and only one can mark the image ready. So the claim of an attempt that is cancelled, by a
//! time limit or because its client disconnected, is released at once.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::{Inspection, object::has_unsigned_headers};
use crate::{
    domain::inspection::ObjectInspector,
    model::{ContentType, Image, ImageState, ObjectKey, Rejection},
    store::{ObjectCreationClaim, Objects, Store, StoreError, objects::COPY_DEADLINE, without_failpoints},
};

/// Attempts at an upload that is replaced while it is copied; more replacements are a fault, or an attack.
const MAX_ATTEMPTS: usize = 5;
/// Maximum wait for another request's attempt.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// Pause between two checks of another request's attempt.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// The claim of an attempt. Released when it is dropped before the attempt has ended.
struct HeldClaim<'a> {
    store: &'a Arc<Store>,
    /// `None` once the attempt has ended.
    claim: Option<ObjectCreationClaim>,
}

impl HeldClaim<'_> {
    /// Keeps the claim until its lease ends or the image leaves the state pending.
    fn keep(mut self) {
        self.claim = None;
    }

    /// Releases the claim: the next attempt need not wait.
    async fn release(mut self) -> Result<(), StoreError> {
        match self.claim.take() {
            Some(claim) => self.store.images.release_object_creation(claim).await,
            None => Ok(()),
        }
    }
}

impl Drop for HeldClaim<'_> {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        // Without a runtime the process is ending, and the claim ends with its lease.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let store = self.store.clone();
        runtime.spawn(without_failpoints(async move {
            if let Err(error) = store.images.release_object_creation(claim).await {
                tracing::warn!(%error, "failed to release the claim of a cancelled copy; it ends with its lease");
            }
        }));
    }
}

/// Inspects copies of uploads.
#[derive(Debug)]
pub(in crate::domain) struct CopyInspector {
    pub(in crate::domain) store: Arc<Store>,
    pub(in crate::domain) objects: Arc<Objects>,
    pub(in crate::domain) object_inspector: Arc<ObjectInspector>,
}

impl CopyInspector {
    /// Copies the uploaded object, and inspects the copy.
    pub(super) async fn inspect_copy(&self, image: &Image, now: OffsetDateTime) -> Result<Inspection, StoreError> {
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        while attempts < MAX_ATTEMPTS {
            let head = match self.objects.head(&image.key).await {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(Inspection::Missing),
                Err(error) => return mismatch_if_rejected(image, error),
            };
            // Avoids a useless copy. The digest is not compared: the object may be replaced before it is copied.
            let is_typed = image.signed_types().any(|signed| head.content_type.as_deref() == Some(signed.as_str()));
            // Uppy's own S3 client sends a type that no signature covers; the copy gets the declared one.
            let is_expected = image.upload.accepted_sizes().contains(&head.size) && (is_typed || image.upload.is_size_bound());
            // The copy would not have the headers, but an upload is to be rejected for the same reasons on every store.
            if !is_expected || has_unsigned_headers(&image.key, &head) {
                // Rejects the upload only if a second response agrees.
                let is_current = self.objects.verify_head(&image.key, &head).await?;
                if is_current {
                    return Ok(Inspection::Mismatch(Rejection::ObjectMismatch));
                }
                attempts += 1;
                continue;
            }
            let copy = ObjectKey::copy_attempt(image.user, image.id);
            let Some(claim) = self.claim_attempt(image, &copy, now).await? else {
                let current = self.store.images.find_owned(image.user, image.id).await?;
                if current.is_none_or(|image| image.state() != ImageState::Pending) {
                    // Another request has changed its state; the caller reads it again.
                    return Ok(Inspection::Missing);
                }
                if waited >= MAX_WAIT {
                    return Err(StoreError::Contention { subject: "an upload that another request copies" });
                }
                tokio::time::sleep(POLL_INTERVAL).await;
                waited += POLL_INTERVAL;
                continue;
            };
            attempts += 1;
            match self.attempt_copy(image, &head.etag, &copy).await {
                Ok(Inspection::Missing) => self.discard_attempt(image, &copy, claim).await,
                Ok(inspection) => {
                    claim.keep();
                    return Ok(inspection);
                }
                Err(error @ StoreError::ObjectsTimeout { .. }) => {
                    // A store that does not answer would not delete the copy either. The claim is released, because each attempt
                    // has its own key.
                    claim.release().await?;
                    return Err(error);
                }
                Err(error) => {
                    self.discard_attempt(image, &copy, claim).await;
                    return mismatch_if_rejected(image, error);
                }
            }
        }
        Err(StoreError::Contention { subject: "an upload that is replaced while it is copied" })
    }

    /// Claims the upload, and records the keys of the copy. Returns `None` if another request holds the claim, or the image is no
    /// longer pending.
    async fn claim_attempt(
        &self,
        image: &Image,
        copy: &ObjectKey,
        now: OffsetDateTime,
    ) -> Result<Option<HeldClaim<'_>>, StoreError> {
        let mut copies = vec![copy.clone()];
        copies.extend(image.upload.preview().map(|_| copy.preview()));
        // The store may finish a copy after this server stopped waiting, so the sweeper deletes the object again later.
        let claim = self.store.images.claim_object_creation(image, COPY_DEADLINE, now + COPY_DEADLINE, &copies).await?;
        Ok(claim.map(|claim| HeldClaim { store: &self.store, claim: Some(claim) }))
    }

    /// Copies the object with this `etag`, and inspects the copy. Returns [`Inspection::Missing`] if the object was replaced or
    /// removed meanwhile.
    async fn attempt_copy(&self, image: &Image, etag: &str, copy: &ObjectKey) -> Result<Inspection, StoreError> {
        if !self.objects.copy(&image.key, etag, copy, image.upload.content_type).await? {
            return Ok(Inspection::Missing);
        }
        if let Some(preview) = image.upload.preview() {
            match self.copy_preview(image, copy, preview.content_type).await {
                // The image has no preview then.
                Err(error) if error.is_final() => tracing::info!(image = %image.id, %error, "failed to copy a preview"),
                done => done?,
            }
        }
        self.object_inspector.inspect_object(image, copy.clone()).await
    }

    /// Copies the preview, if it has arrived without unsigned headers.
    async fn copy_preview(&self, image: &Image, copy: &ObjectKey, content_type: ContentType) -> Result<(), StoreError> {
        let from = image.key.preview();
        if let Some(head) = self.objects.head(&from).await?.filter(|head| !has_unsigned_headers(&from, head)) {
            self.objects.copy(&from, &head.etag, &copy.preview(), content_type).await?;
        }
        Ok(())
    }

    /// Deletes the copy of a failed attempt at once, because stored bytes cost money, and releases the claim. A copy that cannot be
    /// deleted is left to the sweeper; the next attempt does not wait for that.
    async fn discard_attempt(&self, image: &Image, copy: &ObjectKey, claim: HeldClaim<'_>) {
        let mut copies = vec![copy.clone()];
        copies.extend(image.upload.preview().map(|_| copy.preview()));
        let (purged, released) = (self.objects.purge_all(&copies).await, claim.release().await);
        if let Err(error) = purged.and(released) {
            tracing::warn!(image = %image.id, %error, "failed to delete the copy of a failed attempt; the sweeper retries");
        }
    }
}

/// Returns a mismatch for an object that the store refuses to read, and any other error as it is.
fn mismatch_if_rejected(image: &Image, error: StoreError) -> Result<Inspection, StoreError> {
    match error {
        StoreError::ObjectRejected { .. } => {
            tracing::info!(image = %image.id, %error, "refused an object that cannot be read");
            Ok(Inspection::Mismatch(Rejection::ObjectMismatch))
        }
        error => Err(error),
    }
}
