//! Refresh tokens: opaque to clients, stored only as hashes. No I/O except the system's randomness.
//!
//! A token is the base64url of a version byte, its session's id and 32 secret bytes. The first half of the secret is random; the
//! second is a tag, the HMAC-SHA256 of all bytes before it under a key of the session. So a session recognizes every token that
//! it issued, however long ago, and rejects changed and invented ones. The random half of a token's successor is taken from the
//! HMAC-SHA256 of the salt drawn at the exchange, keyed with the secret: a client that still has the parent can receive the
//! same successor again, and no valid token can be computed from the database.
//!
//! Earlier versions drew a first token's whole secret at random, and took a successor's whole secret from the HMAC: such tokens
//! are recognized by their hashes only.

use std::fmt;

use aws_lc_rs::{constant_time, hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;

use super::credentials::NoRandomness;
use crate::model::{SessionId, Sha256};

/// Version byte of the only format.
const VERSION: u8 = 1;
/// Length of a token: version, session, secret.
const TOKEN_BYTES: usize = 1 + 16 + 32;
/// Length of the random part of the secret; the rest is the tag.
const RANDOM_BYTES: usize = 16;
/// Length of the tag.
const TAG_BYTES: usize = 32 - RANDOM_BYTES;

/// A refresh token.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    session: SessionId,
    secret: [u8; 32],
}

impl RefreshToken {
    /// Creates the first token of a session, tagged with the session's key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(session: SessionId, key: &[u8; 32]) -> Result<Self, NoRandomness> {
        Ok(Self { session, secret: random()? }.tagged(key))
    }

    /// Parses the text of [`RefreshToken::expose`]; returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = <[u8; TOKEN_BYTES]>::try_from(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (session, secret) = rest.split_first_chunk()?;
        let secret = secret.try_into().ok()?;
        (*version == VERSION).then(|| Self { session: SessionId::from_bytes(*session), secret })
    }

    /// Returns the token's text, for the client.
    #[must_use]
    pub fn expose(&self) -> SecretString {
        URL_SAFE_NO_PAD.encode(self.bytes()).into()
    }

    /// Returns the session that the token names.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Returns the digest that is stored. The secret has at least 128 random bits, so a fast hash without a salt suffices.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::of([self.bytes()]).to_bytes()
    }

    /// Returns whether the session with this key issued the token.
    #[must_use]
    pub fn was_issued_with(&self, key: &[u8; 32]) -> bool {
        let issued = self.clone().tagged(key);
        constant_time::verify_slices_are_equal(&issued.secret[RANDOM_BYTES..], &self.secret[RANDOM_BYTES..]).is_ok()
    }

    /// Returns the token's only successor with this salt, in the session with this key.
    #[must_use]
    pub fn successor(&self, salt: &[u8; 32], key: &[u8; 32]) -> Self {
        self.untagged_successor(salt).tagged(key)
    }

    /// Returns the token's successor as earlier versions computed it: without a tag of the session's key.
    #[must_use]
    pub fn untagged_successor(&self, salt: &[u8; 32]) -> Self {
        let mut secret = [0; 32];
        secret.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret), salt).as_ref());
        Self { session: self.session, secret }
    }

    /// Replaces the second half of the secret by the tag of all bytes before it.
    fn tagged(mut self, key: &[u8; 32]) -> Self {
        let bytes = self.bytes();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &bytes[..TOKEN_BYTES - TAG_BYTES]);
        self.secret[RANDOM_BYTES..].copy_from_slice(&tag.as_ref()[..TAG_BYTES]);
        self
    }

    /// Returns version, session and secret.
    fn bytes(&self) -> Vec<u8> {
        [&[VERSION][..], self.session.as_bytes(), &self.secret].concat()
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

/// Returns 256 random bits.
///
/// # Errors
/// [`NoRandomness`].
pub fn random() -> Result<[u8; 32], NoRandomness> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::model::text_strategies::{any_text, mutated};

    /// Generates tokens.
    fn token() -> impl Strategy<Value = RefreshToken> {
        any::<([u8; 16], [u8; 32])>().prop_map(|(id, secret)| RefreshToken { session: SessionId::from_bytes(id), secret })
    }

    proptest! {
        /// Each token has exactly one text.
        #[test]
        fn t5_no_other_text_is_read(text in prop_oneof![any_text(), "[A-Za-z0-9_-]{64,67}"]) {
            if let Some(token) = RefreshToken::parse(&text) {
                prop_assert!(token.expose().expose_secret() == text);
            }
        }

        /// Any 32 bytes are a secret, so a changed text may parse; it is never the original token.
        #[test]
        fn t5_a_changed_token_is_another(
            (token, text) in token().prop_flat_map(|token| (Just(token.clone()), mutated(token.expose().expose_secret().to_owned())))
        ) {
            prop_assert_eq!(RefreshToken::parse(token.expose().expose_secret()), Some(token.clone()));
            if let Some(other) = RefreshToken::parse(&text) {
                prop_assert_ne!(other.hash(), token.hash());
                prop_assert!(other.expose().expose_secret() == text);
            }
        }
    }

    #[test]
    fn t5_a_parsed_token_equals_the_issued_one() {
        let token = RefreshToken::new(SessionId::new(), &random().unwrap()).unwrap();
        let text = token.expose().expose_secret().to_owned();
        assert_eq!(RefreshToken::parse(&text), Some(token.clone()));
        let other_version = URL_SAFE_NO_PAD.encode([&[2][..], &token.bytes()[1..]].concat());
        let (short, long) = (&text[..text.len() - 4], format!("{text}AAAA"));
        for bad in ["", ".", "a.b.c", short, &long, &format!("{text}="), &format!(" {text}"), &other_version, &"é".repeat(33)] {
            assert_eq!(RefreshToken::parse(bad), None, "{bad}");
        }
        // The secret's part of the text: 24 characters encode 18 bytes, 17 for the version and the session's id.
        assert!(!format!("{token:?}").contains(&text[24..]));
    }

    #[test]
    fn t7_a_token_has_one_successor_per_salt() {
        let (session, key) = (SessionId::new(), random().unwrap());
        let (parent, other) = (RefreshToken::new(session, &key).unwrap(), RefreshToken::new(session, &key).unwrap());
        let (salt, other_salt) = (random().unwrap(), random().unwrap());
        assert_eq!(parent.successor(&salt, &key), parent.successor(&salt, &key));
        let successors = [parent.successor(&salt, &key), parent.successor(&other_salt, &key), other.successor(&salt, &key)];
        let untagged = parent.untagged_successor(&salt);
        let all: Vec<_> = [parent, other, untagged].into_iter().chain(successors).collect();
        let hashes: std::collections::HashSet<_> = all.iter().map(RefreshToken::hash).collect();
        assert_eq!(hashes.len(), all.len());
    }

    #[test]
    fn a_session_recognizes_its_tokens_and_rejects_changed_ones() {
        let (key, other_key) = (random().unwrap(), random().unwrap());
        let first = RefreshToken::new(SessionId::new(), &key).unwrap();
        let successor = first.successor(&random().unwrap(), &key);
        assert!(first.was_issued_with(&key) && successor.was_issued_with(&key) && !first.was_issued_with(&other_key));
        assert!(
            !first.untagged_successor(&random().unwrap()).was_issued_with(&key),
            "a token of an earlier version, without a tag"
        );
        assert!(!RefreshToken { session: SessionId::new(), ..first.clone() }.was_issued_with(&key), "a token of another session");
        for at in 0..32 {
            let mut changed = successor.clone();
            changed.secret[at] ^= 0x20;
            assert!(!changed.was_issued_with(&key), "byte {at}");
        }
    }
}
