//! Counts the outcomes of a sweep.

use std::ops::AddAssign;

use parking_lot::Mutex;

use crate::metrics::{METRICS, Metrics};

/// Outcomes of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweptRound {
    /// Outcomes of the round.
    pub swept: Swept,
    /// Whether anything was swept, so that more may be due.
    pub may_have_more: bool,
}

/// Outcomes of a sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads that the sweeper confirmed, because their clients did not.
    pub confirmed: u32,
    /// Uploads that did not match their declaration.
    pub rejected: u32,
    /// Uploads that did not arrive.
    pub expired: u32,
    /// Removals of an image's objects. A second removal, after every URL has expired, counts again.
    pub removals: u32,
    /// Tombstones that became purged images, because no URL can write their objects again.
    pub purged: u32,
    /// Reservations without an image that were released.
    pub reservations: u32,
    /// Deleted accounts whose data is completely deleted.
    pub accounts: u32,
    /// Images and accounts that could not be swept.
    pub failed: u32,
}

impl AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.confirmed += other.confirmed;
        self.rejected += other.rejected;
        self.expired += other.expired;
        self.removals += other.removals;
        self.purged += other.purged;
        self.reservations += other.reservations;
        self.accounts += other.accounts;
        self.failed += other.failed;
    }
}

impl Swept {
    /// Adds the outcomes to the metrics.
    pub(super) fn count(self) {
        let Self { confirmed, rejected, expired, removals, purged, reservations, accounts, failed } = self;
        // In the order of `SWEEP_OUTCOMES`.
        let counts = [confirmed, rejected, expired, removals, purged, reservations, accounts, failed];
        for (kind, count) in crate::metrics::SWEEP_OUTCOMES.into_iter().zip(counts) {
            Metrics::count(&METRICS.sweep_items, kind, count.into());
        }
    }
}

/// A sum to which concurrent work adds outcomes.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Swept>);

impl Tally {
    /// Adds outcomes to the sum and to the metrics.
    pub(super) fn add(&self, swept: Swept) {
        swept.count();
        *self.0.lock() += swept;
    }

    /// Returns the sum so far.
    pub(super) fn total(&self) -> Swept {
        *self.0.lock()
    }
}
