//! The audit log: sign-ins, refusals, ended sessions and deletions, as log lines with the target `audit` and a stable name in
//! `event`. It contains no secrets and no email addresses; users and sessions are named by their ids.
//!
//! The span around each line has the request id, the client's address, and the same target: `RUST_LOG=audit=info` alone selects
//! the whole audit log.

/// Logs an event: its name, its fields, and a message.
macro_rules! audit {
    ($event:literal, $($field:tt)+) => {
        tracing::info!(target: "audit", event = $event, $($field)+)
    };
}

pub(super) use audit;

/// Logs that an access token, or a token in the path of Uppy's calls, was rejected for this reason.
pub fn log_refused_token(reason: &str) {
    audit!("token_refused", reason, "refused an access token");
}
