//! The orphan scan: compares bucket and database both ways, in bounded memory.
//!
//! Both sides are streamed in the order of keys and merged. An entry without a counterpart is only a suspect, and is looked up by
//! itself before it counts. So a listing out of order, or a concurrent change, costs time but never causes a wrong result.

mod report;

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use time::OffsetDateTime;

pub use self::report::{Consent, CountedItems, Orphan, OrphanError, Orphans};
use self::report::{ReportedOrphans, count};
use super::deployment::{Deployment, RestoredSide};
use crate::{
    model::{ImageId, ImageState, KeyOwner},
    store::{
        Inventory, InventoryEntry, Objects, Store, StoreError,
        objects::list::{ListedObject, ListedUpload},
    },
};

/// Prefixes of the keys of Valet's objects, in the order of keys.
const PREFIXES: [&str; 2] = ["in/", "u/"];
/// Suspects that are looked up in one query.
const LOOKUP_BATCH: usize = 500;
/// Concurrent calls to S3.
const MAX_CONCURRENT_CALLS: usize = 16;

/// Finds and deletes orphans.
#[derive(Debug)]
pub struct OrphanScanner {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) deployment: Arc<Deployment>,
}

impl OrphanScanner {
    /// Finds objects written and multipart uploads opened before `before` that no record owns, and ready images without an
    /// object. Deletes nothing. Passes each orphan to `on_orphan` when it is found.
    ///
    /// # Errors
    /// [`OrphanError`].
    pub async fn find(
        &self,
        before: OffsetDateTime,
        on_orphan: &mut (dyn FnMut(Orphan<'_>) + Send + '_),
    ) -> Result<Orphans, OrphanError> {
        self.scan(before, Action::Report(on_orphan)).await
    }

    /// Deletes only orphans that an earlier scan `found`, each looked up again immediately before. Records are never deleted.
    ///
    /// # Errors
    /// [`OrphanError`].
    pub async fn delete(&self, before: OffsetDateTime, found: &Orphans, consent: Consent) -> Result<Orphans, OrphanError> {
        found.require_consent(consent)?;
        self.verify_pair_for_deletion().await?;
        self.scan(before, Action::Delete(&found.shown)).await
    }

    /// Rejects deletions if bucket and database do not have the same id any more, or the database was restored from a backup.
    ///
    /// # Errors
    /// [`OrphanError::Restored`] or [`OrphanError::Pair`].
    pub async fn verify_pair_for_deletion(&self) -> Result<(), OrphanError> {
        let pair = self.deployment.read_pair().await?;
        pair.require_common_id()?;
        match pair.restored_side() {
            Some(RestoredSide::Database) => Err(OrphanError::Restored { stamps: pair.stamps }),
            Some(RestoredSide::Bucket) | None => Ok(()),
        }
    }

    /// Compares the records with the objects written and multipart uploads opened before `before`. Applies `action` to each
    /// orphan.
    async fn scan(&self, before: OffsetDateTime, action: Action<'_>) -> Result<Orphans, OrphanError> {
        if before > self.store.now().await? {
            return Err(OrphanError::NotPast);
        }
        let records = self.store.images.inventory().await?;
        let mut scan =
            Scan { scanner: self, before, action, result: Orphans::default(), objects: Vec::new(), records: Vec::new() };
        let mut records = Records { inventory: records, next: None };
        records.advance(&mut scan.result).await?;
        for prefix in PREFIXES {
            let mut next = None;
            loop {
                let page = self.objects.object_page(prefix, next).await?;
                for object in page.objects {
                    scan.compare(object, &mut records).await?;
                }
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        while let Some(suspect) = records.next.take() {
            scan.suspect_record(suspect).await?;
            records.advance(&mut scan.result).await?;
        }
        scan.judge_objects().await?;
        scan.judge_records().await?;
        scan.compare_uploads().await?;
        Ok(scan.result)
    }
}

/// The treatment of orphans.
enum Action<'a> {
    /// Passes each to a callback.
    Report(&'a mut (dyn FnMut(Orphan<'_>) + Send + 'a)),
    /// Deletes those that the earlier scan has reported.
    Delete(&'a ReportedOrphans),
}

/// The records in the order of keys, with the next one read ahead.
struct Records {
    inventory: Inventory,
    next: Option<InventoryEntry>,
}

impl Records {
    /// Reads the next record; counts and skips unreadable ones.
    async fn advance(&mut self, result: &mut Orphans) -> Result<(), StoreError> {
        loop {
            match self.inventory.next().await {
                Ok(next) => {
                    result.records += u64::from(next.is_some());
                    self.next = next;
                    return Ok(());
                }
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::warn!(%error, "failed to read a record; skipping its object");
                    result.records += 1;
                    result.unreadable += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// State of a scan.
struct Scan<'s, 'a> {
    scanner: &'s OrphanScanner,
    before: OffsetDateTime,
    action: Action<'a>,
    result: Orphans,
    /// Suspect objects, with the owners that their keys name.
    objects: Vec<(ListedObject, KeyOwner)>,
    /// Suspect records.
    records: Vec<InventoryEntry>,
}

impl Scan<'_, '_> {
    /// Compares one listed object with the records, which are in the same order.
    async fn compare(&mut self, object: ListedObject, records: &mut Records) -> Result<(), OrphanError> {
        while let Some(suspect) = records.next.take_if(|record| record.key.as_str() < object.key.as_str()) {
            self.suspect_record(suspect).await?;
            records.advance(&mut self.result).await?;
        }
        let Some(owner) = object.key.owner() else {
            self.result.foreign.add(object.key);
            return Ok(());
        };
        self.result.objects += 1;
        if records.next.take_if(|record| record.key == object.key).is_some() {
            records.advance(&mut self.result).await?;
            return Ok(());
        }
        self.objects.push((object, owner));
        if self.objects.len() < LOOKUP_BATCH { Ok(()) } else { self.judge_objects().await }
    }

    /// Adds the record of a ready image to the suspects; in other states an image needs no object.
    async fn suspect_record(&mut self, record: InventoryEntry) -> Result<(), StoreError> {
        if record.state == ImageState::Ready {
            self.records.push(record);
        }
        if self.records.len() < LOOKUP_BATCH { Ok(()) } else { self.judge_records().await }
    }

    /// Looks up suspect objects. An object is an orphan if no record owns it. While the sweeper still has work for an image, all
    /// objects of the image belong to the sweeper.
    async fn judge_objects(&mut self) -> Result<(), OrphanError> {
        let suspects = std::mem::take(&mut self.objects);
        let ids: Vec<ImageId> = suspects.iter().map(|(_, owner)| owner.image).collect();
        let known = self.scanner.store.images.entries(&ids).await?;
        let is_known = |object: &ListedObject, owner: KeyOwner| match known.get(&owner.image) {
            Some(Some(entry)) => entry.user == owner.user && entry.owns(&object.key),
            // The record cannot be read, and may own the object.
            Some(None) => true,
            None => false,
        };
        let unknown = suspects.into_iter().filter(|(object, owner)| !is_known(object, *owner)).map(|(object, _)| object);
        let (mut orphans, young): (Vec<_>, Vec<_>) = unknown.partition(|object| object.modified < self.before);
        self.result.young += count(young.len());
        match &mut self.action {
            Action::Report(on_orphan) => {
                for orphan in &orphans {
                    on_orphan(Orphan::Object(orphan));
                    self.result.shown.insert(&orphan.key);
                }
            }
            Action::Delete(shown) => {
                let found = orphans.len();
                orphans.retain(|orphan| shown.contains(&orphan.key));
                self.result.new += count(found - orphans.len());
                // Checked before each batch: bucket and database may have been joined or restored since the previous batch.
                self.scanner.verify_pair_for_deletion().await?;
                let deleted = self.scanner.purge_orphans(&orphans).await;
                self.result.deleted += deleted;
                self.result.failed += count(orphans.len()) - deleted;
            }
        }
        for orphan in orphans {
            self.result.orphan_bytes += orphan.size;
            self.result.orphans.add(orphan);
        }
        Ok(())
    }

    /// Compares open uploads. If the store cannot list them, they are left to the bucket's lifecycle rule.
    async fn compare_uploads(&mut self) -> Result<(), OrphanError> {
        for prefix in PREFIXES {
            let mut next = None;
            while let Some(page) = self.scanner.objects.upload_page(prefix, next).await? {
                self.judge_uploads(page.uploads).await?;
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Looks up open uploads. An upload is an orphan if no record exists, or the sweeper has no work for its image.
    async fn judge_uploads(&mut self, uploads: Vec<ListedUpload>) -> Result<(), OrphanError> {
        let ours: Vec<_> = uploads.into_iter().filter_map(|upload| Some((upload.key.owner()?, upload))).collect();
        let ids: Vec<ImageId> = ours.iter().map(|(owner, _)| owner.image).collect();
        let known = self.scanner.store.images.entries(&ids).await?;
        let is_known = |owner: KeyOwner| match known.get(&owner.image) {
            Some(Some(entry)) => entry.user == owner.user && entry.is_unsettled(),
            // The record cannot be read, and may name the upload.
            Some(None) => true,
            None => false,
        };
        self.result.open += count(ours.len());
        let unknown = ours.into_iter().filter(|(owner, _)| !is_known(*owner)).map(|(_, upload)| upload);
        let (mut orphans, young): (Vec<_>, Vec<_>) = unknown.partition(|upload| upload.initiated < self.before);
        self.result.young += count(young.len());
        match &mut self.action {
            Action::Report(on_orphan) => {
                for orphan in &orphans {
                    on_orphan(Orphan::Upload(orphan));
                    self.result.shown.insert_upload(orphan);
                }
            }
            Action::Delete(shown) => {
                let found = orphans.len();
                orphans.retain(|orphan| shown.contains_upload(orphan));
                self.result.new += count(found - orphans.len());
                self.scanner.verify_pair_for_deletion().await?;
                let aborted = self.scanner.abort_orphans(&orphans).await;
                self.result.deleted += aborted;
                self.result.failed += count(orphans.len()) - aborted;
            }
        }
        orphans.into_iter().for_each(|orphan| self.result.uploads.add(orphan));
        Ok(())
    }

    /// Looks up suspect records. An object is missing if S3 reports it missing and the image is still ready afterwards.
    async fn judge_records(&mut self) -> Result<(), StoreError> {
        let (scanner, suspects) = (self.scanner, std::mem::take(&mut self.records));
        let heads = stream::iter(suspects).map(|record| async move {
            let head = scanner.objects.head(&record.key).await?;
            Ok::<_, StoreError>(head.is_none().then_some(record))
        });
        let absent: Vec<InventoryEntry> =
            heads.buffered(MAX_CONCURRENT_CALLS).try_filter_map(|record| async move { Ok(record) }).try_collect().await?;
        let ids: Vec<ImageId> = absent.iter().map(|record| record.id).collect();
        let current = scanner.store.images.entries(&ids).await?;
        for record in absent {
            let entry = current.get(&record.id).and_then(Option::as_ref);
            if entry.is_some_and(|entry| entry.state == ImageState::Ready && entry.key == record.key) {
                self.result.missing.add(record.key);
            }
        }
        Ok(())
    }
}

impl OrphanScanner {
    /// Aborts these uploads. Returns how many succeeded; failures are logged.
    async fn abort_orphans(&self, orphans: &[ListedUpload]) -> u64 {
        let aborts = stream::iter(orphans).map(|orphan| async move {
            let aborted = self.objects.abort_multipart(&orphan.key, &orphan.id).await;
            if let Err(error) = &aborted {
                tracing::warn!(key = %orphan.key, %error, "failed to abort an orphaned upload");
            }
            u64::from(aborted.is_ok())
        });
        aborts.buffer_unordered(MAX_CONCURRENT_CALLS).fold(0, |sum, successes| async move { sum + successes }).await
    }

    /// Deletes these objects with their versions. Returns how many succeeded; failures are logged.
    async fn purge_orphans(&self, orphans: &[ListedObject]) -> u64 {
        let purges = stream::iter(orphans).map(|orphan| async move {
            let purged = self.objects.purge(&orphan.key).await;
            if let Err(error) = &purged {
                tracing::warn!(key = %orphan.key, %error, "failed to delete an orphan");
            }
            u64::from(purged.is_ok())
        });
        purges.buffer_unordered(MAX_CONCURRENT_CALLS).fold(0, |sum, successes| async move { sum + successes }).await
    }
}
