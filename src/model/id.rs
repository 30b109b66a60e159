//! Identifiers: UUIDs, opaque to clients, written in the hyphenated lower-case form everywhere.

use std::fmt;

use uuid::Uuid;

/// Declares a type of identifiers.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Returns a fresh identifier: UUIDv7 (RFC 9562), so that indexes grow at one end.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// Parses the form that this program writes, of 36 characters. Returns `None` for other text, which callers report as
            /// "not found".
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let id = Uuid::try_parse(text).ok()?;
                (text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase())).then_some(Self(id))
            }

            /// Returns the sixteen bytes, for cursors and hashes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Returns the identifier of these sixteen bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

identifier!(
    /// A user: `users._id`, and the `sub` of an access token.
    UserId
);
identifier!(
    /// An image: `images._id`, and the last segment of its object's key.
    ImageId
);
identifier!(
    /// A session: `sessions._id`, and the `sid` of an access token.
    SessionId
);
identifier!(
    /// A step of an image's reservation: `images.lastStep`, and `step` of an entry in `users.settling`.
    StepId
);
identifier!(
    /// A deployment: one bucket and one database that belong together. Both store it.
    DeploymentId
);
identifier!(
    /// An event: `outbox.id` of an image or a user, and the `webhook-id` of its messages.
    EventId
);

identifier!(
    /// A service key: `serviceKeys._id`, and the part of the key that is not secret.
    ServiceKeyId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_read() {
        let id = ImageId::new();
        let text = id.to_string();
        assert_eq!(ImageId::parse(&text), Some(id));
        for other in [text.to_uppercase(), text.replace('-', ""), format!("{{{text}}}"), String::new(), "x".repeat(36)] {
            assert_eq!(ImageId::parse(&other), None, "{other}");
        }
    }
}
