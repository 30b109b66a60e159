//! A bounded number of permits, shared fairly: no holder can take all of them.
//!
//! The rule is dynamic thresholds (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
//! IEEE/ACM Transactions on Networking 6(2), 1998): a holder may have as many permits as are free. A single holder gets half of
//! them, two get a third each, and a holder without any gets one while any is free.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

/// Permits, and the number of permits that each holder has.
#[derive(Debug)]
pub struct Shares<K> {
    /// A holder may have the number of free permits divided by this.
    divisor: usize,
    held: Mutex<Held<K>>,
}

/// Numbers of permits.
#[derive(Debug)]
struct Held<K> {
    /// All permits, taken and free.
    total: usize,
    /// Permits that all holders have taken.
    sum: usize,
    /// Number of permits by holder. Contains only holders with permits, so it is no larger than `sum`.
    by_holder: HashMap<K, usize>,
}

/// Permits of one holder, released when this is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash + Copy> {
    shares: Arc<Shares<K>>,
    holder: K,
    count: usize,
}

impl<K: Eq + Hash + Copy> Shares<K> {
    /// Creates `total` free permits; a holder may have as many as are free.
    #[must_use]
    pub fn new(total: usize) -> Arc<Self> {
        Self::divided(total, 1)
    }

    /// Creates `total` free permits; a holder may have the number of free permits divided by `divisor`, or one. A single
    /// holder gets one in every `divisor + 1` of all permits.
    #[must_use]
    pub fn divided(total: usize, divisor: usize) -> Arc<Self> {
        Arc::new(Self { divisor, held: Mutex::new(Held { total, sum: 0, by_holder: HashMap::new() }) })
    }

    /// Takes `count` permits. Returns `None` if the holder would have more than the rule allows.
    #[must_use]
    pub fn take(self: &Arc<Self>, holder: K, count: usize) -> Option<Share<K>> {
        let mut share = Share { shares: self.clone(), holder, count: 0 };
        share.grow(count).then_some(share)
    }

    /// Lowers the number of permits to `total`, unless it is lower already. Permits that are taken stay taken.
    pub fn lower_total(&self, total: usize) {
        let mut held = self.lock();
        held.total = held.total.min(total);
    }

    /// Returns the number of permits that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().sum
    }

    fn lock(&self) -> MutexGuard<'_, Held<K>> {
        self.held.lock()
    }
}

impl<K: Eq + Hash + Copy> Share<K> {
    /// Takes `more` permits. Returns `false`, and takes none, if the holder would have more than the rule allows.
    pub fn grow(&mut self, more: usize) -> bool {
        let mut held = self.shares.lock();
        let taken = held.by_holder.get(&self.holder).copied().unwrap_or(0);
        let free = held.total.saturating_sub(held.sum);
        let is_first = taken == 0 && more == 1 && free > 0;
        if !is_first && taken.saturating_add(more).saturating_mul(self.shares.divisor) > free {
            return false;
        }
        held.sum += more;
        if more > 0 {
            held.by_holder.insert(self.holder, taken + more);
        }
        drop(held);
        self.count += more;
        true
    }

    /// Returns the number of permits in this share.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl<K: Eq + Hash + Copy> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        held.sum = held.sum.saturating_sub(self.count);
        let remaining = held.by_holder.get(&self.holder).copied().unwrap_or(0).saturating_sub(self.count);
        if remaining == 0 {
            held.by_holder.remove(&self.holder);
        } else {
            held.by_holder.insert(self.holder, remaining);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Takes permits for this holder until none is granted.
    fn all_that_fit(shares: &Arc<Shares<u8>>, holder: u8) -> Vec<Share<u8>> {
        std::iter::from_fn(|| shares.take(holder, 1)).collect()
    }

    #[test]
    fn holder_has_at_most_the_free_permits_and_another_user_gets_one() {
        for total in [1, 2, 3, 17, 1024] {
            let shares = Shares::new(total);
            let mut greedy = Vec::new();
            for holder in 0..3 {
                greedy.extend(all_that_fit(&shares, holder));
                let free = total - shares.taken();
                assert!(holder > 0 || greedy.len() == total.div_ceil(2), "a single holder has half: {} of {total}", greedy.len());
                assert_eq!(shares.take(200, 1).is_some(), free > 0, "{holder} of {total}");
            }
            drop(greedy);
            assert_eq!((shares.taken(), shares.lock().by_holder.len()), (0, 0), "holders without permits are removed");
        }
    }

    #[test]
    fn shares_leave_permits_for_others_in_the_same_network() {
        let (networks, users) = (Shares::new(1024), Shares::divided(1024, 2));
        let mut taken = Vec::new();
        while let (Some(network), Some(user)) = (networks.take(1, 1), users.take(1, 1)) {
            taken.push((network, user));
        }
        assert_eq!(taken.len(), 1024 / 3);
        assert!(networks.take(1, 1).is_some() && users.take(2, 1).is_some(), "another user of the same network");
        assert!(Shares::divided(1, 2).take(1_u8, 1).is_some(), "the first permit is always granted");
    }

    #[test]
    fn several_permits_are_taken_wholly_or_not_at_all() {
        let shares = Shares::new(100);
        let mut share = shares.take(1, 30).unwrap();
        assert!(!share.grow(41) && share.count() == 30 && shares.taken() == 30);
        assert!(share.grow(20) && shares.taken() == 50);
        assert!(shares.take(1, 1).is_none() && shares.take(2, 50).is_some());
        drop(share);
        assert!(shares.take(1, 100).is_some());
    }
}
