//! Completes multipart uploads: makes one object of the parts that have arrived, and inspects it.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use crate::{
    domain::inspection::{Inspection, MissingParts, ObjectInspector},
    model::{Image, ImageState, PartLayout},
    store::{
        Objects, Store, StoreError,
        objects::{COMPLETE_DEADLINE, Completion, StoredPart},
    },
};

/// Attempts at completing an upload that other requests change meanwhile.
const MAX_ATTEMPTS: usize = 5;
/// Maximum wait for another request's completion.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// Pause between two checks of another request's completion.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Function that removes from the list the stored parts that do not belong to the object, and returns the missing ones if there are
/// any.
pub(in crate::domain) type SelectParts<'a> = &'a (dyn Fn(&mut Vec<StoredPart>) -> Option<MissingParts> + Sync);

/// Keeps the stored parts that have their declared length, and returns the missing ones if there are any. Lengths are signed;
/// they are compared here as well for stores that do not enforce them.
pub(super) fn select_by_length(multipart: PartLayout, stored: &mut Vec<StoredPart>) -> Option<MissingParts> {
    stored.retain(|part| multipart.part_length(part.number) == Some(part.size));
    let is_stored = |number: &u32| stored.binary_search_by_key(number, |part| part.number).is_ok();
    let missing: Vec<_> = multipart.parts().map(|(number, _)| number).filter(|number| !is_stored(number)).collect();
    (!missing.is_empty()).then_some(MissingParts(missing))
}

/// Outcome of one attempt at completing a multipart upload.
enum Attempt {
    /// S3 answered. The object at the key shows whether S3 has made it.
    Answered(Completion),
    /// S3 rejects these parts.
    Rejected,
    /// Another request is completing the upload.
    ClaimedByAnother,
    /// Parts are missing.
    Incomplete(MissingParts),
    /// S3 has no such upload: it was completed or aborted.
    NoUpload,
    /// Another request changed the image's state.
    StateChanged,
}

/// Completes multipart uploads.
#[derive(Debug)]
pub(in crate::domain) struct PartsCompletion {
    pub(in crate::domain) store: Arc<Store>,
    pub(in crate::domain) objects: Arc<Objects>,
    pub(in crate::domain) object_inspector: Arc<ObjectInspector>,
}

impl PartsCompletion {
    /// Makes one object of the parts that `select_parts` keeps, and inspects it.
    pub(in crate::domain) async fn complete_multipart(
        &self,
        image: &Image,
        select_parts: SelectParts<'_>,
        now: OffsetDateTime,
    ) -> Result<Inspection, StoreError> {
        let (mut had_no_upload, mut waited, mut attempts, mut last_completion) = (false, Duration::ZERO, 0, None);
        while attempts < MAX_ATTEMPTS {
            match self.object_inspector.inspect_object(image, image.key.clone()).await? {
                Inspection::Missing => {}
                inspection => {
                    self.abort_other_uploads(image).await?;
                    return Ok(inspection);
                }
            }
            match self.complete_with_parts(image, select_parts, now).await? {
                Attempt::Answered(completion) => (attempts, last_completion) = (attempts + 1, Some(completion)),
                Attempt::Rejected => return Ok(Inspection::PartsRejected),
                Attempt::ClaimedByAnother if waited < MAX_WAIT => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                    waited += POLL_INTERVAL;
                }
                Attempt::ClaimedByAnother => {
                    return Err(StoreError::Contention { subject: "an upload whose parts another request completes" });
                }
                Attempt::Incomplete(missing) => return Ok(Inspection::PartsMissing(missing)),
                // The upload was aborted, so all parts are missing; or another request completed it between the two checks.
                Attempt::NoUpload if had_no_upload => {
                    return Ok(select_parts(&mut Vec::new()).map_or(Inspection::Missing, Inspection::PartsMissing));
                }
                Attempt::NoUpload => had_no_upload = true,
                Attempt::StateChanged => return Ok(Inspection::Missing),
            }
        }
        match last_completion {
            // Even in the last attempt, S3 did not have a part as it had listed it.
            Some(Completion::PartChanged) => Ok(Inspection::PartsRejected),
            _ => Err(StoreError::Contention { subject: "an upload whose parts are being completed" }),
        }
    }

    /// Claims the upload and completes it once.
    async fn complete_with_parts(
        &self,
        image: &Image,
        select_parts: SelectParts<'_>,
        now: OffsetDateTime,
    ) -> Result<Attempt, StoreError> {
        // Without an open upload no part is stored, so all of them are missing.
        let listed = match &image.upload_id {
            Some(upload_id) => match self.objects.list_parts(&image.key, upload_id).await {
                Err(error @ StoreError::ObjectRejected { .. }) => return Ok(rejected_parts(image, &error)),
                listed => listed?.map(|parts| (upload_id, parts)),
            },
            None => return Ok(select_parts(&mut Vec::new()).map_or(Attempt::NoUpload, Attempt::Incomplete)),
        };
        let Some((upload_id, mut parts)) = listed else { return Ok(Attempt::NoUpload) };
        if let Some(missing) = select_parts(&mut parts) {
            return Ok(Attempt::Incomplete(missing));
        }
        // Completing writes the key as a PUT does, possibly after the time limit of the call: a tombstone must outlive that.
        let ends_at = now + COMPLETE_DEADLINE;
        // One at a time: some stores show no object during a second completion although the first has made it.
        let Some(claim) = self.store.images.claim_object_creation(image, COMPLETE_DEADLINE, ends_at, &[]).await? else {
            let current = self.store.images.find_owned(image.user, image.id).await?;
            let is_pending = current.is_some_and(|image| image.state() == ImageState::Pending);
            return Ok(if is_pending { Attempt::ClaimedByAnother } else { Attempt::StateChanged });
        };
        let completed = self.objects.complete_multipart(&image.key, upload_id, parts).await;
        // After `Done` the upload is complete. After a timeout S3 may still be completing it. In both cases the claim ends with its
        // lease.
        if !matches!(completed, Ok(Completion::Done) | Err(StoreError::ObjectsTimeout { .. })) {
            self.store.images.release_object_creation(claim).await?;
        }
        match completed {
            Err(error @ StoreError::ObjectRejected { .. }) => Ok(rejected_parts(image, &error)),
            completed => completed.map(Attempt::Answered),
        }
    }

    /// Aborts further open uploads of this key, left by a server that died: their parts are not needed any more. If S3 refuses
    /// to abort one, the complete object still becomes an image.
    pub(super) async fn abort_other_uploads(&self, image: &Image) -> Result<(), StoreError> {
        match self.objects.abort_multiparts(&image.key).await {
            Err(error) if error.is_final() => {
                tracing::warn!(image = %image.id, %error, "failed to abort an upload beside a complete one");
                Ok(())
            }
            done => done,
        }
    }
}

/// Logs that S3 rejected the parts, and returns that outcome.
fn rejected_parts(image: &Image, error: &StoreError) -> Attempt {
    tracing::info!(image = %image.id, %error, "S3 refused to complete the parts");
    Attempt::Rejected
}
