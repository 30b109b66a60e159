//! Fuzzes file names from clients, and the header that contains one. The input is a name.
#![no_main]

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use valet::model::{ContentType, FileName};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let Ok(name) = FileName::parse(&text) else { return };
    let stored = name.as_str();
    assert!((1..=FileName::MAX_BYTES).contains(&stored.len()));
    assert!(!stored.contains(['/', '\\']) && stored != "." && stored != "..", "a name is one segment of a path");
    assert!(!stored.chars().any(char::is_control), "no control character");
    assert!(!stored.contains(['\u{2028}', '\u{2029}']), "a name has no line separator");
    let is_direction_control = |c| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    assert!(!stored.chars().any(is_direction_control), "a name has no control of text direction");
    assert_eq!(FileName::parse(stored).as_ref(), Ok(&name), "a stored name is parsed as itself");
    if let Some(kind) = ContentType::by_extension(stored) {
        assert_eq!(ContentType::parse(kind.as_str()), Some(kind));
    }

    // RFC 6266: one header with one quoted string and one extended value; RFC 8187 gives the name back.
    let header = name.content_disposition();
    assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && HeaderValue::from_str(&header).is_ok());
    let rest = header.strip_prefix("attachment; filename=\"").expect("the disposition comes first");
    let (fallback, exact) = rest.split_once("\"; filename*=UTF-8''").expect("then both names");
    assert!(!fallback.contains(['"', '\\', '%']), "the quoted name has no quote and no escape");
    assert_eq!(fallback.chars().count(), stored.chars().count());
    let is_attr_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~%".contains(&byte);
    assert!(exact.bytes().all(is_attr_char), "the extended value has only the characters of RFC 8187");
    assert_eq!(percent_decode_str(exact).decode_utf8().expect("UTF-8"), stored);
});
