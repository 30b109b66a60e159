//! An image of the model, and its states.

use super::{
    super::{Declared, UserIndex},
    GRACE,
};

/// State of an image, as in docs/concepts.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Pending,
    Ready,
    Deleting,
    /// Rejected with this problem code.
    Rejected(&'static str),
    Expired,
    /// Purged.
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
    /// Other bytes.
    Other,
}

/// Values by which a repeated request is recognised: whether the upload is multipart, and the declaration.
pub(super) type Fingerprint = (bool, Declared);

/// An image of the model.
#[derive(Debug, Clone)]
pub struct Image {
    /// Id on the server; empty until the test sets it.
    pub id: String,
    /// Owner.
    pub user: UserIndex,
    pub declared: Declared,
    pub size: u64,
    pub caption: Option<String>,
    /// Whether the upload is multipart.
    pub in_parts: bool,
    pub state: State,
    pub object: Object,
    /// Whether S3 has the only part.
    pub part: bool,
    /// Number of the moment at which the image became ready, which orders the gallery.
    pub ready_moment: u64,
    /// Idempotency key, with the request that had it.
    pub(super) key: Option<(u8, Fingerprint)>,
    /// Time at which the last URL expires.
    pub(super) urls_expire_at: i64,
    /// Time at which the sweeper handles the image next.
    pub(super) due: Option<i64>,
    /// State before the image was purged.
    pub(super) state_before_purge: State,
    /// Whether the image's bytes are counted although it is neither pending nor ready.
    pub(super) is_counted: bool,
}

impl Image {
    /// Returns whether the image is pending or ready.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Pending | State::Ready)
    }

    /// Returns the state that decides an answer: that before the purge if the image was rejected or had expired.
    pub(super) fn outcome(&self) -> State {
        if self.state == State::Gone && matches!(self.state_before_purge, State::Rejected(_) | State::Expired) {
            self.state_before_purge
        } else {
            self.state
        }
    }

    /// Returns the time from which no URL can write the object.
    pub(super) fn writes_end_at(&self) -> i64 {
        self.urls_expire_at + GRACE
    }

    /// Turns the image into a tombstone and frees its idempotency key. Its bytes stay counted while they are stored or a URL
    /// could store them again.
    pub(super) fn end(&mut self, state: State, now: i64) {
        self.is_counted = match state {
            State::Deleting => self.urls_expire_at > 0,
            State::Rejected(_) => true,
            _ => false,
        };
        self.state = state;
        self.due = Some(now);
        self.key = None;
    }
}
