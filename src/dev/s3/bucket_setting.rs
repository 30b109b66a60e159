//! Settings of a bucket that are stored and returned. Only the CORS rules are applied: no object is public, and none expires.

use std::fs;
use std::io;

use s3s::{S3ErrorCode, S3Result, s3_error};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::folder::{Bucket, Folder, internal};

/// A setting of a bucket, stored in a file of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum BucketSetting {
    Cors,
    PublicAccessBlock,
    Lifecycle,
}

impl BucketSetting {
    /// Returns the name of the setting's file.
    const fn file(self) -> &'static str {
        match self {
            Self::Cors => "cors.json",
            Self::PublicAccessBlock => "public-access-block.json",
            Self::Lifecycle => "lifecycle.json",
        }
    }

    /// Stores the setting's value.
    pub(super) fn put(self, folder: &Folder, bucket: &Bucket, value: &impl Serialize) -> S3Result<()> {
        let temp = folder.temp();
        let json = serde_json::to_vec(value).map_err(|e| internal(e.into()))?;
        fs::write(temp.path(), json).map_err(internal)?;
        fs::rename(temp.path(), bucket.path(self.file())).map_err(internal)
    }

    /// Returns the setting's value, or S3's error for a missing one.
    pub(super) fn get<T: DeserializeOwned>(self, bucket: &Bucket) -> S3Result<T> {
        match fs::read(bucket.path(self.file())) {
            Ok(json) => serde_json::from_slice(&json).map_err(|e| internal(e.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(match self {
                Self::Cors => s3_error!(NoSuchCORSConfiguration, "The CORS configuration does not exist"),
                Self::Lifecycle => {
                    s3_error!(NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist")
                }
                Self::PublicAccessBlock => {
                    let code = S3ErrorCode::Custom("NoSuchPublicAccessBlockConfiguration".into());
                    let mut error = s3s::S3Error::with_message(code, "The public access block configuration was not found");
                    error.set_status_code(hyper::StatusCode::NOT_FOUND);
                    error
                }
            }),
            Err(e) => Err(internal(e)),
        }
    }

    /// Removes the setting; succeeds if it is missing.
    pub(super) fn delete(self, bucket: &Bucket) -> S3Result<()> {
        match fs::remove_file(bucket.path(self.file())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(internal(e)),
            _ => Ok(()),
        }
    }
}
