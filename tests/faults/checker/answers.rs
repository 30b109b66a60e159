//! Checks I13: each failed call was repeated until it had a final answer, and failures reveal no internals.

use std::collections::BTreeMap;

use super::{Report, evidence::Evidence};
use crate::journal::{Call, Exchange};

/// Texts that no failing answer may contain: names of components, files and library errors.
const INTERNALS: [&str; 9] = ["mongo", "aws_", "panicked", "src/", ".rs:", "127.0.0.1", "stack", "kind:", "Error {"];

/// Checks I13.
pub fn check(evidence: &Evidence, report: &mut Report) {
    // The last repetition of each call, by the number of its first request.
    let mut last: BTreeMap<u64, &Exchange> = BTreeMap::new();
    for op in &evidence.record.ops {
        let request = &op.request;
        // S3 answers PUT and GET; `records` compares the answers of probes.
        if matches!(request.call, Call::Put | Call::Get | Call::Probe) {
            continue;
        }
        last.insert(request.repeats.unwrap_or(request.op), op);
        let Some(answer) = &op.answer else { continue };
        let Some(status) = answer.status.filter(|status| *status >= 500) else { continue };
        let body = answer.body.as_deref().unwrap_or_default();
        let is_documented = matches!((status, answer.code.as_deref()), (503, Some(_)) | (504, Some(_)));
        report.require(is_documented, 13, || format!("call {} ({:?}) was answered {status}: {body}", request.op, request.call));
        let internal =
            INTERNALS.iter().copied().chain(evidence.internals.iter().map(String::as_str)).find(|word| body.contains(word));
        report.require(internal.is_none(), 13, || format!("the answer to call {} reveals internals: {body}", request.op));
    }
    for (first, op) in last {
        let status = op.answer.as_ref().and_then(|answer| answer.status);
        let definite = status.is_some_and(|status| !matches!(status, 503 | 504));
        report.require(definite, 13, || format!("call {first} ({:?}) never had a final answer: {status:?}", op.request.call));
    }
}
