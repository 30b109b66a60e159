//! Fuzzes refresh tokens. The input is parsed as a token, and a token is made of its first 49 bytes.
#![no_main]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;
use valet::domain::RefreshToken;

/// Parses a token; asserts that each token has one text, and that `Debug` does not print it.
fn parse(text: &str) -> Option<RefreshToken> {
    let token = RefreshToken::parse(text)?;
    assert_eq!(token.expose().expose_secret(), text);
    assert_eq!(format!("{token:?}"), "RefreshToken(…)");
    Some(token)
}

fuzz_target!(|bytes: &[u8]| {
    parse(&String::from_utf8_lossy(bytes));
    let Some(raw) = bytes.first_chunk::<49>() else { return };
    let token = parse(&URL_SAFE_NO_PAD.encode(raw));
    assert_eq!(token.is_some(), raw[0] == 1, "only version 1 is accepted");
    let Some(token) = token else { return };
    assert_eq!(token.session().as_bytes()[..], raw[1..17]);
    let (salt, key) = ([raw[48]; 32], [raw[47]; 32]);
    let successor = token.successor(&salt, &key);
    assert_eq!(successor.session(), token.session());
    assert!(successor != token && successor.hash() != token.hash() && successor.was_issued_with(&key));
    assert_eq!(parse(successor.expose().expose_secret()), Some(successor), "a successor is parsed as itself");
});
