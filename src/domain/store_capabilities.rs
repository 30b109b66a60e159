//! Known capabilities of the object store, and their consequences: which uploads are opened, and whether a confirmed object stays
//! at the key to which the client uploaded it, or is copied.
//!
//! `capability_probing` updates them. On AWS they are known from the start. On other stores, until the first probe succeeds, no
//! upload is opened, and no URL is signed that can write or complete one.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use time::OffsetDateTime;

use crate::{
    config::{self, Finalize},
    store::{StoreError, objects::Sealing},
};

/// Maximum age of a result by which every upload is rejected, or which is incomplete: an operator may be repairing the store.
const REJECTING_MAX_AGE: Duration = Duration::from_secs(60);
/// Maximum age of a result by which some uploads are rejected or PUTs are sealed: the store may have been replaced.
const RESTRICTING_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Whether the store takes a class of uploads safely: their URLs cannot be used to read or publish other objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadSafety {
    /// Safe.
    Safe,
    /// Safe if uploads are copied at confirm: their URLs can replace an object that was written.
    SafeIfCopied,
    /// Not safe.
    Unsafe,
    /// Unknown, because the store did not answer the probe.
    Unknown,
}

/// How a store treats unsigned `x-amz-*` headers of a presigned request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedHeaders {
    /// Safety of uploads with a declared digest.
    pub with_digest: UploadSafety,
    /// Safety of all others: multipart uploads, and Uppy's.
    pub without_digest: UploadSafety,
    /// Form in which PUTs are presigned.
    pub put_sealing: Sealing,
    /// Whether anyone may read every object without a URL.
    pub is_public: bool,
    /// Headers that the store obeyed, described for the operator.
    pub obeyed: Vec<String>,
}

impl UnsignedHeaders {
    /// Returns the treatment by a store that rejects unsigned headers, as AWS documents it: "Authenticating Requests: Using Query
    /// Parameters" in the API reference.
    fn rejected() -> Self {
        Self {
            with_digest: UploadSafety::Safe,
            without_digest: UploadSafety::Safe,
            put_sealing: Sealing::Plain,
            is_public: false,
            obeyed: Vec::new(),
        }
    }

    /// Returns the maximum age of the result, after which the store is probed again; `Duration::MAX` if the store obeyed no
    /// header. While the bucket is public, the effect of headers about access cannot be observed, so the result does not last.
    fn max_age(&self) -> Duration {
        if self.with_digest == UploadSafety::Unsafe || self.without_digest == UploadSafety::Unknown {
            REJECTING_MAX_AGE
        } else if self.obeyed.is_empty() && !self.is_public {
            Duration::MAX
        } else {
            RESTRICTING_MAX_AGE
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
    /// Whether the store rejects a second PUT under `if-none-match: *`, even if it overlaps the first or an unsigned header makes
    /// it a copy.
    pub writes_once: bool,
    /// Whether the store rejects bytes without the signed checksum.
    pub verifies_checksums: bool,
    /// Whether the store lists the checksums of parts, which completing a multipart upload requires.
    pub lists_part_checksums: bool,
    /// Treatment of unsigned headers.
    pub unsigned_headers: UnsignedHeaders,
}

impl StoreCapabilities {
    /// Returns the capabilities of a store that enforces everything, with this treatment of unsigned headers.
    pub(super) fn all(unsigned_headers: UnsignedHeaders) -> Self {
        Self { writes_once: true, verifies_checksums: true, lists_part_checksums: true, unsigned_headers }
    }
}

/// Class of an upload, by its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadClass {
    /// The digest of the whole object is declared.
    WithDigest,
    /// No digest of the whole object is declared.
    WithoutDigest,
}

/// Why an upload is not opened or confirmed on this store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UnsupportedUpload {
    /// The store obeys unsigned headers, which makes this class of uploads unsafe.
    #[error("the store does not enforce what is signed")]
    NotSupported(UploadClass),
    /// The store has not answered the probe of this class of uploads yet.
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
        // AWS documents these guarantees: "Conditional writes" and "Checking object integrity" in the S3 user guide.
        let aws = || Probed {
            capabilities: Arc::new(StoreCapabilities::all(UnsignedHeaders::rejected())),
            at: OffsetDateTime::UNIX_EPOCH,
        };
        Self { setting: config.finalize, latest: RwLock::new(config.endpoint.is_none().then(aws)) }
    }

    /// Returns the setting `S3_FINALIZE`.
    pub(super) fn setting(&self) -> Finalize {
        self.setting
    }

    /// Returns the latest known capabilities; `None` if none are known yet.
    pub(super) fn latest(&self) -> Option<Arc<StoreCapabilities>> {
        let latest = self.latest.read();
        latest.as_ref().map(|probed| Arc::clone(&probed.capabilities))
    }

    /// Returns whether the store is to be probed: no capabilities are known yet, or the latest ones are too old.
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
    /// when the upload is completed; Valet gets the checksums by listing the parts.
    pub(super) fn announces_part_checksums(&self) -> bool {
        self.latest().is_none_or(|store| store.lists_part_checksums)
    }

    /// Returns whether a checksum reported by the store was computed from the bytes; otherwise this server hashes them.
    pub(super) fn trusts_checksums(&self) -> bool {
        self.latest().map_or(self.setting == Finalize::InPlace, |store| store.verifies_checksums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_result_that_nothing_can_change_lasts_until_the_next_start() {
        let rejected = UnsignedHeaders::rejected();
        assert_eq!(rejected.max_age(), Duration::MAX);
        for other in [
            UnsignedHeaders { is_public: true, ..rejected.clone() },
            UnsignedHeaders { obeyed: vec!["x-amz-acl".to_owned()], ..rejected.clone() },
            UnsignedHeaders { with_digest: UploadSafety::Unsafe, ..rejected.clone() },
            UnsignedHeaders { without_digest: UploadSafety::Unknown, ..rejected },
        ] {
            assert!(other.max_age() <= RESTRICTING_MAX_AGE, "{other:?}");
        }
    }
}
