//! Placeholders for an image while it loads: a preview that the client uploads, and a ThumbHash.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{ContentType, Sha256};

/// A small picture of the image, uploaded beside it by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preview {
    /// JPEG or WebP.
    pub content_type: ContentType,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the bytes, signed into the URL and compared at confirm.
    pub sha256: Sha256,
}

impl Preview {
    /// The largest size in bytes.
    pub const MAX_BYTES: u64 = 256 * 1024;
    /// The permitted media types: every client can make and show them.
    pub const TYPES: [ContentType; 2] = [ContentType::Jpeg, ContentType::Webp];
}

/// A ThumbHash (evanw.github.io/thumbhash): about 25 bytes that clients decode to a blurred picture. Opaque to the server.
#[derive(Clone, PartialEq, Eq)]
pub struct ThumbHash(Vec<u8>);

/// The text is not base64 of 1 to 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the base64 (standard alphabet, padded) of at most {} bytes", ThumbHash::MAX_BYTES)]
pub struct InvalidThumbHash;

impl ThumbHash {
    /// Maximum length in bytes.
    pub const MAX_BYTES: usize = 32;

    /// Parses padded standard base64.
    ///
    /// # Errors
    /// [`InvalidThumbHash`], also for the empty text.
    pub fn parse(text: &str) -> Result<Self, InvalidThumbHash> {
        if text.is_empty() || text.len() > Self::MAX_BYTES.div_ceil(3) * 4 {
            return Err(InvalidThumbHash);
        }
        Self::from_bytes(STANDARD.decode(text).map_err(|_| InvalidThumbHash)?)
    }

    /// Takes the bytes of a hash.
    ///
    /// # Errors
    /// [`InvalidThumbHash`] unless there are 1 to 32.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidThumbHash> {
        if (1..=Self::MAX_BYTES).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidThumbHash) }
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ThumbHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for ThumbHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_thumb_hash_is_base64_of_at_most_32_bytes() {
        let longest = STANDARD.encode([7; 32]);
        for good in ["1QcSHQRnh493V4dIh4eXh1h4kJUI", "AA==", longest.as_str()] {
            assert_eq!(ThumbHash::parse(good).unwrap().to_string(), good);
        }
        let long = STANDARD.encode([7; 33]);
        for bad in ["", "A", "AA", "AB==", "1QcSHQRnh493V4dIh4eXh1h4kJU_", " AA==", &long, &"A".repeat(4096)] {
            assert_eq!(ThumbHash::parse(bad), Err(InvalidThumbHash), "{bad}");
        }
    }
}
