//! Idempotency keys: names that a client gives its requests, so that a repeated request gets the response of the first.

use super::Sha256;

/// An idempotency key, from a header or an item of a batch (draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// The text is not an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 printable ASCII characters, such as a UUID")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// Parses a key, with or without the quotes of the draft's structured-field string (RFC 8941 section 3.3.3). Rejects keys
    /// whose stored form would parse to a different key, such as one quoted twice.
    ///
    /// # Errors
    /// [`InvalidIdempotencyKey`].
    pub fn parse(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let key = unquote(text);
        let printable = key.bytes().all(|b| (0x20..0x7f).contains(&b));
        let fits = printable && unquote(key) == key && (1..=255).contains(&key.len());
        if fits { Ok(Self(key.to_owned())) } else { Err(InvalidIdempotencyKey) }
    }

    /// Returns the key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Removes white space around the text, and one pair of quotes.
fn unquote(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

/// An idempotency key with the digest of its request, stored in the image's document so that no second write is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, unique per user.
    pub key: IdempotencyKey,
    /// The digest of the request that had the key. Another request with the same key is an error of the client.
    pub request: Sha256,
}
