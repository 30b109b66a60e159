//! File names: metadata shown to people, never part of an object key.

use std::fmt::Write;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use super::hidden_characters::is_hidden;

/// A display name: NFC, one path segment, no control or bidirectional-override characters, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

/// No permitted character is left of the name once folders and characters that cannot be shown are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must name a file")]
pub struct InvalidFileName;

impl FileName {
    /// The longest name in bytes of UTF-8: the limit of common file systems.
    pub const MAX_BYTES: usize = 255;

    /// Maximum bytes of an extension, with its dot, that is kept when a name is shortened.
    const MAX_EXTENSION_BYTES: usize = 32;

    /// Cleans a name as browsers and phones send it. A name is only metadata, so it is changed instead of rejected: folders before
    /// it are removed, whichever slash they use, as are characters that headers and logs cannot contain or that make a name look
    /// like another one; a long name is shortened.
    ///
    /// # Errors
    /// [`InvalidFileName`] for a name without a permitted character.
    pub fn parse(text: &str) -> Result<Self, InvalidFileName> {
        let visible: String = text.chars().filter(|c| !is_hidden(*c)).collect();
        let name: String = visible.rsplit(['/', '\\']).next().unwrap_or_default().nfc().collect();
        let name = shortened(name.trim());
        if matches!(name.as_str(), "" | "." | "..") { Err(InvalidFileName) } else { Ok(Self(name)) }
    }

    /// Returns the cleaned name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the `Content-Disposition` of a download that saves under this name (RFC 6266): an ASCII fallback in quotes, and
    /// the exact name after `filename*` in the encoding of RFC 8187.
    #[must_use]
    pub fn content_disposition(&self) -> String {
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

/// Returns the name in at most [`FileName::MAX_BYTES`]: its beginning, cut between characters, and its extension.
fn shortened(name: &str) -> String {
    if name.len() <= FileName::MAX_BYTES {
        return name.to_owned();
    }
    let extension = match name.rfind('.').map(|dot| name.split_at(dot)) {
        Some((stem, extension)) if !stem.is_empty() && extension.len() <= FileName::MAX_EXTENSION_BYTES => extension,
        _ => "",
    };
    let longest = name.floor_char_boundary(FileName::MAX_BYTES - extension.len());
    // Does not cut before combining marks and inside joined emoji, if the name can be cut elsewhere.
    let is_inside_character = |end: usize| {
        let (before, after) = name.split_at(end);
        before.ends_with('\u{200D}') || after.starts_with(|c| c == '\u{200D}' || is_combining_mark(c))
    };
    let ends = name.char_indices().map(|(index, _)| index).filter(|index| (1..=longest).contains(index));
    let end = ends.rev().find(|end| !is_inside_character(*end)).unwrap_or(longest);
    format!("{}{extension}", name[..end].trim_end())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn u13_names_are_cleaned() {
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
        for (given, kept) in [
            ("a\r\nX-Evil: 1", "aX-Evil: 1"),
            ("a\u{0}.jpg", "a.jpg"),
            ("a\u{85}\u{7f}\u{2028}.jpg", "a.jpg"),
            ("cod\u{202E}gpj.exe", "codgpj.exe"),
            ("\u{2066}a", "a"),
            ("a\u{0}/\u{0}b", "b"),
        ] {
            assert_eq!(FileName::parse(given).unwrap().as_str(), kept);
        }
        for given in ["", "photos/", "..", " ", "\u{0}", "\u{202E}..", ".\u{7f}"] {
            assert_eq!(FileName::parse(given), Err(InvalidFileName), "{given:?}");
        }
    }

    #[test]
    fn long_names_are_shortened_between_characters_and_keep_their_extension() {
        let parsed = |text: &str| FileName::parse(text).unwrap().as_str().to_owned();
        for whole in ["ä".repeat(127), format!("{}.jpg", "x".repeat(251))] {
            assert_eq!(parsed(&whole), whole);
        }
        assert_eq!(parsed(&format!("{}.jpg", "x".repeat(252))), format!("{}.jpg", "x".repeat(251)));
        assert_eq!(parsed(&format!("{}.png", "写".repeat(100))), format!("{}.png", "写".repeat(83)));
        assert_eq!(parsed(&"ä".repeat(200)), "ä".repeat(127));
        assert_eq!(parsed(&format!("a.{}", "x".repeat(300))), format!("a.{}", "x".repeat(253)), "no extension");
        assert_eq!(parsed(&format!(".{}", "x".repeat(300))), format!(".{}", "x".repeat(254)), "a hidden file");
        assert_eq!(
            parsed(&format!("{} b.jpg", "x".repeat(250))),
            format!("{}.jpg", "x".repeat(250)),
            "no space before the extension"
        );
        // A family of three is 18 bytes, a mark belongs to the letter before it.
        assert_eq!(parsed(&format!("{}.heic", "👩‍👩‍👧".repeat(20))), format!("{}.heic", "👩‍👩‍👧".repeat(13)));
        assert_eq!(parsed(&format!("{}q\u{323}\u{307}.jpg", "x".repeat(249))), format!("{}.jpg", "x".repeat(249)));
        // Marks alone.
        assert!(parsed(&"\u{301}".repeat(3000)).len() <= FileName::MAX_BYTES);
        for long in ["a ".repeat(300), ".".repeat(300), "写.".repeat(300), "\u{1F469}\u{200D}".repeat(100)] {
            let name = parsed(&long);
            assert_eq!(parsed(&name), name, "read again as itself");
        }
    }

    #[test]
    fn g5_the_disposition_is_one_safe_header() {
        let name = |text: &str| FileName::parse(text).unwrap().content_disposition();
        assert_eq!(name("cat.jpg"), "attachment; filename=\"cat.jpg\"; filename*=UTF-8''cat.jpg");
        assert_eq!(name("a\"b;%0d%0a.jpg"), "attachment; filename=\"a_b;_0d_0a.jpg\"; filename*=UTF-8''a%22b%3B%250d%250a.jpg");
        assert_eq!(name("€ 'x'.png"), "attachment; filename=\"_ 'x'.png\"; filename*=UTF-8''%E2%82%AC%20%27x%27.png");
    }
}
