//! A map of bounded size that drops the entries unused for longest.

use std::{
    borrow::Borrow,
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
};

/// A cache of two generations. A used entry moves into the young generation; when that is full, the old one is dropped. So memory
/// is bounded, every operation takes constant time, and frequently used entries stay.
#[derive(Debug)]
pub struct GenerationalCache<K, V, S = RandomState> {
    young: HashMap<K, V, S>,
    old: HashMap<K, V, S>,
    /// Maximum number of entries of one generation.
    half: usize,
}

impl<K: Eq + Hash, V: Clone, S: BuildHasher + Default> GenerationalCache<K, V, S> {
    /// Creates a cache of at most `capacity` entries; it keeps at least the half that was used last.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), half: capacity.div_ceil(2) }
    }

    /// Returns the value of a key and marks it as used.
    pub fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Stores a value.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            // The map of the dropped entries is used again.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
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
        let mut cache = GenerationalCache::<u64, &str>::new(1000);
        cache.insert(u64::MAX, "used");
        for key in 0..1_000_000 {
            cache.insert(key, "once");
            if key % 400 == 0 {
                assert_eq!(cache.get(&u64::MAX), Some("used"));
            }
            assert!(cache.young.len() + cache.old.len() <= 1000);
        }
        assert_eq!(cache.get(&999_999), Some("once"));
        assert_eq!(cache.get(&0), None);
    }

    #[test]
    fn last_value_is_returned_from_either_generation() {
        let mut cache = GenerationalCache::<u64, &str>::new(4);
        cache.insert(1, "a");
        cache.insert(2, "b");
        cache.insert(3, "c");
        cache.insert(1, "d");
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some("d"), Some("b"), Some("c")));
    }
}
