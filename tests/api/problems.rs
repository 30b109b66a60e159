//! Covers errors of every layer: each is a problem (RFC 9457), and none repeats the caller's values.
//!
//! Routes: all.

mod bodies;
mod cursors;
mod requests;

use super::app::Answer;

/// Sent in every field that a caller controls; must not appear in any answer.
pub const CANARY: &str = "canary-7f3a";

/// Asserts status and code; `send` has already compared the problem with the OpenAPI document.
fn refused(answer: &Answer, problem: (u16, &str), what: &str) {
    assert_eq!(answer.problem(), problem, "{what}: {answer:?}");
    says_nothing(answer, what);
}

/// Asserts that an answer repeats no value of the caller.
fn says_nothing(answer: &Answer, what: &str) {
    assert!(!answer.text.contains("canary"), "{what}: {}", answer.text);
    let headers = format!("{:?}", answer.headers);
    assert!(!headers.contains("canary"), "{what}: {headers}");
}
