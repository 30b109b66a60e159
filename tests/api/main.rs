//! The integration tests: one binary, so that everything is linked once. Every test drives real servers from outside.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod account_crashes;
mod account_deletion;
mod accounts;
mod app;
mod bars;
mod batch;
mod books;
mod budgets;
mod check;
mod confirm;
mod contract;
mod cors;
#[path = "../support/counts.rs"]
mod counts;
mod crashes;
mod damaged;
mod deployment;
mod dev;
mod dev_mongod;
mod documented;
mod fairness;
#[path = "../support/files.rs"]
mod files;
mod finalize;
mod forged_tokens;
mod gallery;
mod hostile;
mod idempotency;
mod images;
mod isolation;
mod local_s3;
mod model;
mod multipart;
mod odd_stores;
mod oidc;
mod openapi;
mod orphans;
#[cfg(feature = "otlp")]
mod otlp;
mod outages;
mod pages;
mod pairs;
mod passwd;
mod phones;
mod pipes;
mod previews;
mod problems;
mod process;
#[path = "../support/program.rs"]
#[allow(dead_code, reason = "the other test binary needs all of it")]
mod program;
mod races;
mod redeclared;
mod relay;
mod requests;
mod requirements;
mod reservations;
mod safety;
mod serve;
#[path = "../support/servers.rs"]
mod servers;
mod sessions;
mod shape;
mod stores;
mod sweeper;
mod switches;
mod throttling;
#[path = "../faults/tls/mod.rs"]
mod tls;
mod unfit;
mod unsigned;
mod uploads;
mod uppy;
