//! The result of an orphan scan, its text, and whether it allows a deletion.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
};

use time::format_description::well_known::Rfc3339;

use crate::{
    model::ObjectKey,
    store::{
        StoreError,
        objects::list::{ListedObject, ListedUpload},
    },
};

/// Keys of each kind that are remembered to be shown.
const MAX_LISTED: usize = 100;
/// Without the operator naming the number, at most one object in so many is deleted.
const MAX_ORPHAN_SHARE: u64 = 10;

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
    pub foreign: Found<ObjectKey>,
    /// Old objects without a record, or whose record is gone.
    pub orphans: Found<ListedObject>,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Open multipart uploads at keys of Valet's form.
    pub open: u64,
    /// Old open uploads without a record, or whose record is gone or of a settled image.
    pub uploads: Found<ListedUpload>,
    /// Objects and open uploads without a record that are not old enough to be judged.
    pub young: u64,
    /// Ready images whose object is missing.
    pub missing: Found<ObjectKey>,
    /// Orphans that were deleted, or aborted.
    pub deleted: u64,
    /// Orphans that could not be deleted.
    pub failed: u64,
    /// Orphans that the scan before a deletion had not shown. They are left alone.
    pub new: u64,
    pub(super) shown: Shown,
}

/// The keys of the orphans that a scan has shown: 64 bits of a keyed hash of each, some 16 bytes of memory an orphan.
#[derive(Default)]
pub(super) struct Shown {
    hasher: RandomState,
    keys: HashSet<u64>,
}

impl Shown {
    pub(super) fn insert(&mut self, key: &ObjectKey) {
        self.keys.insert(self.hasher.hash_one(key.as_str()));
    }

    pub(super) fn contains(&self, key: &ObjectKey) -> bool {
        self.keys.contains(&self.hasher.hash_one(key.as_str()))
    }

    pub(super) fn insert_upload(&mut self, upload: &ListedUpload) {
        self.keys.insert(self.hasher.hash_one((upload.key.as_str(), &upload.id)));
    }

    pub(super) fn contains_upload(&self, upload: &ListedUpload) -> bool {
        self.keys.contains(&self.hasher.hash_one((upload.key.as_str(), &upload.id)))
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
    pub(super) fn add(&mut self, item: T) {
        self.count += 1;
        if self.first.len() < MAX_LISTED {
            self.first.push(item);
        }
    }
}

impl Orphans {
    /// Orphaned objects and open uploads: the number that an operator consents to.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.orphans.count + self.uploads.count
    }

    /// Refuses a deletion that the database does not vouch for: a wrong, empty or half restored one makes every object look
    /// like an orphan.
    pub(super) fn allow_deletion(&self, consent: Consent) -> Result<(), OrphanError> {
        let (orphans, all) = (self.number(), self.objects + self.open);
        if orphans > 0 && self.records == 0 {
            return Err(OrphanError::NoRecords { objects: self.objects });
        }
        match consent {
            Consent::Number(number) if number != orphans => Err(OrphanError::OtherNumber { orphans }),
            Consent::Given if orphans.saturating_mul(MAX_ORPHAN_SHARE) > all => {
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

/// An orphan, as it is shown.
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

const OBJECT: &str = "orphaned object";
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

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, kind: &str, found: &Found<T>) -> fmt::Result {
    for item in &found.first {
        writeln!(f, "{kind}: {item}")?;
    }
    match found.count - count(found.first.len()) {
        0 => Ok(()),
        more => writeln!(f, "{kind}: … and {more} more"),
    }
}

pub(super) fn count(length: usize) -> u64 {
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
        "nothing was deleted: {orphans} of {objects} objects and open uploads are orphans, more than a tenth. Check MONGODB_DATABASE and S3_BUCKET; \
         if the number is right, repeat the command with --expect {orphans}"
    )]
    NumberWanted {
        /// Orphans of the scan.
        orphans: u64,
        /// Objects and open uploads in the bucket.
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
