//! The use cases: decisions, without HTTP, MongoDB or AWS types, and with the time as a parameter.
//!
//! Errors are enums without HTTP; `http` maps them to problems.

pub mod account_deletion;
pub mod accounts;
pub mod app_users;
mod arrival_polling;
pub mod audit;
pub mod authentication;
pub mod capability_probing;
pub mod capture_backfill;
pub mod confirm;
pub mod content;
pub mod credentials;
pub mod deletion;
pub mod dependencies;
pub mod deployment;
pub mod doctor;
pub mod event_fan_out;
pub mod event_streams;
pub mod gallery;
mod generational_cache;
pub mod hash_pool;
pub mod identity_provider;
pub mod inspection;
pub mod known_networks;
mod late_transfers;
mod lifecycle;
pub mod multipart;
pub mod orphans;
mod password_checks;
pub mod password_rules;
mod permanent_failures;
mod polling;
#[cfg(feature = "worker")]
pub mod preview_worker;
mod previews;
pub mod recount;
mod refresh_token;
mod removal;
#[cfg(feature = "worker")]
pub mod rendering;
mod reservations;
mod s3_timeouts;
pub mod service_keys;
pub mod session_cache;
pub mod sessions;
pub mod shares;
pub mod store_capabilities;
pub mod store_notifications;
mod sweep_backoff;
pub mod sweeper;
pub mod throttle;
mod turns;
pub mod unavailable_upload;
pub mod uploads;
pub mod uppy;
pub mod user_administration;
mod valet;
pub mod webhooks;

/// Exposed to `tests/fuzz` only.
#[cfg(fuzzing)]
pub use refresh_token::RefreshToken;

pub use self::valet::Valet;
pub use crate::store::{StoreError, request_origin};

/// Objects of one user that are inspected concurrently by confirms, over all requests; also those that one request deletes
/// concurrently.
const MAX_S3_CALLS_PER_USER: usize = 16;

/// Pages without any readable record that one request for a list skips. The page after them is returned as it is.
const MAX_UNREADABLE_PAGES: usize = 20;

/// Returns the only result of a batch call that was made with one item.
fn single_result<T, E: From<StoreError>>(mut results: Vec<Result<T, E>>) -> Result<T, E> {
    results.pop().unwrap_or_else(|| Err(StoreError::Update("a batch call returned no result".to_owned()).into()))
}
