//! A multipart upload on disk: `upload.json`, and one file per part in the form of `object`; independent of the S3 protocol.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::checksum::{Algorithm, ChecksumCoverage};
use super::folder::{Bucket, Folder, Temp, internal};
use super::object::{self, Headers, Meta, now_ms};

/// Parameters of the upload's creation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Upload {
    /// Id of the upload: the folder's name.
    pub(super) id: String,
    /// The key of the future object.
    pub(super) key: String,
    /// Creation time in milliseconds since 1970.
    pub(super) created: i64,
    /// Headers to store with the object.
    pub(super) headers: Headers,
    /// The requested checksum.
    pub(super) algorithm: Option<Algorithm>,
    /// Input of the requested checksum.
    pub(super) kind: ChecksumCoverage,
}

/// Returns the 404 for an unknown upload.
fn no_such_upload() -> s3s::S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )
}

impl Upload {
    /// Creates an upload: it becomes visible by the rename of its folder.
    pub(super) fn create(
        folder: &Folder,
        bucket: &Bucket,
        key: String,
        headers: Headers,
        algorithm: Option<Algorithm>,
        kind: ChecksumCoverage,
    ) -> io::Result<Self> {
        let id = Uuid::new_v4().simple().to_string();
        let upload = Self { id, key, created: now_ms(), headers, algorithm, kind };
        let draft = folder.temp().path().to_owned();
        fs::create_dir(&draft)?;
        fs::write(draft.join("upload.json"), serde_json::to_vec(&upload)?)?;
        fs::rename(&draft, upload.dir(bucket))?;
        Ok(upload)
    }

    /// Returns the upload with this id and key, or the error 404.
    pub(super) fn find(bucket: &Bucket, id: &str, key: &str) -> S3Result<Self> {
        // An id is a file name here: accept only ids that this server creates.
        if Uuid::try_parse(id).is_err() || id.len() != 32 {
            return Err(no_such_upload());
        }
        let json = fs::read(bucket.path("uploads").join(id).join("upload.json")).map_err(|_| no_such_upload())?;
        let upload: Self = serde_json::from_slice(&json).map_err(|e| internal(e.into()))?;
        if upload.key == key && upload.id == id { Ok(upload) } else { Err(no_such_upload()) }
    }

    /// Returns all uploads of a bucket, by key and then by age.
    pub(super) fn all(bucket: &Bucket) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(bucket.path("uploads"))? {
            // An upload that ends meanwhile is not listed.
            let Ok(json) = fs::read(entry?.path().join("upload.json")) else {
                continue;
            };
            all.push(serde_json::from_slice::<Self>(&json)?);
        }
        all.sort_by(|a, b| (&a.key, a.created, &a.id).cmp(&(&b.key, b.created, &b.id)));
        Ok(all)
    }

    /// Returns the upload's folder.
    fn dir(&self, bucket: &Bucket) -> PathBuf {
        bucket.path("uploads").join(&self.id)
    }

    /// Publishes a finished part; a part that is sent again replaces the first.
    pub(super) fn put_part(&self, bucket: &Bucket, number: i32, temp: &Temp) -> S3Result<()> {
        match fs::rename(temp.path(), self.dir(bucket).join(format!("{number:05}.part"))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(no_such_upload()),
            other => other.map_err(internal),
        }
    }

    /// Returns a part's bytes and metadata.
    pub(super) fn part(&self, bucket: &Bucket, number: i32) -> Option<(File, Meta)> {
        object::load(&self.dir(bucket).join(format!("{number:05}.part"))).ok()
    }

    /// Returns the numbers of the existing parts, ascending.
    pub(super) fn part_numbers(&self, bucket: &Bucket) -> S3Result<Vec<i32>> {
        let entries = fs::read_dir(self.dir(bucket)).map_err(|_| no_such_upload())?;
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(internal)?.file_name();
            numbers.extend(name.to_str().and_then(|n| n.strip_suffix(".part")?.parse::<i32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Returns an error if the upload has been completed or aborted meanwhile. A caller that then changes the upload holds the
    /// bucket's index lock.
    pub(super) fn check_alive(&self, bucket: &Bucket) -> S3Result<()> {
        if self.dir(bucket).exists() { Ok(()) } else { Err(no_such_upload()) }
    }

    /// Removes the upload and its parts in one step.
    pub(super) fn discard(&self, folder: &Folder, bucket: &Bucket) -> S3Result<()> {
        match folder.discard(&self.dir(bucket)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(no_such_upload()),
            other => other.map_err(internal),
        }
    }
}
