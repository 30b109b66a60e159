//! Known capabilities of the object store, and their consequences: which uploads are issued, and whether an object is final where
//! a client put it or is copied at confirm.
//!
//! `capability_probing` updates them. Until the first probe has succeeded, no upload is issued that some store does not take
//! safely, and every confirmed object is copied.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use time::OffsetDateTime;

use crate::{
    config::{self, Finalize},
    store::{StoreError, objects::Sealing},
};

/// How long a result is used that refuses every upload or is incomplete: an operator may be repairing the store.
const REFUSING_MAX_AGE: Duration = Duration::from_secs(60);
/// How long a result is used that refuses some uploads or seals PUTs: the store may have been replaced.
const WEAKER_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Whether the store takes a class of uploads safely: their URLs cannot be used to read or publish other objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadSafety {
    /// Safe.
    Safe,
    /// Safe if uploads are copied at confirm: their URLs can replace what they wrote.
    SafeIfCopied,
    /// Not safe.
    Unsafe,
    /// The store did not answer.
    Unknown,
}

/// How a store treats unsigned `x-amz-*` headers of a presigned request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedHeaders {
    /// Safety of uploads with a declared digest.
    pub with_digest: UploadSafety,
    /// Safety of all others: multipart uploads, and Uppy's.
    pub without_digest: UploadSafety,
    /// How PUTs are to be presigned.
    pub put_sealing: Sealing,
    /// Whether anyone may read every object without a URL.
    pub is_public: bool,
    /// The headers that the store obeyed, in words for the operator.
    pub obeyed: Vec<String>,
}

impl UnsignedHeaders {
    /// A store that refuses such headers, as AWS documents it: "Authenticating Requests: Using Query Parameters" in the API
    /// reference.
    fn refused() -> Self {
        Self {
            with_digest: UploadSafety::Safe,
            without_digest: UploadSafety::Safe,
            put_sealing: Sealing::Plain,
            is_public: false,
            obeyed: Vec::new(),
        }
    }

    /// Returns how long the result is used before the store is probed again; without end if the store obeyed no header.
    fn max_age(&self) -> Duration {
        if self.with_digest == UploadSafety::Unsafe || self.without_digest == UploadSafety::Unknown {
            REFUSING_MAX_AGE
        } else if self.obeyed.is_empty() {
            Duration::MAX
        } else {
            WEAKER_MAX_AGE
        }
    }

    /// Logs the consequences for the operator.
    pub(super) fn warn(&self, setting: Finalize) {
        let obeyed = self.obeyed.join(", ");
        if self.is_public {
            tracing::warn!("anyone who knows an object's key can read it without a URL; run `valet check` for the remedy");
        }
        match (self.with_digest, self.without_digest) {
            (UploadSafety::Unsafe, _) => tracing::warn!(
                obeyed,
                "the store obeys unsigned headers: anyone could publish objects of the bucket, so every upload is refused with 409 \
                 not_supported_by_store; `valet check --fix` makes the bucket ignore ACLs"
            ),
            (UploadSafety::SafeIfCopied, _) if setting == Finalize::InPlace => tracing::warn!(
                obeyed,
                "the store obeys unsigned headers: a URL could replace a confirmed image by a copy of another, so with \
                 S3_FINALIZE=in-place every upload is refused with 409 not_supported_by_store; set S3_FINALIZE=auto"
            ),
            (_, UploadSafety::Unsafe) => tracing::warn!(
                obeyed,
                "the store obeys unsigned headers: uploads without a declared digest (multipart, Uppy) are refused with 409 \
                 not_supported_by_store; run `valet check` for the remedy"
            ),
            (_, UploadSafety::Unknown) => {
                tracing::warn!(
                    "the store did not answer probes of multipart uploads and forms: they are refused with 503 until it does"
                );
            }
            _ => {}
        }
    }
}

/// Guarantees of a store about presigned requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCapabilities {
    /// Refuses a second PUT under `if-none-match: *`, also one that overlaps the first or that an unsigned header makes a copy.
    pub writes_once: bool,
    /// Refuses bytes that do not have the signed checksum.
    pub verifies_checksums: bool,
    /// Lists the checksums of parts, which completing them requires.
    pub lists_part_checksums: bool,
    /// How it treats unsigned headers.
    pub unsigned_headers: UnsignedHeaders,
}

impl StoreCapabilities {
    /// A store that enforces everything, and treats unsigned headers as given.
    pub(super) fn all(unsigned_headers: UnsignedHeaders) -> Self {
        Self { writes_once: true, verifies_checksums: true, lists_part_checksums: true, unsigned_headers }
    }
}

/// Uploads by how much of their bytes is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadClass {
    /// The digest of the whole is declared.
    WithDigest,
    /// No digest of the whole is declared.
    WithoutDigest,
}

/// Why an upload is not issued or confirmed on this store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UnsupportedUpload {
    /// The store obeys unsigned headers, which makes this class of uploads unsafe.
    #[error("the store does not enforce what is signed")]
    NotSupported(UploadClass),
    /// The store has not been probed yet.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Result of the latest probe that succeeded, and when it was made.
#[derive(Debug)]
struct Probed {
    capabilities: Arc<StoreCapabilities>,
    at: OffsetDateTime,
}

/// The `S3_FINALIZE` setting, and the latest known capabilities.
#[derive(Debug)]
pub(super) struct KnownCapabilities {
    setting: Finalize,
    latest: RwLock<Option<Probed>>,
}

impl KnownCapabilities {
    /// Starts with full capabilities on AWS, with unknown ones elsewhere.
    pub(super) fn new(config: &config::S3) -> Self {
        // AWS documents it: "Conditional writes" and "Checking object integrity" in the S3 user guide.
        let aws = || Probed {
            capabilities: Arc::new(StoreCapabilities::all(UnsignedHeaders::refused())),
            at: OffsetDateTime::UNIX_EPOCH,
        };
        Self { setting: config.finalize, latest: RwLock::new(config.endpoint.is_none().then(aws)) }
    }

    /// Returns the setting `S3_FINALIZE`.
    pub(super) fn setting(&self) -> Finalize {
        self.setting
    }

    /// Returns the result of the latest probe.
    pub(super) fn latest(&self) -> Option<Arc<StoreCapabilities>> {
        let latest = self.latest.read();
        latest.as_ref().map(|probed| Arc::clone(&probed.capabilities))
    }

    /// Returns whether the store is to be probed: no probe has succeeded yet, or the latest is too old.
    pub(super) fn is_probe_due(&self, now: OffsetDateTime) -> bool {
        let latest = self.latest.read();
        latest.as_ref().is_none_or(|probed| now - probed.at >= probed.capabilities.unsigned_headers.max_age())
    }

    /// Stores the result of a probe.
    pub(super) fn set(&self, capabilities: StoreCapabilities, now: OffsetDateTime) {
        let probed = Probed { capabilities: Arc::new(capabilities), at: now };
        *self.latest.write() = Some(probed);
    }

    /// Checks that the store takes uploads of this class safely.
    ///
    /// # Errors
    /// [`UnsupportedUpload`].
    pub(super) fn require_support(&self, class: UploadClass) -> Result<(), UnsupportedUpload> {
        let latest = self.latest();
        let safety = match (&latest, class) {
            (None, _) => UploadSafety::Unknown,
            (Some(store), UploadClass::WithDigest) => store.unsigned_headers.with_digest,
            (Some(store), UploadClass::WithoutDigest) => store.unsigned_headers.without_digest,
        };
        match safety {
            UploadSafety::SafeIfCopied if self.setting == Finalize::InPlace => Err(UnsupportedUpload::NotSupported(class)),
            UploadSafety::Safe | UploadSafety::SafeIfCopied => Ok(()),
            UploadSafety::Unsafe => Err(UnsupportedUpload::NotSupported(class)),
            UploadSafety::Unknown => {
                let reason = "the store has not been probed yet: it did not answer".to_owned();
                Err(UnsupportedUpload::Store(StoreError::Objects { operation: "probe of the store", reason }))
            }
        }
    }

    /// Returns whether new uploads go to a key from which they are copied at confirm.
    pub(super) fn copies_uploads(&self) -> bool {
        match self.setting {
            Finalize::InPlace => false,
            Finalize::Copy => true,
            Finalize::Auto => !self.latest().is_some_and(|store| store.writes_once && store.verifies_checksums),
        }
    }

    /// Returns whether a multipart upload is opened with the checksum type of its parts. S3 then requires each part's checksum
    /// when the upload is completed, and only the store remembers them.
    pub(super) fn announces_part_checksums(&self) -> bool {
        self.latest().is_none_or(|store| store.lists_part_checksums)
    }

    /// Returns whether a checksum reported by the store was computed from the bytes; otherwise this server hashes them.
    pub(super) fn trusts_checksums(&self) -> bool {
        self.latest().map_or(self.setting == Finalize::InPlace, |store| store.verifies_checksums)
    }
}
