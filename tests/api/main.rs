//! The integration tests: one binary, so that everything is linked once. Every test drives real servers from outside.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dev_mongod;
mod local_s3;
