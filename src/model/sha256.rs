//! SHA-256 digests in the form of S3's checksum header: base64 of the 32 bytes.

use std::fmt;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};

/// A digest, mostly of a file's bytes.
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
        // 32 bytes are 44 characters of padded base64.
        if text.len() != 44 {
            return Err(InvalidSha256);
        }
        let decoded = STANDARD.decode(text).map_err(|_| InvalidSha256)?;
        decoded.try_into().map(Self).map_err(|_| InvalidSha256)
    }

    /// Computes the digest of these parts, joined.
    pub fn of<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        parts.into_iter().for_each(|part| context.update(part.as_ref()));
        Self::finish(context)
    }

    /// Returns the digest of all that was added to a context of SHA-256.
    #[must_use]
    pub fn finish(context: digest::Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// Returns the digest of these 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
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
        assert_eq!(Sha256::of([""; 2]).to_string(), text, "of no bytes (FIPS 180-4)");
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
