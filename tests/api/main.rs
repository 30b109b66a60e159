//! The integration tests: one binary, so that everything is linked once. Every test drives real servers from outside.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod account_deletion;
mod accounts;
mod app;
mod batch;
mod check;
mod confirm;
mod cors;
mod dev;
mod dev_mongod;
mod documented;
mod forged_tokens;
mod gallery;
mod idempotency;
mod isolation;
mod local_s3;
mod multipart;
mod oidc;
mod openapi;
mod orphans;
mod passwd;
mod problems;
mod process;
mod serve;
mod sessions;
mod sweeper;
mod throttling;
mod uploads;
