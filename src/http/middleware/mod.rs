//! Wrappers around all routes, one file each; [`super::router`] puts them in order.

pub mod admission;
pub mod compression;
pub mod cors;
pub mod drain;
pub mod errors;
pub mod observe;
pub mod permits;
pub mod request_body;
pub mod request_format;
pub mod request_id;
pub mod security_headers;
