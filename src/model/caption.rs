//! Captions: text that people see beside an image.

/// A caption: text of at most 1000 characters; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption(String);

impl Caption {
    /// The longest caption in characters (Unicode code points).
    pub const MAX_CHARS: usize = 1000;

    /// `Ok(None)` for the empty text, which clears; `Err` when too long or when it holds NUL, which JSON
    /// allows and most of what displays it does not.
    ///
    /// # Errors
    /// The rule that is broken, as a sentence's end: "must …".
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        if text.chars().count() > Self::MAX_CHARS {
            return Err("must be at most 1000 characters long");
        }
        if text.contains('\0') {
            return Err("must not contain NUL");
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// The caption's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
