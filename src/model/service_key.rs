//! Service keys: `vk_<id>_<secret>`, with which an app's backend calls `/api/admin`.
//!
//! The id names the key in lists and logs. The secret alone authenticates: 32 random bytes as 43 characters of base64url, of
//! which only the SHA-256 is stored.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;

use super::{ServiceKeyId, Sha256};

/// A permission of a service key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Create access tokens for the app's own users.
    TokensCreate,
    /// Read users and their usage.
    UsersRead,
    /// Delete, suspend and resume users, and set their quotas.
    UsersWrite,
    /// Read users' images.
    ImagesRead,
    /// Delete users' images.
    ImagesDelete,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::TokensCreate, Self::UsersRead, Self::UsersWrite, Self::ImagesRead, Self::ImagesDelete];

    /// Returns the scope's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokensCreate => "tokens:create",
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::ImagesRead => "images:read",
            Self::ImagesDelete => "images:delete",
        }
    }

    /// Parses the scope's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Name of a service key, for the operator and the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

/// The text is not a name of a service key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has from 1 to 64 letters, digits, spaces and any of . _ - and does not begin or end with a space")]
pub struct InvalidKeyName;

impl KeyName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidKeyName`]: names appear in logs and tables, so they are short and plain.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyName> {
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '_' | '-'));
        let is_valid = is_plain && (1..=64).contains(&text.len()) && text.trim() == text;
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidKeyName) }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text of a service key.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceKeyToken {
    id: ServiceKeyId,
    secret: [u8; 32],
}

impl ServiceKeyToken {
    /// Beginning of every key, by which scanners of source code recognize one.
    pub const PREFIX: &str = "vk_";

    /// Creates the text of a new key from 32 random bytes.
    #[must_use]
    pub fn new(id: ServiceKeyId, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// Parses the text of [`ServiceKeyToken::expose`]; returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(Self::PREFIX)?.split_once('_')?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
        Some(Self { id: ServiceKeyId::parse(id)?, secret: secret.try_into().ok()? })
    }

    /// Returns the text, for the operator.
    #[must_use]
    pub fn expose(&self) -> SecretString {
        format!("{}{}_{}", Self::PREFIX, self.id, URL_SAFE_NO_PAD.encode(self.secret)).into()
    }

    /// Returns the id of the key.
    #[must_use]
    pub fn id(&self) -> ServiceKeyId {
        self.id
    }

    /// Returns the digest that is stored. The secret has 256 random bits, so a fast hash without a salt suffices.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::of([self.secret]).to_bytes()
    }
}

impl fmt::Debug for ServiceKeyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKeyToken").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn key_has_one_text_and_debug_hides_its_secret() {
        let key = ServiceKeyToken::new(ServiceKeyId::new(), [0xfb; 32]);
        let text = key.expose().expose_secret().to_owned();
        assert_eq!((text.len(), &text[..3]), (3 + 36 + 1 + 43, "vk_"));
        assert_eq!(ServiceKeyToken::parse(&text), Some(key.clone()));
        // Bytes 0xfb are "-_v7" in base64url, and 251 in a list of decimals.
        let debug = format!("{key:?}");
        assert!(!debug.contains("-_v7") && !debug.contains("251") && debug.contains(&key.id().to_string()), "{debug}");
        // The head ends with the "_" before the secret, which may contain "_" too.
        let (head, secret) = text.split_at("vk_".len() + 36 + 1);
        for other in [
            String::new(),
            "vk_".to_owned(),
            head.to_owned(),
            text.to_uppercase(),
            text[..text.len() - 1].to_owned(),
            format!("{text}="),
            format!(" {text}"),
            text.replacen("vk_", "vk-", 1),
            format!("{head}{}A", &secret[..42]).replacen("vk_", "", 1),
            key.id().to_string(),
        ] {
            assert_eq!(ServiceKeyToken::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn only_known_scopes_and_plain_names_are_accepted() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
        assert_eq!(Scope::parse("users"), None);
        assert_eq!(
            KeyName::parse("Photo backend-2.1_a").map(|name| name.as_str().to_owned()),
            Ok("Photo backend-2.1_a".to_owned())
        );
        for bad in ["", " a", "a ", "a\nb", "é", &"a".repeat(65)] {
            assert_eq!(KeyName::parse(bad), Err(InvalidKeyName), "{bad}");
        }
    }
}
