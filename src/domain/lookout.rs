//! Schedules polling for uploads that no client will confirm, such as Uppy's forms.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::model::Image;

/// When the first look is due, and between two sweeps while something is expected.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// The longest between two looks.
const SELDOM: Duration = Duration::from_secs(5 * 60);
/// For how long what was asked for is expected at any moment. What takes longer waits for the next sweep.
const EXPECTED_FOR: Duration = Duration::from_secs(2 * 60);

/// Whether the sweeper of this server is to look often.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    until: Mutex<Option<Instant>>,
    woken: Notify,
}

impl Lookout {
    /// Something will come soon.
    pub(super) fn expect(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + EXPECTED_FOR);
        self.woken.notify_one();
    }

    /// The pause between two sweeps: `interval`, or a short one once something is expected.
    pub(super) async fn rest(&self, interval: Duration) {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let short = SOON.min(interval);
        if until.is_some_and(|until| Instant::now() < until) {
            return tokio::time::sleep(short).await;
        }
        if tokio::time::timeout(interval, self.woken.notified()).await.is_ok() {
            tokio::time::sleep(short).await;
        }
    }
}

/// Whether nobody will say when it is there.
pub(super) fn unannounced(image: &Image) -> bool {
    image.upload.unverified.is_some() && image.key.is_incoming()
}

/// How long to wait for the next look at an upload of this age: a quarter of it, so that an upload that never comes costs
/// a few dozen looks.
pub(super) fn wait(age: time::Duration) -> Duration {
    Duration::try_from(age / 4).unwrap_or(SOON).clamp(SOON, SELDOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_soon_at_first_and_few_in_all() {
        let (mut age, mut looks) = (time::Duration::ZERO, 0);
        while age < time::Duration::minutes(90) {
            age += wait(age);
            looks += 1;
            assert!(looks > 4 || age <= time::Duration::seconds(10), "{looks} by {age}");
        }
        assert!((20..60).contains(&looks), "{looks}");
        assert_eq!(wait(time::Duration::seconds(-5)), SOON, "another server's clock may be ahead");
    }

    #[tokio::test]
    async fn what_is_expected_shortens_the_rest() {
        let (lookout, minute) = (Lookout::default(), Duration::from_secs(60));
        let began = Instant::now();
        lookout.rest(Duration::from_millis(50)).await;
        assert!(began.elapsed() >= Duration::from_millis(50));
        let expect = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            lookout.expect();
        };
        tokio::join!(lookout.rest(minute), expect);
        lookout.rest(minute).await;
        assert!((2 * SOON..20 * SOON).contains(&began.elapsed()), "woken, then at a quick pace: {:?}", began.elapsed());
    }
}
