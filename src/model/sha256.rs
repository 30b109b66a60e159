//! SHA-256 digests in the form of S3's checksum header: base64 of the 32 bytes.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

/// The digest of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

/// The text is not base64 of exactly 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the base64 (standard alphabet, padded) of the 32 bytes of the file's SHA-256; not hex")]
pub struct InvalidSha256;

impl Sha256 {
    /// Parses padded standard base64, as in `x-amz-checksum-sha256`.
    ///
    /// # Errors
    /// [`InvalidSha256`] for another length, alphabet, or non-zero trailing bits.
    pub fn parse(text: &str) -> Result<Self, InvalidSha256> {
        let mut bytes = [0; 32];
        // decode_slice wants room for an estimate that may exceed 32, hence the length check first.
        if text.len() != 44 {
            return Err(InvalidSha256);
        }
        let decoded = STANDARD.decode(text).map_err(|_| InvalidSha256)?;
        if decoded.len() != bytes.len() {
            return Err(InvalidSha256);
        }
        bytes.copy_from_slice(&decoded);
        Ok(Self(bytes))
    }

    /// Returns the digest of these 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_padded_base64_of_32_bytes_is_read() {
        let text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(Sha256::parse(text).unwrap().to_string(), text);
        for bad in [
            "",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "AAAA",
            &"A".repeat(44),
        ] {
            assert_eq!(Sha256::parse(bad), Err(InvalidSha256), "{bad}");
        }
    }
}
