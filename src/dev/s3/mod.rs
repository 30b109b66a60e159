//! An S3 server inside the process, over a folder: for development and tests only, never for production.
//!
//! The crate `s3s` implements the protocol (routing, XML, signatures); this module has the object store beneath it, the HTTP
//! layer in front of it (CORS, checks that AWS makes and `s3s` omits, request ids), and browsers' forms with their policies. The
//! server behaves as AWS S3 does in everything that affects presigned uploads. It does not replicate, version or encrypt, has one
//! pair of keys with all permissions, and its data survives a killed process but not a power cut (nothing is synced to the disk).
//!
//! This module uses neither poem nor mongodb, and nothing outside `dev` may depend on it.

mod api;
mod authentication;
mod authorization;
mod bucket_setting;
mod checksum;
mod condition;
mod copy;
mod cors;
mod errors;
mod folder;
mod form;
mod gate;
mod ignored_range;
mod ingest;
mod lifecycle;
mod listing;
mod multipart;
mod object;
mod policy;
mod put;
mod read;
mod server;
mod unsupported;
mod upload;
mod xml_digest;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use crate::config::CorsOrigins;
use crate::signer::BucketName;

use folder::Folder;
use gate::Gate;

/// Options of a local S3 server.
#[derive(Clone)]
pub struct LocalS3Options {
    /// Folder with the buckets; created if missing. Only one server at a time may use it.
    pub root: PathBuf,
    /// The only accepted access key id.
    pub access_key: String,
    /// Secret of that access key.
    pub secret_key: SecretString,
    /// The region for which requests must be signed.
    pub region: String,
    /// Origins whose pages may read answers.
    pub cors: CorsOrigins,
}

impl fmt::Debug for LocalS3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalS3Options")
            .field("root", &self.root)
            .field("access_key", &self.access_key)
            .field("secret_key", &"[redacted]")
            .field("region", &self.region)
            .field("cors", &self.cors)
            .finish()
    }
}

/// Reason why a local S3 server cannot be opened, or a bucket not be created.
#[derive(Debug, thiserror::Error)]
pub enum LocalS3Error {
    /// The folder cannot be created, read or written.
    #[error("the S3 folder {} cannot be used: {source}", path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Another server uses the folder.
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
    /// Opens the folder: creates it if missing, takes its lock, removes incomplete files of a killed server, and reads every
    /// object's metadata into memory (about 20 µs each). Does file I/O and may wait two seconds for an ending server's lock: call
    /// it before serving, or from `spawn_blocking`.
    ///
    /// # Errors
    ///
    /// If the folder is not writable or another server holds it, and if the keys are empty.
    pub fn open(options: LocalS3Options) -> Result<Self, LocalS3Error> {
        if options.access_key.is_empty() || options.secret_key.expose_secret().is_empty() {
            return Err(LocalS3Error::NoKeys);
        }
        let folder = Arc::new(Folder::open(options.root.clone())?);
        let gate = Arc::new(Gate::new(&options, Arc::clone(&folder)));
        Ok(Self { folder, gate })
    }

    /// Creates a bucket; succeeds if it exists.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn create_bucket(&self, name: &BucketName) -> Result<(), LocalS3Error> {
        self.folder
            .create_bucket(name)
            .map(|_new| ())
            .map_err(|source| LocalS3Error::Folder { path: self.folder.root().join(&**name), source })
    }
}
