//! Recent timeouts of S3 calls, by user: requests of the same user that waited for a permit meanwhile do not call S3 again.

use std::time::Instant;

use parking_lot::Mutex;

use super::generational_cache::GenerationalCache;
use crate::model::UserId;

/// Users whose timeout is remembered.
const CAPACITY: usize = 10_000;

/// Time of each user's latest timeout.
#[derive(Debug)]
pub struct RecentTimeouts(Mutex<GenerationalCache<UserId, Instant>>);

impl Default for RecentTimeouts {
    fn default() -> Self {
        Self(Mutex::new(GenerationalCache::new(CAPACITY)))
    }
}

impl RecentTimeouts {
    /// Records a timeout of a call for this user.
    pub fn record(&self, user: UserId, now: Instant) {
        self.0.lock().insert(user, now);
    }

    /// Returns whether a call for this user has timed out after `began`.
    pub fn has_any_since(&self, user: UserId, began: Instant) -> bool {
        self.0.lock().get(&user).is_some_and(|at| at > began)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_timeout_counts_for_earlier_requests_of_the_same_user() {
        let (timeouts, ada, bob) = (RecentTimeouts::default(), UserId::new(), UserId::new());
        let (before, at) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        timeouts.record(ada, at);
        assert!(timeouts.has_any_since(ada, before) && !timeouts.has_any_since(ada, at) && !timeouts.has_any_since(bob, before));
    }
}
