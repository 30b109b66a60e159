//! Declaring pending bytes once more: nothing is served yet, so the later name, type, caption, preview and `ThumbHash` count.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::{IssueError, issue::Results, issue::UploadRequest};
use crate::{
    domain::{Valet, reservations},
    model::{Image, ImageId, ImageState, Upload, UserId},
    store::{StepOutcome, StoreError},
};

impl Valet {
    /// Gives the pending uploads that declarations were `matched` with what these declare, the last one of an upload where there
    /// are several. Returns those that are to be answered with the upload; one whose larger preview does not fit into the quota
    /// is answered here.
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
        for (wanted, image) in matched {
            // The repeat of a request changes nothing: another one may have come in between.
            let is_repeat = wanted.idempotency.is_some() && wanted.idempotency == image.idempotency;
            let is_open = image.state == ImageState::Pending && image.expires_at > now;
            let declared = later.get(&image.id).map_or(&image.upload, |(_, upload)| upload);
            if is_repeat || !is_open || declared.is_declared_as(&wanted.upload) {
                known.push((wanted, image));
                continue;
            }
            match self.reserve_growth(user, image, &wanted.upload).await {
                Ok(()) => {
                    later.insert(image.id, (image, wanted.upload.clone()));
                    known.push((wanted, image));
                }
                Err(IssueError::Store(error)) => return Err(error),
                Err(refusal) => results[wanted.at] = Some(Err(refusal)),
            }
        }
        let later: Vec<_> = later.values().map(|(image, upload)| (*image, upload)).collect();
        self.store.images.redeclare_all(&later).await?;
        Ok(known)
    }

    /// Reserves what a larger preview needs beyond what the upload has. Nothing is given back for a smaller one: the former one's
    /// URL lives.
    async fn reserve_growth(&self, user: UserId, image: &Image, upload: &Upload) -> Result<(), IssueError> {
        let wanted = upload.bytes();
        if wanted <= image.reserved {
            return Ok(());
        }
        let usage = self.store.users.usage(user).await?.ok_or(IssueError::NoAccount)?;
        if let Some(refusal) = self.exceeds_quota(usage, wanted - image.reserved) {
            return Err(refusal);
        }
        Ok(Box::pin(self.grow(user, image.id, wanted)).await?)
    }

    /// Raises what a pending upload has reserved to `bytes`. One that is not pending any more stays as it is.
    async fn grow(&self, user: UserId, id: ImageId, bytes: u64) -> Result<(), StoreError> {
        for tried in 0..reservations::MAX_ATTEMPTS {
            let Some(image) = self.store.images.find_owned(user, id).await? else { return Ok(()) };
            if image.state != ImageState::Pending || image.reserved >= bytes {
                return Ok(());
            }
            if let Some(growth) = image.growth_step(bytes)
                && matches!(self.store.grow_reservation(user, &growth).await?, StepOutcome::Applied(images) if !images.is_empty())
            {
                return Ok(());
            }
            self.finish_abandoned_steps(user, &[id], tried).await?;
        }
        Err(StoreError::Contention { what: "an upload that is declared anew" })
    }
}
