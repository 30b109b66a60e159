//! Delays of the sweeper after failures of images and of account deletions.

use std::time::Duration;

/// Delay after a first permanent failure, and after a temporary one.
pub(super) const FIRST_DELAY: Duration = Duration::from_secs(60);
/// Maximum delay after a permanent failure.
const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Permanent failures in a row after which an image or the deletion of an account needs an operator: by then, the first is at
/// least half an hour old.
pub(super) const FAILURES_UNTIL_STUCK: u32 = 6;

/// Returns the delay after this number of permanent failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permanent_failures_wait_longer_each_time_and_at_most_a_day() {
        let minutes: Vec<_> = (1..=13).map(|failures| backoff(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
        assert_eq!(backoff(u32::MAX), MAX_DELAY);
        assert_eq!(backoff(0), FIRST_DELAY);
    }
}
