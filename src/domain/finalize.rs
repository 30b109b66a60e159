//! Whether uploads are final where they are put or are copied at confirm: what the store was found to hold to.
//!
//! Until that is known they are copied, which is right on every store.

use std::{sync::OnceLock, time::Duration};

use time::OffsetDateTime;

use super::{Valet, check};
use crate::config::{self, Finalize};

/// The longest the store is tried out, and the longest for clearing that away; then the next sweep tries again.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a store does about a PUT that is not as it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guarantees {
    /// It refuses a second PUT under `if-none-match: *`, also one that overlaps the first, or that an unsigned header makes
    /// a copy.
    pub once: bool,
    /// It refuses bytes that do not have the signed checksum.
    pub checksum: bool,
    /// Its listing of parts tells the checksums that completing them asks for.
    pub lists_part_checksums: bool,
}

/// The setting, and what is known of the store.
#[derive(Debug)]
pub(super) struct Finalization {
    setting: Finalize,
    known: OnceLock<Guarantees>,
}

impl Finalization {
    pub(super) fn new(config: &config::S3) -> Self {
        let known = OnceLock::new();
        if config.endpoint.is_none() {
            // AWS documents both: "Conditional writes" and "Checking object integrity" in the S3 user guide.
            let _ = known.set(Guarantees { once: true, checksum: true, lists_part_checksums: true });
        }
        Self { setting: config.finalize, known }
    }

    /// Whether new uploads go to a place from which they are copied.
    pub(super) fn copies(&self) -> bool {
        match self.setting {
            Finalize::InPlace => false,
            Finalize::Copy => true,
            Finalize::Auto => !self.known.get().is_some_and(|store| store.once && store.checksum),
        }
    }

    /// Whether a multipart upload is opened with the kind of checksum that its parts will carry: each is then to be told again
    /// when it is completed, and nobody but the store remembers them.
    pub(super) fn announces_part_checksums(&self) -> bool {
        self.known.get().is_none_or(|store| store.lists_part_checksums)
    }

    /// Whether a checksum that the store tells was computed from the bytes; else they are hashed here.
    pub(super) fn believes_checksums(&self) -> bool {
        self.known.get().map_or(self.setting == Finalize::InPlace, |store| store.checksum)
    }
}

impl Valet {
    /// Tries out what the store holds to, unless that is known or was decided by the operator.
    pub async fn learn_store(&self) {
        if self.finalization.setting == Finalize::InPlace || self.finalization.known.get().is_some() {
            return;
        }
        match check::guarantees(&self.objects, OffsetDateTime::now_utc(), DEADLINE).await {
            Ok(store) => {
                let _ = self.finalization.known.set(store);
                let copies = self.finalization.copies();
                tracing::info!(once = store.once, checksum = store.checksum, copies, "the store was tried out");
            }
            Err(reason) => {
                tracing::warn!(%reason, "the store could not be tried out: uploads are copied at confirm until it can");
            }
        }
    }
}
