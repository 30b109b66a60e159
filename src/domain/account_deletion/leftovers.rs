//! Removes objects, versions and open multipart uploads of a deleted account that no record names.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream};

use crate::{
    domain::removal::Removal,
    model::{ObjectKey, UserId},
    store::{
        Objects, StoreError,
        objects::{PurgeOutcome, list::ListedUpload},
    },
};

/// Maximum number of objects or uploads that are removed at the same time.
const MAX_CONCURRENT: usize = 8;
/// Time after which each listing of a pass ends with its current page. The next pass continues with the objects that are left.
const LISTING_DEADLINE: Duration = Duration::from_secs(20);
/// Time limit of a pass, with the removals of its last page.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(40);

/// Result of removing leftovers.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Objects and uploads that were removed.
    pub removed: u64,
    /// Objects whose versions the store retains.
    pub retained: u64,
    /// Size of the largest object that was found, in bytes.
    pub largest: u64,
    /// First temporary failure to remove an object or upload, else the first permanent one.
    failed: Option<StoreError>,
    /// Whether the deadline passed before the last page.
    is_cut: bool,
}

impl Leftovers {
    /// Returns whether the deadline has passed. Records that it has, because leftovers may remain then.
    fn is_past(&mut self, deadline: Instant) -> bool {
        self.is_cut |= Instant::now() >= deadline;
        self.is_cut
    }

    /// Counts the result of one removal.
    fn record(&mut self, removed: Result<PurgeOutcome, StoreError>) {
        match removed {
            Ok(PurgeOutcome::Removed) => self.removed += 1,
            Ok(PurgeOutcome::Hidden) => self.retained += 1,
            Err(error) => {
                if self.failed.as_ref().is_none_or(|first| error.is_temporary() && !first.is_temporary()) {
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Returns the extent of the removal; `Partial` if objects were removed and there may be more.
    ///
    /// # Errors
    /// [`StoreError`] if an object remains.
    pub(super) fn finish(self) -> Result<Removal, StoreError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.retained > 0 => Err(StoreError::ObjectsRemain { objects: self.retained }),
            None if self.is_cut && self.removed > 0 => Ok(Removal::Partial),
            None if self.is_cut => Err(StoreError::ObjectsTimeout { operation: "listing an account's leftovers" }),
            None => Ok(Removal::Complete),
        }
    }
}

/// Removal of an account's objects, versions and multipart uploads that no record names.
#[derive(Debug)]
pub(in crate::domain) struct LeftoverRemoval {
    pub(in crate::domain) objects: Arc<Objects>,
}

impl LeftoverRemoval {
    /// Removes the leftovers under the user's prefixes whose keys have Valet's form, for [`REMOVAL_DEADLINE`] at most. Keys of
    /// another form belong to another program.
    ///
    /// # Errors
    /// [`StoreError`] if the bucket could not be listed.
    pub(super) async fn remove_leftovers_within_deadline(&self, user: UserId) -> Result<Leftovers, StoreError> {
        let removed = tokio::time::timeout(REMOVAL_DEADLINE, self.remove_all_leftovers(user)).await;
        removed.unwrap_or(Err(StoreError::ObjectsTimeout { operation: "removing an account's leftovers" }))
    }

    /// Lists the user's prefixes and removes all uploads and objects that it finds, until [`LISTING_DEADLINE`].
    async fn remove_all_leftovers(&self, user: UserId) -> Result<Leftovers, StoreError> {
        let (mut leftovers, deadline) = (Leftovers::default(), Instant::now() + LISTING_DEADLINE);
        for prefix in ObjectKey::user_prefixes(user) {
            // Uploads first, because completing one would create an object again.
            let mut next = None;
            while let Some(page) = self.objects.upload_page(&prefix, next).await? {
                self.abort_leftover_uploads(user, page.uploads, &mut leftovers).await;
                next = page.next;
                if next.is_none() || leftovers.is_past(deadline) {
                    break;
                }
            }
            let mut next = None;
            loop {
                let page = self.objects.object_page(&prefix, next).await?;
                let ours = page.objects.iter().filter(|object| belongs_to(user, &object.key));
                leftovers.largest = ours.map(|object| object.size).fold(leftovers.largest, u64::max);
                let keys = page.objects.into_iter().map(|object| object.key).collect();
                // Retained objects are counted by their versions, which are listed below.
                for purged in self
                    .purge_leftover_objects(user, keys)
                    .await
                    .into_iter()
                    .filter(|purged| !matches!(purged, Ok(PurgeOutcome::Hidden)))
                {
                    leftovers.record(purged);
                }
                next = page.next;
                if next.is_none() || leftovers.is_past(deadline) {
                    break;
                }
            }
            let mut next = None;
            while let Some(page) = self.objects.version_page(&prefix, next).await? {
                for purged in self.purge_leftover_objects(user, page.keys).await {
                    leftovers.record(purged);
                }
                next = page.next;
                if next.is_none() || leftovers.is_past(deadline) {
                    break;
                }
            }
        }
        Ok(leftovers)
    }

    /// Aborts the open multipart uploads of this user.
    async fn abort_leftover_uploads(&self, user: UserId, uploads: Vec<ListedUpload>, leftovers: &mut Leftovers) {
        let ours = uploads.into_iter().filter(|upload| belongs_to(user, &upload.key));
        let abort = |upload: ListedUpload| {
            async move { self.objects.abort_multipart(&upload.key, &upload.id).await.map(|()| PurgeOutcome::Removed) }.boxed()
        };
        let aborted: Vec<_> = stream::iter(ours).map(abort).buffer_unordered(MAX_CONCURRENT).collect().await;
        aborted.into_iter().for_each(|aborted| leftovers.record(aborted));
    }

    /// Deletes the objects of this user.
    async fn purge_leftover_objects(&self, user: UserId, keys: Vec<ObjectKey>) -> Vec<Result<PurgeOutcome, StoreError>> {
        let ours = keys.into_iter().filter(|key| belongs_to(user, key));
        let purge = |key: ObjectKey| async move { self.objects.purge(&key).await }.boxed();
        stream::iter(ours).map(purge).buffer_unordered(MAX_CONCURRENT).collect().await
    }
}

/// Returns whether a key belongs to this user: a listing by prefix may contain keys of others.
fn belongs_to(user: UserId, key: &ObjectKey) -> bool {
    key.owner().is_some_and(|owner| owner.user == user)
}
