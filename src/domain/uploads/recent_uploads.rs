//! Guesses whether the user already has the bytes of a single upload, so that they are searched among the user's images first.
//!
//! The search is one read. Without it, bytes that the user already has cost a reservation, a rejected insertion and a release;
//! with it, a new upload takes one more read. So it precedes the reservation only if known bytes are likely: for uploads that
//! this server opened or found recently, for users whose latest upload was known, and for the first upload of a user on this
//! server. The unique index decides in any case: a wrong guess costs time and changes no answer.

use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

use crate::{
    domain::generational_cache::GenerationalCache,
    model::{Sha256, UserId},
};

/// Uploads that are remembered.
const MAX_UPLOADS: usize = 100_000;
/// Users whose latest upload is remembered.
const MAX_USERS: usize = 20_000;

/// Whether the user had the bytes of an upload before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BytesStatus {
    New,
    Known,
}

/// Memory of the recent uploads of this server: at most some 6 MiB.
#[derive(Debug)]
pub(in crate::domain) struct RecentUploads {
    hashes: RandomState,
    memory: Mutex<Memory>,
}

/// Caches behind the lock.
#[derive(Debug)]
struct Memory {
    /// Uploads, as hashes of user and digest.
    uploads: GenerationalCache<u64, ()>,
    /// Users, each with the status of the bytes of the latest upload.
    users: GenerationalCache<UserId, BytesStatus>,
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
        memory.users.get(&user).is_none_or(|latest| latest == BytesStatus::Known)
            || memory.uploads.get(&self.hashes.hash_one((user, sha256))).is_some()
    }

    /// Remembers an upload, and whether the user had its bytes before.
    pub(super) fn remember(&self, user: UserId, sha256: Sha256, bytes: BytesStatus) {
        let mut memory = self.memory.lock();
        memory.users.insert(user, bytes);
        memory.uploads.insert(self.hashes.hash_one((user, sha256)), ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_bytes_of_a_user_with_new_bytes_need_no_read() {
        let (recent, ada, bob) = (RecentUploads::default(), UserId::new(), UserId::new());
        let [first, second, third] = ["first", "second", "third"].map(|bytes| Sha256::of([bytes]));
        assert!(recent.is_likely_known(ada, first), "the first upload of a user on this server");
        recent.remember(ada, first, BytesStatus::New);
        assert!(recent.is_likely_known(ada, first), "the same bytes again");
        assert!(!recent.is_likely_known(ada, second), "new bytes after new bytes");
        recent.remember(bob, second, BytesStatus::New);
        assert!(!recent.is_likely_known(ada, second), "bytes of another user");
        recent.remember(ada, first, BytesStatus::Known);
        assert!(recent.is_likely_known(ada, third), "the upload after known bytes");
        recent.remember(ada, third, BytesStatus::New);
        assert!(!recent.is_likely_known(ada, second));
    }
}
