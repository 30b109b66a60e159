//! Valet hands out narrow, short-lived keys to a private S3 bucket: clients upload straight to it, confirm, and read their
//! gallery through presigned URLs.
//!
//! Imports point down: `main → app → http → domain → store → model`, with [`signer`] pure beside [`model`].
//!
//! - [`config`]: settings, read once. [`telemetry`]: logs and traces; every room may write them.
//! - [`app`]: the parts connected; serve and stop.
//! - [`http`]: what clients send and see. Never names mongodb or aws. The gallery page it serves is `src/web`.
//! - [`domain`]: the use cases; decisions, with time as a parameter. Names neither poem nor any database.
//! - [`store`]: documents and objects. Never names poem.
//! - [`metrics`]: what the process counts; every room may record. [`signer`]: SigV4 presigning, pure. [`model`]: the vocabulary, pure.
//! - `dev`: the local stack, for development and tests (feature `dev`).

pub mod app;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
pub mod domain;
pub mod http;
pub mod metrics;
pub mod model;
pub mod signer;
pub mod store;
pub mod telemetry;
