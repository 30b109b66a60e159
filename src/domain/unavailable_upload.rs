//! Error of calls that name an upload which is neither open nor ready.

use crate::model::{ImageEnd, Rejection};

/// Why an upload that a call names is neither open nor ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnavailableUpload {
    /// The upload does not exist, belongs to another user, or was deleted.
    #[error("there is no such upload")]
    NotFound,
    /// The upload has expired. Final.
    #[error("the upload has expired")]
    Expired,
    /// The uploaded bytes did not match the declaration. Final.
    #[error("the upload was rejected")]
    Rejected(Rejection),
}

impl From<ImageEnd> for UnavailableUpload {
    fn from(end: ImageEnd) -> Self {
        match end {
            ImageEnd::Deleted { .. } => Self::NotFound,
            ImageEnd::Rejected(why) => Self::Rejected(why),
            ImageEnd::Expired => Self::Expired,
        }
    }
}
