//! The integration tests: one binary, so that everything is linked once. Every test drives real servers from outside.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accounts;
mod app;
mod batch;
mod books;
mod check;
mod confirm;
mod contract;
mod cors;
mod crashes;
mod dev;
mod dev_mongod;
mod documented;
mod finalize;
mod gallery;
mod idempotency;
mod isolation;
mod local_s3;
mod model;
mod multipart;
mod oidc;
mod openapi;
mod orphans;
mod pages;
mod passwd;
mod previews;
mod problems;
mod process;
mod races;
mod requirements;
mod serve;
mod sessions;
mod sweeper;
mod throttling;
mod uploads;
