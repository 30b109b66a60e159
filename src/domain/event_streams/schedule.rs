//! Times of one event stream: heartbeats, checks of its access token, and its end.

use std::time::{Duration, Instant};

/// Interval of heartbeats: less than the time after which proxies close idle connections, mostly 60 s.
pub const HEARTBEAT: Duration = Duration::from_secs(20);
/// Interval of the checks of the token. A check may use an answer of `SessionCache` that is up to 10 s old, so the end of a session
/// takes effect within 25 s.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// Time without a successful check after which the stream ends.
pub const MAX_UNCHECKED: Duration = Duration::from_secs(30);
/// Longest life of a stream. Its client then opens another, maybe on another server.
pub const MAX_LIFE: Duration = Duration::from_secs(30 * 60);
/// Largest difference between the lives of two streams, so that streams that began together do not end together.
const LIFE_SPREAD: Duration = Duration::from_secs(5 * 60);

/// Action that is due in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// End: its life is over.
    End,
    /// Check the token.
    Check,
    /// Send a heartbeat.
    Heartbeat,
    /// Wait until this time.
    Wait(Instant),
}

/// The times of a stream.
#[derive(Debug)]
pub struct Schedule {
    ends: Instant,
    /// Time of the last successful check.
    checked: Instant,
    next_check: Instant,
    next_heartbeat: Instant,
}

impl Schedule {
    /// Returns the times of a stream that begins at `now`, with a token that was just checked. `spread`, from 0 to 255, shortens
    /// its life by up to `LIFE_SPREAD`.
    #[must_use]
    pub fn new(now: Instant, spread: u8) -> Self {
        let ends = now + MAX_LIFE.saturating_sub(LIFE_SPREAD * u32::from(spread) / 255);
        Self { ends, checked: now, next_check: now + CHECK_INTERVAL, next_heartbeat: now + HEARTBEAT }
    }

    /// Returns what is due at `now`.
    #[must_use]
    pub fn due(&self, now: Instant) -> Due {
        if now >= self.ends {
            Due::End
        } else if now >= self.next_check {
            Due::Check
        } else if now >= self.next_heartbeat {
            Due::Heartbeat
        } else {
            Due::Wait(self.ends.min(self.next_check).min(self.next_heartbeat))
        }
    }

    /// Records that the token was valid at `now`.
    pub fn record_check(&mut self, now: Instant) {
        self.checked = now;
        self.next_check = now + CHECK_INTERVAL;
    }

    /// Records that the token could not be checked at `now`. Returns whether the stream may go on until the next check.
    #[must_use]
    pub fn record_failed_check(&mut self, now: Instant) -> bool {
        self.next_check = now + CHECK_INTERVAL;
        now.saturating_duration_since(self.checked) < MAX_UNCHECKED
    }

    /// Records that a message was sent at `now`.
    pub fn record_message(&mut self, now: Instant) {
        self.next_heartbeat = now + HEARTBEAT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the time this many seconds after `start`.
    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn checks_and_heartbeats_are_due_at_their_intervals() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 0);
        assert_eq!(schedule.due(start), Due::Wait(after(start, 15)));
        assert_eq!(schedule.due(after(start, 15)), Due::Check);
        schedule.record_check(after(start, 15));
        assert_eq!(schedule.due(after(start, 20)), Due::Heartbeat);
        schedule.record_message(after(start, 20));
        assert_eq!(schedule.due(after(start, 20)), Due::Wait(after(start, 30)));
    }

    #[test]
    fn a_stream_ends_after_its_life() {
        let start = Instant::now();
        for (spread, seconds) in [(0, 30 * 60), (255, 25 * 60)] {
            let mut schedule = Schedule::new(start, spread);
            let last = after(start, seconds - 1);
            schedule.record_check(last);
            schedule.record_message(last);
            assert_eq!(schedule.due(last), Due::Wait(after(start, seconds)));
            assert_eq!(schedule.due(after(start, seconds)), Due::End);
        }
    }

    #[test]
    fn a_stream_whose_token_cannot_be_checked_ends() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 0);
        assert!(schedule.record_failed_check(after(start, 15)), "an election may be under way");
        assert!(!schedule.record_failed_check(after(start, 30)));
    }
}
