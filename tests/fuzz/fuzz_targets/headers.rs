//! Fuzzes request headers that the server parses: media types, codings, entity tags. The input is a header's value.
#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use valet::http::fuzzing::{accepts_gzip, is_json, is_tag_listed};

/// Entity tag of a page.
const TAG: &str = "W/\"8XQm0o1pTq2dQ0Y7wJ3v\"";

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.append(header::ACCEPT_ENCODING, value.clone());
    let alone = accepts_gzip(&headers);
    assert!(!alone || bytes.iter().any(|byte| matches!(byte, b'z' | b'Z' | b'*')), "gzip was not requested");
    // RFC 9110 section 5.3: several fields are one list; gzip's own weight applies, whatever else the list contains.
    headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"));
    assert!(!accepts_gzip(&headers), "a later field excludes gzip");

    let Ok(text) = value.to_str() else { return };
    if is_json(text) {
        let essence = text.split(';').next().expect("split gives one").trim().to_ascii_lowercase();
        assert!(essence.starts_with("application/") && essence.ends_with("json"));
    }
    if is_tag_listed(text, TAG) {
        assert!(text.trim() == "*" || text.contains(TAG.trim_start_matches("W/")), "the tag of another page matches");
    }
    assert!(is_tag_listed(&format!("{text},{TAG}"), TAG), "the tag matches in a list");
});
