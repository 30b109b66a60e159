//! What the store was found to hold to, and what follows: which uploads are issued at all, and whether they are final where they
//! are put or are copied at confirm.
//!
//! Until that is known, nothing is issued that any store may fail to stand, and what is confirmed is copied.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::{Valet, check};
use crate::{
    config::{self, Finalize},
    store::StoreError,
};

/// The longest the store is tried out, and the longest for clearing that away; then the next sweep tries again.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long an answer is kept by which uploads are refused: the operator may have mended the store.
const REFUSING_KEPT: Duration = Duration::from_secs(60);

/// Whether the store stands an upload: nobody can use its URLs to read or publish what is another's or private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Stands,
    /// It does not.
    Falls,
    /// It did not answer.
    Unknown,
}

/// What a store does about `x-amz-*` headers that a presigned request carries unsigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    /// Uploads of a declared digest.
    pub declared: Standing,
    /// All others: native multipart uploads, and Uppy's.
    pub undeclared: Standing,
    /// PUTs are to be sealed.
    pub is_sealed: bool,
    /// What it obeyed, for people.
    pub taken: Vec<String>,
}

/// What a store does about requests that are not as they were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantees {
    /// It refuses a second PUT under `if-none-match: *`, also one that overlaps the first, or that an unsigned header makes
    /// a copy.
    pub once: bool,
    /// It refuses bytes that do not have the signed checksum.
    pub checksum: bool,
    /// Its listing of parts tells the checksums that completing them asks for.
    pub lists_part_checksums: bool,
    /// What it does about unsigned headers.
    pub unsigned: Unsigned,
}

impl Guarantees {
    /// A store that gives all of them.
    fn all(unsigned: Unsigned) -> Self {
        Self { once: true, checksum: true, lists_part_checksums: true, unsigned }
    }
}

/// What is declared of the bytes of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declares {
    /// Their digest.
    Digest,
    /// No digest of the whole.
    Nothing,
}

/// Why the store cannot have an upload.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unfit {
    /// It would obey headers that nobody signed; holds which uploads cannot stand that.
    #[error("the store does not hold to what is signed")]
    NotSupported(Declares),
    /// It was not tried out yet.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The setting, and what is known of the store.
#[derive(Debug)]
pub(super) struct Finalization {
    setting: Finalize,
    known: RwLock<Option<(Arc<Guarantees>, Instant)>>,
    is_aws: bool,
}

impl Finalization {
    pub(super) fn new(config: &config::S3) -> Self {
        let is_aws = config.endpoint.is_none();
        // AWS documents it: "Conditional writes" and "Checking object integrity" in the S3 user guide, "Authenticating Requests:
        // Using Query Parameters" in the API reference.
        let refuses = Unsigned { declared: Standing::Stands, undeclared: Standing::Stands, is_sealed: false, taken: Vec::new() };
        let known = is_aws.then(|| (Arc::new(Guarantees::all(refuses)), Instant::now()));
        Self { setting: config.finalize, known: RwLock::new(known), is_aws }
    }

    fn known(&self) -> Option<Arc<Guarantees>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(store, _)| Arc::clone(store))
    }

    /// Whether the store is to be tried out: nothing is known, or what is known refuses uploads and is old.
    fn asks(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_none_or(|(store, at)| {
            let refuses = store.unsigned.declared != Standing::Stands || store.unsigned.undeclared == Standing::Unknown;
            refuses && !self.is_aws && at.elapsed() >= REFUSING_KEPT
        })
    }

    fn learn(&self, store: Guarantees) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some((Arc::new(store), Instant::now()));
    }

    /// Whether the store can have an upload of which this is declared.
    ///
    /// # Errors
    /// [`Unfit`].
    pub(super) fn stands(&self, declares: Declares) -> Result<(), Unfit> {
        let known = self.known();
        let standing = match (&known, declares) {
            (None, _) => Standing::Unknown,
            (Some(store), Declares::Digest) => store.unsigned.declared,
            (Some(store), Declares::Nothing) => store.unsigned.undeclared,
        };
        match standing {
            Standing::Stands => Ok(()),
            Standing::Falls => Err(Unfit::NotSupported(declares)),
            Standing::Unknown => {
                let reason = "the store has not been tried out yet: it did not answer".to_owned();
                Err(Unfit::Store(StoreError::Objects { operation: "trial of the store", reason }))
            }
        }
    }

    /// Whether new uploads go to a place from which they are copied.
    pub(super) fn copies(&self) -> bool {
        match self.setting {
            Finalize::InPlace => false,
            Finalize::Copy => true,
            Finalize::Auto => !self.known().is_some_and(|store| store.once && store.checksum),
        }
    }

    /// Whether a multipart upload is opened with the kind of checksum that its parts will carry: each is then to be told again
    /// when it is completed, and nobody but the store remembers them.
    pub(super) fn announces_part_checksums(&self) -> bool {
        self.known().is_none_or(|store| store.lists_part_checksums)
    }

    /// Whether a checksum that the store tells was computed from the bytes; else they are hashed here.
    pub(super) fn believes_checksums(&self) -> bool {
        self.known().map_or(self.setting == Finalize::InPlace, |store| store.checksum)
    }
}

impl Valet {
    /// Tries out what the store holds to, unless that is known. What the operator has decided by `S3_FINALIZE=in-place` is not
    /// asked; which headers the store obeys always is.
    pub async fn learn_store(&self) {
        if !self.finalization.asks() {
            return;
        }
        let now = OffsetDateTime::now_utc();
        let found = if self.finalization.setting == Finalize::InPlace {
            check::unsigned_headers(&self.objects, now, DEADLINE).await.map(Guarantees::all)
        } else {
            check::guarantees(&self.objects, now, DEADLINE).await
        };
        match found {
            Ok(store) => {
                if store.unsigned.is_sealed {
                    self.objects.seal_puts();
                }
                warn_of(&store.unsigned);
                let (once, checksum) = (store.once, store.checksum);
                self.finalization.learn(store);
                tracing::info!(once, checksum, copies = self.finalization.copies(), "the store was tried out");
            }
            Err(reason) => {
                tracing::warn!(%reason, "failed to try out the store: no uploads are issued until it answers");
            }
        }
    }
}

/// One line that names the consequence.
fn warn_of(unsigned: &Unsigned) {
    let taken = unsigned.taken.join(", ");
    match (unsigned.declared, unsigned.undeclared) {
        (Standing::Falls, _) => tracing::warn!(
            taken,
            "the store obeys unsigned headers: anyone could publish objects of the bucket, so every upload is refused with 409 \
             not_supported_by_store; `valet check --fix` has the bucket ignore ACLs"
        ),
        (_, Standing::Falls) => tracing::warn!(
            taken,
            "the store obeys unsigned headers: uploads without a declared digest (multipart, Uppy) are refused with 409 \
             not_supported_by_store; `valet check` says more"
        ),
        (_, Standing::Unknown) => tracing::warn!("the store did not answer for multipart uploads: none is issued until it does"),
        _ => {}
    }
}
