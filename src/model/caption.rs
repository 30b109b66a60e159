//! Captions: the text shown beside an image.

/// A caption: text of at most 1000 characters; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption(String);

impl Caption {
    /// The longest caption in characters (Unicode code points).
    pub const MAX_CHARS: usize = 1000;

    /// Parses a caption. The empty text clears the caption and gives `Ok(None)`. NUL is rejected: JSON allows it, but most programs
    /// that display text do not.
    ///
    /// # Errors
    /// The broken rule, as the end of a sentence: "must …".
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        if text.chars().count() > Self::MAX_CHARS {
            return Err("must be at most 1000 characters long");
        }
        if text.contains('\0') {
            return Err("must not contain NUL");
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// Returns the caption's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
