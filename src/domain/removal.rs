//! Removing what lies in S3 for an image: open multipart uploads, objects, all their versions.
//!
//! No step keeps another from being taken: what a client has named or written may make any of them fail for good.

use super::Valet;
use crate::{
    model::{Image, ObjectKey},
    store::{StoreError, objects::AbortProgress},
};

/// A store that did not answer so many steps of one image is not asked for the others.
const MAX_TIMEOUTS: u32 = 2;

/// The objects to remove.
#[derive(Debug)]
pub(super) struct ObjectsToRemove<'a> {
    /// Objects.
    keys: Vec<&'a ObjectKey>,
    /// Keys at which multipart uploads may be open.
    multiparts: Vec<&'a ObjectKey>,
    /// The recorded one: stores that cannot list uploads abort it by its name.
    upload_id: Option<&'a str>,
}

/// How far a removal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Nothing is left.
    Complete,
    /// There is more than is removed in one go: another round goes on.
    Partial,
}

impl<'a> ObjectsToRemove<'a> {
    /// Returns the objects beside a ready image.
    pub(super) fn beside(image: &'a Image) -> Self {
        let keys: Vec<_> = image.leftover_keys.iter().collect();
        let multiparts = keys.iter().copied().filter(|key| image.upload.is_in_parts() && key.is_incoming()).collect();
        Self { keys, multiparts, upload_id: image.upload_id.as_deref() }
    }

    /// Everything of a deleted image but its preview.
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
    failed: Option<StoreError>,
    timeouts: u32,
    partial: bool,
}

impl StepResults {
    /// Records the outcome of a step. A temporary failure takes precedence over a permanent one: the next attempt may get further.
    fn note(&mut self, key: &ObjectKey, step: Result<AbortProgress, StoreError>) {
        match step {
            Ok(AbortProgress::All) => {}
            Ok(AbortProgress::Some) => self.partial = true,
            Err(error) => {
                tracing::debug!(%key, %error, "failed to take a step of a removal");
                self.timeouts += u32::from(matches!(error, StoreError::ObjectsTimeout { .. }));
                if self.failed.as_ref().is_none_or(|first| error.is_passing() && !first.is_passing()) {
                    self.failed = Some(error);
                }
            }
        }
    }

    fn has_timed_out(&self) -> bool {
        self.timeouts >= MAX_TIMEOUTS
    }

    fn end(self) -> Result<Removal, StoreError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.partial => Ok(Removal::Partial),
            None => Ok(Removal::Complete),
        }
    }
}

impl Valet {
    /// Deletes what lies in S3 for a deleted image: open uploads first, whose completion would bring the object back.
    ///
    /// # Errors
    /// [`StoreError`] when a step failed; all the others were taken. Safe to repeat.
    pub(super) async fn remove_image_objects(&self, image: &Image) -> Result<Removal, StoreError> {
        let (preview, mut remains) = (image.preview_key(), ObjectsToRemove::of(image));
        remains.keys.extend(preview.as_ref());
        self.remove_objects(&remains).await
    }

    /// Takes every step of a removal.
    ///
    /// # Errors
    /// As [`Valet::remove_image_objects`].
    pub(super) async fn remove_objects(&self, remains: &ObjectsToRemove<'_>) -> Result<Removal, StoreError> {
        let mut steps = StepResults::default();
        for key in &remains.multiparts {
            if let Some(upload_id) = remains.upload_id.filter(|_| !steps.has_timed_out()) {
                steps.note(key, self.objects.abort_multipart(key, upload_id).await.map(|()| AbortProgress::All));
            }
            if !steps.has_timed_out() {
                steps.note(key, self.objects.abort_some_multiparts(key).await);
            }
        }
        for key in &remains.keys {
            if !steps.has_timed_out() {
                steps.note(key, self.objects.purge(key).await.map(|_| AbortProgress::All));
            }
        }
        steps.end()
    }
}
