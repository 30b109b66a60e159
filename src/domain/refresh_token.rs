//! Refresh tokens: opaque to clients, known here by their hashes alone. Pure but for the system's randomness.
//!
//! A token is the base64url of a version byte, its session's id and 32 secret bytes. Its successor's secret is the
//! HMAC-SHA256 of the salt drawn at the rotation, keyed with its own secret: whoever still holds the parent can be given
//! the same child again, and the database holds nothing a token could be made from.

use std::fmt;

use aws_lc_rs::{digest, hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;

use super::credentials::NoRandomness;
use crate::model::SessionId;

/// The one form there is.
const VERSION: u8 = 1;
/// Version, session, secret.
const LENGTH: usize = 1 + 16 + 32;

/// A refresh token.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    session: SessionId,
    secret: [u8; 32],
}

impl RefreshToken {
    /// A session's first.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(session: SessionId) -> Result<Self, NoRandomness> {
        Ok(Self { session, secret: random()? })
    }

    /// Reads what [`RefreshToken::expose`] wrote; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = <[u8; LENGTH]>::try_from(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (session, secret) = rest.split_first_chunk()?;
        let secret = secret.try_into().ok()?;
        (*version == VERSION).then(|| Self { session: SessionId::from_bytes(*session), secret })
    }

    /// The token as clients keep it.
    #[must_use]
    pub fn expose(&self) -> SecretString {
        URL_SAFE_NO_PAD.encode(self.bytes()).into()
    }

    /// Whose token it says it is.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// What is kept of it. The secret has 256 random bits, so a fast hash without a salt is enough.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.bytes()).as_ref());
        hash
    }

    /// Its one successor under this salt.
    #[must_use]
    pub fn child(&self, salt: &[u8; 32]) -> Self {
        let mut secret = [0; 32];
        secret.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret), salt).as_ref());
        Self { session: self.session, secret }
    }

    fn bytes(&self) -> Vec<u8> {
        [&[VERSION][..], self.session.as_bytes(), &self.secret].concat()
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

/// 256 bits that nobody can guess.
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
    use crate::model::mutations::{any_text, mutated};

    fn token() -> impl Strategy<Value = RefreshToken> {
        any::<([u8; 16], [u8; 32])>().prop_map(|(id, secret)| RefreshToken { session: SessionId::from_bytes(id), secret })
    }

    proptest! {
        /// One token has one text.
        #[test]
        fn t5_no_other_text_is_read(text in prop_oneof![any_text(), "[A-Za-z0-9_-]{64,67}"]) {
            if let Some(token) = RefreshToken::parse(&text) {
                prop_assert!(token.expose().expose_secret() == text);
            }
        }

        /// Any 32 bytes are a secret, so a changed token may be read: it is never the one it was.
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
    fn t5_what_is_read_is_what_was_written_and_nothing_else() {
        let token = RefreshToken::new(SessionId::new()).unwrap();
        let text = token.expose().expose_secret().to_owned();
        assert_eq!(RefreshToken::parse(&text), Some(token.clone()));
        let other_version = URL_SAFE_NO_PAD.encode([&[2][..], &token.bytes()[1..]].concat());
        let (short, long) = (&text[..text.len() - 4], format!("{text}AAAA"));
        for bad in ["", ".", "a.b.c", short, &long, &format!("{text}="), &format!(" {text}"), &other_version, &"é".repeat(33)] {
            assert_eq!(RefreshToken::parse(bad), None, "{bad}");
        }
        assert!(!format!("{token:?}").contains(&text[24..]));
    }

    #[test]
    fn t7_a_parent_has_one_child_per_salt() {
        let session = SessionId::new();
        let (parent, other) = (RefreshToken::new(session).unwrap(), RefreshToken::new(session).unwrap());
        let (salt, other_salt) = (random().unwrap(), random().unwrap());
        assert_eq!(parent.child(&salt), parent.child(&salt));
        let all = [parent.clone(), parent.child(&salt), parent.child(&other_salt), other.child(&salt), other];
        let hashes: std::collections::HashSet<_> = all.iter().map(RefreshToken::hash).collect();
        assert_eq!(hashes.len(), all.len());
    }
}
