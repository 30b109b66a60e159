//! An image of the model, and its states.

use super::{
    super::{Declared, Who},
    GRACE,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Pending,
    Ready,
    Deleting,
    Rejected(&'static str),
    Expired,
    Gone,
}

impl State {
    /// Returns the name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
            Self::Rejected(_) => "rejected",
            Self::Expired => "expired",
            Self::Gone => "gone",
        }
    }
}

/// Object at an image's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    Nothing,
    /// The declared bytes.
    Declared,
    Other,
}

/// Identity of a request, to recognise its repeat.
pub(super) type Fingerprint = (bool, Declared);

#[derive(Debug, Clone)]
pub struct Image {
    pub id: String,
    pub who: Who,
    pub declared: Declared,
    pub size: u64,
    pub caption: Option<String>,
    pub in_parts: bool,
    pub state: State,
    pub object: Object,
    /// Whether S3 has the only part.
    pub part: bool,
    /// Position in the gallery; images that became ready at the same moment share it.
    pub place: u64,
    pub(super) key: Option<(u8, Fingerprint)>,
    pub(super) urls_die: i64,
    pub(super) due: Option<i64>,
    /// State before it was purged.
    pub(super) was: State,
    /// Whether the image's bytes are counted although it is neither pending nor ready.
    pub(super) kept: bool,
}

impl Image {
    /// Returns whether the image is pending or ready.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Pending | State::Ready)
    }

    /// Returns the state that decides an answer.
    pub(super) fn outcome(&self) -> State {
        if self.state == State::Gone && matches!(self.was, State::Rejected(_) | State::Expired) { self.was } else { self.state }
    }

    /// Returns the time from which no URL can write the object.
    pub(super) fn quiet_from(&self) -> i64 {
        self.urls_die + GRACE
    }

    /// Turns the image into a tombstone and frees its idempotency key. Its bytes stay counted while they are stored or a URL
    /// could store them again.
    pub(super) fn end(&mut self, state: State, now: i64) {
        self.kept = match state {
            State::Deleting => self.urls_die > 0,
            State::Rejected(_) => true,
            _ => false,
        };
        self.state = state;
        self.due = Some(now);
        self.key = None;
    }
}
