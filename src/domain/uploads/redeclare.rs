//! Declares pending uploads again. The later file name, type, caption, preview, `ThumbHash` and time taken replace the earlier
//! ones, since nothing is served yet.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::{
    OpenError, Uploads,
    open::{Results, UploadRequest},
};
use crate::{
    domain::reservations,
    model::{Image, ImageId, ImageStatus, Upload, UserId},
    store::{StepOutcome, StoreError},
};

impl Uploads {
    /// Replaces the declaration of each pending upload by that of the request that was `matched` with it, the last one if there
    /// are several. Returns the requests that are to be answered with the upload. A request whose larger preview exceeds the
    /// quota gets its error in `results`.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub(super) async fn redeclare<'a>(
        &self,
        user: UserId,
        matched: Vec<(UploadRequest, &'a Image)>,
        results: &mut Results,
        now: OffsetDateTime,
    ) -> Result<Vec<(UploadRequest, &'a Image)>, StoreError> {
        let (mut accepted, mut latest) = (Vec::new(), HashMap::<ImageId, (&Image, Upload)>::new());
        for (request, image) in matched {
            // A repeated request changes nothing: another declaration may have been made after the first request.
            let is_repeat = request.idempotency.is_some() && request.idempotency == image.idempotency;
            let is_open = image.status == ImageStatus::Pending && image.expires_at > now;
            let declared = latest.get(&image.id).map_or(&image.upload, |(_, upload)| upload);
            if is_repeat || !is_open || declared.is_declared_as(&request.upload) {
                accepted.push((request, image));
                continue;
            }
            match self.reserve_growth(user, image, &request.upload).await {
                Ok(()) => {
                    latest.insert(image.id, (image, request.upload.clone()));
                    accepted.push((request, image));
                }
                Err(OpenError::Store(error)) => return Err(error),
                Err(error) => results[request.index] = Some(Err(error)),
            }
        }
        let declarations: Vec<_> = latest.values().map(|(image, upload)| (*image, upload)).collect();
        self.store.images.redeclare_all(&declarations).await?;
        Ok(accepted)
    }

    /// Reserves the additional bytes of a larger preview. Nothing is released for a smaller preview, because the URL of the
    /// larger one can still be used.
    async fn reserve_growth(&self, user: UserId, image: &Image, upload: &Upload) -> Result<(), OpenError> {
        let new_bytes = upload.bytes();
        if new_bytes <= image.reserved { Ok(()) } else { Box::pin(self.grow(user, image.id, new_bytes)).await }
    }

    /// Raises the reservation of a pending upload to `bytes`. An upload in another state stays as it is.
    async fn grow(&self, user: UserId, id: ImageId, bytes: u64) -> Result<(), OpenError> {
        for tried in 0..reservations::MAX_ATTEMPTS {
            let Some(image) = self.store.images.find_owned(user, id).await? else { return Ok(()) };
            if image.status != ImageStatus::Pending || image.reserved >= bytes {
                return Ok(());
            }
            let usage = self.store.usage(user).await?.ok_or(OpenError::NoAccount)?;
            if let Some(error) = self.quota.excess_error(usage, bytes - image.reserved) {
                return Err(error);
            }
            // Other requests may take the bytes after the usage was read, so the announcement of the step checks the quota again.
            if let Some(growth) = image.growth_step(bytes)
                && let StepOutcome::Applied(images) = self.store.grow_reservation(user, &growth, self.reservations.limits).await?
                && !images.is_empty()
            {
                return Ok(());
            }
            self.reservations.finish_abandoned_steps(user, &[id], tried).await?;
        }
        Err(StoreError::Contention { subject: "an upload that is declared again" }.into())
    }
}
