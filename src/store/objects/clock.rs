//! Measures the offset between S3's clock and this machine's by the `Date` of responses (RFC 9110 section 6.6.1), and corrects
//! the signing time of URLs with it. The AWS SDK corrects its own calls.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::metrics::METRICS;
use aws_sdk_s3::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef},
    error::BoxError,
};
use parking_lot::Mutex;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// Offset below which two clocks count as equal: a `Date` has whole seconds and a delay. Window-aligned URLs stay the same while
/// the correction stays the same.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// Offset from which an error is logged.
const CLOCK_ALARM: Duration = Duration::from_secs(60);

/// Number of latest responses whose majority decides.
const SAMPLES: usize = 5;

/// Offset of S3's clock, by its latest responses. A single `Date` does not change it: a proxy may have set the `Date`, or one node
/// whose clock is wrong. Clones share the state.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Offset in milliseconds; 0 while the clocks are equal.
    ahead_ms: AtomicI64,
    /// Offsets by the latest responses, at most [`SAMPLES`].
    latest: Mutex<VecDeque<time::Duration>>,
}

impl Clock {
    /// Returns how far S3's clock is ahead of this machine's.
    pub(super) fn ahead(&self) -> time::Duration {
        time::Duration::milliseconds(self.0.ahead_ms.load(Ordering::Relaxed))
    }

    /// Returns whether the latest response contradicts the current offset, so that another response decides.
    pub(super) fn is_in_doubt(&self) -> bool {
        let latest = self.0.latest.lock();
        latest.back().is_some_and(|latest| (*latest - self.ahead()).unsigned_abs() >= CLOCK_TOLERANCE)
    }

    /// Records the time of S3's clock in a response that arrived at `now`.
    fn record_sample(&self, theirs: OffsetDateTime, now: OffsetDateTime) {
        // On average half a second has passed since the whole second.
        let sample = theirs + time::Duration::milliseconds(500) - now;
        let majority = {
            let mut latest = self.0.latest.lock();
            if latest.len() == SAMPLES {
                latest.pop_front();
            }
            latest.push_back(sample);
            majority_offset(latest.make_contiguous())
        };
        let ahead_before = self.ahead();
        let Some(ahead) = majority.filter(|ahead| (*ahead - ahead_before).unsigned_abs() >= CLOCK_TOLERANCE) else { return };
        let ahead = if ahead.unsigned_abs() < CLOCK_TOLERANCE { time::Duration::ZERO } else { ahead };
        METRICS.s3_clock_ahead.set(ahead.as_seconds_f64());
        self.0.ahead_ms.store(i64::try_from(ahead.whole_milliseconds()).unwrap_or(0), Ordering::Relaxed);
        let (seconds, way) = (ahead.unsigned_abs().as_secs(), if ahead.is_negative() { "ahead of" } else { "behind" });
        if ahead.unsigned_abs() > CLOCK_ALARM {
            tracing::error!(
                seconds,
                "this machine's clock is far {way} S3's: correct it (NTP); until then URLs are signed with S3's time"
            );
        } else if !ahead.is_zero() {
            tracing::warn!(seconds, "this machine's clock is {way} S3's; URLs are signed with S3's time");
        } else if !ahead_before.is_zero() {
            tracing::info!("this machine's clock and S3's agree again");
        }
    }
}

/// Returns the offset that more than half of the responses agree on, at least two; of those, the median.
fn majority_offset(latest: &[time::Duration]) -> Option<time::Duration> {
    let mut sorted = latest.to_vec();
    sorted.sort_unstable();
    let middle = *sorted.get(sorted.len() / 2)?;
    let same = sorted.iter().filter(|offset| (**offset - middle).unsigned_abs() < CLOCK_TOLERANCE).count();
    (same >= 2 && same * 2 > sorted.len()).then_some(middle)
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(theirs) = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok()) {
            self.record_sample(theirs, OffsetDateTime::now_utc());
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const OURS: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

    /// Records a response of a clock that is `ahead` seconds ahead, `latency` milliseconds late; returns the offset.
    fn respond(clock: &Clock, ahead: i64, latency: i64) -> i128 {
        let now = OURS + time::Duration::milliseconds(latency);
        clock.record_sample((OURS + time::Duration::seconds(ahead)).truncate_to_second(), now);
        clock.ahead().whole_milliseconds()
    }

    #[test]
    fn clock_is_corrected_from_five_seconds_on_and_jitter_does_not_change_the_correction() {
        let clock = Clock::default();
        assert_eq!(respond(&clock, 4, 0), 0, "a difference below five seconds is not corrected");
        let clock = Clock::default();
        assert_eq!((respond(&clock, 600, 0), clock.is_in_doubt()), (0, true), "one response does not correct the clock");
        let behind = respond(&clock, 600, 0);
        assert_eq!((behind, clock.is_in_doubt()), (600_500, false), "two responses that agree correct it");
        for jitter in [-3000, -1, 1, 3000] {
            assert_eq!(respond(&clock, 600, jitter), behind, "the same correction, so the same URLs");
        }
        assert_eq!([respond(&clock, -3600, 0), respond(&clock, -3600, 0)], [behind, behind], "two of five are not a majority");
        assert_eq!(respond(&clock, -3600, 0), -3_599_500);
        assert_eq!([respond(&clock, 0, 400), respond(&clock, 0, 400)], [-3_599_500, -3_599_500]);
        assert_eq!(respond(&clock, 0, 400), 0, "the clocks are equal again");
    }

    proptest::proptest! {
        /// The correction stays that of the majority of any five consecutive responses.
        #[test]
        fn minority_of_responses_does_not_correct_the_clock(
            truth in -10_000i64..10_000,
            lies in proptest::collection::vec((proptest::num::i64::ANY, 0usize..4), 1..40),
        ) {
            let clock = Clock::default();
            for _ in 0..SAMPLES {
                respond(&clock, truth, 0);
            }
            let settled = clock.ahead();
            for (lie, more) in lies {
                // One wrong response, then at least two correct ones.
                respond(&clock, lie % 100_000_000, 0);
                proptest::prop_assert_eq!(clock.ahead(), settled);
                for _ in 0..2 + more {
                    respond(&clock, truth, 0);
                    proptest::prop_assert_eq!(clock.ahead(), settled);
                }
            }
        }
    }
}
