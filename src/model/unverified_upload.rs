//! Uploads declared with a size range and without a digest, such as Uppy's.

use std::ops::RangeInclusive;

use super::Upload;

/// How an upload arrives whose bytes were not declared: only an upper bound of its size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnverifiedUpload {
    /// One form, posted to S3.
    Form,
    /// Parts of sizes that the client chooses.
    Parts,
}

impl UnverifiedUpload {
    /// Returns the name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Parts => "parts",
        }
    }

    /// Parses the name in the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Form, Self::Parts].into_iter().find(|known| known.as_str() == text)
    }
}

impl Upload {
    /// Returns the accepted sizes in bytes: exactly the declared one, or for an unverified upload 1 to its bound.
    #[must_use]
    pub fn accepted_sizes(&self) -> RangeInclusive<u64> {
        (if self.unverified.is_some() { 1 } else { self.size })..=self.size
    }

    /// Returns whether the upload arrives in parts, of declared or of client-chosen sizes.
    #[must_use]
    pub fn is_in_parts(&self) -> bool {
        self.multipart.is_some() || self.unverified == Some(UnverifiedUpload::Parts)
    }
}
