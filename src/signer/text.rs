//! The text of signatures, appended to a buffer without allocating.

use time::OffsetDateTime;

/// Which bytes SigV4's `UriEncode` leaves as they are: RFC 3986's unreserved ones.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = u8::MAX;
    while byte > 0 {
        plain[byte as usize] = matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~');
        byte -= 1;
    }
    plain
};

/// SigV4's `UriEncode`: every byte but RFC 3986's unreserved ones, space as `%20`, and `/` kept in paths, encoded once.
pub(super) fn encode(out: &mut Vec<u8>, text: &str, keep_slash: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: u8| PLAIN[usize::from(byte)] || (keep_slash && byte == b'/');
    let mut rest = text.as_bytes();
    // Most text is plain to its end, or in long runs.
    while let Some(at) = rest.iter().position(|byte| !is_plain(*byte)) {
        let byte = rest[at];
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// A digest in lower-case hexadecimal.
pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for chunk in bytes.chunks(text.len() / 2) {
        for (pair, byte) in text.chunks_exact_mut(2).zip(chunk) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        out.extend_from_slice(&text[..chunk.len() * 2]);
    }
}

/// A number in decimal.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The time of day, `HHMMSS`.
pub(super) fn push_clock(out: &mut Vec<u8>, at: OffsetDateTime) {
    for n in [at.hour(), at.minute(), at.second()] {
        out.extend_from_slice(&[b'0' + n / 10, b'0' + n % 10]);
    }
}
