//! Secrets of endpoints and signatures of messages, by Standard Webhooks 1.0.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};

/// Prefix of a secret's text form in Standard Webhooks.
const PREFIX: &str = "whsec_";

/// The secret of one generation of an endpoint. It is derived, never stored.
pub struct EndpointSecret(Vec<u8>);

impl fmt::Debug for EndpointSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointSecret(redacted)")
    }
}

impl EndpointSecret {
    /// Derives the secret of an endpoint's generation from the setting `WEBHOOK_SECRET`.
    #[must_use]
    pub fn derive(setting: &SecretString, endpoint: &str, generation: u32) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, setting.expose_secret().as_bytes());
        // The last four bytes are the generation, so no other endpoint and generation give the same text.
        let text = [b"webhook\0", endpoint.as_bytes(), &generation.to_be_bytes()].concat();
        Self(hmac::sign(&key, &text).as_ref().to_vec())
    }

    /// Parses the form `whsec_…` of a secret of 24 to 64 bytes. Returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// Returns the form that receivers are configured with: `whsec_…`.
    #[must_use]
    pub fn expose(&self) -> SecretString {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0)).into()
    }

    /// Returns the signature of a text in the form of Standard Webhooks.
    fn sign(&self, text: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(&key, text)))
    }
}

/// The part of an attempt that is signed. `id` contains no dot.
#[derive(Debug, Clone, Copy)]
pub struct SignedContent<'a> {
    /// The header `webhook-id`, the same in all attempts.
    pub id: &'a str,
    /// The header `webhook-timestamp`: Unix seconds of this attempt.
    pub timestamp: i64,
    /// The body, exactly as it is sent.
    pub body: &'a [u8],
}

impl SignedContent<'_> {
    /// Returns the signed text: id, timestamp and body.
    fn text(&self) -> Vec<u8> {
        [format!("{}.{}.", self.id, self.timestamp).as_bytes(), self.body].concat()
    }

    /// Returns the header `webhook-signature`: one signature for each secret, several during a rotation.
    #[must_use]
    pub fn header(&self, secrets: &[EndpointSecret]) -> String {
        let text = self.text();
        secrets.iter().map(|secret| secret.sign(&text)).collect::<Vec<_>>().join(" ")
    }

    /// Returns whether a header `webhook-signature` has a signature by this secret.
    #[must_use]
    pub fn has_signature_by(&self, header: &str, secret: &EndpointSecret) -> bool {
        let text = self.text();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
        let signatures = header.split(' ').filter_map(|entry| BASE64_STANDARD.decode(entry.strip_prefix("v1,")?).ok());
        signatures.into_iter().any(|signature| hmac::verify(&key, &text, &signature).is_ok())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;

    /// Returns a published test vector: a secret and a message.
    fn vector() -> (EndpointSecret, SignedContent<'static>) {
        let secret = EndpointSecret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        (secret, SignedContent { id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", timestamp: 1_649_367_553, body: BODY })
    }

    #[test]
    fn signature_equals_the_published_vector() {
        let (secret, signed) = vector();
        assert_eq!(signed.header(&[secret]), "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn rotation_sends_a_signature_of_each_secret() {
        let setting = SecretString::from("0123456789abcdef0123456789abcdef");
        let secret = |generation| EndpointSecret::derive(&setting, "a", generation);
        let signed = vector().1;
        let (new, old) = (signed.header(&[secret(2)]), signed.header(&[secret(1)]));
        assert_ne!(new, old, "generations have different secrets");
        assert_eq!(signed.header(&[secret(2), secret(1)]), format!("{new} {old}"));
    }

    #[test]
    fn only_the_signature_of_these_bytes_by_this_secret_verifies() {
        let (secret, signed) = vector();
        let header = format!("v1,AAAA v1a,AAAA {}", signed.header(&[vector().0]));
        assert!(signed.has_signature_by(&header, &secret));
        let other = EndpointSecret::derive(&"0123456789abcdef0123456789abcdef".into(), "a", 1);
        assert!(!signed.has_signature_by(&header, &other));
        for changed in [
            SignedContent { id: "x", ..signed },
            SignedContent { timestamp: 0, ..signed },
            SignedContent { body: b"{}", ..signed },
        ] {
            assert!(!changed.has_signature_by(&header, &secret), "{changed:?}");
        }
        for bad in ["", "v1,", "v1", " ", "v2,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="] {
            assert!(!signed.has_signature_by(bad, &secret), "{bad}");
        }
    }

    #[test]
    fn exposed_secret_is_parsed_and_debug_hides_it() {
        let secret = EndpointSecret::derive(&"0123456789abcdef0123456789abcdef".into(), "a", 1);
        let text = secret.expose();
        assert_eq!(EndpointSecret::parse(text.expose_secret()).unwrap().0, secret.0);
        assert_eq!(format!("{secret:?}"), "EndpointSecret(redacted)");
        for bad in ["", "whsec_", "whsec_AAAA", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_*"] {
            assert!(EndpointSecret::parse(bad).is_none(), "{bad}");
        }
    }
}
