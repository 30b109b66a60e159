//! Fuzzes short texts of requests: email addresses, digests, ThumbHashes, idempotency keys, ids, media types, captions; and the
//! numbers of a multipart upload. The input is parsed as each type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use valet::model::{
    Caption, ContentType, Email, IdempotencyKey, ImageId, PartChecksums, PartLayout, SessionId, Sha256, ThumbHash, UserId,
};

fuzz_target!(|bytes: &[u8]| {
    let text = &*String::from_utf8_lossy(bytes);
    if let Ok(email) = Email::parse(text) {
        let stored = email.as_str();
        assert!(stored.len() <= 254 && stored == text.trim());
        assert!(!stored.contains(|c: char| c.is_control() || c.is_whitespace()), "{stored:?}");
        assert!(stored.matches('@').count() >= 1 && !email.key().is_empty());
        let again = Email::parse(stored).expect("a stored address is parsed again");
        assert_eq!((again.as_str(), again.key()), (stored, email.key()));
        assert_eq!(email.key(), email.key().to_lowercase(), "addresses of different case have one key");
        assert_eq!(format!("{email:?}"), "Email(…)", "an address is not logged");
    }
    if let Ok(key) = IdempotencyKey::parse(text) {
        let stored = key.as_str();
        assert!((1..=255).contains(&stored.len()) && stored.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert_eq!(IdempotencyKey::parse(stored).as_ref(), Ok(&key), "a stored key is parsed as itself");
        assert_eq!(IdempotencyKey::parse(&format!("\"{stored}\"")), Ok(key), "a key may have the quotes of the IETF draft");
    }
    // Each value has exactly one accepted text.
    if let Ok(digest) = Sha256::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(hash) = ThumbHash::parse(text) {
        assert_eq!(hash.to_string(), text);
    }
    if let Some(id) = ImageId::parse(text) {
        assert_eq!(id.to_string(), text);
        assert_eq!(UserId::parse(text).map(|id| id.to_string()).as_deref(), Some(text));
        assert_eq!(SessionId::parse(text).map(|id| id.to_string()).as_deref(), Some(text));
    }
    if let Some(kind) = ContentType::parse(text) {
        // Aliases such as `image/jpg` are parsed as the registered type.
        assert_eq!(ContentType::parse(kind.as_str()), Some(kind));
    }
    if let Ok(Some(caption)) = Caption::parse(text) {
        assert!(caption.as_str() == text && text.chars().count() <= Caption::MAX_CHARS && !text.contains('\0'));
    }
    // The size and the part size of a multipart upload.
    if let Some((size, part_size)) =
        bytes.first_chunk::<16>().map(|all| u128::from_be_bytes(*all)).map(|n| ((n >> 64) as u64, n as u64))
    {
        for part_size in [part_size, PartLayout::part_size_for(size)] {
            let Some(parts) = PartLayout::new(size, part_size, PartChecksums::None) else { continue };
            let count = parts.part_count();
            assert!((1..=PartLayout::MAX_PARTS).contains(&count));
            let last = parts.part_length(count).expect("there is a last part");
            assert!(last >= 1 && last <= part_size);
            assert_eq!(u64::from(count - 1) * part_size + last, size, "the lengths of the parts add up to the size");
            assert_eq!((parts.part_length(0), parts.part_length(count + 1)), (None, None));
        }
    }
});
