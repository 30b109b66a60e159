//! Limits the looks at one object to one a second, without losing a hint: one that comes too early is written down for later.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{
    domain::generational_cache::GenerationalCache,
    model::{ImageId, s3_event::WrittenObject},
};

/// Minimum time between two looks at one object because of hints.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Objects that are remembered.
const CAPACITY: usize = 20_000;

/// The objects about which hints came last.
#[derive(Debug)]
pub(super) struct RecentRings(Mutex<GenerationalCache<RungObject, Rung>>);

/// An object of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct RungObject {
    image: ImageId,
    is_preview: bool,
}

/// The latest look that was planned at an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rung {
    at: Instant,
    /// Whether it is in the database, so that it will happen.
    is_written: bool,
}

/// Decision about a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Make the upload due.
    Ring(PlannedRing),
    /// A look in the future is written down already.
    Known,
}

/// A look that is to be written to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedRing {
    object: RungObject,
    /// When the object is to be looked at.
    pub(super) at: Instant,
}

impl Default for RecentRings {
    fn default() -> Self {
        Self(Mutex::new(GenerationalCache::new(CAPACITY)))
    }
}

impl RecentRings {
    /// Plans the look for a hint that came at `now`.
    pub(super) fn plan(&self, object: &WrittenObject, now: Instant) -> Plan {
        let object = RungObject { image: object.owner.image, is_preview: object.is_preview };
        let mut recent = self.0.lock();
        let last = recent.get(object);
        let (at, is_written) = match last {
            // The look has not begun, so it will see what the hint is about.
            Some(Rung { at, is_written }) if at > now => (at, is_written),
            Some(Rung { at, .. }) if now < at + MIN_INTERVAL => (at + MIN_INTERVAL, false),
            _ => (now, false),
        };
        if is_written {
            return Plan::Known;
        }
        recent.insert(object, Rung { at, is_written: false });
        Plan::Ring(PlannedRing { object, at })
    }

    /// Records that the look is in the database.
    pub(super) fn confirm(&self, ring: PlannedRing) {
        let mut recent = self.0.lock();
        if recent.get(ring.object).is_some_and(|rung| rung.at == ring.at) {
            recent.insert(ring.object, Rung { at: ring.at, is_written: true });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::{KeyOwner, ObjectKey, UserId};

    fn object() -> WrittenObject {
        let owner = KeyOwner { user: UserId::new(), image: ImageId::new() };
        let upload_key = ObjectKey::final_for(owner.user, owner.image);
        WrittenObject { owner, upload_key, is_preview: false, sent_at: None }
    }

    fn planned(plan: Plan) -> PlannedRing {
        match plan {
            Plan::Ring(ring) => ring,
            Plan::Known => panic!("nothing is planned"),
        }
    }

    #[test]
    fn an_object_is_looked_at_once_a_second_and_never_too_early() {
        let (recent, object, start) = (RecentRings::default(), object(), Instant::now());
        let mut looks = Vec::new();
        for ms in (0..5000).step_by(50) {
            let now = start + Duration::from_millis(ms);
            if let Plan::Ring(ring) = recent.plan(&object, now) {
                assert!(ring.at >= now, "a look before the hint would miss what it is about");
                recent.confirm(ring);
                looks.push(ring.at);
            }
        }
        assert!(looks.windows(2).all(|pair| pair[1] - pair[0] >= MIN_INTERVAL), "{looks:?}");
        assert_eq!(looks.len(), 6, "at once, and after each second");
        let last = start + Duration::from_millis(4950);
        assert!(*looks.last().unwrap() >= last, "the last hint is not lost");
    }

    #[test]
    fn a_look_that_was_not_written_is_planned_again() {
        let (recent, object, start) = (RecentRings::default(), object(), Instant::now());
        recent.confirm(planned(recent.plan(&object, start)));
        let soon = start + Duration::from_millis(10);
        let failed = planned(recent.plan(&object, soon));
        assert_eq!(planned(recent.plan(&object, soon)), failed, "its update has not succeeded");
        recent.confirm(failed);
        assert_eq!(recent.plan(&object, soon), Plan::Known);
        assert_ne!(recent.plan(&object, failed.at), Plan::Known, "that look may have begun");
    }

    #[test]
    fn a_preview_is_another_object() {
        let (recent, object, start) = (RecentRings::default(), object(), Instant::now());
        let preview = WrittenObject { is_preview: true, ..object.clone() };
        assert_eq!((planned(recent.plan(&object, start)).at, planned(recent.plan(&preview, start)).at), (start, start));
    }
}
