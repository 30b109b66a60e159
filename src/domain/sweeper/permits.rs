//! Permits for concurrent work, shared between owners. Each owner has a share; while no other owner waits, one may borrow all
//! free permits except for one share.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

/// Minimum duration of work that shows that its owner's calls are slow.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// Permits that are taken, by owner.
#[derive(Debug)]
pub(super) struct OwnerPermits {
    all: usize,
    share: usize,
    /// Number of permits that each owner has taken.
    taken: HashMap<String, usize>,
    /// Owners with permits that may not borrow more, because their work is slow.
    slow: HashSet<String>,
}

impl OwnerPermits {
    /// Creates `all` free permits, with a share for each owner.
    pub(super) fn new(all: usize, share: usize) -> Self {
        Self { all, share, taken: HashMap::new(), slow: HashSet::new() }
    }

    /// Returns whether a permit is free.
    pub(super) fn has_free(&self) -> bool {
        self.free() > 0
    }

    /// Returns the number of free permits.
    fn free(&self) -> usize {
        self.all.saturating_sub(self.taken.values().sum())
    }

    /// Takes a permit, and the first of `waiting` whose owner has one left in its share, otherwise the first whose owner may
    /// borrow one. The others stay in `waiting`.
    pub(super) fn take_next<T>(&mut self, waiting: &mut VecDeque<T>, owner: impl Fn(&T) -> String) -> Option<T> {
        let free = self.free();
        if free == 0 {
            return None;
        }
        let has_share = |item: &T| self.taken.get(&owner(item)).is_none_or(|taken| *taken < self.share);
        let may_borrow = |item: &T| free > self.share && !self.slow.contains(&owner(item));
        let next = waiting.iter().position(has_share).or_else(|| waiting.iter().position(may_borrow));
        let next = next.and_then(|at| waiting.remove(at))?;
        *self.taken.entry(owner(&next)).or_default() += 1;
        Some(next)
    }

    /// Releases an owner's permit. An owner whose work was slow may not borrow until it has released all of its permits.
    pub(super) fn release(&mut self, owner: &str, took: Duration) {
        if took >= SLOW_AFTER {
            self.slow.insert(owner.to_owned());
        }
        if let Some(taken) = self.taken.get_mut(owner) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(owner);
                self.slow.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(10);

    #[test]
    fn owner_of_many_images_leaves_permits_for_others() {
        let mut permits = OwnerPermits::new(5, 2);
        // Marks the owner a as slow, so that it may not borrow.
        permits.release("a", SLOW_AFTER);
        let mut waiting: VecDeque<&str> = ["a1", "a2", "a3", "b1", "a4", "c1", "d1"].into();
        let owner = |item: &&str| item[..1].to_owned();
        let mut taken = Vec::new();
        while let Some(next) = permits.take_next(&mut waiting, owner) {
            taken.push(next);
        }
        assert_eq!(taken, ["a1", "a2", "b1", "c1", "d1"]);
        assert!(!permits.has_free());
        permits.release("b", QUICK);
        assert_eq!(permits.take_next(&mut waiting, owner), None, "a has its share");
        permits.release("a", QUICK);
        assert_eq!(permits.take_next(&mut waiting, owner), Some("a3"));
        for owner in ["a", "a", "c", "d"] {
            permits.release(owner, QUICK);
        }
        assert!(permits.taken.is_empty() && permits.slow.is_empty(), "no owner is left");
    }

    #[test]
    fn a_lone_owner_borrows_all_but_a_share_until_its_work_is_slow() {
        let owner = |item: &&str| item[..1].to_owned();
        let (mut permits, mut waiting) = (OwnerPermits::new(8, 2), VecDeque::from(["a"; 20]));
        let mut take = |permits: &mut OwnerPermits| std::iter::from_fn(|| permits.take_next(&mut waiting, owner)).count();
        assert_eq!(take(&mut permits), 6, "a share is left to the owner that comes next");
        permits.release("a", QUICK);
        assert_eq!(take(&mut permits), 1);
        assert_eq!(permits.take_next(&mut VecDeque::from(["b", "b", "b"]), owner), Some("b"));
        for _ in 0..5 {
            permits.release("a", SLOW_AFTER);
        }
        assert_eq!(take(&mut permits), 1, "a has one permit already, and a share of two");
    }
}
