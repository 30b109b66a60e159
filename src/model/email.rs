//! Email addresses: the address as typed, and the key under which equal addresses are one account.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

/// An email address that can name an account.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    /// As it was typed.
    address: String,
    /// The key under which equal addresses are one account.
    key: String,
}

/// Maximum bytes of an address: the 256 of a path (RFC 5321 section 4.5.3.1.3) without its angle brackets.
const MAX_ADDRESS_BYTES: usize = 254;

/// The text is not an email address that Valet accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an email address of the form name@example.com")]
pub struct InvalidEmail;

impl Email {
    /// Parses an address as a person types it: surrounding white space is removed, since phone keyboards add it.
    ///
    /// # Errors
    /// [`InvalidEmail`] for text that RFC 5321 does not allow, for a domain without a dot, and for comments, display names and
    /// address literals.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let address = text.trim();
        let options = email_address::Options::default().with_required_tld().without_display_text().without_domain_literal();
        email_address::EmailAddress::parse_with_options(address, options).map_err(|_| InvalidEmail)?;
        if address.len() > MAX_ADDRESS_BYTES || address.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidEmail);
        }
        Ok(Self { key: address.nfkc().collect::<String>().to_lowercase(), address: address.to_owned() })
    }

    /// Returns the address as it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.address
    }

    /// Returns the key under which equal addresses are one account: NFKC in lower case. Unique in the database.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn case_width_and_space_do_not_make_another_account() {
        let plain = Email::parse("Ada@Example.com").unwrap();
        assert_eq!(plain.as_str(), "Ada@Example.com");
        for same in ["ada@example.COM", " ada@example.com\n", "ａda@example.com"] {
            assert_eq!(Email::parse(same).unwrap().key(), plain.key(), "{same}");
        }
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for bad in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@localhost",
            "a b@example.com",
            "ada@exa mple.com",
            "Ada <ada@example.com>",
            "ada@[127.0.0.1]",
            "ada@example.com\u{0}",
            &format!("{}@example.com", "a".repeat(65)),
            "a@b@example.com",
        ] {
            assert_eq!(Email::parse(bad), Err(InvalidEmail), "{bad}");
        }
    }
}
