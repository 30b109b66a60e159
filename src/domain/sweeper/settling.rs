//! Sweeps one image, by its state.

use std::time::Duration;

use super::tally::{Swept, Tally};
use crate::{
    domain::{
        Valet,
        arrival_polling::{needs_polling, poll_delay},
        inspection::Inspection,
        removal::{ObjectsToRemove, Removal},
    },
    model::{Image, ImageState, Rejection, UnverifiedUpload},
    store::{Lease, StoreError},
};

/// Between two looks at parts of undeclared length, while a URL lives that can bring more.
pub(in crate::domain) const PARTS_SEEN_EVERY: Duration = Duration::from_secs(60);
/// Until the next round of a removal that is larger than one.
const GO_ON: Duration = Duration::from_secs(5);
/// How long after an upload's end an object is waited for that cannot be read for a reason that an operator could mend.
const UNREADABLE_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Valet {
    /// Settles an image that is claimed.
    pub(super) async fn settle_image(&self, image: &Image, lease: Lease, tally: &Tally) -> Result<(), StoreError> {
        let swept = match image.state {
            ImageState::Pending => self.sweep_pending(image, lease).await,
            ImageState::Ready => self.sweep_strays(image, lease).await,
            _ => self.sweep_tombstone(image, lease).await,
        };
        tally.add(swept?);
        Ok(())
    }

    /// Every URL has died: what is there now is all that will ever be. Or no client will report when it comes, and it is
    /// looked for.
    async fn sweep_pending(&self, image: &Image, lease: Lease) -> Result<Swept, StoreError> {
        // Of what S3 has not opened no URL was given out.
        let ends = if image.is_unopened() { image.expires_at } else { image.expires_at.max(self.quiet_from(image)) };
        let mut swept = Swept::default();
        match self.inspect_upload(image, lease.now).await {
            Ok(Inspection::Verified(verified)) => {
                swept.confirmed += u32::from(self.accept(image, &verified).await?.is_some());
            }
            Ok(Inspection::Mismatch(why)) => {
                self.reject(image, why, lease.now).await?;
                swept.rejected += 1;
            }
            Ok(
                finding @ (Inspection::Missing
                | Inspection::PartsMissing(_)
                | Inspection::PartsRefused
                | Inspection::Unsupported(_)),
            ) => {
                if self.reject_overfull(image, lease.now).await? {
                    swept.rejected += 1;
                } else if lease.now < ends {
                    self.store.images.postpone(image, lease.ends, ends.min(self.looks_again(image, lease, ends))).await?;
                } else {
                    let was_tried = matches!(finding, Inspection::PartsRefused);
                    let expire =
                        if was_tried { self.expire_refused(image, lease.now).await } else { self.expire(image, lease.now).await };
                    swept.expired += u32::from(expire?);
                }
            }
            Err(error) if lease.now >= ends + UNREADABLE_FOR && self.is_lasting(&error).await => {
                tracing::warn!(image = %image.id, %error, "an upload that could not be read for a week is rejected");
                self.reject(image, Rejection::ObjectMismatch, lease.now).await?;
                swept.rejected += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(swept)
    }

    /// When an upload that is not there yet is looked at again.
    fn looks_again(&self, image: &Image, lease: Lease, ends: time::OffsetDateTime) -> time::OffsetDateTime {
        let mut again = if needs_polling(image) { lease.now + poll_delay(lease.now - image.created_at) } else { ends };
        // A transfer that began in time may still arrive.
        if image.upload.unverified == Some(UnverifiedUpload::Parts) && lease.now < image.urls_die_at + self.sweep.grace {
            again = again.min(lease.now + PARTS_SEEN_EVERY);
        }
        again
    }

    /// What lies beside a ready image is deleted at once, and again when no URL can bring it back.
    async fn sweep_strays(&self, image: &Image, lease: Lease) -> Result<Swept, StoreError> {
        let ends = self.quiet_from(image);
        // The server that made it ready may have died before it settled the reservation.
        let settled = if lease.now < ends { self.settle_if_reserved(image).await } else { Ok(()) };
        // Whoever holds a URL that opens an upload may open another, before and after.
        let removal = self.remove_objects(&ObjectsToRemove::beside(image)).await?;
        // What is removed does not wait for counters that cannot be read.
        settled?;
        match removal {
            Removal::Partial => drop(self.store.images.postpone(image, lease.ends, lease.now + GO_ON).await?),
            Removal::Complete if lease.now < ends => drop(self.store.images.postpone(image, lease.ends, ends).await?),
            Removal::Complete => {
                self.release_reservation(image).await?;
                self.store.images.clear_leftovers(image, lease.ends).await?;
            }
        }
        Ok(Swept { purged: 1, ..Swept::default() })
    }

    /// A tombstone's object is deleted at once, and again when no URL can bring it back; then the tombstone ends.
    async fn sweep_tombstone(&self, image: &Image, lease: Lease) -> Result<Swept, StoreError> {
        let ends = self.quiet_from(image);
        // The server that made the tombstone may have died before it settled the reservation.
        let settled = if lease.now < ends { self.settle_if_reserved(image).await } else { Ok(()) };
        let removal = self.remove_image_objects(image).await?;
        // What is removed does not wait for counters that cannot be read.
        settled?;
        let mut swept = Swept { purged: 1, ..Swept::default() };
        match removal {
            Removal::Partial => drop(self.store.images.postpone(image, lease.ends, lease.now + GO_ON).await?),
            Removal::Complete if lease.now < ends => drop(self.store.images.postpone(image, lease.ends, ends).await?),
            Removal::Complete => {
                self.release_reservation(image).await?;
                swept.gone += u32::from(self.store.images.mark_purged(image).await?);
            }
        }
        Ok(swept)
    }
}
