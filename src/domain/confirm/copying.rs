//! On a store that may replace an object under a live URL, or keep bytes that nobody checked, what a client put is not
//! final. It is copied to a fresh key, and what is verified is the copy: no URL was ever signed for it.
//!
//! The copy's key is recorded before the copy is made, so that whatever dies between two steps leaves nothing that the
//! image's record does not name. One attempt at a time, by the claim that completing parts takes too; an attempt that
//! outlives its claim does no harm, since each has its own key and one move to ready.

use std::time::Duration;

use time::OffsetDateTime;

use super::examine::{Finding, has_unsigned};
use crate::{
    domain::Valet,
    model::{ContentType, Image, ImageState, ObjectKey, Rejection},
    store::{StoreError, objects::COPY_DEADLINE},
};

/// An upload that is replaced under our eyes is looked at again; more than this is a fault, or an attack.
const TRIES: usize = 5;
/// How long another request's attempt is awaited, and how often it is checked meanwhile.
const WAIT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(300);

impl Valet {
    /// Copies what was put, and looks at the copy.
    pub(in crate::domain) async fn examine_copy(&self, image: &Image, now: OffsetDateTime) -> Result<Finding, StoreError> {
        let (mut tries, mut waited) = (0, Duration::ZERO);
        while tries < TRIES {
            let head = match self.objects.head(&image.key).await {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(Finding::Missing),
                Err(error) => return unreadable(image, error),
            };
            // Not worth a copy. The digest is not looked at: it would be that of this moment.
            let is_typed = image.signed_types().any(|signed| head.content_type.as_deref() == Some(signed.as_str()));
            // Who signs for Uppy's own S3 client does not see the type it sends; the copy gets the declared one.
            let is_right = image.upload.accepted_sizes().contains(&head.size) && (is_typed || image.upload.unverified.is_some());
            // The copy would not have the headers: an upload is refused for the same reasons on every store.
            if !is_right || has_unsigned(&image.key, &head) {
                if self.objects.verify_head(&image.key, &head).await? {
                    return Ok(Finding::Wrong(Rejection::ObjectMismatch));
                }
                tries += 1;
                continue;
            }
            let copy = ObjectKey::copy_attempt(image.user, image.id);
            if !self.claim_attempt(image, &copy, now).await? {
                let current = self.store.images.find_owned(image.user, image.id).await?;
                if current.is_none_or(|image| image.state != ImageState::Pending) {
                    return Ok(Finding::Missing);
                }
                if waited >= WAIT {
                    return Err(StoreError::Contention { what: "an upload that another request copies" });
                }
                tokio::time::sleep(LOOK_AGAIN).await;
                waited += LOOK_AGAIN;
                continue;
            }
            tries += 1;
            match self.attempt(image, &head.etag, &copy).await {
                Ok(proved @ Finding::Proved(_)) => return Ok(proved),
                Ok(Finding::Missing) => self.give_up(image, &copy).await,
                Ok(finding) => return Ok(finding),
                Err(error @ StoreError::ObjectsTimeout { .. }) => {
                    // A store that says nothing is not asked to clean up as well. The claim goes: each attempt has its own key.
                    self.store.images.drop_completion(image).await?;
                    return Err(error);
                }
                Err(error) => {
                    self.give_up(image, &copy).await;
                    return unreadable(image, error);
                }
            }
        }
        Err(StoreError::Contention { what: "an upload that is replaced while it is copied" })
    }

    async fn claim_attempt(&self, image: &Image, copy: &ObjectKey, now: OffsetDateTime) -> Result<bool, StoreError> {
        let mut written = vec![copy.clone()];
        written.extend(image.upload.preview.map(|_| copy.preview()));
        // A copy may appear after we stopped waiting for it: what clears leftover_keys must come later.
        let dies_at = now + COPY_DEADLINE;
        self.store.images.claim_completion(image, COPY_DEADLINE, dies_at, dies_at + self.grace(0), &written).await
    }

    /// Missing when what was to be copied is not what was seen.
    async fn attempt(&self, image: &Image, etag: &str, copy: &ObjectKey) -> Result<Finding, StoreError> {
        if !self.objects.copy(&image.key, etag, copy, image.upload.content_type).await? {
            return Ok(Finding::Missing);
        }
        if let Some(preview) = image.upload.preview {
            match self.copy_preview(image, copy, preview.content_type).await {
                // The image goes without it.
                Err(error) if error.is_final() => tracing::info!(image = %image.id, %error, "a preview cannot be copied"),
                done => done?,
            }
        }
        self.examine_at(image, copy.clone()).await
    }

    async fn copy_preview(&self, image: &Image, copy: &ObjectKey, content_type: ContentType) -> Result<(), StoreError> {
        let from = image.key.preview();
        if let Some(head) = self.objects.head(&from).await?.filter(|head| !has_unsigned(&from, head)) {
            self.objects.copy(&from, &head.etag, &copy.preview(), content_type).await?;
        }
        Ok(())
    }

    /// A failed attempt must not be paid for: its copy goes at once. What fails here the sweeper does; the next attempt does
    /// not wait for that.
    async fn give_up(&self, image: &Image, copy: &ObjectKey) {
        let mut copies = vec![copy.clone()];
        copies.extend(image.upload.preview.map(|_| copy.preview()));
        let (purged, dropped) = (self.objects.purge_all(&copies).await, self.store.images.drop_completion(image).await);
        if let Err(error) = purged.and(dropped) {
            tracing::warn!(image = %image.id, %error, "the copy of a failed attempt is left to the sweeper");
        }
    }
}

/// What the store never lets anybody read is not what was declared; other failures decide nothing.
fn unreadable(image: &Image, error: StoreError) -> Result<Finding, StoreError> {
    match error {
        StoreError::ObjectRefused { .. } => {
            tracing::info!(image = %image.id, %error, "an object that cannot be read is refused");
            Ok(Finding::Wrong(Rejection::ObjectMismatch))
        }
        error => Err(error),
    }
}
