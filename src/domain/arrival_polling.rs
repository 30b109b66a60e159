//! Schedules polling for uploads that no client will confirm, such as Uppy's forms.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::Image;

/// Delay before the first poll, and between two sweeps while an upload is expected.
pub(super) const FIRST_POLL_DELAY: Duration = Duration::from_secs(2);
/// The longest delay between two polls.
const MAX_POLL_DELAY: Duration = Duration::from_secs(5 * 60);
/// Time after the signing of a URL during which its upload is expected. A later upload waits for the next regular sweep.
const EXPECTED_FOR: Duration = Duration::from_secs(2 * 60);

/// Makes the sweeper of this server run more often while an upload is expected.
#[derive(Debug, Default)]
pub(super) struct ArrivalPoller {
    /// End of the time during which an upload is expected.
    until: Mutex<Option<Instant>>,
    /// Wakes the sweeper's wait.
    woken: Notify,
}

impl ArrivalPoller {
    /// Schedules frequent sweeps: an upload is expected soon.
    pub(super) fn schedule(&self) {
        *self.until.lock() = Some(Instant::now() + EXPECTED_FOR);
        self.woken.notify_one();
    }

    /// Waits between two sweeps: for `interval`, or briefly once an upload is expected.
    pub(super) async fn wait_until_next_sweep(&self, interval: Duration) {
        let until = *self.until.lock();
        let short = FIRST_POLL_DELAY.min(interval);
        if until.is_some_and(|until| Instant::now() < until) {
            return tokio::time::sleep(short).await;
        }
        if tokio::time::timeout(interval, self.woken.notified()).await.is_ok() {
            tokio::time::sleep(short).await;
        }
    }
}

/// Returns whether the image's upload must be polled for, because no client will confirm it.
pub(super) fn needs_polling(image: &Image) -> bool {
    image.upload.is_size_bound() && image.key.is_incoming()
}

/// Returns the delay before the next poll for an upload of this age: a quarter of the age, so that an upload that never arrives
/// costs a few dozen polls.
pub(super) fn poll_delay(age: time::Duration) -> Duration {
    Duration::try_from(age / 4).unwrap_or(FIRST_POLL_DELAY).clamp(FIRST_POLL_DELAY, MAX_POLL_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_frequent_at_first_and_few_in_total() {
        let (mut age, mut polls) = (time::Duration::ZERO, 0);
        while age < time::Duration::minutes(90) {
            age += poll_delay(age);
            polls += 1;
            assert!(polls > 4 || age <= time::Duration::seconds(10), "{polls} polls within {age}");
        }
        assert!((20..60).contains(&polls), "{polls} polls in 90 minutes");
        assert_eq!(poll_delay(time::Duration::seconds(-5)), FIRST_POLL_DELAY, "another server's clock may be ahead");
    }

    #[tokio::test]
    async fn an_expected_upload_shortens_the_wait() {
        let (poller, minute) = (ArrivalPoller::default(), Duration::from_secs(60));
        let began = Instant::now();
        poller.wait_until_next_sweep(Duration::from_millis(50)).await;
        assert!(began.elapsed() >= Duration::from_millis(50));
        let schedule = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            poller.schedule();
        };
        tokio::join!(poller.wait_until_next_sweep(minute), schedule);
        poller.wait_until_next_sweep(minute).await;
        assert!(
            (2 * FIRST_POLL_DELAY..20 * FIRST_POLL_DELAY).contains(&began.elapsed()),
            "one interrupted wait and one short wait: {:?}",
            began.elapsed()
        );
    }
}
