//! File names: metadata for people, never part of an object's key.

use std::fmt::Write;

use unicode_normalization::UnicodeNormalization;

/// A display name: NFC, one path segment, no control or bidirectional-override characters, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

/// The name cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFileName {
    /// Nothing is left of it once folders are taken off.
    #[error("must name a file")]
    Empty,
    /// More than 255 bytes of UTF-8.
    #[error("must be at most 255 bytes long in UTF-8")]
    TooLong,
    /// C0, C1, DEL, or a line or paragraph separator: they end up in headers and logs.
    #[error("must not contain control characters")]
    Control,
    /// U+202A to U+202E and U+2066 to U+2069 make `gpj.exe` read as `exe.jpg`.
    #[error("must not contain bidirectional override characters")]
    Bidirectional,
}

impl FileName {
    /// The longest name in bytes of UTF-8: what common file systems hold.
    pub const MAX_BYTES: usize = 255;

    /// Reads a name as browsers and phones send it: folders before it are taken off, whichever slash they use.
    ///
    /// # Errors
    /// [`InvalidFileName`] says which rule the name breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidFileName> {
        if text.len() > 4 * Self::MAX_BYTES {
            return Err(InvalidFileName::TooLong);
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err(InvalidFileName::Control);
        }
        if text.chars().any(|c| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')) {
            return Err(InvalidFileName::Bidirectional);
        }
        let name: String = text.rsplit(['/', '\\']).next().unwrap_or_default().nfc().collect();
        let name = name.trim();
        if name.is_empty() || name == "." || name == ".." {
            return Err(InvalidFileName::Empty);
        }
        if name.len() > Self::MAX_BYTES {
            return Err(InvalidFileName::TooLong);
        }
        Ok(Self(name.to_owned()))
    }

    /// The cleaned name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `Content-Disposition` for a download that saves under this name (RFC 6266): an ASCII fall-back in quotes,
    /// and the exact name after `filename*` in the encoding of RFC 8187.
    #[must_use]
    pub fn attachment(&self) -> String {
        let mut fallback = String::with_capacity(self.0.len());
        let mut exact = String::with_capacity(self.0.len());
        for c in self.0.chars() {
            // A percent sign in the quoted form is decoded by some browsers, and a quote or backslash ends or escapes it.
            fallback.push(if c.is_ascii() && !matches!(c, '"' | '\\' | '%') { c } else { '_' });
            let mut utf8 = [0; 4];
            for &b in c.encode_utf8(&mut utf8).as_bytes() {
                // attr-char of RFC 8187 section 3.2.1.
                if b.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&b) {
                    exact.push(char::from(b));
                } else {
                    // Writing to memory does not fail.
                    let _ = write!(exact, "%{b:02X}");
                }
            }
        }
        format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{exact}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn u13_names_are_cleaned_or_refused() {
        for (given, kept) in [
            ("cat.jpg", "cat.jpg"),
            ("C:\\fotos\\Ä.png", "Ä.png"),
            ("../../etc/passwd", "passwd"),
            ("  a b.gif ", "a b.gif"),
            ("e\u{301}.jpg", "é.jpg"),
            ("$where.jpg", "$where.jpg"),
            ("👩‍👩‍👧.heic", "👩‍👩‍👧.heic"),
        ] {
            assert_eq!(FileName::parse(given).unwrap().as_str(), kept);
        }
        for (given, why) in [
            ("", InvalidFileName::Empty),
            ("photos/", InvalidFileName::Empty),
            ("..", InvalidFileName::Empty),
            (" ", InvalidFileName::Empty),
            ("a\r\nX-Evil: 1", InvalidFileName::Control),
            ("a\u{0}.jpg", InvalidFileName::Control),
            ("a\u{85}.jpg", InvalidFileName::Control),
            ("a\u{7f}.jpg", InvalidFileName::Control),
            ("cod\u{202E}gpj.exe", InvalidFileName::Bidirectional),
            ("\u{2066}a", InvalidFileName::Bidirectional),
        ] {
            assert_eq!(FileName::parse(given), Err(why), "{given:?}");
        }
        assert!(FileName::parse(&"ä".repeat(127)).is_ok());
        assert_eq!(FileName::parse(&"ä".repeat(128)), Err(InvalidFileName::TooLong));
    }

    #[test]
    fn g5_the_disposition_is_one_safe_header() {
        let name = |text: &str| FileName::parse(text).unwrap().attachment();
        assert_eq!(name("cat.jpg"), "attachment; filename=\"cat.jpg\"; filename*=UTF-8''cat.jpg");
        assert_eq!(name("a\"b;%0d%0a.jpg"), "attachment; filename=\"a_b;_0d_0a.jpg\"; filename*=UTF-8''a%22b%3B%250d%250a.jpg");
        assert_eq!(name("€ 'x'.png"), "attachment; filename=\"_ 'x'.png\"; filename*=UTF-8''%E2%82%AC%20%27x%27.png");
    }
}
