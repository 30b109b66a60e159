//! A fair semaphore: waiting callers get permits round robin between groups, within a group between its members, and first
//! come, first served for each member. A group with a thousand waiting callers delays another group by one permit.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The key of a group or of a member.
pub trait Key: Eq + Hash + Copy {}

impl<K: Eq + Hash + Copy> Key for K {}

/// The semaphore: its permits, and the groups and members that wait for one.
#[derive(Debug)]
pub struct FairSemaphore<G: Key, M: Key = ()> {
    /// The number of all permits, held and free.
    total: usize,
    /// The largest number of permits of one group.
    group_limit: usize,
    state: Mutex<State<G, M>>,
}

#[derive(Debug)]
struct State<G: Key, M: Key> {
    /// Permits that are held.
    running: usize,
    groups: HashMap<G, Group<G, M>>,
    /// Groups with waiting members, the next one first.
    order: VecDeque<G>,
}

#[derive(Debug)]
struct Group<G: Key, M: Key> {
    /// Permits that the group holds.
    running: usize,
    waiting: RoundRobin<M, oneshot::Sender<Permit<G, M>>>,
}

/// A permit, held until it is dropped.
#[derive(Debug)]
pub struct Permit<G: Key, M: Key = ()> {
    semaphore: Arc<FairSemaphore<G, M>>,
    group: G,
}

impl<G: Key, M: Key> FairSemaphore<G, M> {
    /// Creates a semaphore of `total` permits, at most `group_limit` of them for one group.
    #[must_use]
    pub fn new(total: usize, group_limit: usize) -> Arc<Self> {
        let state = State { running: 0, groups: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self { total, group_limit, state: Mutex::new(state) })
    }

    /// Waits for a permit. Dropping the future cancels the wait.
    pub async fn acquire(self: &Arc<Self>, group: G, member: M) -> Permit<G, M> {
        loop {
            // A sender is dropped without sending only if the owner of the lock panicked; then the wait starts again.
            match self.take_or_wait(group, member) {
                Ok(permit) => return permit,
                Err(receiver) => {
                    if let Ok(permit) = receiver.await {
                        return permit;
                    }
                }
            }
        }
    }

    /// Takes a permit if one is free; `None` if the caller would have to wait.
    pub fn try_acquire(self: &Arc<Self>, group: G) -> Option<Permit<G, M>> {
        let mut state = self.state.lock();
        state.take(self, group)
    }

    /// Returns the number of held permits.
    #[must_use]
    pub fn running(&self) -> usize {
        self.state.lock().running
    }

    /// Returns a permit, or the receiver that a later permit is sent to.
    fn take_or_wait(self: &Arc<Self>, group: G, member: M) -> Result<Permit<G, M>, oneshot::Receiver<Permit<G, M>>> {
        let mut state = self.state.lock();
        if let Some(permit) = state.take(self, group) {
            return Ok(permit);
        }
        let (sender, receiver) = oneshot::channel();
        let entry = state.group(group);
        let is_first = entry.waiting.is_empty();
        entry.waiting.push(member, sender);
        if is_first {
            state.order.push_back(group);
        }
        Err(receiver)
    }

    /// Returns a permit to the semaphore, and grants free ones to waiting callers.
    fn release(self: &Arc<Self>, group: G) {
        let mut state = self.state.lock();
        state.running -= 1;
        if let Some(entry) = state.groups.get_mut(&group) {
            entry.running -= 1;
        }
        let mut granted = Vec::new();
        while state.running < self.total
            && let Some((next, sender)) = state.next(self.group_limit)
        {
            granted.push((sender, Permit { semaphore: self.clone(), group: next }));
        }
        state.remove_if_idle(group);
        drop(state);
        // Outside the lock, because a permit whose receiver was dropped is released again here.
        for (sender, permit) in granted {
            drop(sender.send(permit));
        }
    }
}

impl<G: Key, M: Key> State<G, M> {
    /// Returns the group of this key, which is created if it is new.
    fn group(&mut self, group: G) -> &mut Group<G, M> {
        self.groups.entry(group).or_insert_with(|| Group { running: 0, waiting: RoundRobin::default() })
    }

    /// Takes a permit that is free and that no member of the group waits for.
    fn take(&mut self, semaphore: &Arc<FairSemaphore<G, M>>, group: G) -> Option<Permit<G, M>> {
        let has_room = |entry: &Group<G, M>| entry.running < semaphore.group_limit && entry.waiting.is_empty();
        if self.running >= semaphore.total || !self.groups.get(&group).is_none_or(has_room) {
            return None;
        }
        self.group(group).running += 1;
        self.running += 1;
        Some(Permit { semaphore: semaphore.clone(), group })
    }

    /// Returns the group and the sender of the next caller that may have a permit, and counts that permit as held.
    fn next(&mut self, group_limit: usize) -> Option<(G, oneshot::Sender<Permit<G, M>>)> {
        let mut groups_at_limit = 0;
        while groups_at_limit < self.order.len() {
            let group = self.order.pop_front()?;
            let Some(entry) = self.groups.get_mut(&group) else { continue };
            if entry.running >= group_limit {
                self.order.push_back(group);
                groups_at_limit += 1;
                continue;
            }
            let Some(sender) = entry.waiting.pop(|sender| !sender.is_closed()) else {
                self.remove_if_idle(group);
                continue;
            };
            entry.running += 1;
            self.running += 1;
            if !entry.waiting.is_empty() {
                self.order.push_back(group);
            }
            return Some((group, sender));
        }
        None
    }

    /// Removes a group that neither holds permits nor waits.
    fn remove_if_idle(&mut self, group: G) {
        if self.groups.get(&group).is_some_and(|entry| entry.running == 0 && entry.waiting.is_empty()) {
            self.groups.remove(&group);
        }
    }
}

impl<G: Key, M: Key> Drop for Permit<G, M> {
    fn drop(&mut self) {
        self.semaphore.release(self.group);
    }
}

/// Queues served round robin.
#[derive(Debug)]
struct RoundRobin<K, T> {
    /// Non-empty queues.
    queues: HashMap<K, VecDeque<T>>,
    /// Each key of `queues` once, the next one first.
    order: VecDeque<K>,
}

impl<K, T> Default for RoundRobin<K, T> {
    fn default() -> Self {
        Self { queues: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Key, T> RoundRobin<K, T> {
    /// Appends an entry to the queue of this key.
    fn push(&mut self, key: K, entry: T) {
        let queue = self.queues.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            VecDeque::new()
        });
        queue.push_back(entry);
    }

    /// Returns the next entry that is `wanted` and drops those before it. Each entry is examined once.
    fn pop(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        while let Some(key) = self.order.pop_front() {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            let mut found = None;
            while found.is_none()
                && let Some(entry) = queue.pop_front()
            {
                found = Some(entry).filter(|entry| wanted(entry));
            }
            if queue.is_empty() {
                self.queues.remove(&key);
            } else {
                self.order.push_back(key);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Returns the order in which waiting callers get their permits, one permit passing from each to the next.
    async fn serving_order(semaphore: &Arc<FairSemaphore<u8, u8>>, waiting: &[(u8, u8)]) -> Vec<(u8, u8)> {
        let first = semaphore.acquire(99, 0).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (group, member) in waiting.iter().copied() {
            let (semaphore, served) = (semaphore.clone(), served.clone());
            tasks.push(tokio::spawn(async move {
                let _permit = semaphore.acquire(group, member).await;
                served.lock().push((group, member));
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        Arc::try_unwrap(served).unwrap().into_inner()
    }

    #[tokio::test]
    async fn groups_take_turns_regardless_of_their_queues() {
        let semaphore = FairSemaphore::new(1, 1);
        let groups = serving_order(&semaphore, &[1, 1, 1, 1, 2, 2, 3].map(|group| (group, 0))).await;
        assert_eq!(groups, [1, 2, 3, 1, 2, 1, 1].map(|group| (group, 0)));
        assert!(semaphore.state.lock().groups.is_empty() && semaphore.state.lock().order.is_empty(), "no group is left");
    }

    #[tokio::test]
    async fn members_of_a_group_share_its_turns_round_robin() {
        let semaphore = FairSemaphore::new(1, 1);
        let waiting = [(1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (1, 2), (1, 2), (1, 3)];
        let served = serving_order(&semaphore, &waiting).await;
        assert_eq!(served, [(1, 1), (2, 1), (1, 2), (2, 1), (1, 3), (1, 1), (1, 2), (1, 1)]);
        assert!(semaphore.state.lock().groups.is_empty() && semaphore.state.lock().order.is_empty(), "no group is left");
    }

    #[tokio::test]
    async fn try_acquire_neither_waits_nor_overtakes_waiting_callers() {
        let semaphore = FairSemaphore::<u8>::new(1, 1);
        let first = semaphore.try_acquire(1).unwrap();
        assert!(semaphore.try_acquire(2).is_none());
        let mut second = Box::pin(semaphore.acquire(2, ()));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert!(semaphore.try_acquire(1).is_none(), "the permit belongs to the waiting caller");
        drop(second.await);
        assert!(semaphore.state.lock().groups.is_empty() && semaphore.try_acquire(1).is_some());
    }

    #[tokio::test]
    async fn a_group_at_its_limit_waits_while_others_proceed() {
        let semaphore = FairSemaphore::new(10, 2);
        let (first, second) = (semaphore.acquire(1, ()).await, semaphore.acquire(1, ()).await);
        let mut third = Box::pin(semaphore.acquire(1, ()));
        assert!(futures_util::poll!(&mut third).is_pending());
        let other = semaphore.acquire(2, ()).await;
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        let third = third.await;
        assert_eq!(semaphore.running(), 3);
        drop((second, third, other));
        assert!(semaphore.running() == 0 && semaphore.state.lock().groups.is_empty());
    }

    /// Cancels waits at many moments while permits pass from caller to caller: no permit is lost or duplicated.
    #[tokio::test(flavor = "multi_thread")]
    async fn cancelled_waits_lose_no_permit() {
        let (semaphore, running) = (FairSemaphore::new(3, 2), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..400_u64)
            .map(|at| {
                let (semaphore, running) = (semaphore.clone(), running.clone());
                tokio::spawn(async move {
                    let wait = std::time::Duration::from_micros(at * 37 % 2000);
                    if let Ok(_permit) = tokio::time::timeout(wait, semaphore.acquire(at % 5, at % 3)).await {
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
                        tokio::time::sleep(std::time::Duration::from_micros(at % 300)).await;
                        running.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        drop(semaphore.acquire(1, 0).await);
        let state = semaphore.state.lock();
        assert!(state.running == 0 && state.order.is_empty() && state.groups.is_empty(), "{state:?}");
    }
}
