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
    /// Replaces the declarations of the pending uploads that requests were `matched` with, by the last one if several match the
    /// same upload. Returns the requests to be answered with the upload; one whose larger preview exceeds the quota is answered
    /// here.
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
        let (mut known, mut later) = (Vec::new(), HashMap::<ImageId, (&Image, Upload)>::new());
        for (request, image) in matched {
            // The repeat of a request changes nothing, because another one may have been made in between.
            let is_repeat = request.idempotency.is_some() && request.idempotency == image.idempotency;
            let is_open = image.status == ImageStatus::Pending && image.expires_at > now;
            let declared = later.get(&image.id).map_or(&image.upload, |(_, upload)| upload);
            if is_repeat || !is_open || declared.is_declared_as(&request.upload) {
                known.push((request, image));
                continue;
            }
            match self.reserve_growth(user, image, &request.upload).await {
                Ok(()) => {
                    later.insert(image.id, (image, request.upload.clone()));
                    known.push((request, image));
                }
                Err(OpenError::Store(error)) => return Err(error),
                Err(refusal) => results[request.at] = Some(Err(refusal)),
            }
        }
        let later: Vec<_> = later.values().map(|(image, upload)| (*image, upload)).collect();
        self.store.images.redeclare_all(&later).await?;
        Ok(known)
    }

    /// Reserves the additional bytes of a larger preview. Nothing is released for a smaller one, because the earlier one's URL is
    /// alive.
    async fn reserve_growth(&self, user: UserId, image: &Image, upload: &Upload) -> Result<(), OpenError> {
        let new_bytes = upload.bytes();
        if new_bytes <= image.reserved {
            return Ok(());
        }
        let usage = self.store.users.usage(user).await?.ok_or(OpenError::NoAccount)?;
        if let Some(refusal) = self.quota.exceeds_quota(usage, new_bytes - image.reserved) {
            return Err(refusal);
        }
        Ok(Box::pin(self.grow(user, image.id, new_bytes)).await?)
    }

    /// Raises the reservation of a pending upload to `bytes`. An upload in another state stays as it is.
    async fn grow(&self, user: UserId, id: ImageId, bytes: u64) -> Result<(), StoreError> {
        for tried in 0..reservations::MAX_ATTEMPTS {
            let Some(image) = self.store.images.find_owned(user, id).await? else { return Ok(()) };
            if image.status != ImageStatus::Pending || image.reserved >= bytes {
                return Ok(());
            }
            if let Some(growth) = image.growth_step(bytes)
                && matches!(self.store.grow_reservation(user, &growth).await?, StepOutcome::Applied(images) if !images.is_empty())
            {
                return Ok(());
            }
            self.reservations.finish_abandoned_steps(user, &[id], tried).await?;
        }
        Err(StoreError::Contention { what: "an upload that is declared again" })
    }
}
