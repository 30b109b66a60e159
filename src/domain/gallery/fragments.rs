//! Keeps the JSON texts of images that were shown lately, so that an image that is shown again is neither decoded nor signed again.
//!
//! A text depends on the image's record, which is read from the database for each page, and on the parameters of its URLs. Both
//! are its key, so a text that is found is the one that would be written now.

use std::{
    fmt,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::{domain::generational_cache::GenerationalCache, model::Sha256};

/// Maximum number of texts: those of a page of 50 images for 80 users.
const CAPACITY: usize = 4096;
/// Length in bytes of the longest record whose text is kept, and of the longest text: with the capacity, a bound of the memory.
const MAX_LENGTH: usize = 4096;
/// Number of slots for the hashes of images that were shown.
const SHOWN_SLOTS: usize = 4 * CAPACITY;

/// The JSON text of an image in a page. Not `Debug`, since it contains presigned URLs.
pub(super) struct Fragment {
    /// Digest of the parameters of the URLs and of the elements that the record shows.
    pub(super) digest: Sha256,
    pub(super) text: Box<[u8]>,
}

/// A cache of texts. The key of each is the digest of the parameters of the URLs, and the record. A text is kept from the second
/// time on that its image is shown: an image that is shown once, as by scrolling, costs no allocation and displaces no other.
pub(super) struct Fragments {
    kept: Mutex<GenerationalCache<Box<[u8]>, Arc<Fragment>, RandomState>>,
    /// Hashes of the keys of texts that were shown, each in the slot that the hash determines. A later key of the same slot
    /// displaces it; the text of another key with the same hash is kept from the first time on.
    shown: Box<[AtomicU64]>,
    hashes: RandomState,
}

/// Result of [`Fragments::get`].
pub(super) enum Lookup {
    /// The text.
    Kept(Arc<Fragment>),
    /// The image was shown before: its text is to be kept.
    Shown,
    /// The image was not shown lately.
    New,
}

impl Default for Fragments {
    fn default() -> Self {
        let shown = (0..SHOWN_SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { kept: Mutex::new(GenerationalCache::new(CAPACITY)), shown, hashes: RandomState::default() }
    }
}

impl fmt::Debug for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragments").finish_non_exhaustive()
    }
}

impl Fragments {
    /// Looks the text of this key up, and records that its image is shown.
    pub(super) fn get(&self, key: &[u8]) -> Lookup {
        if let Some(fragment) = self.kept.lock().get(key) {
            return Lookup::Kept(fragment);
        }
        let hash = self.hashes.hash_one(key);
        let slot = usize::try_from(hash % self.shown.len() as u64).unwrap_or(0);
        if self.shown[slot].swap(hash, Ordering::Relaxed) == hash { Lookup::Shown } else { Lookup::New }
    }

    /// Keeps a text, unless it or its record is long.
    pub(super) fn insert(&self, key: Box<[u8]>, fragment: Fragment) {
        if key.len().max(fragment.text.len()) <= MAX_LENGTH {
            self.kept.lock().insert(key, Arc::new(fragment));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(length: usize) -> Fragment {
        Fragment { digest: Sha256::of(["key"]), text: vec![b'x'; length].into() }
    }

    #[test]
    fn long_text_or_record_is_not_kept() {
        let fragments = Fragments::default();
        for (key_length, text_length, is_kept) in
            [(1, MAX_LENGTH, true), (MAX_LENGTH, 1, true), (2, MAX_LENGTH + 1, false), (MAX_LENGTH + 1, 1, false)]
        {
            let key = vec![b'k'; key_length];
            fragments.insert(key.as_slice().into(), fragment(text_length));
            assert_eq!(matches!(fragments.get(&key), Lookup::Kept(_)), is_kept, "{key_length}, {text_length}");
        }
    }

    #[test]
    fn text_is_kept_from_the_second_time_on() {
        let fragments = Fragments::default();
        assert!(matches!(fragments.get(b"key"), Lookup::New));
        assert!(matches!(fragments.get(b"other key"), Lookup::New));
        assert!(matches!(fragments.get(b"key"), Lookup::Shown));
        fragments.insert(b"key".as_slice().into(), fragment(7));
        assert!(matches!(fragments.get(b"key"), Lookup::Kept(kept) if kept.text.len() == 7));
    }

    #[test]
    fn debug_shows_no_texts() {
        let fragments = Fragments::default();
        fragments.insert(b"key".as_slice().into(), fragment(1));
        assert_eq!(format!("{fragments:?}"), "Fragments { .. }");
    }
}
