//! Removes objects, versions and open multipart uploads of an account that no record names.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};

use crate::{
    domain::{Valet, removal::Removal},
    model::{ObjectKey, UserId},
    store::{
        StoreError,
        objects::{PurgeOutcome, list::ListedUpload},
    },
};

/// Objects that are removed at once.
const MAX_CONCURRENT: usize = 8;
/// How long one pass may go on from page to page, and take in all: the next pass goes on, and the lease is longer.
const LISTING_DEADLINE: Duration = Duration::from_secs(20);
const REMOVAL_DEADLINE: Duration = Duration::from_secs(40);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Objects and uploads that are gone.
    pub removed: u64,
    /// Objects whose versions the store retains.
    pub retained: u64,
    /// Bytes of the largest of them.
    pub largest: u64,
    /// Why one could not be removed. All the others were.
    failed: Option<StoreError>,
    /// Whether the time was over before the listings were.
    is_cut: bool,
}

impl Leftovers {
    fn is_cut(&mut self, ends: Instant) -> bool {
        self.is_cut |= Instant::now() >= ends;
        self.is_cut
    }

    fn note(&mut self, removed: Result<PurgeOutcome, StoreError>) {
        match removed {
            Ok(PurgeOutcome::Removed) => self.removed += 1,
            Ok(PurgeOutcome::Hidden) => self.retained += 1,
            Err(error) => {
                if self.failed.as_ref().is_none_or(|first| error.is_passing() && !first.is_passing()) {
                    self.failed = Some(error);
                }
            }
        }
    }

    /// How far the removal came; `Partial` where something was removed and there may be more.
    ///
    /// # Errors
    /// Why an object is still there.
    pub(super) fn end(self) -> Result<Removal, StoreError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.retained > 0 => Err(StoreError::ObjectsRemain { objects: self.retained }),
            None if self.is_cut && self.removed > 0 => Ok(Removal::Partial),
            None if self.is_cut => Err(StoreError::ObjectsTimeout { operation: "listing what an account left" }),
            None => Ok(Removal::Complete),
        }
    }
}

impl Valet {
    /// Removes what lies under the user's prefixes at keys of Valet's form. Keys of any other form are another program's.
    ///
    /// # Errors
    /// [`StoreError`] when the bucket could not be listed.
    pub(super) async fn remove_leftovers_within_deadline(&self, user: UserId) -> Result<Leftovers, StoreError> {
        let removed = tokio::time::timeout(REMOVAL_DEADLINE, self.remove_all_leftovers(user)).await;
        removed.unwrap_or(Err(StoreError::ObjectsTimeout { operation: "removing what an account left" }))
    }

    async fn remove_all_leftovers(&self, user: UserId) -> Result<Leftovers, StoreError> {
        let (mut leftovers, ends) = (Leftovers::default(), Instant::now() + LISTING_DEADLINE);
        for prefix in ObjectKey::user_prefixes(user) {
            // Uploads first: their completion would bring an object back.
            let mut next = None;
            while let Some(page) = self.objects.upload_page(&prefix, next).await? {
                self.abort_leftover_uploads(user, page.uploads, &mut leftovers).await;
                next = page.next;
                if next.is_none() || leftovers.is_cut(ends) {
                    break;
                }
            }
            let mut next = None;
            loop {
                let page = self.objects.list_page(&prefix, next).await?;
                let ours = page.objects.iter().filter(|object| is_of(user, &object.key));
                leftovers.largest = ours.map(|object| object.size).fold(leftovers.largest, u64::max);
                let keys = page.objects.into_iter().map(|object| object.key).collect();
                // Of those that the store retains, the versions are listed below.
                for purged in self
                    .purge_leftover_objects(user, keys)
                    .await
                    .into_iter()
                    .filter(|purged| !matches!(purged, Ok(PurgeOutcome::Hidden)))
                {
                    leftovers.note(purged);
                }
                next = page.next;
                if next.is_none() || leftovers.is_cut(ends) {
                    break;
                }
            }
            let mut next = None;
            while let Some(page) = self.objects.version_page(&prefix, next).await? {
                for purged in self.purge_leftover_objects(user, page.keys).await {
                    leftovers.note(purged);
                }
                next = page.next;
                if next.is_none() || leftovers.is_cut(ends) {
                    break;
                }
            }
        }
        Ok(leftovers)
    }

    async fn abort_leftover_uploads(&self, user: UserId, uploads: Vec<ListedUpload>, leftovers: &mut Leftovers) {
        let ours = uploads.into_iter().filter(|upload| is_of(user, &upload.key));
        let abort = |upload: ListedUpload| {
            async move { self.objects.abort_multipart(&upload.key, &upload.id).await.map(|()| PurgeOutcome::Removed) }.boxed()
        };
        let aborted: Vec<_> = stream::iter(ours).map(abort).buffer_unordered(MAX_CONCURRENT).collect().await;
        aborted.into_iter().for_each(|aborted| leftovers.note(aborted));
    }

    async fn purge_leftover_objects(&self, user: UserId, keys: Vec<ObjectKey>) -> Vec<Result<PurgeOutcome, StoreError>> {
        let ours = keys.into_iter().filter(|key| is_of(user, key));
        let purge = |key: ObjectKey| async move { self.objects.purge(&key).await }.boxed();
        stream::iter(ours).map(purge).buffer_unordered(MAX_CONCURRENT).collect().await
    }
}

fn is_of(user: UserId, key: &ObjectKey) -> bool {
    key.owner().is_some_and(|owner| owner.user == user)
}
