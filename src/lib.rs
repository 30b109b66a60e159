//! Valet hands out narrow, short-lived keys to a private S3 bucket: clients upload straight to it, confirm,
//! and read their gallery through presigned URLs.
//!
//! Imports point down: `main → app → http → domain → store → model`, with `signer` pure beside `model`.

pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
pub mod domain;
pub mod model;
pub mod signer;
pub mod store;
