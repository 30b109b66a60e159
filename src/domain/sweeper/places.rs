//! Places for work that goes on at once, shared between owners: none of them has more than a few, whatever theirs takes.

use std::collections::{HashMap, VecDeque};

/// The places that are taken, by owner.
#[derive(Debug)]
pub(super) struct Places {
    all: usize,
    of_one_owner: usize,
    taken: HashMap<String, usize>,
}

impl Places {
    /// So many places, and so many of them for one owner.
    pub(super) fn new(all: usize, of_one_owner: usize) -> Self {
        Self { all, of_one_owner, taken: HashMap::new() }
    }

    /// Whether a place is free.
    pub(super) fn are_free(&self) -> bool {
        self.taken.values().sum::<usize>() < self.all
    }

    /// Takes the first of `waiting` whose owner may have a place, and the place. Those before it wait on.
    pub(super) fn take_next<T>(&mut self, waiting: &mut VecDeque<T>, owner: impl Fn(&T) -> String) -> Option<T> {
        if !self.are_free() {
            return None;
        }
        let has_room = |one: &T| self.taken.get(&owner(one)).is_none_or(|taken| *taken < self.of_one_owner);
        let next = waiting.iter().position(has_room).and_then(|at| waiting.remove(at))?;
        *self.taken.entry(owner(&next)).or_default() += 1;
        Some(next)
    }

    /// Gives an owner's place back.
    pub(super) fn leave(&mut self, owner: &str) {
        if let Some(taken) = self.taken.get_mut(owner) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_many_leaves_places_for_others() {
        let mut places = Places::new(5, 2);
        let mut waiting: VecDeque<&str> = ["a1", "a2", "a3", "b1", "a4", "c1", "d1"].into();
        let owner = |one: &&str| one[..1].to_owned();
        let mut taken = Vec::new();
        while let Some(next) = places.take_next(&mut waiting, owner) {
            taken.push(next);
        }
        assert_eq!(taken, ["a1", "a2", "b1", "c1", "d1"]);
        assert!(!places.are_free());
        places.leave("b");
        assert_eq!(places.take_next(&mut waiting, owner), None, "a has its share");
        places.leave("a");
        assert_eq!(places.take_next(&mut waiting, owner), Some("a3"));
        for owner in ["a", "a", "c", "d"] {
            places.leave(owner);
        }
        assert!(places.taken.is_empty(), "nothing is kept");
    }
}
