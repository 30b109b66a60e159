//! Calls to S3 that said nothing in time: requests of the same user that waited meanwhile for their turn need not find out again.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::generational_cache::GenerationalCache;
use crate::model::UserId;

/// Users that are remembered.
const CAPACITY: usize = 10_000;

/// When a call for a user was given up last.
#[derive(Debug)]
pub struct RecentTimeouts(Mutex<GenerationalCache<UserId, Instant>>);

impl Default for RecentTimeouts {
    fn default() -> Self {
        Self(Mutex::new(GenerationalCache::new(CAPACITY)))
    }
}

impl RecentTimeouts {
    /// A call for this user was given up.
    pub fn record(&self, user: UserId, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(user, now);
    }

    /// Whether one was given up since then.
    pub fn any_since(&self, user: UserId, began: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(user).is_some_and(|at| at > began)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_those_who_waited_meanwhile_are_spared() {
        let (silences, ada, bob) = (RecentTimeouts::default(), UserId::new(), UserId::new());
        let (before, at) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        silences.record(ada, at);
        assert!(silences.any_since(ada, before) && !silences.any_since(ada, at) && !silences.any_since(bob, before));
    }
}
