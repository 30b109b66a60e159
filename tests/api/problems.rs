//! Covers errors of every layer: each is a problem (RFC 9457), and none repeats the caller's values. `bodies` covers request
//! bodies, `cursors` the parameters of listings, `requests` everything else of a request.
//!
//! Routes: all.

mod bodies;
mod cursors;
mod requests;

use super::app::Answer;

/// Text that is sent in every field that a caller controls; must not appear in any answer.
pub const CANARY: &str = "canary-7f3a";

/// Asserts status and code of a rejected request, and that the answer repeats no value of the caller. `Caller::send` has already
/// compared the problem with the OpenAPI document.
fn assert_refused(answer: &Answer, problem: (u16, &str), case: &str) {
    assert_eq!(answer.problem(), problem, "{case}: {answer:?}");
    assert_no_canary(answer, case);
}

/// Asserts that an answer repeats no value of the caller.
fn assert_no_canary(answer: &Answer, case: &str) {
    assert!(!answer.text.contains("canary"), "{case}: {}", answer.text);
    let headers = format!("{:?}", answer.headers);
    assert!(!headers.contains("canary"), "{case}: {headers}");
}
