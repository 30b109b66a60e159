//! Valet under faults: real servers as processes, a load of clients that keep a journal, and a checker that believes neither.
//! README.md beside this file says what is run how.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod check;
#[path = "../support/counts.rs"]
mod counts;
#[path = "../support/files.rs"]
mod files;
mod journal;
mod kills;
mod load;
mod odd_answers;
mod pauses;
mod plants;
#[path = "../support/program.rs"]
#[allow(dead_code, reason = "the other test binary needs all of it")]
mod program;
mod proxy;
mod replica_set;
mod restarts;
mod rows;
mod s3_faults;
#[path = "../support/servers.rs"]
#[allow(dead_code, reason = "the other test binary needs all of it")]
mod servers;
mod shop;
mod tls;
#[allow(dead_code, reason = "rows of the fault matrix need all of it")]
mod world;
