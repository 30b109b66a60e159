//! Fuzzes file names from clients, and the header that contains one. The input is a name.
#![no_main]

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use valet::model::{ContentType, FileName};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let Ok(name) = FileName::parse(&text) else { return };
    let kept = name.as_str();
    assert!((1..=FileName::MAX_BYTES).contains(&kept.len()));
    assert!(!kept.contains(['/', '\\']) && kept != "." && kept != "..", "a name is one segment of a path");
    assert!(!kept.chars().any(char::is_control), "no control character");
    assert!(!kept.contains(['\u{2028}', '\u{2029}']), "a name has no line separator");
    let is_direction_control = |c| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    assert!(!kept.chars().any(is_direction_control), "a name has no control of text direction");
    assert_eq!(FileName::parse(kept).as_ref(), Ok(&name), "a stored name is parsed as itself");
    if let Some(kind) = ContentType::by_extension(kept) {
        assert_eq!(ContentType::parse(kind.as_str()), Some(kind));
    }

    // RFC 6266: one header with one quoted string and one extended value; RFC 8187 gives the name back.
    let header = name.content_disposition();
    assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && HeaderValue::from_str(&header).is_ok());
    let rest = header.strip_prefix("attachment; filename=\"").expect("the disposition comes first");
    let (fallback, exact) = rest.split_once("\"; filename*=UTF-8''").expect("then both names");
    assert!(!fallback.contains(['"', '\\', '%']), "the quoted name has no quote and no escape");
    assert_eq!(fallback.chars().count(), kept.chars().count());
    let attr = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~%".contains(&byte);
    assert!(exact.bytes().all(attr), "the extended value has only the characters of RFC 8187");
    assert_eq!(percent_decode_str(exact).decode_utf8().expect("UTF-8"), kept);
});
