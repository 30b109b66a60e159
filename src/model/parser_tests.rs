//! Property tests of the parsers of digests, ThumbHashes, ids, idempotency keys, file names and email addresses: hostile text never
//! panics, and accepted values parse to themselves again.
#![allow(clippy::unwrap_used)]

use proptest::{collection::vec, prelude::*};

use super::text_strategies::{any_text, mutated};
use super::*;

/// Generates arbitrary text, and mutations of valid text.
fn text_near(valid: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop_oneof![any_text(), valid.prop_flat_map(mutated)]
}

/// Generates the base64 of a number of bytes in this range.
fn base64_of(bytes: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    vec(any::<u8>(), bytes).prop_map(|bytes| STANDARD.encode(bytes))
}

proptest! {
    /// A digest has one textual form: accepted text is canonical to the last bit.
    #[test]
    fn a_digest_has_one_text(text in text_near(base64_of(32..33))) {
        if let Ok(digest) = Sha256::parse(&text) {
            prop_assert_eq!(digest.to_string(), text);
        }
    }

    #[test]
    fn a_thumb_hash_has_one_text(text in text_near(base64_of(1..33))) {
        if let Ok(hash) = ThumbHash::parse(&text) {
            prop_assert_eq!(hash.to_string(), text);
        }
    }

    #[test]
    fn an_id_has_one_text(text in text_near(any::<[u8; 16]>().prop_map(|bytes| ImageId::from_bytes(bytes).to_string()))) {
        if let Some(id) = ImageId::parse(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn an_idempotency_key_is_read_again_as_itself(text in text_near("[ \"]{0,2}[!-~]{0,254}[ \"]{0,2}")) {
        if let Ok(key) = IdempotencyKey::parse(&text) {
            prop_assert!(key.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)) && key.as_str().len() <= 255);
            prop_assert_eq!(IdempotencyKey::parse(key.as_str()), Ok(key));
        }
    }

    #[test]
    fn a_file_name_is_read_again_as_itself(text in text_near("[ ./\\\\]{0,3}[ -~é\u{301}\u{200d}]{0,260}")) {
        if let Ok(name) = FileName::parse(&text) {
            prop_assert!(!name.as_str().contains(['/', '\\', '\r', '\n', '\0']) && name.as_str().len() <= FileName::MAX_BYTES);
            let header = name.content_disposition();
            prop_assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{}", header);
            prop_assert_eq!(header.matches('"').count(), 2);
            prop_assert_eq!(FileName::parse(name.as_str()), Ok(name));
        }
    }

    #[test]
    fn an_address_is_read_again_as_itself(text in text_near("[ A-Za-zé.+ａ]{1,12}@[a-zA-Z.-]{1,12}\\.[a-z]{1,3}")) {
        if let Ok(email) = Email::parse(&text) {
            let again = Email::parse(email.as_str()).unwrap();
            prop_assert_eq!((again.as_str(), again.key()), (email.as_str(), email.key()));
            prop_assert!(!email.as_str().contains(|c: char| c.is_control() || c.is_whitespace()));
        }
    }
}
