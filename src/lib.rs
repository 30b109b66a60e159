//! Valet signs URLs of a private S3 bucket, each for one file and a short time: clients upload straight to the bucket, confirm, and
//! read their gallery through presigned URLs.
//!
//! Imports point down: `main → server → http → domain → store → model`, with [`signer`] beside [`model`], both pure.
//!
//! - [`config`]: settings, read once. [`telemetry`]: logs and traces; every module may write them.
//! - [`server`]: runs the listeners and background tasks, and stops them. [`state`]: state that requests share, below [`http`].
//! - [`http`]: requests and responses. Does not use the crates of MongoDB and AWS. The gallery page it serves is `src/web`.
//! - [`domain`]: the use cases; decisions, with time as a parameter. Uses neither poem nor a database crate.
//! - [`store`]: documents and objects. Does not use poem.
//! - [`http_client`]: the HTTP client of OpenID Connect, `valet check` and the export of traces, below [`telemetry`] and [`store`].
//! - [`metrics`]: the process's metrics, which every module may record. [`signer`]: SigV4 presigning, pure. [`model`]: ids, names,
//!   images and states as types that hold only valid values, pure.
//! - `decoder`: the code of the child process that decodes an image, without any rights (feature `worker`).
//! - `dev`: the local stack, for development and tests (feature `dev`).

// Enables the pedantic lints that find bugs, in addition to those of Cargo.toml, and leaves out the stylistic ones. They apply to
// this library alone: not to the program, nor to `tests` and `benches`.
#![warn(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cloned_instead_of_copied,
    clippy::elidable_lifetime_names,
    clippy::fallible_impl_from,
    clippy::float_cmp,
    clippy::format_push_string,
    clippy::get_unwrap,
    clippy::if_not_else,
    clippy::implicit_clone,
    clippy::inefficient_to_string,
    clippy::large_types_passed_by_value,
    clippy::manual_let_else,
    clippy::map_unwrap_or,
    clippy::match_wildcard_for_single_variants,
    clippy::mem_forget,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::rc_mutex,
    clippy::redundant_closure_for_method_calls,
    clippy::ref_option,
    clippy::return_self_not_must_use,
    clippy::semicolon_if_nothing_returned,
    clippy::string_add_assign,
    clippy::unchecked_time_subtraction,
    clippy::unnested_or_patterns,
    clippy::unused_self,
    clippy::unwrap_in_result,
    clippy::used_underscore_binding,
    clippy::verbose_file_reads
)]

pub mod config;
#[cfg(feature = "worker")]
pub mod decoder;
#[cfg(feature = "dev")]
pub mod dev;
pub mod domain;
pub mod http;
pub mod http_client;
pub mod metrics;
pub mod model;
pub mod server;
pub mod signer;
pub mod state;
pub mod store;
pub mod telemetry;
