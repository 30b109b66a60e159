//! Permits of a bounded number that are waited for in turn: round robin between holders, first come first served for each. Whoever
//! has a thousand waiting delays another by one.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Permits, and who waits for one.
#[derive(Debug)]
pub struct Turns<K: Eq + Hash + Copy> {
    total: usize,
    /// The most permits of one holder.
    most: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K: Eq + Hash + Copy> {
    running: usize,
    holders: HashMap<K, Holder<K>>,
    /// Holders for whom somebody waits, the next one first.
    order: VecDeque<K>,
}

#[derive(Debug)]
struct Holder<K: Eq + Hash + Copy> {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Permit<K>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash + Copy> {
    turns: Arc<Turns<K>>,
    holder: K,
}

impl<K: Eq + Hash + Copy> Turns<K> {
    /// `total` permits, at most `most` of them for one holder.
    #[must_use]
    pub fn new(total: usize, most: usize) -> Arc<Self> {
        let state = State { running: 0, holders: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self { total, most, state: Mutex::new(state) })
    }

    /// Waits for a permit. Dropping the future gives up the wait.
    pub async fn acquire(self: &Arc<Self>, holder: K) -> Permit<K> {
        loop {
            // A sender is dropped without a word only if the lock's owner panicked; then the wait begins anew.
            match self.enter(holder) {
                Ok(permit) => return permit,
                Err(turn) => {
                    if let Ok(permit) = turn.await {
                        return permit;
                    }
                }
            }
        }
    }

    /// Permits that are out.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().running
    }

    /// A permit at once, or what to wait on.
    fn enter(self: &Arc<Self>, holder: K) -> Result<Permit<K>, oneshot::Receiver<Permit<K>>> {
        let mut state = self.lock();
        let is_free = state.running < self.total;
        let mine = state.holders.entry(holder).or_insert_with(|| Holder { running: 0, waiting: VecDeque::new() });
        if is_free && mine.running < self.most && mine.waiting.is_empty() {
            mine.running += 1;
            state.running += 1;
            return Ok(Permit { turns: self.clone(), holder });
        }
        let (sender, receiver) = oneshot::channel();
        mine.waiting.push_back(sender);
        if mine.waiting.len() == 1 {
            state.order.push_back(holder);
        }
        Err(receiver)
    }

    /// Takes a permit back and gives out what is free.
    fn leave(self: &Arc<Self>, holder: K) {
        let mut state = self.lock();
        state.running -= 1;
        if let Some(mine) = state.holders.get_mut(&holder) {
            mine.running -= 1;
        }
        let mut granted = Vec::new();
        while state.running < self.total
            && let Some((next, sender)) = state.next(self.most)
        {
            granted.push((sender, Permit { turns: self.clone(), holder: next }));
        }
        state.forget(holder);
        drop(state);
        // Outside the lock: a permit whose receiver is gone comes back through `leave`.
        for (sender, permit) in granted {
            drop(sender.send(permit));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Copy> State<K> {
    /// The next that waits and may have a permit, counted as running.
    fn next(&mut self, most: usize) -> Option<(K, oneshot::Sender<Permit<K>>)> {
        let mut looked_at = 0;
        while looked_at < self.order.len() {
            let holder = self.order.pop_front()?;
            let Some(mine) = self.holders.get_mut(&holder) else { continue };
            mine.waiting.retain(|sender| !sender.is_closed());
            if mine.waiting.is_empty() {
                self.forget(holder);
                continue;
            }
            if mine.running >= most {
                self.order.push_back(holder);
                looked_at += 1;
                continue;
            }
            let sender = mine.waiting.pop_front()?;
            mine.running += 1;
            self.running += 1;
            if !mine.waiting.is_empty() {
                self.order.push_back(holder);
            }
            return Some((holder, sender));
        }
        None
    }

    /// Keeps nothing of a holder that neither runs nor waits.
    fn forget(&mut self, holder: K) {
        if self.holders.get(&holder).is_some_and(|mine| mine.running == 0 && mine.waiting.is_empty()) {
            self.holders.remove(&holder);
        }
    }
}

impl<K: Eq + Hash + Copy> Drop for Permit<K> {
    fn drop(&mut self) {
        self.turns.leave(self.holder);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The order in which those who wait get their turns, one permit passing from each to the next.
    async fn order(turns: &Arc<Turns<u8>>, waiting: &[u8]) -> Vec<u8> {
        let first = turns.acquire(99).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for holder in waiting {
            let (turns, served, holder) = (turns.clone(), served.clone(), *holder);
            tasks.push(tokio::spawn(async move {
                let _permit = turns.acquire(holder).await;
                served.lock().unwrap().push(holder);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        Arc::try_unwrap(served).unwrap().into_inner().unwrap()
    }

    #[tokio::test]
    async fn holders_take_turns_however_many_one_has_waiting() {
        let turns = Turns::new(1, 1);
        assert_eq!(order(&turns, &[1, 1, 1, 1, 2, 2, 3]).await, [1, 2, 3, 1, 2, 1, 1]);
        assert!(turns.lock().holders.is_empty() && turns.lock().order.is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn a_holder_at_its_most_waits_while_others_go_on() {
        let turns = Turns::new(10, 2);
        let (a, b) = (turns.acquire(1).await, turns.acquire(1).await);
        let mut third = Box::pin(turns.acquire(1));
        assert!(futures_util::poll!(&mut third).is_pending());
        let other = turns.acquire(2).await;
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(a);
        let third = third.await;
        assert_eq!(turns.running(), 3);
        drop((b, third, other));
        assert!(turns.running() == 0 && turns.lock().holders.is_empty());
    }

    /// Gives up at random while turns pass: no permit is lost and none is made.
    #[tokio::test(flavor = "multi_thread")]
    async fn those_who_give_up_take_no_permit_with_them() {
        let (turns, at_once) = (Turns::new(3, 2), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..400_u64)
            .map(|at| {
                let (turns, at_once) = (turns.clone(), at_once.clone());
                tokio::spawn(async move {
                    let wait = std::time::Duration::from_micros(at * 37 % 2000);
                    if let Ok(_permit) = tokio::time::timeout(wait, turns.acquire(at % 5)).await {
                        assert!(at_once.fetch_add(1, Ordering::SeqCst) < 3);
                        tokio::time::sleep(std::time::Duration::from_micros(at % 300)).await;
                        at_once.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        drop(turns.acquire(1).await);
        let state = turns.lock();
        assert!(state.running == 0 && state.order.is_empty() && state.holders.is_empty(), "{state:?}");
    }
}
