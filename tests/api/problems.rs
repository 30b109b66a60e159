//! Every error is a problem, whoever raised it, and none repeats what the caller sent.

mod bodies;
mod cursors;
mod requests;

use super::app::Answer;

/// Sent wherever a caller can put something; never to be seen again.
pub const CANARY: &str = "canary-7f3a";

/// Holds an answer against status and code; that it is a well-formed, documented problem was checked on its way.
fn refused(answer: &Answer, problem: (u16, &str), what: &str) {
    assert_eq!(answer.problem(), problem, "{what}: {answer:?}");
    says_nothing(answer, what);
}

fn says_nothing(answer: &Answer, what: &str) {
    assert!(!answer.text.contains("canary"), "{what}: {}", answer.text);
    let headers = format!("{:?}", answer.headers);
    assert!(!headers.contains("canary"), "{what}: {headers}");
}
