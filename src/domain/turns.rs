//! Fair order between owners: one item of each in turn, so that an owner of many does not delay an owner of few.

use std::collections::HashMap;

/// Returns at most `limit` items of `due`, one of each owner in turn; each owner's items stay in order.
pub(super) fn in_turns<T>(due: Vec<T>, owner: impl Fn(&T) -> String, limit: usize) -> Vec<T> {
    let mut turns: Vec<(usize, usize, T)> = Vec::with_capacity(due.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (position, item) in due.into_iter().enumerate() {
        let turn = seen.entry(owner(&item)).or_default();
        turns.push((*turn, position, item));
        *turn += 1;
    }
    turns.sort_unstable_by_key(|(turn, position, _)| (*turn, *position));
    turns.into_iter().take(limit).map(|(_, _, item)| item).collect()
}

/// Returns an item of the owner of more than half of `due`, if there is such an owner.
pub(super) fn dominant<T>(due: &[T], owner: impl Fn(&T) -> String) -> Option<&T> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    due.iter().find(|item| {
        let count = counts.entry(owner(item)).or_default();
        *count += 1;
        *count > due.len() / 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the owner of a test's item: its first letter.
    fn owner(name: &&str) -> String {
        name[..1].to_owned()
    }

    #[test]
    fn owners_take_turns() {
        let due = vec!["a1", "a2", "a3", "a4", "b1", "c1", "b2"];
        assert_eq!(in_turns(due.clone(), owner, 10), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
        assert_eq!(in_turns(due, owner, 4), ["a1", "b1", "c1", "a2"]);
        assert_eq!(in_turns(vec!["a1", "a2"], owner, 10), ["a1", "a2"], "alone, an owner has all turns");
        assert_eq!(in_turns(Vec::<&str>::new(), owner, 10), Vec::<&str>::new());
    }

    #[test]
    fn an_owner_dominates_with_more_than_half() {
        assert_eq!(dominant(&["a1", "b1", "a2", "b2"], owner), None);
        assert_eq!(dominant(&["a1", "b1", "a2"], owner).map(owner_of), Some("a".to_owned()));
        assert_eq!(dominant::<&str>(&[], owner), None);
    }

    /// Returns the owner of the item that [`dominant`] has found.
    fn owner_of(name: &&str) -> String {
        owner(name)
    }
}
