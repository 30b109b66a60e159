//! The orphan scan: bucket and database compared both ways, in bounded memory however many there are.
//!
//! Both sides stream in the order of keys and are merged; what has no partner there is only a suspect, and is looked up
//! by itself before it counts. So a listing out of order, or a change meanwhile, costs time and never a wrong verdict.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Valet;
use crate::{
    model::{ImageId, ImageState, KeyOwner, ObjectKey},
    store::{Entry, Inventory, StoreError, objects::listing::Listed},
};

/// Where Valet's objects lie, in the order of keys.
const PREFIXES: [&str; 2] = ["in/", "u/"];
/// Suspects that are looked up in one query.
const BATCH: usize = 500;
/// Calls to S3 at once.
const AT_ONCE: usize = 16;
/// Keys of each kind that are remembered to be shown.
const SHOWN: usize = 100;

/// The result of a scan.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Objects under keys of Valet's form.
    pub objects: u64,
    /// Records that own an object.
    pub records: u64,
    /// Records that could not be read. Their objects are not judged.
    pub unreadable: u64,
    /// Objects under keys of any other form. They belong to another program and are never deleted.
    pub foreign: Found<ObjectKey>,
    /// Old objects without a record, or whose record is gone.
    pub orphans: Found<Listed>,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Objects without a record that are not old enough to be judged.
    pub young: u64,
    /// Ready images whose object is missing.
    pub missing: Found<ObjectKey>,
    /// Orphans that were deleted.
    pub deleted: u64,
    /// Orphans that could not be deleted.
    pub failed: u64,
    /// Orphans that the scan before a deletion had not shown. They are left alone.
    pub new: u64,
    shown: Shown,
}

/// The keys of the orphans that a scan has shown: 64 bits of a keyed hash of each, some 16 bytes of memory an orphan.
#[derive(Default)]
struct Shown {
    hasher: RandomState,
    keys: HashSet<u64>,
}

impl Shown {
    fn insert(&mut self, key: &ObjectKey) {
        self.keys.insert(self.hasher.hash_one(key.as_str()));
    }

    fn contains(&self, key: &ObjectKey) -> bool {
        self.keys.contains(&self.hasher.hash_one(key.as_str()))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

/// The operator's consent to delete the orphans that a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Without their number: enough for at most a tenth of the objects.
    Given,
    /// With their number, which must be that of the scan.
    Number(u64),
}

/// Without the operator naming the number, at most one object in so many is deleted.
const SHARE: u64 = 10;

/// How many, and the first of them.
#[derive(Debug)]
pub struct Found<T> {
    /// All.
    pub count: u64,
    /// At most a hundred.
    pub first: Vec<T>,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T> Found<T> {
    fn add(&mut self, item: T) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(item);
        }
    }
}

impl Orphans {
    /// Refuses a deletion that the database does not vouch for: a wrong, empty or half restored one makes every object look
    /// like an orphan.
    fn allow_deletion(&self, consent: Consent) -> Result<(), OrphanError> {
        let orphans = self.orphans.count;
        if orphans > 0 && self.records == 0 {
            return Err(OrphanError::NoRecords { objects: self.objects });
        }
        match consent {
            Consent::Number(number) if number != orphans => Err(OrphanError::OtherNumber { orphans }),
            Consent::Given if orphans.saturating_mul(SHARE) > self.objects => {
                Err(OrphanError::NumberWanted { orphans, objects: self.objects })
            }
            Consent::Given | Consent::Number(_) => Ok(()),
        }
    }

    /// Returns the counts without the keys, a line each.
    #[must_use]
    pub fn counts(&self) -> String {
        let Self { objects, records, unreadable, foreign, orphans, orphan_bytes, young, missing, deleted, failed, .. } = self;
        let lines = [
            format!("{objects} objects and {records} records compared"),
            format!("{} orphaned objects of {}", orphans.count, bytesize::ByteSize(*orphan_bytes)),
            format!("{young} younger objects without a record, not judged"),
            format!("{} ready images without an object", missing.count),
            format!("{} objects of other programs, left alone", foreign.count),
            format!("{unreadable} unreadable records, their objects not judged"),
            format!("{deleted} objects deleted, {failed} failed"),
        ];
        lines.join("\n")
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modified = self.modified.format(&Rfc3339).unwrap_or_default();
        write!(f, "{} ({}, written {modified})", self.key, bytesize::ByteSize(self.size))
    }
}

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "orphaned object", &self.orphans)?;
        list(f, "ready image without an object", &self.missing)?;
        list(f, "object of another program", &self.foreign)?;
        f.write_str(&self.counts())
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, kind: &str, found: &Found<T>) -> fmt::Result {
    for item in &found.first {
        writeln!(f, "{kind}: {item}")?;
    }
    match found.count - count(found.first.len()) {
        0 => Ok(()),
        more => writeln!(f, "{kind}: … and {more} more"),
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Why there was no scan, only a part of one, or no deletion.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    /// Uploads of this moment would be judged.
    #[error("the time must lie in the past: uploads that are under way must not be judged")]
    NotPast,
    /// The database has no record of any object.
    #[error(
        "nothing was deleted: the database has no record of an image, and the bucket has {objects} objects of Valet's. \
         Check MONGODB_URI and MONGODB_DATABASE, or restore the database first"
    )]
    NoRecords {
        /// Objects in the bucket.
        objects: u64,
    },
    /// More than a tenth of the objects would be deleted.
    #[error(
        "nothing was deleted: {orphans} of {objects} objects are orphans, more than a tenth. Check MONGODB_DATABASE and S3_BUCKET; \
         if the number is right, repeat the command with --expect {orphans}"
    )]
    NumberWanted {
        /// Orphans of the scan.
        orphans: u64,
        /// Objects in the bucket.
        objects: u64,
    },
    /// The operator named another number than the scan found.
    #[error("nothing was deleted: there are {orphans} orphans now; look at them again")]
    OtherNumber {
        /// Orphans of the scan.
        orphans: u64,
    },
    /// The database or S3 failed; nothing else changed beside the deletions until then.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Valet {
    /// Finds objects written before `before` that no record owns, and ready images without an object. Deletes nothing. Every
    /// orphan is passed to `on_orphan` as it is found.
    ///
    /// # Errors
    /// [`OrphanError`].
    pub async fn find_orphans(
        &self,
        before: OffsetDateTime,
        on_orphan: &mut (dyn FnMut(&Listed) + Send + '_),
    ) -> Result<Orphans, OrphanError> {
        self.scan(before, Action::Report(on_orphan)).await
    }

    /// Deletes the orphans that a scan `found` before and no others, each looked up again right before. Records are never
    /// deleted.
    ///
    /// # Errors
    /// [`OrphanError`].
    pub async fn delete_orphans(
        &self,
        before: OffsetDateTime,
        found: &Orphans,
        consent: Consent,
    ) -> Result<Orphans, OrphanError> {
        found.allow_deletion(consent)?;
        self.scan(before, Action::Delete(&found.shown)).await
    }

    async fn scan(&self, before: OffsetDateTime, action: Action<'_>) -> Result<Orphans, OrphanError> {
        if before > self.store.now().await? {
            return Err(OrphanError::NotPast);
        }
        let records = self.store.images.inventory().await?;
        let mut scan = Scan { valet: self, before, action, seen: Orphans::default(), objects: Vec::new(), records: Vec::new() };
        let mut records = Records { inventory: records, next: None };
        records.advance(&mut scan.seen).await?;
        for prefix in PREFIXES {
            let mut next = None;
            loop {
                let page = self.objects.list_page(prefix, next).await?;
                for object in page.objects {
                    scan.compare(object, &mut records).await?;
                }
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        while let Some(passed) = records.next.take() {
            scan.suspect_record(passed).await?;
            records.advance(&mut scan.seen).await?;
        }
        scan.judge_objects().await?;
        scan.judge_records().await?;
        Ok(scan.seen)
    }
}

/// The treatment of orphans.
enum Action<'a> {
    /// Passes each on.
    Report(&'a mut (dyn FnMut(&Listed) + Send + 'a)),
    /// Deletes those that the operator has seen.
    Delete(&'a Shown),
}

/// The records in their order, the next one read ahead.
struct Records {
    inventory: Inventory,
    next: Option<Entry>,
}

impl Records {
    /// Reads the next record; unreadable ones are counted and passed over.
    async fn advance(&mut self, seen: &mut Orphans) -> Result<(), StoreError> {
        loop {
            match self.inventory.next().await {
                Ok(next) => {
                    seen.records += u64::from(next.is_some());
                    self.next = next;
                    return Ok(());
                }
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::warn!(%error, "failed to read a record; its object is not judged");
                    seen.records += 1;
                    seen.unreadable += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

struct Scan<'v, 'a> {
    valet: &'v Valet,
    before: OffsetDateTime,
    action: Action<'a>,
    seen: Orphans,
    objects: Vec<(Listed, KeyOwner)>,
    records: Vec<Entry>,
}

impl Scan<'_, '_> {
    async fn compare(&mut self, object: Listed, records: &mut Records) -> Result<(), OrphanError> {
        while let Some(passed) = records.next.take_if(|record| record.key.as_str() < object.key.as_str()) {
            self.suspect_record(passed).await?;
            records.advance(&mut self.seen).await?;
        }
        let Some(owner) = object.key.owner() else {
            self.seen.foreign.add(object.key);
            return Ok(());
        };
        self.seen.objects += 1;
        if records.next.take_if(|record| record.key == object.key).is_some() {
            records.advance(&mut self.seen).await?;
            return Ok(());
        }
        self.objects.push((object, owner));
        if self.objects.len() < BATCH { Ok(()) } else { self.judge_objects().await }
    }

    /// Only a ready image promises an object.
    async fn suspect_record(&mut self, record: Entry) -> Result<(), StoreError> {
        if record.state == ImageState::Ready {
            self.records.push(record);
        }
        if self.records.len() < BATCH { Ok(()) } else { self.judge_records().await }
    }

    /// An object is an orphan when no record owns it. While the sweeper has something to do about an image, everything under
    /// the image's name is the sweeper's.
    async fn judge_objects(&mut self) -> Result<(), OrphanError> {
        let suspects = std::mem::take(&mut self.objects);
        let ids: Vec<ImageId> = suspects.iter().map(|(_, owner)| owner.image).collect();
        let known = self.valet.store.images.entries(&ids).await?;
        let is_known = |object: &Listed, owner: KeyOwner| match known.get(&owner.image) {
            Some(Some(entry)) => entry.user == owner.user && entry.owns(&object.key),
            // The record cannot be read: it may well own the object.
            Some(None) => true,
            None => false,
        };
        let unknown = suspects.into_iter().filter(|(object, owner)| !is_known(object, *owner)).map(|(object, _)| object);
        let (mut orphans, young): (Vec<_>, Vec<_>) = unknown.partition(|object| object.modified < self.before);
        self.seen.young += count(young.len());
        match &mut self.action {
            Action::Report(on_orphan) => {
                for orphan in &orphans {
                    on_orphan(orphan);
                    self.seen.shown.insert(&orphan.key);
                }
            }
            Action::Delete(shown) => {
                let found = orphans.len();
                orphans.retain(|orphan| shown.contains(&orphan.key));
                self.seen.new += count(found - orphans.len());
                let deleted = self.valet.purge_orphans(&orphans).await;
                self.seen.deleted += deleted;
                self.seen.failed += count(orphans.len()) - deleted;
            }
        }
        for orphan in orphans {
            self.seen.orphan_bytes += orphan.size;
            self.seen.orphans.add(orphan);
        }
        Ok(())
    }

    /// A ready image is missing its object when S3 says so, and it is ready there still when S3 has said so.
    async fn judge_records(&mut self) -> Result<(), StoreError> {
        let (valet, suspects) = (self.valet, std::mem::take(&mut self.records));
        let heads = stream::iter(suspects).map(|record| async move {
            let head = valet.objects.head(&record.key).await?;
            Ok::<_, StoreError>(head.is_none().then_some(record))
        });
        let absent: Vec<Entry> = heads.buffered(AT_ONCE).try_filter_map(|record| async move { Ok(record) }).try_collect().await?;
        let ids: Vec<ImageId> = absent.iter().map(|record| record.id).collect();
        let now = valet.store.images.entries(&ids).await?;
        for record in absent {
            let entry = now.get(&record.id).and_then(Option::as_ref);
            if entry.is_some_and(|entry| entry.state == ImageState::Ready && entry.key == record.key) {
                self.seen.missing.add(record.key);
            }
        }
        Ok(())
    }
}

impl Valet {
    /// Deletes these objects with their versions. Returns how many were; failures are logged.
    async fn purge_orphans(&self, orphans: &[Listed]) -> u64 {
        let purges = stream::iter(orphans).map(|orphan| async move {
            let purged = self.objects.purge(&orphan.key).await;
            if let Err(error) = &purged {
                tracing::warn!(key = %orphan.key, %error, "failed to delete an orphan");
            }
            u64::from(purged.is_ok())
        });
        purges.buffer_unordered(AT_ONCE).fold(0, |sum, one| async move { sum + one }).await
    }
}
