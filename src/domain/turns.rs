//! Fair order between owners: one item of each in turn, so that an owner of many does not delay an owner of few.
//!
//! A queue is read from its front, and the owner that was served longest ago comes first. If owners fill the front with several
//! items each, every read also takes a page of the queue behind the front: the same page until every owner in it was served, then
//! the next. So other owners' items are found behind any number of such owners, and the cost of a read does not grow with the
//! queue.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
};

use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};

use crate::store::{QueuedImage, StoreError};

/// Items of the page that is read behind a queue's front.
const PAGE: usize = 5000;

/// An item of a queue.
pub(super) trait Queued {
    /// Returns the item's id.
    fn id(&self) -> String;
    /// Returns the owner.
    fn owner(&self) -> String;
    /// Returns the time at which the item is due.
    fn due(&self) -> OffsetDateTime;
}

impl Queued for QueuedImage {
    fn id(&self) -> String {
        self.id()
    }

    fn owner(&self) -> String {
        self.owner()
    }

    fn due(&self) -> OffsetDateTime {
        self.due
    }
}

/// The turns of a queue's owners.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Owners of the items that were read last, each with the number of its latest turn; zero before the first.
    latest: HashMap<String, u64>,
    /// Number of turns so far.
    count: u64,
    /// Start of the page that the latest read took; `None` if it took no page.
    page: Option<OffsetDateTime>,
    /// Start of the next page; `None` after the last.
    next_page: Option<OffsetDateTime>,
}

impl Turns {
    /// Records that an item of this owner was started.
    pub(super) fn record(&self, owner: &str) {
        let mut state = self.0.lock();
        state.count += 1;
        let turn = state.count;
        if let Some(latest) = state.latest.get_mut(owner) {
            *latest = turn;
        }
    }

    /// Returns at most `limit` due items in turns. `find(from, limit)` returns at most `limit` due items, the longest due first:
    /// from the front of the queue, or those that are due since `from`.
    ///
    /// # Errors
    /// [`StoreError`] of `find`.
    pub(super) async fn next_due<T: Queued, Found>(
        &self,
        limit: usize,
        find: impl Fn(Option<OffsetDateTime>, usize) -> Found,
    ) -> Result<Vec<T>, StoreError>
    where
        Found: Future<Output = Result<Vec<T>, StoreError>>,
    {
        let mut due = with_owners(find(None, limit).await?, T::owner);
        let (mut page, mut next_page) = (None, None);
        if let Some((_, last)) = due.last().filter(|_| due.len() >= limit && has_repeated_owner(&due)) {
            let from = self.0.lock().page_after(last.due());
            let behind = find(Some(from), PAGE).await?;
            let is_full = behind.len() >= PAGE;
            page = Some(from);
            // Begins later even if all items of this page are due at the same time: otherwise this page would be read again.
            next_page = behind.last().filter(|_| is_full).map(|last| last.due().max(from + Duration::MILLISECOND));
            let front: HashSet<_> = due.iter().map(|(_, item)| item.id()).collect();
            due.extend(with_owners(behind.into_iter().filter(|item| !front.contains(&item.id())), T::owner));
        }
        let mut state = self.0.lock();
        (state.page, state.next_page) = (page, next_page);
        let owners: HashSet<_> = due.iter().map(|(owner, _)| owner).collect();
        state.latest = owners.into_iter().map(|owner| (owner.clone(), state.turn(owner))).collect();
        Ok(sorted(due, |owner| state.turn(owner), limit))
    }
}

impl State {
    /// Returns the number of the owner's latest turn; zero without one.
    fn turn(&self, owner: &str) -> u64 {
        self.latest.get(owner).copied().unwrap_or(0)
    }

    /// Returns the start of the page to read behind a front that ends at `front_end`: the same page as before until every owner in
    /// it was served.
    fn page_after(&self, front_end: OffsetDateTime) -> OffsetDateTime {
        let is_served = self.latest.values().all(|turn| *turn > 0);
        let page = if is_served { self.next_page } else { self.page };
        page.map_or(front_end, |page| page.max(front_end))
    }
}

/// Returns the items, each with its owner, whose text is built once for each item.
fn with_owners<T>(items: impl IntoIterator<Item = T>, owner: impl Fn(&T) -> String) -> Vec<(String, T)> {
    items.into_iter().map(|item| (owner(&item), item)).collect()
}

/// Returns whether several items have the same owner.
fn has_repeated_owner<T>(due: &[(String, T)]) -> bool {
    let mut owners = HashSet::with_capacity(due.len());
    !due.iter().all(|(owner, _)| owners.insert(owner))
}

/// Returns the items of `due`, one of each owner in turn; each owner's items stay in order.
pub(super) fn in_turns<T>(due: Vec<T>, owner: impl Fn(&T) -> String) -> Vec<T> {
    sorted(with_owners(due, owner), |_| 0, usize::MAX)
}

/// Returns at most `limit` items of `due`, one of each owner in turn, the owners in the order of `latest`; each owner's items stay
/// in order.
fn sorted<T>(due: Vec<(String, T)>, latest: impl Fn(&str) -> u64, limit: usize) -> Vec<T> {
    let mut turns: Vec<(usize, u64, usize, T)> = Vec::with_capacity(due.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (position, (owner, item)) in due.into_iter().enumerate() {
        let latest = latest(&owner);
        let turn = seen.entry(owner).or_default();
        turns.push((*turn, latest, position, item));
        *turn += 1;
    }
    turns.sort_unstable_by_key(|(turn, latest, position, _)| (*turn, *latest, *position));
    turns.into_iter().take(limit).map(|(.., item)| item).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the numbers are small")]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Number of items that a test's queue returns in turns.
    const LIMIT: usize = 200;

    /// Returns the owner of a test's item: its first letter.
    fn owner(name: &&str) -> String {
        name[..1].to_owned()
    }

    #[test]
    fn owners_take_turns() {
        let due = vec!["a1", "a2", "a3", "a4", "b1", "c1", "b2"];
        assert_eq!(in_turns(due, owner), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
        assert_eq!(in_turns(vec!["a1", "a2"], owner), ["a1", "a2"], "alone, an owner has all turns");
        assert_eq!(in_turns(Vec::<&str>::new(), owner), Vec::<&str>::new());
    }

    /// An item of a test's queue: its number, its owner, and the milliseconds at which it is due.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Item(usize, usize, i64);

    impl Queued for Item {
        fn id(&self) -> String {
            self.0.to_string()
        }

        fn owner(&self) -> String {
            self.1.to_string()
        }

        fn due(&self) -> OffsetDateTime {
            OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(self.2)
        }
    }

    /// A queue of items, the longest due first.
    struct Queue {
        items: RefCell<Vec<Item>>,
        turns: Turns,
        /// Largest number of items that a round read.
        read: Cell<usize>,
    }

    impl Queue {
        fn new(items: impl Iterator<Item = (usize, i64)>) -> Self {
            let mut items: Vec<_> = items.enumerate().map(|(id, (owner, due))| Item(id, owner, due)).collect();
            items.sort_by_key(|item| item.2);
            Self { items: RefCell::new(items), turns: Turns::default(), read: Cell::new(0) }
        }

        /// Reads the queue, and starts the first items, at most `started`. Returns their owners.
        async fn round(&self, started: usize) -> Vec<usize> {
            let read = Cell::new(0);
            let find = |from: Option<OffsetDateTime>, limit| {
                let items = self.items.borrow();
                let due = items.iter().filter(|item| from.is_none_or(|from| item.due() >= from));
                let found: Vec<_> = due.take(limit).cloned().collect();
                read.set(read.get() + found.len());
                std::future::ready(Ok(found))
            };
            let next: Vec<Item> = self.turns.next_due(LIMIT, find).await.unwrap();
            assert!(next.len() <= LIMIT);
            self.read.set(self.read.get().max(read.get()));
            let taken: Vec<_> = next.into_iter().take(started).collect();
            taken.iter().for_each(|item| self.turns.record(&item.owner()));
            self.items.borrow_mut().retain(|item| !taken.contains(item));
            taken.into_iter().map(|item| item.1).collect()
        }

        /// Returns the number of rounds until an item of each owner from `first` on was started.
        async fn rounds_until_served(&self, first: usize, started: usize) -> usize {
            let unserved =
                || self.items.borrow().iter().filter(|item| item.1 >= first).map(|item| item.1).collect::<HashSet<_>>();
            let mut waiting = unserved();
            for round in 0..10_000 {
                if waiting.is_empty() {
                    return round;
                }
                for owner in self.round(started).await {
                    waiting.remove(&owner);
                }
            }
            panic!("{waiting:?} were not served");
        }
    }

    /// Owners of 12,000 items hold the front with equal shares; owners of one item each wait behind them.
    #[tokio::test]
    async fn any_number_of_owners_of_many_delay_no_owner_of_few() {
        for heavy in [1, 2, 3, 10, 150] {
            for (started, few) in [(2, 1), (2, 20), (50, 600)] {
                let many = (0..12_000).map(|n| (n % heavy, n as i64));
                let queue = Queue::new(many.chain((0..few).map(|n| (heavy + n, 12_000 + n as i64))));
                let rounds = queue.rounds_until_served(heavy, started).await;
                // Each of the three pages is left when all its owners were served.
                let most = 3 * heavy.div_ceil(started) + few.div_ceil(started) + 3;
                assert!(rounds <= most, "{rounds} of {most} rounds: {heavy} owners of many, {few} of one, {started} a round");
                assert!(queue.read.get() <= LIMIT + PAGE, "{} items", queue.read.get());
            }
        }
    }

    /// The owners of many have different shares, and their items are in any order.
    #[tokio::test]
    async fn owners_of_different_shares_delay_no_owner_of_few() {
        for seed in 0..10_u64 {
            let mut state = seed + 1;
            let mut random = move |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let many: Vec<_> = (0..15_000).map(|_| (random(12).min(random(12)) as usize, random(5000) as i64)).collect();
            let queue = Queue::new(many.into_iter().chain([(12, 5000), (13, 2500)]));
            let rounds = queue.rounds_until_served(12, 2).await;
            assert!(rounds < 40, "{rounds} rounds, seed {seed}");
        }
    }

    #[tokio::test]
    async fn owners_of_items_that_are_due_at_the_same_time_are_all_found() {
        let same = (0..9000).map(|n| (n % 2, 7));
        let queue = Queue::new(same.chain([(2, 8)]));
        assert!(queue.rounds_until_served(2, 2).await < 10);
    }

    #[tokio::test]
    async fn all_items_are_started_in_turns() {
        let queue = Queue::new((0..3000).map(|n| (usize::from(n >= 2990), n)));
        let mut started = Vec::new();
        while !queue.items.borrow().is_empty() {
            started.extend(queue.round(2).await);
        }
        assert_eq!(started.len(), 3000);
        assert_eq!(started[..20].iter().filter(|owner| **owner == 1).count(), 10, "{:?}", &started[..20]);
    }
}
