//! The local stack for development and tests, never for production: an S3 server inside the process, a mongod as a child,
//! and the same application that production runs in front of them.

pub mod mongod;
pub mod s3;
mod stack;

pub use stack::{DevError, Options, Stack};
