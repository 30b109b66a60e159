//! How S3 and the database answered lately. An owner whose objects fail waits; only failures of several owners say that the store
//! is in trouble, and then all wait.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{domain::Valet, store::StoreError};

/// After so many images in a row without an answer, S3 is asked whether it lives, and the sweep ends where it does not.
const SILENCES: u32 = 3;
/// After so many failures in a row, the sweep ends: a store in trouble gets time.
const OUTAGES: u32 = 48;
/// The pause before the next image after a failure, which doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Owners whose failures are remembered.
const REMEMBERED: usize = 10_000;

impl Valet {
    /// Returns whether a failure is of this image or account: its bucket answers, so the store lives.
    pub(in crate::domain) async fn is_stuck(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Objects { .. } | StoreError::ObjectsTimeout { .. } => self.objects.probe().await.is_ok(),
            error => self.is_lasting(error).await,
        }
    }

    /// Returns whether no repeat cures a failure, so that an upload may be given up for it. Timeouts and 5xx never count, however
    /// long they last.
    pub(super) async fn is_lasting(&self, error: &StoreError) -> bool {
        match error {
            StoreError::ObjectsMisconfigured { .. } => self.objects.probe().await.is_ok(),
            error => !error.is_passing(),
        }
    }
}

/// The answers of a sweep so far.
#[derive(Debug, Default)]
pub(super) struct Health {
    silences: AtomicU32,
    outages: Mutex<Outages>,
}

#[derive(Debug, Default)]
struct Outages {
    /// Since the last success of any owner.
    in_row: u32,
    /// Whose they are.
    owners: HashSet<String>,
    /// Since each owner's last success.
    of_owner: HashMap<String, u32>,
}

/// Whether images in a row had no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Few.
    Short,
    /// So many that the store may be down.
    Long,
}

impl Health {
    fn outages(&self) -> MutexGuard<'_, Outages> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as the latest failures ask an owner's next image to.
    pub(super) async fn pace(&self, owner: &str) {
        let failures = {
            let outages = self.outages();
            let of_all = if outages.owners.len() > 1 { outages.in_row } else { 0 };
            outages.of_owner.get(owner).copied().unwrap_or(0).max(of_all)
        };
        if failures > 0 {
            tokio::time::sleep((PAUSE * 2_u32.pow(failures.min(8) - 1)).min(LONGEST_PAUSE)).await;
        }
    }

    pub(super) fn note_success(&self, owner: &str) {
        self.forget_silences();
        let mut outages = self.outages();
        outages.in_row = 0;
        outages.owners.clear();
        outages.of_owner.remove(owner);
    }

    pub(super) fn note_silence(&self) -> Silence {
        if self.silences.fetch_add(1, Relaxed) + 1 >= SILENCES { Silence::Long } else { Silence::Short }
    }

    pub(super) fn forget_silences(&self) {
        self.silences.store(0, Relaxed);
    }

    /// Notes a failure that passes by itself. Answers whether there were so many that the sweep is to end.
    pub(super) fn note_outage(&self, owner: &str) -> bool {
        let mut outages = self.outages();
        if outages.of_owner.len() >= REMEMBERED {
            outages.of_owner.clear();
        }
        *outages.of_owner.entry(owner.to_owned()).or_default() += 1;
        outages.owners.insert(owner.to_owned());
        outages.in_row += 1;
        outages.in_row >= OUTAGES
    }
}
