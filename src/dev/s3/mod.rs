//! An S3 server inside the process, over a folder: for development and tests only, never for production.
//!
//! The protocol (routing, XML, signatures) is the crate `s3s`; here live the object store beneath it, the HTTP gate before it (CORS,
//! what AWS refuses and `s3s` does not, request ids) and browsers' forms with their policies. It behaves as AWS S3 does where a
//! presigned upload can tell the difference. It does not replicate, version or encrypt, has one pair of keys that may do
//! everything, and survives a killed process but not a power cut (nothing is synced to the disk).
//!
//! Nothing here names poem or mongodb, and nothing outside `dev` may depend on it.

mod api;
mod checksum;
mod condition;
mod config;
mod copy;
mod cors;
mod errors;
mod folder;
mod form;
mod gate;
mod guard;
mod ingest;
mod listing;
mod multipart;
mod object;
mod policy;
mod put;
mod read;
mod server;
mod upload;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use crate::config::CorsOrigins;
use crate::signer::BucketName;

use folder::Folder;
use gate::Gate;

/// What a local S3 server needs to know.
#[derive(Clone)]
pub struct Options {
    /// The folder that holds the buckets; made when missing. One server at a time may use it.
    pub root: PathBuf,
    /// The one access key id that is accepted.
    pub access_key: String,
    /// Its secret.
    pub secret_key: SecretString,
    /// The region that requests must be signed for.
    pub region: String,
    /// The origins whose pages may read answers.
    pub cors: CorsOrigins,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("root", &self.root)
            .field("access_key", &self.access_key)
            .field("secret_key", &"[redacted]")
            .field("region", &self.region)
            .field("cors", &self.cors)
            .finish()
    }
}

/// Why a local S3 server cannot be opened, or a bucket not be made.
#[derive(Debug, thiserror::Error)]
pub enum LocalS3Error {
    /// The folder cannot be made, read or written.
    #[error("the S3 folder {} cannot be used: {source}", path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another server holds the folder.
    #[error("the S3 folder {} is in use by another server", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The access key or the secret is empty.
    #[error("the local S3 server needs an access key and a secret")]
    NoKeys,
}

/// A local S3 server: opened, but not yet listening.
pub struct LocalS3 {
    folder: Arc<Folder>,
    gate: Arc<Gate>,
}

impl fmt::Debug for LocalS3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalS3").field("root", &self.folder.root()).finish_non_exhaustive()
    }
}

impl LocalS3 {
    /// Opens the folder: makes it when missing, takes its lock, removes what a killed server left half-written, and
    /// reads every object's metadata into memory (about 20 µs each). Does file I/O and may wait two seconds for an
    /// ending server's lock: call it before serving, or from `spawn_blocking`.
    ///
    /// # Errors
    /// When the folder is not writable or another server holds it, and when the keys are empty.
    pub fn open(options: Options) -> Result<Self, LocalS3Error> {
        if options.access_key.is_empty() || options.secret_key.expose_secret().is_empty() {
            return Err(LocalS3Error::NoKeys);
        }
        let folder = Arc::new(Folder::open(options.root.clone())?);
        let gate = Arc::new(Gate::new(&options, Arc::clone(&folder)));
        Ok(Self { folder, gate })
    }

    /// Makes a bucket; nothing happens when it exists.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create_bucket(&self, name: &BucketName) -> Result<(), LocalS3Error> {
        self.folder
            .create_bucket(name)
            .map(|_new| ())
            .map_err(|source| LocalS3Error::Folder { path: self.folder.root().join(&**name), source })
    }
}
