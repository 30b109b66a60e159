//! The audit log: who came in, who was refused, what was ended and deleted; lines with the target `audit` and a stable name in
//! `event`. Never a secret, never an address of mail: users and sessions by their ids.
//!
//! The request's id and the client's address are in the span around a line, which has the same target: `RUST_LOG=audit=info`
//! alone gives the whole audit log.

/// Writes an event: its name, its fields, its words for people.
macro_rules! audit {
    ($event:literal, $($field:tt)+) => {
        tracing::info!(target: "audit", event = $event, $($field)+)
    };
}

pub(super) use audit;

/// An access token, or one in a path of Uppy's, that proved nothing.
pub fn token_refused(reason: &str) {
    audit!("token_refused", reason, "an access token was refused");
}
