//! The integration tests: one binary, so that everything is linked once.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dev_mongod;
