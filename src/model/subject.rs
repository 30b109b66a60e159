//! The name of a user in an app, which the app's backend sends.

use std::fmt;

/// A user's name in the app: its own id of the user. Compared byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject(String);

/// The text is not a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have from 1 to 255 characters, without control characters and without white space at its ends")]
pub struct InvalidSubject;

impl Subject {
    /// The `issuer` of the identities of the app's users. No identity provider has it: their issuers are URLs.
    pub const ISSUER: &str = "app";
    /// Maximum number of characters.
    pub const MAX_CHARS: usize = 255;

    /// Parses a subject.
    ///
    /// # Errors
    /// [`InvalidSubject`]. White space at the ends is rejected, not removed: two subjects must not become one user.
    pub fn parse(text: &str) -> Result<Self, InvalidSubject> {
        let is_valid =
            (1..=Self::MAX_CHARS).contains(&text.chars().count()) && text.trim() == text && !text.chars().any(char::is_control);
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidSubject) }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_any_short_text_as_it_stands() {
        for good in ["7", "user|42", "ada@example.com", "日本 語", &"é".repeat(255)] {
            assert_eq!(Subject::parse(good).map(|subject| subject.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", " 7", "7\n", "a\u{0}b", &"a".repeat(256)] {
            assert_eq!(Subject::parse(bad), Err(InvalidSubject), "{bad:?}");
        }
    }
}
