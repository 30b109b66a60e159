//! S3's clock: how far it is from ours, by the `Date` of its answers (RFC 9110 section 6.6.1), and what time to sign URLs with. The
//! client corrects its own calls by itself.

use std::{
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
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// Nearer than this, two clocks are the same: a `Date` counts whole seconds, and was on its way. Window-aligned URLs stay
/// the same as long as what is corrected does.
const SAME: Duration = Duration::from_secs(5);
/// What an operator is told of.
const ALARMING: Duration = Duration::from_secs(60);

/// How far S3's clock is ahead of ours, in milliseconds; 0 while they are the same. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<AtomicI64>);

impl Clock {
    /// What to add to our time to get S3's.
    pub(super) fn ahead(&self) -> time::Duration {
        time::Duration::milliseconds(self.0.load(Ordering::Relaxed))
    }

    /// An answer that came now says what time it is there.
    fn hear(&self, theirs: OffsetDateTime, now: OffsetDateTime) {
        // Somewhere within its second.
        let ahead = theirs + time::Duration::milliseconds(500) - now;
        let known = self.ahead();
        if (ahead - known).unsigned_abs() < SAME {
            return;
        }
        let ahead = if ahead.unsigned_abs() < SAME { time::Duration::ZERO } else { ahead };
        METRICS.s3_clock_ahead.set(ahead.as_seconds_f64());
        self.0.store(i64::try_from(ahead.whole_milliseconds()).unwrap_or(0), Ordering::Relaxed);
        let (seconds, way) = (ahead.unsigned_abs().as_secs(), if ahead.is_negative() { "ahead of" } else { "behind" });
        if ahead.unsigned_abs() > ALARMING {
            tracing::error!(
                seconds,
                "this machine's clock is {way} S3's: set it (NTP); URLs are signed with S3's time meanwhile"
            );
        } else if !ahead.is_zero() {
            tracing::warn!(seconds, "this machine's clock is {way} S3's; URLs are signed with S3's time");
        } else if !known.is_zero() {
            tracing::info!("this machine's clock and S3's agree again");
        }
    }
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
            self.hear(theirs, OffsetDateTime::now_utc());
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_clock_is_corrected_from_five_seconds_on_and_stays_put_while_answers_jitter() {
        let clock = Clock::default();
        let ours = datetime!(2026-11-22 10:00 UTC);
        let hear = |ahead: i64, latency: i64| {
            let now = ours + time::Duration::milliseconds(latency);
            clock.hear((ours + time::Duration::seconds(ahead)).truncate_to_second(), now);
            clock.ahead().whole_milliseconds()
        };
        assert_eq!(hear(4, 0), 0, "the same");
        let behind = hear(600, 0);
        assert_eq!(behind, 600_500);
        for jitter in [-3000, -1, 1, 3000] {
            assert_eq!(hear(600, jitter), behind, "the same correction, so the same URLs");
        }
        assert_eq!(hear(-3600, 0), -3_599_500);
        assert_eq!(hear(0, 400), 0, "set again");
    }
}
