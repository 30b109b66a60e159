//! Removes an image's data from S3: open multipart uploads, objects, and all their versions.
//!
//! A failed step does not stop the others: an object that a client wrote may make any step fail permanently. After `MAX_TIMEOUTS`
//! timeouts, the remaining steps are skipped.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

use super::{MAX_S3_CALLS_PER_USER, deployment::Deployment, late_transfers::LateTransfers};
use crate::{
    model::{Image, ObjectKey},
    store::{Objects, Store, StoreError, objects::AbortProgress},
};

/// Timeouts after which the remaining steps of an image are skipped.
const MAX_TIMEOUTS: u32 = 2;
/// Time for which a request waits for the objects' deletion; the sweeper deletes the rest.
const PURGE_DEADLINE: Duration = Duration::from_secs(4);

/// Objects and multipart uploads to remove.
#[derive(Debug)]
pub(super) struct ObjectsToRemove<'a> {
    /// Keys of objects.
    keys: Vec<&'a ObjectKey>,
    /// Keys at which multipart uploads may be open.
    multiparts: Vec<&'a ObjectKey>,
    /// Id of the recorded multipart upload, for stores that cannot list multipart uploads.
    upload_id: Option<&'a str>,
}

/// Extent of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Nothing is left.
    Complete,
    /// More multipart uploads are left than one call aborts.
    Partial,
}

impl<'a> ObjectsToRemove<'a> {
    /// Returns the leftover objects beside a ready image.
    pub(super) fn beside(image: &'a Image) -> Self {
        let keys: Vec<_> = image.leftover_keys.iter().collect();
        let multiparts = keys.iter().copied().filter(|key| image.upload.is_in_parts() && key.is_incoming()).collect();
        Self { keys, multiparts, upload_id: image.upload_id.as_deref() }
    }

    /// Returns the objects of a tombstone's image, except its preview and the pictures that a worker made.
    fn of(image: &'a Image) -> Self {
        let beside = Self::beside(image);
        let mut multiparts = beside.multiparts;
        if image.upload.is_in_parts() {
            multiparts.push(&image.key);
        }
        let keys = [&image.key].into_iter().chain(beside.keys).collect();
        Self { keys, multiparts, upload_id: beside.upload_id }
    }
}

/// Combined outcome of steps that run independently of each other's failures.
#[derive(Debug, Default)]
struct StepResults {
    /// Error of a failed step; that of a temporary failure, if there was one.
    failed: Option<StoreError>,
    /// Number of steps that timed out.
    timeouts: u32,
    /// Whether a step has left multipart uploads.
    partial: bool,
}

impl StepResults {
    /// Records the outcome of a step. A temporary failure takes precedence over a permanent one: the next attempt may get further.
    fn record(&mut self, key: &ObjectKey, step: Result<AbortProgress, StoreError>) {
        match step {
            Ok(AbortProgress::All) => {}
            Ok(AbortProgress::Some) => self.partial = true,
            Err(error) => {
                tracing::debug!(%key, %error, "failed to take a step of a removal");
                self.timeouts += u32::from(matches!(error, StoreError::ObjectsTimeout { .. }));
                if self.failed.as_ref().is_none_or(|first| error.is_temporary() && !first.is_temporary()) {
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Returns whether so many steps have timed out that the remaining ones are skipped.
    fn has_timed_out(&self) -> bool {
        self.timeouts >= MAX_TIMEOUTS
    }

    /// Returns the result of all steps.
    fn finish(self) -> Result<Removal, StoreError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.partial => Ok(Removal::Partial),
            None => Ok(Removal::Complete),
        }
    }
}

/// Removes images' data from S3.
#[derive(Debug)]
pub(super) struct ObjectRemoval {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) deployment: Arc<Deployment>,
    pub(super) late_transfers: LateTransfers,
}

impl ObjectRemoval {
    /// Deletes the data of a tombstone's image from S3: multipart uploads first, because completing one would create the object
    /// again.
    ///
    /// # Errors
    /// [`StoreError`] if a step failed. Safe to repeat.
    pub(super) async fn remove_image_objects(&self, image: &Image) -> Result<Removal, StoreError> {
        let (preview, pictures, mut targets) = (image.preview_key(), image.picture_keys(), ObjectsToRemove::of(image));
        targets.keys.extend(preview.iter().chain(&pictures));
        self.remove_objects(&targets).await
    }

    /// Removes objects and multipart uploads.
    ///
    /// # Errors
    /// [`StoreError`] if a step failed. Safe to repeat.
    pub(super) async fn remove_objects(&self, targets: &ObjectsToRemove<'_>) -> Result<Removal, StoreError> {
        let mut steps = StepResults::default();
        for key in &targets.multiparts {
            if let Some(upload_id) = targets.upload_id.filter(|_| !steps.has_timed_out()) {
                steps.record(key, self.objects.abort_multipart(key, upload_id).await.map(|()| AbortProgress::All));
            }
            if !steps.has_timed_out() {
                steps.record(key, self.objects.abort_some_multiparts(key).await);
            }
        }
        for key in &targets.keys {
            if !steps.has_timed_out() {
                steps.record(key, self.objects.purge(key).await.map(|_| AbortProgress::All));
            }
        }
        steps.finish()
    }

    /// Deletes the objects of one user's tombstones while the client waits, and the objects at keys that were recorded between
    /// the reading of an image and its deletion. The sweeper retries failures: the tombstones are due already.
    pub(super) async fn purge_now(&self, tombstones: Vec<Image>, now: OffsetDateTime) {
        // The bucket belongs to another database. If it is paired with this one again, the sweeper removes the objects.
        if self.deployment.is_mismatched() {
            return;
        }
        let deadline = tokio::time::Instant::now() + PURGE_DEADLINE;
        let outdated = self.purge_until(deadline, tombstones, now).await;
        if !outdated.is_empty() {
            self.purge_until(deadline, outdated, now).await;
        }
    }

    /// Deletes the objects of these tombstones, until the deadline. Returns the current records of those tombstones to which keys
    /// were added since they were read.
    async fn purge_until(&self, deadline: tokio::time::Instant, tombstones: Vec<Image>, now: OffsetDateTime) -> Vec<Image> {
        let purge = |tombstone: Image| {
            async move {
                let removed = self.remove_image_objects(&tombstone).await;
                (removed, tombstone)
            }
            .boxed()
        };
        let purged = stream::iter(tombstones).map(purge).buffer_unordered(MAX_S3_CALLS_PER_USER);
        let purged: Vec<_> = purged.take_until(tokio::time::sleep_until(deadline)).collect().await;
        let mut done = Vec::new();
        for (removed, tombstone) in &purged {
            match removed {
                Ok(Removal::Complete) => done.push((tombstone, self.late_transfers.writes_end_at(tombstone).max(now))),
                // The tombstone is due already: the sweeper continues.
                Ok(Removal::Partial) => {}
                Err(error) => {
                    tracing::warn!(image = %tombstone.id, %error, "failed to delete the object of a deleted image; the sweeper retries");
                }
            }
        }
        let outdated = async {
            // Only tombstones that are still due at `now`, as the deletion set it: a sweeper's claim changes that time.
            match self.store.images.postpone_purged(&done, now).await? {
                postponed if postponed == done.len() as u64 => Ok(Vec::new()),
                _ => self.find_outdated(done.iter().map(|(tombstone, _)| *tombstone)).await,
            }
        };
        outdated.await.unwrap_or_else(|error: StoreError| {
            tracing::warn!(%error, "failed to postpone tombstones; the sweeper checks them early");
            Vec::new()
        })
    }

    /// Returns the current records of those of one user's tombstones to which keys or a multipart upload were added since they
    /// were read.
    async fn find_outdated(&self, purged: impl Iterator<Item = &Image> + Clone) -> Result<Vec<Image>, StoreError> {
        let ids: Vec<_> = purged.clone().map(|tombstone| tombstone.id).collect();
        let Some(user) = purged.clone().map(|tombstone| tombstone.user).next() else { return Ok(Vec::new()) };
        let found = self.store.images.find_all_owned(user, &ids).await?;
        let is_outdated = |tombstone: &Image, image: &Image| {
            let known = tombstone.keys();
            tombstone.upload_id != image.upload_id || image.keys().iter().any(|key| !known.contains(key))
        };
        let outdated = purged.filter_map(|tombstone| {
            let image = found.get(tombstone.id).ok().flatten().filter(|image| image.state().is_tombstone())?;
            is_outdated(tombstone, image).then(|| image.clone())
        });
        Ok(outdated.collect())
    }
}
