//! Responses whose JSON is written directly into one buffer: for the gallery page, which is large and frequent.
//!
//! The type `T` of a [`RawJson`] documents the format for OpenAPI, as for every other response; tests compare the text with it.

use std::marker::PhantomData;

use poem::{IntoResponse, Response, http::header};
use poem_openapi::{
    payload::{Json, Payload},
    registry::{MetaSchemaRef, Registry},
    types::Type,
};
use time::{OffsetDateTime, UtcOffset};

/// JSON text in the format of `T`.
pub struct RawJson<T> {
    json: Vec<u8>,
    format: PhantomData<fn() -> T>,
}

impl<T> RawJson<T> {
    /// Wraps a text that is JSON in the format of `T`.
    pub fn new(json: Vec<u8>) -> Self {
        Self { json, format: PhantomData }
    }
}

impl<T: Type> Payload for RawJson<T> {
    const CONTENT_TYPE: &'static str = Json::<T>::CONTENT_TYPE;

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Send> IntoResponse for RawJson<T> {
    fn into_response(self) -> Response {
        Response::builder().header(header::CONTENT_TYPE, "application/json; charset=utf-8").body(self.json)
    }
}

/// Appends a string, escaped and quoted.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    // Most texts need no escapes. The check has no branches, so that the compiler compares several bytes at once.
    let is_plain = |byte: u8| (byte >= b' ') & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(out, text);
    }
}

/// Appends a number.
pub fn push_number(out: &mut Vec<u8>, number: u64) {
    let _ = serde_json::to_writer(out, &number);
}

/// Appends a finite number with a fraction.
pub fn push_decimal(out: &mut Vec<u8>, number: f64) {
    let _ = serde_json::to_writer(out, &number);
}

/// Appends a time as a quoted string of RFC 3339, in UTC and whole seconds.
pub fn push_time(out: &mut Vec<u8>, at: OffsetDateTime) {
    let at = at.to_offset(UtcOffset::UTC);
    let year = u16::try_from(at.year()).unwrap_or_default();
    let mut text = *b"\"0000-00-00T00:00:00Z\"";
    let mut put_two_digits = |index: usize, n: u8| {
        text[index] = b'0' + n / 10;
        text[index + 1] = b'0' + n % 10;
    };
    put_two_digits(1, (year / 100 % 100) as u8);
    put_two_digits(3, (year % 100) as u8);
    put_two_digits(6, at.month().into());
    put_two_digits(9, at.day());
    put_two_digits(12, at.hour());
    put_two_digits(15, at.minute());
    put_two_digits(18, at.second());
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{format_description::well_known::Rfc3339, macros::datetime};

    use super::*;

    proptest! {
        #[test]
        fn texts_are_escaped_as_by_serde(text in any::<String>(), controls in "[\\x00-\\x1f\"\\\\\u{7f}é]{0,4}", plain in "[ -~]{0,40}") {
            for text in [text, controls, plain] {
                let mut written = Vec::new();
                push_text(&mut written, &text);
                prop_assert_eq!(String::from_utf8(written).ok(), serde_json::to_string(&text).ok());
            }
        }
    }

    #[test]
    fn times_are_in_rfc_3339() {
        for at in [datetime!(2026-11-22 10:00 UTC), datetime!(1970-01-01 23:59:59 UTC), datetime!(9999-12-31 01:02:03 +04:30)] {
            let mut text = Vec::new();
            push_time(&mut text, at);
            let expected = at.to_offset(UtcOffset::UTC).format(&Rfc3339).map(|text| format!("\"{text}\""));
            assert_eq!(String::from_utf8(text).ok(), expected.ok());
        }
    }
}
