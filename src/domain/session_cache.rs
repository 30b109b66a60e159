//! Cache of the sessions' statuses in the database. The lifetime of its entries bounds how long an ended session, a suspended
//! user or a deleted account still has access on another server; `sessions` reads it.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    domain::generational_cache::GenerationalCache,
    model::{SessionId, UserId},
};

/// Caches sessions' statuses, so that most requests need no query to verify their token.
#[derive(Debug)]
pub struct SessionCache(Mutex<Entries>);

/// Entries behind the lock.
#[derive(Debug)]
struct Entries {
    /// Keyed by user as well: a token that names another user's session must not change that session's entry.
    sessions: GenerationalCache<(UserId, SessionId), CachedSession>,
    /// Users whose account was changed on this server in a way that ends sessions, and the time of the change.
    invalidated: GenerationalCache<UserId, Instant>,
}

/// Status of a session in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStatus {
    /// Tokens of the session are accepted.
    Active,
    /// The session has ended.
    Ended,
    /// The session has not ended, but its account is suspended.
    Suspended,
}

/// A status as it was in the database.
#[derive(Debug, Clone, Copy)]
struct CachedSession {
    status: SessionStatus,
    /// Time at which the database was queried.
    read_at: Instant,
}

impl Default for SessionCache {
    fn default() -> Self {
        let sessions = GenerationalCache::new(Self::CAPACITY);
        // Fewer users change their account within the lifetime of an entry.
        let invalidated = GenerationalCache::new(Self::CAPACITY / 10);
        Self(Mutex::new(Entries { sessions, invalidated }))
    }
}

impl SessionCache {
    /// Time for which a status is used. Shorter than the 30 seconds within which docs/security.md says that every server rejects
    /// the tokens of an ended session.
    pub const TTL: Duration = Duration::from_secs(10);
    /// Sessions that are cached, in about 12 MB.
    const CAPACITY: usize = 100_000;

    /// Returns the session's status, or `None` without a recent entry.
    pub(super) fn get(&self, user: UserId, id: SessionId, now: Instant) -> Option<SessionStatus> {
        let mut entries = self.lock();
        let cached = entries.sessions.get(&(user, id))?;
        let may_change = cached.status != SessionStatus::Ended;
        let is_invalidated = may_change && entries.invalidated.get(&user).is_some_and(|at| cached.read_at <= at);
        let is_fresh = now.saturating_duration_since(cached.read_at) < Self::TTL;
        (is_fresh && !is_invalidated).then_some(cached.status)
    }

    /// Stores a status for which the database was queried at `read_at`. Returns the session's status: an end that this server
    /// recorded during the query, or less than [`Self::TTL`] before it, takes precedence.
    pub(super) fn insert(&self, user: UserId, id: SessionId, status: SessionStatus, read_at: Instant) -> SessionStatus {
        let mut entries = self.lock();
        let before = entries.sessions.get(&(user, id));
        let has_ended = before.is_some_and(|cached| {
            cached.status == SessionStatus::Ended && read_at.saturating_duration_since(cached.read_at) < Self::TTL
        });
        let status = if has_ended { SessionStatus::Ended } else { status };
        entries.sessions.insert((user, id), CachedSession { status, read_at });
        status
    }

    /// Marks a session as ended.
    pub(super) fn mark_ended(&self, user: UserId, id: SessionId, now: Instant) {
        self.lock().sessions.insert((user, id), CachedSession { status: SessionStatus::Ended, read_at: now });
    }

    /// Discards the user's active and suspended sessions after a change of the account: the next request of each queries the
    /// database.
    pub(super) fn invalidate_user(&self, user: UserId, now: Instant) {
        self.lock().invalidated.insert(user, now);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        SessionStatus::{Active, Ended, Suspended},
        *,
    };

    /// A short time, by which events of a test differ.
    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn t9_an_end_applies_at_once_and_a_status_expires() {
        let cache = SessionCache::default();
        let (user, id, start) = (UserId::new(), SessionId::new(), Instant::now());
        let cached = |now| cache.get(user, id, now);
        assert_eq!(cached(start), None);
        assert_eq!(cache.insert(user, id, Active, start), Active);
        assert_eq!(cached(start + SessionCache::TTL.saturating_sub(MOMENT)), Some(Active));
        assert_eq!(cached(start + SessionCache::TTL), None);
        cache.mark_ended(user, id, start);
        assert_eq!(cached(start), Some(Ended));
        assert_eq!(cache.insert(user, id, Active, start), Ended, "a status read before the end does not undo it");
        assert_eq!(cached(start), Some(Ended));
    }

    #[test]
    fn t9_a_changed_account_invalidates_earlier_statuses() {
        let cache = SessionCache::default();
        let (user, other) = (UserId::new(), UserId::new());
        let (id, ended, start) = (SessionId::new(), SessionId::new(), Instant::now());
        cache.insert(user, id, Active, start);
        cache.mark_ended(user, ended, start);
        let changed = start + MOMENT;
        cache.invalidate_user(user, changed);
        assert_eq!(cache.get(user, id, changed), None);
        assert_eq!(cache.get(other, id, start), None, "another user's session");
        assert_eq!(cache.get(user, ended, changed), Some(Ended), "a marked end stays");
        // A status read before the change is not used either.
        cache.insert(user, id, Active, start);
        assert_eq!(cache.get(user, id, changed), None);
        cache.insert(user, id, Suspended, changed + MOMENT);
        assert_eq!(cache.get(user, id, changed + MOMENT), Some(Suspended));
        cache.invalidate_user(user, changed + MOMENT);
        assert_eq!(cache.get(user, id, changed + MOMENT), None, "a resumed account");
    }
}
