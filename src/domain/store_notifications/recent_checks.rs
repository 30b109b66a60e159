//! Limits the checks of one object to one a second, without losing a record: for a record that comes too early, a later check is
//! planned.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{
    domain::generational_cache::GenerationalCache,
    model::{KeyOwner, s3_event::WrittenObject},
};

/// Minimum time between two checks of one object because of notifications.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Uploads that are remembered.
const CAPACITY: usize = 20_000;

/// The uploads about which notifications came last.
#[derive(Debug)]
pub(super) struct RecentChecks(Mutex<GenerationalCache<CheckedUpload, UploadChecks>>);

/// An upload. Its user is a part, because a forged record with another user's key must not count for this upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CheckedUpload {
    owner: KeyOwner,
    is_incoming: bool,
}

/// The latest checks of an upload, which has one time in the database: an earlier check replaces the time of a later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct UploadChecks {
    /// Check because of the image's object.
    of_object: Option<LatestCheck>,
    /// Check because of the preview's object.
    of_preview: Option<LatestCheck>,
    /// Updates of the database under way.
    updates: u32,
}

/// The latest check that was planned because of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LatestCheck {
    at: Instant,
    /// Whether the check is in the database, so that it will happen.
    is_written: bool,
}

/// Decision about a record.
#[derive(Debug)]
pub(super) enum Plan<'a> {
    /// Make the upload due.
    Check(PlannedCheck<'a>),
    /// A check in the future is in the database already.
    AlreadyPlanned,
}

/// A check whose update of the database is under way.
#[derive(Debug)]
pub(super) struct PlannedCheck<'a> {
    recent: &'a RecentChecks,
    upload: CheckedUpload,
    is_preview: bool,
    /// Time at which the upload is to be checked.
    pub(super) at: Instant,
    /// Whether no other update of the upload was under way when this one began. Another update may replace its time by an
    /// earlier one.
    is_alone: bool,
}

impl Default for RecentChecks {
    fn default() -> Self {
        Self(Mutex::new(GenerationalCache::new(CAPACITY)))
    }
}

impl RecentChecks {
    /// Plans the check for a record that came at `now`.
    pub(super) fn plan(&self, object: &WrittenObject, now: Instant) -> Plan<'_> {
        let upload = CheckedUpload { owner: object.owner, is_incoming: object.upload_key.is_incoming() };
        let mut recent = self.0.lock();
        let mut checks = recent.get(&upload).unwrap_or_default();
        let (latest, other) = checks.latest(object.is_preview);
        let (at, is_written) = match *latest {
            // The check has not begun, so it will see the written object.
            Some(LatestCheck { at, is_written }) if at > now => (at, is_written),
            Some(LatestCheck { at, .. }) if now < at + MIN_INTERVAL => (at + MIN_INTERVAL, false),
            _ => (now, false),
        };
        if is_written {
            return Plan::AlreadyPlanned;
        }
        *latest = Some(LatestCheck { at, is_written: false });
        if let Some(other) = other.as_mut().filter(|other| other.at > at) {
            other.is_written = false;
        }
        let is_alone = checks.updates == 0;
        checks.updates += 1;
        recent.insert(upload, checks);
        Plan::Check(PlannedCheck { recent: self, upload, is_preview: object.is_preview, at, is_alone })
    }
}

impl UploadChecks {
    /// Returns the check of the preview and then that of the image's object if `is_preview`, otherwise in the other order.
    fn latest(&mut self, is_preview: bool) -> (&mut Option<LatestCheck>, &mut Option<LatestCheck>) {
        let Self { of_object, of_preview, .. } = self;
        if is_preview { (of_preview, of_object) } else { (of_object, of_preview) }
    }
}

impl PlannedCheck<'_> {
    /// Records that the check is in the database, so that repeated records need no further update.
    pub(super) fn skip_repeats(&self) {
        let mut recent = self.recent.0.lock();
        let Some(mut checks) = recent.get(&self.upload).filter(|_| self.is_alone) else { return };
        if let Some(latest) = checks.latest(self.is_preview).0.as_mut().filter(|latest| latest.at == self.at) {
            latest.is_written = true;
            recent.insert(self.upload, checks);
        }
    }
}

impl Drop for PlannedCheck<'_> {
    fn drop(&mut self) {
        let mut recent = self.recent.0.lock();
        if let Some(mut checks) = recent.get(&self.upload) {
            checks.updates = checks.updates.saturating_sub(1);
            recent.insert(self.upload, checks);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::{ImageId, ObjectKey, UserId};

    /// Returns the written object of a new upload.
    fn object() -> WrittenObject {
        let owner = KeyOwner { user: UserId::new(), image: ImageId::new() };
        let upload_key = ObjectKey::final_for(owner.user, owner.image);
        WrittenObject { owner, upload_key, is_preview: false, sent_at: None }
    }

    /// Returns the check of a plan that must have one.
    fn planned(plan: Plan<'_>) -> PlannedCheck<'_> {
        match plan {
            Plan::Check(check) => check,
            Plan::AlreadyPlanned => panic!("a check is planned already"),
        }
    }

    /// Plans a check whose update succeeds at once.
    fn write(recent: &RecentChecks, object: &WrittenObject, now: Instant) -> Option<Instant> {
        match recent.plan(object, now) {
            Plan::Check(check) => {
                check.skip_repeats();
                Some(check.at)
            }
            Plan::AlreadyPlanned => None,
        }
    }

    #[test]
    fn an_object_is_checked_once_a_second_and_never_too_early() {
        let (recent, object, start) = (RecentChecks::default(), object(), Instant::now());
        let mut checks = Vec::new();
        for ms in (0..5000).step_by(50) {
            let now = start + Duration::from_millis(ms);
            if let Some(at) = write(&recent, &object, now) {
                assert!(at >= now, "a check before the record would miss the object");
                checks.push(at);
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
        assert_eq!(write(&recent, &object, start), Some(start));
        let soon = start + Duration::from_millis(10);
        let failed = planned(recent.plan(&object, soon)).at;
        assert_eq!(write(&recent, &object, soon), Some(failed), "its update has not succeeded");
        assert_eq!(write(&recent, &object, soon), None);
        assert_eq!(write(&recent, &object, failed), Some(failed + MIN_INTERVAL), "that check may have begun");
    }

    /// The update of an earlier check replaces the time of a later one that was written before, and is claimed at once.
    #[test]
    fn a_later_check_is_not_relied_on_while_an_earlier_one_may_replace_it() {
        let (recent, object, start) = (RecentChecks::default(), object(), Instant::now());
        let (first, second) = (planned(recent.plan(&object, start)), planned(recent.plan(&object, start)));
        assert_eq!(second.at, start + MIN_INTERVAL);
        second.skip_repeats();
        let third = planned(recent.plan(&object, start));
        third.skip_repeats();
        first.skip_repeats();
        drop((first, second));
        third.skip_repeats();
        drop(third);
        assert_eq!(write(&recent, &object, start), Some(start + MIN_INTERVAL));
        assert_eq!(write(&recent, &object, start), None);
    }

    #[test]
    fn a_preview_is_checked_at_once_and_replaces_a_later_check_of_its_image() {
        let (recent, object, start) = (RecentChecks::default(), object(), Instant::now());
        let preview = WrittenObject { is_preview: true, ..object.clone() };
        assert_eq!(write(&recent, &object, start), Some(start));
        assert_eq!(write(&recent, &object, start), Some(start + MIN_INTERVAL));
        assert_eq!(write(&recent, &object, start), None);
        assert_eq!(write(&recent, &preview, start), Some(start));
        assert_eq!(write(&recent, &object, start), Some(start + MIN_INTERVAL), "its check is not in the database any more");
    }

    /// A forged record with a key of the same image must not delay the check of the real object.
    #[test]
    fn objects_of_other_keys_belong_to_other_uploads() {
        let (recent, object, start) = (RecentChecks::default(), object(), Instant::now());
        assert_eq!(write(&recent, &object, start), Some(start));
        let image = object.owner.image;
        let other_user = KeyOwner { user: UserId::new(), image };
        let others = [
            WrittenObject { upload_key: ObjectKey::incoming(object.owner.user, image), ..object.clone() },
            WrittenObject { owner: other_user, upload_key: ObjectKey::final_for(other_user.user, image), ..object.clone() },
        ];
        for other in others {
            assert_eq!(write(&recent, &other, start), Some(start), "{other:?}");
        }
    }
}
