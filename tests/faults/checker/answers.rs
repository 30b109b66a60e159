//! Checks I13: each failed call was repeated until it had a final answer, and failures reveal no internals.

use std::collections::BTreeMap;

use super::{Report, evidence::Evidence};
use crate::journal::{Call, Exchange};

/// Texts that no answer may contain: names of components, files and library errors.
const INSIDE: [&str; 9] = ["mongo", "aws_", "panicked", "src/", ".rs:", "127.0.0.1", "stack", "kind:", "Error {"];

pub fn check(evidence: &Evidence, report: &mut Report) {
    let mut last: BTreeMap<u64, &Exchange> = BTreeMap::new();
    for op in &evidence.record.ops {
        let asked = &op.asked;
        if matches!(asked.call, Call::Put | Call::Get | Call::Probe) {
            continue;
        }
        last.insert(asked.repeats.unwrap_or(asked.op), op);
        let Some(answered) = &op.answered else { continue };
        let Some(status) = answered.status.filter(|status| *status >= 500) else { continue };
        let body = answered.body.as_deref().unwrap_or_default();
        let known = matches!((status, answered.code.as_deref()), (503, Some(_)) | (504, Some(_)));
        report.require(known, 13, || format!("call {} ({:?}) was answered {status}: {body}", asked.op, asked.call));
        let inside = INSIDE.iter().copied().chain(evidence.inside.iter().map(String::as_str)).find(|word| body.contains(word));
        report.require(inside.is_none(), 13, || format!("the answer to call {} reveals internals: {body}", asked.op));
    }
    for (first, op) in last {
        let status = op.answered.as_ref().and_then(|answered| answered.status);
        let definite = status.is_some_and(|status| !matches!(status, 503 | 504));
        report.require(definite, 13, || format!("call {first} ({:?}) never had a final answer: {status:?}", op.asked.call));
    }
}
