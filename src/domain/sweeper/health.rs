//! Recent failures of S3 and the database during a sweep. An owner whose objects fail is slowed down; failures of several owners
//! mean that the store has failed, and slow down all.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

/// Timeouts in a row after which S3 is probed; the sweep ends if it does not answer.
const MAX_TIMEOUTS: u32 = 3;
/// Failures in a row after which the sweep ends, to spare a store in trouble.
const MAX_OUTAGES: u32 = 48;
/// Pause before the next image after the first failure. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Owners whose failures are remembered.
const MAX_REMEMBERED_OWNERS: usize = 10_000;

/// Recent failures of a sweep.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Timeouts in a row.
    timeouts: AtomicU32,
    outages: Mutex<Outages>,
}

/// Temporary failures.
#[derive(Debug, Default)]
struct Outages {
    /// Failures since the last success of any owner.
    in_row: u32,
    /// Owners of these failures.
    owners: HashSet<String>,
    /// Failures of each owner since its last success.
    of_owner: HashMap<String, u32>,
}

/// Whether several images in a row timed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeoutStreak {
    /// Fewer than [`MAX_TIMEOUTS`].
    Short,
    /// Enough that the store may be down.
    Long,
}

impl Health {
    fn outages(&self) -> MutexGuard<'_, Outages> {
        self.outages.lock()
    }

    /// Waits before an owner's next image, as long as the latest failures require.
    pub(super) async fn pace(&self, owner: &str) {
        let pause = self.pause(owner);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// Returns the pause before the owner's next image.
    fn pause(&self, owner: &str) -> Duration {
        let outages = self.outages();
        let shared_outages = if outages.owners.len() > 1 { outages.in_row } else { 0 };
        match outages.of_owner.get(owner).copied().unwrap_or(0).max(shared_outages) {
            0 => Duration::ZERO,
            // After eight failures the pause has reached its maximum; higher powers would overflow.
            failures => (FIRST_PAUSE * 2_u32.pow(failures.min(8) - 1)).min(LONGEST_PAUSE),
        }
    }

    /// Records that an image of the owner was swept.
    pub(super) fn record_success(&self, owner: &str) {
        self.reset_timeouts();
        let mut outages = self.outages();
        outages.in_row = 0;
        outages.owners.clear();
        outages.of_owner.remove(owner);
    }

    /// Records a call without a response.
    pub(super) fn record_timeout(&self) -> TimeoutStreak {
        if self.timeouts.fetch_add(1, Relaxed) + 1 >= MAX_TIMEOUTS { TimeoutStreak::Long } else { TimeoutStreak::Short }
    }

    /// Resets the count of calls without a response.
    pub(super) fn reset_timeouts(&self) {
        self.timeouts.store(0, Relaxed);
    }

    /// Records a temporary failure. Returns whether the sweep must end.
    pub(super) fn record_outage(&self, owner: &str) -> bool {
        let mut outages = self.outages();
        if outages.of_owner.len() >= MAX_REMEMBERED_OWNERS {
            outages.of_owner.clear();
        }
        *outages.of_owner.entry(owner.to_owned()).or_default() += 1;
        outages.owners.insert(owner.to_owned());
        outages.in_row += 1;
        outages.in_row >= MAX_OUTAGES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_waits_longer_after_each_of_its_failures() {
        let health = Health::default();
        let pauses: Vec<_> = (0..9)
            .map(|_| {
                health.record_outage("eve");
                health.pause("eve").as_millis()
            })
            .collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        assert_eq!(health.pause("ada"), Duration::ZERO, "the store may fail for one owner's objects only");
        health.record_success("eve");
        assert_eq!(health.pause("eve"), Duration::ZERO);
    }

    #[test]
    fn failures_of_several_owners_slow_down_all_until_one_succeeds() {
        let health = Health::default();
        health.record_outage("eve");
        health.record_outage("bob");
        assert_eq!(health.pause("ada").as_millis(), 100);
        health.record_success("ada");
        assert_eq!((health.pause("ada"), health.pause("eve").as_millis()), (Duration::ZERO, 50));
    }

    #[test]
    fn a_sweep_ends_after_many_failures_in_a_row() {
        let health = Health::default();
        for _ in 0..2 {
            for failures in 1..MAX_OUTAGES {
                assert!(!health.record_outage("eve"), "{failures}");
            }
            // The store answers for another owner.
            health.record_success("ada");
        }
        let ends: Vec<_> =
            (0..MAX_OUTAGES).filter(|failure| health.record_outage(if failure % 2 == 0 { "eve" } else { "bob" })).collect();
        assert_eq!(ends, [MAX_OUTAGES - 1]);
    }

    #[test]
    fn third_timeout_in_a_row_makes_a_long_streak() {
        let health = Health::default();
        for _ in 0..2 {
            let streaks: Vec<_> = (0..MAX_TIMEOUTS).map(|_| health.record_timeout()).collect();
            assert_eq!(streaks, [TimeoutStreak::Short, TimeoutStreak::Short, TimeoutStreak::Long]);
            health.record_success("ada");
        }
    }
}
