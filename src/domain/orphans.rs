//! The orphan scan: bucket and database compared both ways, in bounded memory however many there are.
//!
//! Both sides stream in the order of keys and are merged; what has no partner there is only a suspect, and is looked up
//! by itself before it counts. So a listing out of order, or a change meanwhile, costs time and never a wrong verdict.

use std::{collections::HashMap, fmt};

use futures_util::{StreamExt, TryStreamExt, stream};
use time::OffsetDateTime;

use super::Valet;
use crate::{
    model::{ImageId, ImageState, ObjectKey},
    store::{Entry, StoreError, objects::listing::Listed},
};

/// Where Valet's objects lie, in the order of keys.
const PREFIXES: [&str; 2] = ["in/", "u/"];
/// Suspects that are looked up in one query.
const BATCH: usize = 500;
/// Calls to S3 at once.
const AT_ONCE: usize = 16;
/// Keys of each kind that are remembered to be shown.
const SHOWN: usize = 100;

/// What has no partner.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Objects that were listed.
    pub objects: u64,
    /// Records that were read.
    pub records: u64,
    /// Old objects without a record, or whose record is gone.
    pub orphans: Found<ObjectKey>,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Objects without a record that are not old enough to be judged.
    pub young: u64,
    /// Ready images whose object is missing.
    pub missing: Found<ObjectKey>,
    /// Orphans that were deleted.
    pub deleted: u64,
    /// Orphans that could not be.
    pub failed: u64,
}

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

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "orphaned object", &self.orphans)?;
        list(f, "ready image without an object", &self.missing)?;
        writeln!(f, "{} objects and {} records compared", self.objects, self.records)?;
        writeln!(f, "{} orphaned objects of {}", self.orphans.count, bytesize::ByteSize(self.orphan_bytes))?;
        writeln!(f, "{} younger objects without a record, not judged", self.young)?;
        writeln!(f, "{} ready images without an object", self.missing.count)?;
        write!(f, "{} objects deleted, {} failed", self.deleted, self.failed)
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, found: &Found<ObjectKey>) -> fmt::Result {
    for key in &found.first {
        writeln!(f, "{what}: {key}")?;
    }
    match found.count - u64::try_from(found.first.len()).unwrap_or(0) {
        0 => Ok(()),
        more => writeln!(f, "{what}: … and {more} more"),
    }
}

/// Why there was no scan, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    /// Uploads of this moment would be judged.
    #[error("the time must lie in the past: uploads that are under way must not be judged")]
    NotPast,
    /// The database or S3 failed; what was deleted until then is, and nothing else changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Valet {
    /// Finds objects written before `before` that no record owns, and ready images without an object. With `delete`,
    /// the objects go; records are never touched.
    ///
    /// # Errors
    /// [`OrphanError`].
    pub async fn find_orphans(&self, before: OffsetDateTime, delete: bool) -> Result<Orphans, OrphanError> {
        if before > self.store.now().await? {
            return Err(OrphanError::NotPast);
        }
        let mut scan = Scan { valet: self, before, delete, seen: Orphans::default(), objects: Vec::new(), records: Vec::new() };
        let mut records = self.store.images.inventory().await?;
        let mut record = scan.read(records.next().await?);
        for prefix in PREFIXES {
            let mut next = None;
            loop {
                let page = self.objects.list_page(prefix, next).await?;
                for object in page.objects {
                    scan.seen.objects += 1;
                    while let Some(passed) = record.take_if(|record| record.key.as_str() < object.key.as_str()) {
                        scan.suspect_record(passed).await?;
                        record = scan.read(records.next().await?);
                    }
                    if record.take_if(|record| record.key == object.key).is_some() {
                        record = scan.read(records.next().await?);
                    } else {
                        scan.suspect_object(object).await?;
                    }
                }
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        while let Some(passed) = record {
            scan.suspect_record(passed).await?;
            record = scan.read(records.next().await?);
        }
        scan.judge_objects().await?;
        scan.judge_records().await?;
        Ok(scan.seen)
    }
}

struct Scan<'a> {
    valet: &'a Valet,
    before: OffsetDateTime,
    delete: bool,
    seen: Orphans,
    objects: Vec<Listed>,
    records: Vec<Entry>,
}

impl Scan<'_> {
    fn read(&mut self, record: Option<Entry>) -> Option<Entry> {
        self.seen.records += u64::from(record.is_some());
        record
    }

    async fn suspect_object(&mut self, object: Listed) -> Result<(), StoreError> {
        self.objects.push(object);
        if self.objects.len() < BATCH { Ok(()) } else { self.judge_objects().await }
    }

    /// Only a ready image promises an object.
    async fn suspect_record(&mut self, record: Entry) -> Result<(), StoreError> {
        if record.state == ImageState::Ready {
            self.records.push(record);
        }
        if self.records.len() < BATCH { Ok(()) } else { self.judge_records().await }
    }

    /// An object is an orphan when no record owns it. While the sweeper has something to do about an image, all that lies
    /// under the image's name is the sweeper's.
    async fn judge_objects(&mut self) -> Result<(), StoreError> {
        let suspects = std::mem::take(&mut self.objects);
        let ids: Vec<ImageId> = suspects.iter().filter_map(|object| owner(&object.key)).map(|(_, id)| id).collect();
        let known: HashMap<ImageId, Entry> =
            self.valet.store.images.entries(&ids).await?.into_iter().map(|entry| (entry.id, entry)).collect();
        let is_known = |object: &Listed| {
            let entry = owner(&object.key).and_then(|(user, id)| known.get(&id).filter(|entry| entry.user.to_string() == user));
            entry.is_some_and(|entry| entry.owns(&object.key))
        };
        let (orphans, young): (Vec<_>, Vec<_>) =
            suspects.into_iter().filter(|object| !is_known(object)).partition(|object| object.modified < self.before);
        self.seen.young += u64::try_from(young.len()).unwrap_or(0);
        let valet = self.valet;
        if self.delete {
            let deleted = stream::iter(&orphans).map(|orphan| async move {
                let purged = valet.objects.purge(&orphan.key).await;
                if let Err(error) = &purged {
                    tracing::warn!(key = %orphan.key, %error, "an orphan could not be deleted");
                }
                u64::from(purged.is_ok())
            });
            let deleted: u64 = deleted.buffer_unordered(AT_ONCE).fold(0, |sum, one| async move { sum + one }).await;
            self.seen.deleted += deleted;
            self.seen.failed += u64::try_from(orphans.len()).unwrap_or(0) - deleted;
        }
        for orphan in orphans {
            self.seen.orphan_bytes += orphan.size;
            self.seen.orphans.add(orphan.key);
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
            let still = |entry: &Entry| entry.id == record.id && entry.state == ImageState::Ready && entry.key == record.key;
            if now.iter().any(still) {
                self.seen.missing.add(record.key);
            }
        }
        Ok(())
    }
}

/// Whose a key is, by its text: `u/<user>/<image>`, and whatever follows the image's id.
fn owner(key: &ObjectKey) -> Option<(&str, ImageId)> {
    let mut segments = key.as_str().split('/').skip(1);
    let user = segments.next()?;
    Some((user, ImageId::parse(segments.next()?.get(..36)?)?))
}
