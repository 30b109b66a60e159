//! Idempotency keys: the caller's names for requests, so that a repeat finds the first one's answer.

use super::Sha256;

/// A key as a header or a batch's item carries it (draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// Not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 printable ASCII characters, such as a UUID")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// Reads a key; the quotes of the draft's structured-field string (RFC 8941 section 3.3.3) may be there or not. What
    /// would be read otherwise when it is read again, such as a key in two pairs of quotes, is none: keys are stored.
    ///
    /// # Errors
    /// [`InvalidIdempotencyKey`].
    pub fn parse(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let bare = bare(text);
        let printable = bare.bytes().all(|b| (0x20..0x7f).contains(&b));
        let fits = printable && self::bare(bare) == bare && (1..=255).contains(&bare.len());
        if fits { Ok(Self(bare.to_owned())) } else { Err(InvalidIdempotencyKey) }
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Without white space around it, and one pair of quotes.
fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

/// An idempotency key with the digest of its request, kept in the image's document, so that there is no second write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Unique per user.
    pub key: IdempotencyKey,
    /// The digest of the request that came with it: another body under the same key is a mistake.
    pub request: Sha256,
}
