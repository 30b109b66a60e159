//! Decides whether a single upload first looks for its bytes among the user's images.
//!
//! The look is one read. Without it, bytes that the user already has cost a reservation, a refused insertion and a release; with
//! it, a new upload takes a read more. So it precedes the reservation only where known bytes are likely: for uploads that this
//! server opened or found recently, for users whose latest upload was known, and for the first upload of a user on this server.
//! The unique index decides in any case: a wrong guess costs time and changes no answer.

use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

use crate::{
    domain::generational_cache::GenerationalCache,
    model::{Sha256, UserId},
};

/// Remembered uploads.
const MAX_UPLOADS: usize = 100_000;
/// Remembered users.
const MAX_USERS: usize = 20_000;

/// Memory of the recent uploads of this server: at most some 6 MiB.
#[derive(Debug)]
pub(in crate::domain) struct RecentUploads {
    hashes: RandomState,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    /// Hashes of user and digest.
    uploads: GenerationalCache<u64, ()>,
    /// Whether the bytes of a user's latest upload were known.
    users: GenerationalCache<UserId, bool>,
}

impl Default for RecentUploads {
    fn default() -> Self {
        let memory = Memory { uploads: GenerationalCache::new(MAX_UPLOADS), users: GenerationalCache::new(MAX_USERS) };
        Self { hashes: RandomState::new(), memory: Mutex::new(memory) }
    }
}

impl RecentUploads {
    /// Returns whether these bytes of this user are likely to be known.
    pub(super) fn is_likely_known(&self, user: UserId, sha256: Sha256) -> bool {
        let mut memory = self.memory.lock();
        memory.users.get(user).unwrap_or(true) || memory.uploads.get(self.hashes.hash_one((user, sha256))).is_some()
    }

    /// Remembers an upload, and whether its bytes were known.
    pub(super) fn remember(&self, user: UserId, sha256: Sha256, was_known: bool) {
        let mut memory = self.memory.lock();
        memory.users.insert(user, was_known);
        memory.uploads.insert(self.hashes.hash_one((user, sha256)), ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_bytes_of_a_user_with_new_bytes_need_no_look() {
        let (recent, ada, bob) = (RecentUploads::default(), UserId::new(), UserId::new());
        let [first, second, third] = ["first", "second", "third"].map(|bytes| Sha256::of([bytes]));
        assert!(recent.is_likely_known(ada, first), "the first upload of a user on this server");
        recent.remember(ada, first, false);
        assert!(recent.is_likely_known(ada, first), "the same bytes");
        assert!(!recent.is_likely_known(ada, second), "new ones");
        recent.remember(bob, second, false);
        assert!(!recent.is_likely_known(ada, second), "another user's");
        recent.remember(ada, first, true);
        assert!(recent.is_likely_known(ada, third), "after known ones");
        recent.remember(ada, third, false);
        assert!(!recent.is_likely_known(ada, second));
    }
}
