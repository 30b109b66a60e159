//! Integration tests, in one binary so that everything is linked once. Nearly every test sends requests to real servers.
//! tests/README.md describes the helpers and how to run single tests.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod account_crashes;
mod account_deletion;
mod account_keys;
mod accounts;
mod admin_users;
mod app;
mod app_tokens;
mod audit;
mod batch;
mod bucket_pairing;
mod budgets;
mod cancelling;
mod closed_pipes;
mod confirm;
mod content_inspection;
mod cors;
#[path = "../support/counts.rs"]
mod counts;
mod crashes;
mod damaged_pages;
mod damaged_records;
mod databases;
mod deployment;
mod dev;
mod dev_mongod;
mod doctor;
mod event_streams;
mod example_requests;
mod fairness;
mod feature_switches;
#[path = "../support/files.rs"]
mod files;
mod forged_tokens;
mod gallery;
#[path = "../support/heif_commands.rs"]
mod heif_commands;
mod hostile_clients;
mod idempotency;
mod imgproxy;
mod isolation;
mod local_s3;
mod misbehaving_stores;
mod mobile_clients;
mod model;
mod mongodb_relay;
mod multipart;
mod oidc;
mod openapi;
mod orphans;
#[cfg(feature = "otlp")]
mod otlp;
mod outages;
mod outbox;
mod passwd;
mod performance_limits;
#[cfg(feature = "worker")]
mod preview_worker;
mod previews;
mod problems;
mod process_client;
#[path = "../support/program.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
mod program;
mod races;
mod recount;
mod redeclared_uploads;
mod relay;
mod requirements;
mod reservations;
mod response_validation;
mod s3_finalize;
mod security_headers;
mod serve;
#[path = "../support/servers.rs"]
mod servers;
mod service_keys;
mod sessions;
#[path = "../support/skipping.rs"]
mod skipping;
mod static_files;
mod store_notifications;
mod store_rules;
mod sweeper;
mod taken;
mod targeting;
mod throttling;
#[path = "../faults/tls/mod.rs"]
mod tls;
mod unexpected_input;
mod unsigned_headers;
mod unsuitable_stores;
mod upload_contract;
mod uploads;
mod uppy;
#[path = "../support/webhook_receiver.rs"]
mod webhook_receiver;
mod webhooks;
