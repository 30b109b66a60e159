//! Limits the checks of one object to one a second, without losing a record: for one that comes too early, a later check is planned.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{
    domain::generational_cache::GenerationalCache,
    model::{ImageId, s3_event::WrittenObject},
};

/// Minimum time between two checks of one object because of notifications.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Objects that are remembered.
const CAPACITY: usize = 20_000;

/// The objects about which notifications came last.
#[derive(Debug)]
pub(super) struct RecentChecks(Mutex<GenerationalCache<NotifiedObject, LatestCheck>>);

/// An object of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct NotifiedObject {
    image: ImageId,
    is_preview: bool,
}

/// The latest check that was planned of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LatestCheck {
    at: Instant,
    /// Whether it is in the database, so that it will happen.
    is_written: bool,
}

/// Decision about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Make the upload due.
    Check(PlannedCheck),
    /// A check in the future is in the database already.
    AlreadyPlanned,
}

/// A check that is to be written to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedCheck {
    object: NotifiedObject,
    /// When the object is to be checked.
    pub(super) at: Instant,
}

impl Default for RecentChecks {
    fn default() -> Self {
        Self(Mutex::new(GenerationalCache::new(CAPACITY)))
    }
}

impl RecentChecks {
    /// Plans the check for a record that came at `now`.
    pub(super) fn plan(&self, object: &WrittenObject, now: Instant) -> Plan {
        let object = NotifiedObject { image: object.owner.image, is_preview: object.is_preview };
        let mut recent = self.0.lock();
        let last = recent.get(object);
        let (at, is_written) = match last {
            // The check has not begun, so it will see the written object.
            Some(LatestCheck { at, is_written }) if at > now => (at, is_written),
            Some(LatestCheck { at, .. }) if now < at + MIN_INTERVAL => (at + MIN_INTERVAL, false),
            _ => (now, false),
        };
        if is_written {
            return Plan::AlreadyPlanned;
        }
        recent.insert(object, LatestCheck { at, is_written: false });
        Plan::Check(PlannedCheck { object, at })
    }

    /// Records that the check is in the database.
    pub(super) fn mark_written(&self, check: PlannedCheck) {
        let mut recent = self.0.lock();
        if recent.get(check.object).is_some_and(|latest| latest.at == check.at) {
            recent.insert(check.object, LatestCheck { at: check.at, is_written: true });
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

    fn planned(plan: Plan) -> PlannedCheck {
        match plan {
            Plan::Check(check) => check,
            Plan::AlreadyPlanned => panic!("nothing is planned"),
        }
    }

    #[test]
    fn an_object_is_checked_once_a_second_and_never_too_early() {
        let (recent, object, start) = (RecentChecks::default(), object(), Instant::now());
        let mut checks = Vec::new();
        for ms in (0..5000).step_by(50) {
            let now = start + Duration::from_millis(ms);
            if let Plan::Check(check) = recent.plan(&object, now) {
                assert!(check.at >= now, "a check before the record would miss the object");
                recent.mark_written(check);
                checks.push(check.at);
            }
        }
        assert!(checks.windows(2).all(|pair| pair[1] - pair[0] >= MIN_INTERVAL), "{checks:?}");
        assert_eq!(checks.len(), 6, "at once, and after each second");
        let last = start + Duration::from_millis(4950);
        assert!(*checks.last().unwrap() >= last, "the last record is not lost");
    }

    #[test]
    fn a_check_that_was_not_written_is_planned_again() {
        let (recent, object, start) = (RecentChecks::default(), object(), Instant::now());
        recent.mark_written(planned(recent.plan(&object, start)));
        let soon = start + Duration::from_millis(10);
        let failed = planned(recent.plan(&object, soon));
        assert_eq!(planned(recent.plan(&object, soon)), failed, "its update has not succeeded");
        recent.mark_written(failed);
        assert_eq!(recent.plan(&object, soon), Plan::AlreadyPlanned);
        assert_ne!(recent.plan(&object, failed.at), Plan::AlreadyPlanned, "that check may have begun");
    }

    #[test]
    fn a_preview_is_another_object() {
        let (recent, object, start) = (RecentChecks::default(), object(), Instant::now());
        let preview = WrittenObject { is_preview: true, ..object.clone() };
        assert_eq!((planned(recent.plan(&object, start)).at, planned(recent.plan(&preview, start)).at), (start, start));
    }
}
