//! Uploads declared with bounds on the size and without a digest, such as Uppy's.

use std::ops::RangeInclusive;

use super::Upload;

/// How an upload comes that is not bound to declared bytes, as Uppy's are: a bound of the length is all that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loose {
    /// One form, posted to S3.
    Form,
    /// Parts that the client cuts.
    Parts,
}

impl Loose {
    /// The name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Parts => "parts",
        }
    }

    /// Reads the database's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Form, Self::Parts].into_iter().find(|known| known.as_str() == text)
    }
}

impl Upload {
    /// How many bytes may come: as many as were declared, or of a loose upload at least one and at most its bound.
    #[must_use]
    pub fn lengths(&self) -> RangeInclusive<u64> {
        (if self.loose.is_some() { 1 } else { self.size })..=self.size
    }

    /// Whether it comes in parts: of declared lengths, or cut by the client.
    #[must_use]
    pub fn is_in_parts(&self) -> bool {
        self.multipart.is_some() || self.loose == Some(Loose::Parts)
    }
}
