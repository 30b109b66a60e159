//! A map of bounded size that drops the entries unused for longest.

use std::{collections::HashMap, hash::Hash};

/// A cache of two generations. A used entry moves into the young generation; when that is full, the old one is dropped. So memory
/// is bounded, every operation takes constant time, and frequently used entries stay.
#[derive(Debug)]
pub struct GenerationalCache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Maximum number of entries of one generation.
    half: usize,
}

impl<K: Eq + Hash + Copy, V: Copy> GenerationalCache<K, V> {
    /// Creates a cache of at most `capacity` entries; it keeps at least the half that was used last.
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

    /// Stores a value.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l4_a_million_keys_do_not_exceed_the_capacity_and_a_used_entry_stays() {
        let mut cache = GenerationalCache::new(1000);
        cache.insert(u64::MAX, "used");
        for key in 0..1_000_000 {
            cache.insert(key, "once");
            if key % 400 == 0 {
                assert_eq!(cache.get(u64::MAX), Some("used"));
            }
            assert!(cache.young.len() + cache.old.len() <= 1000);
        }
        assert_eq!(cache.get(999_999), Some("once"));
        assert_eq!(cache.get(0), None);
    }

    #[test]
    fn last_value_is_returned_from_either_generation() {
        let mut cache = GenerationalCache::new(4);
        cache.insert(1, "a");
        cache.insert(2, "b");
        cache.insert(3, "c");
        cache.insert(1, "d");
        assert_eq!((cache.get(1), cache.get(2), cache.get(3)), (Some("d"), Some("b"), Some("c")));
    }
}
