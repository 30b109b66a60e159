//! Characters that names must not contain.

/// Returns whether the character is C0, C1, DEL, a line or paragraph separator, or changes the direction of the text after it:
/// U+202A to U+202E and U+2066 to U+2069 make `gpj.exe` read as `exe.jpg`.
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}
