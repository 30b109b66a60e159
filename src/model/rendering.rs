//! The rendering of an image: the pictures in smaller sizes that a worker makes of it.

use super::Dimensions;

/// Reason why a worker made no pictures of an image, and makes no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RenderingFailure {
    /// No decoder reads files of this kind.
    Unsupported,
    /// The file or the image is larger than decoders accept.
    TooBig,
    /// The pixels cannot be decoded.
    Corrupt,
    /// The decoder crashed, or ran out of time or memory, in every attempt.
    Crashed,
    /// The object is missing, or is not the one that was confirmed.
    Missing,
    /// The store rejects reads of the object, or the image's record cannot be read.
    Unreadable,
}

impl RenderingFailure {
    /// All failures.
    pub const ALL: [Self; 6] = [Self::Unsupported, Self::TooBig, Self::Corrupt, Self::Crashed, Self::Missing, Self::Unreadable];

    /// Returns the name in the database and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::TooBig => "too_big",
            Self::Corrupt => "corrupt",
            Self::Crashed => "crashed",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
        }
    }

    /// Parses the name in the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.as_str() == text)
    }
}

/// The record of an image's rendering.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendering {
    /// Whether a worker may have written objects at the keys of the pictures.
    pub is_written: bool,
    /// Number of attempts that began, without those that an outage ended.
    pub attempts: u32,
    /// Reason why there are no pictures.
    pub failure: Option<RenderingFailure>,
    /// Sizes of the pictures that were made, the smaller one first; empty before.
    pub pictures: Vec<Dimensions>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_names_of_their_own() {
        for failure in RenderingFailure::ALL {
            assert_eq!(RenderingFailure::parse(failure.as_str()), Some(failure));
        }
        assert_eq!(RenderingFailure::parse("slow"), None);
    }
}
