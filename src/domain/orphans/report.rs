//! The result of an orphan scan, its text, its errors, and the rule by which the result allows a deletion.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
};

use time::format_description::well_known::Rfc3339;

use crate::{
    domain::deployment::{PairError, Stamps},
    model::ObjectKey,
    store::{
        StoreError,
        objects::list::{ListedObject, ListedUpload},
    },
};

/// Maximum number of listed keys of each kind.
const MAX_LISTED: usize = 100;
/// If the operator does not name the number of orphans, at most one in this many objects is deleted.
const MIN_OBJECTS_PER_ORPHAN: u64 = 10;

/// The result of an orphan scan.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Objects under keys of Valet's form.
    pub objects: u64,
    /// Records that own an object.
    pub records: u64,
    /// Records that could not be read. Their objects are not judged.
    pub unreadable: u64,
    /// Objects under keys of any other form. They belong to another program and are never deleted.
    pub foreign: CountedItems<ObjectKey>,
    /// Objects, old enough to be judged, without a record or with a purged one.
    pub orphans: CountedItems<ListedObject>,
    /// Size of the orphans in bytes.
    pub orphan_bytes: u64,
    /// Open multipart uploads at keys of Valet's form.
    pub open: u64,
    /// Open multipart uploads, old enough to be judged, without a record, or with an image for which the sweeper has no work.
    pub uploads: CountedItems<ListedUpload>,
    /// Objects and open multipart uploads without a record that are not old enough to be judged.
    pub young: u64,
    /// Ready images whose object is missing.
    pub missing: CountedItems<ObjectKey>,
    /// Orphans that were deleted, or aborted.
    pub deleted: u64,
    /// Orphans that could not be deleted.
    pub failed: u64,
    /// Orphans that the earlier scan did not report. They are not deleted.
    pub new: u64,
    /// Orphans that this scan has reported.
    pub(super) shown: ReportedOrphans,
}

/// The keys of the orphans that a scan has reported: 64 bits of a keyed hash of each, about 16 bytes of memory for
/// each.
#[derive(Default)]
pub(super) struct ReportedOrphans {
    hasher: RandomState,
    keys: HashSet<u64>,
}

impl ReportedOrphans {
    /// Adds the key of an object.
    pub(super) fn insert(&mut self, key: &ObjectKey) {
        self.keys.insert(self.hasher.hash_one(key.as_str()));
    }

    /// Returns whether the key of an object was added.
    pub(super) fn contains(&self, key: &ObjectKey) -> bool {
        self.keys.contains(&self.hasher.hash_one(key.as_str()))
    }

    /// Adds an open multipart upload.
    pub(super) fn insert_upload(&mut self, upload: &ListedUpload) {
        self.keys.insert(self.hasher.hash_one((upload.key.as_str(), &upload.id)));
    }

    /// Returns whether an open multipart upload was added.
    pub(super) fn contains_upload(&self, upload: &ListedUpload) -> bool {
        self.keys.contains(&self.hasher.hash_one((upload.key.as_str(), &upload.id)))
    }
}

impl fmt::Debug for ReportedOrphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

/// The operator's consent to delete the orphans that a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Consent without the number: allows at most a tenth of the objects.
    Given,
    /// Consent to this number, which must be the scan's.
    Number(u64),
}

/// A count, and the first items.
#[derive(Debug)]
pub struct CountedItems<T> {
    /// Number of all items.
    pub count: u64,
    /// The first items, at most a hundred.
    pub first: Vec<T>,
}

impl<T> Default for CountedItems<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T> CountedItems<T> {
    /// Counts an item, and keeps the first [`MAX_LISTED`].
    pub(super) fn add(&mut self, item: T) {
        self.count += 1;
        if self.first.len() < MAX_LISTED {
            self.first.push(item);
        }
    }
}

impl Orphans {
    /// Returns the number of orphaned objects and open uploads, to which an operator consents.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.orphans.count + self.uploads.count
    }

    /// Rejects a deletion that the database does not justify: with a wrong, empty or partly restored database every object looks
    /// like an orphan.
    pub(super) fn require_consent(&self, consent: Consent) -> Result<(), OrphanError> {
        let (orphans, all) = (self.number(), self.objects + self.open);
        if orphans > 0 && self.records == 0 {
            return Err(OrphanError::NoRecords { objects: self.objects });
        }
        match consent {
            Consent::Number(number) if number != orphans => Err(OrphanError::OtherNumber { orphans }),
            Consent::Given if orphans.saturating_mul(MIN_OBJECTS_PER_ORPHAN) > all => {
                Err(OrphanError::NumberWanted { orphans, objects: all })
            }
            Consent::Given | Consent::Number(_) => Ok(()),
        }
    }

    /// Returns the counts without the keys, a line each.
    #[must_use]
    pub fn counts(&self) -> String {
        let Self {
            objects,
            records,
            unreadable,
            foreign,
            orphans,
            orphan_bytes,
            open,
            uploads,
            young,
            missing,
            deleted,
            failed,
            ..
        } = self;
        let lines = [
            format!("{objects} objects and {records} records compared"),
            format!("{} orphaned objects of {}", orphans.count, bytesize::ByteSize(*orphan_bytes)),
            format!("{} orphaned multipart uploads of {open} open ones", uploads.count),
            format!("{young} younger objects and uploads without a record, not judged"),
            format!("{} ready images without an object", missing.count),
            format!("{} objects of other programs, left alone", foreign.count),
            format!("{unreadable} unreadable records, their objects not judged"),
            format!("{deleted} objects deleted, {failed} failed"),
        ];
        lines.join("\n")
    }
}

impl fmt::Display for ListedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modified = self.modified.format(&Rfc3339).unwrap_or_default();
        write!(f, "{} ({}, written {modified})", self.key, bytesize::ByteSize(self.size))
    }
}

impl fmt::Display for ListedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (opened {})", self.key, self.initiated.format(&Rfc3339).unwrap_or_default())
    }
}

/// An orphan that a scan reports.
#[derive(Debug, Clone, Copy)]
pub enum Orphan<'a> {
    /// An object.
    Object(&'a ListedObject),
    /// An open multipart upload.
    Upload(&'a ListedUpload),
}

impl fmt::Display for Orphan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => write!(f, "{OBJECT}: {object}"),
            Self::Upload(upload) => write!(f, "{UPLOAD}: {upload}"),
        }
    }
}

/// Beginning of a line about an orphaned object.
const OBJECT: &str = "orphaned object";
/// Beginning of a line about an orphaned multipart upload.
const UPLOAD: &str = "orphaned multipart upload";

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, OBJECT, &self.orphans)?;
        list(f, UPLOAD, &self.uploads)?;
        list(f, "ready image without an object", &self.missing)?;
        list(f, "object of another program", &self.foreign)?;
        f.write_str(&self.counts())
    }
}

/// Writes a line for each listed item, and one for the others.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, kind: &str, found: &CountedItems<T>) -> fmt::Result {
    for item in &found.first {
        writeln!(f, "{kind}: {item}")?;
    }
    match found.count - count(found.first.len()) {
        0 => Ok(()),
        more => writeln!(f, "{kind}: … and {more} more"),
    }
}

/// Converts a length to a count.
pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Why a scan failed, or deleted nothing.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    /// The time is in the future: uploads in progress would be judged.
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
        "nothing was deleted: {orphans} of {objects} objects and open uploads are orphans, more than a tenth. Check MONGODB_DATABASE and S3_BUCKET; \
         if the number is right, repeat the command with --expect {orphans}"
    )]
    NumberWanted {
        /// Orphans of the scan.
        orphans: u64,
        /// Objects and open uploads in the bucket.
        objects: u64,
    },
    /// The operator named another number than the scan's.
    #[error("nothing was deleted: there are {orphans} orphans now; look at them again")]
    OtherNumber {
        /// Orphans of the scan.
        orphans: u64,
    },
    /// The database was restored from a backup that is older than the bucket.
    #[error(
        "the database was restored from a backup ({stamps}): objects that were uploaded since the backup have no record and are among \
         the orphans, so they are not deleted. If the objects are to go, run `valet join` and repeat the command"
    )]
    Restored {
        /// The stamps of bucket and database.
        stamps: Stamps,
    },
    /// The bucket and the database do not belong together (any more), or the check of that failed.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The database or S3 failed, possibly after some deletions.
    #[error(transparent)]
    Store(#[from] StoreError),
}
