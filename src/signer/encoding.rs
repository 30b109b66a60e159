//! Encodings of SigV4 (percent-encoding, hexadecimal, decimal, time of day), appended to a buffer without allocating.

use time::OffsetDateTime;

/// Returns whether SigV4's `UriEncode` leaves a byte as it is: the unreserved characters of RFC 3986. Without branches, so that
/// [`push_path`] compares several bytes at once.
const fn is_plain(byte: u8) -> bool {
    let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let is_digit = byte.wrapping_sub(b'0') < 10;
    is_letter | is_digit | (byte == b'-') | (byte == b'.') | (byte == b'_') | (byte == b'~')
}

/// [`is_plain`] of each byte.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = u8::MAX;
    while byte > 0 {
        plain[byte as usize] = is_plain(byte);
        byte -= 1;
    }
    plain
};

/// Returns whether SigV4's `UriEncode` leaves a text as it is.
pub(super) fn is_unreserved(text: &str) -> bool {
    text.bytes().all(is_plain)
}

/// Appends SigV4's `UriEncode` of a value of the query: every byte except RFC 3986's unreserved ones is encoded once, space as
/// `%20`.
pub(super) fn push_component(out: &mut Vec<u8>, text: &str) {
    push_encoded(out, text, |byte| PLAIN[usize::from(byte)]);
}

/// Appends SigV4's `UriEncode` of a path, which keeps `/`.
pub(super) fn push_path(out: &mut Vec<u8>, text: &str) {
    // Almost all keys are plain, and this check is faster than the search for the first byte that is not.
    if text.bytes().fold(true, |all, byte| all & (is_plain(byte) | (byte == b'/'))) {
        out.extend_from_slice(text.as_bytes());
    } else {
        push_encoded(out, text, |byte| PLAIN[usize::from(byte)] || byte == b'/');
    }
}

/// Appends the text with every byte percent-encoded that is not plain.
fn push_encoded(out: &mut Vec<u8>, text: &str, is_plain: impl Fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut rest = text.as_bytes();
    // Copies runs of plain bytes at once: most text is plain, or has long plain runs.
    while let Some(at) = rest.iter().position(|byte| !is_plain(*byte)) {
        let byte = rest[at];
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends a digest in lower-case hexadecimal.
pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    // Without a table, so that several digits are computed at once.
    let digit = |n: u8| n + b'0' + (b'a' - b'9' - 1) * u8::from(n > 9);
    // As long as a SHA-256 in hexadecimal.
    let mut text = [[0; 2]; 32];
    for chunk in bytes.chunks(text.len()) {
        for (pair, byte) in text.iter_mut().zip(chunk) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        out.extend_from_slice(text[..chunk.len()].as_flattened());
    }
}

/// Appends a number in decimal.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    // The largest number has 20 digits.
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

/// Appends the time of day, `HHMMSS`.
pub(super) fn push_clock(out: &mut Vec<u8>, at: OffsetDateTime) {
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    let digits = [hour / 10, hour % 10, minute / 10, minute % 10, second / 10, second % 10];
    out.extend_from_slice(&digits.map(|digit| b'0' + digit));
}
