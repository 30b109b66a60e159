//! Transitions of an image's state. Each is one conditional update, which settles the reservation too where that is possible.
//!
//! ```text
//! pending ──accept──▶ ready ──delete_ready──▶ deleting ──┐
//!    ├──────────────delete_pending──────────▶ deleting ──┤  sweeper, once every URL has expired
//!    ├──────────────reject──────────────────▶ rejected ──┼────────────────────────────────────▶ purged
//!    └──────────────expire──────────────────▶ expired ───┘
//! ```
//!
//! [`ImageState::may_become`](crate::model::ImageState::may_become) lists the legal transitions. `deleting`, `rejected` and
//! `expired` are tombstones: the record stays until the sweeper has removed the objects and no URL can write them again.
//! `delete_ready`, which also settles the reservation, is in `reservations`; the sweeper marks images as purged, stored as `gone`.

use std::sync::Arc;

use time::OffsetDateTime;

use super::reservations::Reservations;
use crate::{
    model::{Image, ImageEnd, ImageId, Rejection, UserId, Verified},
    store::{Acceptance, Store, StoreError},
};

/// Transitions of an image's state.
#[derive(Debug)]
pub(super) struct Lifecycle {
    pub(super) store: Arc<Store>,
    pub(super) reservations: Arc<Reservations>,
}

impl Lifecycle {
    /// Moves an image from `pending` to `ready`, and settles its reservation; its bytes stay counted. Returns `None` if another
    /// request changed its state.
    pub(super) async fn accept(&self, image: &Image, verified: &Verified) -> Result<Option<Image>, StoreError> {
        if let Some(settlement) = image.acceptance_step(verified)
            && let Some(ready) = Box::pin(self.store.accept(image, verified, &settlement)).await?
        {
            log_accepted(image, verified);
            return Ok(Some(ready));
        }
        // The image has no such step, or the step was not taken: another one is in progress, or another server has finished this
        // one because this server was slow. The image may still become ready; its reservation is settled after that.
        let ready = self.store.images.mark_ready(image, verified).await?;
        if let Some(ready) = &ready {
            log_accepted(image, verified);
            if let Err(error) = self.reservations.settle_counting_bytes(ready.user, std::slice::from_ref(ready)).await {
                tracing::warn!(image = %ready.id, %error, "failed to settle the reservation of a confirmed image; the sweeper retries");
            }
        }
        Ok(ready)
    }

    /// Moves a user's images from `pending` to `ready`. Returns those whose reservations are settled; the caller settles the
    /// others.
    pub(super) async fn accept_all(&self, user: UserId, verified: &[(Image, Verified)]) -> Result<Vec<ImageId>, StoreError> {
        let acceptances = verified
            .iter()
            .filter_map(|(image, verified)| Some(Acceptance { image, verified, step: image.acceptance_step(verified)? }));
        let acceptances: Vec<_> = acceptances.collect();
        let accepted = Box::pin(self.store.accept_all(user, &acceptances)).await?;
        let others = verified.iter().filter(|(image, _)| !accepted.contains(&image.id));
        let others: Vec<_> = others.map(|(image, verified)| (image, verified)).collect();
        self.store.images.mark_all_ready(&others).await?;
        verified.iter().for_each(|(image, verified)| log_accepted(image, verified));
        Ok(accepted)
    }

    /// Moves an image from `pending` to `rejected`. The sweeper removes its object, and frees its bytes once no URL can write
    /// them again. Returns the tombstone; `None` if another request changed the image's state: then it may be ready, and its
    /// object must stay.
    pub(super) async fn reject(&self, image: &Image, why: Rejection, now: OffsetDateTime) -> Result<Option<Image>, StoreError> {
        let rejected = self.end_pending(image, ImageEnd::Rejected(why), now).await?;
        if rejected.is_some() {
            tracing::info!(image = %image.id, user = %image.user, reason = why.as_str(), "rejected an upload");
        }
        Ok(rejected)
    }

    /// Moves an image from `pending` to `expired`. Its bytes are freed once every URL has expired; the tombstone stays longer.
    /// Returns the tombstone; `None` if another request changed the image's state.
    pub(super) async fn expire(&self, image: &Image, now: OffsetDateTime) -> Result<Option<Image>, StoreError> {
        let expired = self.end_pending(image, ImageEnd::Expired, now).await?;
        if expired.is_some() {
            tracing::info!(image = %image.id, user = %image.user, "expired an upload");
        }
        Ok(expired)
    }

    /// Moves an image from `pending` to `deleting`. Returns the tombstone, with keys that were recorded since `image` was read;
    /// `None` if another request changed the image's state.
    pub(super) async fn delete_pending(&self, image: &Image, now: OffsetDateTime) -> Result<Option<Image>, StoreError> {
        self.end_pending(image, ImageEnd::Deleted { was_ready: false }, now).await
    }

    /// Ends a pending upload, and settles its reservation. Returns the tombstone; `None` if another request changed the image's
    /// state.
    async fn end_pending(&self, image: &Image, end: ImageEnd, now: OffsetDateTime) -> Result<Option<Image>, StoreError> {
        if let Some(step) = self.reservations.ending_step(image, end, now)
            && let Some(tombstone) = Box::pin(self.store.end_pending(image, end, &step, now)).await?
        {
            return Ok(Some(tombstone));
        }
        // As in `accept()`, the upload may still end; its reservation is settled after that.
        let tombstone = self.store.images.end_pending(image, end, now).await?;
        if let Some(tombstone) = &tombstone {
            self.reservations.settle_ended(tombstone, end, now).await?;
        }
        Ok(tombstone)
    }
}

/// Logs a confirmed upload.
fn log_accepted(image: &Image, verified: &Verified) {
    tracing::info!(image = %image.id, user = %image.user, bytes = verified.bytes, "confirmed an upload");
}
