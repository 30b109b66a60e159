//! Which sessions live, as far as this server knows.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    domain::recent::Recent,
    model::{SessionId, UserId},
};

/// The database's answers about sessions, kept for a while: so a request costs one lookup beside its token's signature.
#[derive(Debug)]
pub struct Liveness(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// By user too: a token that names another's session says nothing of either.
    sessions: Recent<(UserId, SessionId), Seen>,
    /// Users whose sessions were ended here by a change of their account, and when.
    changed: Recent<UserId, Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    alive: bool,
    /// When the database was asked.
    at: Instant,
}

impl Default for Liveness {
    fn default() -> Self {
        let known = Known { sessions: Recent::new(Self::CAPACITY), changed: Recent::new(Self::CAPACITY / 10) };
        Self(Mutex::new(known))
    }
}

impl Liveness {
    /// How long an answer of the database is relied on. A token dies within 30 s of its session, on every server.
    pub const KEPT: Duration = Duration::from_secs(10);
    /// Sessions that are remembered: about 12 MB.
    const CAPACITY: usize = 100_000;

    /// Whether the session lives, where the answer is fresh.
    pub(super) fn known(&self, user: UserId, id: SessionId, now: Instant) -> Option<bool> {
        let mut known = self.lock();
        let seen = known.sessions.get((user, id))?;
        let is_outdated = seen.alive && known.changed.get(user).is_some_and(|changed| seen.at <= changed);
        let is_fresh = now.saturating_duration_since(seen.at) < Self::KEPT;
        (is_fresh && !is_outdated).then_some(seen.alive)
    }

    /// Remembers an answer of the database, and returns what holds now: an end that became known while the database was asked
    /// stands.
    pub(super) fn learn(&self, user: UserId, id: SessionId, alive: bool, asked: Instant) -> bool {
        let mut known = self.lock();
        let before = known.sessions.get((user, id));
        let ended = before.is_some_and(|seen| !seen.alive && asked.saturating_duration_since(seen.at) < Self::KEPT);
        let alive = alive && !ended;
        known.sessions.insert((user, id), Seen { alive, at: asked });
        alive
    }

    /// The session has ended.
    pub(super) fn end(&self, user: UserId, id: SessionId, now: Instant) {
        self.lock().sessions.insert((user, id), Seen { alive: false, at: now });
    }

    /// The user's account has changed, and sessions may have ended with it: the database is asked anew for each.
    pub(super) fn forget_lives(&self, user: UserId, now: Instant) {
        self.lock().changed.insert(user, now);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Duration = Duration::from_millis(1);

    #[test]
    fn t9_an_end_is_known_at_once_and_an_answer_grows_old() {
        let liveness = Liveness::default();
        let (user, id, start) = (UserId::new(), SessionId::new(), Instant::now());
        let known = |now| liveness.known(user, id, now);
        assert_eq!(known(start), None);
        assert!(liveness.learn(user, id, true, start));
        assert_eq!(known(start + Liveness::KEPT.saturating_sub(BEFORE)), Some(true));
        assert_eq!(known(start + Liveness::KEPT), None);
        liveness.end(user, id, start);
        assert_eq!(known(start), Some(false));
        assert!(!liveness.learn(user, id, true, start), "an answer that was on its way does not bring it back");
        assert_eq!(known(start), Some(false));
    }

    #[test]
    fn t9_a_changed_account_voids_every_answer_of_before() {
        let liveness = Liveness::default();
        let (user, other) = (UserId::new(), UserId::new());
        let (id, ended, start) = (SessionId::new(), SessionId::new(), Instant::now());
        liveness.learn(user, id, true, start);
        liveness.end(user, ended, start);
        let changed = start + BEFORE;
        liveness.forget_lives(user, changed);
        assert_eq!(liveness.known(user, id, changed), None);
        assert_eq!(liveness.known(other, id, start), None, "whose session it is not");
        assert_eq!(liveness.known(user, ended, changed), Some(false), "an end stands");
        // The answer to a question of before the change is not relied on, either.
        liveness.learn(user, id, true, start);
        assert_eq!(liveness.known(user, id, changed), None);
        liveness.learn(user, id, true, changed + BEFORE);
        assert_eq!(liveness.known(user, id, changed + BEFORE), Some(true));
    }
}
