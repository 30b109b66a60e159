//! Checks I11: no secret is stored or logged anywhere, and ended sessions have no records.

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, evidence::Evidence, timeline::Timelines};
use crate::{files::sha256, servers::JWT_SECRET, workload::users::MARKER};

/// Shortest run of characters that may be a token; ids have 36.
const TOKEN: usize = 40;

pub fn judge(evidence: &Evidence, timelines: &Timelines, report: &mut Report) {
    let secrets = &evidence.record.secrets;
    for document in &evidence.dump {
        search(document, secrets, "the database", report);
    }
    for object in &evidence.objects {
        search(&object.metadata, secrets, "an object's metadata", report);
    }
    for line in evidence.log.lines() {
        search(line, secrets, "the log", report);
        report.require(!line.contains("$argon2"), 11, || "a password's hash is in the log".to_owned());
    }
    for session in &evidence.sessions {
        let text = |field: &str| session.get_str(field).unwrap_or_default();
        let (id, user) = (text("_id"), text("user"));
        report.require(!timelines.ended_sessions.contains(id), 11, || format!("the ended session {id} is stored"));
        let has_user = evidence.users.iter().any(|known| known.get_str("_id").ok() == Some(user));
        report.require(has_user, 11, || format!("the session {id} belongs to {user}, who does not exist"));
    }
    // Each session has its own token: two sessions with one hash would share a token.
    let hashes: BTreeSet<_> = evidence.sessions.iter().map(|session| format!("{:?}", session.get("tokenHash"))).collect();
    report.require(hashes.len() == evidence.sessions.len(), 11, || "two sessions have one refresh token".to_owned());
}

fn search(text: &str, secrets: &BTreeMap<String, String>, place: &str, report: &mut Report) {
    for (known, kind) in [(MARKER, "a password"), (JWT_SECRET, "the signing secret"), ("X-Amz-Signature", "a signed URL")] {
        report.require(!text.contains(known), 11, || format!("{kind} is in {place}: {}", beginning(text)));
    }
    let part_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    for run in text.split(|c| !part_of_token(c)).filter(|run| run.len() >= TOKEN) {
        if let Some(kind) = secrets.get(&sha256(run.as_bytes())) {
            report.add(11, format!("{kind} is in {place}: {}", beginning(text)));
        }
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(60).collect()
}
