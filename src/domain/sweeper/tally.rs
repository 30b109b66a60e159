//! Counts the outcomes of a sweep.

use std::{
    ops::AddAssign,
    sync::{Mutex, PoisonError},
};

use crate::metrics::{METRICS, Metrics};

/// Outcomes of a sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Made ready for clients that died before they confirmed.
    pub confirmed: u32,
    /// Were not what was declared.
    pub rejected: u32,
    /// Never came.
    pub expired: u32,
    /// Objects deleted, the first or the second time.
    pub purged: u32,
    /// Tombstones that ended.
    pub gone: u32,
    /// Holds of uploads that do not exist, freed.
    pub holds: u32,
    /// Deleted accounts whose data is completely deleted.
    pub accounts: u32,
    /// Could not be settled now.
    pub failed: u32,
}

impl AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.confirmed += other.confirmed;
        self.rejected += other.rejected;
        self.expired += other.expired;
        self.purged += other.purged;
        self.gone += other.gone;
        self.holds += other.holds;
        self.accounts += other.accounts;
        self.failed += other.failed;
    }
}

impl Swept {
    /// Adds it to the metrics.
    pub(super) fn count(self) {
        let Self { confirmed, rejected, expired, purged, gone, holds, accounts, failed } = self;
        let counts = [confirmed, rejected, expired, purged, gone, holds, accounts, failed];
        for (kind, count) in crate::metrics::SWEEP_OUTCOMES.into_iter().zip(counts) {
            Metrics::count(&METRICS.sweep_items, kind, count.into());
        }
    }
}

/// A sum that images are added to as they are settled, many at once.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Swept>);

impl Tally {
    /// Adds to the sum and to the metrics.
    pub(super) fn add(&self, swept: Swept) {
        swept.count();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += swept;
    }

    pub(super) fn total(&self) -> Swept {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
