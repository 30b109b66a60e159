//! The store's guarantees as the trial found them, and their consequences: the kinds of uploads that are issued, and whether an
//! object is final where it was put or is copied at confirm.
//!
//! Before the trial has ended no upload is issued that some store does not withstand, and every confirmed object is copied.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use time::OffsetDateTime;

use super::{Valet, check};
use crate::{
    config::{self, Finalize},
    store::{StoreError, objects::Sealing, uncounted},
};

/// The longest the store is tried out before the first request is served, and the longest for clearing that away.
const DEADLINE_AT_START: Duration = Duration::from_secs(5);
/// The same for later trials, which run beside the server's work.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a verdict is kept that refuses every upload or is incomplete: an operator may be mending the store.
const REFUSING_KEPT: Duration = Duration::from_secs(60);
/// How long a verdict is kept that refuses some uploads or seals PUTs: the store may have been replaced.
const WEAKER_KEPT: Duration = Duration::from_secs(60 * 60);

/// Whether the store can take an upload safely: its URLs cannot be used to read or publish other objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Stands,
    /// It does where uploads are copied at confirm: its URLs can replace what they wrote.
    StandsCopied,
    /// It does not.
    Falls,
    /// It did not answer.
    Unknown,
}

/// How a store treats unsigned `x-amz-*` headers of a presigned request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    /// Uploads of a declared digest.
    pub declared: Standing,
    /// All others: native multipart uploads, and Uppy's.
    pub undeclared: Standing,
    /// How PUTs are to be presigned.
    pub puts: Sealing,
    /// Anyone may read every object, without a URL.
    pub is_open: bool,
    /// The headers that it obeyed, for people.
    pub taken: Vec<String>,
}

impl Unsigned {
    /// A store that refuses such headers, as AWS documents it: "Authenticating Requests: Using Query Parameters" in the API
    /// reference.
    fn refused() -> Self {
        let stands = Standing::Stands;
        Self { declared: stands, undeclared: stands, puts: Sealing::Plain, is_open: false, taken: Vec::new() }
    }

    /// How long this is believed before the store is tried out again; without end where nothing was obeyed.
    fn kept(&self) -> Duration {
        if self.declared == Standing::Falls || self.undeclared == Standing::Unknown {
            REFUSING_KEPT
        } else if self.taken.is_empty() {
            Duration::MAX
        } else {
            WEAKER_KEPT
        }
    }

    /// One line that names the consequence.
    fn warn(&self, setting: Finalize) {
        let taken = self.taken.join(", ");
        if self.is_open {
            tracing::warn!(
                "anyone may read every object of the bucket who knows its key, without a URL; `valet check` says more"
            );
        }
        match (self.declared, self.undeclared) {
            (Standing::Falls, _) => tracing::warn!(
                taken,
                "the store obeys unsigned headers: anyone could publish objects of the bucket, so every upload is refused with 409 \
                 not_supported_by_store; `valet check --fix` has the bucket ignore ACLs"
            ),
            (Standing::StandsCopied, _) if setting == Finalize::InPlace => tracing::warn!(
                taken,
                "the store obeys unsigned headers: a URL could replace a confirmed image by a copy of another, so with \
                 S3_FINALIZE=in-place every upload is refused with 409 not_supported_by_store; set S3_FINALIZE=auto"
            ),
            (_, Standing::Falls) => tracing::warn!(
                taken,
                "the store obeys unsigned headers: uploads without a declared digest (multipart, Uppy) are refused with 409 \
                 not_supported_by_store; `valet check` says more"
            ),
            (_, Standing::Unknown) => {
                tracing::warn!(
                    "the store did not answer for multipart uploads and forms: they are refused with 503 until it does"
                );
            }
            _ => {}
        }
    }
}

/// How a store treats requests that deviate from their signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantees {
    /// It refuses a second PUT under `if-none-match: *`, also one that overlaps the first, or that an unsigned header makes
    /// a copy.
    pub once: bool,
    /// It refuses bytes that do not have the signed checksum.
    pub checksum: bool,
    /// Its listing of parts tells the checksums that completing them asks for.
    pub lists_part_checksums: bool,
    /// How it treats unsigned headers.
    pub unsigned: Unsigned,
}

impl Guarantees {
    /// A store that gives all of them.
    fn all(unsigned: Unsigned) -> Self {
        Self { once: true, checksum: true, lists_part_checksums: true, unsigned }
    }
}

/// How much of an upload's bytes is declared.
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
    /// The store obeys unsigned headers; holds the kind of upload that this makes unsafe.
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
    known: RwLock<Option<(Arc<Guarantees>, OffsetDateTime)>>,
}

impl Finalization {
    pub(super) fn new(config: &config::S3) -> Self {
        // AWS documents it: "Conditional writes" and "Checking object integrity" in the S3 user guide.
        let known =
            config.endpoint.is_none().then(|| (Arc::new(Guarantees::all(Unsigned::refused())), OffsetDateTime::UNIX_EPOCH));
        Self { setting: config.finalize, known: RwLock::new(known) }
    }

    fn known(&self) -> Option<Arc<Guarantees>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(store, _)| Arc::clone(store))
    }

    /// Whether the store is to be tried out: nothing is known of it, or what is known was not to be kept for longer.
    fn asks(&self, now: OffsetDateTime) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_none_or(|(store, at)| now - *at >= store.unsigned.kept())
    }

    fn learn(&self, store: Guarantees, now: OffsetDateTime) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some((Arc::new(store), now));
    }

    /// Returns whether the store can take an upload with this declaration.
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
            Standing::StandsCopied if self.setting == Finalize::InPlace => Err(Unfit::NotSupported(declares)),
            Standing::Stands | Standing::StandsCopied => Ok(()),
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
    /// [`Valet::learn_store`], before the first request is served.
    pub async fn learn_store_at_start(&self, now: OffsetDateTime) {
        self.learn_store_within(DEADLINE_AT_START, now).await;
    }

    /// Tries out what the store holds to, unless that is known. What the operator has decided by `S3_FINALIZE=in-place` is not
    /// asked; which headers the store obeys always is. What is known stays known while the store does not answer.
    pub async fn learn_store(&self, now: OffsetDateTime) {
        self.learn_store_within(DEADLINE, now).await;
    }

    async fn learn_store_within(&self, deadline: Duration, now: OffsetDateTime) {
        if !self.finalization.asks(now) {
            return;
        }
        // A sweep is of any time; the store looks at its own clock.
        let signed_at = OffsetDateTime::now_utc();
        let trial = async {
            if self.finalization.setting == Finalize::InPlace {
                check::unsigned_headers(&self.objects, signed_at, deadline).await.map(Guarantees::all)
            } else {
                check::guarantees(&self.objects, signed_at, deadline).await
            }
        };
        let found = uncounted(trial).await;
        let known = self.finalization.known();
        match found {
            Ok(store) => {
                self.objects.seal_puts(store.unsigned.puts);
                if known.is_none_or(|known| known.unsigned != store.unsigned) {
                    store.unsigned.warn(self.finalization.setting);
                }
                let (once, checksum) = (store.once, store.checksum);
                self.finalization.learn(store, now);
                tracing::info!(once, checksum, copies = self.finalization.copies(), "the store was tried out");
            }
            Err(reason) if known.is_some() => tracing::warn!(%reason, "failed to try out the store again"),
            Err(reason) => {
                tracing::warn!(%reason, "failed to try out the store: every upload is refused with 503 until it answers");
            }
        }
    }
}
