//! Fault tests: real servers as processes, a load of clients that keep a journal, and a checker that verifies MongoDB and the
//! bucket against the journal. README.md beside this file lists the tests and the commands that run them.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod checker;
mod checker_self_tests;
#[allow(dead_code, reason = "only the fault scenarios need all of it")]
mod cluster;
#[path = "../support/counts.rs"]
mod counts;
mod event_streams;
#[path = "../support/files.rs"]
mod files;
mod journal;
mod kills;
mod misbehaving_store;
mod pauses;
#[path = "../support/program.rs"]
#[allow(dead_code, reason = "the API tests use the rest")]
mod program;
mod proxy;
mod replica_set;
mod restarts;
mod s3_faults;
mod scenarios;
#[path = "../support/servers.rs"]
#[allow(dead_code, reason = "the API tests use the rest")]
mod servers;
mod single_server;
#[path = "../support/skipping.rs"]
mod skipping;
mod tls;
#[path = "../support/webhook_receiver.rs"]
#[allow(dead_code, reason = "the API tests use the rest")]
mod webhook_receiver;
mod workload;
