//! Times of the attempts at delivering a message, by Standard Webhooks 1.0.

use std::time::Duration;

use time::OffsetDateTime;

/// Seconds before each of the attempts; the first is made at once.
const PAUSES: [u64; 10] = [0, 5, 5 * 60, 30 * 60, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
/// Seconds of an hour.
const HOUR: u64 = 60 * 60;
/// Jitter that is added to a pause, at most, as a fraction of the pause.
const MAX_JITTER: f64 = 0.2;

/// Returns when the next attempt is made after `tries` attempts; `None` after the last, when the delivery is dead.
///
/// `jitter` is a random number from 0 to 1. `retry_after` is the pause that the endpoint asked for: it may lengthen a pause to
/// twice its length, and does not shorten it.
#[must_use]
pub fn next_attempt(tries: u32, retry_after: Option<Duration>, now: OffsetDateTime, jitter: f64) -> Option<OffsetDateTime> {
    let pause = Duration::from_secs(*PAUSES.get(usize::try_from(tries).ok()?)?);
    let lengthened = retry_after.map_or(pause, |wanted| wanted.clamp(pause, pause * 2));
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
    Some(now + lengthened + pause.mul_f64(jitter * MAX_JITTER))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    /// Returns the seconds from [`NOW`] to the next attempt.
    fn seconds(tries: u32, retry_after: Option<u64>, jitter: f64) -> Option<i64> {
        next_attempt(tries, retry_after.map(Duration::from_secs), NOW, jitter).map(OffsetDateTime::unix_timestamp)
    }

    #[test]
    fn ten_attempts_span_seventy_five_hours() {
        let pauses: Vec<_> = (0..10).map(|tries| seconds(tries, None, 0.0).unwrap()).collect();
        assert_eq!(pauses, [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert_eq!(pauses.iter().sum::<i64>(), 272_105);
        assert_eq!((seconds(10, None, 0.0), seconds(u32::MAX, None, 0.0)), (None, None), "dead");
    }

    #[test]
    fn jitter_and_retry_after_only_lengthen_a_pause_and_within_bounds() {
        assert_eq!(seconds(2, None, 1.0), Some(360));
        assert_eq!(seconds(2, None, 7.0), Some(360));
        assert_eq!(seconds(2, None, f64::NAN), Some(300));
        assert_eq!(seconds(2, Some(1), 0.0), Some(300), "never sooner");
        assert_eq!(seconds(2, Some(400), 0.0), Some(400));
        assert_eq!(seconds(2, Some(u64::MAX), 0.0), Some(600), "at most twice the pause");
    }
}
