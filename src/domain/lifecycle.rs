//! Transitions of an image's state. Each is one conditional update, followed by settling the reservation.
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
    model::{End, Image, Rejection, Verified},
    store::{Store, StoreError},
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
        let ready = self.store.images.mark_owned_ready(image, verified).await?;
        if let Some(ready) = &ready {
            log_accepted(image, verified);
            if let Err(error) = self.reservations.settle_counting_bytes(ready.user, std::slice::from_ref(ready)).await {
                tracing::warn!(image = %ready.id, %error, "failed to settle the reservation of a confirmed image; the sweeper retries");
            }
        }
        Ok(ready)
    }

    /// Moves images from `pending` to `ready` in one round trip; the caller settles their reservations.
    pub(super) async fn accept_all(&self, verified: &[(Image, Verified)]) -> Result<(), StoreError> {
        let images: Vec<_> = verified.iter().map(|(image, verified)| (image, verified)).collect();
        self.store.images.mark_all_ready(&images).await?;
        verified.iter().for_each(|(image, verified)| log_accepted(image, verified));
        Ok(())
    }

    /// Moves an image from `pending` to `rejected`. The sweeper removes its object, and frees its bytes once no URL can write
    /// them again. Returns `false` if another request changed the image's state: then it may be ready, and its object must stay.
    pub(super) async fn reject(&self, image: &Image, why: Rejection, now: OffsetDateTime) -> Result<bool, StoreError> {
        let rejected = self.store.images.reject(image, why, now).await?;
        if rejected {
            tracing::info!(image = %image.id, user = %image.user, reason = why.as_str(), "rejected an upload");
            self.reservations.settle_counting_bytes(image.user, &[image.clone().ended(End::Rejected(why))]).await?;
        }
        Ok(rejected)
    }

    /// Moves an image from `pending` to `expired`. Its bytes are freed once every URL has expired; the tombstone stays longer.
    /// Returns `false` if another request changed the image's state.
    pub(super) async fn expire(&self, image: &Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        let expired = self.store.images.expire(image, now).await?;
        if expired {
            tracing::info!(image = %image.id, user = %image.user, "expired an upload");
            self.reservations.settle_reservations(image.user, &[image.clone().ended(End::Expired)], now).await?;
        }
        Ok(expired)
    }

    /// Moves an image from `pending` to `deleting`. Returns the tombstone, with keys that were recorded since `image` was read;
    /// `None` if another request changed the image's state.
    pub(super) async fn delete_pending(&self, image: &Image, now: OffsetDateTime) -> Result<Option<Image>, StoreError> {
        let tombstone = self.store.images.delete_owned_pending(image.user, image.id, now).await?;
        if let Some(tombstone) = &tombstone {
            self.reservations.settle_reservations(image.user, std::slice::from_ref(tombstone), now).await?;
        }
        Ok(tombstone)
    }
}

/// Logs a confirmed upload.
fn log_accepted(image: &Image, verified: &Verified) {
    tracing::info!(image = %image.id, user = %image.user, bytes = verified.bytes, "confirmed an upload");
}
