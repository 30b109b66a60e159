//! A map of bounded size that forgets what was not used for longest.

use std::{collections::HashMap, hash::Hash};

/// Two generations: what is used moves into the young one, and when that is full the old one is dropped. So memory is
/// bounded whatever the callers send, every operation takes constant time, and what is used often is never forgotten.
#[derive(Debug)]
pub struct GenerationalCache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash + Copy, V: Copy> GenerationalCache<K, V> {
    /// Keeps at most `capacity` entries, and at least the half of it that was used last.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: capacity.div_ceil(2) }
    }

    /// Returns the value of a key and marks it as used.
    pub fn get(&mut self, key: K) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(*value);
        }
        let value = self.old.remove(&key)?;
        self.insert(key, value);
        Some(value)
    }

    /// Keeps a value for a key.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: K) {
        self.young.remove(&key);
        self.old.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l4_a_million_keys_leave_the_capacity_and_what_is_in_use_stays() {
        let mut recent = GenerationalCache::new(1000);
        recent.insert(u64::MAX, "used");
        for key in 0..1_000_000 {
            recent.insert(key, "once");
            if key % 400 == 0 {
                assert_eq!(recent.get(u64::MAX), Some("used"));
            }
            assert!(recent.young.len() + recent.old.len() <= 1000);
        }
        assert_eq!(recent.get(999_999), Some("once"));
        assert_eq!(recent.get(0), None);
        recent.remove(999_999);
        assert_eq!(recent.get(999_999), None);
    }

    #[test]
    fn the_last_value_stands_in_whichever_generation() {
        let mut recent = GenerationalCache::new(4);
        recent.insert(1, "a");
        recent.insert(2, "b");
        recent.insert(3, "c");
        recent.insert(1, "d");
        assert_eq!((recent.get(1), recent.get(2), recent.get(3)), (Some("d"), Some("b"), Some("c")));
    }
}
