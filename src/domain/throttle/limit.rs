//! One rate limit: by a key, by a key and the networks of an address, or by a user and the user's network.

use std::{
    cmp::Reverse,
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use super::Throttled;
use crate::{
    config::Rate,
    model::{NetworkPrefix, UserId},
    store::request_origin,
};

/// Keys that each limit remembers, at most: a few megabytes.
const CAPACITY: usize = 100_000;
/// Rates of networks as multiples of a host's rate: for /32 and /64, for /56, for /24 and /48.
const FACTORS: [u32; 3] = [1, 2, 4];
/// Rate of a /24 or /48 as a multiple of a user's rate.
const USERS_OF_SITE: u32 = FACTORS[2];

/// A limit by the generic cell rate algorithm (ITU-T I.371): a leaky bucket that stores one time per key, at which the bucket
/// will be empty.
#[derive(Debug)]
pub(super) struct Limit<K> {
    name: &'static str,
    rate: Rate,
    buckets: Mutex<Buckets<K>>,
}

/// The times at which the buckets of the most loaded keys will be empty. If there are too many, the fuller half stays: a bucket
/// that one call has filled a little makes room sooner than one that is almost full, so that calls with many keys reset no other
/// key's count.
#[derive(Debug)]
struct Buckets<K> {
    empty_at: HashMap<K, Instant>,
    capacity: usize,
}

impl<K: Eq + Hash + Copy> Buckets<K> {
    fn new(capacity: usize) -> Self {
        Self { empty_at: HashMap::new(), capacity }
    }

    fn get(&self, key: K) -> Option<Instant> {
        self.empty_at.get(&key).copied()
    }

    fn insert(&mut self, key: K, at: Instant) {
        if self.empty_at.len() >= self.capacity && !self.empty_at.contains_key(&key) {
            self.drop_emptier_half();
        }
        self.empty_at.insert(key, at);
    }

    /// Drops the buckets that will be empty first. The cost is constant for each insertion since the last call.
    fn drop_emptier_half(&mut self) {
        let kept = self.capacity / 2;
        let mut all: Vec<_> = self.empty_at.drain().collect();
        all.select_nth_unstable_by_key(kept, |(_, at)| Reverse(*at));
        self.empty_at.extend(all.into_iter().take(kept));
    }
}

impl<K: Eq + Hash + Copy> Limit<K> {
    pub(super) fn new(name: &'static str, rate: Rate) -> Self {
        Self { name, rate, buckets: Mutex::new(Buckets::new(CAPACITY)) }
    }

    /// Counts `n` calls, or none of them.
    pub(super) fn take(&self, key: K, n: u32, now: Instant) -> Result<(), Throttled> {
        Self::fill(&mut self.lock(), self.name, key, n, self.rate, now)
    }

    /// Takes back `n` counted calls.
    pub(super) fn give_back(&self, key: K, n: u32) {
        Self::drain(&mut self.lock(), key, n, self.rate);
    }

    /// Resets a key's count.
    pub(super) fn forget(&self, key: K) {
        self.lock().empty_at.remove(&key);
    }

    /// Counts `n` requests of a key, or rejects all of them.
    fn fill(all: &mut Buckets<K>, name: &'static str, key: K, n: u32, rate: Rate, now: Instant) -> Result<(), Throttled> {
        let empty_at = all.get(key).map_or(now, |at| at.max(now)) + cost(rate, n);
        let ahead = empty_at.saturating_duration_since(now);
        if ahead > rate.window {
            return Err(Throttled { limit: name, rate, retry_after: ahead.saturating_sub(rate.window) });
        }
        all.insert(key, empty_at);
        Ok(())
    }

    /// Takes back `n` counted requests of a key.
    fn drain(all: &mut Buckets<K>, key: K, n: u32, rate: Rate) {
        if let Some(before) = all.get(key).and_then(|at| at.checked_sub(cost(rate, n))) {
            all.insert(key, before);
        }
    }

    /// Returns the number of keys.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().empty_at.len()
    }

    fn lock(&self) -> MutexGuard<'_, Buckets<K>> {
        self.buckets.lock()
    }
}

/// Returns the time that `n` requests add to the bucket, at most its capacity.
fn cost(rate: Rate, n: u32) -> Duration {
    rate.window * n.min(rate.count) / rate.count
}

/// Returns the networks of an address, the narrowest first, each with its rate.
fn networks_with_rates(address: IpAddr, rate: Rate) -> impl DoubleEndedIterator<Item = (NetworkPrefix, Rate)> {
    let wider = move |(prefix, factor): (Option<NetworkPrefix>, u32)| {
        prefix.map(|prefix| (prefix, Rate { count: rate.count.saturating_mul(factor), ..rate }))
    };
    NetworkPrefix::nested(address).into_iter().zip(FACTORS).filter_map(wider)
}

/// A limit by network, counted for the host and its wider networks.
impl<K: Eq + Hash + Copy> Limit<(K, NetworkPrefix)> {
    /// Counts one call for each network of the address, or for none of them.
    pub(super) fn take_from(&self, key: K, address: IpAddr, now: Instant) -> Result<(), Throttled> {
        let mut all = self.lock();
        let mut counted = Vec::with_capacity(FACTORS.len());
        for (prefix, rate) in networks_with_rates(address, self.rate) {
            if let Err(throttled) = Self::fill(&mut all, self.name, (key, prefix), 1, rate, now) {
                counted.into_iter().for_each(|(prefix, rate)| Self::drain(&mut all, (key, prefix), 1, rate));
                return Err(throttled);
            }
            counted.push((prefix, rate));
        }
        Ok(())
    }

    /// Takes back what [`Limit::take_from`] counted.
    pub(super) fn give_back_from(&self, key: K, address: IpAddr) {
        let mut all = self.lock();
        networks_with_rates(address, self.rate).for_each(|(prefix, rate)| Self::drain(&mut all, (key, prefix), 1, rate));
    }
}

/// A limit by user, counted for the network of the request as well, because one address can create hundreds of users a minute.
#[derive(Debug)]
pub(super) struct UserLimit {
    by_user: Limit<UserId>,
    by_site: Limit<NetworkPrefix>,
}

impl UserLimit {
    pub(super) fn new(name: &'static str, rate: Rate) -> Self {
        let site_rate = Rate { count: rate.count.saturating_mul(USERS_OF_SITE), ..rate };
        Self { by_user: Limit::new(name, rate), by_site: Limit::new(name, site_rate) }
    }

    /// Counts `n` calls for the user and for the network, or for neither.
    pub(super) fn take(&self, user: UserId, n: u32, now: Instant) -> Result<(), Throttled> {
        self.by_user.take(user, n, now)?;
        let Some(origin) = request_origin::current() else { return Ok(()) };
        self.by_site.take(origin.site, n, now).inspect_err(|_| self.by_user.give_back(user, n))
    }
}
