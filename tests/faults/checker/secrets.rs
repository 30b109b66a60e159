//! Checks I11: no secret is stored or logged anywhere, and ended sessions have no records.

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, evidence::Evidence, timeline::Timelines};
use crate::{cluster::WEBHOOK_SECRET, files::sha256, servers::JWT_SECRET, workload::users::MARKER};

/// Shortest run of characters that may be a token; ids have 36.
const MIN_TOKEN_CHARS: usize = 40;

/// Checks I11.
pub fn check(evidence: &Evidence, timelines: &Timelines, report: &mut Report) {
    let secrets = Secrets { digests: &evidence.record.secrets, endpoint: &evidence.endpoint_secret, key: &evidence.key };
    for document in &evidence.dump {
        search(document, &secrets, "the database", report);
    }
    for object in &evidence.objects {
        search(&object.metadata, &secrets, "an object's metadata", report);
    }
    for line in evidence.log.lines() {
        search(line, &secrets, "the log", report);
        report.require(!line.contains("$argon2"), 11, || "a password's hash is in the log".to_owned());
    }
    for session in &evidence.sessions {
        let text = |field: &str| session.get_str(field).unwrap_or_default();
        let (id, user) = (text("_id"), text("user"));
        report.require(!timelines.ended_sessions.contains(id), 11, || format!("the ended session {id} is stored"));
        let has_user = evidence.users.iter().any(|known| known.get_str("_id").ok() == Some(user));
        report.require(has_user, 11, || format!("the session {id} belongs to {user}, who does not exist"));
    }
    // Two sessions with one hash would share a refresh token. Sessions of the app's users have none.
    let hashes: Vec<_> = evidence.sessions.iter().filter_map(|session| session.get("tokenHash")).collect();
    let distinct: BTreeSet<_> = hashes.iter().map(|hash| format!("{hash:?}")).collect();
    report.require(distinct.len() == hashes.len(), 11, || "two sessions have one refresh token".to_owned());
}

/// Secrets of this run.
struct Secrets<'a> {
    /// Kind of each secret, by its SHA-256.
    digests: &'a BTreeMap<String, String>,
    /// Signing secret of the webhook endpoint.
    endpoint: &'a str,
    /// Service key.
    key: &'a str,
}

/// Reports each secret that a text of this location contains.
fn search(text: &str, secrets: &Secrets<'_>, location: &str, report: &mut Report) {
    let known = [
        (MARKER, "a password"),
        (JWT_SECRET, "the signing secret"),
        ("X-Amz-Signature", "a signed URL"),
        (WEBHOOK_SECRET, "the secret of webhooks"),
        (secrets.endpoint.trim_start_matches("whsec_"), "the secret of an endpoint"),
        (secrets.key.splitn(3, '_').nth(2).unwrap_or_default(), "a service key"),
    ];
    for (secret, kind) in known.into_iter().filter(|(secret, _)| !secret.is_empty()) {
        report.require(!text.contains(secret), 11, || format!("{kind} is in {location}: {}", beginning(text)));
    }
    let is_in_tokens = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    for run in text.split(|c| !is_in_tokens(c)).filter(|run| run.len() >= MIN_TOKEN_CHARS) {
        if let Some(kind) = secrets.digests.get(&sha256(run.as_bytes())) {
            report.add(11, format!("{kind} is in {location}: {}", beginning(text)));
        }
    }
}

/// Returns the first characters of a text, for a report.
fn beginning(text: &str) -> String {
    text.chars().take(60).collect()
}
