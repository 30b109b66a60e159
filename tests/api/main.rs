//! The integration tests: one binary, so that everything is linked once. Every test drives real servers from outside.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accounts;
mod app;
mod check;
mod confirm;
mod dev_mongod;
mod documented;
mod gallery;
mod local_s3;
mod orphans;
mod sweeper;
mod uploads;
