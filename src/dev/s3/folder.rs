//! The folder on disk: buckets, their objects' files and their index in memory; independent of HTTP and the S3 protocol.
//!
//! ```text
//! lock                          held by the one server that uses the folder
//! tmp/                          unpublished files; emptied at open
//! buckets/NAME/bucket.json      creation time of the bucket
//! buckets/NAME/objects/HEX      one file per object, named by the SHA-256 of its key (see `object`)
//! buckets/NAME/uploads/ID/      one folder per multipart upload (see `upload`)
//! ```
//!
//! A file is published only by a rename or a hard link, so a killed process leaves complete objects, and incomplete files in
//! `tmp/` only. A bucket's index lock is held while publishing and removing: condition and effect are one step.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use s3s::crypto::{Checksum as _, Sha256};
use s3s::{S3Result, s3_error};
use uuid::Uuid;

use super::LocalS3Error;
use super::condition::WriteCondition;
use super::object::{self, Meta, now_ms};
use super::upload::Upload;
use crate::signer::BucketName;

/// Number of attempts to take the lock: an ending server needs a moment to release it.
const LOCK_TRIES: usize = 40;
/// Pause between two of these attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The metadata of every object of a bucket, in the order of the keys' bytes.
pub(super) type Index = BTreeMap<String, Arc<Meta>>;

/// The open folder.
pub(super) struct Folder {
    root: PathBuf,
    buckets: RwLock<HashMap<String, Arc<Bucket>>>,
    /// Dropping the file releases the lock.
    _lock: File,
}

/// One bucket.
pub(super) struct Bucket {
    /// Name of the bucket.
    pub(super) name: String,
    /// Creation time in milliseconds since 1970.
    pub(super) created: i64,
    dir: PathBuf,
    index: Mutex<Index>,
}

/// A file in `tmp/` that is removed unless it is published.
pub(super) struct Temp {
    path: PathBuf,
}

impl Temp {
    /// Returns the file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // A file that was published by a rename no longer exists here; one that was published by a link has a second name.
        let _ = fs::remove_file(&self.path);
    }
}

impl Folder {
    /// Opens and locks the folder, and reads its contents.
    pub(super) fn open(root: PathBuf) -> Result<Self, LocalS3Error> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| LocalS3Error::Folder { path, source }
        };
        for part in ["", "buckets"] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(fail(&path))?;
        }
        let lock_path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(fail(&lock_path))?;
        let mut tries = 0;
        while let Err(e) = lock.try_lock() {
            tries += 1;
            match e {
                TryLockError::WouldBlock if tries < LOCK_TRIES => std::thread::sleep(LOCK_PAUSE),
                TryLockError::WouldBlock => return Err(LocalS3Error::InUse { path: root }),
                TryLockError::Error(source) => {
                    return Err(LocalS3Error::Folder { path: lock_path, source });
                }
            }
        }
        let tmp = root.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(&tmp)(e)),
            _ => fs::create_dir(&tmp).map_err(fail(&tmp))?,
        }
        let dir = root.join("buckets");
        let mut buckets = HashMap::new();
        for entry in fs::read_dir(&dir).map_err(fail(&dir))? {
            let path = entry.map_err(fail(&dir))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else {
                continue;
            };
            if !path.is_dir() || name.parse::<BucketName>().is_err() {
                continue;
            }
            let bucket = Bucket::load(name.clone(), path.clone()).map_err(fail(&path))?;
            buckets.insert(name, Arc::new(bucket));
        }
        Ok(Self { root, buckets: RwLock::new(buckets), _lock: lock })
    }

    /// Returns the folder's path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a new name in `tmp/`.
    pub(super) fn temp(&self) -> Temp {
        Temp { path: self.root.join("tmp").join(Uuid::new_v4().simple().to_string()) }
    }

    /// Returns the bucket with this name.
    pub(super) fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        self.buckets.read().get(name).cloned().ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// Returns all buckets, sorted by name.
    pub(super) fn buckets(&self) -> Vec<Arc<Bucket>> {
        let mut all: Vec<_> = self.buckets.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Creates a bucket; returns false if it exists.
    pub(super) fn create_bucket(&self, name: &BucketName) -> io::Result<bool> {
        let mut buckets = self.buckets.write();
        if buckets.contains_key(&**name) {
            return Ok(false);
        }
        let draft = self.temp().path.clone();
        fs::create_dir(&draft)?;
        fs::create_dir(draft.join("objects"))?;
        fs::create_dir(draft.join("uploads"))?;
        let created = now_ms();
        fs::write(draft.join("bucket.json"), serde_json::to_vec(&created)?)?;
        let dir = self.root.join("buckets").join(&**name);
        fs::rename(&draft, &dir)?;
        let bucket = Bucket { name: name.to_string(), created, dir, index: Mutex::default() };
        buckets.insert(name.to_string(), Arc::new(bucket));
        Ok(true)
    }

    /// Removes an empty bucket, and its uploads.
    pub(super) fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = self.buckets.write();
        let Some(bucket) = buckets.get(name).cloned() else {
            return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"));
        };
        let index = bucket.index();
        if !index.is_empty() {
            return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
        }
        self.discard(&bucket.dir).map_err(internal)?;
        buckets.remove(name);
        Ok(())
    }

    /// Removes a folder in one step: renames it into `tmp/`, then deletes its contents.
    pub(super) fn discard(&self, dir: &Path) -> io::Result<()> {
        let discarded = self.temp();
        fs::rename(dir, &discarded.path)?;
        // Files that are left after a failure are removed at the next open.
        let _ = fs::remove_dir_all(&discarded.path);
        Ok(())
    }
}

impl Bucket {
    /// Reads a bucket and the metadata of its objects.
    fn load(name: String, dir: PathBuf) -> io::Result<Self> {
        let created = serde_json::from_slice(&fs::read(dir.join("bucket.json"))?)?;
        let mut index = Index::new();
        for entry in fs::read_dir(dir.join("objects"))? {
            let path = entry?.path();
            match object::load(&path) {
                Ok((_file, meta)) => {
                    index.insert(meta.key.clone(), Arc::new(meta));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                    // A power cut leaves such a file. It cannot be read, and its name would block a new upload.
                    tracing::warn!(file = %path.display(), %error, "local S3: torn object removed");
                    fs::remove_file(&path)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { name, created, dir, index: Mutex::new(index) })
    }

    /// Locks the index. Hold the lock for microseconds only, and never across an await.
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock()
    }

    /// Returns the path of a file or folder of this bucket.
    pub(super) fn path(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    /// Returns the object's metadata.
    pub(super) fn meta(&self, key: &str) -> S3Result<Arc<Meta>> {
        self.index().get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    /// Returns metadata and file of the same version of an object.
    pub(super) fn open(&self, key: &str) -> S3Result<(File, Arc<Meta>)> {
        let index = self.index();
        let meta = index.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
        let file = File::open(self.object_path(key)).map_err(internal)?;
        Ok((file, meta))
    }

    /// Publishes a finished file: from here on the object exists. `ends` is the multipart upload that ends in the same step.
    pub(super) fn publish(
        &self,
        temp: &Temp,
        meta: Meta,
        condition: &WriteCondition,
        ends: Option<(&Folder, &Upload)>,
    ) -> S3Result<Arc<Meta>> {
        let mut index = self.index();
        condition.check(index.get(&meta.key).map(Arc::as_ref))?;
        if let Some((_folder, upload)) = ends {
            upload.check_alive(self)?;
        }
        let path = self.object_path(&meta.key);
        let published = match condition {
            WriteCondition::Absent => fs::hard_link(&temp.path, &path),
            _ => fs::rename(&temp.path, &path),
        };
        match published {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(super::condition::failed());
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"));
            }
            Err(e) => return Err(internal(e)),
        }
        let meta = Arc::new(meta);
        index.insert(meta.key.clone(), Arc::clone(&meta));
        if let Some((folder, upload)) = ends {
            upload.discard(folder, self)?;
        }
        Ok(meta)
    }

    /// Removes an object; succeeds if it is missing, unless a condition requires it.
    pub(super) fn remove(&self, key: &str, condition: &WriteCondition) -> S3Result<()> {
        let mut index = self.index();
        if *condition != WriteCondition::Always && !index.contains_key(key) {
            return Err(super::condition::failed());
        }
        condition.check(index.get(key).map(Arc::as_ref))?;
        if index.contains_key(key) {
            match fs::remove_file(self.object_path(key)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(internal(e)),
                _ => {}
            }
            index.remove(key);
        }
        Ok(())
    }

    /// Returns the path of an object's file. Its name is a digest, because keys may have 1024 bytes of any kind, while names of
    /// files are shorter and, on some systems, ignore case.
    fn object_path(&self, key: &str) -> PathBuf {
        let digest = Sha256::checksum(key.as_bytes());
        self.dir.join("objects").join(hex::encode(digest))
    }
}

/// Converts a file system error to S3's 500 with its text: this server's only user is its developer.
pub(super) fn internal(e: io::Error) -> s3s::S3Error {
    tracing::error!(error = %e, "local S3: file error");
    s3_error!(InternalError, "{e}")
}

/// Runs work that reads or writes files on the threads for blocking work.
pub(super) async fn blocking<T, F>(work: F) -> S3Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> S3Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|e| s3_error!(InternalError, "{e}"))?
}
