//! Events: changes about which webhooks inform the backend of an app (`store/outbox.rs`). Event streams inform clients about those
//! of images (`store/image_changes.rs`).

use super::ImageState;

/// The type of an event. The set is open: later versions write more types, and a server passes on events of types unknown to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// An image became ready.
    ImageReady,
    /// The bytes of an upload were rejected.
    ImageRejected,
    /// An image or an open upload was deleted.
    ImageDeleted,
    /// The caption of a ready image changed. In event streams, also when a worker has made its pictures.
    ImageUpdated,
    /// The bytes of an upload did not arrive in time.
    UploadExpired,
    /// An account was created.
    AccountCreated,
    /// An account was deleted, by its owner or by the app's backend.
    AccountDeleted,
}

impl EventType {
    /// All types.
    pub const ALL: [Self; 7] = [
        Self::ImageReady,
        Self::ImageRejected,
        Self::ImageDeleted,
        Self::ImageUpdated,
        Self::UploadExpired,
        Self::AccountCreated,
        Self::AccountDeleted,
    ];

    /// Returns the name in the database and in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageReady => "image.ready",
            Self::ImageRejected => "image.rejected",
            Self::ImageDeleted => "image.deleted",
            Self::ImageUpdated => "image.updated",
            Self::UploadExpired => "upload.expired",
            Self::AccountCreated => "account.created",
            Self::AccountDeleted => "account.deleted",
        }
    }

    /// Returns the event of an image that enters this state; `None` for an upload that is opened and a record that is purged.
    #[must_use]
    pub fn of_transition(to: ImageState) -> Option<Self> {
        match to {
            ImageState::Pending | ImageState::Purged => None,
            ImageState::Ready => Some(Self::ImageReady),
            ImageState::Rejected => Some(Self::ImageRejected),
            ImageState::Expired => Some(Self::UploadExpired),
            ImageState::Deleting => Some(Self::ImageDeleted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_of_the_form_that_standard_webhooks_require() {
        let names: std::collections::BTreeSet<_> = EventType::ALL.map(EventType::as_str).into();
        assert_eq!(names.len(), EventType::ALL.len());
        for name in names {
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')), "{name}");
        }
    }

    #[test]
    fn every_transition_out_of_a_live_state_has_an_event() {
        for from in ImageState::ALL.into_iter().filter(|state| state.is_live()) {
            for to in ImageState::ALL.into_iter().filter(|to| from.may_become(*to)) {
                assert!(EventType::of_transition(to).is_some(), "{from:?} to {to:?}");
            }
        }
    }
}
