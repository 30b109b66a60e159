//! The HTTP API: handlers convert requests, make one call into the domain, and respond.
//!
//! One file per resource (`auth`, `sessions`, `uploads`, `multipart`, `batch`, `gallery`, `events`, `admin_users`, `uppy`,
//! `health`), each with its request and response types and the [`operation::Operation`] metadata of its handlers. [`router`]
//! mounts them inside [`middleware`]; [`problem`] has the error responses, [`openapi`] the document, [`server`] the connections.
//! [`admin`] and [`hooks`] are the endpoints of addresses of their own. No file here uses the crates of MongoDB and AWS.

pub mod admin;
mod admin_authentication;
mod admin_users;
pub mod auth;
mod authentication;
pub mod batch;
mod body;
mod client;
mod entity_tags;
pub mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gallery;
pub mod health;
pub mod hooks;
mod image_page;
pub mod middleware;
pub mod multipart;
pub mod openapi;
pub mod operation;
pub mod operations;
mod pagination;
mod parameters;
pub mod problem;
mod raw_json;
mod responses;
mod route_table;
pub mod router;
pub mod server;
pub mod sessions;
mod static_files;
mod swagger_ui;
pub mod uploads;
pub mod uppy;
